"""Native trees and forests as a patch sees them: the leaves that a row reaches, and its numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from everlearn.base import Batch, Floats, Ints, Prediction
from everlearn.learners.native.adaptive_random_forest import (
    RIGHT,
    SEEN,
    AdaptiveRandomForestClassifier,
)
from everlearn.learners.native.classifier import Classifier
from everlearn.learners.native.compile import inlined, kernel
from everlearn.learners.native.estimator import Native
from everlearn.learners.native.hoeffding_tree import HoeffdingTreeClassifier
from everlearn.learners.native.hoeffding_tree_regressor import HoeffdingTreeRegressor
from everlearn.learners.native.rows import Rows
from everlearn.learners.native.tree.nodes import Nodes, features, leaf_of

STRIDE = 2**32
"""Features of each tree: more than it can have nodes, so that one that grows keeps its places."""

SINGLE = (HoeffdingTreeClassifier, HoeffdingTreeRegressor)


def has_leaves(estimator: Native) -> bool:
    """Whether it answers by the mean of what the leaves of its trees say."""
    return type(estimator) in (*SINGLE, AdaptiveRandomForestClassifier)


class EditableLeaves:
    """A tree or a forest. Its features are its nodes (the share of a tree's vote for the leaf that
    a row reaches, 0 for all others), and the row's numbers: where little was learned there are few
    leaves, and rows of different classes reach the same ones. Its scores are probabilities, or
    values.

    Args:
        estimator: which `has_leaves`.
        rows: what makes rows for a kernel of a batch.
        of_codes: what makes a prediction of probabilities.
        classes: how many class codes are known.
    """

    def __init__(
        self,
        estimator: Any,
        rows: Callable[[Batch], Rows],
        of_codes: Callable[[Floats], Prediction],
        classes: int,
    ) -> None:
        self._estimator, self._rows, self._of_codes = estimator, rows, of_codes
        self._classes = classes

    def activations(self, batch: Batch) -> tuple[Any, Floats]:
        """See `Editable`."""
        from scipy.sparse import csr_array

        rows = self._rows(batch)
        if isinstance(self._estimator, Classifier):
            scores = self._estimator.predict_codes(rows, self._classes)[:, : self._classes]
        else:
            scores = self._estimator.predict_values(rows)[:, None]
        trees, shares = self._trees()
        x, n, count = features(rows), len(batch), len(trees)
        numbers = np.nan_to_num(rows.dense(), nan=0.0, posinf=0.0, neginf=0.0)
        leaves = np.empty((n, count), np.int64)
        for number, nodes in enumerate(trees):
            reached(*nodes, x, leaves[:, number])
        own = STRIDE * count + np.arange(numbers.shape[1])
        nodes_of = leaves + STRIDE * np.arange(count)
        columns = np.hstack([nodes_of, np.broadcast_to(own, numbers.shape)])
        values = np.hstack([np.broadcast_to(shares, (n, count)), numbers])
        starts = np.arange(n + 1) * columns.shape[1]
        width = STRIDE * count + len(own)
        return csr_array((values.ravel(), columns.ravel(), starts), shape=(n, width)), scores

    def answer(self, scores: Floats) -> Prediction:
        """See `Editable`."""
        if not isinstance(self._estimator, Classifier):
            return Prediction(value=scores[:, 0])
        chances = np.maximum(scores, 0.0)
        return self._of_codes(chances / chances.sum(axis=1, keepdims=True))

    def _trees(self) -> tuple[list[Nodes], Floats]:
        """(the trees, the share of each in the answer)."""
        if isinstance(self._estimator, SINGLE):
            return [self._estimator._tree.nodes], np.ones(1)
        members, k = self._estimator._members, self._estimator._outputs()
        right = np.array([member.tallies[RIGHT] + 1.0 for member in members])
        weight = right / np.array([member.tallies[SEEN] + k for member in members])
        return [member.tree.nodes for member in members], weight / weight.sum()


@kernel
def reached(links: Ints, cuts: Floats, owners: Ints, used: Ints, x: Floats, out: Ints) -> None:
    """Fill (n,) the leaf of a tree that each (p + q,) row of x reaches."""
    _reach_all(links, cuts, owners, used, x, out)


@inlined
def _reach_all(links: Ints, cuts: Floats, owners: Ints, used: Ints, x: Floats, out: Ints) -> None:
    nodes = Nodes(links, cuts, owners, used)
    for i in range(len(x)):
        out[i] = leaf_of(nodes, x[i])
