"""Learn when the answers have become worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from everlearn.base import Decision, Floats, Json, SpecError
from everlearn.evaluation.outcomes import METRICS, ZERO_ONE, loss_of, metric_for
from everlearn.evaluation.shifts import alpha_at
from everlearn.evaluation.worse import Level, least_rise, level_of
from everlearn.jobs.triggers.episodes import once_per_champion
from everlearn.jobs.triggers.facts import Answered, Facts, Past

FEWEST = 30
"""Answers in the smallest window."""


@dataclass(frozen=True, slots=True)
class Performance:
    """Learn when the champion's labelled answers are surely worse than its first ones were.

    The mean loss of a champion's first `window` labelled answers is its reference. Each further
    window is a look, with its part of alpha (see `alpha_at`), so that the chance of any false alarm
    while one version serves is at most alpha, as far as means of blocks of a window are normal. It
    fires once for a champion. It sees what `Drift` cannot: a changed rule under unchanged features.

    Args:
        metric: one of `evaluation.outcomes.METRICS`; None for log loss where there are
            probabilities, accuracy where there are none, squared error of quantities.
        worse_by: rise of the mean loss that matters, in the unit of the metric ("rmse": of squared
            errors; "accuracy": the share of wrong answers).
        window: labelled answers in a window, at least 30.
        alpha: chance of a false alarm while one version serves.

    Raises:
        SpecError: a figure that cannot be, or an unknown metric.

    Papers: for the idea, Gama, Medas, Castillo & Rodrigues 2004, "Learning with drift detection";
    for the error of the means, `evaluation.worse`.
    """

    metric: str | None = None
    worse_by: float = 0.05
    window: int = 500
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if self.metric is not None and self.metric not in METRICS:
            raise SpecError(f"metric={self.metric!r}; Performance takes one of {METRICS}")
        if not self.worse_by >= 0.0:
            raise SpecError(f"worse_by={self.worse_by!r}; it is from 0")
        if self.window < FEWEST:
            raise SpecError(f"window={self.window!r}; it is from {FEWEST}")
        if not 0.0 < self.alpha < 1.0:
            raise SpecError(f"alpha={self.alpha!r}; it is between 0 and 1")

    def decide(self, facts: Facts) -> Decision:
        """Learns if the newest window of labelled answers is surely worse."""
        return once_per_champion(facts, self._look)

    def _look(self, facts: Facts, past: Past) -> Decision:
        state = facts.state
        if past.head() < state.get("until", 0):  # a window cannot be full yet
            return Decision.from_json(state["last"])
        if "reference" not in state:
            first = past.answered(0, first=self.window)
            if len(first) < self.window:
                return self._insufficient(state, past, len(first))
            metric = self.metric or metric_for(first[0].output, first[0].value)
            losses = losses_of(metric, first)
            if len(losses) < FEWEST:
                return Decision("wait", f"insufficient data: few answers have a loss by {metric}")
            reference = level_of(losses, metric == ZERO_ONE)
            state.update(metric=metric, reference=reference.to_json(), after=first[-1].position)
        recent = past.answered(state["after"], last=self.window)
        if len(recent) < self.window:
            return self._insufficient(state, past, len(recent))
        state["after"], state["look"] = recent[-1].position, state.get("look", 0) + 1
        decision = self._judged(state, losses_of(state["metric"], recent))
        state["last"] = decision.to_json()
        return decision

    def _judged(self, state: dict[str, Json], losses: Floats) -> Decision:
        metric, look = state["metric"], state["look"]
        if len(losses) < FEWEST:
            return Decision("wait", f"insufficient data: few answers have a loss by {metric}")
        reference, recent = Level(**state["reference"]), level_of(losses, metric == ZERO_ONE)
        least = least_rise(reference, recent, alpha_at(self.alpha, look))
        figures = {
            "metric": metric,
            "reference": reference.to_json(),
            "recent": recent.to_json(),
            "at_least": least,
            "worse_by": self.worse_by,
            "look": look,
        }
        said = f"mean loss ({metric}) {recent.mean:.4g}, {reference.mean:.4g} in the first window"
        if least > self.worse_by:
            return Decision("learn", f"{said}: worse by {least:.4g} at least", figures)
        return Decision("wait", f"{said}: not surely worse by {self.worse_by:g}", figures)

    def _insufficient(self, state: dict[str, Json], past: Past, there: int) -> Decision:
        """What was said after the last full window, or that there was none."""
        state["until"] = past.head() + self.window - there
        if "look" not in state:
            said = f"insufficient data: {there} of {self.window} labelled answers"
            state["last"] = Decision("wait", said, {"answers": there}).to_json()
        return Decision.from_json(state["last"])


def losses_of(metric: str, answers: Sequence[Answered]) -> Floats:
    """The losses of the answers that have one."""
    found = [loss_of(metric, one.output, one.value) for one in answers]
    losses = np.array([loss for loss in found if loss is not None], np.float64)
    return losses[np.isfinite(losses)]
