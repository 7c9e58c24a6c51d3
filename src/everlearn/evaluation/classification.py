"""Metrics of a classifier over a stream: sums and counts that are added, merged and saved."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from everlearn.base import Array, Floats, Ints
from everlearn.evaluation.baselines import NoChange, majority
from everlearn.evaluation.loss import EPSILON, true_probability
from everlearn.evaluation.ranking import Ranking

CALIBRATION_BINS = 20
_JOINT_SLOTS = 33  # up to this many, one table of both classes costs least


def _counts(slots: int = 3) -> Ints:
    return np.zeros(slots, np.int64)


def _bins() -> Floats:
    return np.zeros((3, CALIBRATION_BINS))


@dataclass(slots=True)
class Classification:
    """Streaming accuracy, Cohen's kappa, Kappa-Temporal, log loss, Brier score, calibration error,
    ROC AUC and average precision.

    Slot 0 of the counts is for classes that the learner does not know (code −1), slot c + 1 for
    code c. Rows whose probabilities are not finite are counted in `nonfinite`; one of them is
    enough for every metric of probabilities to be None.
    """

    rows: int = 0
    correct: int = 0
    true: Ints = field(default_factory=_counts)
    predicted: Ints = field(default_factory=_counts)
    no_change: NoChange = field(default_factory=NoChange)
    proba_rows: int = 0
    nonfinite: int = 0
    log_loss: float = 0.0
    brier: float = 0.0
    calibration: Floats = field(default_factory=_bins)  # rows, sum of confidence, hits
    ranking: Ranking = field(default_factory=Ranking)

    @property
    def classes(self) -> int:
        return len(self.true) - 1

    def add(self, y: Array, value: Array, proba: Floats | None = None) -> None:
        """Add rows in their order.

        Args:
            y: (n,) class codes, −1 for a class that the learner does not know.
            value: (n,) predicted codes.
            proba: (n, k) class probabilities, or None.
        """
        if not len(y):
            return
        top = int(max(y.max(), value.max())) + 1
        self.grow(max(top, 0 if proba is None else proba.shape[1]))
        self.rows += len(y)
        self._tally(y, value)
        self.no_change.add(y)
        if proba is not None:
            self._add_proba(y, value, proba)

    def grow(self, classes: int) -> None:
        """Make room for more classes; what was counted before stays what it was."""
        more = classes - self.classes
        if more <= 0:
            return
        if self.classes <= 2 < classes:
            self.brier *= 2.0
            self.calibration = _top_label(self.calibration)
        self.true = np.concatenate([self.true, np.zeros(more, np.int64)])
        self.predicted = np.concatenate([self.predicted, np.zeros(more, np.int64)])
        self.ranking.grow(classes)

    def merge(self, later: Classification) -> None:
        """Add the rows of another one, which came after these."""
        copy = Classification.load(*later.save())
        classes = max(self.classes, copy.classes)
        self.grow(classes)
        copy.grow(classes)
        self.rows += copy.rows
        self.correct += copy.correct
        self.true += copy.true
        self.predicted += copy.predicted
        self.no_change.merge(copy.no_change)
        self.proba_rows += copy.proba_rows
        self.nonfinite += copy.nonfinite
        self.log_loss += copy.log_loss
        self.brier += copy.brier
        self.calibration += copy.calibration
        self.ranking.merge(copy.ranking)

    def results(self, positive: int = 1) -> dict[str, Any]:
        """Every metric by name; None where it is not defined.

        Args:
            positive: code of the positive class of two, for the average precision.
        """
        n = self.rows
        found: dict[str, Any] = {"rows": n}
        found["accuracy"] = self.correct / n if n else None
        found["kappa"] = self._kappa()
        found["kappa_temporal"] = self._kappa_temporal()
        usable = n > 0 and self.proba_rows == n and self.nonfinite == 0
        areas = self.ranking.areas(positive) if usable else None
        found["log_loss"] = self.log_loss / n if usable else None
        found["roc_auc"] = areas.roc if areas else None
        found["pr_auc"] = areas.pr if areas else None
        found["brier"] = self.brier / n if usable else None
        found["calibration_error"] = self._calibration_error() if usable else None
        found["roc_auc_error"] = areas.roc_error if areas else None
        found["pr_auc_error"] = areas.pr_error if areas else None
        if self.nonfinite:
            found["nonfinite"] = self.nonfinite
        counts = self.true[1:] if self.true[0] == 0 else self.true
        found["baselines"] = {
            "majority": majority(counts),
            "no_change": {"accuracy": self.no_change.accuracy},
        }
        return found

    def save(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays and JSON from which `load` makes the same one."""
        arrays, ranking = self.ranking.save()
        arrays = {f"ranking.{name}": array for name, array in arrays.items()}
        arrays |= {
            "true": self.true.copy(),
            "predicted": self.predicted.copy(),
            "calibration": self.calibration.copy(),
            "sums": np.array([self.log_loss, self.brier]),
        }
        names = ("rows", "correct", "proba_rows", "nonfinite")
        meta = {name: getattr(self, name) for name in names}
        return arrays, meta | {"no_change": asdict(self.no_change), "ranking": ranking}

    @classmethod
    def load(cls, arrays: dict[str, Array], meta: dict[str, Any]) -> Self:
        """The one that `save` saw."""
        start = len("ranking.")
        ranks = {name[start:]: a for name, a in arrays.items() if name.startswith("ranking.")}
        return cls(
            rows=meta["rows"],
            correct=meta["correct"],
            proba_rows=meta["proba_rows"],
            nonfinite=meta["nonfinite"],
            true=arrays["true"].copy(),
            predicted=arrays["predicted"].copy(),
            calibration=arrays["calibration"].copy(),
            log_loss=float(arrays["sums"][0]),
            brier=float(arrays["sums"][1]),
            no_change=NoChange(**meta["no_change"]),
            ranking=Ranking.load(ranks, meta["ranking"]),
        )

    def _tally(self, y: Array, value: Array) -> None:
        slots = len(self.true)
        if slots > _JOINT_SLOTS:
            self.correct += int(np.count_nonzero(y == value))
            self.true += np.bincount(y + 1, minlength=slots)
            self.predicted += np.bincount(value + 1, minlength=slots)
            return
        joint = np.bincount(y * slots + (value + (slots + 1)), minlength=slots * slots)
        table = joint.reshape(slots, slots)
        self.correct += int(np.trace(table)) - int(table[0, 0])
        self.true += table.sum(axis=1)
        self.predicted += table.sum(axis=0)

    def _add_proba(self, y: Array, value: Array, proba: Floats) -> None:
        self.proba_rows += len(y)
        with np.errstate(invalid="ignore"):
            finite = bool(np.isfinite(proba.sum()))
        if not finite:
            good = np.isfinite(proba).all(axis=1)
            self.nonfinite += int(np.count_nonzero(~good))
            y, value, proba = y[good], value[good], proba[good]
        if proba.shape[1] < 2:
            proba = np.concatenate([proba, np.zeros((len(proba), 1))], axis=1)
        chance = true_probability(y, proba)
        self.log_loss -= float(np.log(np.maximum(chance, EPSILON)).sum())
        if self.classes <= 2:
            self.brier += float(((1.0 - chance) ** 2).sum())
            sure, hit = np.ascontiguousarray(proba[:, 1]), y == 1
        else:
            sure, hit = proba[np.arange(len(y)), np.maximum(value, 0)], y == value
            self.brier += float(np.einsum("ij,ij->", proba, proba) + np.sum(1.0 - 2.0 * chance))
        self._calibrate(sure, hit)
        if self.true[0]:
            y, proba = y[y >= 0], proba[y >= 0]
        self.ranking.add(y, proba)

    def _calibrate(self, sure: Floats, hit: Array) -> None:
        bins = CALIBRATION_BINS
        place = np.minimum((sure * bins).astype(np.intp), bins - 1)
        misses, hits = np.bincount(place + bins * hit, minlength=2 * bins).reshape(2, bins)
        self.calibration[0] += misses + hits
        self.calibration[1] += np.bincount(place, weights=sure, minlength=bins)
        self.calibration[2] += hits

    def _calibration_error(self) -> float:
        """Expected calibration error (Guo et al. 2017, eq. 3) over 20 bins of equal width: of the
        probability of code 1 for up to two classes, else of the predicted class."""
        _, sure, hits = self.calibration
        return float(np.abs(sure - hits).sum() / self.rows)

    def _kappa(self) -> float | None:
        """Cohen 1960: (p₀ − p_e)/(1 − p_e), with p_e from both marginals."""
        n = self.rows
        expected = int(self.true @ self.predicted)
        if n == 0 or expected == n * n:
            return None
        return (self.correct * n - expected) / (n * n - expected)

    def _kappa_temporal(self) -> float | None:
        """Bifet et al. 2015: (p₀ − p′)/(1 − p′), with p′ the accuracy of the no-change answer."""
        still = self.no_change.accuracy
        if still is None or still == 1.0:
            return None
        return (self.correct / self.rows - still) / (1.0 - still)


def _top_label(calibration: Floats) -> Floats:
    """Bins of the probability of code 1 as bins of the confidence in the more likely class."""
    half = CALIBRATION_BINS // 2
    rows, sure, hits = (part[:half] for part in calibration)
    folded = calibration.copy()
    folded[:, :half] = 0.0
    folded[:, half:] += np.stack([rows, rows - sure, rows - hits])[:, ::-1]
    return folded
