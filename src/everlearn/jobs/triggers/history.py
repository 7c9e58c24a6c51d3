"""What triggers ask of the past, read from the feedback log and the queue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from everlearn.base import Json, Schema
from everlearn.data.feedback import PredictionIds
from everlearn.jobs.triggers.facts import Answered, Given
from everlearn.storage.database import Database
from everlearn.storage.schema import jobs, labels, predictions

SKEW = 60_000_000
"""Microseconds by which clocks of processes may differ."""

CHAMPION = "champion"
"""The arm that is looked at."""


class History:
    """The past of one model while one version serves. See `facts.Past`.

    Args:
        database: of the workspace.
        model: row id of the model.
        champion: number of the version that serves, or None.
        since: when that version was made; what is older is not looked at.
        schema: names the columns that are no features.
        taken: position of the last label that a version was learned from.
        head: position of the last label.
    """

    def __init__(
        self,
        database: Database,
        model: int,
        champion: int | None,
        since: int,
        schema: Schema,
        taken: int,
        head: int,
    ) -> None:
        self._database, self._model, self._champion = database, model, champion
        self._since, self._head = since - SKEW, head
        milliseconds = self._since // 1000 - PredictionIds.EPOCH
        self._first_id = max(0, milliseconds) << 21
        roles = (schema.target, schema.id, schema.key, schema.time, schema.label_time)
        self._roles = {name for name in (*roles, schema.weight) if name is not None}
        self._taken = taken

    def head(self) -> int:
        """See `Past`."""
        return self._head

    def given(
        self, after: int, upto: int | None = None, last: int = 0, first: int = 0
    ) -> Sequence[Given]:
        """See `Past`."""
        table = predictions.c
        query = sa.select(table.id, table.features, table.output).where(
            table.id > max(after, self._first_id),
            table.model_id == self._model,
            table.version == self._champion,
            table.arm == CHAMPION,
        )
        if upto is not None:
            query = query.where(table.id <= upto)
        rows = self._read(query, table.id, last, first)
        return [Given(row.id, self._features(row.features), json.loads(row.output)) for row in rows]

    def answered(
        self, after: int, upto: int | None = None, last: int = 0, first: int = 0
    ) -> Sequence[Answered]:
        """See `Past`."""
        table, later = labels.c, labels.alias("later")
        replaced = sa.exists().where(
            later.c.prediction_id == table.prediction_id,  # of the same model, then
            later.c.position > table.position,
        )
        query = (
            sa.select(table.position, table.prediction_id, table.value, predictions.c.output)
            .join(predictions, predictions.c.id == table.prediction_id)
            .where(
                table.model_id == self._model,
                table.position > (after or self._start()),
                table.prediction_id > self._first_id,
                table.value.is_not(None),
                ~replaced,
                predictions.c.version == self._champion,
                predictions.c.arm == CHAMPION,
            )
        )
        if upto is not None:
            query = query.where(table.position <= upto)
        rows = self._read(query, table.position, last, first)
        return [
            Answered(row.position, row.prediction_id, json.loads(row.output), json.loads(row.value))
            for row in rows
        ]

    def waited(self, now: int) -> float:
        """See `Past`."""
        table = labels.c
        query = sa.select(sa.func.sum((now - table.arrived_at) / 1000)).where(
            table.model_id == self._model, table.position > self._taken
        )
        with self._database.read() as connection:
            return max(0.0, float(connection.execute(query).scalar() or 0.0) / 1000.0)

    def job_seconds(self) -> Sequence[float]:
        """See `Past`."""
        table = jobs.c
        query = (
            sa.select(table.started_at, table.finished_at)
            .where(
                table.model_id == self._model,
                table.state == "done",
                table.version.is_not(None),
                table.started_at.is_not(None),
            )
            .order_by(table.id.desc())
            .limit(5)
        )
        with self._database.read() as connection:
            return [(row.finished_at - row.started_at) / 1e6 for row in connection.execute(query)]

    def _read(self, query: sa.Select[Any], by: Any, last: int, first: int) -> list[Any]:
        """The rows in order; only so many of the last or first ones, if that is said."""
        query = query.order_by(by.desc() if last else by)
        if last or first:
            query = query.limit(last or first)
        with self._database.read() as connection:
            rows = list(connection.execute(query))
        return rows[::-1] if last else rows

    def _start(self) -> int:
        """A position before which no label judges the champion: found by halving, as positions are
        given in the order of arrival."""
        table = labels.c
        low, high = 0, self._head
        with self._database.read() as connection:
            while low < high:
                middle = (low + high + 1) // 2
                query = sa.select(table.arrived_at).where(
                    table.model_id == self._model, table.position == middle
                )
                arrived = connection.execute(query).scalar()
                if arrived is None or arrived < self._since:
                    low = middle
                else:
                    high = middle - 1
        return low

    def _features(self, text: str) -> dict[str, Json]:
        asked = json.loads(text)
        return {name: value for name, value in asked.items() if name not in self._roles}
