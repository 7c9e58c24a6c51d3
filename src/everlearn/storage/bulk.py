"""Many rows at once, for tables that are written and asked with every request: one statement that
is prepared once, and tuples, instead of an expression for each row."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

TOGETHER = 20
"""Rows that are inserted by one step of a statement."""


def insert_many(
    connection: Connection, table: sa.Table, names: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows.

    Args:
        connection: of a writing transaction.
        table: whose columns are numbers and texts: values are given to the database as they are.
        names: of the columns.
        rows: their values.

    Raises:
        sqlalchemy.exc.IntegrityError: as any insert.
    """
    dialect, whole = connection.dialect.name, len(rows) - len(rows) % TOGETHER
    if whole:
        text = _insert(dialect, table.name, tuple(names), TOGETHER)
        groups = [rows[at : at + TOGETHER] for at in range(0, whole, TOGETHER)]
        connection.exec_driver_sql(text, [tuple(chain.from_iterable(one)) for one in groups])
    if whole < len(rows):
        text = _insert(dialect, table.name, tuple(names), 1)
        connection.exec_driver_sql(text, list(rows[whole:]))


def take_numbers(connection: Connection, table: sa.Table, count: int) -> list[int]:
    """The next values of the column `id` of a table, ascending; others get them no more.

    On SQLite, where the writer is alone, they follow the largest; on PostgreSQL they come from the
    column's sequence, and what is not used is lost.
    """
    if connection.dialect.name == "sqlite":
        largest = f"SELECT coalesce(max(id), 0) FROM {table.name}"
        first = int(connection.exec_driver_sql(largest).scalar_one()) + 1
        return list(range(first, first + count))
    taken = (
        f"SELECT nextval(pg_get_serial_sequence('{table.name}', 'id')) FROM generate_series(1, %s)"
    )
    return sorted(connection.exec_driver_sql(taken, (count,)).scalars())


def rows_among(
    connection: Connection,
    table: sa.Table,
    names: Sequence[str],
    column: str,
    values: Collection[Any],
    model: int | None,
) -> list[Any]:
    """The rows of which one column is among some values, in no order.

    Each value is looked up in the index, however many there are. (With a list of values, SQLite
    takes any index of `model_id` for the better one, and reads all rows of the model.)

    Args:
        names: of the columns that are asked for.
        column: the second one, after `model_id`, of an index; or the first one, without a model.
        values: whole numbers, or texts.
        model: whose rows are asked for; None for those of all.
    """
    if not values:
        return []
    asked = tuple(f"t.{_quoted(name)}" for name in names)
    text, given = _looked_up(connection, table, asked, column, values, model)
    return list(connection.exec_driver_sql(text, given).all())


def fetch_among(
    connection: Connection,
    table: sa.Table,
    asked: tuple[str, ...],
    column: str,
    values: Collection[Any],
    model: int | None = None,
    where: str = "",
) -> list[Any]:
    """The same, as plain tuples.

    Args:
        asked: expressions over a row `t`, without a question mark.
        where: what else holds for it.
    """
    if not values:
        return []
    text, given = _looked_up(connection, table, asked, column, values, model)
    return _fetched(connection, f"{text} AND {where}" if where else text, given)


def fetch(connection: Connection, text: str, values: tuple[Any, ...]) -> list[Any]:
    """What a query finds, as plain tuples.

    Args:
        text: with a question mark for each value, and no other.
    """
    if connection.dialect.name != "sqlite":
        text = text.replace("?", "%s")
    return _fetched(connection, text, values)


def _fetched(connection: Connection, text: str, values: tuple[Any, ...]) -> list[Any]:
    result = connection.exec_driver_sql(text, values)
    rows = list(result.cursor.fetchall())  # without a row of objects for each
    result.close()
    return rows


@lru_cache
def _insert(dialect: str, table: str, names: tuple[str, ...], rows: int) -> str:
    marks = ", ".join(["?" if dialect == "sqlite" else "%s"] * len(names))
    values = ", ".join([f"({marks})"] * rows)
    return f"INSERT INTO {table} ({', '.join(map(_quoted, names))}) VALUES {values}"


def _looked_up(
    connection: Connection,
    table: sa.Table,
    asked: tuple[str, ...],
    column: str,
    values: Collection[Any],
    model: int | None,
) -> tuple[str, tuple[Any, ...]]:
    """A statement, and what it is given."""
    sqlite = connection.dialect.name == "sqlite"
    text = _among(sqlite, table.name, asked, column, model is not None)
    sought = list(values)
    return text, (json.dumps(sought) if sqlite else sought, *(() if model is None else (model,)))


@lru_cache
def _among(sqlite: bool, table: str, asked: tuple[str, ...], column: str, of_model: bool) -> str:
    mark = "?" if sqlite else "%s"
    found = f"FROM {table} AS t WHERE t.{column} = ANY(%s)"
    if sqlite:  # CROSS JOIN: in this order
        found = f"FROM json_each(?) AS one CROSS JOIN {table} AS t WHERE t.{column} = one.value"
    return f"SELECT {', '.join(asked)} {found}" + (f" AND t.model_id = {mark}" if of_model else "")


def _quoted(name: str) -> str:
    return f'"{name}"'
