"""A candidate and a champion asked about the same hold-out rows: what every gate decides on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from everlearn.base import (
    Array,
    Batch,
    Columns,
    Decision,
    Floats,
    InputError,
    Ints,
    Prediction,
)
from everlearn.evaluation.churn import churn, value_churn
from everlearn.evaluation.comparison import Comparison, baseline_losses, compare_losses
from everlearn.evaluation.holdouts import HoldOuts, Period
from everlearn.evaluation.intervals import independent_groups
from everlearn.evaluation.loss import absolute, losses, metric_losses
from everlearn.evaluation.metrics import Metrics

_PIECE = 4096  # rows predicted at a time


class Scorer(Protocol):
    """A model that can be asked: a fold, or anything like it."""

    @property
    def kind(self) -> Any:
        """ "classifier", "regressor", "clusterer" or "transformer"."""
        ...

    def predict(self, batch: Batch) -> Prediction:
        """Predict for every row, class codes for a classifier; changes nothing."""
        ...

    def encode(self, y: Array) -> Array:
        """(n,) values of the target as class codes (−1 if unknown), or as they are."""
        ...

    def decode(self, value: Array) -> Array:
        """The inverse of `encode`."""
        ...


class Gate(Protocol):
    """Whether a candidate is good enough."""

    def decide(self, trial: Trial) -> Decision:
        """Action "pass" or "refuse", with a reason for people and the figures."""
        ...


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model answered.

    Args:
        y: (n,) true classes in the model's own codes (−1: unknown to it), or values; None for
            learners without a target.
        prediction: of the same n rows, in the same codes.
        positive: the code of the positive class of two: the last in natural order.
    """

    y: Array | None
    prediction: Prediction
    positive: int = 1

    @property
    def classes(self) -> int:
        proba = self.prediction.proba
        return 0 if proba is None else proba.shape[1]

    def take(self, rows: slice | Array) -> Answers:
        y = None if self.y is None else self.y[rows]
        return Answers(y, self.prediction.take(rows), self.positive)

    def is_finite(self) -> bool:
        """Whether every value and every probability is a number."""
        value, proba = self.prediction.value, self.prediction.proba
        return bool(np.isfinite(value).all()) and (proba is None or bool(np.isfinite(proba).all()))


def ask(scorer: Scorer, batch: Batch) -> Answers:
    """The model's answers for all rows of a batch whose y is in the target's own values."""
    pieces = [scorer.predict(piece) for piece in batch.split(_PIECE)]
    if not pieces:
        pieces = [scorer.predict(batch)]
    y, prediction, positive = batch.y, join_predictions(pieces), 1
    if scorer.kind in ("clusterer", "transformer"):
        y = None
    elif scorer.kind == "classifier" and y is not None:
        y = scorer.encode(y)
        if prediction.proba is not None and prediction.proba.shape[1] == 2:
            zero, one = scorer.decode(np.arange(2)).tolist()
            positive = int(one > zero)
    return Answers(y, prediction, positive)


def join_predictions(pieces: Sequence[Prediction]) -> Prediction:
    """The predictions of consecutive rows as one."""
    if len(pieces) == 1:
        return pieces[0]
    joined: dict[str, Any] = {}
    for name in ("value", "proba", "margin"):
        values = [getattr(piece, name) for piece in pieces]
        lacking = any(value is None for value in values)
        joined[name] = None if lacking else np.concatenate(values)
    return Prediction(**joined)


def evaluate(scorer: Scorer, rows: HoldOuts | Batch) -> dict[str, Any]:
    """Metrics of one model on hold-outs or any other rows, by name, with their baselines.

    Args:
        scorer: the model.
        rows: hold-outs (all their rows) or a batch with y in the target's own values.
    """
    batch = rows
    if isinstance(rows, HoldOuts):
        periods = rows.periods
        if not periods:
            return {"rows": 0, "baselines": {}}
        batch = Batch.concat([period.batch for period in periods])
    assert isinstance(batch, Batch)
    answers = ask(scorer, batch)
    return measure(scorer.kind, answers)


