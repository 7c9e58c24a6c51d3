"""Numbers in standard deviations from their means, by running moments."""

from __future__ import annotations

import math

import numpy as np

from everlearn.base import Array, Floats, InputError
from everlearn.learners.native.compile import inlined, lean_kernel

LARGEST = 1e100
"""Numbers are limited to ± this."""

HEAVIEST = 1e50
"""Weights are limited to this."""

FARTHEST = 10.0
"""Standardised numbers are limited to ± this, and sizes of errors to this."""

WEIGHT, MEAN, VARIANCE, INVERSE = range(4)
"""What is known of a column; the last is 1 / standard deviation, 0 where there is none."""


def begin_scales(columns: int) -> Floats:
    """(columns, 4) see `WEIGHT` … `INVERSE`, of no rows."""
    return np.zeros((columns, 4))


def loaded_scales(scales: Floats, saved: Array) -> Floats:
    """Those that were saved, in the place of those that have just begun.

    Raises:
        InputError: they are of other columns.
    """
    if saved.shape != scales.shape or saved.dtype != scales.dtype:
        raise InputError(f"scales is {saved.shape} of {saved.dtype}")
    return np.array(saved)


def standardized(scales: Floats, x: Floats, weight: Floats) -> Floats:
    """(n, columns) of the first columns of x, each row standardised by the rows before, and then
    learned with its weight; (0,) weights are 1 each. What is missing becomes 0. Nothing is farther
    than √n after n rows, as no number can be that is one of n + 1."""
    z = np.empty((len(x), len(scales)))
    _standardize(scales, x, weight, z)
    return z


@lean_kernel
def _standardize(scales: Floats, x: Floats, weight: Floats, z: Floats) -> None:
    for i in range(len(z)):
        w = min(weight[i], HEAVIEST) if len(weight) else 1.0
        for j in range(z.shape[1]):
            value = x[i, j]
            if value != value:
                z[i, j] = 0.0
                continue
            apart = min(max(value, -LARGEST), LARGEST) - scales[j, MEAN]
            n = scales[j, WEIGHT]
            farthest = math.sqrt(n) if n < FARTHEST * FARTHEST else FARTHEST
            z[i, j] = min(max(apart * scales[j, INVERSE], -farthest), farthest)
            if w > 0.0:
                add(scales, j, apart, w)


@lean_kernel
def add(scales: Floats, j: int, apart: float, weight: float) -> None:
    """Learn a number of column j that is so far from its mean (Welford 1962)."""
    scales[j, WEIGHT] += weight
    share = weight / scales[j, WEIGHT]
    scales[j, MEAN] += share * apart
    variance = (1.0 - share) * (scales[j, VARIANCE] + share * apart * apart)
    scales[j, VARIANCE] = variance
    scales[j, INVERSE] = 1.0 / math.sqrt(variance) if variance > 1e-280 else 0.0


@inlined
def unit_of(error: float, sums: Floats) -> float:
    """The root mean square of all errors so far, this one included; `sums` (2,) are how many there
    were, and the sum of their squares. ADWIN's bounds are for numbers of about 1, in such units."""
    error = min(max(error, -LARGEST), LARGEST)
    sums[0] += 1.0
    sums[1] += error * error
    return math.sqrt(sums[1] / sums[0])


@inlined
def size_in(error: float, unit: float) -> float:
    """How large an error is in a unit."""
    return min(abs(error) / unit, FARTHEST) if unit > 0.0 else 0.0
