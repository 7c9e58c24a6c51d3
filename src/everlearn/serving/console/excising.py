"""Withdrawing rows: a form, what would be folded again without them, and the list of what was
withdrawn."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response
from pydantic import ValidationError

from everlearn.base import EverlearnError, InputError, Json
from everlearn.data.selection import Selection
from everlearn.serving.access import needs, page
from everlearn.serving.console import queries, render
from everlearn.serving.console.paging import Before, Made, page_of
from everlearn.serving.console.render import HOME, Fields, refused
from everlearn.serving.console.views import Source
from everlearn.serving.repairing import ExciseBody, Repairs

SAID = ("by", "what", "reason")
"""Fields of the form."""

BY = {
    "where": "for which a condition holds",
    "key": "of a key",
    "rows": "by their numbers",
    "induced_by": "that judge what a version answered",
}
"""What selects rows → what the form calls it."""

Text = Annotated[str, Query(max_length=20_000, pattern=r"^[^\x00]*$")]


def add_excising(app: FastAPI, source: Source, repairs: Repairs) -> None:
    """Add the routes."""

    @app.get(HOME + "/models/{model}/withdrawals", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_withdrawals(
        model: str, request: Request, before: Before = queries.MOST, made: Made = None
    ) -> Response:
        """What was withdrawn, newest first.

        Args:
            made: the withdrawal that was made just now.
        """
        arguments = source, repairs, model, before, made
        return render.answer(request, "withdrawals.html", _listed, *arguments)

    @app.get(HOME + "/models/{model}/excise", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_excise(model: str, request: Request, where: Text = "") -> Response:
        """A form for rows that are to be withdrawn."""
        return render.answer(request, "excise.html", _form, source, model, {"what": where})

    @app.post(HOME + "/models/{model}/excise", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_excise_do(model: str, request: Request, fields: Fields) -> Response:
        """Show what would be folded again; withdraw the rows, once that was seen; or go back."""
        step = fields.get("step")
        try:
            shown = _form(source, model, fields)
            if step not in ("preview", "confirm"):
                return render.page(request, "excise.html", shown)
            body = _body(fields, render.author(request), dry_run=step == "preview")
            found = repairs.excise(model, body)
            if step == "confirm":
                path = f"{HOME}/models/{quote(model, safe='')}/withdrawals"
                return render.redirect(f"{path}?made={found['withdrawal']}")
            words = {"found": found, "selection": str(Selection.from_json(found["selection"]))}
            return render.page(request, "excision.html", shown | words)
        except EverlearnError as error:
            shown = _form(source, model, fields, str(error))
            return render.page(request, "excise.html", shown, render.status_of(error))


def _form(source: Source, model: str, fields: dict[str, str], wrong: str = "") -> Json:
    source.check(model)
    said = {name: fields.get(name, "") for name in SAID}
    if said["by"] not in BY:
        said["by"] = "where"
    return {"model": model, "said": said, "ways": BY, "wrong": wrong, "stream": "", "form": True}


def _body(fields: dict[str, str], author: str | None, *, dry_run: bool) -> ExciseBody:
    """What the form asks for. Raises `InputError`."""
    by, what = fields.get("by", ""), fields.get("what", "").strip()
    if by not in BY or not what:
        raise InputError("say which rows are meant")
    reason = fields.get("reason", "").strip()
    if not reason:
        raise InputError("say why: the reason is kept with the withdrawal")
    asked = {by: what.split() if by == "rows" else what, "reason": reason, "author": author}
    try:
        return ExciseBody.model_validate(asked | {"dry_run": dry_run})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{BY.get(by) if by in first['loc'] else 'reason'}: {first['msg']}"
        ) from error


def _listed(source: Source, repairs: Repairs, model: str, before: int, made: int | None) -> Json:
    source.check(model)
    known = repairs.withdrawals(model)
    rows = [one for one in reversed(known) if one["number"] < before]
    shown = page_of(rows, "number", first=before >= queries.MOST)
    for row in shown["rows"]:
        asked = row["condition"]
        row["said"] = asked.get("erased") or str(Selection.from_json(asked))
    newest = next((one for one in known if one["number"] == made), None)
    return {"model": model, "made": newest} | shown
