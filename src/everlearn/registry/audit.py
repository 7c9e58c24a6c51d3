"""The audit log: who changed what serves, and who was refused.

What is done to a model is noted in the transaction in which it is done, so that neither is there
without the other: `note` says what, and `acting` who and from where.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import sqlalchemy as sa

from everlearn.base import Json
from everlearn.registry.models import as_text, now
from everlearn.storage.database import Database
from everlearn.storage.schema import audit


@dataclass(slots=True)
class Acting:
    """Who does what is done in a context.

    Args:
        detail: what is written down of him.
        action: method and route of a request; None: what he does is the action.
        key: number of the key of a request.
        noted: whether anything was written down.
    """

    detail: dict[str, Json]
    action: str | None = None
    key: int | None = None
    noted: bool = False


_acting: ContextVar[Acting | None] = ContextVar("everlearn_acting", default=None)


@contextmanager
def acting(by: Acting) -> Iterator[Acting]:
    """Whoever does something meanwhile, in this context and in threads that take it over, is he."""
    token = _acting.set(by)
    try:
        yield by
    finally:
        _acting.reset(token)


def user() -> str:
    """The user of the operating system."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def local(where: str) -> Acting:
    """Somebody who works on this machine, without a key."""
    return Acting({"user": user(), "where": where})


def note(
    connection: sa.Connection, did: str, model: str | None = None, detail: Json = None
) -> None:
    """Write down what is done and by whom, in its transaction.

    Args:
        connection: a writing transaction.
        did: "promote", "rollback", ….
        detail: what else is to be known of it.
    """
    by = _acting.get() or local("Python")
    said = {**by.detail, **(detail or {})} | ({"did": did} if by.action else {})
    row = entry(by.action or did, 200, key=by.key, model=model, detail=said)
    add_entries(connection, [row])
    by.noted = True


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
