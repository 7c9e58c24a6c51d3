"""What learning one period does to others: the transfer matrix and the figures drawn from it.

R[i, j] is the score on period j after learning period i, b[j] that of the untrained model; both
count from 1 in the formulas, from 0 in the arrays. Libraries disagree on these figures (some divide
by T, some leave out the maximum), so each formula stands where it is computed. All of them take
higher scores as better; for a loss, say so, and signs are turned within.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from everlearn.base import Array, Floats, InputError


def average_score(matrix: Floats) -> float | None:
    """ACC = (1/T) Σ_j R[T, j] (Lopez-Paz and Ranzato 2017, eq. 2).

    Args:
        matrix: (T, T) scores R; NaN where not measured.

    Returns:
        None if a score that is needed was not measured, here and in all functions below.
    """
    return _mean(_square(matrix)[-1])


def backward_transfer(matrix: Floats) -> float | None:
    """BWT = 1/(T−1) Σ_{j<T} (R[T, j] − R[j, j]) (Lopez-Paz and Ranzato 2017, eq. 3).

    Below 0: later learning harmed earlier periods. Args as for `average_score`.
    """
    r = _square(matrix)
    return _mean(r[-1, :-1] - np.diagonal(r)[:-1])


def forward_transfer(matrix: Floats, untrained: Floats) -> float | None:
    """FWT = 1/(T−1) Σ_{j=2..T} (R[j−1, j] − b[j]) (Lopez-Paz and Ranzato 2017, eq. 4).

    Args:
        matrix: (T, T) scores R.
        untrained: (T,) scores b of the model before it learned anything.
    """
    r = _square(matrix)
    b = np.asarray(untrained, np.float64)
    if b.shape != (len(r),):
        raise InputError(
            f"{len(r)} untrained scores are needed, one for each period, not {b.shape}"
        )
    return _mean(np.diagonal(r, offset=1) - b[1:])


def forgetting(matrix: Floats) -> float | None:
    """F = 1/(T−1) Σ_{j<T} ( max_{j≤l<T} R[l, j] − R[T, j] ) (Chaudhry et al. 2018, eq. 3).

    The best score since the period was learned, less the last one; the last row is not part of the
    maximum, so F may be negative. Args as for `average_score`.
    """
    r = _square(matrix)
    last = len(r) - 1
    return _mean(np.array([r[j:last, j].max() - r[last, j] for j in range(last)]))


def intransigence(matrix: Floats, joint: Floats) -> float | None:
    """I = (1/T) Σ_j (R_joint[j] − R[j, j]) (Chaudhry et al. 2018, section 3): what was not learned.

    Args:
        matrix: (T, T) scores R.
        joint: (T,) scores on each period of a model that learned periods 1 … j together.
    """
    r = _square(matrix)
    together = np.asarray(joint, np.float64)
    if together.shape != (len(r),):
        raise InputError(
            f"{len(r)} joint scores are needed, one for each period, not {together.shape}"
        )
    return _mean(together - np.diagonal(r))


def stability_gap(before: float, during: Sequence[float] | Array) -> float | None:
    """The score before an update less the worst one during it (De Lange et al. 2022, section 3:
    their min-ACC is the mean over old periods of that worst score).

    Args:
        before: score on old periods before the update began.
        during: scores on them while it was going on.
    """
    seen = np.asarray(during, np.float64)
    if not seen.size:
        return None
    gap = before - float(seen.min())
    return gap if math.isfinite(gap) else None


@dataclass(frozen=True, slots=True)
class Transfer:
    """The figures of a transfer matrix; None where they need what was not measured.

    In the unit of the score. For losses `average_score` is the mean loss, and the other figures
    have their signs turned: forgetting above 0 always means that something was lost.
    """

    periods: int
    average_score: float | None
    backward_transfer: float | None
    forward_transfer: float | None
    forgetting: float | None
    intransigence: float | None

    def to_json(self) -> dict[str, float | int | None]:
        """Figures by name."""
        return asdict(self)


@dataclass(slots=True)
class TransferMatrix:
    """Scores R[i, j] as they are measured, and what follows from them.

    Args:
        greater_is_better: False for losses.

    Example:
        >>> scores = TransferMatrix()
        >>> for i, row in enumerate([[0.9, 0.5], [0.7, 0.8]]):
        ...     for j, score in enumerate(row):
        ...         scores.put(i, j, score)
        >>> round(scores.figures().forgetting, 6)
        0.2
    """

    greater_is_better: bool = True
    _scores: dict[tuple[int, int], float] = field(default_factory=dict)
    _untrained: dict[int, float] = field(default_factory=dict)
    _joint: dict[int, float] = field(default_factory=dict)

    def put(self, learned: int, period: int, score: float) -> None:
        """Record the score on `period` after learning `learned`; both count from 0."""
        self._scores[_index(learned), _index(period)] = float(score)

    def put_untrained(self, period: int, score: float) -> None:
        """Record the score on a period before anything was learned."""
        self._untrained[_index(period)] = float(score)

    def put_joint(self, period: int, score: float) -> None:
        """Record the score on a period of a model that learned all periods up to it together."""
        self._joint[_index(period)] = float(score)

    @property
    def matrix(self) -> Floats:
        """(T, T) scores, NaN where not measured."""
        size = 1 + max((max(place) for place in self._scores), default=-1)
        found = np.full((size, size), np.nan)
        for place, score in self._scores.items():
            found[place] = score
        return found

    def figures(self) -> Transfer:
        """ACC, BWT, FWT, forgetting and intransigence."""
        sign = 1.0 if self.greater_is_better else -1.0
        matrix = sign * self.matrix
        size = len(matrix)
        if size == 0:
            return Transfer(0, None, None, None, None, None)
        untrained = sign * np.array([self._untrained.get(j, math.nan) for j in range(size)])
        joint = sign * np.array([self._joint.get(j, math.nan) for j in range(size)])
        average = average_score(matrix)
        return Transfer(
            periods=size,
            average_score=None if average is None else sign * average,
            backward_transfer=backward_transfer(matrix),
            forward_transfer=forward_transfer(matrix, untrained),
            forgetting=forgetting(matrix),
            intransigence=intransigence(matrix, joint),
        )

    def to_json(self) -> dict[str, Any]:
        """The matrix (None where not measured) and the figures."""
        rows = [[None if math.isnan(x) else float(x) for x in row] for row in self.matrix]
        return {"matrix": rows, **self.figures().to_json()}


def _index(place: int) -> int:
    if place < 0:
        raise InputError(f"periods count from 0, not from {place}")
    return int(place)


def _square(matrix: Floats) -> Floats:
    r = np.asarray(matrix, np.float64)
    if r.ndim != 2 or r.shape[0] != r.shape[1] or not len(r):
        raise InputError(f"a transfer matrix is square, with a row a period, not of {r.shape}")
    return r


def _mean(values: Floats) -> float | None:
    if not values.size:
        return None
    mean = float(values.mean())
    return mean if math.isfinite(mean) else None
