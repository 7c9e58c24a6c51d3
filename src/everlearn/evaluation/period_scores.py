"""What a lineage knows of each period: one row of R for every version, folded from job to job.

R[i, j] is the score on period j after version i. A version keeps, for each period that its
hold-outs have, what is needed for all figures of `transfer`, so that no job has to read those of
the versions before it:

    untrained   b[j]: of a learner that has learned nothing
    before      R[j−1, j]: of the version that the job began with, which had not learned the period
    after       R[j, j]: of the version that learned it
    best        max R[l, j] over the versions from then on, up to the one before this
    now         R[T, j]: of this version
    joint       of the last full retraining over everything, where there was one

Periods are merged with age. The figures of a merged period are the means of its parts', weighted
with their rows, so that `best` is the mean of each part's own best; that of a loss over rows is the
same as if they had always been one period, but for rows that were thinned out meanwhile. Every
period counts once in a figure, however many rows it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from everlearn.base import Floats, Json
from everlearn.evaluation.holdouts import Period
from everlearn.evaluation.loss import GREATER_IS_BETTER

METRICS = ("log_loss", "accuracy", "mse", "mae")
"""Of classifiers the first two, of regressors the others: means over rows, in that order."""

FIELDS = ("untrained", "before", "after", "best", "now", "joint")

Scores = Mapping[str, float | None]
"""Metric → score; None where it is not finite."""


def period_scores(
    periods: Sequence[Period],
    judged: Sequence[Json],
    *,
    previous: Json = None,
    own: int | None = None,
    untrained: Scores | None = None,
    retrained: bool = False,
    unrecorded: bool = False,
) -> Json:
    """A version's row of R, and what it took over from the one that it was compared with.

    Args:
        periods: of the hold-outs, the oldest first.
        judged: for each of them, {"candidate": scores, "champion": scores, if there was one}, as
            the evidence of a decision has them under "periods".
        previous: the record of the version that the job began with.
        own: number of the increment that was learned; None where none of its rows were held out.
        untrained: scores of an untrained learner on the rows of that increment.
        retrained: the version learned all increments together, anew.
        unrecorded: versions without a record (of a model that learns online) came in between, which
            learned what `previous` does not know of; else such periods were only refused.

    Returns:
        JSON: "metrics" and "periods".
    """
    metrics = [name for name in METRICS if judged and name in judged[0].get("candidate", {})]
    kept = list(previous["periods"]) if previous else []
    made = []
    for period, scores in zip(periods, judged, strict=True):
        parts = [p for p in kept if period.first <= p["first"] and p["last"] <= period.last]
        is_own = own is not None and period.first <= own <= period.last
        learned = is_own or unrecorded if not parts else is_own or any(p["learned"] for p in parts)
        row: Json = {
            "first": period.first,
            "last": period.last,
            "rows": len(period),
            "start": period.start,
            "stop": period.stop,
            "learned": learned,
            "new": is_own,
        }
        known = [p for p in parts if p["learned"]]
        for name in metrics:
            taken = [_inherited(p, name) for p in known]
            weights = [float(p["rows"]) for p in known]
            now = scores["candidate"][name]
            if is_own:
                before = scores.get("champion", {}).get(name)
                taken.append(_first(now, before, (untrained or {}).get(name)))
                weights.append(max(1.0, len(period) - sum(weights)))
            row[name] = _merged(taken, weights) | {"now": now}
            if retrained:
                row[name]["joint"] = now
        made.append(row)
    return {"metrics": metrics, "periods": made}


def figures(record: Json, metric: str) -> dict[str, float | int | None]:
    """ACC, BWT, FWT, forgetting and intransigence of a record, in the unit of the metric.

    With T periods that were learned, of which the newest may be this version's own:

    - ``average_score`` = (1/T) Σ_j R[T, j] (Lopez-Paz and Ranzato 2017, eq. 2)
    - ``backward_transfer`` = mean of R[T, j] − R[j, j] over the older periods (eq. 3)
    - ``forward_transfer`` = mean of R[j−1, j] − b[j] over all but the first (eq. 4)
    - ``forgetting`` = mean of max_{l<T} R[l, j] − R[T, j] over the older periods (Chaudhry et al.
      2018, eq. 3)
    - ``intransigence`` = mean of R_joint[j] − R[j, j] over the periods that a full retraining was
      scored on (Chaudhry et al. 2018, section 3, whose joint model learned periods 1 … j; this one
      learned all that there were when it was trained)

    Signs are turned for losses, but that of ``average_score``: forgetting above 0 always means that
    something was lost. None where nothing of the kind was measured.
    """
    sign = 1.0 if metric in GREATER_IS_BETTER else -1.0
    learned = [period for period in record["periods"] if period["learned"]]
    old = [period for period in learned if not period["new"] or period["first"] < period["last"]]

    def mean(periods: Sequence[Json], one: str, other: str | None = None) -> float | None:
        pairs = [(p[metric][one], 0.0 if other is None else p[metric][other]) for p in periods]
        apart = [a - b for a, b in pairs if a is not None and b is not None]
        return float(np.mean(apart)) if apart else None

    def turned(value: float | None) -> float | None:
        return None if value is None else sign * value

    return {
        "periods": len(learned),
        "average_score": mean(learned, "now"),
        "backward_transfer": turned(mean(old, "now", "after")),
        "forward_transfer": turned(mean(learned, "before", "untrained")),
        "forgetting": turned(mean(old, "best", "now")),
        "intransigence": turned(mean(learned, "joint", "after")),
    }


def lost(period: Json, metric: str) -> float | None:
    """How much worse a period is answered than by the best version before; None if not known."""
    best, now = period[metric]["best"], period[metric]["now"]
    if best is None or now is None or not period["learned"] or period["new"]:
        return None
    return float(best - now if metric in GREATER_IS_BETTER else now - best)


def matrix(records: Sequence[Json], metric: str) -> Floats:
    """(n, p) R of n versions of a lineage, the oldest first, on the p periods of the last one.

    NaN where it was not measured. Above the diagonal is only what is needed for forward transfer:
    each version's score on the period that the next one learned.
    """
    if not records:
        return np.zeros((0, 0))
    columns = records[-1]["periods"]
    found = np.full((len(records), len(columns)), np.nan)
    for place, record in enumerate(records):
        for number, column in enumerate(columns):
            found[place, number] = _of_span(record, column, metric, "now")
            if place + 1 < len(records) and np.isnan(found[place, number]):
                found[place, number] = _of_span(records[place + 1], column, metric, "before")
    return found


def churn_of(evidence: Json) -> Json:
    """Churn and negative flip rate over all hold-out rows, of a decision's evidence; None where
    there was nothing to compare with."""
    parts = [evidence[name]["churn"] for name in ("recent", "historical")
             if (evidence.get(name) or {}).get("churn")]  # fmt: skip
    rows = sum(part["rows"] for part in parts)
    if not rows:
        return None
    found: dict[str, Any] = {"rows": rows}
    for name in ("churn", "negative_flip_rate", "positive_flip_rate", "mean_change"):
        values = [(part.get(name), part["rows"]) for part in parts]
        lacking = any(value is None for value, _ in values)
        found[name] = None if lacking else sum(value * n for value, n in values) / rows
    return found


def _of_span(record: Json, column: Json, metric: str, field: str) -> float:
    """A score on the rows of a period that was several ones when the version was judged."""
    parts = [p for p in record["periods"]
             if column["first"] <= p["first"] and p["last"] <= column["last"]]  # fmt: skip
    known = [(p[metric][field], p["rows"]) for p in parts
             if p["learned"] and p.get(metric, {}).get(field) is not None]  # fmt: skip
    rows = sum(n for _, n in known)
    return sum(value * n for value, n in known) / rows if rows else math.nan


def _first(now: float | None, before: float | None, untrained: float | None) -> dict[str, Any]:
    return {"untrained": untrained, "before": before, "after": now, "best": now, "joint": None}


def _inherited(period: Json, metric: str) -> dict[str, Any]:
    """What the next version takes over of a period."""
    known = dict.fromkeys(FIELDS) | period.get(metric, {})
    scores = [value for value in (known["best"], known["now"]) if value is not None]
    better: Callable[..., float] = max if metric in GREATER_IS_BETTER else min
    return {name: known[name] for name in ("untrained", "before", "after", "joint")} | {
        "best": better(scores) if scores else None
    }


def _merged(parts: Sequence[Mapping[str, Any]], weights: Sequence[float]) -> dict[str, Any]:
    """The means of the parts; None where one of them is not known."""
    found: dict[str, Any] = {}
    for name in FIELDS:
        values = [part.get(name) for part in parts]
        if not values or any(value is None for value in values):
            found[name] = None
        elif len(values) == 1:
            found[name] = values[0]
        else:
            found[name] = float(np.average(np.array(values, float), weights=weights))
    return found
