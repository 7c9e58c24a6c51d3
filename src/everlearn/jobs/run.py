"""One attempt at a job: load, fold, judge, commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from everlearn.base import (
    Columns,
    Decision,
    Json,
    NotFoundError,
    Part,
    State,
    crash_point,
    state_digest,
)
from everlearn.evaluation.gates import parts_not_finite, try_candidate
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.jobs.checkpoint import Checkpoints
from everlearn.jobs.folding import Folding
from everlearn.jobs.learn import Fold
from everlearn.jobs.online import online_of
from everlearn.jobs.patch.following import follow, followed
from everlearn.jobs.patch.solving import repatched
from everlearn.jobs.plan import Plan
from everlearn.jobs.queue import Job
from everlearn.jobs.result import Made, Progress, Report
from everlearn.jobs.spans import span
from everlearn.jobs.transfer import NAME as TRANSFER
from everlearn.jobs.transfer import Judged
from everlearn.registry import definitions, versions
from everlearn.registry.config import from_config, to_config
from everlearn.registry.definitions import Definition
from everlearn.registry.models import model_id, plain
from everlearn.registry.versions import Increment, Version
from everlearn.strategies.strategy import Strategy

if TYPE_CHECKING:
    from everlearn.jobs.runner import Runner


class Run:
    """One attempt at a job, from its base or its last checkpoint to the commit of a version.

    Most jobs fold in one increment. One that folds recorded increments once more has several, each
    with the plan that it had; it starts from `plan.base`, and is compared with the champion.
    """

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
        self._definitions: dict[int, Definition] = {}
        self.plan = Plan.from_json(job.plan, lambda number: self._definition(number).source)
        self.model = self._definition(self.plan.definition).model()
        self.base, self.champion = self._version(self.plan.base), self._version(job.base_version)
        self.pace = runner.pace()
        self.folded = 0
        self.made: Made | None = None
        try:
            self._resume(job.checkpoint)
        except NotFoundError:  # a copied workspace has no checkpoints: the log has it all
            self._resume(None)
        self.progress = Progress(job.id, self.plan.rows, self.folding.metrics)
        self.progress.rows = self.rows

    @property
    def rows(self) -> int:
        """Rows learned for the first time so far."""
        return sum(one.rows for one in self.done) + self.folding.rows

    def carry_out(self) -> Job:
        """Fold, judge, commit. Returns the job in the state "committed"."""
        with span("learn", model=self.job.model, job=self.job.id) as told:
            increments = self._learn()
            told(rows=self.rows)
        self.progress.phase = "judging"
        self.report(self.progress)
        while True:
            self._follow()
            self._patch()
            state = self.folding.fold.save()
            with span("gate", model=self.job.model, job=self.job.id) as told:
                decision = self._judge(state)
                told(action=decision.action, reason=decision.reason)
            crash_point("job.judged")
            job = self._commit(state, increments, decision)
            if job is not None:
                return job

    # --- beginning ---

    def _resume(self, checkpoint: Json) -> None:
        """Load the job's checkpoint, or else what its first increment starts from."""
        self.stage, self.done = 0, list[Increment]()
        if checkpoint is None:
            self.folding = self._begin(self._loaded(self.base.manifest if self.base else {}))
            return
        self.stage = checkpoint.get("stage", 0)
        self.done = [Increment(**one) for one in checkpoint.get("done", ())]
        plan, learner = self._stage()
        state = self.checkpoints.load(checkpoint)
        base = self._loaded(self.base.manifest if self.base else {})
        self.folding = Folding.load(self.runner.parts, plan, learner, base, state, checkpoint)

    def _begin(self, base: State) -> Folding:
        """Begin with an increment, from what the one before it ended in."""
        plan, learner = self._stage()
        again = self.plan.refolds
        held = HoldOuts() if again else self._holdouts()
        return Folding(self.runner.parts, plan, learner, base, held, looks=not again)

    def _stage(self) -> tuple[Plan, object]:
        """The increment that is folded in, and the definition of its learner."""
        plan = self.plan.stages[self.stage]
        return plan, self._definition(plan.definition).section("learner")

    def _holdouts(self) -> HoldOuts:
        return HoldOuts.load(self.runner.load_held(self.plan.holdouts))

    def _definition(self, number: int) -> Definition:
        if number not in self._definitions:
            with self.runner.database.read() as connection:
                found = definitions.definition(connection, self.job.model, number)
            self._definitions[number] = found
        return self._definitions[number]

    def _version(self, number: int | None) -> Version | None:
        if number is None:
            return None
        with self.runner.database.read() as connection:
            return versions.get(connection, self.job.model, number, increments=False)

    def _loaded(self, manifest: Json) -> dict[str, Part]:
        return self.runner.parts.load(manifest)

    # --- while learning ---

    def _learn(self) -> list[Increment]:
        """Fold in one increment after the other; what was consumed of each source."""
        found = self.folding.learn(self._after_chunk)
        while self.stage + 1 < len(self.plan.stages):
            self.done, self.stage = [*self.done, *found], self.stage + 1
            self.folding = self._begin(self.folding.fold.save())
            found = self.folding.learn(self._after_chunk)
        again = self.plan.refolds
        self.holdouts = self._holdouts() if again else self.folding.holdouts
        return [*self.done, *found]

    def _after_chunk(self, folded: int) -> None:
        """Count `folded` rows that were folded in; write a checkpoint if one is due."""
        self.check()
        self.folded += folded
        self.progress.rows, self.progress.phase = self.rows, self.folding.phase
        if folded and self.pace.is_due(self.folded):
            self._checkpoint()
        self.report(self.progress)

    def _checkpoint(self) -> None:
        """Write a version not yet published, from which the job can go on."""
        self.pace.begin()
        state, progress = self.folding.save()
        if self.stage:
            progress |= {"stage": self.stage, "done": [asdict(one) for one in self.done]}
        known = self.plan.holdouts | (self.base.manifest if self.base else {})
        self.checkpoints.save(self.runner.queue, state, progress, known)
        self.progress.checkpoints += 1
        self.pace.end(self.folded)

    # --- the end ---

    def _follow(self) -> None:
        """Be for the champion as it is by now, where it was only patched since the job was planned:
        what was learned goes on from what it learned."""
        with self.runner.database.read() as connection:
            number = followed(connection, self.job.model, self.job.base_version)
        if number != self.job.base_version:
            self.job, self.champion = replace(self.job, base_version=number), self._version(number)

    def _patch(self) -> None:
        """Have the candidate answer as the standing edits of the champion want it to."""
        self.patched: Json = None
        if self.champion is not None:
            database, fold = self.runner.database, self.folding.fold
            champion = self._loaded(self.champion.manifest)
            online = online_of(self.model) is not None
            fold.patch, self.patched = repatched(
                database, self.job.model, fold, champion, self.holdouts, online=online
            )

    def _judge(self, state: State) -> Decision:
        """Whether the candidate is good enough, by the hold-outs and the model's gate."""
        broken = parts_not_finite(state)
        if broken:
            reason = f"the learner diverged: {', '.join(broken)} are not finite"
            return Decision("refuse", reason)
        return try_candidate(
            self.folding.fold,
            self._compared(),
            self.holdouts,
            self._gate(),
            columns=self.plan.columns,
        )

    def _gate(self) -> Any:
        """The model's gate: as it is by now where increments of earlier days are folded again,
        unless it is for another learner or schema."""
        if not self.plan.refolds:
            return self.model.gate
        with self.runner.database.read() as connection:
            newest = definitions.newest(connection, self.job.model)
        own, latest = self._definition(self.plan.definition), self._definition(newest)
        others = {"learner", "schema"} & set(definitions.changes(own, latest))
        return self.model.gate if others else latest.model().gate

    def _compared(self) -> Fold | None:
        """The champion, if it has the columns of the plan."""
        if self.champion is None:
            return None
        state = self._loaded(self.champion.manifest)
        if Columns.from_json(state["columns"].meta) != self.plan.columns:
            return None
        former = self._definition(self.champion.definition)
        made: Strategy = from_config(self.champion.strategy, former.source)
        return Fold.load(state, former.section("learner"), replace(made, memory=None))

    def _commit(self, state: State, increments: list[Increment], decision: Decision) -> Job | None:
        """Make the version: its blobs first, then, in one transaction, its row and the job's; None,
        and nothing was made, where the champion was patched meanwhile."""
        parts, queue = self.runner.parts, self.runner.queue
        manifest = parts.save(state, known=self.base.manifest if self.base else None)
        held = self.runner.save_held(self.holdouts.save(), self.plan.holdouts)
        crash_point("job.saved")
        metrics = plain(self._measured(decision))
        with self.runner.database.write() as connection:
            queue.fence(connection, self.job)
            model_id(connection, self.job.model, lock=True)
            base = self.job.base_version
            if followed(connection, self.job.model, base) != base:
                return None
            follow(connection, self.job.id, base)
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
        return self.plan.base if self.plan.earlier or self.folding.takes_over else None

    def _measured(self, decision: Decision) -> Json:
        """Metrics before learning each chunk, and those on the hold-outs that were judged."""
        folding = self.folding
        found = dict(folding.metrics.results(positive=folding.fold.positive))
        evidence = decision.evidence
        names = [name for name in ("recent", "historical") if name in evidence]
        found |= {name: evidence[name] for name in names}
        judged = Judged(
            self.plan,
            self.model.learner,
            folding.fold,
            self.holdouts,
            None if self.plan.refolds else folding.own,
            decision,
            self.base,
            folding.looks,
        )
        with self.runner.database.read() as connection:
            record = judged.record(connection, self.job.model)
        told = {TRANSFER: record, "patch": self.patched}
        return found | {name: value for name, value in told.items() if value is not None}
