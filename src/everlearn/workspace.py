"""The workspace: the only place that wires storage, registry, jobs and data together."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from everlearn.base import ConflictError, Decision, InputError, Json, Model, NotFoundError
from everlearn.data.answers import compile_file, restored
from everlearn.data.compiler import compile_rows
from everlearn.data.feedback import Kind, Label, LoggedPrediction, PredictionIds, Receipt, id_text
from everlearn.data.imports import import_labels
from everlearn.data.join import LOG
from everlearn.data.log import FeedbackLog
from everlearn.data.review import ReviewQueue
from everlearn.data.reviewers import Reviewers
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.trial import hold_trial
from everlearn.jobs.account import Accounts
from everlearn.jobs.archiving import Archiving
from everlearn.jobs.checkpoint import remove_ended
from everlearn.jobs.erasing import Erasing
from everlearn.jobs.learn import Fold
from everlearn.jobs.load import load_fold
from everlearn.jobs.online import online_of
from everlearn.jobs.plan import Request
from everlearn.jobs.planner import Planner
from everlearn.jobs.queue import OPEN, Job, Queue, worker_name
from everlearn.jobs.result import JobResult, Report
from everlearn.jobs.runner import Runner
from everlearn.jobs.update import NO_LABELS, Updates
from everlearn.jobs.worker import attempt, work
from everlearn.registry.aliases import CHAMPION
from everlearn.registry.audit import Audit
from everlearn.registry.keys import Keys
from everlearn.registry.models import plain
from everlearn.registry.registry import Registry
from everlearn.registry.retention import DAY, Retention, collect
from everlearn.registry.spec import load_spec
from everlearn.registry.versions import Version
from everlearn.rollout.rollouts import Rollouts
from everlearn.storage.blobs import Blobs
from everlearn.storage.copy import backup, copy_workspace
from everlearn.storage.database import Clock, Database
from everlearn.storage.parts import PartStore
from everlearn.storage.stores import open_blobs

DEFAULT = ".everlearn"
DATABASE_NAME, BLOBS_NAME = "everlearn.db", "blobs"


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


def places(location: str | os.PathLike[str]) -> tuple[str, str]:
    """(URL of the database, URL of the blobs) of a workspace's location."""
    text = os.fspath(location)
    if "://" not in text:
        folder = Path(text).absolute()
        return f"sqlite:///{folder / DATABASE_NAME}", str(folder / BLOBS_NAME)
    try:
        url = make_url(text)
    except sa.exc.ArgumentError as error:
        raise InputError(f"{text!r} is no URL of a database") from error
    blobs_url = url.query.get("blobs")
    if not blobs_url or not isinstance(blobs_url, str):
        raise InputError(
            f"{url.render_as_string()!r} does not say where the blobs are: add"
            " ?blobs=s3://bucket/prefix or ?blobs=/folder"
        )
    database = url.difference_update_query(["blobs"])
    return database.render_as_string(hide_password=False), blobs_url


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

    def app(self, names: Sequence[str], *, learn: bool = True) -> Any:
        """The HTTP API over some models, as an ASGI application.

        Args:
            names: of the models.
            learn: also ask triggers and carry out jobs in this process, in a thread; else
                `everlearn worker` does.
        """
        from everlearn.serving.app import Models, make_app
        from everlearn.serving.learning import Learning
        from everlearn.serving.online import OnlineLearner, OnlineLearning

        models = Models(names, self.registry, self.queue, self.updates, self.rollouts)
        own, other = Workspace(self.database, self.blobs), Workspace(self.database, self.blobs)
        learners = [
            OnlineLearner(
                name,
                online,
                other.registry,
                other.planner,
                other.updates.log(name),
                models.predictors[name],
            )
            for name in names
            if (online := online_of(self.registry.definition(name).model())) is not None
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
        return make_app(
            models, learning if learn else None, OnlineLearning(learners) if learners else None
        )

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
                ended.
        """
        self._change(number, ("failed", "dead", "skipped"), "retried", self.queue.retry)

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
        self.queue.get(number)
        with self.database.write() as connection:
            state = self.queue.locked_state(connection, number)
            if state not in allowed:
                raise ConflictError(f"job {number} is {state} and cannot be {verb} now")
            change(connection, number)

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

    def erase(self, model: str, key: str) -> Json:
        """Erase the data of one key: see `everlearn.jobs.erasing.Erasing`.

        Returns:
            What was erased, which versions learned from it, and what of that remains.

        Raises:
            NotFoundError: there is no such model.
            ConflictError: a job or a rollout of the model has not ended; nothing was erased.
        """
        return Erasing(self.registry, self.queue)(model, key, self.updates.log(model))

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


@dataclass(frozen=True, slots=True)
class Answer:
    """What a version answers for one row.

    Args:
        value: the predicted class or value, as the target has it.
        probabilities: class → probability; None where the learner has none.
        version: the number of the version that answered.
        id: under which the answer was logged, for labels; None if it was not.
    """

    value: Any
    probabilities: dict[Any, float] | None
    version: int
    id: str | None = None


class ModelHandle:
    """One model of a workspace; made by `Workspace.model`.

    Attributes:
        name: of the model.
        definition: number of its definition.
    """

    def __init__(self, workspace: Workspace, name: str, definition: int) -> None:
        self.workspace, self.name, self.definition = workspace, name, definition
        self._registry = workspace.registry
        self._served: tuple[int, Fold] | None = None

    def train(
        self,
        data: Any,
        *,
        chunk: int | None = None,
        again: bool = False,
        keep: bool = False,
        source: str | None = None,
        progress: Report = lambda progress: None,
    ) -> JobResult:
        """Learn what is new in `data`, judge the candidate, and promote it if it passes.

        A job of this model that was left unfinished is finished first. Called again after a kill,
        it goes on from its last checkpoint.

        Args:
            data: what `open_sources` takes: paths and globs, frames, tables, arrays, iterables.
            chunk: rows learned at a time, in place of the strategy's.
            again: learn what was learned before once more.
            keep: copy files into the workspace, so that they may be moved away.
            source: name of a table or an iterable, by which a longer one is recognised.
            progress: called after every chunk.

        Returns:
            What became of it; its decision is "nothing" where there was nothing new.

        Raises:
            InputError: the data cannot be read, or lacks a column; nothing was learned.
            ChangedError: a file was changed since it was learned.
        """
        request = Request(data, chunk=chunk, again=again, keep=keep, source=source)
        planner, planned = self.workspace.planner, None
        results = self._finish(progress)
        sources = planner.open(request)
        while planned is None:
            try:
                planned = planner.plan(self.name, self.definition, request, sources)
            except ConflictError:  # another process queued a job, or moved the champion, meanwhile
                results += self._finish(progress)
        if isinstance(planned, int):
            return self.workspace.run(planned, progress)
        return results[-1] if results else JobResult(None, None, planned)

    def _finish(self, progress: Report) -> list[JobResult]:
        """Carry out the jobs that have not ended; wait for those that others carry out."""
        unfinished = self.workspace.queue.jobs(self.name, OPEN)
        return [self.workspace.run(job.id, progress) for job in unfinished]

    def plan(
        self,
        data: Any,
        *,
        chunk: int | None = None,
        again: bool = False,
        keep: bool = False,
        source: str | None = None,
    ) -> int | Decision:
        """Queue a job for what is new in `data`, for a worker to carry out.

        Returns:
            The job's number, or the decision "nothing" with the reason why there is none.

        Raises:
            InputError: as `train`.
            ConflictError: a job of this model has not ended; the next one starts from its result.
        """
        request = Request(data, chunk=chunk, again=again, keep=keep, source=source)
        return self.workspace.planner.plan(self.name, self.definition, request)

    def predict(
        self,
        rows: Any,
        *,
        version: int | None = None,
        log: bool | None = None,
        propensities: Sequence[float] | None = None,
    ) -> Answer | list[Answer]:
        """Predict for a dict, a list of dicts, a table, a data frame or a file of rows.

        Args:
            version: number of the version that answers; the champion unless given.
            log: keep the answers in the feedback log, where labels can judge them; dicts are
                logged unless said otherwise, other rows are not. What is logged, people may be
                asked to look at, as the model's `Review` says.
            propensities: the chance with which each row was chosen to be acted upon, above 0, for
                `LabelPolicy(propensity="inverse")`.

        Returns:
            One answer for a dict, else a list.

        Raises:
            NotFoundError: there is no such version, or no champion yet.
            InputError: a name that is no column, or a value that is not of its kind; a table or a
                file is to be logged; propensities that are no chances, or not one for each row.
        """
        records = isinstance(rows, Mapping) or (isinstance(rows, list) and len(rows) > 0)
        if log and not records:
            raise InputError("only dicts of columns and values can be logged")
        number, fold = self._fold(version)
        if isinstance(rows, str | os.PathLike):
            batch = compile_file(rows, fold.columns)
        else:
            batch = compile_rows(rows, fold.columns)
        prediction = fold.predict(batch)
        values = restored(fold.decode(prediction.value), fold.columns)
        classes = restored(fold.classes, fold.columns)
        answers = [
            Answer(
                value,
                None
                if prediction.proba is None
                else dict(zip(classes, prediction.proba[row].tolist(), strict=True)),
                number,
            )
            for row, value in enumerate(values)
        ]
        if records and log is not False:
            listed = [rows] if isinstance(rows, Mapping) else rows
            answers = self._logged(listed, answers, propensities)
        return answers[0] if isinstance(rows, Mapping) else answers

    def feedback(
        self,
        prediction: str | None,
        value: Any,
        *,
        external_id: str | None = None,
        kind: Kind = "explicit",
        source: str = LOG,
        weight: float = 1.0,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Say what was right for a prediction, durably.

        Args:
            prediction: the id with which it was answered; or None, and
            external_id: the id that the caller gave it.
            value: of the target; None takes back what was said before.
            kind, source, weight, idempotency_key: as for `Label`.

        Raises:
            InputError: there is no such prediction, or the label is wrong in itself.
            ConflictError: the idempotency key came with another label before.
        """
        said = Label(
            value,
            prediction,
            external_id=external_id,
            kind=kind,
            source=source,
            weight=weight,
            idempotency_key=idempotency_key,
        )
        return self.log.append_labels([said])[0]

    def ingest(
        self,
        url: str,
        *,
        batch: int = 1000,
        linger: float = 0.1,
        idle: float | None = None,
        stopped: threading.Event | None = None,
    ) -> Json:
        """Log the events of a stream, each once, until told to stop.

        Args:
            url: ``kafka://host:port/topic``, ``nats://host:port/stream/subject`` or
                ``mqtt://host:port/topic``; ``?group=…`` reads it from its start again.
            batch, linger, idle: as for `everlearn.data.streams.ingest.ingest`.
            stopped: set it to stop after the batch at hand.

        Returns:
            The numbers of "predictions" and "labels" that were logged, of "known" ones that were
            there before, and of messages "set_aside".

        Raises:
            InputError: the URL is of no known kind, or there is no such stream.
            MissingDependencyError: the library for this kind of stream is not there.
            StorageError: the stream cannot be reached.
        """
        from everlearn.data.streams.ingest import ingest, open_stream

        told = threading.Event() if stopped is None else stopped
        return ingest(
            open_stream(url),
            self.log,
            self.workspace.ids,
            batch=batch,
            linger=linger,
            idle=idle,
            stopped=told.is_set,
        ).to_json()

    def ingested(self, url: str) -> Json:
        """How far a stream was read, and what of it was set aside; the stream is not asked."""
        from everlearn.data.streams.ingest import intake_of

        intake = intake_of(url, self.log, self.workspace.ids)
        return {
            "offsets": {str(part): at for part, at in sorted(intake.positions().items())},
            "set_aside": [one.to_json() for one in intake.aside()],
        }

    def update(self, *, progress: Report = lambda progress: None) -> JobResult:
        """Learn the labels that came since the last job, as `train` learns files.

        Raises:
            InputError: a label is no value of the target, or the model has none.
        """
        self.workspace.updates.mature(self.name, self.definition)
        if self.log.head() == 0:
            return JobResult(None, None, NO_LABELS)
        source = self.workspace.updates.source(self.name, self.definition)
        return self.train(source, progress=progress)

    def trigger(self) -> Decision:
        """Ask the model's triggers, and queue a job for a worker if one of them would learn.

        Returns:
            The decision that was made; its evidence has the job's number if there is one.
        """
        return self.workspace.updates.trigger(self.name, self.definition)

    @property
    def log(self) -> FeedbackLog:
        """The model's feedback log."""
        return self.workspace.updates.log(self.name)

    @property
    def reviewers(self) -> Reviewers:
        """Those who work the model's review queue."""
        return Reviewers(self.log, self._queue.review)

    @cached_property
    def _queue(self) -> ReviewQueue:
        model = self._registry.definition(self.name, self.definition).model()
        return ReviewQueue(self.log, model.review, model.labels)

    def _logged(
        self,
        rows: Sequence[Mapping[str, Any]],
        answers: list[Answer],
        propensities: Sequence[float] | None,
    ) -> list[Answer]:
        """The answers with the ids under which they were logged."""
        chances = [None] * len(rows) if propensities is None else [float(p) for p in propensities]
        if len(chances) != len(rows) or not all(p is None or 0.0 < p <= 1.0 for p in chances):
            raise InputError("propensities= takes one chance for each row, above 0 and at most 1")
        numbers = self.workspace.ids.take(len(rows))
        logged = [
            LoggedPrediction(
                number,
                plain(row),
                plain({"value": answer.value, "probabilities": answer.probabilities}),
                version=answer.version,
                propensity=chance,
            )
            for number, row, answer, chance in zip(numbers, rows, answers, chances, strict=True)
        ]
        self.log.append_predictions(logged)
        self._queue.offer(logged)
        return [
            replace(answer, id=id_text(number))
            for number, answer in zip(numbers, answers, strict=True)
        ]

    # --- versions ---

    def versions(self) -> list[Json]:
        """All versions in the order of their numbers, as JSON."""
        return [item.to_json() for item in self._registry.versions(self.name)]

    def history(self) -> list[Json]:
        """All moves of all aliases, oldest first, as JSON."""
        return [item.to_json() for item in self._registry.history(self.name)]

    def champion(self) -> int | None:
        """The number of the version that serves, or None."""
        found = self._registry.champion(self.name)
        return None if found is None else found.number

    def rollback(self, to: int | None = None) -> Json:
        """Make an earlier champion champion again, with its memory and its position in the log.

        Args:
            to: its number; the champion before the present one unless given.

        Raises:
            InputError: there is nothing to go back to.
        """
        return self._registry.rollback(self.name, to).to_json()

    def promote(self, number: int, *, reason: str | None = None) -> Json:
        """Make a version champion by hand, whatever the gate said of it.

        Raises:
            NotFoundError: there is no such version, or its state was removed.
            ConflictError: the champion was moved at the same time.
        """
        said = reason or "promoted by hand"
        stands = self.champion()
        return self._registry.promote(self.name, number, expected=stands, reason=said).to_json()

    def diff(self, a: int, b: int) -> Json:
        """What differs between two versions: metrics, what was learned, churn on the hold-outs."""
        both = [self._registry.version(self.name, number) for number in (a, b)]
        churn = None
        if all(version.dropped_at is None for version in both):
            newer = max(both, key=lambda version: version.number)
            rows = HoldOuts.load(self._registry.holdouts(self.name, newer))
            old, new = map(self._load, both)
            if old.columns == new.columns:  # else no rows are there that both can predict
                churn = hold_trial(new, old, rows).churn(slice(None))
        return self._registry.diff(self.name, a, b, churn=churn).to_json()

    def export(self, number: int, path: str | os.PathLike[str]) -> Path:
        """Write one version, whole and verified, into one file."""
        return self._registry.export(self.name, number, path)

    def load(self, version: int | None = None) -> Fold:
        """The state of a version, every digest verified; the champion's unless given."""
        return self._fold(version)[1]

    def _fold(self, version: int | None) -> tuple[int, Fold]:
        """(number, fold) of a version; the one used last is kept in memory."""
        found = self._registry.version(self.name, CHAMPION if version is None else version)
        if self._served is None or self._served[0] != found.number:
            self._served = (found.number, self._load(found))
        return self._served

    def _load(self, version: Version) -> Fold:
        return load_fold(self._registry, self.name, version)
