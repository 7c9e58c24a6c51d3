"""Gradients of single rows of a Keras model, averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from everlearn.base import Array
from everlearn.learners.keras_models.back_ends import back_end
from everlearn.learners.keras_models.training import KerasTraining

NUMBERS = 20_000_000
"""Of gradients that are held at once."""

OfRow = Callable[[Any, Any], Any]
"""((1, k) answers to a row, its target) → a number, of which the gradient is taken."""


class RowGradients:
    """The mean, over rows, of |gradient| or of its square, for each weight; the model answers as it
    does when it predicts.

    Args:
        training: of the model.
        of_row: what the gradient is of.
        power: 1 for |gradient|, 2 for its square.
    """

    def __init__(self, training: KerasTraining, of_row: OfRow, power: Literal[1, 2]) -> None:
        self._training, self._steps = training, back_end()
        self._sums = self._steps.sums_over_rows(training.model, training.weights, of_row, power)

    def mean(self, x: Array, y: Array | None = None) -> dict[str, Array]:
        """Of (n, width) rows and their (n,) targets, by the weights' names."""
        y = np.zeros(len(x), np.int32) if y is None else y
        weights = self._training.weights
        total = [np.zeros(tuple(weight.shape), weight.dtype) for weight in weights]
        rows = max(1, NUMBERS // max(1, sum(array.size for array in total)))
        for start in range(0, len(x), rows):
            found = self._sums(x[start : start + rows], y[start : start + rows])
            total = [old + self._steps.array_of(new) for old, new in zip(total, found, strict=True)]
        named = zip(self._training.moving, total, strict=True)
        return {name: value / max(len(x), 1) for name, value in named}
