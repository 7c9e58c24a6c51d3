"""What happened to a model, as server-sent events: the database is asked once a second."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import sqlalchemy as sa
from fastapi import Request
from sqlalchemy.engine import Connection
from starlette.concurrency import run_in_threadpool

from everlearn.base import EverlearnError, InputError, Json
from everlearn.data.feedback import now
from everlearn.storage.database import Database
from everlearn.storage.schema import (
    alias_history,
    jobs,
    rollout_decisions,
    rollouts,
    trigger_decisions,
)

MOST = 100
"""Streams of one process."""

PAGE = 500
"""Events of one kind that are read at once."""

OVERLAP = 10_000_000
"""Microseconds: jobs are looked at again for so long, since clocks of workers differ."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Up to where events were told: numbers of the last alias move, trigger decision and rollout
    decision, and the moment of the last change of a job."""

    alias: int = 0
    trigger: int = 0
    rollout: int = 0
    job: int = 0

    def __str__(self) -> str:
        return f"{self.alias}.{self.trigger}.{self.rollout}.{self.job}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The inverse of `str`; "0" is the beginning. Raises `InputError`."""
        parts = text.split(".")
        if text == "0":
            return cls()
        if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts):
            raise InputError(f"{text!r} is no id of an event: take one that was sent, or 0")
        numbers = [int(part) for part in parts]
        if max(numbers) >= 2**63:
            raise InputError(f"{text!r} is no id of an event: take one that was sent, or 0")
        return cls(*numbers)


class Event(NamedTuple):
    """One event, and the cursor behind it."""

    kind: str
    data: Json
    cursor: Cursor

    def text(self) -> str:
        """As it is sent."""
        return f"id: {self.cursor}\nevent: {self.kind}\ndata: {json.dumps(self.data)}\n\n"


class Events:
    """What is told of models.

    Args:
        database: of the workspace.
        pause: seconds between looks.
    """

    def __init__(self, database: Database, pause: float = 1.0) -> None:
        self._database, self._pause, self.streams = database, pause, 0

    def begin(self, model: int, after: str | None) -> Cursor:
        """Where a stream begins: behind an event, or now.

        Raises:
            InputError: no such event can be.
            OverflowError: there are too many streams.
        """
        if self.streams >= MOST:
            raise OverflowError(f"{MOST} streams of events are open already: close one")
        if after is not None:
            return Cursor.parse(after)
        with self._database.read() as connection:
            alias, trigger, rollout = (
                int(
                    connection.execute(
                        sa.select(sa.func.max(table.c.id)).where(_of(table, model))
                    ).scalar()
                    or 0
                )
                for table in (alias_history, trigger_decisions, rollout_decisions)
            )
        return Cursor(alias, trigger, rollout, now())

    async def follow(
        self, model: int, cursor: Cursor, request: Request, seconds: float
    ) -> AsyncIterator[str]:
        """The events behind a cursor, as text, until the client is gone, the server ends or the
        time is over."""
        ends, told = time.monotonic() + seconds, dict[int, Json]()
        self.streams += 1
        try:
            yield f"retry: 1000\nid: {cursor}\n\n"
            while not await is_over(request):
                try:
                    found = await run_in_threadpool(self.read, model, cursor, told)
                except EverlearnError:  # the database is away: so is this stream, for a while
                    return
                for event in found:
                    cursor = event.cursor
                    yield event.text()
                if time.monotonic() >= ends:
                    return
                if not found:
                    yield ":\n\n"  # tells a client that is gone from one that is silent
                    await asyncio.sleep(min(self._pause, max(0.0, ends - time.monotonic())))
        finally:
            self.streams -= 1

    def read(self, model: int, cursor: Cursor, told: dict[int, Json]) -> list[Event]:
        """What came since a cursor, some of each kind.

        Args:
            told: job → what was last told of it, of those that changed of late; it is brought up
                to date.
        """
        events: list[Event] = []
        with self._database.read() as connection:
            for row in _after(connection, alias_history, model, cursor.alias):
                cursor = replace(cursor, alias=row.pop("id"))
                events.append(Event("alias", row, cursor))
            changed = _changed(connection, model, cursor.job)
            for old in told.keys() - {row["id"] for row in changed}:
                del told[old]
            for row in changed:
                moment = row.pop("changed_at")
                cursor = replace(cursor, job=max(cursor.job, moment))
                if told.get(row["id"]) != row:
                    told[row["id"]] = row
                    events.append(Event("job", row, cursor))
            for row in _after(connection, rollout_decisions, model, cursor.rollout):
                cursor = replace(cursor, rollout=row.pop("id"))
                events.append(Event("rollout", row, cursor))
            for row in _after(connection, trigger_decisions, model, cursor.trigger):
                cursor = replace(cursor, trigger=row.pop("id"))
                events.append(Event("trigger", row, cursor))
        return events


def _after(connection: Connection, table: sa.Table, model: int, last: int) -> list[dict[str, Any]]:
    query = sa.select(table).where(_of(table, model), table.c.id > last)
    rows = connection.execute(query.order_by(table.c.id).limit(PAGE)).mappings()
    return [{name: row[name] for name in row if name != "model_id"} for row in rows]


def _changed(connection: Connection, model: int, moment: int) -> list[dict[str, Any]]:
    """Jobs that were made, claimed or ended since a moment, or a little before it."""
    table = jobs.c
    times = [table.created_at, table.started_at, table.finished_at]
    since = moment - OVERLAP
    query = sa.select(
        table.id,
        table.state,
        table.base_version,
        table.version,
        table.decision,
        table.error,
        *times,
    ).where(table.model_id == model, sa.or_(*(column > since for column in times)))
    found = []
    for row in connection.execute(query).mappings():
        data = dict(row)
        data["changed_at"] = max(row[column.name] or 0 for column in times)
        found.append(data)
    return sorted(found, key=lambda row: (row["changed_at"], row["id"]))


def _of(table: sa.Table, model: int) -> sa.ColumnElement[bool]:
    if table is rollout_decisions:
        mine = sa.select(rollouts.c.id).where(rollouts.c.model_id == model)
        return table.c.rollout_id.in_(mine)
    return table.c.model_id == model


async def is_over(request: Request) -> bool:
    """Whether the client is gone, or the server is about to be."""
    ending = getattr(request.app.state, "ending", None)
    return bool(ending is not None and ending()) or await request.is_disconnected()
