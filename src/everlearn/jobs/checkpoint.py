"""Checkpoints: versions not yet published. A killed job goes on from its last one.

A checkpoint's parts are blobs like a version's. Those that the version will share (blocks of
remembered rows, ids seen) go to the store at once; those that the next checkpoint replaces
(parameters, generators, metrics) go to a folder of the job's own, from which a replaced one is
deleted as soon as its successor is committed, so that a long job leaves nothing behind.
"""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass, field
from functools import cached_property

from everlearn.base import Json, Part, State, crash_point
from everlearn.jobs.queue import Job, Queue
from everlearn.storage.blobs import Blobs
from everlearn.storage.parts import Manifest, PartStore
from everlearn.storage.stores import open_blobs

SHARE_OF_TIME = 0.02
"""A checkpoint is due when writing it costs at most this share of the time since the last one."""


@dataclass(slots=True)
class Pace:
    """When the next checkpoint is due: after so many rows, or seconds, and never too dear.

    Args:
        seconds: least time between two checkpoints.
        rows: rows after which one is due whatever it costs; None to go by time alone.
    """

    seconds: float = 0.5
    rows: int | None = None
    _last_time: float = field(default_factory=time.monotonic)
    _last_rows: int = 0
    _cost: float = 0.0

    def is_due(self, rows: int) -> bool:
        if self.rows is not None:
            return rows - self._last_rows >= self.rows
        wait = max(self.seconds, self._cost / SHARE_OF_TIME)
        return time.monotonic() - self._last_time >= wait

    def begin(self) -> None:
        self._cost = -time.monotonic()

    def end(self, rows: int) -> None:
        self._last_time, self._last_rows = time.monotonic(), rows
        self._cost += self._last_time


class Checkpoints:
    """The checkpoints of one job.

    Args:
        parts: the workspace's store. The job's own folder is beside its blobs, so that a
            collection of those does not see it; credentials of an object store come from the
            environment.
        job: its id.
    """

    def __init__(self, parts: PartStore, job: int) -> None:
        self._parts = parts
        self._url = f"{parts.blobs.url.rstrip('/')}-checkpoints/{job}"
        self._passing: Manifest = {}

    @cached_property
    def _area(self) -> Blobs:
        return open_blobs(self._url)

    def save(self, queue: Queue, job: Job, state: State, progress: Json) -> None:
        """Write the state and make it the job's checkpoint, if the job is still ours.

        Raises:
            LeaseLostError: the job was taken over; the checkpoint that stands is untouched.
        """
        lasting = {name: part for name, part in state.items() if is_lasting(name)}
        passing = {name: part for name, part in state.items() if not is_lasting(name)}
        manifest = PartStore(self._area).save(passing, known=self._passing)
        shared = self._parts.save(lasting)
        crash_point("checkpoint.saved")
        queue.checkpoint(job, {"passing": manifest, "lasting": shared, **progress})
        crash_point("checkpoint.committed")
        for part in lasting.values():
            part.release()
        self._passing = manifest
        self.clear(keep=manifest)

    def load(self, checkpoint: Json) -> dict[str, Part]:
        """The state that was saved, its parts loaded when they are read."""
        self._passing = checkpoint["passing"]
        passing = PartStore(self._area).load(self._passing)
        return passing | self._parts.load(checkpoint["lasting"])

    def clear(self, keep: Manifest | None = None) -> None:
        """Delete the job's own blobs, but for those of one manifest."""
        kept = {entry["blob"] for entry in (keep or {}).values()}
        for info in list(self._area.list()):
            if info.digest not in kept:
                self._area.delete(info.digest)

    def remove(self) -> None:
        """The job is over: delete all of its own blobs, and their folder."""
        if "://" in self._url:
            self.clear()
        else:
            shutil.rmtree(self._url, ignore_errors=True)


_LASTING = re.compile(r"fold/memory/held/(held|aside)/\d+|fold/ids/\d+|holdouts/block/.*")


def is_lasting(name: str) -> bool:
    """Whether a part is an immutable block that later states share: of remembered rows, of ids
    seen, of hold-out rows.

    >>> is_lasting("fold/memory/held/held/0"), is_lasting("fold/learner/estimator")
    (True, False)
    """
    return _LASTING.fullmatch(name) is not None
