"""The audit log: who changed what serves, and who was refused."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from everlearn.base import Json
from everlearn.registry.models import as_text, now
from everlearn.storage.database import Database
from everlearn.storage.schema import audit


def entry(
    action: str,
    status: int,
    *,
    key: int | None = None,
    model: str | None = None,
    detail: Json = None,
) -> dict[str, Json]:
    """A row of the log, of now.

    Args:
        action: method and route, or the command.
        status: of the answer, as in HTTP.
        key: its number; None without keys, or from the command line.
    """
    return {
        "key_id": key,
        "action": action,
        "model": model,
        "detail": detail or {},
        "status": status,
        "at": now(),
    }


def add_entries(connection: sa.Connection, entries: Sequence[dict[str, Json]]) -> None:
    """Add rows to the log, in this transaction."""
    if entries:
        connection.execute(audit.insert(), list(entries))


class Audit:
    """The audit log of a workspace; nothing in it is ever changed."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, entries: Sequence[dict[str, Json]]) -> None:
        """Add entries, durably."""
        with self.database.write() as connection:
            add_entries(connection, entries)

    def listed(self, limit: int = 100, before: int | None = None) -> list[Json]:
        """Entries, newest first.

        Args:
            limit: how many at most.
            before: only those with a smaller id: the next page.
        """
        query = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.id < before)
        with self.database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            {
                "id": row["id"],
                "key": row["key_id"],
                "action": row["action"],
                "model": row["model"],
                "status": row["status"],
                "detail": row["detail"],
                "at": as_text(row["at"]),
            }
            for row in rows
        ]
