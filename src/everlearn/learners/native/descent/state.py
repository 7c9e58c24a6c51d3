"""The state of a linear model: one block of numbers, and a table of records for what is hashed.

The block begins with a head of single numbers and goes on with arrays, which are views of it: a
kernel is called with two arrays instead of a dozen, which is most of the cost of learning one row.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np

from everlearn.base import Floats, Hashes, Ints
from everlearn.learners.native.compile import inlined

# fmt: off
(
    # sizes
    NUMBERS, WAVES, SCORES, MEMORY,
    # parameters
    LOSS, BEND, UPDATE, OPTIMIZER, RATE, POWER, HORIZON, L1, L2, CLIP, STANDARDIZE,
    # what was learned
    ROWS, WEIGHT, UNEVEN, CLOCK, OFFSET, TARGET_WEIGHT, TARGET_MEAN, TARGET_SPREAD,
    HEAD,
) = range(24)
# fmt: on
"""Places in the head.

NUMBERS, WAVES: columns of numbers, and of sines and cosines of times. SCORES: 1 for regression and
for two classes, otherwise one a class. MEMORY: numbers that are remembered of a weight's gradients.
UPDATE: one of `EXPLICIT`, `INVARIANT`, `SQUARED_SLACK`. POWER, HORIZON: of the rate's schedule.
ROWS, WEIGHT: of the rows learned. UNEVEN: 1 since a number was missing or huge; before, all columns
weigh the same. CLOCK: sum of weight · rate. OFFSET: added to the score of
a regression. TARGET_…: weight, mean and sum of squared deviations of a regression's targets.
"""

EXPLICIT, INVARIANT, SQUARED_SLACK = range(3)
"""How far a row moves its score: see `losses`."""


LARGEST = 1e100
"""Numbers, and values to be learned, are limited to ± this."""


class Model(NamedTuple):
    """Views of a block, and the table. D columns are numbers, waves, and a last one that is 1.

    Args:
        head: (HEAD,) numbers.
        present: (p,) weight of the rows in which the number was not missing, once `UNEVEN`.
        mean, spread: (p,) of these rows: mean, sum of squared deviations.
        inverse: (p,) 1 / standard deviation; 0 where that is 0.
        weights: (k, D).
        first, second: (k, D) what the optimizer remembers; (0, D) where it does not.
        table: (slots, (1 + memory) · k + 1) for each hashed column its weights, what is remembered
            of them, and the clock at which penalties were last applied. The first p slots are
            those of missing numbers.
    """

    head: Floats
    present: Floats
    mean: Floats
    spread: Floats
    inverse: Floats
    weights: Floats
    first: Floats
    second: Floats
    table: Floats


class Data(NamedTuple):
    """The arrays of `Rows`."""

    numbers: Floats
    times: Floats
    categories: Hashes
    starts: Ints
    columns: Ints
    values: Floats


class Row(NamedTuple):
    """The row that is looked at.

    Args:
        z: (D,) its dense columns.
        places, amounts: its records in the table, and by what they are multiplied.
        scores: (k,) Σ w·x.
        pulls: (k,) how strongly its scores are to be moved.
    """

    z: Floats
    places: Ints
    amounts: Floats
    scores: Floats
    pulls: Floats


@inlined
def model_of(block: Floats, table: Floats) -> Model:
    """The views."""
    p = int(block[NUMBERS])
    width = p + int(block[WAVES]) + 1
    scores, memory = int(block[SCORES]), int(block[MEMORY])
    size = scores * width
    w = HEAD + 4 * p
    a = w + size
    b = a + (size if memory > 0 else 0)
    end = b + (size if memory > 1 else 0)
    return Model(
        block[:HEAD],
        block[HEAD : HEAD + p],
        block[HEAD + p : HEAD + 2 * p],
        block[HEAD + 2 * p : HEAD + 3 * p],
        block[HEAD + 3 * p : w],
        block[w:a].reshape(scores, width),
        block[a:b].reshape(-1, width),
        block[b:end].reshape(-1, width),
        table,
    )


def views(block: Floats, table: Floats) -> Model:
    """`model_of`, outside kernels."""
    return cast(Model, cast(Any, model_of).py_func(block, table))


@inlined
def row_of(block: Floats, places: Ints, amounts: Floats) -> Row:
    """Room for any row: at the end of the block, and for its records as given."""
    width, scores = int(block[NUMBERS] + block[WAVES]) + 1, int(block[SCORES])
    p = block.shape[0] - 2 * int(block[NUMBERS]) - scores
    s = p - scores
    block[s - 1] = 1.0
    return Row(block[s - width : s], places, amounts, block[s:p], block[p : p + scores])


LINE = 8
"""Numbers in a cache line, and in the widest vector that processors compute with at once."""


@inlined
def whole_lines(numbers: int) -> int:
    """How many numbers there are if the last line is filled up."""
    return (numbers + LINE - 1) // LINE * LINE


def empty_block(numbers: int, waves: int, scores: int, memory: int) -> Floats:
    """A block of zeros with its sizes in the head, and after what is learned with room for what
    `plain` computes with, and for a row at its end."""
    width = numbers + waves + 1
    learned = 4 * numbers + (1 + memory) * scores * width
    plain = LINE + 5 * whole_lines(numbers)
    block = np.zeros(HEAD + learned + plain + width + 2 * scores + 2 * numbers)
    block[[NUMBERS, WAVES, SCORES, MEMORY]] = numbers, waves, scores, memory
    return block


def empty_table(slots: int, scores: int, memory: int) -> Floats:
    """A table of zeros."""
    return np.zeros((slots, (1 + memory) * scores + 1))
