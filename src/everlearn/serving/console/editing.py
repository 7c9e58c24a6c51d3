"""The edits of a model: what answers were put right, and what became of that."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response

from everlearn.base import Json
from everlearn.serving.access import needs, page
from everlearn.serving.console import queries, render
from everlearn.serving.console.paging import Before, Made, page_of
from everlearn.serving.console.predictions import short, text_of
from everlearn.serving.console.render import HOME, refused
from everlearn.serving.console.views import Source
from everlearn.serving.repairing import Repairs


def add_edits(app: FastAPI, source: Source, repairs: Repairs) -> None:
    """Add the route."""

    @app.get(HOME + "/models/{model}/edits", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_edits(
        model: str, request: Request, before: Before = queries.MOST, made: Made = None
    ) -> Response:
        """The edits, newest first.

        Args:
            made: the version that came of a patch just now.
        """
        return render.answer(request, "edits.html", _listed, source, repairs, model, before, made)


def _listed(source: Source, repairs: Repairs, model: str, before: int, made: int | None) -> Json:
    source.check(model)
    rows = [one for one in reversed(repairs.edits(model)) if one["number"] < before]
    shown = page_of([_shown(row) for row in rows], "number", first=before >= queries.MOST)
    version = None
    if made is not None:
        with source.registry.database.read() as connection:
            found = queries.versions(connection, model, made + 1, 1)
        version = found[0] if found and found[0]["number"] == made else None
    return {"model": model, "made": version} | shown


def _shown(row: Json) -> Json:
    """An edit as texts."""
    features = [(name, short(text_of(value))) for name, value in row["features"].items()]
    return row | {"features": features, "wanted": text_of(row["output"])}
