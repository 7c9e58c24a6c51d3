"""Bisections in the console: asked for, watched, and what they found."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import Response

from everlearn.base import EverlearnError, InputError, Json
from everlearn.evaluation.gates import METRICS
from everlearn.jobs.bisect.bisector import Question
from everlearn.jobs.bisect.records import Bisections
from everlearn.registry import aliases
from everlearn.serving.access import needs, page
from everlearn.serving.bisecting import Bisecting
from everlearn.serving.console import queries, render
from everlearn.serving.console.predictions import text_of
from everlearn.serving.console.render import HOME, Fields, refused
from everlearn.serving.console.views import Source
from everlearn.serving.console.words import title_of
from everlearn.serving.reviewing import Number

if TYPE_CHECKING:
    from everlearn.serving.models import Models


def add_bisecting(app: FastAPI, source: Source, models: Models, bisecting: Bisecting) -> None:
    """Add the routes."""

    def kept(model: str) -> Bisections:
        source.check(model)
        return Bisections(source.registry.database, model)

    def listed(model: str, fields: dict[str, str], wrong: str = "") -> Json:
        rows = kept(model).listed(queries.PAGE)
        found = {"model": model, "wrong": wrong, "said": _said(source, model, fields)}
        return found | {
            "rows": [bisecting.told(model, row) for row in rows],
            "metrics": [(name, title_of(name)) for name in _metrics(models, model)],
        }

    @app.get(HOME + "/models/{model}/bisections", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_bisections(model: str, request: Request) -> Response:
        """The newest bisections, and a form that asks for one."""
        return render.answer(request, "bisections.html", listed, model, {})

    @app.post(HOME + "/models/{model}/bisections", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_bisect(model: str, request: Request, fields: Fields) -> Response:
        """Have a question answered, or go on with it."""
        try:
            source.check(model)
            good, bad = (_version(fields, name) for name in ("good", "bad"))
            row = bisecting.ask(model, Question(good, bad, fields.get("metric", "")))
            return render.redirect(f"{_page(model)}/{row.number}")
        except EverlearnError as error:
            try:
                found = listed(model, fields, str(error))
            except EverlearnError:  # there is no such model
                return render.failed(error)
            return render.page(request, "bisections.html", found, render.status_of(error))

    @app.get(HOME + "/models/{model}/bisections/{number}", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_bisection(model: str, number: Number, request: Request) -> Response:
        """One bisection: how far it is, or what it found."""

        def view() -> Json:
            found = bisecting.told(model, kept(model).get(number))
            return {"model": model, "it": found, "report": _report(found)}

        return render.answer(request, "bisection.html", view)


def _said(source: Source, model: str, fields: dict[str, str]) -> dict[str, str]:
    """What the form has, or proposes: the champion, against the one before."""
    with source.registry.database.read() as connection:
        champion = aliases.current(connection, model)
        former = aliases.former_champions(connection, model)
    proposed = {
        "good": str(former[-1]) if former else "",
        "bad": "" if champion is None else str(champion),
        "metric": "",
    }
    return {name: fields.get(name, value) for name, value in proposed.items()}


def _metrics(models: Models, model: str) -> tuple[str, ...]:
    """By which versions of the model may be judged."""
    fold = models.predictor(model).served.fold
    return () if fold is None else METRICS.get(fold.kind, ())


def _report(found: Json) -> Json:
    """The report of a bisection, made ready for its template; None while there is none."""
    report = found["report"]
    if not report or "decision" not in report:
        return None
    blame = report["blame"]
    found_ = None if blame is None else blame["found"]
    levels = [] if blame is None else [_level(level) for level in blame["levels"]]
    rows = [] if blame is None else blame["rows"]
    return report | {
        "metric": title_of(report["metric"]),
        "found": found_,
        "where": None if found_ is None else found_["where"],
        "levels": levels,
        "rows": [row | {"label": text_of(row["label"]),
                        "predicted": text_of(row["predicted"])} for row in rows],
    }  # fmt: skip


def _level(level: Json) -> Json:
    """One cut of an increment: its groups, the most harmful first."""
    groups = [
        group | {"damage": _mean(group["alone"]), "blamed": group["name"] == level["found"]}
        for group in level["groups"]
    ]
    groups.sort(key=lambda group: -(group["damage"] or 0.0))
    return {"of": level["of"], "by": level["by"], "groups": groups[: queries.PAGE]}


def _mean(alone: Json) -> float | None:
    worse = (alone or {}).get("worse_by")
    return None if worse is None else float(worse["mean"])


def _version(fields: dict[str, str], name: str) -> int:
    """The number of a version. Raises `InputError`."""
    text = fields.get(name, "").strip()
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text)):
        raise InputError(f"the {name} version is a number, such as 12, not {text[:50]!r}")
    return int(text)


def _page(model: str) -> str:
    return f"{HOME}/models/{quote(model, safe='')}/bisections"
