"""What a job tells while it runs, and what it ended in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from everlearn.base import Decision, Json
from everlearn.evaluation.metrics import Metrics
from everlearn.registry.versions import Increment


class Progress:
    """How far a job is: what a progress bar shows. Its figures change as the job goes on.

    Attributes:
        job: id of the job.
        phase: "memory" while what is remembered is folded in, then "learning", "judging", "done".
        rows: rows of the increment learned so far.
        total: rows of the increment; None where only reading tells.
        checkpoints: checkpoints written by this run.
    """

    def __init__(self, job: int, total: int | None, metrics: Metrics) -> None:
        self.job, self.total = job, total
        self.phase, self.rows, self.checkpoints = "learning", 0, 0
        self._metrics = metrics

    def metrics(self) -> dict[str, Any]:
        """Test-then-train metrics so far; computed when asked for."""
        return dict(self._metrics.results())


Report = Callable[[Progress], None]

Made = tuple[Sequence[Increment], Json]
"""The increments and the metrics of a version."""


@dataclass(slots=True)
class JobResult:
    """What a job ended in.

    Args:
        job: its id; None where there was nothing to do.
        version: the number of the version that it made; None if it made none.
        decision: what became of it: "promote", "try" (a rollout), "catch up", "refuse", "hold" or
            "nothing".
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
