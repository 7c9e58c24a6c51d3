"""What answers for one model: the champion, replaced whole when it moves."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from everlearn.base import ConflictError, EverlearnError, InputError, Json
from everlearn.data.answers import class_name, restored
from everlearn.data.compiler import compile_rows
from everlearn.data.feedback import LoggedPrediction, PredictionIds, id_text
from everlearn.data.log import FeedbackLog
from everlearn.data.review import ReviewQueue
from everlearn.jobs.learn import Fold
from everlearn.jobs.load import load_fold
from everlearn.jobs.patch.patches import Patches
from everlearn.jobs.processes import worker_name
from everlearn.registry.registry import Registry
from everlearn.rollout.rollouts import CANDIDATE, CHAMPION, Rollouts
from everlearn.rollout.store import Rollout
from everlearn.serving.trial import Trial

_log = logging.getLogger("everlearn")


@dataclass(frozen=True, slots=True)
class Served:
    """A version in memory; version 0, without a fold, before there is a champion.

    Args:
        version, digest, fold: of the champion.
        trial: of a candidate beside it, while a rollout is running.
        position: of the last label that it learned, where it learns online.
    """

    version: int
    digest: str
    fold: Fold | None
    trial: Trial | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What one request asks of a model.

    Args:
        rows: dicts of columns and values, plain JSON.
        keys: the entity of each row, or None.
        ids: the caller's own id of each row, or None.
        propensities: the chance with which each row was chosen to be acted upon, or None.
        log: whether the answers are logged, and have ids.
    """

    rows: Sequence[Mapping[str, Any]]
    keys: Sequence[str | None] | None = None
    ids: Sequence[str | None] | None = None
    propensities: Sequence[float | None] | None = None
    log: bool = True


