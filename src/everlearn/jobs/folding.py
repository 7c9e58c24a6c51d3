"""One increment as it is folded into a state: what a job does, and an excision does once more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from everlearn.base import (
    Columns,
    Hashes,
    Json,
    State,
    prefixed,
    under,
)
from everlearn.data.ids import SeenIds
from everlearn.data.increment import Reader
from everlearn.data.join import corrected_ids
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.looks import Looks
from everlearn.evaluation.metrics import Metrics
from everlearn.jobs.learn import ChunkLike, Fold, Step, learn
from everlearn.jobs.plan import Plan
from everlearn.jobs.relive import learn_memory, relive
from everlearn.jobs.widen import widened
from everlearn.registry.versions import Increment
from everlearn.storage.parts import PartStore

UNSEEN_CLASS = "a class that the learner cannot be told of any more"

AT_ONCE = 2000
"""Rows of what was learned online that are folded at once, where that makes no difference."""

AfterChunk = Callable[[int], None]
"""Told after each chunk of how many rows were folded in; it may end the folding by raising."""


class Folding:
    """The fold of one plan, from its base or from where it was saved, to the end of its increment.

    Args:
        parts: where states and spooled rows are.
        plan: of the increment.
        learner: its definition.
        base: the state to start from, or whose memory is taken over; empty for none.
        holdouts: to which the rows that are kept out of learning are added.
        looks: whether older periods are looked at while it learns.

    Attributes:
        fold: the state, as far as it is.
        metrics: test-then-train, over the rows learned so far.
        rows: learned for the first time so far.
        phase: "memory" while what is remembered is folded in, then "learning".
        own: number of the increment among those with rows held out, at the end; None if it has
            none.
    """

    own: int | None = None
    phase = "learning"
    rows = 0
    _relived = 0
    _mark: Json = None
    _chunk: ChunkLike | None = None

    def __init__(
        self,
        parts: PartStore,
        plan: Plan,
        learner: Any,
        base: State,
        holdouts: HoldOuts,
        *,
        looks: bool = True,
    ) -> None:
        self._given(parts, plan, learner, base)
        self.fold = self._start()
        self.fold.patch = None  # edits of the base are solved again for what comes of it
        if plan.again and self.fold.memory is not None:
            self.fold.forget(self._ids())
        self.metrics, self.holdouts = Metrics(self.fold.kind), holdouts
        self._take_out_corrected()
        self.looks = self._look() if looks else Looks(None)
        self._ready()

    @classmethod
    def load(
        cls, parts: PartStore, plan: Plan, learner: Any, base: State, state: State, progress: Json
    ) -> Folding:
        """The folding that `save` saw."""
        made = cls.__new__(cls)
        made._given(parts, plan, learner, base)
        made.fold = Fold.load(under("fold", state), learner, plan.strategy)
        made.metrics = Metrics.load(state["metrics"])
        made.holdouts = HoldOuts.load(under("holdouts", state))
        made._relived, made.rows, made._mark = (progress[k] for k in ("relived", "rows", "mark"))
        made.looks = Looks.load(made.holdouts.settled, progress.get("looks"))
        made._ready()
        return made

    def save(self) -> tuple[dict[str, Any], Json]:
        """(state, progress), between two chunks."""
        self._keep_ids()
        state = prefixed("fold", self.fold.save())
        state |= prefixed("holdouts", self.holdouts.save())
        state["metrics"] = self.metrics.save()
        mark = self._mark if self._chunk is None else self._chunk.mark
        progress = {"rows": self.rows, "relived": self._relived, "mark": mark}
        return state, progress | {"looks": self.looks.save()}

    def learn(self, after_chunk: AfterChunk) -> list[Increment]:
        """Fold what is remembered and what is new; what was consumed of each source."""
        plan, strategy = self.plan, self.plan.strategy
        self._after_chunk = after_chunk
        if not self.fold.replays and self._mark is None:
            self.phase = "memory"
            relive(self.fold, strategy, self._relived, self._after_relived)
        self.phase = "learning"
        with self._read() as self._reader:
            learn(self.fold, self._reader, self._after_step)
            learn_memory(self.fold, strategy, self._after_remembered)
            increments = self._increments()
        known = self.holdouts.increments
        self.holdouts.settle(anew=plan.again)
        self.own = self.holdouts.increments if self.holdouts.increments > known else None
        self._keep_ids()
        return increments

    @property
    def takes_over(self) -> bool:
        """Whether anything of the base is in the state: it was learned on, or its memory was."""
        champion = self.plan.strategy.start == "champion"
        return champion or (self.plan.strategy.memory is not None and bool(self._taken_over()))

    # --- beginning ---

    def _given(self, parts: PartStore, plan: Plan, learner: Any, base: State) -> None:
        self.plan, self._parts, self._learner, self._base = plan, parts, learner, base

    def _ready(self) -> None:
        self._seen = SeenIds(under("ids", self.fold.others), again=self.plan.again)
        self.fold.replays = self.plan.strategy.start == "champion"

    def _start(self) -> Fold:
        """What the strategy starts from: the base, a given state, or nothing. What memory and
        log position say comes from the base in any case, unless the schema is another."""
        plan, learner = self.plan, self._learner
        base = self._taken_over()
        if plan.given is not None:
            given = self._parts.load(plan.given)
            return Fold.load(given, learner, plan.strategy, remembered=base)
        if plan.strategy.start == "champion" and base:
            return Fold.load(base, learner, plan.strategy, frozen=not plan.online)
        return Fold.new(learner, plan.columns, plan.strategy, classes=plan.classes, remembered=base)

    def _taken_over(self) -> State:
        """The base, if it has the columns of the plan; of one that has the first of them, and that
        is not learned on, its rows, in which the others are missing."""
        base = self._base
        if not base or Columns.from_json(base["columns"].meta) == self.plan.columns:
            return base
        return {} if self.plan.strategy.start == "champion" else widened(base, self.plan.columns)

    def _take_out_corrected(self) -> None:
        """Rows that labels of the increment judge anew leave memory and hold-outs, in which their
        earlier labels are."""
        plan, blobs = self.plan, self._parts.blobs
        ids = [corrected_ids(part, plan.columns, blobs) for part in plan.slices]
        gone = np.unique(np.concatenate([*ids, np.zeros(0, np.uint64)]))
        if len(gone):
            self.holdouts.drop(gone)
            self.fold.forget(gone)

    def _look(self) -> Looks:
        """Looks at older periods, where the job goes on from a model that knows them."""
        plan = self.plan
        if plan.strategy.start != "champion" or not self.fold.begun:
            return Looks(None)
        rows = plan.rows * plan.strategy.passes
        return Looks.plan(self.holdouts.settled, self.fold, rows, plan.strategy.chunk)

    def _ids(self) -> Hashes:
        """The ids of all rows of the increment."""
        plan = self.plan
        with Reader(plan.slices, plan.columns, chunk=65_536, blobs=self._parts.blobs) as reader:
            return np.concatenate([chunk.batch.ids for chunk in reader])

    def _read(self) -> Reader:
        plan, strategy = self.plan, self.plan.strategy
        if plan.online:
            chunk = AT_ONCE if self.fold.by_rows else 1
            strategy = replace(strategy, order="stream", passes=1, chunk=chunk)
        return Reader(
            plan.slices,
            plan.columns,
            chunk=strategy.chunk,
            order=strategy.order,
            passes=strategy.passes,
            seed=strategy.seed,
            holdout=plan.holdout,
            seen=self._seen,
            blobs=self._parts.blobs,
            after=self._mark,
        )

    # --- while learning ---

    def _after_relived(self, rows: int) -> None:
        folded, self._relived = rows - self._relived, rows
        self._count(folded)

    def _after_remembered(self, rows: int) -> None:
        """What is learned of the memory alone is learned anew where it is interrupted."""
        self.looks.after(rows, self.fold)
        self._after_chunk(0)

    def _after_step(self, chunk: ChunkLike, step: Step) -> None:
        """Measure what a chunk did, and keep its hold-out rows."""
        self._chunk = chunk
        if chunk.number > 1:
            self._count(len(chunk.batch))
            return
        if step.prediction is not None and step.counts:
            self.metrics.add(step.batch.y, step.prediction)
        if step.refused is not None:
            self._reader.refuse(step.refused, UNSEEN_CLASS)
        self.holdouts.add(chunk.held)
        self.rows += len(step.batch)
        self._count(len(step.batch))

    def _count(self, folded: int) -> None:
        self.looks.after(folded, self.fold)
        self._after_chunk(folded)

    def _keep_ids(self) -> None:
        if self.plan.columns.id is not None:
            self.fold.others = prefixed("ids", self._seen.save())

    def _increments(self) -> list[Increment]:
        """What was consumed of each source, as the reader counted it."""
        return [
            Increment(slice=piece.to_json(), **tally.to_json())
            for piece, tally in zip(self.plan.slices, self._reader.tallies, strict=True)
        ]
