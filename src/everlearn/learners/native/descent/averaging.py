"""Linear models that learned different rows, as one: the average of their scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from everlearn.base import Floats, Ints
from everlearn.learners.native.descent.optimizers import ADAM
from everlearn.learners.native.descent.state import (
    NUMBERS,
    OFFSET,
    OPTIMIZER,
    ROWS,
    SCORES,
    STANDARDIZE,
    TARGET_MEAN,
    TARGET_SPREAD,
    TARGET_WEIGHT,
    UNEVEN,
    WEIGHT,
    Model,
)
from everlearn.learners.native.descent.weights import (
    intercepts,
    memories,
    per_class,
    restore,
    slopes,
)


def average(models: Sequence[Model], codes: Sequence[Ints], made: Model) -> None:
    """Fill a model that has learned nothing with the average of others, weighted by the rows that
    each has learned: of weights as they are in the units of X (so that, but for clipping, scores
    are averaged), of FTRL's and Adam's memory; of AdaGrad's, and of counts, the sum.

    McDonald, Hall & Mann 2010, "Distributed training strategies for the structured perceptron",
    section 4.3.

    Args:
        models: with all penalties applied.
        codes: of each, the codes that its classes have in the model that is made.
        made: of the same columns and parameters.
    """
    rows = np.array([model.head[ROWS] for model in models])
    shares = rows / rows.sum()
    _add_moments(models, made)
    made.head[ROWS] = rows.sum()
    made.head[OFFSET] = models[0].head[OFFSET]
    for model, known, share in zip(models, codes, shares, strict=True):
        plain = _in_units_of_x(model)
        for mine, theirs in zip(memories(made), memories(plain), strict=True):
            given = _of_codes(theirs, known, int(made.head[SCORES]), int(made.head[OPTIMIZER]))
            for kind, array in enumerate(given):
                summed = kind > 0 and made.head[OPTIMIZER] != ADAM
                mine[kind][:] += array if summed else share * array
    p = int(made.head[NUMBERS])
    made.weights[:, -1] += made.weights[:, :p] @ made.mean - made.head[OFFSET]
    scale = np.where(made.inverse > 0.0, made.inverse, np.inf)
    made.weights[:, :p] /= scale
    restore(made)


def _in_units_of_x(model: Model) -> Model:
    """The same scores by weights of the columns as they come."""
    weights = np.column_stack([slopes(model), intercepts(model)])
    return model._replace(weights=weights)


def _of_codes(
    arrays: tuple[Floats, ...], codes: Ints, scores: int, optimizer: int
) -> tuple[Floats, ...]:
    """(k, n) arrays by the codes of another model, of this many scores."""
    if scores == 1 and len(codes) == 0:
        return arrays
    made = []
    for array in per_class(arrays, optimizer):
        wider = np.zeros((max(scores, 2), array.shape[1]))
        wider[codes] = array[: len(codes)]
        made.append(wider)
    if scores > 1:
        return tuple(made)
    weights, *remembered = made
    return weights[1:] - weights[:1], *(array[1:] for array in remembered)


def _add_moments(models: Sequence[Model], made: Model) -> None:
    """Moments of all rows together."""
    head = made.head
    for model in models:
        weight = model.head[WEIGHT]
        present = model.present if model.head[UNEVEN] else np.full_like(model.mean, weight)
        _add((made.present, made.mean, made.spread), (present, model.mean, model.spread))
        _add(_target(head), _target(model.head))
        head[WEIGHT] += weight
        head[UNEVEN] = max(head[UNEVEN], model.head[UNEVEN])
    if head[STANDARDIZE]:
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = made.spread / made.present
            made.inverse[:] = np.where(variance > 0.0, 1.0 / np.sqrt(variance), 0.0)


def _add(mine: tuple[Floats, ...], theirs: tuple[Floats, ...]) -> None:
    """Add weights, means and sums of squared deviations to others (Chan, Golub & LeVeque 1983,
    "Algorithms for computing the sample variance", eq. 2.1)."""
    weight, mean, spread = mine
    more, apart = theirs[0], theirs[1] - mean
    total = weight + more
    share = np.divide(more, total, out=np.zeros_like(total), where=total > 0.0)
    spread += theirs[2] + apart * apart * weight * share
    mean += share * apart
    weight += more


def _target(head: Floats) -> tuple[Floats, ...]:
    """Views of the moments of a regression's targets."""
    return tuple(head[place : place + 1] for place in (TARGET_WEIGHT, TARGET_MEAN, TARGET_SPREAD))
