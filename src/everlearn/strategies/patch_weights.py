"""The least change of a linear layer, or of leaves, after which all edits are answered as wanted.

Of all changes Δ of a layer's weights that give every edit its answer, that one is taken which
changes the scores of reference rows least: tr(Δᵀ C Δ), with C the second moment of their features
(the objective of ROME and MEMIT; Gupta, Sajnani & Anumanchipalli 2024, "A unified framework for
model editing", arXiv 2403.14236, for a layer that gives the answer itself). For classes, the wanted
one has to be above each other by a margin, and the problem is solved in its dual, exactly: it is
one of least distance (Lawson & Hanson 1974, "Solving least squares problems", chapter 23.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from everlearn.base import (
    Array,
    Batch,
    EverlearnError,
    Floats,
    IntegrityError,
    Ints,
    Learner,
    Part,
    Prediction,
)
from everlearn.learners.editable import Editable, editable_of

MARGIN = 0.15
"""By how much a wanted class is above the others: this share of what is the median of the reference
rows, of the best score above the next."""

RIDGE = 1e-2
"""What is added to the diagonal of C, as a share of it (of its mean where it is 0): it keeps the
change of a direction finite that no reference row has."""

_SMALL = 1e-9
"""Shares of this size come from rounding."""

_ROUNDS = 100

_BLOCK = 4096  # features that are multiplied at a time


class UnsolvableError(EverlearnError):
    """No change of weights gives all edits their answers, or there are no weights to change."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A change of the scores: features @ change.

    Args:
        columns: (c,) features that it looks at; None for all.
        change: (c, k) for each feature and score.
    """

    columns: Ints | None
    change: Floats

    def answer(self, learner: Learner, batch: Batch) -> Prediction:
        """What is predicted for every row by the changed scores."""
        editable = _editable(learner)
        features, scores = editable.activations(batch)
        return editable.answer(self.changed(features, scores))

    def changed(self, features: Any, scores: Floats) -> Floats:
        """(n, k) scores of rows of these features. There may be more of them than when it was
        solved: classes that came since are not changed."""
        change = self.change
        if change.shape[1] == 1 and scores.shape[1] > 1:  # of one score for two classes
            change = np.hstack([-0.5 * change, 0.5 * change])
        made = scores.copy()
        made[:, : change.shape[1]] += _product(dense(features, self.columns), change)
        return made

    def save(self) -> Part:
        """The change."""
        arrays: dict[str, Array] = {"change": self.change}
        if self.columns is not None:
            arrays["columns"] = self.columns
        return Part(arrays)

    @classmethod
    def load(cls, part: Part) -> Self:
        """The inverse of `save`. Raises `IntegrityError` if its arrays are none that it made, or do
        not fit together."""
        change, columns = part.arrays["change"], part.arrays.get("columns")
        if change.dtype != np.float64 or change.ndim != 2 or not np.isfinite(change).all():
            raise IntegrityError("the change of weights of the patch is no finite matrix")
        if columns is not None:
            right = columns.dtype == np.int64 and columns.shape == change.shape[:1]
            if not right or (columns < 0).any() or (np.diff(columns) <= 0).any():
                raise IntegrityError("the change of weights of the patch names no features")
        return cls(columns, change)

    def check(self, learner: Learner, row: Batch) -> None:
        """Refuse what is not for this learner.

        Args:
            row: any (1,) row of its.

        Raises:
            IntegrityError: it is for another.
        """
        editable = editable_of(learner)
        if editable is None:
            raise IntegrityError("the patch changes weights, and the learner has none")
        features, scores = editable.activations(row)
        (rows, outputs), width = self.change.shape, features.shape[1]
        there = rows == width if self.columns is None else max(self.columns, default=-1) < width
        if not there or outputs > scores.shape[1]:
            raise IntegrityError(
                f"the patch changes {outputs} scores of {rows} features; the learner has"
                f" {scores.shape[1]} of {width}"
            )


def solved(learner: Learner, edits: Batch, wanted: Array, reference: Batch) -> Weights:
    """The least change after which all edits are answered as wanted.

    Args:
        learner: an `Editable` can be made of it.
        edits: (E,) rows.
        wanted: (E,) class codes, or values.
        reference: (R,) rows whose answers should stay.

    Raises:
        UnsolvableError: there is none.
    """
    editable = _editable(learner)
    features, scores = editable.activations(edits)
    around, before = editable.activations(reference)
    columns = None
    if hasattr(features, "indices"):
        columns = np.unique(features.indices).astype(np.int64)
    own, others = dense(features, columns), dense(around, columns)
    moment = others.T @ others / max(len(others), 1)
    sizes = moment.diagonal()
    known = sizes > 0.0
    usual = float(sizes[known].mean()) if known.any() else 1.0
    moment[np.diag_indices_from(moment)] += RIDGE * np.where(known, sizes, usual)
    ways = np.asarray(np.linalg.solve(moment, own.T), np.float64)
    products = own @ ways
    if learner.kind == "regressor":
        return Weights(columns, ways @ _values(products, wanted - scores[:, 0])[:, None])
    margin = MARGIN * (_margin(before) if len(before) else 1.0)
    return Weights(columns, ways @ _classes(products, scores, wanted, margin))


def dense(features: Any, columns: Ints | None) -> Floats:
    """(n, c) the chosen columns of dense or CSR features, in their order."""
    if columns is None:
        return np.asarray(features, np.float64)
    rows = np.repeat(np.arange(features.shape[0]), np.diff(features.indptr))
    at = np.minimum(np.searchsorted(columns, features.indices), len(columns) - 1)
    known = columns[at] == features.indices
    found = np.zeros((features.shape[0], len(columns)))
    np.add.at(found, (rows[known], at[known]), features.data[known])
    return found


def _product(features: Floats, change: Floats) -> Floats:
    """(n, k) features @ change, of each row to the bit the same whatever rows are beside it: what
    BLAS does depends on how many there are, and what einsum does if it has more than its buffer."""
    found, turned = np.zeros((len(features), change.shape[1])), np.ascontiguousarray(change.T)
    for start in range(0, len(change), _BLOCK):
        block = slice(start, start + _BLOCK)
        found += np.einsum("nd,kd->nk", features[:, block], turned[:, block])
    return found


def _editable(learner: Learner) -> Editable:
    found = editable_of(learner)
    assert found is not None, "a learner that was patched so has what is patched"
    return found


def _margin(scores: Floats) -> float:
    """The median of the best score above the next."""
    if scores.shape[1] == 1:
        return float(np.median(np.abs(scores)))
    best = np.partition(scores, -2, axis=1)[:, -2:]
    return float(np.median(best[:, 1] - best[:, 0]))


def _values(products: Floats, missing: Floats) -> Floats:
    """(E,) multipliers with which the scores of E edits move by what is missing."""
    found: Floats = np.asarray(np.linalg.lstsq(products, missing, rcond=None)[0], np.float64)
    left = np.abs(products @ found - missing).max(initial=0.0)
    if left > 1e-6 * np.abs(missing).max(initial=0.0):
        raise UnsolvableError(
            f"no change of weights moves all {len(missing)} answers to their values: some rows are"
            f" alike to the learner (off by {left:.3g})"
        )
    return found


def _classes(products: Floats, scores: Floats, wanted: Array, margin: float) -> Floats:
    """(E, k) multipliers after which each wanted class is above the others by the margin.

    Only those pairs of classes are constraints that were found too close, until none is.

    Args:
        products: (E, E) of the edits' features, with C⁻¹ between.
        scores: (E, k) as they are.
        wanted: (E,) class codes.
    """
    count, k = scores.shape
    multipliers = np.zeros((count, k))
    pairs: list[tuple[int, int]] = []
    for _ in range(_ROUNDS):
        gaps = _gaps(scores + products @ multipliers, wanted)
        worst = np.argmin(gaps, axis=1)
        short = gaps[np.arange(count), worst] < margin * (1.0 - 1e-6)
        new = [(e, int(worst[e])) for e in np.flatnonzero(short).tolist()]
        if not new:
            return multipliers
        if not set(new) - set(pairs):
            break
        pairs = sorted({*pairs, *new})
        multipliers = _least(products, _gaps(scores, wanted), wanted, margin, pairs, k)
    raise UnsolvableError(f"no least change of weights was found for {count} edits")


def _gaps(scores: Floats, wanted: Array) -> Floats:
    """(E, k) how far the wanted class is above each other; infinite above itself. Of one score for
    two classes (E, 1)."""
    if scores.shape[1] == 1:
        return scores * np.where(wanted == 1, 1.0, -1.0)[:, None]
    rows = np.arange(len(scores))
    gaps = scores[rows, wanted][:, None] - scores
    gaps[rows, wanted] = np.inf
    return gaps


def _least(
    products: Floats,
    gaps: Floats,
    wanted: Array,
    margin: float,
    pairs: list[tuple[int, int]],
    k: int,
) -> Floats:
    """(E, k) multipliers of the least change after which these pairs are apart by the margin."""
    from scipy.optimize import nnls

    e, j = np.array(pairs).T
    ways = np.zeros((len(pairs), k))
    at = np.arange(len(pairs))
    if k == 1:
        ways[:, 0] = np.where(wanted[e] == 1, 1.0, -1.0)
    else:
        ways[at, wanted[e]], ways[at, j] = 1.0, -1.0
    gram = products[np.ix_(e, e)] * (ways @ ways.T)
    size = np.sqrt(np.maximum(gram.diagonal(), 0.0))
    if not size.all():
        raise UnsolvableError("the features of an edit are all 0: no weight changes its answer")
    needed = (margin - gaps[e, j]) / size
    unit = max(float(np.abs(needed).max()), 1e-300)
    values, vectors = np.linalg.eigh(gram / np.outer(size, size))
    kept = values > _SMALL * values[-1]
    roots = vectors[:, kept] * np.sqrt(values[kept])
    system = np.vstack([roots.T, needed / unit])
    target = np.append(np.zeros(len(roots.T)), 1.0)
    try:
        found, left = nnls(system, target)
    except RuntimeError as error:
        raise UnsolvableError(f"no least change of weights was found: {error}") from error
    if left < 1e-6:
        raise UnsolvableError(
            f"no change of weights gives all {len(set(e.tolist()))} edits their classes: some rows"
            " are alike to the learner"
        )
    multiplied = found * unit / (1.0 - needed @ found / unit) / size
    made = np.zeros((len(gaps), k))
    np.add.at(made, e, ways * multiplied[:, None])
    return made
