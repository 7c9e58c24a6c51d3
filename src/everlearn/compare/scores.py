"""How well each strategy answered: metrics in all and over time, against the best, in money."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from everlearn.base import Array, Floats, InputError, Ints, Prediction
from everlearn.compare.history import History, errors_of
from everlearn.compare.run import Run
from everlearn.compare.strategies import Plan
from everlearn.evaluation.intervals import Interval, paired_interval, time_blocks
from everlearn.evaluation.loss import EPSILON, metric_losses
from everlearn.evaluation.metrics import Metrics
from everlearn.evaluation.transfer import (
    average_score,
    backward_transfer,
    forgetting,
    intransigence,
)

CLASSIFIER_METRICS = (
    "accuracy",
    "log_loss",
    "roc_auc",
    "kappa",
    "kappa_temporal",
    "pr_auc",
    "brier",
    "calibration_error",
)
REGRESSOR_METRICS = ("mae", "rmse", "r2")
FEWEST_BLOCKS = 30
"""With fewer scored periods than this, blocks of equally many rows take their place."""

MOST_BLOCKS = 50

_HOUR = 3_600_000_000


@dataclass(slots=True)
class Score:
    """What one strategy is worth.

    Args:
        name, words, is_job: of its plan.
        code: the `Strategy` with which jobs do the same, as Python; "" where jobs cannot.
        rows: events that were scored.
        metrics: name → value in all, None where it is not defined.
        over_time: metric → (P,) its value in each scored period, NaN where it is not defined.
        behind: how much the chosen metric is worse than the best strategy's, with its interval.
        behind_by: the same for other metrics that have a loss per row.
        forgetting: mean fall of the score on a past group of periods from its best to the end.
        cpu_seconds, rows_learned, rows_read, updates, peak_memory_mb: what it cost.
        label_wait: mean time from a label being known to the serving model knowing it, in
            microseconds or rows.
        labels_used: share of the labels after warm-up that it ever learned.
        cost: in money: {"cpu", "errors", "total"}; None without prices.
        finite: whether every answer was a finite number.
        cannot: why its method cannot solve what this history asks for, in words; empty if it may.
    """

    name: str
    words: str
    is_job: bool
    rows: int
    metrics: dict[str, float | None]
    over_time: dict[str, Floats]
    behind: Interval | None = None
    behind_by: dict[str, Interval] = field(default_factory=dict)
    forgetting: float | None = None
    transfer: Floats | None = None
    cpu_seconds: float = 0.0
    rows_learned: int = 0
    rows_read: int = 0
    updates: int = 0
    peak_memory_mb: float | None = None
    label_wait: float | None = None
    labels_used: float | None = None
    cost: dict[str, float] | None = None
    finite: bool = True
    cannot: str = ""
    code: str = ""

    @property
    def level(self) -> bool:
        """Whether the data cannot tell it from the best strategy: the interval contains 0."""
        return self.behind is None or self.behind.low <= 0.0


@dataclass(frozen=True, slots=True)
class Scale:
    """What all scores of one comparison share.

    Args:
        metric: by which strategies are ranked; it has a loss per row.
        truth: (m,) targets of the scored events.
        period: (m,) their periods, 0 for the first one that is scored.
        blocks: (m,) block of time of each, for intervals.
        kind: "classifier" or "regressor".
        classes: how many.
    """

    metric: str
    truth: Array
    period: Ints
    blocks: Ints
    kind: str
    classes: int

    @classmethod
    def of(cls, history: History, metric: str | None, has_proba: bool) -> Scale:
        """Raises `InputError` where the metric has no loss per row, or needs probabilities."""
        line = history.timeline
        first = line.before(line.start)
        events = np.arange(first, len(history))
        period = line.period_of(events) - line.warmup
        scored = len(np.unique(period))
        blocks = period
        if scored < FEWEST_BLOCKS:
            blocks = time_blocks(len(events), max(1, min(MOST_BLOCKS, len(events) // 20)))
        truth = history.truth()[first:]
        return cls(
            metric or _default_metric(history.kind, has_proba),
            truth,
            period,
            blocks,
            history.kind,
            len(history.classes),
        ).checked(has_proba)

    def checked(self, has_proba: bool) -> Scale:
        """This scale, if its metric can rank strategies."""
        allowed = ["mae"] if self.kind == "regressor" else ["accuracy"]
        if self.kind == "classifier" and has_proba:
            allowed += ["log_loss", "brier"]
        if self.metric not in allowed:
            raise InputError(
                f"strategies cannot be ranked by {self.metric!r} here; use {', '.join(allowed)}"
            )
        return self

    def losses(self, answers: Prediction, metric: str) -> Floats:
        """(m,) loss of each answer; the worst possible where it is not finite."""
        found = metric_losses(metric, self.truth, answers, classes=self.classes)
        worst = -np.log(EPSILON) if self.kind == "classifier" else np.inf
        return np.where(np.isfinite(found), found, worst)

    def measure(self, answers: Prediction, rows: Array | slice = slice(None)) -> dict[str, Any]:
        """All metrics of some of the events."""
        metrics = Metrics("classifier" if self.kind == "classifier" else "regressor")
        metrics.add(self.truth[rows], answers.take(rows))
        return metrics.results(positive=1)


def _default_metric(kind: str, has_proba: bool) -> str:
    if kind == "regressor":
        return "mae"
    return "log_loss" if has_proba else "accuracy"


def score(run: Run, plan: Plan, scale: Scale) -> Score:
    """Metrics and costs of one run; what compares it with others is filled in by `rank`."""
    answers = Prediction(value=run.value, proba=run.proba)
    found = scale.measure(answers)
    names = CLASSIFIER_METRICS if scale.kind == "classifier" else REGRESSOR_METRICS
    return Score(
        name=run.name,
        words=plan.words,
        is_job=plan.is_job,
        rows=len(run.value),
        metrics={name: found.get(name) for name in names},
        over_time=_over_time(answers, scale),
        forgetting=None if run.transfer is None else _forgetting(run.transfer),
        transfer=run.transfer,
        cpu_seconds=run.cpu_seconds,
        rows_learned=run.rows_learned,
        rows_read=run.rows_read,
        updates=len(run.update_moments),
        peak_memory_mb=run.peak_memory_mb,
        label_wait=run.wait,
        labels_used=run.labels_used,
        finite=not found.get("nonfinite"),
    )


def _over_time(answers: Prediction, scale: Scale) -> dict[str, Floats]:
    """(P,) metrics of each scored period; NaN for a period without events."""
    names = ("mae", "rmse") if scale.kind == "regressor" else ("log_loss", "accuracy", "roc_auc")
    names = tuple(dict.fromkeys((scale.metric, *names)))
    count = int(scale.period.max()) + 1
    series = {name: np.full(count, np.nan) for name in names}
    bounds = np.searchsorted(scale.period, np.arange(count + 1))
    for period in range(count):
        start, stop = bounds[period], bounds[period + 1]
        if stop > start:
            found = scale.measure(answers, slice(start, stop))
            for name in names:
                value = found.get(name)
                series[name][period] = np.nan if value is None else value
    return {name: values for name, values in series.items() if not np.isnan(values).all()}


def transfer_figures(transfer: Floats, joint: Floats | None) -> dict[str, float | None]:
    """What follows from R[i, j] (see `evaluation.transfer`), over the groups of periods that every
    version was tested on; in the unit of the score: accuracy, or −MAE.

    Args:
        transfer: (T, T) of one strategy.
        joint: (T, T) of the one that trains on all history at the end of each period, whose R[j, j]
            is the joint score; None where it was not compared: intransigence needs it.
    """
    tested = np.isfinite(transfer).all(axis=0)
    if joint is not None:
        tested &= np.isfinite(np.diagonal(joint))
    names = ("average_score", "backward_transfer", "forgetting", "intransigence")
    if not tested.any():
        return dict.fromkeys(names)
    r = transfer[np.ix_(tested, tested)]
    short = None if joint is None else intransigence(r, np.diagonal(joint)[tested])
    found = (average_score(r), backward_transfer(r), forgetting(r), short)
    return dict(zip(names, found, strict=True))


def _forgetting(transfer: Floats) -> float | None:
    """Over the groups that had rows to be tested on."""
    tested = np.isfinite(transfer).all(axis=0)
    return forgetting(transfer[np.ix_(tested, tested)]) if tested.any() else None


def rank(scores: list[Score], runs: list[Run], scale: Scale) -> str:
    """Fill in how far each strategy is behind the best, and return the best one's name."""
    answers = [Prediction(value=run.value, proba=run.proba) for run in runs]
    losses = [scale.losses(answer, scale.metric) for answer in answers]
    means = [float(loss.mean()) for loss in losses]
    best = int(np.argmin(means))
    others = [name for name in ("accuracy", "roc_auc") if scale.kind == "classifier"]
    side = {name: _losses_by(name, answers, scale) for name in others}
    for number, given in enumerate(scores):
        if number == best or not np.isfinite(means[number]):
            continue
        given.behind = paired_interval(losses[number], losses[best], groups=scale.blocks)
        for name, by in side.items():
            if by is not None:
                given.behind_by[name] = paired_interval(by[number], by[best], groups=scale.blocks)
    return scores[best].name


