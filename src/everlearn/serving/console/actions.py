"""What operators do in the console: each action is a page that says what will happen, with a form
that does it. The functions are those of the API, and so is the audit log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import quote

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response
from pydantic import ValidationError

from everlearn.base import ConflictError, EverlearnError, InputError, Json, NotFoundError
from everlearn.registry import aliases, edits
from everlearn.serving import operating
from everlearn.serving.access import needs, page
from everlearn.serving.bodies import PromoteBody, RollbackBody
from everlearn.serving.console import queries, render
from everlearn.serving.console.predictions import short, text_of
from everlearn.serving.console.render import HOME, Fields, refused
from everlearn.serving.console.views import Source
from everlearn.serving.repairing import Repairs

if TYPE_CHECKING:
    from everlearn.serving.models import Models

WHERE = "in the console"

Action = Literal["promote", "roll-back", "stop", "run", "release", "take-again", "revoke"]
Asked = Annotated[str, Query(max_length=1000, pattern=r"^[^\x00]*$")]


@dataclass(frozen=True, slots=True)
class Plan:
    """What an action would do.

    Args:
        title: as a question.
        button: what its button says.
        lines: what will happen.
        facts: names and values that speak for it or against it.
        fields: of the form; what has to be so still when it is sent is among them.
        back: path of the page on which it was asked for.
        warning: what speaks against it.
    """

    title: str
    button: str
    lines: list[str]
    facts: list[tuple[str, Json]]
    fields: dict[str, str]
    back: str
    warning: str = ""


def add_actions(app: FastAPI, source: Source, models: Models) -> None:
    """Add the routes."""

    @app.get(HOME + "/models/{model}/do/{action}", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_ask(model: str, action: Action, request: Request, of: Asked = "") -> Response:
        """What an action would do, with a button that does it.

        Args:
            of: the version, rollout, source, message or edit that is meant.
        """

        def view() -> Json:
            source.check(model)
            shown = {"model": model, "action": action, "stream": "", "to": _here(model, action)}
            return shown | {"plan": _PLANS[action](source, model, of)}

        return render.answer(request, "confirm.html", view)

    @app.post(HOME + "/models/{model}/do/{action}", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_do(model: str, action: Action, fields: Fields) -> Response:
        """Do it, and go where one sees it."""
        try:
            source.check(model)
            return _DONE[action](models, model, fields)
        except ValidationError:
            wrong = InputError("the form does not say what it is about: open it again")
            return render.failed(wrong, _page(model))
        except EverlearnError as error:
            return render.failed(error, _page(model))


# --- what each would do ---


def _ask_promote(source: Source, model: str, of: str) -> Plan:
    number = _number(of)
    with source.registry.database.read() as connection:
        champion = aliases.current(connection, model)
        rows = queries.versions(connection, model, number + 1, 1)
    if not rows or rows[0]["number"] != number:
        raise NotFoundError(f"model {model!r} has no version {number}")
    said = rows[0]["decision"] or {}
    warning = ""
    if said.get("action") == "refuse":
        warning = f"The gate refused it: {said['reason']}"
    return Plan(
        title=f"Make version {number} champion of {model}?",
        button=f"Promote version {number}",
        lines=[
            "It answers all requests at once, without a trial."
            + ("" if champion is None else f" Version {champion} can be rolled back to."),
        ],
        facts=[
            ("Champion now", "none" if champion is None else f"version {champion}"),
            ("Decision of its gate", said.get("reason")),
            ("Rows learned", rows[0]["rows"]),
        ],
        fields={"version": str(number), "expected": "" if champion is None else str(champion)},
        back=f"{_page(model)}/versions/{number}",
        warning=warning,
    )


def _ask_roll_back(source: Source, model: str, of: str) -> Plan:
    with source.registry.database.read() as connection:
        champion = aliases.current(connection, model)
        former = aliases.former_champions(connection, model)
        move = queries.last_move(connection, model)
    if champion is None or not former:
        raise InputError(f"there is no earlier champion of {model!r} to go back to")
    return Plan(
        title=f"Roll {model} back to version {former[-1]}?",
        button=f"Roll back to version {former[-1]}",
        lines=[
            f"Version {former[-1]} answers again at once. What version {champion} learned is on"
            " hold until it is asked for."
        ],
        facts=[("Champion now", f"version {champion}"), ("Since then, because", move["reason"])],
        fields={"to": str(former[-1]), "expected": str(champion)},
        back=_page(model),
    )


def _ask_stop(source: Source, model: str, of: str) -> Plan:
    running = source.rollouts.running(model)
    if running is None:
        raise InputError(f"no rollout of {model!r} is running")
    return Plan(
        title=f"Stop rollout {running.id} of {model}?",
        button="Stop it",
        lines=[
            f"Version {running.champion} answers all requests again; version {running.candidate}"
            " stays a version, and is not tried again by itself."
        ],
        facts=[("Stage", running.stage + 1)],
        fields={"rollout": str(running.id)},
        back=f"{_page(model)}/rollouts/{running.id}",
    )


def _ask_run(source: Source, model: str, of: str) -> Plan:
    unlearned = source.updates.unlearned(model)
    with source.registry.database.read() as connection:
        champion = aliases.current(connection, model)
    return Plan(
        title=f"Learn the new labels of {model} now?",
        button="Queue a job",
        lines=["A job is queued, whatever the triggers say. Its candidate goes through the gate."],
        facts=[
            ("Labels not learned yet", unlearned),
            ("Starts from", "nothing" if champion is None else f"version {champion}"),
        ],
        fields={},
        back=f"{_page(model)}/jobs",
        warning="" if unlearned else "No label is new: there is nothing to learn.",
    )


def _ask_release(source: Source, model: str, of: str) -> Plan:
    held = source.updates.quarantine(model).held(of)
    return Plan(
        title=f"Believe the source {of} again?",
        button="Release it",
        lines=[
            "What it says from now on is learned like that of others. Its labels that were set"
            " aside, and for which nobody else spoke, are learned by a job of their own."
        ],
        facts=[("Quarantined because", held.reason), *sorted((held.evidence or {}).items())],
        fields={"source": of},
        back=f"{_page(model)}/quarantine",
    )


def _ask_take_again(source: Source, model: str, of: str) -> Plan:
    number = _number(of)
    with source.registry.database.read() as connection:
        rows = queries.set_aside(connection, model, number + 1, 1)
    if not rows or rows[0]["id"] != number:
        raise NotFoundError(f"no message {number} is set aside")
    return Plan(
        title=f"Take message {number} again?",
        button="Take it again",
        lines=["It is read as if it came now. If it still cannot be logged, it stays set aside."],
        facts=[
            ("Stream", rows[0]["stream"]),
            ("Set aside because", rows[0]["reason"]),
            ("Message", rows[0]["body"][:2000]),
        ],
        fields={"message": str(number)},
        back=f"{_page(model)}/set-aside",
    )


def _ask_revoke(source: Source, model: str, of: str) -> Plan:
    number = _number(of)
    with source.registry.database.read() as connection:
        champion = aliases.current(connection, model)
        known = {one.edit.number: one for one in edits.listed(connection, model)}
    found = known.get(number)
    if found is None:
        raise NotFoundError(f"model {model!r} has no edit {number}")
    if found.ended_at is not None:
        raise InputError(f"edit {number} of {model!r} has ended already: {found.ended_why}")
    edit = found.edit
    return Plan(
        title=f"Revoke edit {number} of {model}?",
        button=f"Revoke edit {number}",
        lines=[
            "This input is answered at once as the model answers it by itself. The other edits"
            " are solved again, and stay."
        ],
        facts=[
            ("Answer wanted", text_of(edit.output)),
            ("Asked with", ", ".join(f"{k} {short(text_of(v))}" for k, v in edit.features.items())),
            ("Reason", edit.reason),
            ("By", edit.author),
        ],
        fields={"edit": str(number), "expected": "" if champion is None else str(champion)},
        back=f"{_page(model)}/edits",
    )


# --- what each does ---


def _promote(models: Models, model: str, fields: dict[str, str]) -> Response:
    expected = fields.get("expected") or None
    body = PromoteBody.model_validate({"version": fields.get("version"), "expected": expected})
    operating.promote(models, model, body, WHERE)
    return render.redirect(_page(model))


def _roll_back(models: Models, model: str, fields: dict[str, str]) -> Response:
    _check_champion(models, model, fields)
    operating.roll_back(models, model, RollbackBody.model_validate({"to": fields.get("to")}))
    return render.redirect(_page(model))


def _stop(models: Models, model: str, fields: dict[str, str]) -> Response:
    running = models.rollouts.running(model)
    if running is None or str(running.id) != fields.get("rollout"):
        raise ConflictError("that rollout does not run any more")
    operating.stop_rollout(models, model, WHERE)
    return render.redirect(f"{_page(model)}/rollouts/{running.id}")


def _run(models: Models, model: str, fields: dict[str, str]) -> Response:
    found = operating.run_job(models, model)
    if found["job"] is None:
        back = f"{_page(model)}/jobs"
        return render.said("No job was queued", found["decision"]["reason"], back=back)
    return render.redirect(f"{_page(model)}/jobs/{found['job']}")


def _release(models: Models, model: str, fields: dict[str, str]) -> Response:
    found = operating.release_source(models, model, fields.get("source", ""))
    if found["job"] is None:
        return render.redirect(f"{_page(model)}/quarantine")
    return render.redirect(f"{_page(model)}/jobs/{found['job']}")


def _take_again(models: Models, model: str, fields: dict[str, str]) -> Response:
    back = f"{_page(model)}/set-aside"
    found = operating.release_message(models, model, _number(fields.get("message", "")))
    if not found["released"]:
        return render.said("It stays set aside", found["reason"], back=back)
    return render.redirect(back)


def _revoke(models: Models, model: str, fields: dict[str, str]) -> Response:
    _check_champion(models, model, fields)
    found = Repairs(models).revoke(model, _number(fields.get("edit", "")))
    made = f"?made={found['version']}" if found["version"] else ""
    return render.redirect(f"{_page(model)}/edits{made}")


def _check_champion(models: Models, model: str, fields: dict[str, str]) -> None:
    """Raise `ConflictError` if the champion is not the one that the form was about."""
    champion = models.versions.champion(model)
    if ("" if champion is None else str(champion.number)) != fields.get("expected"):
        raise ConflictError("another version is champion by now: look again")


_PLANS: dict[Action, Callable[[Source, str, str], Plan]] = {
    "promote": _ask_promote,
    "roll-back": _ask_roll_back,
    "stop": _ask_stop,
    "run": _ask_run,
    "release": _ask_release,
    "take-again": _ask_take_again,
    "revoke": _ask_revoke,
}
_DONE: dict[Action, Callable[[Models, str, dict[str, str]], Response]] = {
    "promote": _promote,
    "roll-back": _roll_back,
    "stop": _stop,
    "run": _run,
    "release": _release,
    "take-again": _take_again,
    "revoke": _revoke,
}


def _number(text: str) -> int:
    """A number of something. Raises `InputError`."""
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 19):
        raise InputError(f"{text[:50]!r} is no number")
    return int(text)


def _page(model: str) -> str:
    return f"{HOME}/models/{quote(model, safe='')}"


def _here(model: str, action: str) -> str:
    return f"{_page(model)}/do/{action}"
