"""Checkpoints: versions not yet published. A killed job goes on from its last one.

A checkpoint's parts are blobs like a version's. Those that the version will share (blocks of
remembered rows, ids seen) go to the store at once; those that the next checkpoint replaces
(parameters, generators, metrics) go to a folder of the attempt's own, from which a replaced one is
deleted as soon as its successor is committed, so that a long job leaves nothing behind.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from everlearn.base import Json, Part, State, crash_point
from everlearn.jobs.queue import ENDED, Job, Queue
from everlearn.storage.blobs import Blobs
from everlearn.storage.parts import Entry, Manifest, PartStore
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
    """The checkpoints of one attempt at a job.

    Each attempt writes to a folder of its own, named by its fencing token, and deletes nothing in
    another's until a checkpoint of its own stands: a worker that was stopped for long and goes on
    when its job is another's cannot harm what that one wrote.

    Args:
        parts: the workspace's store. The job's own folders are beside its blobs, so that a
            collection of those does not see them; credentials of an object store come from the
            environment.
        job: as it was claimed.
    """

    def __init__(self, parts: PartStore, job: Job) -> None:
        self._parts, self._job = parts, job
        self._url = f"{parts.blobs.url.rstrip('/')}-checkpoints/{job.id}"
        self._passing: Manifest = {}
        self._former: int | None = None

    @cached_property
    def _area(self) -> Blobs:
        return self._open(self._job.token)

    def save(self, queue: Queue, state: State, progress: Json, known: Mapping[str, Entry]) -> None:
        """Write the state and make it the job's checkpoint, if the job is still ours.

        Args:
            known: parts that the job's base and plan keep: they are neither read nor written.

        Raises:
            LeaseLostError: the job was taken over; the checkpoint that stands is untouched.
        """
        lasting = {name: part for name, part in state.items() if is_lasting(name)}
        passing = {name: part for name, part in state.items() if not is_lasting(name)}
        manifest = PartStore(self._area).save(passing, known=self._passing)
        shared = self._parts.save(lasting, known=known)
        crash_point("checkpoint.saved")
        made = {"area": self._job.token, "passing": manifest, "lasting": shared}
        queue.checkpoint(self._job, made | progress)
        crash_point("checkpoint.committed")
        for part in lasting.values():
            part.release()
        self._passing = manifest
        _clear(self._area, keep=manifest)
        if self._former is not None:
            self._remove(self._former)
            self._former = None

    def load(self, checkpoint: Json) -> dict[str, Part]:
        """The state that was saved, its parts loaded when they are read."""
        self._former = checkpoint["area"]
        passing = PartStore(self._open(checkpoint["area"])).load(checkpoint["passing"])
        return passing | self._parts.load(checkpoint["lasting"])

    def remove(self) -> None:
        """The job is over: delete the blobs of all its attempts, and their folders."""
        if "://" not in self._url:
            shutil.rmtree(self._url, ignore_errors=True)
            return
        for token in range(1, self._job.token + 1):
            self._remove(token)

    def _open(self, token: int) -> Blobs:
        return open_blobs(f"{self._url}/{token}")

    def _remove(self, token: int) -> None:
        if "://" in self._url:
            _clear(self._open(token))
        else:
            shutil.rmtree(f"{self._url}/{token}", ignore_errors=True)


def remove_ended(parts: PartStore, queue: Queue, before: int) -> None:
    """Delete what was left by jobs that were given up, and by workers that died just before they
    could (in an object store, where that takes a listing for each job, only by the former).

    Args:
        before: microseconds; jobs that ended later keep their checkpoints, for `Queue.retry`.
    """
    folder = f"{parts.blobs.url.rstrip('/')}-checkpoints"
    if "://" in folder:
        jobs = queue.jobs(states=("failed", "dead", "skipped"))
    else:
        left = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        jobs = [job for job in queue.jobs(states=ENDED) if str(job.id) in left]
    for job in jobs:
        if (job.finished_at or 0) <= before:
            Checkpoints(parts, job).remove()


def _clear(area: Blobs, keep: Manifest | None = None) -> None:
    """Delete the blobs of an area, but for those of one manifest."""
    kept = {entry["blob"] for entry in (keep or {}).values()}
    for info in list(area.list()):
        if info.digest not in kept:
            area.delete(info.digest)


_LASTING = re.compile(r"fold/memory/held/(held|aside)/\d+|fold/ids/\d+|holdouts/block/.*")


def is_lasting(name: str) -> bool:
    """Whether a part is an immutable block that later states share: of remembered rows, of ids
    seen, of hold-out rows.

    >>> is_lasting("fold/memory/held/held/0"), is_lasting("fold/learner/estimator")
    (True, False)
    """
    return _LASTING.fullmatch(name) is not None
