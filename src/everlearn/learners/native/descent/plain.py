"""The plain case, which is the most frequent and has to be the fastest: logistic regression of two
classes by gradient descent, without penalties, over rows of nothing but numbers, standardised.

A row is gone over twice, once to score it and once to learn it; nothing is kept between, and what
the head holds is kept at hand from row to row. Columns are filled up with zeros to whole vectors,
which lie in whole cache lines: what is left over of a vector is computed one by one, and took as
long as all the rest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from everlearn.base import Floats
from everlearn.learners.native.compile import inlined
from everlearn.learners.native.descent.losses import HEAVIEST, LOGISTIC, probability
from everlearn.learners.native.descent.optimizers import SGD, scheduled
from everlearn.learners.native.descent.state import (
    CLIP,
    EXPLICIT,
    HEAD,
    HORIZON,
    L1,
    L2,
    LARGEST,
    LINE,
    LOSS,
    MEMORY,
    OPTIMIZER,
    POWER,
    RATE,
    ROWS,
    STANDARDIZE,
    UNEVEN,
    UPDATE,
    WEIGHT,
    Data,
    Model,
    whole_lines,
)


@inlined
def is_plain(model: Model, data: Data) -> bool:
    """Whether rows are plain, as long as their numbers are ordinary: see `score_plain`."""
    head = model.head
    if data.times.shape[1] > 0 or data.categories.shape[1] > 0 or data.starts.shape[0] > 0:
        return False
    if model.weights.shape[0] > 1 or head[LOSS] != LOGISTIC or head[UPDATE] != EXPLICIT:
        return False
    if head[OPTIMIZER] != SGD or head[L1] > 0.0 or head[L2] > 0.0:
        return False
    return bool(head[STANDARDIZE] != 0.0 and head[UNEVEN] == 0.0)


class Plain(NamedTuple):
    """What is computed with, of P columns: the numbers, and columns of zeros up to a whole line.

    Args:
        x: (P,) the row that is looked at.
        mean, spread, inverse, weights: (P,) copies of the model's.
    """

    x: Floats
    mean: Floats
    spread: Floats
    inverse: Floats
    weights: Floats


@inlined
def plain_of(model: Model, block: Floats) -> Plain:
    """Copies of the model in the block, which begin with a cache line."""
    p = model.mean.shape[0]
    size, at = whole_lines(p), HEAD + 4 * p + (1 + int(block[MEMORY])) * model.weights.size
    at += (LINE - (block.ctypes.data // 8 + at) % LINE) % LINE
    plain = Plain(
        block[at : at + size],
        block[at + size : at + 2 * size],
        block[at + 2 * size : at + 3 * size],
        block[at + 3 * size : at + 4 * size],
        block[at + 4 * size : at + 5 * size],
    )
    for j in range(5 * size):
        block[at + j] = 0.0
    for j in range(p):
        plain.mean[j], plain.spread[j] = model.mean[j], model.spread[j]
        plain.inverse[j], plain.weights[j] = model.inverse[j], model.weights[0, j]
    return plain


@inlined
def score_plain(plain: Plain, data: Data, i: int, clip: float) -> tuple[float, float, bool]:
    """(Σ w·x without the intercept, Σ x², whether all of the i-th row's numbers are ordinary:
    neither NaN nor huge). The row is copied."""
    dot, squares, far = 0.0, 0.0, 0.0
    for j in range(data.numbers.shape[1]):
        plain.x[j] = data.numbers[i, j]
    for j in range(plain.x.shape[0]):
        apart = plain.x[j] - plain.mean[j]
        far += apart * apart
        z = apart * plain.inverse[j]
        z = clip if clip < z else z
        z = -clip if -clip > z else z
        dot += z * plain.weights[j]
        squares += z * z
    return dot, 1.0 + squares, far < LARGEST * LARGEST


@inlined
def learn_plain(
    model: Model, plain: Plain, data: Data, start: int, y: Floats, weight: Floats, out: Floats
) -> int:
    """Learn rows from the start-th on, and fill the chances of class 1 before each; returns the
    first row that is not plain, or how many rows there are."""
    head, p, n = model.head, data.numbers.shape[1], y.shape[0]
    clip, rate, power, horizon = head[CLIP], head[RATE], head[POWER], head[HORIZON]
    rows, total, intercept = head[ROWS], head[WEIGHT], model.weights[0, p]
    i = start
    while i < n:
        score, squares, ordinary = score_plain(plain, data, i, clip)
        if not ordinary:
            break
        chance = probability(intercept + score)
        if i < out.shape[0]:
            write_chance(chance, out, i)
        w = min(weight[i], HEAVIEST) if weight.shape[0] > 0 else 1.0
        if w > 0.0:
            step = _step(chance - y[i], w, scheduled(rate, power, horizon, rows), squares)
            total += w
            rows += 1.0
            intercept -= step
            _move(plain, clip, step, w, total)
        i += 1
    head[ROWS], head[WEIGHT], model.weights[0, p] = rows, total, intercept
    for j in range(p):
        model.mean[j], model.spread[j] = plain.mean[j], plain.spread[j]
        model.inverse[j], model.weights[0, j] = plain.inverse[j], plain.weights[j]
    return i


@inlined
def write_chance(chance: float, out: Floats, i: int) -> None:
    """The chance of class 1, alone or after that of class 0."""
    if out.shape[1] == 1:
        out[i, 0] = chance
    else:
        out[i, 0], out[i, 1] = 1.0 - chance, chance


@inlined
def _step(slope: float, weight: float, rate: float, squares: float) -> float:
    """How far weights move: no further than by Newton's method where the loss bends most."""
    length = rate * squares
    pull = weight if weight * length <= 4.0 else 4.0 / length
    return rate * pull * slope


@inlined
def _move(plain: Plain, clip: float, step: float, weight: float, total: float) -> None:
    """Move the weights by −step · x, then take the row into the moments."""
    each = 1.0 / total
    share = weight * each
    left = weight * (1.0 - share)
    for j in range(plain.x.shape[0]):
        apart = plain.x[j] - plain.mean[j]
        z = apart * plain.inverse[j]
        z = clip if clip < z else z
        z = -clip if -clip > z else z
        spread = plain.spread[j] + left * (apart * apart)
        variance = spread * each
        plain.weights[j] -= step * z
        plain.mean[j] += share * apart
        plain.spread[j] = spread
        plain.inverse[j] = 1.0 / math.sqrt(variance) if variance > 0.0 else 0.0
