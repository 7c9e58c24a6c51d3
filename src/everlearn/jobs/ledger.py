"""What the versions of each model consumed: read once in a process, for nothing of it changes."""

from __future__ import annotations

import threading

import sqlalchemy as sa

from everlearn.data.slices import Consumed
from everlearn.registry import lineage


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
