"""What all native regressors share."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from everlearn.base import Array, Batch, Floats, InputError
from everlearn.learners.native.estimator import Native, blocks, first_learned, target_of
from everlearn.learners.native.rows import Rows, numbers_of, usable


class Regressor(Native):
    """A native learner of quantities. Before it has learned anything, it answers 0."""

    kind = "regressor"
    targeted: ClassVar[bool] = True
    """Whether it learns from a target at all."""

    def predict(self, X: Any) -> Floats:
        """(n_samples,) the value of each row."""
        self._check_names(X, learned=False)
        return self.predict_values(self._rows(X))

    def score_then_learn(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, proba: bool = False
    ) -> Floats:
        """Predict each row, then learn it, before the next is predicted (prequentially).

        Args:
            X, y, sample_weight: as for `partial_fit`.
            proba: False; a quantity has no probabilities.

        Returns:
            (n_samples,) values.
        """
        if proba:
            raise AttributeError(f"{self!r} has no probabilities")
        return self._taught(X, y, sample_weight, score=True)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of the variance that is explained, R²."""
        y = np.asarray(y, np.float64)
        mean = np.average(y, weights=sample_weight)
        apart = np.average((y - mean) ** 2, weights=sample_weight)
        left = np.average((y - self.predict(X)) ** 2, weights=sample_weight)
        return float(1.0 - left / apart) if apart else 0.0

    def predict_values(self, rows: Rows) -> Floats:
        """(n,) values."""
        out = np.zeros((len(rows), 1))
        if self._shape is not None and self._learned:
            for start, stop in blocks(len(rows)):
                self._predict(rows.part(start, stop), out[start:stop])
        return out[:, 0]

    def learn_values(self, rows: Rows, y: Floats, weight: Floats, score: int) -> Floats:
        """Learn rows; (score,) what was predicted before each of the first rows."""
        if self._shape is None:
            self._start(self._shape_of(rows, 1), self.seed or 0)
        out = np.zeros((min(score, len(rows)), 1))
        unlearned = first_learned(weight, len(rows)) if self._learned == 0 else 0
        self._run(rows, y, weight, out)
        out[:unlearned] = 0.0
        return out[:, 0]

    def _taught(self, X: Any, y: Any, sample_weight: Any, score: bool) -> Floats:
        if isinstance(X, Batch):
            y, sample_weight = X.y, X.weight
        self._check_names(X, learned=True)
        rows = self._rows(X)
        values = np.empty(0)
        if self.targeted:
            values = finite(target_of(y, len(rows)))
        weight = self._weights(sample_weight, len(rows))
        return self.learn_values(rows, values, weight, len(rows) if score else 0)


def finite(y: Array) -> Floats:
    """The targets of a regressor as float64, checked."""
    values = usable(numbers_of(y, "the target"), np.float64)
    if not np.isfinite(values).all():
        raise InputError("the target is NaN or infinite in some row; set such rows aside")
    return values
