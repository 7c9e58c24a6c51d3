"""One attempt at a job: load, fold, judge, commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from everlearn.base import (
    Columns,
    Decision,
    Hashes,
    Json,
    NotFoundError,
    Part,
    State,
    crash_point,
    prefixed,
    state_digest,
    under,
)
from everlearn.data.ids import SeenIds
from everlearn.data.increment import Reader
from everlearn.data.join import corrected_ids
from everlearn.evaluation.gates import parts_not_finite, try_candidate
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.looks import Looks
from everlearn.evaluation.metrics import Metrics
from everlearn.jobs.checkpoint import Checkpoints
from everlearn.jobs.learn import ChunkLike, Fold, Step, learn
from everlearn.jobs.plan import Plan
from everlearn.jobs.queue import Job
from everlearn.jobs.relive import learn_memory, relive
from everlearn.jobs.result import Made, Progress, Report
from everlearn.jobs.spans import span
from everlearn.jobs.transfer import NAME as TRANSFER
from everlearn.jobs.transfer import Judged
from everlearn.jobs.widen import widened
from everlearn.registry import definitions, versions
from everlearn.registry.config import from_config, to_config
from everlearn.registry.models import plain
from everlearn.registry.versions import Increment
from everlearn.strategies.strategy import Strategy

if TYPE_CHECKING:
    from everlearn.jobs.runner import Runner

UNSEEN_CLASS = "a class that the learner cannot be told of any more"


class Run:
    """One attempt at a job, from its base or its last checkpoint to the commit of a version."""

    def __init__(
        self,
        runner: Runner,
        job: Job,
        checkpoints: Checkpoints,
        check: Callable[[], None],
        report: Report,
    ) -> None:
        self.runner, self.job, self.checkpoints = runner, job, checkpoints
        self.check, self.report = check, report
        with runner.database.read() as connection:
            made = definitions.definition(connection, job.model, job.plan["definition"])
            self.base = self.former = None
            if job.base_version is not None:
                self.base = versions.get(connection, job.model, job.base_version, increments=False)
                self.former = made
                if self.base.definition != made.number:
                    number = self.base.definition
                    self.former = definitions.definition(connection, job.model, number)
        self.model = made.model()
        self.plan = Plan.from_json(job.plan, made.source)
        self.pace = runner.pace()
        self.folded = 0
        self.own: int | None = None
        self.made: Made | None = None
        self.chunk: ChunkLike | None = None
        self.base_state = self._loaded(self.base.manifest if self.base else {})
        self._begin()
        self.progress = Progress(job.id, self.plan.rows, self.metrics)
        self.progress.rows = self.rows

    def carry_out(self) -> Job:
        """Fold, judge, commit. Returns the job in the state "committed"."""
        with span("learn", model=self.job.model, job=self.job.id) as told:
            increments = self._learn()
            told(rows=self.rows)
        self.progress.phase = "judging"
        self.report(self.progress)
        state = self.fold.save()
        with span("gate", model=self.job.model, job=self.job.id) as told:
            decision = self._judge(state)
            told(action=decision.action, reason=decision.reason)
        crash_point("job.judged")
        return self._commit(state, increments, decision)

    def _learn(self) -> list[Increment]:
        """Fold what is remembered and what is new; what was consumed of each source."""
        strategy = self.plan.strategy
        if not self.fold.replays and self.mark is None:
            self.progress.phase = "memory"
            relive(self.fold, strategy, self.relived, self._after_relived)
        self.progress.phase = "learning"
        with self._reader() as self.reader:
            learn(self.fold, self.reader, self._after_step)
            learn_memory(self.fold, strategy, self._after_remembered)
            increments = self._increments()
        known = self.holdouts.increments
        self.holdouts.settle(anew=self.plan.again)
        self.own = self.holdouts.increments if self.holdouts.increments > known else None
        self._keep_ids()
        return increments

    # --- beginning ---

    def _begin(self) -> None:
        """Load the job's checkpoint, or else what the strategy starts from."""
        try:
            self._resume(self.job.checkpoint)
        except NotFoundError:  # a copied workspace has no checkpoints: the log has it all
            self._resume(None)
        self.seen = SeenIds(under("ids", self.fold.others), again=self.plan.again)
        self.fold.replays = self.plan.strategy.start == "champion"

    def _resume(self, checkpoint: Json) -> None:
        self.relived, self.mark, self.rows = 0, None, 0
        if checkpoint is None:
            self.fold = self._start()
            if self.plan.again and self.fold.memory is not None:
                self.fold.forget(self._ids())
            self.metrics = Metrics(self.fold.kind)
            self.holdouts = HoldOuts.load(self.runner.load_held(self.plan.holdouts))
            self._take_out_corrected()
            self.looks = self._look()
            return
        state = self.checkpoints.load(checkpoint)
        self.fold = Fold.load(under("fold", state), self.model.learner, self.plan.strategy)
        self.metrics = Metrics.load(state["metrics"])
        self.holdouts = HoldOuts.load(under("holdouts", state))
        self.relived, self.rows, self.mark = (checkpoint[k] for k in ("relived", "rows", "mark"))
        self.looks = Looks.load(self.holdouts.settled, checkpoint.get("looks"))

    def _look(self) -> Looks:
        """Looks at older periods, where the job goes on from a model that knows them."""
        plan = self.plan
        if plan.strategy.start != "champion" or not self.fold.begun:
            return Looks(None)
        rows = plan.rows * plan.strategy.passes
        return Looks.plan(self.holdouts.settled, self.fold, rows, plan.strategy.chunk)

    def _start(self) -> Fold:
        """What the strategy starts from: the champion, a given state, or nothing. What memory and
        log position say comes from the champion in any case, unless the schema is another."""
        plan, learner = self.plan, self.model.learner
        base = self._taken_over()
        if plan.given is not None:
            return Fold.load(self._loaded(plan.given), learner, plan.strategy, remembered=base)
        if plan.strategy.start == "champion" and base:
            return Fold.load(base, learner, plan.strategy)
        return Fold.new(learner, plan.columns, plan.strategy, classes=plan.classes, remembered=base)

    def _take_out_corrected(self) -> None:
        """Rows that labels of the increment judge anew leave memory and hold-outs, in which their
        earlier labels are."""
        plan, blobs = self.plan, self.runner.parts.blobs
        ids = [corrected_ids(part, plan.columns, blobs) for part in plan.slices]
        gone = np.unique(np.concatenate([*ids, np.zeros(0, np.uint64)]))
        if len(gone):
            self.holdouts.drop(gone)
            self.fold.forget(gone)

    def _ids(self) -> Hashes:
        """The ids of all rows of the increment."""
        plan = self.plan
        slices, blobs = plan.slices, self.runner.parts.blobs
        with Reader(slices, plan.columns, chunk=65_536, blobs=blobs) as reader:
            return np.concatenate([chunk.batch.ids for chunk in reader])

    def _taken_over(self) -> State:
        """The champion's state, if it has the columns of the plan; of one that has the first of
        them, and that is not learned on, its rows, in which the others are missing."""
        state = self.base_state
        if not state or self._same_columns():
            return state
        return {} if self.plan.strategy.start == "champion" else widened(state, self.plan.columns)

    def _same_columns(self) -> bool:
        state = self.base_state
        return bool(state) and Columns.from_json(state["columns"].meta) == self.plan.columns

    def _loaded(self, manifest: Json) -> dict[str, Part]:
        return self.runner.parts.load(manifest)

    def _reader(self) -> Reader:
        plan, strategy = self.plan, self.plan.strategy
        return Reader(
            plan.slices,
            plan.columns,
            chunk=strategy.chunk,
            order=strategy.order,
            passes=strategy.passes,
            seed=strategy.seed,
            holdout=plan.holdout,
            seen=self.seen,
            blobs=self.runner.parts.blobs,
            after=self.mark,
        )

    # --- while learning ---

    def _after_relived(self, rows: int) -> None:
        folded, self.relived = rows - self.relived, rows
        self._after_chunk(0, folded)

    def _after_remembered(self, rows: int) -> None:
        """No checkpoint: a job that is killed here learns its memory anew."""
        self.check()
        self.looks.after(rows, self.fold)
        self.report(self.progress)

    def _after_step(self, chunk: ChunkLike, step: Step) -> None:
        """Measure what a chunk did; keep its hold-out rows; write a checkpoint if one is due."""
        self.chunk = chunk
        if chunk.number > 1:
            self._after_chunk(0, len(chunk.batch))
            return
        if step.prediction is not None and step.counts:
            self.metrics.add(step.batch.y, step.prediction)
        if step.refused is not None:
            self.reader.refuse(step.refused, UNSEEN_CLASS)
        self.holdouts.add(chunk.held)
        self._after_chunk(len(step.batch), len(step.batch))

    def _after_chunk(self, rows: int, folded: int) -> None:
        """Count `rows` learned for the first time, of `folded` rows that were folded in."""
        self.check()
        self.rows += rows
        self.folded += folded
        self.progress.rows = self.rows
        self.looks.after(folded, self.fold)
        if self.pace.is_due(self.folded):
            self._checkpoint()
        self.report(self.progress)

    def _checkpoint(self) -> None:
        """Write a version not yet published, from which the job can go on."""
        self.pace.begin()
        self._keep_ids()
        state = prefixed("fold", self.fold.save())
        state |= prefixed("holdouts", self.holdouts.save())
        state["metrics"] = self.metrics.save()
        progress = {
            "rows": self.rows,
            "relived": self.relived,
            "mark": self.mark if self.chunk is None else self.chunk.mark,
            "looks": self.looks.save(),
        }
        known = self.plan.holdouts | (self.base.manifest if self.base else {})
        self.checkpoints.save(self.runner.queue, state, progress, known)
        self.progress.checkpoints += 1
        self.pace.end(self.folded)

    def _keep_ids(self) -> None:
        if self.plan.columns.id is not None:
            self.fold.others = prefixed("ids", self.seen.save())

    # --- the end ---

    def _increments(self) -> list[Increment]:
        """What was consumed of each source, as the reader counted it."""
        return [
            Increment(slice=piece.to_json(), **tally.to_json())
            for piece, tally in zip(self.plan.slices, self.reader.tallies, strict=True)
        ]

    def _judge(self, state: State) -> Decision:
        """Whether the candidate is good enough, by the hold-outs and the model's gate."""
        broken = parts_not_finite(state)
        if broken:
            reason = f"the learner diverged: {', '.join(broken)} are not finite"
            return Decision("refuse", reason)
        champion = None
        if self.base is not None and self.former is not None and self._same_columns():
            made: Strategy = from_config(self.base.strategy, self.former.source)
            learner = self.former.section("learner")
            champion = Fold.load(self.base_state, learner, replace(made, memory=None))
        return try_candidate(
            self.fold, champion, self.holdouts, self.model.gate, columns=self.plan.columns
        )

    def _commit(self, state: State, increments: list[Increment], decision: Decision) -> Job:
        """Make the version: its blobs first, then, in one transaction, its row and the job's."""
        parts, queue = self.runner.parts, self.runner.queue
        manifest = parts.save(state, known=self.base.manifest if self.base else None)
        held = self.runner.save_held(self.holdouts.save(), self.plan.holdouts)
        crash_point("job.saved")
        metrics = plain(self._measured(decision))
        with self.runner.database.write() as connection:
            queue.fence(connection, self.job)
            number = versions.add(
                connection,
                self.job.model,
                parent=self._parent(),
                definition=self.plan.definition,
                strategy=to_config(self.plan.strategy),
                state_digest=state_digest(state),
                manifest=manifest,
                holdouts=held,
                metrics=metrics,
                decision=decision,
                increments=increments,
                job_id=self.job.id,
                created_at=self.runner.database.clock(),
            )
            queue.commit(connection, self.job, number, decision)
            crash_point("job.committing")
        self.made = increments, metrics
        said = plain(decision.to_json())
        return replace(self.job, state="committed", version=number, decision=said)

    def _parent(self) -> int | None:
        """The version whose state this one was folded from; None where nothing of it was taken
        over: a fresh start without memory, or with other columns."""
        champion = self.plan.strategy.start == "champion"
        remembers = self.plan.strategy.memory is not None and bool(self._taken_over())
        return self.job.base_version if champion or remembers else None

    def _measured(self, decision: Decision) -> Json:
        """Metrics before learning each chunk, and those on the hold-outs that were judged."""
        found = dict(self.metrics.results(positive=self.fold.positive))
        evidence = decision.evidence
        names = [name for name in ("recent", "historical") if name in evidence]
        found |= {name: evidence[name] for name in names}
        judged = Judged(
            self.plan,
            self.model.learner,
            self.fold,
            self.holdouts,
            self.own,
            decision,
            self.base,
            self.looks,
        )
        with self.runner.database.read() as connection:
            record = judged.record(connection, self.job.model)
        return found if record is None else found | {TRANSFER: record}
