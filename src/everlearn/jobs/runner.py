"""Carries out claimed jobs, from the claim to the alias that the gate's decision asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import sqlalchemy as sa

from everlearn.base import ConflictError, Decision, Part, State, crash_point
from everlearn.jobs import catchup
from everlearn.jobs.checkpoint import Checkpoints, Pace
from everlearn.jobs.queue import Job, Queue
from everlearn.jobs.result import JobResult, Made, Report
from everlearn.jobs.run import Run
from everlearn.jobs.spans import span
from everlearn.registry import aliases, versions
from everlearn.registry.models import model_id, plain
from everlearn.storage.database import Database
from everlearn.storage.parts import Manifest, PartStore

BeginRollout = Callable[[sa.Connection, str, int, int, str], int | None]


class Runner:
    """Carries out claimed jobs; the same in a command, a worker and a test.

    Args:
        pace: makes the clock by which a job is checkpointed.
        rollout: begins one for a model, a candidate and the champion, and for a reason, if the
            model's definition asks for it; returns its number, or None.
    """

    def __init__(
        self,
        database: Database,
        parts: PartStore,
        queue: Queue,
        pace: Callable[[], Pace] = Pace,
        rollout: BeginRollout | None = None,
    ) -> None:
        self.database, self.parts, self.queue, self.pace = database, parts, queue, pace
        self._rollout = rollout
        self._held: dict[str, Part] = {}

    def load_held(self, manifest: Manifest) -> dict[str, Part]:
        """The hold-out rows of a version. Those that the last job had here are in memory still:
        a worker would otherwise read up to 20,000 rows anew for each job."""
        parts = self.parts.load(manifest)
        return {name: self._held.get(part.digest, part) for name, part in parts.items()}

    def save_held(self, state: State, known: Manifest) -> Manifest:
        """Store hold-out rows, and keep them in memory for the next job."""
        self._held = {part.digest: part for part in state.values()}
        return self.parts.save(state, known=known)

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
        with span("job", model=job.model, job=job.id, attempt=job.attempts) as told:
            found = self._run(job, check, report)
            told(version=found.version, action=found.decision.action)
            return found

    def _run(self, job: Job, check: Callable[[], None], report: Report) -> JobResult:
        resumed_from, made = 0, None
        checkpoints = Checkpoints(self.parts, job)
        if job.state != "committed":
            run = Run(self, job, checkpoints, check, report)
            resumed_from = run.rows
            job = run.carry_out()
            made = run.made
        crash_point("job.committed")
        with span("promote", model=job.model, job=job.id, version=job.version) as told:
            with self.database.write() as connection:
                self.queue.fence(connection, job)
                decision = self._promote(connection, job, Decision.from_json(job.decision))
                self.queue.finish(connection, job, decision)
            told(action=decision.action, reason=decision.reason)
        crash_point("job.done")
        checkpoints.remove()
        job = replace(job, state="done", decision=decision.to_json())
        return self.result(job, resumed_from, made)

    def result(self, job: Job, resumed_from: int = 0, made: Made | None = None) -> JobResult:
        """What an ended job ended in; read from its version unless that was just made."""
        if job.version is None:
            decision = Decision(job.state, job.error or f"the job is {job.state}")
            return JobResult(job.id, None, decision)
        if made is None:
            with self.database.read() as connection:
                version = versions.get(connection, job.model, job.version)
            made = version.increments, version.metrics
        increments, metrics = made
        return JobResult(
            job=job.id,
            version=job.version,
            decision=Decision.from_json(job.decision),
            resumed_from=resumed_from,
            rows=sum(item.rows for item in increments),
            increments=[plain(item.to_json()) for item in increments],
            metrics=metrics,
        )

    def _promote(self, connection: sa.Connection, job: Job, decision: Decision) -> Decision:
        """Move the alias that the gate's decision asks for."""
        assert job.version is not None
        model_id(connection, job.model, lock=True)
        move = partial(aliases.move, connection, job.model, to=job.version)
        if decision.action != "pass":
            action, reason = "refuse", decision.reason
        else:
            try:
                if self._has_to_catch_up(connection, job):
                    stands = aliases.current(connection, job.model, aliases.CANDIDATE)
                    reason = f"what was learned online meanwhile is next: {decision.reason}"
                    act = catchup.CATCH_UP
                    move(alias=aliases.CANDIDATE, expected=stands, action=act, reason=reason)
                    return Decision(act, reason, decision.evidence)
                trial = self._begin_rollout(connection, job, decision)
                if trial is not None:
                    return trial
                move(alias=aliases.CHAMPION, expected=job.base_version, reason=decision.reason)
                return Decision("promote", decision.reason, decision.evidence)
            except ConflictError as conflict:
                action, reason = "hold", f"passed the gate, but is not promoted: {conflict}"
        stands = aliases.current(connection, job.model, aliases.CANDIDATE)
        move(alias=aliases.CANDIDATE, expected=stands, action=action, reason=reason)
        return Decision(action, reason, decision.evidence)

    def _has_to_catch_up(self, connection: sa.Connection, job: Job) -> bool:
        champion = aliases.current(connection, job.model)
        if champion is None or champion != job.base_version:
            return False
        return catchup.has_to(connection, job.model, job.plan["definition"])

    def _begin_rollout(
        self, connection: sa.Connection, job: Job, decision: Decision
    ) -> Decision | None:
        """Try a candidate on traffic first, where the model asks for that and there is a champion
        that it was compared with. Beside a model that learns online none is on trial: what it was
        compared with is not what answers."""
        champion = aliases.current(connection, job.model)
        if self._rollout is None or champion is None or champion != job.base_version:
            return None
        if catchup.is_online(connection, job.model, job.plan["definition"]):
            return None
        assert job.version is not None
        number = self._rollout(connection, job.model, job.version, champion, decision.reason)
        if number is None:
            return None
        evidence = dict(decision.evidence) | {"rollout": number}
        return Decision("try", f"rollout {number}: {decision.reason}", evidence)
