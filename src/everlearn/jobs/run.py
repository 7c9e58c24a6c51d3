"""One job from its claim to its end: load, fold, judge, commit, promote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from everlearn.base import (
    Batch,
    ConflictError,
    Decision,
    Json,
    Model,
    Part,
    crash_point,
    prefixed,
    state_digest,
    under,
)
from everlearn.data.increment import Reader, Tally
from everlearn.evaluation.gates import try_candidate
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.metrics import Metrics
from everlearn.jobs.checkpoint import Checkpoints, Pace, area_url
from everlearn.jobs.learn import UNSEEN_CLASS, Fold, Step, learn, relive
from everlearn.jobs.plan import Plan
from everlearn.jobs.queue import Job, Queue
from everlearn.registry.registry import Registry
from everlearn.storage.blobs import Blobs
from everlearn.storage.database import Database
from everlearn.storage.parts import PartStore


class Progress:
    """How far a job is: what a progress bar shows. Its figures change as the job goes on.

    Attributes:
        job: id of the job.
        phase: "memory" while what is remembered is folded in, then "learning", "judging", "done".
        rows: rows of the increment learned so far.
        total: rows of the increment; None where only reading tells.
        checkpoints: checkpoints written by this run.
    """

    def __init__(self, job: int, total: int | None) -> None:
        self.job, self.total = job, total
        self.phase, self.rows, self.checkpoints = "learning", 0, 0
        self._metrics: Metrics | None = None

    def metrics(self) -> dict[str, Any]:
        """Test-then-train metrics so far; computed when asked for."""
        return {} if self._metrics is None else dict(self._metrics.results())


Report = Callable[[Progress], None]


@dataclass(slots=True)
class JobResult:
    """What a job ended in.

    Args:
        job: its id; None where there was nothing to do.
        version: the number of the version that it made; None if it made none.
        decision: what became of it: "promote", "refuse", "hold" or "nothing".
        resumed_from: rows of the increment that had been learned before this run began.
        rows: rows learned by the job, over all its runs.
        increments: what was consumed, per source.
        metrics: test-then-train metrics, and those on the hold-outs.
    """

    job: int | None
    version: int | None
    decision: Decision
    resumed_from: int = 0
    rows: int = 0
    increments: list[Json] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> Json:
        shown = {name: getattr(self, name) for name in self.__slots__}
        return shown | {"decision": self.decision.to_json()}


class Runner:
    """Carries out claimed jobs; the same in a command, a worker and a test.

    Args:
        pace: makes the clock by which a job is checkpointed.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        queue: Queue,
        registry: Registry,
        pace: Callable[[], Pace] = Pace,
    ) -> None:
        self.database, self.blobs, self.queue, self.registry = database, blobs, queue, registry
        self.parts = PartStore(blobs)
        self.pace = pace

    def __call__(
        self, job: Job, check: Callable[[], None], report: Report = lambda progress: None
    ) -> JobResult:
        """Run a claimed job from where it is to its end.

        Args:
            check: raises `LeaseLostError` when the job is no longer ours; called every chunk.
            report: told of progress, every chunk.

        Raises:
            LeaseLostError: another worker has the job; nothing of this run was committed.
            ChangedError: a file is not the one that was planned.
        """
        resumed_from = (job.checkpoint or {}).get("rows", 0)
        area = Blobs.open(area_url(self.blobs.url, job.id))
        if job.state != "committed":
            run = Run(self, job, Checkpoints(self.parts, area), check, report)
            job = run.carry_out()
        crash_point("job.committed")
        result = self._act(job)
        crash_point("job.done")
        area.clear()
        result.resumed_from = resumed_from
        return result

    def _act(self, job: Job) -> JobResult:
        """Carry out the gate's decision and close the job, in one transaction."""
        assert job.version is not None
        decision = Decision.from_json(job.decision)
        version = self.registry.version(job.model, job.version)
        with self.database.write() as connection:
            decision = self._promote(connection, job, decision)
            self.queue.finish(connection, job, decision)
        rows = sum(item["rows"] for item in version.increments)
        return JobResult(
            job=job.id,
            version=job.version,
            decision=decision,
            rows=rows,
            increments=version.increments,
            metrics=version.metrics,
        )

    def _promote(self, connection: sa.Connection, job: Job, decision: Decision) -> Decision:
        """Move the alias that the gate's decision asks for."""
        assert job.version is not None
        aliases = self.registry.aliases
        if decision.action != "pass":
            reason = decision.reason
            aliases.move(connection, job.model_id, "candidate", job.version, action="refuse", reason=reason)
            return Decision("refuse", reason, decision.evidence)
        try:
            aliases.move(
                connection,
                job.model_id,
                "champion",
                job.version,
                expected=job.base_version,
                action="promote",
                reason=decision.reason,
            )
        except ConflictError as conflict:
            reason = f"passed the gate, but is not promoted: {conflict}"
            aliases.move(connection, job.model_id, "candidate", job.version, action="hold", reason=reason)
            return Decision("hold", reason, decision.evidence)
        return Decision("promote", decision.reason, decision.evidence)


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
        self.plan = Plan.from_json(job.plan)
        self.model: Model = runner.registry.definition(self.plan.definition).model
        self.pace = runner.pace()
        self.progress = Progress(job.id, total_rows(self.plan))
        self.relived, self.mark = 0, None
        self.refused: dict[str, int] = {}
        self._load()

    def carry_out(self) -> Job:
        """Fold, judge, commit. Returns the job in the state "committed"."""
        strategy = self.plan.strategy
        if not self.fold.replays:
            self.progress.phase = "memory"
            relive(self.fold, strategy.chunk, self.relived, self._after_relived)
        self.progress.phase = "learning"
        with self._reader() as self.reader:
            learn(self.fold, self.reader, self._after_step)
        self.progress.phase = "judging"
        self.report(self.progress)
        decision = self._judge()
        crash_point("job.judged")
        return self._commit(decision)
