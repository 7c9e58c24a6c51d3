"""Positions of the feedback log, for what has to know after which label it was written."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.storage.schema import labels


def hold(connection: Connection, log: str) -> None:
    """Hold the lock of a log until this transaction ends; see `Database.in_commit_order`."""
    if connection.dialect.name == "postgresql":
        key = sa.func.hashtextextended(sa.func.concat(sa.func.current_schema(), ":", log), 0)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def labels_of(model: int) -> str:
    """The name of the lock under which the labels of a model get their positions."""
    return f"labels/{model}"


def locked_head(connection: Connection, model: int) -> int:
    """The position of the last label of a model; 0 if there is none. No label comes after it before
    this transaction ends: whoever sees a later one sees what is written here too.

    Args:
        connection: of a writing transaction.
        model: row id of the model.
    """
    hold(connection, labels_of(model))
    query = sa.select(sa.func.max(labels.c.position)).where(labels.c.model_id == model)
    return int(connection.execute(query).scalar() or 0)
