"""A retrained candidate catches up with what a model that learns online has learned meanwhile.

Learning online goes on while a job retrains the model. When the job's candidate has passed its
gate, it is behind by the labels that came since the job was planned. It learns these as well; only
then is it compared with the live model, both at the same position of the log, and takes its place.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everlearn.base import Decision
from everlearn.data.join import LogSource
from everlearn.evaluation.gates import parts_not_finite, try_candidate
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.jobs.ledger import Ledger
from everlearn.jobs.online import Tail, online_of
from everlearn.registry import aliases, definitions, lineage
from everlearn.registry.models import model_id
from everlearn.storage import schema

CATCH_UP = "catch up"
"""What an alias's history says of a candidate that has to."""


def has_to(connection: sa.Connection, model: str, definition: int) -> bool:
    """Whether candidates of a model have to catch up: it learns online, and has labels."""
    if online_of(definitions.definition(connection, model, definition).model()) is None:
        return False
    table = schema.labels.c
    query = sa.select(table.position).where(table.model_id == model_id(connection, model))
    return connection.execute(query.where(table.position.is_not(None)).limit(1)).first() is not None


def behind(connection: sa.Connection, model: str) -> int | None:
    """The candidate that has to catch up with the present champion; None if there is none."""
    key, table, jobs = model_id(connection, model), schema.alias_history.c, schema.jobs.c
    query = (
        sa.select(table.version_to, table.action)
        .where(table.model_id == key, table.name == aliases.CANDIDATE)
        .order_by(table.id.desc())
        .limit(1)
    )
    last = connection.execute(query).first()
    if last is None or last.action != CATCH_UP:
        return None
    made = sa.select(jobs.base_version).where(jobs.model_id == key, jobs.version == last.version_to)
    champion = aliases.current(connection, model)
    return int(last.version_to) if connection.execute(made).scalar() == champion else None


def newest(connection: sa.Connection, model: str) -> int:
    """The newest version, of those that were champion or were not made by a job."""
    return max(_numbers(connection, model) - _unserved(connection, model), default=0)


def taken(connection: sa.Connection, ledger: Ledger, model: str, version: int) -> int:
    """The position of the last label that is not to be learned online from a version on: its
    lineage took it, or a version that was served or that the guard refused did. What only a
    candidate of a job took, the live model learns as well."""
    apart = _unserved(connection, model) - set(lineage.lineage(connection, model, version))
    return max(
        (
            one.stop
            for number, one in ledger.read(connection, model)
            if one.kind == LogSource.kind and number not in apart
        ),
        default=0,
    )


def judge(candidate: Tail, live: Tail, gate: Any) -> Decision:
    """Whether a candidate that has caught up is as good as the live model, by rows that neither
    has learned: those held out since the last version are the recent ones."""
    broken = parts_not_finite(candidate.fold.save())
    if broken:
        return Decision("refuse", f"the learner diverged: {', '.join(broken)} are not finite")
    holdouts = HoldOuts.load(live.holdouts.save())
    holdouts.settle()
    columns = candidate.fold.columns
    same = columns == live.fold.columns
    return try_candidate(
        candidate.fold, live.fold if same else None, holdouts, gate, columns=columns
    )


def _numbers(connection: sa.Connection, model: str) -> set[int]:
    table = schema.versions.c
    query = sa.select(table.number).where(table.model_id == model_id(connection, model))
    return set(connection.execute(query).scalars())


def _unserved(connection: sa.Connection, model: str) -> set[int]:
    """Versions that jobs made and that never were champion."""
    key, table, moves = model_id(connection, model), schema.versions.c, schema.alias_history.c
    served = sa.select(moves.version_to).where(
        moves.model_id == key, moves.name == aliases.CHAMPION, moves.version_to.is_not(None)
    )
    query = sa.select(table.number).where(
        table.model_id == key, table.job_id.is_not(None), table.number.not_in(served)
    )
    return set(connection.execute(query).scalars())
