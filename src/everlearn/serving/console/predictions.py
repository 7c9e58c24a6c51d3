"""The last predictions of a model: what was asked, what was answered, and what was right."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import FastAPI, Query, Request
from fastapi.responses import Response
from sqlalchemy.engine import Connection

from everlearn.base import Json, NotFoundError
from everlearn.data.answers import as_answered, class_name
from everlearn.data.feedback import ERASED, id_number, id_text, values_of
from everlearn.registry.models import model_id
from everlearn.serving.access import needs, page
from everlearn.serving.console import queries, render
from everlearn.serving.console.paging import page_of
from everlearn.serving.console.render import HOME, refused
from everlearn.serving.console.views import Source
from everlearn.serving.console.words import figure
from everlearn.storage.schema import labels, predictions

LONGEST = 300
"""Characters of a feature that are shown."""

LOOKED_AT = 50_000
"""Predictions of all models among which those of one are looked for, at most."""

PredictionId = Annotated[str, Query(max_length=16, pattern=r"^[0-9a-f]*$")]


def add_predictions(app: FastAPI, source: Source) -> None:
    """Add the route."""

    @app.get(HOME + "/models/{model}/predictions", include_in_schema=False)
    @needs("operate")
    @page(refused)
    def console_predictions(model: str, request: Request, before: PredictionId = "") -> Response:
        """The last predictions, newest first."""
        return render.answer(request, "predictions.html", _listed, source, model, before)


def _listed(source: Source, model: str, before: str) -> Json:
    source.check(model)
    with source.registry.database.read() as connection:
        top = id_number(before) if before else queries.MOST
        rows = recent(connection, model, top, queries.PAGE + 1)
    return {"model": model} | page_of([shown(row) for row in rows], "id", first=not before)


def recent(connection: Connection, model: str, before: int, limit: int) -> list[Json]:
    """Predictions of a model, newest first, each with its last label ("label", which is None where
    nothing is known). Three queries.

    Args:
        before: id above all of them.
    """
    table, key = predictions.c, model_id(connection, model)
    older = sa.select(table.id).where(table.id < before).order_by(table.id.desc())
    oldest = sa.func.coalesce(older.limit(1).offset(LOOKED_AT).scalar_subquery(), 0)
    # by way of the ids: `+ 0` keeps the database from sorting all that the model ever answered
    query = sa.select(predictions).where(table.id < before, table.id > oldest)
    query = query.where(table.model_id + 0 == key).order_by(table.id.desc()).limit(limit)
    return _labelled(connection, [dict(row) for row in connection.execute(query).mappings()])


def find(connection: Connection, model: str, name: str) -> Json:
    """One prediction, as `recent` gives it. Raises `InputError` or `NotFoundError`."""
    query = sa.select(predictions).where(
        predictions.c.id == id_number(name), predictions.c.model_id == model_id(connection, model)
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError(
            f"no prediction {name!r} of model {model!r} is in the log: it was made by another one,"
            " was not logged, or is older than what is kept"
        )
    return _labelled(connection, [dict(row)])[0]


def _labelled(connection: Connection, rows: list[Json]) -> list[Json]:
    table = labels.c
    query = sa.select(table.prediction_id, table.value).where(
        table.prediction_id.in_([row["id"] for row in rows]), table.position.is_not(None)
    )
    said = {
        row.prediction_id: row.value for row in connection.execute(query.order_by(table.position))
    }
    for row in rows:
        texts = row["features"], row["output"], said.get(row["id"])
        row["features"], row["output"], row["label"] = values_of(texts)
    return rows


def shown(row: Json) -> Json:
    """A prediction as texts."""
    value = (row["output"] or {}).get("value")
    features = [(name, short(text_of(one))) for name, one in (row["features"] or {}).items()]
    label = row["label"]
    wrong = label is not None and as_answered(label, value) != value
    return {
        "id": id_text(row["id"]),
        "at": row["at"],
        "version": row["version"] or None,
        "arm": row["arm"],
        "key": row["key"],
        "erased": row["arm"] == ERASED,
        "features": features,
        "answer": text_of(value),
        "label": None if label is None else text_of(label),
        "wrong": wrong and not isinstance(value, float),
    }


def short(text: str) -> str:
    """A text, as far as pages show it."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def text_of(value: Any) -> str:
    """A value of a column or of the target, as people read it.

    >>> text_of(True), text_of(3.0), text_of(0.123456), text_of("blue"), text_of(None)
    ('true', '3', '0.1235', 'blue', '–')
    """
    if value is None or (isinstance(value, float) and not value.is_integer()):
        return figure(value)
    return class_name(value)
