"""What a leaf learns of a row, and the answer of naive Bayes that it gives."""

from __future__ import annotations

import math

import numpy as np

from everlearn.base import Floats
from everlearn.learners.native.compile import inlined, lean_kernel
from everlearn.learners.native.tree.leaves import (
    HIGH,
    LOW,
    M2,
    MEAN,
    PRECISION,
    SEEN,
    WHOLE,
    N,
    Rule,
    Tree,
)
from everlearn.learners.native.tree.splits import TINY

LARGEST = 1e100
"""Numbers are limited to ± this."""

SMALLEST = 1e-100
"""A variance up to this is none, as is one up to `ROUNDING` of the mean's square."""

ROUNDING = 1e-28

UNHEARD_OF = 700.0
"""By how much the logarithm of a density falls for a value that a class never had in a column in
which it has had one value, or none."""

LOG_PI = math.log(math.pi)

_MANTISSA = 0x000FFFFFFFFFFFFF
_ONE = 0x3FF0000000000000


@inlined
def look(tree: Tree, rule: Rule, block: int, x: Floats) -> bool:
    """Leave what a block sees of (p + q,) x in `row` and `bins`; whether a number is missing."""
    flat, columns = tree.desk.flat, tree.columns
    m = columns.shape[1] - len(tree.desk.bins)
    missing = 0
    if rule.max_features <= 0:
        for j in range(m):
            value = x[j]
            missing += value != value
            flat[j] = math.copysign(LARGEST, value) if abs(value) > LARGEST else value
    else:
        for j in range(m):
            value = x[max(columns[block, j], 0)]
            missing += value != value
            value = math.copysign(LARGEST, value) if abs(value) > LARGEST else value
            flat[j] = value if columns[block, j] >= 0 else math.nan
    for j in range(len(tree.desk.bins)):
        column = columns[block, m + j]
        value = x[column] if column >= 0 else math.nan
        tree.desk.bins[j] = int(value) if value == value else -1
    return missing > 0


@inlined
def observe(tree: Tree, block: int, y: int, weight: float) -> None:
    """Learn that what is in `row` and `bins` is of class y (West 1979, "Updating mean and variance
    estimates")."""
    moments, row = tree.moments, tree.desk.row
    product, exponents, known, norm = 1.0, 0, 0, 0.0
    for g in range(row.shape[0]):
        for lane in range(row.shape[1]):
            value = row[g, lane]
            there = value == value
            before = moments[block, y, g, N + lane]
            mean = moments[block, y, g, MEAN + lane]
            n = before + (weight if there else 0.0)
            apart = value - mean if there else 0.0
            step = weight * apart / n if before > 0.0 else apart
            m2 = moments[block, y, g, M2 + lane] + weight * apart * (apart - step)
            low, high = moments[block, y, g, LOW + lane], moments[block, y, g, HIGH + lane]
            below_all = there and (before == 0.0 or value < low)
            above_all = there and (before == 0.0 or value > high)
            varies = n > 1.0 and m2 > n * (SMALLEST + ROUNDING * mean * mean)
            precision = 0.5 * (n - 1.0) / m2 if varies else (-1.0 if n > 0.0 else 0.0)
            moments[block, y, g, N + lane] = n
            moments[block, y, g, MEAN + lane] = mean + step
            moments[block, y, g, M2 + lane] = m2
            moments[block, y, g, LOW + lane] = value if below_all else low
            moments[block, y, g, HIGH + lane] = value if above_all else high
            moments[block, y, g, PRECISION + lane] = precision
            # The logarithm of a product of precisions, by its mantissas and its exponents.
            bits = np.float64(precision if varies else 1.0).view(np.int64)
            known += 1 if varies else 0
            exponents += int(bits >> 52) - 1023
            product *= np.int64((bits & _MANTISSA) | _ONE).view(np.float64)
        if product > LARGEST:
            norm -= math.log(product)
            product = 1.0
    norm += known * LOG_PI - math.log(product) - exponents * math.log(2.0)
    tree.norms[block, y] = 0.5 * norm
    for j in range(len(tree.desk.bins)):
        if tree.desk.bins[j] >= 0:
            fill(tree, block, y, j, tree.desk.bins[j], weight)


@lean_kernel
def fill(tree: Tree, block: int, y: int, j: int, bucket: int, weight: float) -> None:
    """Put a row of class y into a bucket of a nominal column."""
    if tree.buckets[block, y, j, bucket] == 0.0:
        seen = False
        for c in range(tree.buckets.shape[1]):
            seen = seen or tree.buckets[block, c, j, bucket] > 0.0
        if not seen:
            tree.tallies[block, SEEN + j] += 1.0
    tree.buckets[block, y, j, bucket] += weight
    tree.buckets[block, y, j, WHOLE] += weight


@inlined
def bayes(tree: Tree, leaf: int, block: int, missing: bool) -> None:
    """Leave the probabilities of classes by naive Bayes, given `row` and `bins`, in `votes`:
    Gaussians for numbers; for a bucket its share of a class, with 1 added to each that was seen.
    """
    votes, counts = tree.desk.votes, tree.counts
    best = -math.inf
    for c in range(len(votes)):
        if counts[leaf, c] > 0.0:
            votes[c] = log_likelihood(tree, block, c, missing)
            best = max(best, votes[c])
    total = 0.0
    for c in range(len(votes)):
        if counts[leaf, c] > 0.0:
            votes[c] = counts[leaf, c] * math.exp(votes[c] - best)
            total += votes[c]
        else:
            votes[c] = 0.0
    for c in range(len(votes)):
        votes[c] = votes[c] / total if total > TINY else 1.0 / len(votes)


@inlined
def log_likelihood(tree: Tree, block: int, c: int, missing: bool) -> float:
    """The logarithm of the density of the row in class c."""
    moments, row = tree.moments, tree.desk.row
    distance = 0.0
    for g in range(row.shape[0]):
        for lane in range(row.shape[1]):
            value = row[g, lane]
            apart = value - moments[block, c, g, MEAN + lane]
            precision = moments[block, c, g, PRECISION + lane]
            scaled = apart * apart * precision
            if precision <= 0.0:
                scaled = 0.0 if precision < 0.0 and apart == 0.0 else UNHEARD_OF
            distance += scaled if value == value else 0.0
    result = -distance - tree.norms[block, c]
    if missing:
        for g in range(row.shape[0]):
            for lane in range(row.shape[1]):
                precision = moments[block, c, g, PRECISION + lane]
                if row[g, lane] != row[g, lane] and precision > 0.0:
                    result += 0.5 * (LOG_PI - math.log(precision))
    share = 1.0
    for j in range(len(tree.desk.bins)):
        bucket = tree.desk.bins[j]
        if bucket >= 0:
            seen = max(tree.tallies[block, SEEN + j], 1.0)
            share *= (tree.buckets[block, c, j, bucket] + 1.0) / (
                tree.buckets[block, c, j, WHOLE] + seen
            )
            if share < SMALLEST:
                result += math.log(share)
                share = 1.0
    return float(result + math.log(share)) if len(tree.desk.bins) else float(result)
