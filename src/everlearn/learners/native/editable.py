"""Native linear models and trees as a patch sees them: features, and scores that are linear in
them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from everlearn.base import Batch, Floats, Hashes, Ints, Prediction
from everlearn.learners.editable import Editable
from everlearn.learners.native.compile import inlined, kernel
from everlearn.learners.native.descent.features import read
from everlearn.learners.native.descent.kernels import room_of
from everlearn.learners.native.descent.losses import LOGISTIC, POISSON
from everlearn.learners.native.descent.model import LinearModel
from everlearn.learners.native.descent.moves import score_of
from everlearn.learners.native.descent.state import LOSS, Data, model_of, row_of, views
from everlearn.learners.native.editable_trees import EditableLeaves, has_leaves
from everlearn.learners.native.estimator import Native
from everlearn.learners.native.rows import Rows

ReadRows = Callable[[Batch], Rows]
OfCodes = Callable[[Floats], Prediction]


def editable_native(
    estimator: Native, rows: ReadRows, of_codes: OfCodes, classes: int
) -> Editable | None:
    """How a patch can change a native learner; None where it cannot.

    Args:
        estimator: as it stands.
        rows: what makes rows for a kernel of a batch.
        of_codes: what makes a prediction of probabilities or scores.
        classes: how many class codes are known.
    """
    if estimator._shape is None or not estimator._learned:
        return None
    if isinstance(estimator, LinearModel) and estimator._block[LOSS] != POISSON:
        return EditableLinear(estimator, rows, of_codes)
    if has_leaves(estimator):
        return EditableLeaves(estimator, rows, of_codes, classes)
    return None


class EditableLinear:
    """A linear model. Its features are its standardised numbers, the waves of times and 1, then its
    records: missing numbers and hashed categories."""

    def __init__(self, estimator: LinearModel, rows: ReadRows, of_codes: OfCodes) -> None:
        self._estimator, self._rows, self._of_codes = estimator, rows, of_codes

    def activations(self, batch: Batch) -> tuple[Any, Floats]:
        """See `Editable`."""
        block, table = self._estimator._block, self._estimator._table
        rows, (k, width) = self._rows(batch), views(block, table).weights.shape
        n, most = len(batch), rows.numbers.shape[1] + rows.categories.shape[1]
        ordinary, scores = np.empty((n, width)), np.empty((n, k))
        places, amounts = np.zeros((n, most), np.int64), np.zeros((n, most))
        read_all(
            *(rows.numbers, rows.times, rows.categories, rows.starts, rows.places, rows.values),
            *(block, table, ordinary, places, amounts, scores),
        )
        if not rows.categories.shape[1]:
            missing = np.zeros((n, most))
            np.add.at(missing, (np.arange(n)[:, None], places), amounts)
            return np.hstack([ordinary, missing]), scores
        return _sparse(ordinary, places + width, amounts, width + len(table)), scores

    def answer(self, scores: Floats) -> Prediction:
        """See `Editable`."""
        if self._estimator.kind == "regressor":
            return Prediction(value=scores[:, 0])
        if self._estimator._block[LOSS] != LOGISTIC:
            return self._of_codes(scores)
        if scores.shape[1] == 1:
            with np.errstate(over="ignore"):
                return self._of_codes(1.0 / (1.0 + np.exp(-scores)))
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        return self._of_codes(chances / chances.sum(axis=1, keepdims=True))


def _sparse(ordinary: Floats, places: Ints, amounts: Floats, width: int) -> Any:
    """A CSR matrix of dense columns and of what stands in other places of each row."""
    from scipy.sparse import csr_array

    n, d = ordinary.shape
    columns = np.hstack([np.broadcast_to(np.arange(d), (n, d)), places]).ravel()
    slots = columns.size // max(n, 1)
    starts = np.arange(0, columns.size + 1, max(slots, 1))[: n + 1]
    values = np.hstack([ordinary, amounts]).ravel()
    return csr_array((values, columns, starts), shape=(n, width))


@kernel
def read_all(
    numbers: Floats,
    times: Floats,
    categories: Hashes,
    starts: Ints,
    columns: Ints,
    values: Floats,
    block: Floats,
    table: Floats,
    ordinary: Floats,
    places: Ints,
    amounts: Floats,
    scores: Floats,
) -> None:
    """Fill what a linear model sees of n rows, and what it scores them.

    Args:
        numbers, times, categories, starts, columns, values: the fields of `Rows`.
        block, table: the state.
        ordinary: (n, D) dense columns.
        places, amounts: (n, r) records, and by what they are multiplied; 0 where there are fewer.
        scores: (n, k).
    """
    data = Data(numbers, times, categories, starts, columns, values)
    room = room_of(data)
    own = np.empty(room, np.int64), np.empty(room)
    _read_rows(data, *own, block, table, ordinary, places, amounts, scores)


@inlined
def _read_rows(
    data: Data,
    own_places: Ints,
    own_amounts: Floats,
    block: Floats,
    table: Floats,
    ordinary: Floats,
    places: Ints,
    amounts: Floats,
    scores: Floats,
) -> None:
    model, row = model_of(block, table), row_of(block, own_places, own_amounts)
    for i in range(ordinary.shape[0]):
        found, _, _ = read(model, data, i, row)
        for j in range(ordinary.shape[1]):
            ordinary[i, j] = row.z[j]
        for f in range(found):
            places[i, f], amounts[i, f] = row.places[f], row.amounts[f]
        for o in range(scores.shape[1]):
            scores[i, o] = score_of(model, row, found, o)
