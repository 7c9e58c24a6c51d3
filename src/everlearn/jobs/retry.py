"""Whether a job that ended without a version may be run again after all.

Exactly once is per lineage: rows of which the champion's lineage has learned since would be learned
by a version beside it, which could take its place only by forgetting what came after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from everlearn.base import ConflictError, Json
from everlearn.data.join import LogSource
from everlearn.data.slices import Consumed, Slice
from everlearn.jobs import catchup
from everlearn.jobs.queue import Job
from everlearn.registry import aliases, lineage
from everlearn.registry.models import model_id
from everlearn.storage import schema


def check(connection: sa.Connection, job: Job) -> None:
    """Refuse to run a job again where nothing good can come of it.

    Args:
        connection: of the transaction that queues it.

    Raises:
        ConflictError: a candidate catches up with the live model, or rows of the job were withdrawn
            since it was planned, or the champion has learned some since.
    """
    behind = catchup.behind(connection, job.model)
    if behind is not None:
        raise ConflictError(
            f"version {behind} of {job.model!r} is catching up with what was learned online: let "
            "it, or refuse it, before another job is retried"
        )
    if job.version is not None:
        return
    slices = _slices(job)
    _check_withdrawn(connection, job, slices)
    champion = aliases.current(connection, job.model)
    if job.plan.get("refolds"):  # what the champion learned, folded again to take its place
        if champion != job.base_version:
            raise ConflictError(
                f"job {job.id} folds again what version {job.base_version} of {job.model!r} had"
                f" learned, and version {champion} is champion by now: excise again, and give the"
                f" job up with `everlearn job skip {job.id}`"
            )
        return
    if champion is None or job.plan.get("again"):
        return
    for number, one in lineage.learned(connection, job.model, champion):
        known = Consumed.from_increment({"slice": one.slice, "reasons": one.reasons})
        if any(_overlap(piece, one.start, known) for piece in slices):
            raise ConflictError(
                f"version {number} of {job.model!r}, from which the champion comes, has learned "
                f"rows of job {job.id} since: there is nothing to retry. Give the job up with "
                f"`everlearn job skip {job.id}`"
            )


def _slices(job: Job) -> list[Slice]:
    """What a job reads, the increments included that it folds in before its own."""
    plans = (*job.plan.get("earlier", ()), job.plan)
    return [Slice.from_json(piece) for plan in plans for piece in plan.get("slices", ())]


def _overlap(piece: Slice, start: int, known: Consumed) -> bool:
    """Whether rows of a slice are among those that were consumed from `start` on."""
    mine = Consumed.of(piece)
    place = (mine.kind, mine.source if mine.kind in ("spool", "log") else mine.location)
    theirs = (known.kind, known.source if known.kind in ("spool", "log") else known.location)
    same = place == theirs or mine.digest == known.digest
    return same and start < piece.stop and piece.start < known.stop


def _check_withdrawn(connection: sa.Connection, job: Job, slices: Sequence[Slice]) -> None:
    """Refuse a job that was planned before rows of it were withdrawn.

    Raises:
        ConflictError: it was.
    """
    table = schema.withdrawals.c
    query = sa.select(table.id, table.places).where(
        table.model_id == model_id(connection, job.model),
        table.at >= job.created_at,
        table.job_id.is_distinct_from(job.id),  # it folds without the rows of its own one
    )
    for row in connection.execute(query):
        if any(_has_withdrawn(piece, place) for piece in slices for place in row.places):
            then = "excise again" if job.plan.get("refolds") else "its rows are planned anew"
            raise ConflictError(
                f"rows of job {job.id} were withdrawn since it was planned (withdrawal {row.id}):"
                f" give it up with `everlearn job skip {job.id}`, and {then}"
            )


def _has_withdrawn(piece: Slice, place: Mapping[str, Json]) -> bool:
    """Whether some of the rows that were withdrawn at a place may be in a slice."""
    if piece.kind != place["kind"] or piece.start >= place["stop"]:
        return False
    of_log = piece.kind == LogSource.kind
    return of_log or place["digest"] == piece.digest or place["source"] == piece.source
