"""ROC AUC and average precision over a stream, exact for few rows, by fixed bins for many.

A score's bin is the top of its float32 bits, of p below one half and of 1 − p above: bins are
narrow, in relative terms, at both ends, where rare classes have their scores. The counts of the
bins bound the error of both areas, and the bound is reported beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from everlearn.base import Array, Floats, Ints

EXACT_ROWS = 20_000
EXACT_CELLS = 200_000
MOST_CLASSES = 100
"""With more classes than this there is no ranking: it would cost more than learning."""

_FLOOR = (127 - 32) << 23  # float32 bits of 2⁻³²; what is below shares one bin
_HALF = 126 << 23  # float32 bits of ½


def _bits(classes: int) -> int:
    """Bits of mantissa in a bin: 8 for two classes (2 · 7,937 bins), fewer for more."""
    if classes <= 2:
        return 8
    return 5 if classes <= 16 else 3


def bin_count(bits: int) -> int:
    """Number of bins on each side of one half with `bits` bits of mantissa."""
    return ((_HALF - _FLOOR) >> (23 - bits)) + 1


def bin_of(scores: Floats, bits: int) -> Ints:
    """(n,) bins of scores in [0, 1]: d up to one half and `bin_count` + d above, where d grows with
    the distance from the nearer end. Two scores in one bin have none of another bin between them.
    """
    rest = 1.0 - scores
    near = np.minimum(scores, rest).astype(np.float32).view(np.int32)
    np.maximum(near, _FLOOR, out=near)
    near -= _FLOOR
    near >>= 23 - bits
    index = (scores > rest) * np.int64(bin_count(bits))
    index += near
    return index


def rising(histogram: Ints) -> Ints:
    """The histogram (…, 2, bins) as (…, 2·bins), its bins in order of rising score."""
    return np.concatenate([histogram[..., 0, :], histogram[..., 1, ::-1]], axis=-1)


def _coarser(histogram: Ints, bits: int, to: int) -> Ints:
    """The histogram (…, bins) with fewer bits of mantissa: neighbouring bins are joined."""
    starts = np.arange(bin_count(to)) << (bits - to)
    joined: Ints = np.add.reduceat(histogram, starts, axis=-1)
    return joined


@dataclass(slots=True)
class Areas:
    """Areas under curves; None where they are not defined. Errors are bounds, 0 when exact."""

    roc: float | None = None
    roc_error: float | None = None
    pr: float | None = None
    pr_error: float | None = None


@dataclass(slots=True)
class Ranking:
    """What is kept of scores so that areas can be had at any time. Memory is bounded.

    Up to 20,000 rows (200,000 probabilities) are kept as they are, later ones are counted in bins.
    Rows of a class that the learner does not know are not ranked. A class that appears later had
    probability 0 before.
    """

    classes: int = 2
    rows: int = 0
    _y: list[Array] = field(default_factory=list)
    _proba: list[Floats] = field(default_factory=list)
    _counts: Ints | None = None  # (m, negative or positive, below or above ½, bins); m = 1 (code 1)
    # for two classes, else one for each

    def add(self, y: Array, proba: Floats) -> None:
        """Add n rows: y (n,) codes ≥ 0, proba (n, k) finite."""
        self.grow(proba.shape[1])
        if self.classes > MOST_CLASSES:
            self.rows += len(y)
            return
        if self._counts is None:
            self._y.append(y.copy())
            self._proba.append(proba.copy())
        else:
            self._count(y, proba)
        self.rows += len(y)
        self._bound()

    def grow(self, classes: int) -> None:
        """Make room for more classes."""
        if classes <= self.classes:
            return
        before, self.classes = self.classes, classes
        if classes > MOST_CLASSES:
            self._y, self._proba, self._counts = [], [], None
        elif self._counts is not None:
            self._widen(before)
        self._bound()

    def merge(self, other: Ranking) -> None:
        """Add the rows of another one."""
        self.grow(other.classes)
        if self.classes > MOST_CLASSES:
            self.rows += other.rows
            return
        if other._counts is None:
            for y, proba in zip(other._y, other._proba, strict=True):
                self.add(y, proba)
            return
        theirs = Ranking.load(*other.save())
        theirs.grow(self.classes)
        self._to_counts()
        if self._counts is not None and theirs._counts is not None:
            self._counts = self._counts + theirs._counts
        self.rows += other.rows

    def areas(self, positive: int = 1) -> Areas:
        """Areas for the class `positive` of two, else the mean over classes, one against the rest,
        of those that have both positive and negative rows."""
        if self.rows == 0 or self.classes > MOST_CLASSES:
            return Areas()
        found = [area for area in self._each(positive) if area.roc is not None]
        if not found:
            return Areas()

        def mean(name: str) -> float:
            return float(np.mean([getattr(area, name) for area in found]))

        return Areas(mean("roc"), mean("roc_error"), mean("pr"), mean("pr_error"))

    def save(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays and JSON from which `load` makes the same one."""
        meta = {"classes": self.classes, "rows": self.rows}
        if self._counts is not None:
            where = np.flatnonzero(self._counts)
            return {"bin": where, "count": self._counts.ravel()[where]}, meta
        if not self._y:
            return {}, meta
        y, proba = self._raw()
        return {"y": y, "proba": proba}, meta

    @classmethod
    def load(cls, arrays: dict[str, Array], meta: dict[str, Any]) -> Ranking:
        """The one that `save` saw."""
        made = cls(classes=int(meta["classes"]), rows=int(meta["rows"]))
        if "bin" in arrays:
            made._counts = made._empty()
            made._counts.ravel()[arrays["bin"]] = arrays["count"]
        elif "y" in arrays:
            made._y, made._proba = [arrays["y"]], [arrays["proba"]]
        return made

    def _each(self, positive: int) -> list[Areas]:
        if self._counts is None:
            y, proba = self._raw()
            if self.classes <= 2:
                return [exact_areas(y == positive, proba[:, positive])]
            return [exact_areas(y == code, proba[:, code]) for code in range(self.classes)]
        if self.classes <= 2 and positive == 0:
            negative, positives = rising(self._counts[0])[:, ::-1]
            return [binned_areas(negative, positives)]
        return [binned_areas(counts[1], counts[0]) for counts in rising(self._counts)]

    def _raw(self) -> tuple[Array, Floats]:
        padded = [_padded(proba, self.classes) for proba in self._proba]
        return np.concatenate(self._y), np.concatenate(padded)

    def _bound(self) -> None:
        too_many = self.rows > EXACT_ROWS or self.rows * self.classes > EXACT_CELLS
        if self._counts is None and self._y and too_many:
            self._to_counts()

    def _to_counts(self) -> None:
        if self._counts is not None:
            return
        self._counts = self._empty()
        if self._y:
            y, proba = self._raw()
            self._y, self._proba = [], []
            self._count(y, proba)

    def _empty(self) -> Ints:
        per = 1 if self.classes <= 2 else self.classes
        return np.zeros((per, 2, 2, bin_count(_bits(self.classes))), np.int64)

    def _count(self, y: Array, proba: Floats) -> None:
        counts = self._counts
        if counts is None:
            return
        bits, bins = _bits(self.classes), 2 * counts.shape[3]
        proba = _padded(proba, self.classes)
        for place, code in enumerate([1] if self.classes <= 2 else range(self.classes)):
            index = bin_of(np.ascontiguousarray(proba[:, code]), bits)
            index += bins * (y == code)
            np.add.at(counts[place].reshape(-1), index, 1)  # no other way is as fast

    def _widen(self, before: int) -> None:
        old, bits, to = self._counts, _bits(before), _bits(self.classes)
        if old is None:
            return
        if before <= 2:
            old = np.concatenate([old[:, ::-1, ::-1, :], old])  # code 0: the mirror image of code 1
        if to < bits:
            old = _coarser(old, bits, to)
        wide = self._empty()
        wide[: len(old)] = old
        wide[len(old) :, 0, 0, 0] = self.rows  # never positive, probability 0
        self._counts = wide


