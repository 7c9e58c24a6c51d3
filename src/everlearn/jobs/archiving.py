"""How much of a feedback log may be archived: what nothing that is in progress looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from everlearn.base import ConflictError, Model
from everlearn.data.compaction import Bounds, Compacted, compact, drop
from everlearn.data.feedback import PredictionIds
from everlearn.data.policy import microseconds
from everlearn.data.slices import Consumed
from everlearn.jobs.planner import Planner
from everlearn.jobs.queue import OPEN, Queue
from everlearn.jobs.triggers.history import SKEW
from everlearn.jobs.update import Updates
from everlearn.registry import aliases, versions
from everlearn.registry.audit import note
from everlearn.registry.models import model_id
from everlearn.registry.registry import Registry
from everlearn.storage import schema
from everlearn.storage.blobs import Blobs

NONE_LEARNED = "no version has learned from the log yet: its labels stay"


class Archiving:
    """Archives old rows of the feedback logs, and deletes the oldest.

    Args:
        registry, queue, planner, updates, blobs: of the workspace.
    """

    def __init__(
        self, registry: Registry, queue: Queue, planner: Planner, updates: Updates, blobs: Blobs
    ) -> None:
        self._registry, self._queue, self._planner = registry, queue, planner
        self._updates, self._blobs = updates, blobs

    def __call__(
        self, name: str, older_than: str, drop_older_than: str | None, *, dry_run: bool
    ) -> Compacted:
        """Archive, and delete, what is old. See `Workspace.compact`."""
        age = microseconds(older_than)
        forget = None if drop_older_than is None else microseconds(drop_older_than)
        definition = self._registry.definition(name)
        database, log = self._registry.database, self._updates.log(name)
        if forget is not None and not dry_run and self._queue.jobs(name, OPEN):
            raise ConflictError(f"a job of {name!r} has not ended; delete rows after it")
        now = database.clock()  # before windows are closed: none that closes later is passed over
        if not dry_run:
            self._updates.mature(name, definition.number)
        taken = self._planner.consumed(name)
        with database.read() as connection:
            limits = bounds(connection, name, definition.model(), taken, now - age, now)
        done = compact(log, self._blobs, limits, dry_run=dry_run)
        if forget is None:
            return done
        if not dry_run:
            with database.write() as connection:
                note(connection, "drop old rows", name, {"older_than": drop_older_than})
        return replace(done, dropped=drop(log, self._blobs, now - forget, dry_run=dry_run))


def bounds(
    connection: sa.Connection,
    name: str,
    model: Model,
    taken: Sequence[Consumed],
    before: int,
    now: int,
) -> Bounds:
    """What may be archived of a model's log.

    What arrived in the maturity window stays, because its negatives are still to come; so does
    what arrived since the champion was made, which triggers compare with, or since a stage of a
    running rollout began; and labels that no version took.

    Args:
        taken: what all versions consumed.
        before: the moment that was asked for, in microseconds since 1970 UTC.
        now: the present moment.

    Raises:
        NotFoundError: there is no such model.
    """
    key, held = model_id(connection, name), ""
    limits: list[tuple[int, str]] = []
    champion = aliases.current(connection, name)
    if champion is not None and model.triggers:
        made = versions.get(connection, name, champion, increments=False).created_at
        limits.append((made - SKEW, f"triggers compare with what version {champion} was asked"))
    table = schema.rollouts.c
    running = sa.select(table.since).where(table.model_id == key, table.ended_at.is_(None))
    for since in connection.execute(running).scalars():
        moment = ((since >> 21) + PredictionIds.EPOCH) * 1000
        limits.append((moment - SKEW, "a rollout has not ended"))
    if model.labels is not None and model.labels.window is not None:
        limits.append((now - model.labels.window, "windows in which labels are awaited are open"))
    for moment, reason in limits:
        if moment < before:
            before, held = moment, reason
    upto = max((one.stop for one in taken if one.kind == "log"), default=0)
    return Bounds(before, upto, held or ("" if upto else NONE_LEARNED))