class Predictor:
    """Answers questions of many requests at once, and logs the answers in one transaction.

    While a rollout is running, a candidate answers for the keys that it is given; where it fails,
    the champion does.

    `answer` may be called by one thread at a time; `refresh` by another meanwhile.

    Args:
        name: of the model.
        registry: where its versions are.
        log: where its answers are kept.
        rollouts: that decide who answers.
        ids: of the process.
        queue: of predictions that people look at, which is offered what was answered.
    """

    def __init__(
        self,
        name: str,
        registry: Registry,
        log: FeedbackLog,
        rollouts: Rollouts,
        ids: PredictionIds,
        queue: ReviewQueue | None = None,
    ) -> None:
        self.name, self.log = name, log
        self.queue = queue or ReviewQueue(log, None)
        self._registry, self._rollouts, self._ids = registry, rollouts, ids
        self._lock = threading.Lock()
        self._served = Served(0, "", None)
        self._answering: Served | None = None
        self._told = 0
        self.ignored: Counter[str] = Counter()  # rows by column that no version knew
        self.refresh()

    @property
    def served(self) -> Served:
        """What answers now."""
        return self._served

    def refresh(self) -> Served:
        """Take over the champion, and the candidate on trial, if they moved. A version that cannot
        be loaded leaves what was before in its place, and the error to the caller."""
        with self._lock:
            before = self._served
            made = dataclasses.replace(before, trial=None)
            found = self._registry.champion(self.name)
            if found is not None and found.number != before.version:
                fold = load_fold(self._registry, self.name, found)
                made = Served(found.number, found.state_digest, fold)
            rollout = self._rollouts.running(self.name)
            if rollout is not None and rollout.champion == made.version:
                made = dataclasses.replace(made, trial=self._trial(before.trial, rollout))
            self._served = made
            if before.trial is not None and made.trial is not before.trial:
                try:
                    self._store_counts(before.trial)
                finally:
                    before.trial.close()
            return made

    def follow(self) -> None:
        """Store what was counted of a rollout, and take over what moved. Where that fails, what was
        before goes on, and the log says why. A model that learns online has a thread of its own for
        that, which follows with what was learned since."""
        try:
            self.store_counts()
            self._take_over()
            if self._end_edits():
                self._take_over()
        except Exception as error:
            said = "%s: version %d goes on: %s", self.name, self._served.version, error
            _log.warning(*said, exc_info=not isinstance(error, EverlearnError))

    def _take_over(self) -> None:
        if self._served.position is None:
            self.refresh()
        self._tell()

    def _end_edits(self) -> bool:
        """Have another champion take the place of one of which an edit has come to its end; whether
        there was such an edit."""
        fold, clock = self._served.fold, self._registry.database.clock
        ends = None if fold is None or fold.patch is None else fold.patch.ends
        if ends is None or ends > clock():
            return False
        with suppress(ConflictError):  # another replica is at that, or it is done next time
            Patches(self._registry).expire(self.name)
        return True

    def _tell(self) -> None:
        """Say once of each version that this process answers with it."""
        served = self._served
        if served.version not in (0, self._told):
            self._rollouts.served(self.name, served.version, served.digest, worker_name())
            self._told = served.version

    def replace(self, served: Served) -> None:
        """Have something else answer, and return when nothing else does."""
        with self._lock:
            self._served = served
        while self._answering is not None and self._answering is not served:
            time.sleep(1e-4)

    def store_counts(self) -> None:
        """Store what was counted of a rollout since the last time."""
        trial = self._served.trial
        if trial is not None:
            self._store_counts(trial)

    def answer(self, questions: Sequence[Question]) -> list[list[Json] | InputError]:
        """The answers of each question, durably logged; an `InputError` where it cannot be asked.

        Raises:
            StorageError: the answers could not be logged; none may be given out.
        """
        served = self._begin_answer()
        try:
            return self._answer(served, questions)
        finally:
            self._answering = None

    def _begin_answer(self) -> Served:
        """What answers, marked as being asked: looked at again after it was marked, lest it was
        replaced in between."""
        while True:
            served = self._answering = self._served
            if served is self._served:
                return served

    def _answer(
        self, served: Served, questions: Sequence[Question]
    ) -> list[list[Json] | InputError]:
        numbers = [self._ids.take(len(question.rows)) for question in questions]
        outputs = _outputs(served, questions, numbers, self.ignored)
        logged: list[LoggedPrediction] = []
        answers: list[list[Json] | InputError] = []
        for question, ids, output in zip(questions, numbers, outputs, strict=True):
            if isinstance(output, InputError):
                answers.append(output)
                continue
            nobody: Sequence[None] = [None] * len(ids)
            shown: list[Json] = []
            for number, row, key, name, chance, (said, version, arm) in zip(
                ids,
                question.rows,
                question.keys or nobody,
                question.ids or nobody,
                question.propensities or nobody,
                output,
                strict=True,
            ):
                if question.log:
                    what = (number, row, said, version, arm, key, name, chance)
                    logged.append(LoggedPrediction(*what))
                given = {
                    "id": id_text(number) if question.log else None,
                    "output": said["value"],
                    "probabilities": said["probabilities"],
                    "version": version,
                    "arm": arm,
                }
                if served.position is not None:
                    given["position"] = served.position
                shown.append(given)
            answers.append(shown)
        self.log.append_predictions(logged)
        self._reviewed(lambda: self.queue.offer(logged))
        if served.trial is not None:
            for question, ids, answer in zip(questions, numbers, answers, strict=True):
                if question.log and not isinstance(answer, InputError):
                    served.trial.mirror(ids, question.rows)
        return answers

    def _reviewed(self, offer: Callable[[], object]) -> None:
        """Have people look at some answers; whatever comes of that, answering goes on."""
        try:
            offer()
        except EverlearnError as error:
            _log.warning("%s: nothing was put into the review queue: %s", self.name, error)

    def _trial(self, before: Trial | None, rollout: Rollout) -> Trial:
        """The trial of a rollout in its stage; the one before, if it is that."""
        if before is not None:
            same = (before.rollout.id, before.rollout.stage) == (rollout.id, rollout.stage)
            if same:
                return before
            if before.rollout.id == rollout.id:
                return Trial(rollout, before.ask)
        version = self._registry.version(self.name, rollout.candidate)
        fold = load_fold(self._registry, self.name, version)
        return Trial(rollout, lambda rows: outputs_of(fold, rows, Counter()))

    def _store_counts(self, trial: Trial) -> None:
        arms, shadows, met = trial.collect()
        if not arms and not shadows:
            return
        try:
            self._rollouts.count(trial.rollout, arms, shadows, met)
        except EverlearnError:
            trial.restore(arms, shadows, met)
            raise
        self._reviewed(lambda: self.queue.offer_compared(shadows))