def _padded(proba: Floats, classes: int) -> Floats:
    """The probabilities with columns of 0 for the classes that came later."""
    if proba.shape[1] >= classes:
        return proba
    wide = np.zeros((len(proba), classes))
    wide[:, : proba.shape[1]] = proba
    return wide


def exact_areas(positive: Array, scores: Floats) -> Areas:
    """Areas from all scores, equal to scikit-learn's roc_auc_score and average_precision_score.

    Args:
        positive: (n,) True for rows of the positive class.
        scores: (n,) higher means more likely positive.
    """
    total = int(np.count_nonzero(positive))
    if total in (0, len(positive)):
        return Areas()
    order = np.argsort(scores)  # the order among equal scores does not matter
    ordered, hits = scores[order], positive[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    up = np.add.reduceat(hits.astype(np.int64), first)
    size = np.diff(np.append(first, len(scores)))
    roc, _, pr = _areas(*_falling(up, size - up))
    return Areas(roc, 0.0, pr, 0.0)


def binned_areas(positive: Ints, negative: Ints) -> Areas:
    """Areas from counts by bin of rising score, with bounds on what the bins hide.

    ROC AUC lies within ½ Σ_b p_b·n_b / (P·N) of the value in which a bin is a tie. Average
    precision lies between the cases that each bin has its negatives first, or its positives.

    Args:
        positive: (b,) rows of the positive class in each bin.
        negative: (b,) rows of other classes.
    """
    p, n = _falling(positive, negative)
    total_p, total_n = p.sum(), n.sum()
    if total_p == 0 or total_n == 0:
        return Areas()
    roc, ties, pr = _areas(p, n)
    true, false = np.cumsum(p), np.cumsum(n)
    low = _ranked(true - p, false, p) / total_p
    high = _ranked(true - p, false - n, p) / total_p
    return Areas(roc, 0.5 * ties, pr, float(max(high - pr, pr - low, 0.0)))


def _falling(positive: Ints, negative: Ints) -> tuple[Floats, Floats]:
    """The counts of the bins that have any, the highest score first."""
    used = (positive + negative) > 0
    return positive[used][::-1].astype(np.float64), negative[used][::-1].astype(np.float64)


def _areas(p: Floats, n: Floats) -> tuple[float, float, float]:
    """ROC AUC with each bin as a tie, the share of pairs that are ties, average precision."""
    true, false = np.cumsum(p), np.cumsum(n)
    total_p, total_n = true[-1], false[-1]
    ties = float(p @ n) / (total_p * total_n)
    roc = float((total_n - false) @ p) / (total_p * total_n) + 0.5 * ties
    return roc, ties, float(p @ (true / (true + false))) / total_p


def _ranked(before: Floats, false: Floats, hits: Floats) -> float:
    """Σ_b Σ_{i=1..p_b} (before + i) / (before + false + i): precision at each positive row."""
    base = before + false
    return float(np.sum(hits - false * (_harmonic(base + hits) - _harmonic(base))))


_HARMONIC = np.concatenate(([0.0], np.cumsum(1.0 / np.arange(1, 256))))


def _harmonic(n: Floats) -> Floats:
    """Harmonic numbers H(n) = 1 + ½ + … + 1/n of whole n ≥ 0, to 1e-12."""
    big = np.maximum(n, 255.0)
    series = np.log(big) + np.euler_gamma + 0.5 / big - 1.0 / (12.0 * big**2) + 1 / (120 * big**4)
    return np.where(n < 256, _HARMONIC[np.minimum(n, 255).astype(np.intp)], series)
