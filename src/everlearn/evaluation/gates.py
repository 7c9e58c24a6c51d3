"""Gates: whether a candidate is good enough to be served. When in doubt, it is not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from everlearn.base import Array, Columns, Decision, InputError, LearnerKind, SpecError, State
from everlearn.evaluation.comparison import Comparison
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.loss import CLASSIFIER_METRICS, GREATER_IS_BETTER, REGRESSOR_METRICS
from everlearn.evaluation.slices import Slice
from everlearn.evaluation.trial import Gate, Scorer, Trial, hold_trial

PASS, REFUSE = "pass", "refuse"

FEWEST_OF_A_CLASS = 10
"""Rows of either class that a ROC AUC is judged on at least: its variance comes from both, and that
of a few rows says nothing."""

METRICS = {
    "classifier": CLASSIFIER_METRICS,
    "regressor": REGRESSOR_METRICS,
    "transformer": ("reconstruction_error",),
    "clusterer": (),
}


@dataclass(frozen=True, slots=True)
class NonInferior:
    """Passes a candidate that is surely not worse than the champion by more than a margin.

    The candidate and the champion answer the same hold-out rows. The one-sided bound of the mean
    difference of their losses (paired, in closed form, over groups of rows that depend on each
    other; see `intervals`) must not exceed the margin: on the recent rows always, on the historical
    ones if a margin for them is given, and on every named slice of all rows. A first version has
    no champion, and must not be below the best constant answer (the majority class or the mean);
    for a transformer there is none, and finite answers suffice. Answers that are not finite, and
    too few rows (for "roc_auc" fewer than 10 of either class), refuse.

    Args:
        metric: "log_loss", "accuracy", "brier" or "roc_auc" (of two classes) for a classifier;
            "mae", "rmse" or "mse" for a regressor; "reconstruction_error" for a transformer.
        margin: how much worse the candidate may be on recent rows, in the metric's unit.
        historical: the same for historical rows; None reports them only. While there are fewer
            than `minimum` of them, all rows are judged by this margin instead.
        slices: named slices, each judged by `margin`.
        level: confidence of the bound.
        minimum: fewest rows to judge on.

    Example:
        >>> NonInferior("log_loss", margin=0.01).metric
        'log_loss'

    Raises:
        SpecError: another metric, or a figure that cannot be.
    """

    metric: str
    margin: float = 0.01
    historical: float | None = None
    slices: tuple[Slice, ...] = ()
    level: float = 0.95
    minimum: int = 30

    def __post_init__(self) -> None:
        allowed = [name for names in METRICS.values() for name in names]
        if self.metric not in allowed:
            raise SpecError(
                f"NonInferior compares row by row, which {self.metric!r} does not allow; use one "
                f"of {', '.join(allowed)}"
            )
        for name, value in (("margin", self.margin), ("historical", self.historical)):
            if value is not None and not (0.0 <= value < math.inf):
                raise SpecError(f"NonInferior({name}=) is a finite number from 0 on, not {value!r}")
        if not 0.5 < self.level < 1.0:
            raise SpecError(f"NonInferior(level=) is between 0.5 and 1, not {self.level!r}")
        if self.minimum < 2:
            raise SpecError(f"NonInferior(minimum=) is 2 or more, not {self.minimum!r}")
        object.__setattr__(self, "slices", tuple(self.slices))
        for item in self.slices:
            if not isinstance(item, Slice):
                raise SpecError(f"NonInferior(slices=) takes everlearn.Slice objects, not {item!r}")

    def check(self, kind: LearnerKind) -> None:
        """Refuse beforehand to judge a kind of learner that has no such metric.

        Raises:
            SpecError: naming the metrics that there are for it.
        """
        allowed = METRICS.get(kind, ())
        if self.metric not in allowed:
            hint = f"use one of {', '.join(allowed)}" if allowed else "no gate can, leave it out"
            raise SpecError(f"NonInferior({self.metric!r}) cannot judge a {kind}: {hint}")

    def decide(self, trial: Trial) -> Decision:
        """Judge a candidate by the answers of a trial.

        Returns:
            "pass" or "refuse"; the evidence has every check with its figures.
        """
        if self.metric not in METRICS.get(trial.kind, ()):
            allowed = ", ".join(METRICS.get(trial.kind, ())) or "no gate"
            reason = f"{self.metric} cannot judge a {trial.kind}, for which there is {allowed}"
            return Decision(REFUSE, reason, self._evidence([]))
        checks: list[dict[str, Any]] = []
        for name, rows, margin in self._parts(trial):
            checks.append(self._check(trial, name, rows, margin))
        failed = [check for check in checks if not check["passed"]]
        action = REFUSE if failed else PASS
        reason = "; ".join(check["reason"] for check in failed or checks)
        return Decision(action, reason, self._evidence(checks))

    def _evidence(self, checks: list[dict[str, Any]]) -> dict[str, Any]:
        return {"metric": self.metric, "level": self.level, "checks": checks}

    def _parts(self, trial: Trial) -> list[tuple[str, slice | Array | str, float]]:
        """What is judged: (name, rows or why there are none, margin)."""
        parts: list[tuple[str, slice | Array | str, float]] = [
            ("recent", trial.recent, self.margin)
        ]
        if self.historical is not None and trial.champion is not None:
            if trial.historical >= self.minimum:
                parts.append(("historical", slice(0, trial.historical), self.historical))
            else:
                parts.append(("recent and historical", slice(0, len(trial)), self.historical))
        if trial.champion is not None:
            parts += [(item.name, self._slice(trial, item), self.margin) for item in self.slices]
        return parts

    def _slice(self, trial: Trial, item: Slice) -> Array | str:
        if trial.batch is None or trial.columns is None:
            return "there are no rows, or the names of their columns are not known"
        try:
            return np.flatnonzero(item.mask(trial.batch, trial.columns))
        except SpecError as error:
            return str(error)

    def _check(
        self, trial: Trial, name: str, rows: slice | Array | str, margin: float
    ) -> dict[str, Any]:
        """One check: {"on", "passed", "reason", "margin"} and the figures of the comparison."""
        check: dict[str, Any] = {"on": name, "passed": False, "margin": margin}
        if isinstance(rows, str):
            return check | {"reason": rows}
        count = len(range(*rows.indices(len(trial)))) if isinstance(rows, slice) else len(rows)
        reason = self._too_few(trial, name, rows, count)
        broken = not_finite(trial, rows)
        if broken and not reason:
            reason = f"{broken} on {name} hold-out rows"
        if reason:
            return check | {"reason": reason, "rows": count}
        if trial.champion is None and trial.kind == "transformer":
            reason = f"first version: the answers for {count} {name} rows are finite"
            return check | {"passed": True, "reason": reason, "rows": count}
        try:
            found = trial.compare(self.metric, rows, level=self.level)
        except InputError as error:
            return check | {"reason": str(error), "rows": count}
        first = trial.champion is None
        passed = found.worse.mean <= 1e-12 if first else found.worse.high <= margin
        tell = self._tell_first if first else self._tell
        reason = tell(name, found, margin, passed)
        return check | found.to_json() | {"passed": passed, "reason": reason}

    def _too_few(self, trial: Trial, name: str, rows: slice | Array, count: int) -> str:
        """Why there are not enough rows to judge on, in words; empty if there are."""
        advice = "learn from more rows at a time or keep a larger share out of learning"
        if count < self.minimum:
            return (
                f"{count} {name} hold-out rows are too few to judge on ({self.minimum} are "
                f"needed): {advice}"
            )
        if self.metric == "roc_auc" and trial.candidate and trial.candidate.y is not None:
            positive = int(np.count_nonzero(trial.candidate.y[rows] == 1))
            rarer = min(positive, count - positive)
            if rarer < FEWEST_OF_A_CLASS:
                return (
                    f"{rarer} {name} hold-out rows of the rarer class are too few to judge roc_auc "
                    f"on ({FEWEST_OF_A_CLASS} are needed): {advice}"
                )
        return ""

    def _tell(self, name: str, found: Comparison, margin: float, passed: bool) -> str:
        bound = found.worse.high
        if bound < 0:
            verdict = f"better by at least {-bound:.4g}"
        elif bound == 0:
            verdict = "no worse"
        else:
            verdict = f"worse by at most {bound:.4g}"
        limit = f"within the margin of {margin:g}" if passed else f"and the margin is {margin:g}"
        return (
            f"{self.metric} on {found.rows} {name} rows is {found.candidate:.4f} against the "
            f"champion's {found.champion:.4f}, {verdict} with {self.level:.0%} confidence, {limit}"
        )

    def _tell_first(self, name: str, found: Comparison, margin: float, passed: bool) -> str:
        best = "not worse than" if passed else "worse than"
        sign = "higher" if self.metric in GREATER_IS_BETTER else "lower"
        return (
            f"first version: {self.metric} on {found.rows} {name} rows is {found.candidate:.4f}, "
            f"{best} the best constant answer's {found.champion:.4f} ({sign} is better)"
        )


def not_finite(trial: Trial, rows: slice | Array) -> str:
    """Which model's answers for these rows are not finite, in words; empty if all are."""
    for who, answers in (("candidate", trial.candidate), ("champion", trial.champion)):
        if answers is not None and not answers.take(rows).is_finite():
            return f"the {who} gives answers that are not finite"
    return ""


