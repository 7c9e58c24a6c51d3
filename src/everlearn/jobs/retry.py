"""Whether a job that ended without a version may be run again after all.

Exactly once is per lineage: rows of which the champion's lineage has learned since would be learned
by a version beside it, which could take its place only by forgetting what came after.
"""

from __future__ import annotations

import sqlalchemy as sa

from everlearn.base import ConflictError
from everlearn.data.slices import Consumed, Slice
from everlearn.jobs import catchup
from everlearn.jobs.queue import Job
from everlearn.registry import aliases, lineage


def check(connection: sa.Connection, job: Job) -> None:
    """Refuse to run a job again where nothing good can come of it.

    Args:
        connection: of the transaction that queues it.

    Raises:
        ConflictError: a candidate catches up with the live model, or the champion has learned rows
            of the job since it was planned.
    """
    behind = catchup.behind(connection, job.model)
    if behind is not None:
        raise ConflictError(
            f"version {behind} of {job.model!r} is catching up with what was learned online: let "
            "it, or refuse it, before another job is retried"
        )
    champion = aliases.current(connection, job.model)
    if job.version is not None or champion is None or job.plan.get("again"):
        return
    slices = [Slice.from_json(piece) for piece in job.plan.get("slices", ())]
    for number, one in lineage.learned(connection, job.model, champion):
        known = Consumed.from_increment({"slice": one.slice, "reasons": one.reasons})
        if any(_overlap(piece, one.start, known) for piece in slices):
            raise ConflictError(
                f"version {number} of {job.model!r}, from which the champion comes, has learned "
                f"rows of job {job.id} since: there is nothing to retry. Give the job up with "
                f"`everlearn job skip {job.id}`"
            )


def _overlap(piece: Slice, start: int, known: Consumed) -> bool:
    """Whether rows of a slice are among those that were consumed from `start` on."""
    mine = Consumed.of(piece)
    place = (mine.kind, mine.source if mine.kind in ("spool", "log") else mine.location)
    theirs = (known.kind, known.source if known.kind in ("spool", "log") else known.location)
    same = place == theirs or mine.digest == known.digest
    return same and start < piece.stop and piece.start < known.stop
