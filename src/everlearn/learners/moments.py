"""Running count, mean and spread of columns."""

from __future__ import annotations

import numpy as np

from everlearn.base import Array, Floats

LARGEST = 1e145
"""Values are limited to ± this before they are squared, so that no sum of squares overflows."""


class Moments:
    """Count, mean and sum of squared deviations of p columns, missing values left out.

    Batches are merged by the pairwise update of Chan, Golub & LeVeque (1983), "Algorithms for
    computing the sample variance", eq. 2.1; within a batch the two-pass formula is used. So the
    spread is never negative, and neither a constant column nor a mean that is huge against the
    spread loses it. `count_`, `mean_` and `m2_` are (p,) float64 and replaced, never written to.

    Args:
        columns: p.
        spread: whether `m2_` is kept; without it an update costs one sum.

    Example:
        >>> moments = Moments(1)
        >>> moments.update(np.array([[1e9 + 1], [1e9 + 3], [np.nan]]))
        >>> moments.count_, moments.mean_ - 1e9, moments.m2_
        (array([2.]), array([2.]), array([2.]))
    """

    def __init__(self, columns: int, *, spread: bool = True) -> None:
        self.count_: Floats = np.zeros(columns)
        self.mean_: Floats = np.zeros(columns)
        self.m2_: Floats | None = np.zeros(columns) if spread else None

    def update(self, values: Floats) -> None:
        """Take (n, p) values in; NaN is missing."""
        rows = len(values)
        if rows == 0 or len(self.count_) == 0:
            return
        if self.m2_ is not None:
            values = np.clip(values, -LARGEST, LARGEST)
        with np.errstate(over="ignore", invalid="ignore"):
            sums = values.sum(axis=0)
        present: Array | None = None
        if not np.isfinite(sums).all():
            values = np.clip(values, -LARGEST, LARGEST)
            present = ~np.isnan(values)
            values = np.where(present, values, 0.0)
            sums = values.sum(axis=0)
        count = np.full(len(sums), float(rows)) if present is None else present.sum(0, dtype=float)
        self._merge(values, present, count, sums / np.maximum(count, 1.0))

    def scale(self) -> Floats:
        """(p,) standard deviations; 1 for a column that is constant but for rounding."""
        if self.m2_ is None:
            return np.ones(len(self.count_))
        count = np.maximum(self.count_, 1.0)
        variance = self.m2_ / count
        rounding = np.finfo(np.float64).eps
        noise = count * rounding * variance + (count * self.mean_ * rounding) ** 2
        return np.where(variance > noise, np.sqrt(variance), 1.0)

    def _merge(self, values: Floats, present: Array | None, count: Floats, mean: Floats) -> None:
        total = self.count_ + count
        share = count / np.maximum(total, 1.0)
        shift = mean - self.mean_
        if self.m2_ is not None:
            apart = values - mean
            if present is not None:
                apart *= present
            inside = np.einsum("ij,ij->j", apart, apart)
            inside -= apart.sum(axis=0) ** 2 / np.maximum(count, 1.0)
            between = shift * shift * (self.count_ * share)
            self.m2_ = self.m2_ + np.maximum(inside, 0.0) + between
        self.mean_ = self.mean_ + shift * share
        self.count_ = total
