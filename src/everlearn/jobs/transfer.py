"""What a job learned and what it forgot: the record of its version, and those of a lineage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from everlearn.base import Decision, InputError, Json, NotFoundError
from everlearn.evaluation.class_order import ALONE, cannot_help, class_order, count_classes
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.looks import Looks
from everlearn.evaluation.loss import GREATER_IS_BETTER
from everlearn.evaluation.period_scores import (
    churn_of,
    figures,
    lost,
    matrix,
    period_scores,
)
from everlearn.evaluation.trial import ask, mean_losses
from everlearn.jobs.learn import Fold
from everlearn.jobs.plan import Plan
from everlearn.registry.lineage import lineage
from everlearn.registry.models import model_id
from everlearn.registry.versions import Version
from everlearn.storage import schema
from everlearn.strategies.everything import Everything
from everlearn.strategies.strategy import Strategy

NAME = "transfer"
"""Of the record among a version's metrics."""

ROWS = 32
"""Versions of a lineage whose rows of R are shown."""

AT_ONCE = 64
"""Versions whose metrics are read together while a record is looked for."""


@dataclass(slots=True)
class Judged:
    """What a job has to say of its candidate.

    Args:
        plan: of the job.
        learner: its definition.
        fold: the candidate.
        holdouts: its own increment's rows included.
        own: number of the increment among those that had rows held out; None where it had none.
        decision: of the gate, with the scores of each period among its evidence.
        base: the version that the job began with, if any.
        looks: at older periods while it learned.
    """

    plan: Plan
    learner: Any
    fold: Fold
    holdouts: HoldOuts
    own: int | None
    decision: Decision
    base: Version | None
    looks: Looks

    def record(self, connection: sa.Connection, model: str) -> Json:
        """The record: a row of R with what it takes over from the version before, its figures,
        churn and negative flip rate against that version, and the stability gap. None where there
        are no rows to judge on, or nothing that could be right or wrong."""
        judged = self.decision.evidence.get("periods")
        if not judged:
            return None
        previous, unrecorded = nearest(connection, model, self.base)
        strategy = self.plan.strategy
        record = period_scores(
            self.holdouts.periods,
            judged,
            previous=previous,
            own=self.own,
            untrained=self._untrained(),
            retrained=strategy.start == "scratch" and isinstance(strategy.memory, Everything),
            unrecorded=unrecorded,
        )
        return {
            "base": None if self.base is None else self.base.number,
            **record,
            "figures": {name: figures(record, name) for name in record["metrics"]},
            "churn": churn_of(self.decision.evidence),
            "stability": self.looks.figures(),
            "notes": self._notes(),
        }

    def _notes(self) -> list[str]:
        """What the strategy cannot help against, where classes come one after the other."""
        strategy = self.plan.strategy
        if self.fold.labels is None or type(strategy.retention).__name__ not in ALONE:
            return []
        values = [p.batch.y for p in self.holdouts.periods if p.batch.y is not None]
        said = cannot_help(strategy, class_order(count_classes(values)))
        return [said] if said else []

    def _untrained(self) -> dict[str, float | None]:
        """Scores on the increment of a learner of the same definition that has learned nothing but
        what classes there are."""
        held = next((p for p in self.holdouts.periods if p.last == self.own), None)
        if held is None:
            return {}
        strategy = Strategy(chunk=self.plan.strategy.chunk, seed=self.plan.strategy.seed)
        classes = tuple(self.fold.classes.tolist())
        fresh = Fold.new(self.learner, self.plan.columns, strategy, classes=classes)
        answers = ask(fresh, held.batch)
        if answers.y is None:
            return {}
        means = mean_losses(fresh.kind, answers, np.zeros(1, np.int64))
        return {name: values[0] for name, values in means.items()}


def nearest(connection: sa.Connection, model: str, base: Version | None) -> tuple[Json, bool]:
    """The record of a version or of its nearest ancestor that has one (None without any), and
    whether versions without one came after it: a server that learns online cuts such."""
    if base is None:
        return None, False
    if NAME in base.metrics:
        return base.metrics[NAME], False
    path = lineage(connection, model, base.number)[::-1]
    for start in range(0, len(path), AT_ONCE):
        found = _records(connection, model, path[start : start + AT_ONCE])
        if found:
            return found[max(found)], True
    return None, True


def table(
    connection: sa.Connection, model: str, number: int, metric: str | None = None
) -> dict[str, Any]:
    """What a version knows of each period, and the rows of R of the versions that it came from.

    Args:
        metric: one of the record's; the first of them, a loss, unless given.

    Returns:
        JSON: "version", "base", "metric", "metrics", "greater_is_better", "periods" (score
        "before", "after", "best", "now" and "forgotten" of each), "figures", "churn", "stability",
        "notes", and "matrix": the versions, and R[version, period], None where it was not measured.

    Raises:
        NotFoundError: no such version, or it has no record: nothing was held out, or it was made by
            another release, online, or by a learner without a target.
        InputError: its record has no such metric.
    """
    path = lineage(connection, model, number)
    found = _records(connection, model, path[-ROWS:])
    record = found.get(number)
    if record is None:
        raise NotFoundError(
            f"version {number} of {model!r} has no scores by period: a job keeps them where rows "
            "are held out (Model(holdout=…)) and the learner has a target"
        )
    metrics = record["metrics"]
    metric = metrics[0] if metric is None else metric
    if metric not in metrics:
        raise InputError(
            f"version {number} was not scored by {metric!r}; use one of {', '.join(metrics)}"
        )
    numbers = sorted(n for n, one in found.items() if metric in one["metrics"])
    stability = record["stability"]
    return {
        "version": number,
        "base": record["base"],
        "metric": metric,
        "metrics": metrics,
        "greater_is_better": metric in GREATER_IS_BETTER,
        "periods": [_period(one, metric) for one in record["periods"]],
        "figures": record["figures"][metric],
        "churn": record["churn"],
        "stability": None if stability is None else _stability(stability, metric),
        "notes": record["notes"],
        "matrix": {
            "versions": numbers,
            "scores": _plain(matrix([found[n] for n in numbers], metric).tolist()),
        },
    }


def _period(period: Json, metric: str) -> dict[str, Any]:
    shown = {name: period[name] for name in ("first", "last", "rows", "start", "stop", "learned")}
    return shown | {"new": period["new"], **period[metric], "forgotten": lost(period, metric)}


def _stability(stability: Json, metric: str) -> dict[str, Any]:
    return {
        "rows": stability["rows"],
        "before": stability["before"].get(metric),
        "during": [
            {"learned": one["learned"], "score": one.get(metric)} for one in stability["during"]
        ],
        "gap": stability["gap"].get(metric),
    }


def _records(connection: sa.Connection, model: str, numbers: Sequence[int]) -> dict[int, Json]:
    """Number of a version → its record, of those among these that have one."""
    made = schema.versions.c
    query = sa.select(made.number, made.metrics).where(
        made.model_id == model_id(connection, model), made.number.in_(list(numbers))
    )
    rows = connection.execute(query).all()
    return {row.number: row.metrics[NAME] for row in rows if (row.metrics or {}).get(NAME)}


def _plain(rows: list[list[float]]) -> list[list[float | None]]:
    return [[value if np.isfinite(value) else None for value in row] for row in rows]