def measure(kind: Any, answers: Answers) -> dict[str, Any]:
    """The metrics of answers, by name, with their baselines."""
    metrics = Metrics(kind)
    metrics.add(answers.y, answers.prediction)
    return metrics.results(positive=answers.positive)


@dataclass(slots=True)
class Trial:
    """Both models' answers for all hold-out rows, the oldest first.

    Args:
        kind: of the candidate.
        batch: the rows, n of them, in order of their periods; None if there are none.
        historical: number of rows that belong to older periods; the others are recent.
        periods: the periods, the oldest first.
        candidate: the candidate's answers.
        champion: the champion's answers; None where there is no champion.
        translation: the champion's class codes in the candidate's (−1: unknown to it).
        columns: what the columns of the rows are, if known.
    """

    kind: str
    batch: Batch | None
    historical: int
    periods: list[Period]
    candidate: Answers | None
    champion: Answers | None = None
    translation: Ints | None = None
    columns: Columns | None = None
    _losses: dict[tuple[str, str], Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return 0 if self.batch is None else len(self.batch)

    @property
    def recent(self) -> slice:
        return slice(self.historical, len(self))

    @property
    def classes(self) -> int:
        """Number of classes that either model knows."""
        return max((a.classes for a in (self.candidate, self.champion) if a), default=0)

    def compare(self, metric: str, rows: slice | Array, *, level: float = 0.95) -> Comparison:
        """Candidate against champion on some rows; against the best constant answer if there is
        no champion.

        Args:
            metric: one that has a loss per row (see `metric_losses`).
            rows: which rows: a slice, a mask or an index array.
            level: confidence with which the candidate is no worse than the interval's upper bound;
                the lower bound holds with the same confidence.

        Raises:
            InputError: no rows, no baseline for this metric, or no probabilities.
            SpecError: the metric has no loss per row.
        """
        if self.batch is None or self.candidate is None:
            raise InputError("there are no hold-out rows to compare on")
        mine = self._loss(metric, self.candidate, "candidate", rows)
        if self.champion is not None:
            theirs = self._loss(metric, self.champion, "champion", rows)
        else:
            theirs = baseline_losses(
                metric, self.kind, self.candidate.take(rows).y, classes=self.classes
            )
        chosen = self.batch.take(rows)
        groups = independent_groups(len(mine), chosen.time, chosen.key)
        return compare_losses(metric, mine, theirs, level=level, groups=groups)

    def _loss(self, metric: str, answers: Answers, who: str, rows: slice | Array) -> Floats:
        """Losses of some rows; those of all rows are computed once."""
        if metric == "roc_auc":
            part = answers.take(rows)
            return _metric_losses(metric, part, self.classes)
        if (who, metric) not in self._losses:
            self._losses[who, metric] = _metric_losses(metric, answers, self.classes)
        return self._losses[who, metric][rows]

    def churn(self, rows: slice | Array) -> dict[str, Any] | None:
        """Churn and negative flip rate against the champion; None without a champion."""
        if self.candidate is None or self.champion is None or self.kind == "clusterer":
            return None
        new, old = self.candidate.take(rows), self.champion.take(rows)
        if self.kind != "classifier":
            return value_churn(old.prediction.value, new.prediction.value).to_json()
        answered = old.prediction.value
        if self.translation is not None:
            answered = self.translation[answered]
        return churn(answered, new.prediction.value, new.y).to_json()

    def evidence(self) -> dict[str, Any]:
        """Every figure: metrics, baselines and churn, recent and historical, and per period."""
        found: dict[str, Any] = {"rows": len(self)}
        if self.candidate is None:
            return found
        found["recent"] = self._figures(self.recent)
        if self.historical:
            found["historical"] = self._figures(slice(0, self.historical))
        if self.kind not in ("clusterer", "transformer"):
            found["periods"] = self._by_period()
        return found

    def _figures(self, rows: slice) -> dict[str, Any]:
        assert self.candidate is not None
        measured = measure(self.kind, self.candidate.take(rows))
        found: dict[str, Any] = {"rows": measured["rows"], "baselines": measured.pop("baselines")}
        found["candidate"] = measured
        if self.champion is not None:
            theirs = measure(self.kind, self.champion.take(rows))
            del theirs["baselines"]
            found["champion"] = theirs
        changed = self.churn(rows)
        return found | {"churn": changed} if changed else found

    def _by_period(self) -> list[dict[str, Any]]:
        """A few metrics per period, for both models, computed for all periods at once."""
        starts = np.cumsum([0, *(len(period) for period in self.periods)])[:-1]
        table: dict[str, dict[str, list[float | None]]] = {}
        for who, answers in (("candidate", self.candidate), ("champion", self.champion)):
            if answers is not None and answers.y is not None:
                table[who] = mean_losses(self.kind, answers, starts)
        found = []
        for place, period in enumerate(self.periods):
            item: dict[str, Any] = {"name": period.name, "rows": len(period)}
            item |= {"start": period.start, "stop": period.stop}
            for who, metrics in table.items():
                item[who] = {name: values[place] for name, values in metrics.items()}
            found.append(item)
        return found


def _metric_losses(metric: str, answers: Answers, classes: int) -> Floats:
    y = answers.y
    if metric == "reconstruction_error":
        return answers.prediction.value.astype(np.float64, copy=False)
    if y is None:
        raise InputError(f"{metric!r} needs a target, and this learner has none")
    return metric_losses(metric, y, answers.prediction, classes=classes)


def mean_losses(kind: str, answers: Answers, starts: Ints) -> dict[str, list[float | None]]:
    """Mean within each period of what is told of it: accuracy and log loss of a classifier, mae and
    mse of a regressor; None where it is not finite. Periods begin at `starts`."""
    y, prediction = answers.y, answers.prediction
    assert y is not None
    if kind == "classifier":
        rows = {"accuracy": (prediction.value == y).astype(np.float64)}
        if prediction.proba is not None:
            rows["log_loss"] = losses(kind, y, prediction)
    else:
        rows = {"mae": absolute(y, prediction), "mse": losses(kind, y, prediction)}
    sizes = np.diff(np.append(starts, len(y)))
    with np.errstate(over="ignore", invalid="ignore"):
        means = {name: np.add.reduceat(value, starts) / sizes for name, value in rows.items()}
    return {
        name: [float(x) if np.isfinite(x) else None for x in values]
        for name, values in means.items()
    }


def hold_trial(
    candidate: Scorer,
    champion: Scorer | None,
    holdouts: HoldOuts,
    columns: Columns | None = None,
) -> Trial:
    """Ask both models about all hold-out rows.

    Args:
        candidate: the model that was just learned.
        champion: the model that is served, or None.
        holdouts: the rows, the present increment's included.
        columns: the columns of the rows; by default the candidate's own attribute of that name.
    """
    historical, recent = holdouts.split()
    periods = [*historical, *recent]
    columns = columns or getattr(candidate, "columns", None)
    if not periods:
        return Trial(candidate.kind, None, 0, [], None, columns=columns)
    batch = Batch.concat([period.batch for period in periods])
    trial = Trial(
        kind=candidate.kind,
        batch=batch,
        historical=sum(len(period) for period in historical),
        periods=periods,
        candidate=ask(candidate, batch),
        columns=columns,
    )
    if champion is not None:
        trial.champion = ask(champion, batch)
        if trial.kind == "classifier":
            trial.translation = _translate(champion, candidate, trial.champion)
    return trial


def _translate(champion: Scorer, candidate: Scorer, answers: Answers) -> Ints:
    """The candidate's code for each of the champion's codes."""
    highest = int(answers.prediction.value.max(initial=-1))
    values = champion.decode(np.arange(max(answers.classes, highest + 1)))
    translated: Ints = candidate.encode(values)
    return translated
