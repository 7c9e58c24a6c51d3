"""Putting one wrong answer right: a form, what else would change, and the patch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import ValidationError

from everlearn.base import EverlearnError, InputError, Json, NotFoundError
from everlearn.data.answers import class_name
from everlearn.data.feedback import ERASED
from everlearn.jobs.learn import Fold
from everlearn.jobs.patch.patches import PatchResult
from everlearn.registry.models import plain
from everlearn.serving.access import needs, page
from everlearn.serving.console import render, whatif
from everlearn.serving.console.desk import known_classes, target_value
from everlearn.serving.console.predictions import PredictionId, find, shown, text_of
from everlearn.serving.console.render import HOME, Fields, refused
from everlearn.serving.console.views import Source
from everlearn.serving.repairing import EditBody, PatchBody, Repairs

if TYPE_CHECKING:
    from everlearn.serving.models import Models

SAID = ("of", "wanted", "reason", "way")
"""Fields of the form."""

WAYS = {
    "auto": "whichever changes less",
    "memory": "an exception for this input",
    "weights": "the model's weights",
}
"""Ways of a patch → what the form calls them."""


def add_correcting(app: FastAPI, source: Source, models: Models, repairs: Repairs) -> None:
    """Add the routes."""
    desk = _Desk(source, models, repairs)

    @app.get(HOME + "/models/{model}/correct", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_correct(model: str, request: Request, of: PredictionId = "") -> Response:
        """A form for what should have been answered."""
        return render.answer(request, "correct.html", desk.form, model, {"of": of})

    @app.post(HOME + "/models/{model}/correct", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_correct_do(model: str, request: Request, fields: Fields) -> Response:
        """Show what else would change; patch the model, once that was seen; or go back."""
        step, author = fields.get("step"), render.author(request)
        try:
            if step == "confirm":
                return render.redirect(desk.patch(model, fields, author))
            if step == "preview":
                found = desk.preview(model, fields, author)
                return render.page(request, "correction.html", found)
            return render.page(request, "correct.html", desk.form(model, fields))
        except EverlearnError as error:
            return _again(request, desk, model, fields, error)


def _again(
    request: Request, desk: _Desk, model: str, fields: dict[str, str], error: EverlearnError
) -> Response:
    """The form as it was filled, and what is wrong."""
    try:
        found = desk.form(model, fields, str(error))
    except EverlearnError:  # what it is about cannot be shown either
        return render.failed(error, f"{HOME}/models/{quote(model, safe='')}/predictions")
    return render.page(request, "correct.html", found, render.status_of(error))


class _Desk:
    """What the pages of a correction show and do."""

    def __init__(self, source: Source, models: Models, repairs: Repairs) -> None:
        self._source, self._models, self._repairs = source, models, repairs

    def form(self, model: str, fields: dict[str, str], wrong: str = "") -> Json:
        """The prediction, and what is wanted of it so far. Raises what makes it no prediction that
        can be corrected."""
        row, fold = self._asked(model, fields)
        answered = (row["output"] or {}).get("value")
        now = whatif.answers(fold, [_known(fold, row["features"])])[0]["value"]
        return self._shown(model, row, fields) | {
            "choices": _choices(fold),
            "now": text_of(now),
            "now_differs": now != answered,
            "unknown": [one for one in row["features"] if one not in whatif.features_of(fold)],
            "ways": WAYS,
            "wrong": wrong,
        }

    def preview(self, model: str, fields: dict[str, str], author: str | None) -> Json:
        """What the patch would change. Raises what `Patches` does."""
        row, fold = self._asked(model, fields)
        body = self._body(model, fields, row, fold, author, dry_run=True)
        champion = self._models.versions.version(model).number
        found = self._repairs.patch(model, body, expected=champion)
        return self._shown(model, row, fields) | {
            "expected": champion,
            "answer_wanted": text_of(body.edits[0].output),
            "found": _told(found),
            "recent": whatif.recent_flips(self._source, model, found.patch, body.edits[0].features),
        }

    def patch(self, model: str, fields: dict[str, str], author: str | None) -> str:
        """Make the patch; the page on which one sees it. Raises what `Patches` does."""
        row, fold = self._asked(model, fields)
        expected = fields.get("expected", "")
        if not (expected.isascii() and expected.isdigit() and len(expected) < 10):
            raise InputError("look at what would change before it is confirmed")
        body = self._body(model, fields, row, fold, author, dry_run=False)
        found = self._repairs.patch(model, body, expected=int(expected))
        return f"{HOME}/models/{quote(model, safe='')}/edits?made={found.version}"

    def _asked(self, model: str, fields: dict[str, str]) -> tuple[Json, Fold]:
        self._source.check(model)
        with self._source.registry.database.read() as connection:
            row = find(connection, model, fields.get("of", ""))
        if row["arm"] == ERASED:
            raise InputError("the data of this prediction was erased: there is nothing to correct")
        fold = self._models.predictor(model).served.fold
        if fold is None:
            raise NotFoundError(f"nothing serves for {model!r} yet: there is nothing to correct")
        if fold.kind not in ("classifier", "regressor"):
            raise InputError(f"a {fold.kind} has no answers that could be put right")
        return row, fold

    def _shown(self, model: str, row: Json, fields: dict[str, str]) -> Json:
        said = {name: fields.get(name, "") for name in SAID}
        said["way"] = said["way"] or "auto"
        it = shown(row)
        if not said["wanted"] and it["wrong"]:
            said["wanted"] = class_name(row["label"])
        return {"model": model, "it": it, "said": said, "stream": "", "form": True}

    def _body(
        self,
        model: str,
        fields: dict[str, str],
        row: Json,
        fold: Fold,
        author: str | None,
        *,
        dry_run: bool,
    ) -> PatchBody:
        wanted = fields.get("wanted", "").strip()
        if not wanted:
            raise InputError("say which answer is wanted")
        if not fields.get("reason", "").strip():
            raise InputError("say why: the reason is kept with the edit")
        choice = wanted if _choices(fold) else None
        try:
            edit = EditBody(
                features=_known(fold, row["features"]),
                output=target_value(self._models, model, choice, wanted),
                reason=fields["reason"].strip(),
                author=author,
                prediction_id=fields["of"],
            )
            return PatchBody.model_validate(
                {"edits": [edit], "way": fields.get("way") or "auto", "dry_run": dry_run}
            )
        except ValidationError as error:
            first = error.errors()[0]
            place = " of ".join(str(one) for one in reversed(first["loc"]))
            raise InputError(f"{place}: {first['msg']}") from error


def _choices(fold: Fold) -> list[str]:
    """Names of the classes; none of a regressor."""
    if fold.kind != "classifier":
        return []
    return [class_name(value) for value in known_classes(fold)]


def _known(fold: Fold, features: Json) -> dict[str, Any]:
    """What was asked, without columns that the champion does not know, which it passes over."""
    known = whatif.features_of(fold)
    return {name: value for name, value in features.items() if name in known}


def _told(found: PatchResult) -> Json:
    """What a dry run found, made ready for its template."""
    report, evidence = found.report, found.decision.evidence
    ways = [one for one in report["ways"] if not one["edit"]]
    locality, reference = report["locality"], report["reference_rows"]
    held = {name: (evidence.get(name) or {}).get("churn") for name in ("recent", "historical")}
    return plain(
        {
            "decision": found.decision.to_json(),
            "success": report["success"],
            "edits": len(report["edits"]),
            "generalisation": report["generalisation"],
            "way": ways[0],
            "reference": reference,
            "changed": None if locality is None else round((1.0 - locality) * reference),
            "systematic": report["systematic"],
            "notes": report["notes"],
            "held": {name: figures for name, figures in held.items() if figures},
            "seconds": report["seconds"],
        }
    )
