"""Stochastic gradient descent that needs no tuning and never stops following its data."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.linear_model import SGDClassifier, SGDRegressor

from everlearn.base import Array, Floats
from everlearn.learners.moments import Moments

HORIZON = 100_000
"""Rows after which the step no longer falls."""


class TrackingSGDClassifier(SGDClassifier):  # type: ignore[misc]
    """`SGDClassifier` whose step falls with the square root of the rows learned (as for convex
    losses it should: Zinkevich 2003, "Online convex programming", theorem 1), but not for ever:
    after `HORIZON` rows it stays, so that a change in the data is followed however late it comes.

    Parameters are `SGDClassifier`'s; `learning_rate="invscaling"` and `power_t=0.5` are meant.
    """

    t_: float

    def partial_fit(
        self, X: Any, y: Array, classes: Array | None = None, sample_weight: Floats | None = None
    ) -> Self:
        """Learn (n, p) rows with (n,) classes, as `SGDClassifier` does."""
        self.t_ = min(float(getattr(self, "t_", 1.0)), float(HORIZON))
        super().partial_fit(X, y, classes=classes, sample_weight=sample_weight)
        return self


class TrackingSGDRegressor(SGDRegressor):  # type: ignore[misc]
    """`SGDRegressor` for targets of any offset and scale, whose step stays above 0 as that of
    `TrackingSGDClassifier` does. Its state is `target_`, (3,): the count, mean and sum of squared
    deviations of all targets so far.

    The target is standardised by its running mean and spread. When these move, coefficients are
    rewritten so that no prediction changes. A row's step is limited to the one that would undo its
    whole error (normalised least mean squares: Nagumo & Noda 1967), so that nothing diverges.
    """

    t_: float
    target_: Floats

    def partial_fit(self, X: Any, y: Array, sample_weight: Floats | None = None) -> Self:
        """Learn (n, p) rows with (n,) values, as `SGDRegressor` does."""
        first = not hasattr(self, "target_")
        before = _moments(np.zeros(3) if first else self.target_)
        after = _moments(np.zeros(3) if first else self.target_)
        after.update(np.asarray(y, np.float64)[:, None])
        self.target_ = np.concatenate([after.count_, after.mean_, _squares(after)])
        offset, scale = after.mean_[0], after.scale()[0]
        if not first:
            ratio = before.scale()[0] / scale
            self.coef_ *= ratio
            self.intercept_ *= ratio
            self.intercept_ += (before.mean_[0] - offset) / scale
            self.t_ = min(float(self.t_), float(HORIZON))
        weight = self._limits(X)
        if sample_weight is not None:
            weight = weight * sample_weight
        super().partial_fit(X, (y - offset) / scale, sample_weight=weight)
        return self

    def predict(self, X: Any) -> Floats:
        """(n,) values for (n, p) rows."""
        moments = _moments(self.target_)
        values: Floats = super().predict(X) * moments.scale()[0] + moments.mean_[0]
        return values

    def _limits(self, X: Any) -> Floats:
        """(n,) shares of the present step that the rows' lengths allow: 1 for all but long ones."""
        squared = X.multiply(X).sum(axis=1) if hasattr(X, "multiply") else (X * X).sum(axis=1)
        step = float(self.eta0 / getattr(self, "t_", 1.0) ** self.power_t)
        length = np.asarray(squared, np.float64).ravel() + 1.0
        shares: Floats = 1.0 / np.maximum(1.0, step * length)
        return shares


def _moments(kept: Floats) -> Moments:
    """Running moments of one column out of (3,) count, mean and sum of squared deviations."""
    moments = Moments(1)
    moments.count_, moments.mean_, moments.m2_ = kept[0:1], kept[1:2], kept[2:3]
    return moments


def _squares(moments: Moments) -> Floats:
    return np.zeros(1) if moments.m2_ is None else moments.m2_
