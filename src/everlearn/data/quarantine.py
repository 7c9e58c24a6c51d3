"""Sources of labels that are in quarantine: what they say is set aside until they are released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import ConflictError, Decision, Json, NotFoundError
from everlearn.data.feedback import now
from everlearn.storage.database import Database
from everlearn.storage.positions import locked_head
from everlearn.storage.schema import quarantine_spans, quarantined_sources


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A source that is or was in quarantine.

    Args:
        source: its name.
        reason: why, for people.
        evidence: the figures; "after" is the position after which its labels are set aside.
        at: since when, in microseconds since 1970 UTC.
        released_at: when it was released; None if it was not.
    """

    source: str
    reason: str
    evidence: Json
    at: int
    released_at: int | None


class Span(NamedTuple):
    """Labels of a source that are set aside where every label is learned as it arrives.

    Args:
        source: its name.
        after, until: those with after < position ≤ until; None: it is not released.
    """

    source: str
    after: int
    until: int | None

    def holds(self, after: int) -> bool:
        """Whether the label that comes next after a position is set aside."""
        return self.after <= after and (self.until is None or after < self.until)


class Quarantine:
    """The sources of one model.

    A job looks at who is in quarantine when it is planned. What is learned online may be learned
    again, from a version on, and has to end alike: so it is kept for good which labels were set
    aside there, from the last one before a source was found to the last one before its release.

    Args:
        database: of the workspace.
        model: row id of the model.
    """

    def __init__(self, database: Database, model: int) -> None:
        self._database, self._model = database, model

    def sources(self) -> list[Quarantined]:
        """All that are or were in quarantine, by name."""
        table = quarantined_sources.c
        query = sa.select(
            table.source, table.reason, table.evidence, table.at, table.released_at
        ).where(table.model_id == self._model)
        with self._database.read() as connection:
            return [Quarantined(*row) for row in connection.execute(query.order_by(table.source))]

    def active(self) -> set[str]:
        """The names of those that are not released."""
        return {one.source for one in self.sources() if one.released_at is None}

    def spans(self, connection: Connection) -> list[Span]:
        """What is set aside where labels are learned online."""
        table = quarantine_spans.c
        query = sa.select(table.source, table.after, table.until)
        return [
            Span(*row) for row in connection.execute(query.where(table.model_id == self._model))
        ]

    def put(self, source: str, decision: Decision, after: int, online: bool = False) -> None:
        """Set aside what a source says at positions after this one. A source that is in quarantine
        already stays as it is.

        Args:
            online: it was found at this position of the log, where it holds from; else it holds
                online from the log's present end. Found there again, nothing happens: it may be
                released by now.
        """
        with self._database.write() as connection:
            head = locked_head(connection, self._model)  # replicas find it at the same time
            start = after if online else head
            mine = [one for one in self.spans(connection) if one.source == source]
            if online and any(one.after == start for one in mine):
                return
            if online or all(one.until is not None for one in mine):
                self._hold(connection, source, start, mine)
            self._show(connection, source, decision, after)

    def _hold(self, connection: Connection, source: str, start: int, mine: Sequence[Span]) -> None:
        """Begin a span, or go on with one that was ended where it began."""
        key = {"model_id": self._model, "source": source, "after": start}
        if all(one.after != start for one in mine):
            connection.execute(sa.insert(quarantine_spans).values(key))
            return
        same = [quarantine_spans.c[name] == value for name, value in key.items()]
        connection.execute(sa.update(quarantine_spans).where(*same).values(until=None))

    def _show(self, connection: Connection, source: str, decision: Decision, after: int) -> None:
        """Note for people that a source is in quarantine, unless it is."""
        row: dict[str, Any] = {
            "reason": decision.reason,
            "evidence": {**decision.evidence, "after": after},
            "at": now(),
            "released_at": None,
        }
        known = connection.execute(sa.select(quarantined_sources).where(self._named(source)))
        before = known.first()
        if before is None:
            named = {"model_id": self._model, "source": source}
            connection.execute(sa.insert(quarantined_sources).values(**named, **row))
        elif before.released_at is not None:
            update = sa.update(quarantined_sources).where(self._named(source))
            connection.execute(update.values(**row))

    def held(self, source: str) -> Quarantined:
        """What a source was or is held for. Raises `NotFoundError`."""
        for one in self.sources():
            if one.source == source:
                return one
        raise NotFoundError(f"no source {source!r} is in quarantine")

    def release(self, source: str, connection: Connection | None = None) -> Quarantined:
        """Believe a source again; returns what it was held for.

        Args:
            source: its name.
            connection: of a writing transaction to take part in.

        Raises:
            NotFoundError: it was never in quarantine.
            ConflictError: it is released already.
        """
        if connection is None:
            with self._database.write() as writing:
                return self.release(source, writing)
        head = locked_head(connection, self._model)  # before any row, as `put` does
        one, table = self.held(source), quarantined_sources.c
        update = sa.update(quarantined_sources).where(
            self._named(source), table.released_at.is_(None), table.at == one.at
        )
        if connection.execute(update.values(released_at=now())).rowcount != 1:
            raise ConflictError(f"the source {source!r} is released already")
        spans = quarantine_spans.c
        held = sa.update(quarantine_spans).where(
            spans.model_id == self._model, spans.source == source, spans.until.is_(None)
        )
        connection.execute(held.values(until=head))
        return one

    def _named(self, source: str) -> sa.ColumnElement[bool]:
        table = quarantined_sources.c
        return sa.and_(table.model_id == self._model, table.source == source)
