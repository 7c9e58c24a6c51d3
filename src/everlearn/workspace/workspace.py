"""A workspace: its stores, its models, jobs and upkeep."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from everlearn.base import ConflictError, Json, Model, NotFoundError
from everlearn.data.feedback import PredictionIds
from everlearn.data.imports import import_labels
from everlearn.jobs.account import Accounts
from everlearn.jobs.archiving import Archiving
from everlearn.jobs.checkpoint import remove_ended
from everlearn.jobs.erasing import Erasing
from everlearn.jobs.excise.erased import fold_again
from everlearn.jobs.planner import Planner
from everlearn.jobs.processes import worker_name
from everlearn.jobs.queue import OPEN, Job, Queue
from everlearn.jobs.result import JobResult, Report
from everlearn.jobs.retry import check as check_retry
from everlearn.jobs.runner import Runner
from everlearn.jobs.update import Updates
from everlearn.jobs.worker import attempt, work
from everlearn.registry.audit import Audit, note
from everlearn.registry.keys import Keys
from everlearn.registry.registry import Registry
from everlearn.registry.retention import DAY, Retention, collect
from everlearn.registry.spec import load_spec
from everlearn.rollout.explain import Explanations
from everlearn.rollout.rollouts import Rollouts
from everlearn.storage.blobs import Blobs
from everlearn.storage.copy import backup, copy_workspace
from everlearn.storage.database import Clock, Database
from everlearn.storage.parts import PartStore
from everlearn.storage.stores import open_blobs
from everlearn.workspace.model import ModelHandle
from everlearn.workspace.places import BLOBS_NAME, DATABASE_NAME, DEFAULT, places

if TYPE_CHECKING:
    from everlearn.serving.limits import Limits


def open(
    location: str | os.PathLike[str] = DEFAULT, *, create: bool = True, clock: Clock | None = None
) -> Workspace:
    """Open a workspace; it is made if it is not there.

    Args:
        location: a folder (SQLite and a folder of blobs in it), or the URL of a PostgreSQL
            database that says where the blobs are:
            ``postgresql://user@host/db?blobs=s3://bucket/prefix`` (or ``?blobs=/folder``).
        create: make it if it is not there.
        clock: what time it is for predictions, labels, review, triggers and rollouts, microseconds
            since 1970 UTC; the machine's unless given. With one of one's own, a simulation or a
            replay lives through weeks in seconds. Leases and jobs keep to the machine's.

    Raises:
        InputError: a URL that does not say where the blobs are.
        NotFoundError: there is none, and `create` is false.
        StorageError: it was made by a newer release, or cannot be reached.
    """
    database_url, blobs_url = places(location)
    if not create and "://" not in os.fspath(location) and not Path(location).is_dir():
        raise NotFoundError(f"there is no workspace at {os.fspath(location)!r}")
    database = Database.open(database_url, create=create, clock=clock)
    return Workspace(database, open_blobs(blobs_url))


class Workspace:
    """One database and one blob store. Safe for many processes; use one object a thread.

    Args:
        database, blobs: opened stores; `everlearn.open` opens both from one location.
        lease_seconds: how long a worker may be silent before its job is taken over.
    """

    def __init__(self, database: Database, blobs: Blobs, *, lease_seconds: float = 30.0) -> None:
        self.database, self.blobs = database, blobs
        self.parts = PartStore(blobs)
        self.registry = Registry(database, self.parts)
        self.queue = Queue(database, lease_seconds)
        self.rollouts = Rollouts(database, blobs)
        self.keys, self.audit = Keys(database), Audit(database)
        self.runner = Runner(database, self.parts, self.queue, rollout=self.rollouts.begin)
        self.planner = Planner(database, self.parts, self.queue)
        self.updates = Updates(
            database, blobs, self.registry, self.planner, self.queue, self._on_trial
        )
        self.accounts = Accounts(self.registry, self.parts)
        self.explanations = Explanations(self.registry)
        self.ids = PredictionIds(database.clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        self.database.close()

    def model(self, definition: Model | str | os.PathLike[str]) -> ModelHandle:
        """A model of this workspace.

        Args:
            definition: a `Model`, whose definition is stored if it changed; the path of a file
                that defines one (``flights.py``); or the name of a model that is stored already.

        Raises:
            NotFoundError: there is no model of this name.
            SpecError: the file raises or defines no model, the model cannot be rebuilt, or its
                learner or schema changed and its strategy does not start from scratch.
        """
        source = None
        if not isinstance(definition, Model):
            text = os.fspath(definition)
            if not text.endswith(".py"):
                return ModelHandle(self, text, self.registry.definition(text).number)
            definition, source = load_spec(text)
        made = self.registry.define(definition, source)
        return ModelHandle(self, definition.name, made.number)

    def app(self, names: Sequence[str], *, learn: bool = True, limits: Limits | None = None) -> Any:
        """The HTTP API over some models, as an ASGI application.

        Args:
            names: of the models.
            learn: also ask triggers and carry out jobs in this process, in a thread; else
                `everlearn worker` does.
            limits: what a request may cost; those of `everlearn serve` unless given.
        """
        from everlearn.serving.app import make_app
        from everlearn.serving.learning import Learning
        from everlearn.serving.models import Models
        from everlearn.serving.online import OnlineLearner, OnlineLearning

        models = Models(names, self.registry, self.queue, self.updates, self.rollouts)
        own, other = Workspace(self.database, self.blobs), Workspace(self.database, self.blobs)
        learners = [
            OnlineLearner(
                name,
                other.registry,
                other.planner,
                other.updates.log(name),
                models.predictors[name],
            )
            for name in names
        ]
        learning = Learning(
            names,
            own.registry,
            own.queue,
            own.runner,
            own.updates,
            own.rollouts,
            models.refresh,
        )
        beside = OnlineLearning(learners) if learners else None
        return make_app(models, learning if learn else None, beside, limits)

    def import_feedback(self, path: str | os.PathLike[str], *, model: str | None = None) -> Json:
        """Log the labels of a file; see `everlearn.data.imports.import_labels`."""
        return import_labels(path, self.database, self.updates.log, model)

    def _on_trial(self, model: str) -> bool:
        return self.rollouts.running(model) is not None

    # --- jobs ---

    def jobs(self, model: str | None = None) -> list[Job]:
        """All jobs, in the order of their ids; of one model or of all."""
        return self.queue.jobs(model)

    def job(self, number: int) -> Job:
        """One job. Raises `NotFoundError`."""
        return self.queue.get(number)

    def retry(self, number: int) -> None:
        """Queue a failed, dead or skipped job again, from its last checkpoint.

        Raises:
            ConflictError: it is queued or running, or done, or another job of its model has not
                ended, or its rows were learned since (see `everlearn.jobs.retry`).
        """

        def again(connection: sa.Connection, at: int) -> None:
            job = self.queue.get(at)
            check_retry(connection, job, self.registry, self.updates.log(job.model))
            self.queue.retry(connection, at)

        self._change(number, ("failed", "dead", "skipped"), "retried", again)

    def skip(self, number: int, reason: str = "skipped by an operator") -> None:
        """Give up a job that is not running; what it would have learned stays unlearned.

        Raises:
            ConflictError: it is running, or ended.
        """
        allowed = ("queued", "failed", "dead")
        self._change(number, allowed, "skipped", lambda at, job: self.queue.skip(at, job, reason))

    def run(self, number: int, report: Report = lambda progress: None) -> JobResult:
        """Carry out one job here, or, if another worker has it, wait for its result.

        Raises:
            InputError, SpecError: the job's input is wrong; it is failed.
            EverlearnError: the job failed and will be tried again.
        """
        name = worker_name()
        while (job := self.queue.claim(name, number)) is None:
            found = self.queue.get(number)
            if found.state not in OPEN:
                return self.runner.result(found)
            time.sleep(0.2)
        with attempt(self.queue, job) as heart:
            return self.runner(job, heart.check, report)

    def work(
        self,
        *,
        once: bool = False,
        stop: threading.Event | None = None,
        report: Callable[[Job, JobResult | None, str | None], None] = lambda *args: None,
    ) -> int:
        """Be a worker: carry out jobs until `stop` is set, or with `once` until none is due."""
        return work(self.queue, self.runner, once=once, stop=stop, report=report)

    def _change(
        self,
        number: int,
        allowed: tuple[str, ...],
        verb: str,
        change: Callable[[sa.Connection, int], None],
    ) -> None:
        job = self.queue.get(number)
        with self.database.write() as connection:
            state = self.queue.locked_state(connection, number)
            if state not in allowed:
                raise ConflictError(f"job {number} is {state} and cannot be {verb} now")
            change(connection, number)
            note(connection, f"job {verb}", job.model, {"job": number})

    # --- upkeep ---

    def gc(
        self, dry_run: bool = False, *, retention: Retention | None = None, grace: float = DAY
    ) -> Json:
        """Drop the states that the retention policy does not keep, and remove unused blobs.

        Args:
            dry_run: only say what would be removed.
            retention: which versions keep their state; None keeps all.
            grace: seconds; younger blobs stay, because somebody may be about to name them.

        Returns:
            JSON: the collection's counts, and the versions dropped per model.
        """
        dropped: dict[str, list[int]] = {}
        if retention is not None:
            for name in self.registry.models():
                dropped[name] = self.registry.retain(name, retention, dry_run=dry_run)
        found = collect(
            self.database, self.blobs, grace=grace, dry_run=dry_run, as_if_dropped=dropped
        )
        if not dry_run:
            remove_ended(self.parts, self.queue, int((time.time() - grace) * 1e6))
        return found.to_json() | {"dropped": dropped}

    def compact(
        self,
        model: str | None = None,
        *,
        older_than: str = "30d",
        drop_older_than: str | None = None,
        dry_run: bool = False,
    ) -> Json:
        """Move old predictions and labels from the database into Parquet blobs, where the feedback
        log reads them as before; see `everlearn.data.compaction`.

        Args:
            model: its name; all models unless given.
            older_than: a span of time ("30d"); what arrived since stays.
            drop_older_than: what was archived, and is older than this, is deleted for good.
            dry_run: only say what would be moved and deleted.

        Returns:
            Model → its counts of "predictions", "labels", "segments", "bytes" and "dropped", and
            why younger rows were "held".

        Raises:
            NotFoundError: there is no such model.
            ConflictError: rows are to be deleted while a job of the model has not ended.
        """
        names = self.registry.models() if model is None else [model]
        archiving = Archiving(self.registry, self.queue, self.planner, self.updates, self.blobs)
        return {
            name: archiving(name, older_than, drop_older_than, dry_run=dry_run).to_json()
            for name in names
        }

    def erase(self, model: str, key: str, *, refold: bool = True) -> Json:
        """Erase the data of one key: see `everlearn.jobs.erasing.Erasing`.

        Args:
            refold: also fold again, without it, what the champion learned; the version in which
                that ends is judged as any other.

        Returns:
            What was erased, which versions learned from it, and what of that remains; with "refold"
            (see `everlearn.jobs.excise.erased.fold_again`) and the "result" of its job.

        Raises:
            NotFoundError: there is no such model.
            ConflictError: a job or a rollout of the model has not ended; nothing was erased.
        """
        log = self.updates.log(model)
        report = Erasing(self.registry, self.queue)(model, key, log)
        if not refold:
            return report
        again = fold_again(self.registry, self.queue, model, log)
        if again["job"] is not None:
            again["result"] = self.run(again["job"]).to_json()
        return report | {"refold": again}

    def import_version(
        self, path: str | os.PathLike[str], *, name: str | None = None, trust: bool = False
    ) -> Json:
        """Add a version that `ModelHandle.export` wrote. It serves once it is promoted.

        Args:
            name: of the model to add it to; the one that it was exported from unless given.
            trust: accept a definition that runs code of its own.
        """
        model, number = self.registry.import_(path, name=name, trust=trust)
        return {"model": model, "number": number}

    def copy(self, database: str, blobs: str) -> Json:
        """Copy everything into another, empty workspace, verified."""
        target = Database.open(database)
        try:
            report = copy_workspace(self.database, self.blobs, target, open_blobs(blobs))
        finally:
            target.close()
        return report.to_json()

    def backup(self, folder: str | os.PathLike[str]) -> Json:
        """Copy everything, while it is in use, into a folder that is a workspace of its own."""
        report = backup(
            self.database, self.blobs, folder, database_name=DATABASE_NAME, blobs_name=BLOBS_NAME
        )
        return report.to_json()
