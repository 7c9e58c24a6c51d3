"""Leases: who may do something that one process alone may do, for as long as it renews."""

from __future__ import annotations

import sqlalchemy as sa

from everlearn.base import LeaseLostError
from everlearn.registry.models import model_id, now
from everlearn.storage.schema import leases


def take(connection: sa.Connection, model: str, holder: str, seconds: float) -> int | None:
    """Take or renew the lease to learn a model online.

    Args:
        connection: a writing transaction.
        holder: who asks.
        seconds: after which others may take it.

    Returns:
        The fencing token, which grows with every new holder; None while another one holds it.
    """
    key = model_id(connection, model, lock=True)
    row = connection.execute(sa.select(leases).where(leases.c.model_id == key)).first()
    until = now() + int(seconds * 1e6)
    if row is None:
        values = {"model_id": key, "holder": holder, "token": 1, "until": until}
        connection.execute(leases.insert().values(values))
        return 1
    if row.holder != holder and row.until > now():
        return None
    token = int(row.token) + int(row.holder != holder)
    connection.execute(
        sa.update(leases)
        .where(leases.c.model_id == key)
        .values(holder=holder, token=token, until=until)
    )
    return int(token)


def fence(connection: sa.Connection, model: str, token: int) -> None:
    """See to it that a lease is still held, in the transaction of what depends on it.

    Raises:
        LeaseLostError: another one has it.
    """
    key = model_id(connection, model, lock=True)
    found = connection.execute(sa.select(leases.c.token).where(leases.c.model_id == key)).scalar()
    if found != token:
        raise LeaseLostError(f"another process learns {model!r} online")


def release(connection: sa.Connection, model: str, token: int) -> None:
    """Let others take it at once; nothing if it is not held any more."""
    key = model_id(connection, model, lock=True)
    connection.execute(
        sa.update(leases).where(leases.c.model_id == key, leases.c.token == token).values(until=0)
    )
