"""What a change of a whole model is prepared from, and has to find unchanged when it is made."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import ConflictError
from everlearn.jobs.queue import OPEN
from everlearn.registry import aliases, versions
from everlearn.registry.models import model_id
from everlearn.storage import schema

Standing = tuple[int | None, int, int | None]
"""Champion, highest version, newest job."""


def standing_of(connection: Connection, name: str, doing: str) -> Standing:
    """What stands.

    Args:
        doing: what is done, in a word, for the message.

    Raises:
        ConflictError: a job or a rollout has not ended; it has rows of its own.
    """
    key, jobs, rollouts = model_id(connection, name), schema.jobs.c, schema.rollouts.c
    open_job = sa.select(jobs.id).where(jobs.model_id == key, jobs.state.in_(OPEN)).limit(1)
    number = connection.execute(open_job).scalar()
    if number is not None:
        raise ConflictError(
            f"job {number} of {name!r} has not ended, and has rows of its own: {doing} after it"
        )
    running = sa.select(rollouts.id).where(rollouts.model_id == key, rollouts.ended_at.is_(None))
    if connection.execute(running.limit(1)).scalar() is not None:
        raise ConflictError(f"a rollout of {name!r} has not ended: stop it, or {doing} after it")
    newest = connection.execute(sa.select(sa.func.max(jobs.id)).where(jobs.model_id == key))
    return aliases.current(connection, name), versions.newest(connection, name), newest.scalar()


class ChangedMeanwhileError(ConflictError):
    """The model was changed while a change of it was prepared."""
