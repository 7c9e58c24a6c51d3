"""Bisections as they are kept: what was asked, what was measured so far, and the report.

Every measurement is written down as it ends. The same question, asked again after a kill or while
another process is at it, goes on from what is there, and what is answered is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from everlearn.base import ConflictError, Json, NotFoundError
from everlearn.registry.audit import note
from everlearn.registry.models import as_text, model_id, now
from everlearn.storage.database import Database
from everlearn.storage.schema import bisections

RUNNING, DONE, FAILED = "running", "done", "failed"

ERASED_MEANWHILE = "data of one key was erased, which this may have had; ask again"
"""What is left of a bisection after an erasure. It has no fingerprint: it is not gone on with."""

ATTEMPTS = 100
"""How often a measurement is written anew because another process wrote one meanwhile."""


@dataclass(frozen=True, slots=True)
class Row:
    """One bisection.

    Args:
        number: by which it is named.
        asked: {"good", "bad", "metric", "rows", …}, as `Bisector` understood it, and the "blob" of
            the rows to judge on.
        fingerprint: of all that the answer depends on.
        state: "running", "done" or "failed".
        probes: name of a measurement → what was measured.
        report: once it is done; {"error": …} where it failed.
        revision: grows by 1 with every change.
        created_at, finished_at: microseconds.
    """

    number: int
    asked: Json
    fingerprint: str
    state: str
    probes: Json
    report: Json
    revision: int
    created_at: int
    finished_at: int | None

    def to_json(self) -> dict[str, Json]:
        """What the HTTP API says of it."""
        versions = {
            int(name.removeprefix("version ")): found["value"]
            for name, found in self.probes.items()
            if name.startswith("version ")
        }
        return {
            "number": self.number,
            "state": self.state,
            "asked": {name: said for name, said in self.asked.items() if name != "blob"},
            "measured": len(self.probes),
            "probes": [{"version": n, "value": versions[n]} for n in sorted(versions)],
            "report": self.report,
            "created_at": as_text(self.created_at),
            "finished_at": None if self.finished_at is None else as_text(self.finished_at),
        }


class Bisections:
    """The bisections of one model.

    Args:
        database: of the workspace.
        model: its name.

    Raises:
        NotFoundError: there is no such model.
    """

    def __init__(self, database: Database, model: str) -> None:
        self._database, self.model = database, model
        with database.read() as connection:
            self._key = model_id(connection, model)

    def open(self, asked: Json, fingerprint: str, blob: str) -> Row:
        """The bisection of a question: the one that was begun, or answered, or a new one. One that
        failed goes on from what it measured.

        Args:
            blob: of the rows to judge on, which goes where data is erased.
        """
        table = bisections.c
        with self._database.write() as connection:
            query = self._select().where(table.fingerprint == fingerprint).order_by(table.id.desc())
            row = connection.execute(query.limit(1)).first()
            if row is None:
                new = {
                    "model_id": self._key,
                    "asked": {**asked, "blob": blob},
                    "fingerprint": fingerprint,
                    "state": RUNNING,
                    "probes": {},
                    "report": None,
                    "revision": 0,
                    "created_at": now(),
                }
                connection.execute(sa.insert(bisections).values(new))
                note(connection, "bisect", self.model, asked)
                row = connection.execute(query.limit(1)).one()
            elif row.state == FAILED:
                again = {"state": RUNNING, "report": None, "finished_at": None}
                changed = {**again, "revision": row.revision + 1}
                connection.execute(sa.update(bisections).where(table.id == row.id).values(changed))
                row = connection.execute(query.limit(1)).one()
        return Row(*row)

    def get(self, number: int) -> Row:
        """One of them. Raises `NotFoundError`."""
        with self._database.read() as connection:
            row = connection.execute(self._select().where(bisections.c.id == number)).first()
        if row is None:
            raise NotFoundError(f"model {self.model!r} has no bisection {number}")
        return Row(*row)

    def listed(self, limit: int = 100) -> list[Row]:
        """The newest of them, newest first."""
        query = self._select().order_by(bisections.c.id.desc()).limit(limit)
        with self._database.read() as connection:
            return [Row(*row) for row in connection.execute(query)]

    def measured(self, number: int, found: Json) -> Json:
        """Write measurements down, by their names; all that are known, those of others too.

        Raises:
            ConflictError: data was erased that they may be of.
        """
        for _ in range(ATTEMPTS):
            row = self.get(number)
            if not row.fingerprint:
                raise ConflictError(f"bisection {number}: {ERASED_MEANWHILE}")
            probes = {**found, **row.probes}
            if len(probes) == len(row.probes) or self._change(row, {"probes": probes}):
                return probes
        raise ConflictError(f"bisection {number} is written by too many processes at once")

    def end(self, number: int, state: str, report: Json) -> Row:
        """Write down how it ended: with its report, or with {"error": …}."""
        for _ in range(ATTEMPTS):
            row = self.get(number)
            if row.state != RUNNING:
                return row
            if self._change(row, {"state": state, "report": report, "finished_at": now()}):
                return self.get(number)
        raise ConflictError(f"bisection {number} is written by too many processes at once")

    def _change(self, row: Row, values: dict[str, Json]) -> bool:
        """Change a row, unless it was changed since it was read."""
        same = (bisections.c.id == row.number) & (bisections.c.revision == row.revision)
        change = sa.update(bisections).where(same).values(revision=row.revision + 1, **values)
        with self._database.write() as connection:
            return connection.execute(change).rowcount == 1

    def _select(self) -> sa.Select[Any]:
        table = bisections.c
        columns = (
            table.id, table.asked, table.fingerprint, table.state, table.probes, table.report,
            table.revision, table.created_at, table.finished_at,
        )  # fmt: skip
        return sa.select(*columns).where(table.model_id == self._key)
