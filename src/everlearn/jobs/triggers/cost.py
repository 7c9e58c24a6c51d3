"""Learn when waiting has become dearer than learning."""

from __future__ import annotations

from dataclasses import dataclass

from everlearn.base import Decision, SpecError
from everlearn.evaluation.outcomes import METRICS, metric_for
from everlearn.jobs.triggers.facts import Facts, Past
from everlearn.jobs.triggers.performance import FEWEST, losses_of

PAGE = 5000
"""Labelled answers that are added up in one look."""


@dataclass(frozen=True, slots=True)
class CostAware:
    """Learn when the cost of having waited has reached the price of learning.

    Waiting costs `label_hour` for every hour that a label waits to be learned (the "data
    incorporation latency" of Tian et al.), and `error` for every unit of loss that the champion's
    labelled answers had more than its first ones (the "staleness cost" of Mahadevan & Mathioudakis,
    in their cumulative threshold). Learning costs `training_hour` for every hour that jobs took, on
    average over the last five that made a version.

    To pay when what was lost by waiting equals the price costs at most twice what the best schedule
    in hindsight does, where the price does not depend on when it is paid and waiting cost grows
    without jumps (Dooly, Goldman & Scott 2001, "On-line analysis of the TCP acknowledgment delay
    problem"; the cost-aware policy of Continuum rests on it). With `training_hour=0`
    it is their best-effort policy: learn whenever there is something to learn.

    Args:
        training_hour: price of an hour of learning.
        label_hour: price of one label waiting for an hour.
        error: price of one unit of loss of one answer, beyond the reference.
        metric: of the loss; None for log loss where there are probabilities, accuracy where there
            are none, squared error of quantities.
        window: labelled answers that are the reference of a champion, at least 30.

    Raises:
        SpecError: prices that cannot be, or none for waiting.

    Papers: Tian, Yu & Wang 2018, "Continuum: a platform for cost-aware, low-latency
    continual learning" (SoCC); Mahadevan & Mathioudakis 2024, "Cost-aware retraining for machine
    learning" (Knowledge-Based Systems; arXiv 2310.04216).
    """

    training_hour: float = 1.0
    label_hour: float = 0.0
    error: float = 0.0
    metric: str | None = None
    window: int = 500

    def __post_init__(self) -> None:
        for name in ("training_hour", "label_hour", "error"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise SpecError(f"{name}={getattr(self, name)!r}; it is a finite price from 0")
        if self.training_hour and not (self.label_hour or self.error):
            raise SpecError("CostAware needs a price of waiting: label_hour=, error=, or both")
        if self.metric is not None and self.metric not in METRICS:
            raise SpecError(f"metric={self.metric!r}; CostAware takes one of {METRICS}")
        if self.window < FEWEST:
            raise SpecError(f"window={self.window!r}; it is from {FEWEST}")

    def decide(self, facts: Facts) -> Decision:
        """Learns if waiting has cost as much as learning would."""
        if facts.past is None or not facts.labels:
            return Decision("wait", "no label is new")
        extra = self._extra(facts, facts.past) if self.error else 0.0
        waited = facts.past.waited(facts.now) / 3600.0
        waiting = waited * self.label_hour + max(0.0, extra) * self.error
        took = facts.past.job_seconds()
        figures = {"label_hours": waited, "extra_loss": extra, "waiting": waiting}
        if not took:
            return _fired(facts, "what a job takes is not known yet: the first is to show", figures)
        price = sum(took) / len(took) / 3600.0 * self.training_hour
        figures["price"] = price
        if waiting < price:
            said = f"waiting has cost {waiting:.4g}, learning costs {price:.4g}"
            return Decision("wait", said, figures)
        return _fired(facts, f"waiting has cost {waiting:.4g}, learning {price:.4g}", figures)

    def _extra(self, facts: Facts, past: Past) -> float:
        """Loss beyond the reference since this champion, or since this trigger last fired."""
        state = facts.state
        if state.get("champion") != facts.champion:
            state.clear()
            state["champion"] = facts.champion
        if "mean" not in state:
            if past.head() < state.get("until", 0):  # a window cannot be full yet
                return 0.0
            first = past.answered(0, first=self.window)
            if len(first) < self.window:
                state["until"] = past.head() + self.window - len(first)
                return 0.0
            metric = self.metric or metric_for(first[0].output, first[0].value)
            losses = losses_of(metric, first)
            if len(losses) < FEWEST:
                return 0.0
            state.update(metric=metric, mean=float(losses.mean()), extra=0.0)
            state["after"] = first[-1].position
        more = past.answered(state["after"], first=PAGE)
        if more:
            losses = losses_of(state["metric"], more)
            state["extra"] += float((losses - state["mean"]).sum())
            state["after"] = more[-1].position
        if len(more) < PAGE:
            state["after"] = max(state["after"], past.head())
        return float(state["extra"])


def _fired(facts: Facts, reason: str, figures: dict[str, float]) -> Decision:
    if "extra" in facts.state:
        facts.state["extra"] = 0.0
    return Decision("learn", reason, figures)
