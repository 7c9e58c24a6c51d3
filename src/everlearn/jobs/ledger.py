"""What the versions of each model consumed: read once in a process, for nothing of it changes."""

from __future__ import annotations

import threading

import sqlalchemy as sa

from everlearn.data.join import LogSource
from everlearn.data.slices import Consumed
from everlearn.registry import lineage
from everlearn.registry.models import model_id
from everlearn.storage import schema


class Ledger:
    """The consumptions of all versions, so that planning a job costs the same after a thousand.

    Versions are numbered in the order in which they are committed, and never change; so only those
    beyond the last one that was read are looked for.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read: dict[str, tuple[int, list[tuple[int, Consumed]]]] = {}

    def read(self, connection: sa.Connection, model: str) -> list[tuple[int, Consumed]]:
        """(version, what it consumed of one source), in the order of the versions.

        Raises:
            NotFoundError: there is no such model.
        """
        with self._lock:
            last, found = self._read.get(model, (0, []))
            for number, one in lineage.increments_of(connection, model, after=last):
                last = number
                consumed = Consumed.from_increment({"slice": one.slice, "reasons": one.reasons})
                found.append((number, consumed))
            self._read[model] = last, found
            return list(found)


class Taken:
    """How far versions learned the feedback log of each model, summed up by the database, so that
    the first look after a restart costs little however many versions there are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, tuple[int, int]] = {}  # last version that was looked at, position

    def read(self, connection: sa.Connection, model: str) -> int:
        """The position of the last label that any version of the model took; 0 without one.

        Raises:
            NotFoundError: there is no such model.
        """
        made, learned = schema.versions.c, schema.increments.c
        key = model_id(connection, model)
        with self._lock:
            last, position = self._found.get(model, (0, 0))
            newest = connection.execute(
                sa.select(sa.func.max(made.number)).where(made.model_id == key)
            ).scalar()
            if newest is None or newest == last:
                return position
            query = (
                sa.select(sa.func.max(learned.stop))
                .join(schema.versions, made.id == learned.version_id)
                .where(made.model_id == key, made.number > last, made.number <= newest)
                .where(learned.slice["kind"].as_string() == LogSource.kind)
            )
            position = max(position, connection.execute(query).scalar() or 0)
            self._found[model] = newest, position
            return position
