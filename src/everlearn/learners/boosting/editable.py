"""Boosted trees as a patch sees them: the leaves that a row reaches in the newest trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from everlearn.base import Batch, Floats, Ints, Prediction
from everlearn.learners.boosting.forest import Forest, Libraries

TREES = 64
"""Trees whose leaves can be changed, the newest: those before them stay as they are."""

STRIDE = 2**32
"""Features of each tree: more than it has leaves."""


class EditableBoost:
    """Boosted trees. Their features are the leaves that a row reaches, and its numbers; their
    scores are what all trees add up to.

    Args:
        forest, libraries: the trees, and what predicts with them.
        matrix: what makes rows for them of a batch.
        margins: what all trees say of such rows.
        answer: what makes a prediction of that.
    """

    def __init__(
        self,
        forest: Forest,
        libraries: Libraries,
        matrix: Callable[[Batch], Floats],
        margins: Callable[[Floats], Floats],
        answer: Callable[[Floats], Prediction],
    ) -> None:
        self._forest, self._libraries = forest, libraries
        self._matrix, self._margins, self.answer = matrix, margins, answer

    def activations(self, batch: Batch) -> tuple[Any, Floats]:
        """See `Editable`."""
        from scipy.sparse import csr_array

        x = self._matrix(batch)
        numbers = np.nan_to_num(x[:, : batch.numbers.shape[1]], nan=0.0)
        leaves = self._leaves(x)
        count, own = leaves.shape[1], np.arange(numbers.shape[1])
        nodes = leaves + STRIDE * np.arange(count)
        columns = np.hstack([nodes, np.broadcast_to(STRIDE * count + own, numbers.shape)])
        values = np.hstack([np.ones(leaves.shape), numbers])
        starts = np.arange(len(x) + 1) * columns.shape[1]
        width = STRIDE * count + len(own)
        made = csr_array((values.ravel(), columns.ravel(), starts), shape=(len(x), width))
        return made, self._margins(x)

    def _leaves(self, x: Floats) -> Ints:
        """(n, trees) the leaf of each of the newest trees."""
        found = [np.zeros((len(x), 0), np.int64)]
        for block in self._forest.blocks:
            booster = self._forest.booster(block, self._libraries)
            found.append(_leaves(self._libraries(block.outputs), booster, x, block.skip))
        return np.hstack(found)[:, -TREES:]


def _leaves(library: Any, booster: Any, x: Floats, skip: int) -> Ints:
    """(n, trees) the leaf of each tree but those of the first `skip` rounds."""
    if not len(x):
        return np.zeros((0, 0), np.int64)
    if hasattr(booster, "num_boosted_rounds"):  # of XGBoost
        data = library._data(x, np.zeros((len(x), library._outputs)))
        rounds = (skip, booster.num_boosted_rounds())
        made = booster.predict(data, pred_leaf=True, iteration_range=rounds)
    else:
        made = booster.predict(x, start_iteration=skip, num_iteration=-1, pred_leaf=True)
    return np.asarray(made, np.int64).reshape(len(x), -1)
