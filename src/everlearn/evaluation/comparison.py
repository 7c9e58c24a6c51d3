"""One loss against another on the same rows, in the unit of the metric that people read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from everlearn.base import Array, Floats, InputError, Ints, Prediction
from everlearn.evaluation.intervals import Interval, paired_interval, t_quantile
from everlearn.evaluation.loss import GREATER_IS_BETTER, metric_losses


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate against champion under one metric, on some of the rows.

    Args:
        metric, rows: what was compared, on how many rows.
        candidate, champion: the metric of both; of a baseline, where there is no champion.
        worse: the interval of how much worse the candidate is, in the metric's own unit: below 0
            where it is better.
    """

    metric: str
    rows: int
    candidate: float
    champion: float
    worse: Interval

    def to_json(self) -> dict[str, Any]:
        """Figures by name."""
        found: dict[str, Any] = {"metric": self.metric, "rows": self.rows}
        for who in ("candidate", "champion"):
            value = getattr(self, who)
            found[who] = value if np.isfinite(value) else None
        return found | {"worse_by": self.worse.to_json()}


def compare_losses(
    metric: str, mine: Floats, theirs: Floats, *, level: float, groups: Ints | None = None
) -> Comparison:
    """How much worse one series of losses is than the other, in the metric's own unit.

    The difference of two RMSEs is that of the mean squares divided by their sum, so that it has an
    interval in closed form. That of two accuracies has the variance of one more row on which the
    models differ, as in Agresti and Min (2005, "Simple improved confidence intervals for comparing
    matched proportions"): models that agree on 30 rows may differ on every twentieth of others.

    Args:
        mine, theirs: (n,) losses of the same rows (see `metric_losses`).
        level: confidence of each bound of the interval.
        groups: (n,) groups of rows that depend on each other.
    """
    worse = paired_interval(mine, theirs, level=2.0 * level - 1.0, groups=groups)
    a, b = float(mine.mean()), float(theirs.mean())
    if metric == "accuracy" and math.isfinite(worse.error):
        error = math.hypot(worse.error, 1.0 / worse.rows)
        reach = t_quantile(level, worse.groups - 1) * error
        bounds = (worse.mean, worse.mean - reach, worse.mean + reach)
        worse = Interval(*bounds, worse.rows, worse.groups, error)
    if metric == "rmse":
        a, b = float(np.sqrt(a)), float(np.sqrt(b))
        scale = a + b
        if scale > 0:
            bounds = (worse.mean / scale, worse.low / scale, worse.high / scale)
            worse = Interval(*bounds, worse.rows, worse.groups, worse.error / scale)
    if metric in GREATER_IS_BETTER:
        a, b = 1.0 - a, 1.0 - b
    return Comparison(metric, len(mine), a, b, worse)


def baseline_losses(metric: str, kind: str, y: Array | None, *, classes: int = 2) -> Floats:
    """(n,) losses of the best constant answer in hindsight: what a first version must not be below.

    Args:
        metric: one that has a loss per row (see `metric_losses`).
        kind: of the learner.
        y: (n,) true classes in codes, or values.
        classes: number of classes, by which the Brier score is scaled.

    Raises:
        InputError: there is none for learners without a target.
    """
    if y is None:
        raise InputError(f"a {kind} has no baseline, since it has no target")
    n = len(y)
    if metric == "roc_auc":
        return np.full(n, 0.5)
    if kind == "classifier":
        found, codes = np.unique(y, return_inverse=True)
        share = np.bincount(codes) / max(n, 1)
        proba = np.broadcast_to(share, (n, len(found)))
        constant = Prediction(value=np.full(n, share.argmax()), proba=proba)
        return metric_losses(metric, codes, constant, classes=classes)
    centre = np.median(y) if metric == "mae" else np.mean(y)
    return metric_losses(metric, y, Prediction(value=np.full(n, centre)))
