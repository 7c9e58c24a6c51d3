"""Lineage: what a version came from, what it learned on the way, and what is on hold.

Exactly once is per lineage. What only refused candidates or rolled-back versions learned is not in
the champion's lineage, and is on hold: it is learned again only when an operator asks for it.
"""

from __future__ import annotations

import sqlalchemy as sa

from everlearn.registry.aliases import CHAMPION, current
from everlearn.registry.models import model_id
from everlearn.registry.versions import Increment, check_exists, increments_by_version
from everlearn.storage import schema

Learned = tuple[int, Increment]
"""The number of a version, and one increment that it learned."""


def lineage(connection: sa.Connection, model: str, number: int) -> list[int]:
    """A version's ancestors and itself, in the order in which they were learned.

    Raises:
        NotFoundError: there is no such model or version.
    """
    check_exists(connection, model, number)
    table = schema.versions.c
    query = sa.select(table.number, table.parent).where(
        table.model_id == model_id(connection, model), table.number <= number
    )
    parents: dict[int, int | None] = {row.number: row.parent for row in connection.execute(query)}
    path: list[int] = []
    at: int | None = number
    while at is not None:
        path.append(at)
        at = parents[at]
    return path[::-1]


def common_ancestor(connection: sa.Connection, model: str, a: int, b: int) -> int | None:
    """The newest version that both came from (one of them, if the other came from it)."""
    shared = set(lineage(connection, model, a)) & set(lineage(connection, model, b))
    return max(shared, default=None)


def increments_of(connection: sa.Connection, model: str, *, after: int = 0) -> list[Learned]:
    """All increments that any version of the model learned, in the order of the versions; only of
    those with a higher number than `after`."""
    table = schema.versions.c
    query = sa.select(table.id, table.number).where(
        table.model_id == model_id(connection, model), table.number > after
    )
    numbers = {row.id: row.number for row in connection.execute(query.order_by(table.number))}
    found = increments_by_version(connection, numbers)
    return [(number, one) for key, number in numbers.items() for one in found.get(key, ())]


def learned(connection: sa.Connection, model: str, number: int) -> list[Learned]:
    """All increments in a version's lineage, in the order in which they were learned."""
    path = set(lineage(connection, model, number))
    return [(at, one) for at, one in increments_of(connection, model) if at in path]


def on_hold(connection: sa.Connection, model: str) -> list[Learned]:
    """Increments that some version learned but the champion did not: a refused candidate's, and
    those after a rollback. All of them while there is no champion."""
    champion = current(connection, model, CHAMPION)
    path = set() if champion is None else set(lineage(connection, model, champion))
    known = {one.digest for at, one in increments_of(connection, model) if at in path}
    return [
        (at, one)
        for at, one in increments_of(connection, model)
        if at not in path and one.digest not in known
    ]


def find_increment(connection: sa.Connection, model: str, digest: str) -> list[Learned]:
    """The versions that learned a source up to the content with this digest.

    Raises:
        NotFoundError: there is no such model. (No version is an empty list.)
    """
    versions, table = schema.versions.c, schema.increments
    columns = [table.c[name] for name in Increment.__slots__]
    query = (
        sa.select(versions.number, *columns)
        .join(schema.versions, versions.id == table.c.version_id)
        .where(versions.model_id == model_id(connection, model), table.c.digest == digest)
        .order_by(versions.number, table.c.ordinal)
    )
    found = []
    for row in connection.execute(query):
        values = {name: row._mapping[name] for name in Increment.__slots__}
        found.append((row[0], Increment(**values)))
    return found


def between(
    connection: sa.Connection, model: str, a: int, b: int
) -> tuple[int | None, list[Learned], list[Learned]]:
    """What two versions learned since their common ancestor.

    Returns:
        (that ancestor or None, what only `a` learned, what only `b` learned)
    """
    fork = common_ancestor(connection, model, a, b)
    shared = set() if fork is None else set(lineage(connection, model, fork))
    of_a = [item for item in learned(connection, model, a) if item[0] not in shared]
    of_b = [item for item in learned(connection, model, b) if item[0] not in shared]
    return fork, of_a, of_b


def children(connection: sa.Connection, model: str, number: int) -> list[int]:
    """The versions that were folded from this one, in the order of their numbers."""
    check_exists(connection, model, number)
    table = schema.versions.c
    query = sa.select(table.number).where(
        table.model_id == model_id(connection, model), table.parent == number
    )
    return list(connection.execute(query.order_by(table.number)).scalars())
