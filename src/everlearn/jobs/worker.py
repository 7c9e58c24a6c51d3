"""A worker: claims jobs, keeps their leases alive, runs them, and survives their failures."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self, TypeVar

from everlearn.base import (
    ConflictError,
    EverlearnError,
    InputError,
    LeaseLostError,
    SpecError,
    StorageError,
)
from everlearn.jobs.processes import worker_name
from everlearn.jobs.queue import Job, Queue

HOPELESS = (InputError, SpecError)
"""Errors that the same input will give again: the job fails at once and is not tried again."""

POLL_SECONDS = 0.5

PATIENCE_SECONDS = 60.0
"""How long a worker waits for a database that does not answer (it is being restarted, say)."""


class Heart:
    """Renews the lease of a job from a thread of its own while the job runs.

    `check` is called between chunks: it raises `LeaseLostError` once the job is no longer ours.
    """

    def __init__(self, queue: Queue, job: Job) -> None:
        self._queue, self._job = queue, job
        self._stop = threading.Event()
        self._lost: LeaseLostError | None = None
        self._thread = threading.Thread(target=self._beat, name=f"lease-{job.id}", daemon=True)

    def check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _beat(self) -> None:
        while not self._stop.wait(self._queue.lease_seconds / 3):
            try:
                self._queue.heartbeat(self._job)
            except LeaseLostError as lost:
                self._lost = lost
                return
            except EverlearnError:
                continue  # the next beat tries again; the commit checks the token in any case

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()


Result = TypeVar("Result", covariant=True)


class Runs(Protocol[Result]):
    """What carries out a claimed job (`jobs.runner.Runner`)."""

    def __call__(self, job: Job, check: Callable[[], None]) -> Result: ...


@contextmanager
def attempt(queue: Queue, job: Job) -> Iterator[Heart]:
    """Run the body as one attempt at the job: with heartbeats, and its failure written down.

    What the body raises is raised again once it is written down.
    """
    try:
        with Heart(queue, job) as heart:
            yield heart
    except LeaseLostError:
        raise
    except KeyboardInterrupt:
        queue.release(job)
        raise
    except EverlearnError as error:
        queue.fail(job, str(error), retry=not isinstance(error, HOPELESS))
        raise
    except Exception:
        queue.fail(job, traceback.format_exc(limit=-3), retry=True)
        raise


def work(
    queue: Queue,
    run: Runs[Result],
    *,
    once: bool = False,
    stop: threading.Event | None = None,
    report: Callable[[Job, Result | None, str | None], None] = lambda job, result, error: None,
) -> int:
    """Claim and run jobs until `stop` is set, or, with `once`, until none is due.

    Args:
        report: called after each attempt with the job and its result, or its error.

    Returns:
        The number of attempts.

    Raises:
        StorageError: the database has not answered for `PATIENCE_SECONDS`.
    """
    stop = stop or threading.Event()
    name, attempts = worker_name(), 0
    while not stop.is_set():
        job = _claimed(queue, name, stop)
        if job is None:
            if once:
                break
            stop.wait(POLL_SECONDS)
            continue
        attempts += 1
        try:
            with attempt(queue, job) as heart:
                result = run(job, heart.check)
        except LeaseLostError as error:
            report(job, None, str(error))
        except Exception as error:  # written down by `attempt`; the worker goes on with other jobs
            report(job, None, str(error))
        else:
            report(job, result, None)
    return attempts


def _claimed(queue: Queue, name: str, stop: threading.Event) -> Job | None:
    """The next job that is due, with patience for a database that fails for a while."""
    give_up, pause = time.monotonic() + PATIENCE_SECONDS, POLL_SECONDS
    while True:
        try:
            return queue.claim(name)
        except (StorageError, ConflictError):
            if time.monotonic() + pause > give_up or stop.wait(pause):
                raise
            pause *= 2
