"""A retrained candidate catches up with what a model that learns online has learned meanwhile.

Learning online goes on while a job retrains the model. When the job's candidate has passed its
gate, it is behind by the labels that came since the job was planned. It learns these as well; only
then is it compared with the live model, both at the same position of the log, and takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import sqlalchemy as sa

from everlearn.base import ConflictError, Decision, NotFoundError
from everlearn.data.join import LogSource
from everlearn.data.slices import Consumed
from everlearn.evaluation.gates import parts_not_finite, try_candidate
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.jobs.ledger import Ledger
from everlearn.jobs.online import Tail, online_of
from everlearn.registry import aliases, definitions, lineage
from everlearn.registry.models import model_id, plain
from everlearn.storage import schema

CATCH_UP = "catch up"
"""What an alias's history says of a candidate that has to."""


def is_online(connection: sa.Connection, model: str, definition: int) -> bool:
    """Whether a model learns online by a definition."""
    return online_of(definitions.definition(connection, model, definition).model()) is not None


def has_to(connection: sa.Connection, model: str, definition: int) -> bool:
    """Whether candidates of a model have to catch up: it learns online, and has labels."""
    if not is_online(connection, model, definition):
        return False
    table = schema.labels.c
    query = sa.select(table.position).where(table.model_id == model_id(connection, model))
    return connection.execute(query.where(table.position.is_not(None)).limit(1)).first() is not None


def behind(connection: sa.Connection, model: str) -> int | None:
    """The candidate that has to catch up with the present champion; None if there is none.

    A server asks this many times a second: histories are looked at last, from their ends.
    """
    key, made = model_id(connection, model), schema.versions.c
    jobs = schema.jobs.c
    named = aliases.all_aliases(connection, model)
    candidate, champion = named.get(aliases.CANDIDATE), named.get(aliases.CHAMPION)
    if candidate is None or champion is None:
        return None
    base = sa.select(jobs.base_version).where(
        made.model_id == key, made.number == candidate, jobs.id == made.job_id
    )
    if connection.execute(base).scalar() != champion:
        return None
    return _catching_up(connection, model)


def left_behind(connection: sa.Connection, model: str) -> int | None:
    """The candidate that was to catch up with a champion that is none any more, and of which nobody
    said so yet; None if there is none."""
    if behind(connection, model) is not None:
        return None
    return _catching_up(connection, model)


def end(connection: sa.Connection, model: str, number: int, decision: Decision) -> None:
    """Write down what became of a candidate that was to catch up: in the history of its alias, and
    as the decision of its job.

    Args:
        connection: a writing transaction, in which it was seen to be catching up.
    """
    said = {"action": decision.action, "reason": decision.reason}
    aliases.note(connection, model, aliases.CANDIDATE, **said)
    made, jobs = schema.versions.c, schema.jobs
    job = sa.select(made.job_id).where(
        made.model_id == model_id(connection, model), made.number == number
    )
    key = connection.execute(job).scalar()
    told = plain(decision.to_json())
    connection.execute(sa.update(jobs).where(jobs.c.id == key).values(decision=told))


def refuse(
    connection: sa.Connection, model: str, number: int | None = None, *, reason: str
) -> Decision:
    """Have a candidate catch up no more, because somebody says so; the live model goes on.

    Args:
        connection: a writing transaction.
        number: of the candidate; whichever is catching up unless given.

    Raises:
        ConflictError: none is, or another one.
    """
    model_id(connection, model, lock=True)
    found = behind(connection, model)
    if found is None or number not in (None, found):
        what = "no candidate" if found is None else f"version {found}, and not version {number},"
        raise ConflictError(f"{what} of {model!r} is catching up")
    decision = Decision("refuse", reason, {"version": found})
    end(connection, model, found, decision)
    return decision


def promote(connection: sa.Connection, model: str, *, reason: str) -> None:
    """Make the candidate that is catching up champion as it is, if there is one: what it was to
    catch up with is there no more, and jobs learn the labels that came since. One whose state was
    removed is refused.

    Args:
        connection: a writing transaction.
    """
    model_id(connection, model, lock=True)
    found = behind(connection, model)
    if found is None:
        return
    decision, stands = Decision("promote", reason), aliases.current(connection, model)
    try:
        aliases.move(connection, model, aliases.CHAMPION, found, expected=stands, reason=reason)
    except NotFoundError as error:
        decision = Decision("refuse", str(error))
    end(connection, model, found, decision)


def newest(connection: sa.Connection, model: str) -> int:
    """The newest version, of those that were champion or were not made by a job."""
    return max(_numbers(connection, model) - _unserved(connection, model), default=0)


def apart(connection: sa.Connection, model: str, version: int) -> set[int]:
    """Versions that do not count for another one, of a model that learns online: jobs made them,
    they were never champion, and are not in its lineage. The live model learned the labels that
    they took, and whatever takes its place has to."""
    return _unserved(connection, model) - set(lineage.lineage(connection, model, version))


def counted(learned: Sequence[tuple[int, Consumed]], without: Set[int]) -> list[Consumed]:
    """What versions consumed; of the feedback log, only what others than some versions took."""
    return [one for at, one in learned if one.kind != LogSource.kind or at not in without]


def taken(connection: sa.Connection, ledger: Ledger, model: str, version: int) -> int:
    """The position of the last label that is not to be learned online from a version on: its
    lineage took it, or a version that was served or that the guard refused did."""
    found = counted(ledger.read(connection, model), apart(connection, model, version))
    return max((one.stop for one in found if one.kind == LogSource.kind), default=0)


def judge(candidate: Tail, live: Tail, gate: Any) -> Decision:
    """Whether a candidate that has caught up is as good as the live model, by rows that neither
    has learned: those held out since the last version are the recent ones. One with other columns
    is judged alone, by the rows that have them."""
    broken = parts_not_finite(candidate.fold.save())
    if broken:
        return Decision("refuse", f"the learner diverged: {', '.join(broken)} are not finite")
    columns = candidate.fold.columns
    same = columns == live.fold.columns
    holdouts = HoldOuts.load((live if same else candidate).holdouts.save())
    holdouts.settle()
    return try_candidate(
        candidate.fold, live.fold if same else None, holdouts, gate, columns=columns
    )


def _catching_up(connection: sa.Connection, model: str) -> int | None:
    """The candidate, if the last that was said of it is that it catches up."""
    moves = schema.alias_history.c
    query = (
        sa.select(moves.action, moves.version_to)
        .where(moves.model_id == model_id(connection, model), moves.name == aliases.CANDIDATE)
        .order_by(moves.id.desc())
        .limit(1)
    )
    last = connection.execute(query).first()
    return last.version_to if last is not None and last.action == CATCH_UP else None


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