Said = tuple[Json, int, str]
"""An output, and the version and the arm that gave it."""


def _outputs(
    served: Served,
    questions: Sequence[Question],
    numbers: Sequence[Sequence[int]],
    ignored: Counter[str],
) -> list[list[Said] | InputError]:
    """One pass of each arm for all rows; question by question if one of them cannot be asked."""
    rows = [row for question in questions for row in question.rows]
    try:
        flat = _answered(served, rows, _tried(served.trial, questions, numbers), ignored)
    except InputError as error:
        if len(questions) == 1:
            return [error]
        return [
            _outputs(served, [question], [ids], ignored)[0]
            for question, ids in zip(questions, numbers, strict=True)
        ]
    cut: list[list[Said] | InputError] = []
    start = 0
    for question in questions:
        cut.append(flat[start : start + len(question.rows)])
        start += len(question.rows)
    return cut


def _tried(
    trial: Trial | None, questions: Sequence[Question], numbers: Sequence[Sequence[int]]
) -> list[int]:
    """Places of the rows for which the candidate answers: by their keys, where they have one, else
    each by itself."""
    if trial is None or not trial.answers:
        return []
    found, place = [], 0
    for question, ids in zip(questions, numbers, strict=True):
        for index, number in enumerate(ids):
            key = None if question.keys is None else question.keys[index]
            if trial.is_candidates(id_text(number) if key is None else key):
                found.append(place)
            place += 1
    return found


def _answered(
    served: Served,
    rows: Sequence[Mapping[str, Any]],
    tried: Sequence[int],
    ignored: Counter[str],
) -> list[Said]:
    """What is said of rows, by the candidate for those at some places; where it fails, by the
    champion, who answers all others."""
    trial, said = served.trial, [None] * len(rows)
    if trial is not None and tried:
        for place, output in zip(tried, trial.attempt([rows[at] for at in tried]), strict=True):
            said[place] = output
    left = [place for place, output in enumerate(said) if output is None]
    began = time.perf_counter()
    answers = outputs_of(served.fold, [rows[place] for place in left], ignored)
    if trial is not None:
        own = len(rows) - len(tried)
        trial.count(CHAMPION, own, 0, (time.perf_counter() - began) * own / max(1, len(left)))
    found: list[Said] = [
        (output, 0 if trial is None else trial.rollout.candidate, CANDIDATE) for output in said
    ]
    for place, output in zip(left, answers, strict=True):
        found[place] = (output, served.version, CHAMPION)
    return found


def outputs_of(
    fold: Fold | None, rows: Sequence[Mapping[str, Any]], ignored: Counter[str]
) -> list[Json]:
    """What a version says of rows: value, and probability of each class as text. Columns that it
    does not know are passed over, and counted."""
    if fold is None:
        return [{"value": None, "probabilities": None} for _ in rows]
    if not rows:
        return []
    prediction = fold.predict(compile_rows(list(rows), fold.columns, ignored))
    values = restored(fold.decode(prediction.value), fold.columns)
    if prediction.proba is None:
        return [{"value": value, "probabilities": None} for value in values]
    names = [class_name(value) for value in restored(fold.classes, fold.columns)]
    return [
        {"value": value, "probabilities": dict(zip(names, chances, strict=True))}
        for value, chances in zip(values, prediction.proba.tolist(), strict=True)
    ]
