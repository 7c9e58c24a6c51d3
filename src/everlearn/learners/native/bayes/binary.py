"""Bernoulli naive Bayes over columns that are on or off in every row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from everlearn.base import Floats, Hashes, Ints
from everlearn.learners.native.bayes.buckets import (
    SMALLEST,
    Buckets,
    add_buckets,
    find_buckets,
    log_buckets,
)
from everlearn.learners.native.bayes.posterior import normalise
from everlearn.learners.native.compile import kernel


@kernel
def learn_binary(
    numbers: Floats,
    categories: Hashes,
    y: Ints,
    weight: Floats,
    threshold: float,
    state: Any,
    alpha: float,
    out: Floats,
) -> None:
    """Predict (n, p) numbers and (n, q) categories into (m, k), each before it is learned.

    `state` is a plain tuple, which is handed over faster: the weights (k,) of the classes, those of
    their rows in which a number was off and on, (p, 2, k), and the arrays of `Buckets`.
    """
    counts, switches, buckets = state[0], state[1], Buckets(*state[2:5])
    found = np.empty(categories.shape[1], np.int64)
    for i in range(len(numbers)):
        find_buckets(categories, i, buckets.tally.shape[1], found)
        if i < len(out):
            for c in range(len(counts)):
                if counts[c] > 0.0:
                    out[i, c] = math.log(counts[c]) + log_buckets(buckets, found, c, alpha)
                    out[i, c] += log_switches(switches, numbers, i, c, threshold, alpha)
            normalise(out, i, counts)
        w = weight[i] if len(weight) else 1.0
        if w == 0.0:
            continue
        c = y[i]
        counts[c] += w
        for j in range(numbers.shape[1]):
            x = numbers[i, j]
            if x == x:
                switches[j, 1 if x > threshold else 0, c] += w
        add_buckets(buckets, found, c, w)


@kernel
def log_switches(
    switches: Floats, numbers: Floats, i: int, c: int, threshold: float, alpha: float
) -> float:
    """The logarithm of the probabilities that a row's numbers are on or off in class c; missing
    ones are left out."""
    share, logarithm = 1.0, 0.0
    for j in range(numbers.shape[1]):
        x = numbers[i, j]
        if x != x:
            continue
        off, on = switches[j, 0, c] + alpha, switches[j, 1, c] + alpha
        share *= (on if x > threshold else off) / (off + on)
        if share < SMALLEST:
            logarithm += math.log(share)
            share = 1.0
    return logarithm + math.log(share)