def parts_not_finite(state: State, prefix: str = "learner") -> list[str]:
    """Names of the parts below a prefix whose numbers are not all finite: a learner that diverged.

    Args:
        state: of a fold.
        prefix: which parts; remembered rows may rightly have missing values.
    """
    names = [name for name in sorted(state) if name == prefix or name.startswith(prefix + "/")]
    return [
        name
        for name in names
        if any(
            array.dtype.kind == "f" and not np.isfinite(array).all()
            for array in state[name].arrays.values()
        )
    ]


def try_candidate(
    candidate: Scorer,
    champion: Scorer | None,
    holdouts: HoldOuts,
    gate: Gate | None = None,
    *,
    columns: Columns | None = None,
) -> Decision:
    """Decide whether a candidate is good enough, with all figures about it as evidence.

    Args:
        candidate: the model that was just learned.
        champion: the model that is served, or None.
        holdouts: rows kept out of learning, the present increment's included.
        gate: decides; None passes every candidate whose answers are finite.
        columns: names of the columns, for slices; by default the candidate's `columns`.

    Returns:
        The gate's decision. Its evidence also has metrics of both models and the baselines on
        recent and historical rows, churn and negative flip rate, and a few metrics per period.
    """
    trial = hold_trial(candidate, champion, holdouts, columns)
    decision = gate.decide(trial) if gate is not None else _finite(trial)
    return Decision(decision.action, decision.reason, trial.evidence() | dict(decision.evidence))


def _finite(trial: Trial) -> Decision:
    """The rule where there is no gate: every candidate passes whose answers are finite."""
    if trial.candidate is None:
        return Decision(PASS, "there is no gate, and there are no hold-out rows to look at")
    if not trial.candidate.is_finite():
        return Decision(REFUSE, "the candidate gives answers that are not finite on hold-out rows")
    return Decision(PASS, f"there is no gate; answers for {len(trial)} hold-out rows are finite")
