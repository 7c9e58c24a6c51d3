"""Linear models of scikit-learn as a patch sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from everlearn.base import Batch, Floats, LearnerKind, Prediction
from everlearn.learners.answers import of_scores

LOSSES = ("log_loss", "hinge", "squared_hinge", "perceptron")
"""Losses of an SGD classifier of whose scores the answer is made; "modified_huber" is not."""


def is_linear(estimator: Any, kind: LearnerKind) -> bool:
    """Whether it answers by `coef_` and `intercept_` alone."""
    if not hasattr(estimator, "coef_") or not hasattr(estimator, "intercept_"):
        return False
    if kind == "regressor":
        return np.ndim(estimator.coef_) == 1
    return kind == "classifier" and getattr(estimator, "loss", None) in LOSSES


class EditableLinear:
    """A linear model of scikit-learn. Its features are the columns that it gets, and 1.

    Args:
        estimator: which `is_linear`.
        kind: what it is.
        matrix: what makes (n, p) columns for it of a batch.
        classes: how many class codes are known.
    """

    def __init__(
        self, estimator: Any, kind: LearnerKind, matrix: Callable[[Batch], Any], classes: int
    ) -> None:
        self._estimator, self._kind = estimator, kind
        self._matrix, self._classes = matrix, classes

    def activations(self, batch: Batch) -> tuple[Any, Floats]:
        """See `Editable`."""
        matrix = self._matrix(batch)
        scores = np.asarray(matrix @ np.atleast_2d(self._estimator.coef_).T, np.float64)
        scores += self._estimator.intercept_
        ones = np.ones((matrix.shape[0], 1))
        if not hasattr(matrix, "tocsr"):
            return np.hstack([matrix, ones]), scores
        from scipy.sparse import csr_matrix, hstack

        return hstack([csr_matrix(matrix), csr_matrix(ones)], format="csr"), scores

    def answer(self, scores: Floats) -> Prediction:
        """See `Editable`."""
        if self._kind == "regressor":
            return Prediction(value=scores[:, 0])
        return of_scores(self._estimator, scores, self._classes)