def _losses_by(metric: str, answers: list[Prediction], scale: Scale) -> list[Floats] | None:
    """The losses of all runs by another metric, if all of them have it."""
    try:
        return [scale.losses(answer, metric) for answer in answers]
    except InputError:
        return None


def price(
    scores: list[Score], runs: list[Run], scale: Scale, cpu_hour: float, error: float
) -> None:
    """Fill in the costs in money."""
    for given, run in zip(scores, runs, strict=True):
        cpu = cpu_hour * given.cpu_seconds / 3600.0
        errors = error * float(errors_of(run.value, scale.truth, scale.kind).sum())
        given.cost = {"cpu": cpu, "errors": errors, "total": cpu + errors}


def baselines(history: History) -> dict[str, dict[str, float | None]]:
    """Answers that need no model, from the labels known when each event came.

    Returns:
        For a classifier "majority" (the most frequent class so far, the shares of classes as
        probabilities) and "no_change" (the class that became known last); for a regressor "mean"
        and "last_value".
    """
    line = history.timeline
    first = line.before(line.start)
    known = np.searchsorted(line.available, line.time[first:], "right")
    last = np.maximum(known - 1, 0)
    truth = history.truth()[first:]
    if history.codes is None:
        target = np.asarray(history.batch.y, np.float64)
        mean = np.cumsum(target)[last] / (last + 1)
        return {"mean": _regression(truth, mean), "last_value": _regression(truth, target[last])}
    k = len(history.classes)
    counts = np.empty((len(truth), k))
    for code in range(k):
        counts[:, code] = np.cumsum(history.codes == code)[last]
    share = (counts + 1.0) / (counts.sum(axis=1, keepdims=True) + k)
    chance = share[np.arange(len(truth)), truth]
    return {
        "majority": {
            "accuracy": float((counts.argmax(axis=1) == truth).mean()),
            "log_loss": float(-np.log(chance).mean()),
            "roc_auc": 0.5 if k == 2 else None,
        },
        "no_change": {"accuracy": float((history.codes[last] == truth).mean())},
    }


def _regression(truth: Array, answer: Floats) -> dict[str, float | None]:
    error = truth - answer
    return {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean()))}


def wait_in_words(wait: float | None, unit: str) -> str:
    """ "2.5 h", "3.4 d", or "120 rows"."""
    if wait is None:
        return "–"
    if unit == "rows":
        return f"{wait:,.0f} rows"
    hours = wait / _HOUR
    if hours < 1.0:
        return f"{hours * 60:,.0f} min"
    return f"{hours:,.1f} h" if hours < 48 else f"{hours / 24:,.1f} d"
