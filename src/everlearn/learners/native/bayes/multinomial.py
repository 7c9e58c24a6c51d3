"""Multinomial naive Bayes: the words of a row are drawn from those of its class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from everlearn.base import Floats, Hashes, Ints
from everlearn.learners.native.bayes.posterior import normalise
from everlearn.learners.native.bayes.words import (
    Words,
    longest_row,
    meet,
    place_of,
    place_of_category,
)
from everlearn.learners.native.compile import kernel

LIMIT = 1e100
"""Larger amounts are taken as this."""


@kernel
def learn_multinomial(
    numbers: Floats,
    categories: Hashes,
    starts: Ints,
    places: Ints,
    values: Floats,
    y: Ints,
    weight: Floats,
    state: Any,
    alpha: float,
    out: Floats,
) -> None:
    """Predict rows into (m, k), each before it is learned.

    `state` is a plain tuple, which is handed over faster: the weights (k,) of the classes and of
    all their words, log(1 + weight / alpha) of each word, (width, k), and the arrays of `Words`.
    """
    counts, totals, logs, words = state[0], state[1], state[2], Words(*state[3:6])
    longest = max(longest_row(starts), numbers.shape[1] + categories.shape[1])
    found, amounts = np.empty(longest, np.int64), np.empty(longest)
    for i in range(max(len(numbers), len(starts) - 1)):
        if len(starts):
            n = find_sparse(starts, places, values, i, len(logs), found, amounts)
        else:
            n = find_dense(numbers, categories, i, len(logs), found, amounts)
        if i < len(out):
            log_draws(found, amounts, n, counts, totals, logs, words.size[0], alpha, out, i)
            normalise(out, i, counts)
        w = weight[i] if len(weight) else 1.0
        if w == 0.0:
            continue
        c = y[i]
        counts[c] += w
        for s in range(n):
            amount = w * amounts[s]
            if amount == 0.0:  # a word of no weight would be new for ever
                continue
            meet(words, found[s], c)
            words.weights[found[s], c] += amount
            totals[c] += amount
            logs[found[s], c] = math.log1p(words.weights[found[s], c] / alpha)


@kernel
def find_sparse(
    starts: Ints, places: Ints, values: Floats, i: int, width: int, found: Ints, amounts: Floats
) -> int:
    """Fill `found` and `amounts` with what is above 0 in a sparse row; returns how many that is."""
    n = 0
    for s in range(starts[i], starts[i + 1]):
        if values[s] > 0.0:
            found[n] = place_of(places[s], width)
            amounts[n] = min(values[s], LIMIT)
            n += 1
    return n


@kernel
def find_dense(
    numbers: Floats, categories: Hashes, i: int, width: int, found: Ints, amounts: Floats
) -> int:
    """Fill `found` and `amounts` with the (p,) numbers above 0, in places 0 … p − 1, and the
    categories, 1 each, in those behind; returns how many that is."""
    p = numbers.shape[1]
    n = 0
    for j in range(p):
        if numbers[i, j] > 0.0:
            found[n], amounts[n] = j, min(numbers[i, j], LIMIT)
            n += 1
    for q in range(categories.shape[1]):
        if categories[i, q] != 0:
            found[n] = p + place_of_category(categories[i, q], q, width - p)
            amounts[n] = 1.0
            n += 1
    return n


@kernel
def log_draws(
    found: Ints,
    amounts: Floats,
    n: int,
    counts: Floats,
    totals: Floats,
    logs: Floats,
    size: int,
    alpha: float,
    out: Floats,
    row: int,
) -> None:
    """Fill out[row] with the logarithm of each class's count times the probability that its words
    are a row's: for each (weight + alpha) / (total + alpha × vocabulary), Laplace smoothing."""
    length = 0.0
    for s in range(n):
        length += amounts[s]
    for c in range(len(counts)):
        if counts[c] == 0.0:
            continue
        score = math.log(counts[c]) - length * math.log(totals[c] / alpha + max(size, 1))
        for s in range(n):
            score += amounts[s] * logs[found[s], c]
        out[row, c] = score


@kernel
def fill_logs(words: Words, alpha: float, logs: Floats) -> None:
    """What `learn_multinomial` keeps of each word."""
    for s in range(words.size[0]):
        place = words.seen[s]
        for c in range(logs.shape[1]):
            logs[place, c] = math.log1p(words.weights[place, c] / alpha)
