"""The weights of a linear model, by score or by class, and in the units of X."""

from __future__ import annotations

import numpy as np

from everlearn.base import Floats
from everlearn.learners.native.descent.optimizers import ADAM, FTRL, ftrl_first
from everlearn.learners.native.descent.state import L1, L2, MEMORY, OFFSET, OPTIMIZER, RATE, Model


def memories(model: Model) -> tuple[tuple[Floats, ...], tuple[Floats, ...]]:
    """(weights, first, second) of the dense columns, (k, D) each, and of the records, (k, slots);
    `first` and `second` only where the optimizer remembers them. Views."""
    k, memory = len(model.weights), int(model.head[MEMORY])
    dense = (model.weights, model.first, model.second)[: 1 + memory]
    columns = model.table.T
    return dense, tuple(columns[k * kind : k * (kind + 1)] for kind in range(1 + memory))


def per_class(arrays: tuple[Floats, ...], optimizer: int) -> tuple[Floats, ...]:
    """(k, n) arrays of a model with one score, as those of a model with a score for each of the two
    classes: their weights are minus and plus half of it, their gradients minus and plus its own."""
    if len(arrays[0]) > 1:
        return arrays
    weights, *remembered = arrays
    signs = np.array([[-1.0], [1.0]])
    signed = optimizer == ADAM
    return (
        0.5 * signs * weights,
        *(
            (signs if signed and place == 0 else np.abs(signs)) * array
            for place, array in enumerate(remembered)
        ),
    )


def restore(model: Model) -> None:
    """FTRL's z for weights that were set."""
    head = model.head
    if head[OPTIMIZER] != FTRL:
        return
    l1, l2 = float(head[L1]), float(head[L2])
    for weights, first, second in memories(model):
        first[:] = ftrl_first(weights, second, float(head[RATE]), l1, l2)
    free = model.weights[:, -1], model.second[:, -1]
    model.first[:, -1] = ftrl_first(*free, float(head[RATE]), 0.0, 0.0)


def slopes(model: Model) -> Floats:
    """(k, D − 1) weights of the columns as they come."""
    own = model.weights[:, :-1].copy()
    own[:, : len(model.inverse)] *= model.inverse
    return own


def intercepts(model: Model) -> Floats:
    """(k,) scores where all numbers are 0 and all times missing."""
    p = len(model.mean)
    standing = slopes(model)[:, :p] @ model.mean
    return np.asarray(model.weights[:, -1] - standing + model.head[OFFSET])
