"""Versions that learned rows which were withdrawn since: they cannot become champion again."""

from __future__ import annotations

import sqlalchemy as sa

from everlearn.base import ConflictError
from everlearn.registry.models import model_id
from everlearn.storage.schema import withdrawals


def marked(connection: sa.Connection, model: str) -> dict[int, list[int]]:
    """Number of a version → numbers of the withdrawals of which it, or a version that it came from,
    had learned rows when they were made. Those made later from a marked champion have no mark.

    Raises:
        NotFoundError: there is no such model.
    """
    return marked_of(connection, model_id(connection, model))


def marked_of(connection: sa.Connection, key: int) -> dict[int, list[int]]:
    """The same, by the row id of the model."""
    table, found = withdrawals.c, dict[int, list[int]]()
    query = sa.select(table.id, table.report).where(table.model_id == key)
    for row in connection.execute(query.order_by(table.id)):
        for number in row.report.get("marked", ()):
            found.setdefault(number, []).append(row.id)
    return found


def check_unmarked(connection: sa.Connection, model: str, number: int) -> None:
    """Refuse a version that learned withdrawn rows.

    Raises:
        ConflictError: it did.
    """
    found = marked(connection, model).get(number)
    if found:
        raise ConflictError(
            f"version {number} of {model!r} learned rows that were withdrawn (withdrawal"
            f" {', '.join(map(str, found))}): it cannot become champion again"
        )
