"""Models by name, the lock that orders all changes of one model, and what every record needs."""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from everlearn.base import Json, NotFoundError
from everlearn.storage.schema import models


def now() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def as_text(micros: int) -> str:
    """ISO 8601 text of microseconds since 1970 UTC.

    >>> as_text(1_357_000_000_000_000)
    '2013-01-01T00:26:40.000000+00:00'
    """
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=micros)
    return moment.isoformat(timespec="microseconds")


def names(connection: sa.Connection) -> list[str]:
    """Names of all models, sorted."""
    return list(connection.execute(sa.select(models.c.name).order_by(models.c.name)).scalars())


def model_id(connection: sa.Connection, model: str, *, lock: bool = False) -> int:
    """The row id of a model.

    Args:
        lock: also keep every other transaction from changing this model until the end of this
            one (on SQLite a writing transaction does so by itself). Rows that only refer to the
            model, such as labels, are not kept waiting.

    Raises:
        NotFoundError: there is no such model; the message names those that there are.
    """
    known = _found_in(connection)
    if (model, lock) in known:
        return known[model, lock]
    query = sa.select(models.c.id).where(models.c.name == model)
    found = connection.execute(query.with_for_update(key_share=True) if lock else query).scalar()
    if found is None:
        others = ", ".join(names(connection)) or "none yet"
        raise NotFoundError(f"there is no model {model!r} in this workspace (models: {others})")
    known[model, False] = known[model, lock] = int(found)
    return int(found)


_FOUND: WeakKeyDictionary[sa.RootTransaction, dict[tuple[str, bool], int]] = WeakKeyDictionary()


def _found_in(connection: sa.Connection) -> dict[tuple[str, bool], int]:
    """(model, whether locked) → row id, as this transaction found them: asked for once."""
    transaction = connection.get_transaction()
    return {} if transaction is None else _FOUND.setdefault(transaction, {})


def ensure_model(connection: sa.Connection, model: str) -> int:
    """The row id of a model, locked; the row is made if it is not there."""
    row = {"name": model, "created_at": now()}
    if connection.dialect.name == "postgresql":
        connection.execute(postgresql.insert(models).values(row).on_conflict_do_nothing())
    else:
        connection.execute(sqlite.insert(models).values(row).on_conflict_do_nothing())
    return model_id(connection, model, lock=True)


def plain(value: Any) -> Json:
    """The value as strict JSON: numpy scalars as Python's, tuples and arrays as lists, times as ISO
    8601 texts to the microsecond, and what is not finite, NaT or NA as None (JSON has no NaN).

    Raises:
        TypeError: there is no JSON for it.
    """
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if value is None or kind in (str, int, bool):
        return value
    if kind is dict or isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Json:
    kind = type(value)
    if kind.__name__ in ("NaTType", "NAType"):  # of pandas; NaT is a datetime
        return None
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value.astype("datetime64[us]"))
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, dt.date):
        return value.isoformat()
    for simple in (bool, int, float, str):  # a subclass, such as an enumeration's member
        if isinstance(value, simple):
            return plain(simple(value))
    raise TypeError(f"{kind.__name__} {value!r} has no form as JSON")
