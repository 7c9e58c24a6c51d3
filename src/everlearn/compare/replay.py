"""One strategy over a history: at each moment the version that would have been serving answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from everlearn.base import Array, Batch, Columns, Floats, InputError, Ints, Prediction, State
from everlearn.compare.history import History, errors_of
from everlearn.compare.interleave import Piece, as_batch, interleaved
from everlearn.compare.periods import Groups
from everlearn.compare.run import Run
from everlearn.compare.strategies import Plan
from everlearn.compare.timeline import NEVER
from everlearn.jobs.learn import Fold
from everlearn.jobs.relive import learn_memory, relive
from everlearn.registry import bundle
from everlearn.strategies.strategy import Pretrained, Strategy

BLOCK = 8_192
"""Rows that are predicted at once."""

SAMPLED = 8
"""Of so many events that a learner answers as it learns row by row, one is answered once more, to
know what answering costs."""

ORACLE_ROWS = 40_000_000
"""Predictions made for the cost matrix; beyond, periods are sampled."""

Report = Callable[[int, int], None]


def replay(
    history: History,
    plan: Plan,
    learner: Any = None,
    *,
    classes: tuple[Any, ...] = (),
    oracle: bool = False,
    report: Report = lambda done, total: None,
) -> Run:
    """Replay a history under one strategy.

    Args:
        learner: an estimator, chain or name, or None for the default learner.
        classes: classes of the target that are known beforehand.
        oracle: also test each version on all later periods (for a full retraining).
        report: called with the number of events answered so far, and of all.
    """
    prepare(history, learner)
    return _Replay(history, plan, learner, classes, oracle, report).run()


def prepare(history: History, learner: Any) -> bool:
    """Compile and load what a learner that learns row by row is made of, before it is timed.

    Returns:
        Whether it does learn row by row.
    """
    fold = Fold.new(learner, history.columns, Strategy(), frozen=False)
    if not getattr(fold.learner, "per_row", False):
        return False
    few = history.batch.take(slice(2))
    fold.step(few)
    fold.learn(few)
    fold.predict(few)
    return True


class _Replay:
    """The state of a replay: the serving model, what it knows, and what it answered."""

    def __init__(
        self,
        history: History,
        plan: Plan,
        learner: Any,
        classes: tuple[Any, ...],
        oracle: bool,
        report: Report,
    ) -> None:
        self.history, self.plan, self.learner = history, plan, learner
        self.line = history.timeline
        self.classes, self.report = classes, report
        self.position = history.position
        self.first = self.line.before(self.line.start)
        self.served = self.first  # events that are answered
        self.done = 0  # labels that the serving model may know
        self.renewed = 0  # labels that the last full retraining knew
        self.fold = self._fresh(0)
        self.by_row = plan.learns_by_row(self.fold.learner)
        self.value = np.zeros(len(history) - self.first, self._value_type())
        self.proba: Floats | None = None
        self.groups = Groups.of(self.line)
        self.transfer = np.full((len(self.groups), len(self.groups)), np.nan)
        self.learned_at = np.full(len(history), NEVER)
        self.seconds: list[float] = []
        self.moments: list[int] = []
        self.rows_learned = self.rows_read = 0
        self.edges = self.line.edges_to_learn()
        self.serving = np.zeros((len(self.edges), len(self.edges))) if oracle else None

    def run(self) -> Run:
        """Serve, update, serve, update, …, serve."""
        groups_due = self.groups.ends.tolist()
        for moment, is_edge in self._moments():
            while groups_due and groups_due[0] < moment:
                self._test_groups(len(self.groups) - len(groups_due))
                groups_due.pop(0)
            self._advance(self.line.before(moment), moment)
            self._update(moment, is_edge)
        for group in range(len(self.groups) - len(groups_due), len(self.groups)):
            self._test_groups(group)
        self._advance(len(self.history), int(self.line.time[-1]))
        return self._result()

    def _advance(self, until: int, moment: int) -> None:
        """Answer the events up to one; row by row, learn the labels known at a moment as well."""
        if self.by_row and self.moments:
            self._stream(until, self.line.known_at(moment))
        else:
            self._serve(until)

    # --- when --------------------------------------------------------------------------------

    def _moments(self) -> list[tuple[int, bool]]:
        """(moment, whether it ends a period), ascending; the end of warm-up first."""
        edges = self.edges if self.plan.when in ("period", "both") else self.edges[:1]
        moments = dict.fromkeys(edges.tolist(), True)
        if self.plan.when in ("tick", "both"):
            stops = self.groups.ends if self.by_row else self.line.ticks()
            for moment in stops.tolist():
                moments.setdefault(moment, False)
        return sorted(moments.items())

    def _update(self, moment: int, is_edge: bool) -> None:
        """Bring the serving model to what is known at a moment, and charge what that costs."""
        known = self.line.known_at(moment)
        anew = is_edge and self.plan.anew
        if self.moments and known == (self.renewed if anew else self.done):
            return
        before, read_before = time.process_time(), self.rows_read
        if anew:
            start = self._window_start(moment) if self.plan.rows == "window" else 0
            if start == known:
                return
            self.fold, self.renewed = self._fresh(known), known
            self._learn(start, known, self.plan.strategy.order)
        else:
            self._begin(known)
            by_tick = self.plan.when == "both"
            self._learn(self.done, known, "stream" if by_tick else self.plan.strategy.order)
        reading = (self.rows_read - read_before) * self.history.read_seconds
        self.seconds.append(time.process_time() - before + reading)
        self.learned_at[self.done : known] = moment
        self.moments.append(moment)
        self.done = known
        if self.serving is not None and is_edge:
            self._test_later_periods(moment)

    def _window_start(self, moment: int) -> int:
        """How many labels are older than the window."""
        every = self.line.every
        if every.unit == self.line.unit:
            return self.line.known_at(moment - self.plan.window * every.length)
        return max(0, self.line.known_at(moment) - self.plan.window * every.length)

    # --- learning ----------------------------------------------------------------------------

    def _fresh(self, known: int, remembered: State | None = None) -> Fold:
        """A model that has learned nothing, told of the classes among the known labels."""
        classes, codes = self.classes, self.history.codes
        if not classes and codes is not None and known:
            present = np.flatnonzero(np.bincount(codes[:known]))
            classes = tuple(self.history.classes[code] for code in present.tolist())
        columns, strategy = self.history.columns, self.plan.strategy
        return Fold.new(
            self.learner,
            columns,
            strategy,
            classes=classes,
            remembered=remembered,
            frozen=self.plan.is_job,
        )

    def _begin(self, known: int) -> None:
        """The model that learns next: as a job of the strategy begins."""
        strategy = self.plan.strategy
        if strategy.start == "champion":
            if not self.moments:
                self.fold = self._fresh(known)
            return
        former = self.fold.save() if self.moments else {}
        if isinstance(strategy.start, str):
            self.fold = self._fresh(known, remembered=former)
        else:
            given = self._given(strategy.start)
            self.fold = Fold.load(given, self.learner, strategy, remembered=former)
        relive(self.fold, strategy, 0, lambda rows: None)
        self.fold.replays = False

    def _given(self, start: Pretrained | State) -> State:
        """The state that a strategy names as its start. Raises `InputError` for other columns."""
        state = bundle.read_state(start.path) if isinstance(start, Pretrained) else start
        columns = Columns.from_json(state["columns"].meta)
        if columns != self.history.columns:
            raise InputError(
                f"the state to start from was learned from other columns: {columns}, and the data "
                f"has {self.history.columns}"
            )
        return state

    def _learn(self, start: int, stop: int, order: Any) -> None:
        """Learn the labels from the start-th to become known up to the stop-th."""
        strategy = self.plan.strategy
        for again in range(strategy.passes):
            for chunk in self._chunks(start, stop, order, again):
                if self.fold.memory is None:
                    self.fold.learn(chunk)
                else:
                    self.fold.step(chunk, again=again > 0, test=False)
        self.fold.settle()
        learn_memory(self.fold, strategy, lambda rows: None)
        self.rows_read += (stop - start) * strategy.passes
        self.rows_learned += (stop - start) * strategy.passes

    def _chunks(self, start: int, stop: int, order: Any, again: int) -> Iterator[Batch]:
        """The rows of an increment in an order, chunk by chunk."""
        strategy = self.plan.strategy
        rows = self._ordered(start, stop, order, again)
        for place in range(start, stop, strategy.chunk):
            piece = slice(place, min(stop, place + strategy.chunk))
            chosen = piece if rows is None else rows[piece.start - start : piece.stop - start]
            yield self.history.batch.take(chosen)

    def _ordered(self, start: int, stop: int, order: Any, again: int) -> Ints | None:
        """(stop − start,) rows in the order in which they are learned; None for that of arrival."""
        if order == "stream":
            return None
        if order == "time":
            return start + np.argsort(self.line.arrival[start:stop], kind="stable")
        seed = self.plan.strategy.seed if order.seed is None else order.seed
        pieces = []
        for number, first in enumerate(range(start, stop, order.buffer)):
            generator = np.random.default_rng([seed, again, number])
            pieces.append(first + generator.permutation(min(stop - first, order.buffer)))
        return np.concatenate(pieces)

    # --- row by row --------------------------------------------------------------------------

    def _stream(self, until: int, known: int) -> None:
        """Answer the events up to one, each by a model that has learned all labels known by then;
        learn the rest of the labels that are known."""
        events, labels = range(self.served, until), range(self.done, known)
        whole = interleaved(self.line, self.position, events, labels)
        for piece in whole.split(self.history.codes, self._known_codes()):
            if piece.is_event.all():
                self._keep(*self._predict(piece.rows))
            else:
                self._answer_and_learn(piece)

    def _answer_and_learn(self, piece: Piece) -> None:
        """Learn the labels of a piece and charge it; answer its events on the way."""
        before = time.process_time()
        step = self.fold.step(as_batch(self.history.batch, piece))
        spent = time.process_time() - before
        assert step.prediction is not None and step.refused is None
        self._keep(*self._in_common_order(step.prediction.take(piece.is_event)))
        sample = piece.rows[piece.is_event][::SAMPLED]
        before = time.process_time()
        self._predict(sample)
        answering = SAMPLED * (time.process_time() - before) if len(sample) else 0.0
        stop = self.done + len(piece) - int(piece.is_event.sum())
        known = self.line.available[self.done : stop]
        moments = np.unique(known)
        reading = len(known) * self.history.read_seconds
        cost = max(0.0, spent - answering) + reading
        self.seconds += [cost / len(moments)] * len(moments)
        self.moments += moments.tolist()
        self.learned_at[self.done : stop] = known
        self.rows_read += len(known)
        self.rows_learned += len(known)
        self.done = stop

    def _known_codes(self) -> set[int]:
        """The classes that the serving model knows, as the history numbers them."""
        values = () if self.fold.labels is None else self.fold.labels.values
        place = {value: code for code, value in enumerate(self.history.classes)}
        return {place[value] for value in values if value in place}

    # --- answering ---------------------------------------------------------------------------

    def _serve(self, until: int) -> None:
        """Answer the events up to one with the serving model."""
        for start in range(self.served, until, BLOCK):
            stop = min(until, start + BLOCK)
            self._keep(*self._predict(self.position[start:stop]))

    def _keep(self, value: Array, proba: Floats | None) -> None:
        """Take down the answers to the next events."""
        stop = self.served + len(value)
        place = slice(self.served - self.first, stop - self.first)
        self.value[place] = value
        if proba is not None:
            if self.proba is None:
                shape = (len(self.value), proba.shape[1])
                self.proba = np.full(shape, 1.0 / proba.shape[1])
            self.proba[place] = proba
        if len(value):
            self.served = stop
            self.report(stop - self.first, len(self.value))

    def _predict(self, rows: Ints) -> tuple[Array, Floats | None]:
        """Answers for rows of the history, in its own order of classes. They are shown neither
        the target nor when it became known."""
        batch = self.history.batch.take(rows)
        blind = Batch(
            numbers=batch.numbers,
            categories=batch.categories,
            times=batch.times,
            ids=batch.ids,
            time=batch.time,
            key=batch.key,
            texts=batch.texts,
        )
        return self._in_common_order(self.fold.predict(blind))

    def _in_common_order(self, answer: Prediction) -> tuple[Array, Floats | None]:
        labels = self.fold.labels
        if labels is None:
            return answer.value, None
        if not len(labels):  # nothing is known yet, not even the classes
            return np.zeros(len(answer), np.int64), None
        place = {value: code for code, value in enumerate(self.history.classes)}
        common = np.array([place.get(value, -1) for value in labels.values], np.int64)
        value = common[answer.value]
        if answer.proba is None:
            return value, None
        proba = np.zeros((len(answer), len(self.history.classes)))
        seen = common >= 0
        width = answer.proba.shape[1]
        proba[:, common[:width][seen[:width]]] = answer.proba[:, seen[:width]]
        return value, proba

    def _value_type(self) -> Any:
        return np.float64 if self.history.codes is None else np.int64

    # --- testing -----------------------------------------------------------------------------

    def _errors(self, events: Ints) -> Floats:
        """(m,) error of each event: wrong or not, or the absolute error of a regressor."""
        rows = self.position[events]
        value, _ = self._predict(rows)
        return errors_of(value, self.history.target[rows], self.history.kind)

    def _test_groups(self, group: int) -> None:
        """Fill a row of the transfer matrix: the score on each group's probes, right now."""
        probes = self.history.probes
        if not len(probes):
            return
        errors = self._errors(probes)
        which = self.groups.group_of(self.line.time[probes])
        best = 0.0 if self.history.codes is None else 1.0
        for j in range(len(self.groups)):
            if (which == j).any():
                self.transfer[group, j] = best - float(errors[which == j].mean())

    def _test_later_periods(self, moment: int) -> None:
        """Fill a row of the cost matrix: the errors of this version in every later period."""
        assert self.serving is not None
        count = len(self.edges)
        version = int(np.searchsorted(self.edges, moment))
        stride = max(1, -(-len(self.value) * count // 2 // ORACLE_ROWS))
        for start in range(self.line.before(moment), len(self.history), BLOCK * stride):
            stop = min(len(self.history), start + BLOCK * stride)
            events = np.arange(start, stop, stride)
            period = np.searchsorted(self.edges, self.line.time[events], "right") - 1
            sums = np.bincount(period, self._errors(events), count)
            self.serving[version] += sums * stride

    def _result(self) -> Run:
        run = Run(self.plan.name, self.value, self.proba)
        run.update_seconds = np.array(self.seconds)
        run.cpu_seconds = float(run.update_seconds.sum())
        run.update_moments = np.array(self.moments, np.int64)
        run.rows_learned, run.rows_read = self.rows_learned, self.rows_read
        run.transfer = self.transfer if len(self.groups) > 1 else None
        run.serving = self.serving
        end = int(self.line.time[-1])
        span = slice(self.line.known_at(self.line.start), self.line.known_at(end))
        if span.stop > span.start:
            learned = self.learned_at[span]
            run.labels_used = float((learned != NEVER).mean())
            waits = np.minimum(learned, end) - self.line.available[span]
            run.wait = float(waits.mean())
        return run
