"""The rows of a source that was in quarantine, of a model that learns online."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import sqlalchemy as sa

from everlearn.base import ConflictError
from everlearn.data.join import LOG, LogSource
from everlearn.data.log import FeedbackLog
from everlearn.data.quarantine import Quarantine
from everlearn.registry import aliases, lineage, versions
from everlearn.storage import schema
from everlearn.storage.database import Database

Range = tuple[int, int]
"""Labels with first < position ≤ second."""


class CameSinceError(ConflictError):
    """The source said something after its rows were read."""


def not_learned(
    database: Database, name: str, quarantine: Quarantine, source: str, after: int, upto: int
) -> list[Range]:
    """Where the champion, and what was learned online since, set aside what a source said.

    Args:
        after: position at which it was found: jobs set aside what it said from there on.
        upto: position of the last label that is asked for.
    """
    with database.read() as connection:
        champion = aliases.current(connection, name)
        spans = [one for one in quarantine.spans(connection) if one.source == source]
        learned = [] if champion is None else lineage.learned(connection, name, champion)
        mine = [(number, one.start, one.stop) for number, one in learned if one.source == LOG]
        by_jobs = {
            number
            for number, _, _ in mine
            if versions.get(connection, name, number, increments=False).job_id is not None
        }
    found = [(max(start, after), stop) for number, start, stop in mine if number in by_jobs]
    whole = [(start, stop) for number, start, stop in mine if number not in by_jobs]
    whole.append((max((stop for _, _, stop in mine), default=0), upto))
    for start, stop in whole:
        for span in spans:
            until = upto if span.until is None else span.until
            found.append((max(start, span.after), min(stop, until)))
    return sorted({(first, last) for first, last in found if first < last})


def rows(log: LogSource, source: str, held: Sequence[Range]) -> pa.Table | None:
    """The rows of a source that nobody else spoke for, within some ranges; None if there are
    none."""
    found = [log.released(source, first, last) for first, last in held]
    tables = [table for table in found if table is not None]
    return pa.concat_tables(tables, promote_options="permissive") if tables else None


def came_since(connection: sa.Connection, log: FeedbackLog, source: str, upto: int) -> bool:
    """Whether a source said something after a position; no label comes before the end of the
    transaction."""
    log.database.in_commit_order(connection, f"labels/{log.model}")
    table = schema.labels.c
    query = sa.select(table.id).where(
        table.model_id == log.model, table.source == source, table.position > upto
    )
    return connection.execute(query.limit(1)).first() is not None
