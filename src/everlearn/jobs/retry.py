"""Whether a job that ended without a version may be run again after all.

Exactly once is per lineage: rows of which the champion's lineage has learned since would be learned
by a version beside it, which could take its place only by forgetting what came after.
"""

from __future__ import annotations

import numpy as np
import sqlalchemy as sa

from everlearn.base import Columns, ConflictError, Json
from everlearn.data.join import LogSource
from everlearn.data.log import FeedbackLog
from everlearn.data.policy import LabelPolicy
from everlearn.data.resettle import Resettling
from everlearn.data.slices import Consumed, Slice
from everlearn.data.tables import BlobStore
from everlearn.data.withdrawals import WithdrawnRows
from everlearn.data.withdrawn import Numbers, withdrawn_rows
from everlearn.jobs import catchup
from everlearn.jobs.patch.following import followed
from everlearn.jobs.queue import Job
from everlearn.registry import aliases, lineage
from everlearn.registry.models import model_id
from everlearn.registry.registry import Registry
from everlearn.storage import schema


def check(connection: sa.Connection, job: Job, registry: Registry, log: FeedbackLog) -> None:
    """Refuse to run a job again where nothing good can come of it.

    Args:
        connection: of the transaction that queues it.
        registry, log: of the workspace and of the job's model.

    Raises:
        ConflictError: a candidate catches up with the live model, or rows of the job were withdrawn
            since it was planned, or labels that settled others of them, or the champion has learned
            some since.
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
    _check_withdrawn(connection, job, registry, log)
    champion = aliases.current(connection, job.model)
    if job.plan.get("refolds"):  # what the champion learned, folded again to take its place
        if champion != followed(connection, job.model, job.base_version):
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
    return [Slice.from_json(piece) for plan in _plans(job) for piece in plan.get("slices", ())]


def _plans(job: Job) -> list[Json]:
    return [*job.plan.get("earlier", ()), job.plan]


def _overlap(piece: Slice, start: int, known: Consumed) -> bool:
    """Whether rows of a slice are among those that were consumed from `start` on."""
    mine = Consumed.of(piece)
    place = (mine.kind, mine.source if mine.kind in ("spool", "log") else mine.location)
    theirs = (known.kind, known.source if known.kind in ("spool", "log") else known.location)
    same = place == theirs or mine.digest == known.digest
    return same and start < piece.stop and piece.start < known.stop


def _check_withdrawn(
    connection: sa.Connection, job: Job, registry: Registry, log: FeedbackLog
) -> None:
    """Refuse a job that was planned before rows of it were withdrawn, or labels by which others of
    it were settled. What else was withdrawn makes no difference to it.

    Raises:
        ConflictError: it was.
    """
    table = schema.withdrawals.c
    query = sa.select(table.id, table.places).where(
        table.model_id == model_id(connection, job.model),
        table.at >= job.created_at,
        table.job_id.is_distinct_from(job.id),  # it folds without the rows of its own one
    )
    since: dict[int, list[WithdrawnRows]] = {
        row.id: [WithdrawnRows.from_json(place) for place in row.places]
        for row in connection.execute(query.order_by(table.id))
    }
    if not since:
        return
    kinds = {place.kind for places in since.values() for place in places}
    differs = LogSource.kind in kinds and _settles_otherwise(job, registry, log)
    found = [
        str(number)
        for number, places in since.items()
        if any(
            differs if place.kind == LogSource.kind else _has(job, place, registry.parts.blobs)
            for place in places
        )
    ]
    if found:
        then = "excise again" if job.plan.get("refolds") else "its rows are planned anew"
        raise ConflictError(
            f"rows of job {job.id} were withdrawn since it was planned (withdrawal"
            f" {', '.join(found)}): give it up with `everlearn job skip {job.id}`, and {then}"
        )


def _has(job: Job, place: WithdrawnRows, blobs: BlobStore) -> bool:
    """Whether a job would learn rows that were withdrawn at a place of a file or a table."""
    gone = Numbers.load(blobs.get(place.blob))
    for piece in _slices(job):
        if place.digest == piece.digest or (place.kind, place.source) == (piece.kind, piece.source):
            here = gone.between(piece.start, piece.stop)
            if not np.isin(here, withdrawn_rows(piece, blobs).values).all():
                return True
    return False


def _settles_otherwise(job: Job, registry: Registry, log: FeedbackLog) -> bool:
    """Whether labels of a job would be settled otherwise without all labels that were withdrawn."""
    resettle = Resettling(log, (), registry.parts.blobs)
    for plan in _plans(job):
        for piece in (Slice.from_json(one) for one in plan.get("slices", ())):
            if piece.kind == LogSource.kind:
                policy = registry.definition(job.model, plan["definition"]).model().labels
                columns = Columns.from_json(plan["columns"])
                if resettle(piece, columns, policy or LabelPolicy()) != piece:
                    return True
    return False
