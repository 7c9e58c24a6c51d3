"""Gaussian naive Bayes: a normal distribution for each class and number."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from everlearn.base import Floats, Hashes, Ints
from everlearn.learners.native.bayes.buckets import (
    Buckets,
    add_buckets,
    find_buckets,
    log_buckets,
)
from everlearn.learners.native.bayes.posterior import normalise
from everlearn.learners.native.compile import kernel

LIMIT = 1e100
"""Larger numbers are taken as this, so that their squares are finite."""

CONSTANT = 1e-280
"""A number whose variance over all rows is not above this tells nothing of the class."""


class Normals(NamedTuple):
    """Weight, mean and variance of p numbers.

    Args:
        overall: (p, 3) in all rows.
        moments: (k, p, 3) in those of each class.
    """

    overall: Floats
    moments: Floats


@kernel
def learn_gaussian(
    numbers: Floats,
    categories: Hashes,
    y: Ints,
    weight: Floats,
    state: Any,
    smoothing: float,
    alpha: float,
    out: Floats,
) -> None:
    """Predict (n, p) numbers and (n, q) categories into (m, k), each before it is learned.

    `state` is a plain tuple, which is handed over faster: the weights (k,) of the classes, and the
    arrays of `Normals` and of `Buckets`.
    """
    counts, normals, buckets = state[0], Normals(*state[1:3]), Buckets(*state[3:6])
    found = np.empty(categories.shape[1], np.int64)
    for i in range(len(numbers)):
        find_buckets(categories, i, buckets.tally.shape[1], found)
        if i < len(out):
            for c in range(len(counts)):
                if counts[c] > 0.0:
                    out[i, c] = math.log(counts[c]) + log_buckets(buckets, found, c, alpha)
                    out[i, c] += log_normals(normals, numbers, i, c, smoothing)
            normalise(out, i, counts)
        w = weight[i] if len(weight) else 1.0
        if w == 0.0:
            continue
        c = y[i]
        counts[c] += w
        for j in range(numbers.shape[1]):
            x = numbers[i, j]
            if x == x:
                x = min(max(x, -LIMIT), LIMIT)
                add_number(normals.overall, j, x, w)
                add_number(normals.moments[c], j, x, w)
        add_buckets(buckets, found, c, w)


@kernel
def add_number(moments: Floats, j: int, x: float, weight: float) -> None:
    """Welford 1962, with the variance instead of the sum of squares."""
    moments[j, 0] += weight
    share = weight / moments[j, 0]
    apart = x - moments[j, 1]
    moments[j, 1] += share * apart
    moments[j, 2] = (1.0 - share) * (moments[j, 2] + share * apart * apart)


@kernel
def log_normals(normals: Normals, numbers: Floats, i: int, c: int, smoothing: float) -> float:
    """The logarithm of the densities of a row's numbers in class c; missing ones are left out.

    Each number is measured in its standard deviations over all rows, which changes every class's
    density by the same factor. Then the variance in a class is between `smoothing` and all rows'
    weight by the class's, so that variances can be multiplied and one logarithm taken of many.
    """
    overall, moments = normals
    product, logarithm, distance = 1.0, 0.0, 0.0
    for j in range(numbers.shape[1]):
        x = numbers[i, j]
        if x != x or overall[j, 2] <= CONSTANT:
            continue
        scale = 1.0 / overall[j, 2]
        x = min(max(x, -LIMIT), LIMIT)
        if moments[c, j, 0] > 0.0:
            apart = x - moments[c, j, 1]
            variance = min(moments[c, j, 2] * scale, LIMIT) + smoothing
        else:  # never known in this class: as in all rows
            apart = x - overall[j, 1]
            variance = 1.0 + smoothing
        distance += min(apart * apart * scale, LIMIT) / variance
        product *= variance
        if product < 1e-150 or product > 1e150:
            logarithm += math.log(product)
            product = 1.0
    return -0.5 * (logarithm + math.log(product) + distance)
