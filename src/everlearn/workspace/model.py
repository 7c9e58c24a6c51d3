"""One model of a workspace, as Python code holds it: train, predict, feedback, versions."""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from everlearn.base import Decision, InputError, Json
from everlearn.data.feedback import Kind, Receipt
from everlearn.data.imports import label_of
from everlearn.data.join import LOG
from everlearn.data.log import FeedbackLog
from everlearn.data.review import ReviewQueue
from everlearn.data.reviewers import Reviewers
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.trial import hold_trial
from everlearn.jobs import catchup, transfer
from everlearn.jobs.learn import Fold
from everlearn.jobs.load import load_fold
from everlearn.jobs.plan import Request
from everlearn.jobs.result import JobResult, Report
from everlearn.jobs.update import NO_LABELS
from everlearn.registry.aliases import CHAMPION
from everlearn.registry.audit import note
from everlearn.registry.versions import Version
from everlearn.workspace.answers import Answer, Given, answered, log_answers
from everlearn.workspace.repair import Repair
from everlearn.workspace.training import train

if TYPE_CHECKING:
    from everlearn.workspace.workspace import Workspace


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
        return train(self.workspace, self.name, self.definition, request, progress)

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
        keys: Sequence[str | None] | None = None,
        ids: Sequence[str | None] | None = None,
        propensities: Sequence[float | None] | None = None,
    ) -> Answer | list[Answer]:
        """Predict for a dict, a list of dicts, a table, a data frame or a file of rows.

        Args:
            version: number of the version that answers; the champion unless given.
            log: keep the answers in the feedback log, where labels can judge them; dicts are
                logged unless said otherwise, other rows are not. What is logged, people may be
                asked to look at, as the model's `Review` says.
            keys: the entity of each row, whose data can be erased.
            ids: the caller's own id of each row, by which labels may name it.
            propensities: the chance with which each row was chosen to be acted upon, above 0, for
                `LabelPolicy(propensity="inverse")`.

        Returns:
            One answer for a dict, else a list.

        Raises:
            NotFoundError: there is no such version, or no champion yet.
            InputError: a name that is no column, or a value that is not of its kind; a table or a
                file is to be logged; propensities that are no chances; keys, ids or propensities
                that are not one for each row.
            ConflictError: one of the ids was logged before.
        """
        records = isinstance(rows, Mapping) or (isinstance(rows, list) and len(rows) > 0)
        if log and not records:
            raise InputError("only dicts of columns and values can be logged")
        number, fold = self._fold(version)
        answers = answered(fold, number, rows)
        if records and log is not False:
            listed = [rows] if isinstance(rows, Mapping) else rows
            given = Given(listed, keys, ids, propensities)
            answers = log_answers(self.log, self._queue, self.workspace.ids, given, answers)
        return answers[0] if isinstance(rows, Mapping) else answers

    def feedback(
        self,
        prediction: str | None,
        value: Any,
        *,
        external_id: str | None = None,
        kind: Kind = "explicit",
        source: str = LOG,
        reviewer: str | None = None,
        weight: float = 1.0,
        selection: float | None = None,
        at: dt.datetime | str | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Say what was right for a prediction, durably.

        Args:
            prediction: the id with which it was answered; or None, and
            external_id: the id that the caller gave it.
            value: of the target; None takes back what was said before.
            kind, source, reviewer, weight, selection, idempotency_key: as for `Label`.
            at: when it became known; now, unless said.

        Raises:
            InputError: there is no such prediction, or the label is wrong in itself.
            ConflictError: the idempotency key came with another label before.
        """
        said = {
            "prediction_id": prediction,
            "external_id": external_id,
            "value": value,
            "kind": kind,
            "source": source,
            "reviewer": reviewer,
            "weight": weight,
            "selection": selection,
            "at": at,
            "idempotency_key": idempotency_key,
        }
        return self.log.append_labels([label_of(said)])[0]

    def feedback_many(self, labels: Iterable[Mapping[str, Any]]) -> list[Receipt]:
        """Say what was right for many predictions: in one transaction, durably, all or none.

        Args:
            labels: ``{"prediction_id" or "external_id", "value", "kind"?, "source"?, "reviewer"?,
                "weight"?, "selection"?, "at"?, "idempotency_key"?}`` of each, as `Client.feedback`
                takes them.

        Returns:
            A receipt for each, in their order.

        Raises:
            InputError, ConflictError: as `feedback`; nothing was logged.
        """
        said = []
        for place, record in enumerate(labels, start=1):
            try:
                said.append(label_of(record))
            except InputError as error:
                raise InputError(f"label {place}: {error}") from error
        return self.log.append_labels(said)

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

    @cached_property
    def repair(self) -> Repair:
        """Puts right what it answers."""
        return Repair(self.workspace, self.name)

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

    def refuse(self, number: int | None = None, *, reason: str = "refused by hand") -> Json:
        """Have a retrained candidate catch up no more with what is learned online; the live model
        goes on.

        Args:
            number: of the candidate; whichever is catching up unless given.

        Raises:
            ConflictError: none is catching up, or another one.
        """
        with self.workspace.database.write() as connection:
            decision = catchup.refuse(connection, self.name, number, reason=reason)
            note(connection, "refuse", self.name, {**decision.evidence, "reason": reason})
        return decision.to_json()

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

    def show(self, number: int) -> Json:
        """All that is known of one version; see `Explanations.explain`."""
        return self.workspace.explanations.explain(self.name, number, self.log)

    def transfer(self, version: int | None = None, *, metric: str | None = None) -> Json:
        """What a version (the champion unless given) learned and forgot; see `transfer.table`."""
        found = self._registry.version(self.name, CHAMPION if version is None else version)
        with self.workspace.database.read() as connection:
            return transfer.table(connection, self.name, found.number, metric)

    def export(self, number: int, path: str | os.PathLike[str]) -> Path:
        """Write one version, whole and verified, into one file."""
        return self._registry.export(self.name, number, path)

    def load(self, version: int | None = None) -> Fold:
        """The state of a version, every digest verified; the champion's unless given."""
        return self._fold(version)[1]

    def _fold(self, version: int | None) -> tuple[int, Fold]:
        """(number, fold) of a version. A champion of which an edit has come to its end gives way to
        one without it first."""
        found = self._kept(CHAMPION if version is None else version)
        if version is None and self.repair.end_edits_of(found[1]):
            return self._kept(CHAMPION)
        return found

    def _kept(self, version: int | str) -> tuple[int, Fold]:
        """The same of any version; the one used last is kept in memory."""
        found = self._registry.version(self.name, version)
        if self._served is None or self._served[0] != found.number:
            self._served = (found.number, self._load(found))
        return self._served

    def _load(self, version: Version) -> Fold:
        return load_fold(self._registry, self.name, version)
