"""How often each value of a categorical column came with each class."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from everlearn.base import Floats, Hashes, Ints
from everlearn.learners.native.compile import kernel
from everlearn.learners.native.random import mix

SMALLEST = 1e-200
"""The logarithm of a product is taken before it gets much smaller than this."""


class Buckets(NamedTuple):
    """Counts of q columns, whose values fall into b buckets, with k classes.

    Args:
        tally: (q, b, k) weight of the rows of a class with a value of this bucket.
        known: (q, k) the sum of `tally` over buckets.
        kinds: (q,) how many buckets of a column are in use.
    """

    tally: Floats
    known: Floats
    kinds: Floats


@kernel
def find_buckets(categories: Hashes, row: int, buckets: int, found: Ints) -> None:
    """Fill (q,) with the bucket of each category of a row, −1 where it is missing."""
    for q in range(len(found)):
        value = categories[row, q]
        found[q] = np.int64(mix(value) % np.uint64(buckets)) if value != 0 else -1


@kernel
def add_buckets(buckets: Buckets, found: Ints, c: int, weight: float) -> None:
    """Count a row of class c."""
    tally, known, kinds = buckets
    for q in range(len(found)):
        if found[q] < 0:
            continue
        if tally[q, found[q], c] == 0.0 and tally[q, found[q]].sum() == 0.0:
            kinds[q] += 1.0
        tally[q, found[q], c] += weight
        known[q, c] += weight


@kernel
def log_buckets(buckets: Buckets, found: Ints, c: int, alpha: float) -> float:
    """The logarithm of the probability of a row's categories in class c (Laplace smoothing over
    the buckets in use); missing ones are left out, and columns of which nothing is known."""
    tally, known, kinds = buckets
    share, logarithm = 1.0, 0.0
    for q in range(len(found)):
        if found[q] < 0 or kinds[q] == 0.0:
            continue
        share *= (tally[q, found[q], c] + alpha) / (known[q, c] + alpha * kinds[q])
        if share < SMALLEST:
            logarithm += math.log(share)
            share = 1.0
    return logarithm + math.log(share)
