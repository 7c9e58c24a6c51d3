"""How errors depend on one column at a leaf, and where that column is best cut.

Numbers fall into bins between edges. The first 32 values of a column that differ are its edges, so
that small leaves are split exactly. From then on, a bin that holds much of the leaf's weight is cut
in two at the value that falls into it, and the two lightest neighbours become one: edges follow the
values, in whatever unit they are and wherever they go, and memory stays as it is. In between, rows
are added to their bin, which a split at an edge divides exactly (Ben-Haim & Tom-Tov 2010, "A
streaming parallel decision tree algorithm"; Mastelini & de Carvalho 2021, "Using dynamical
quantization to perform split attempts in online tree regressors").

A split of a leaf that answers its mean is judged by how much it reduces the sum of squares of the
targets (Ikonomovska, Gama & Džeroski 2011, "Learning model trees from evolving data streams"). Of
a leaf with a linear model, it is the sum of squares of the model's errors, and a line on each side
is compared with one line over both: what one line says is the model's to learn, and jumps and bends
are a split's (so does Loh 2002, "Regression trees with unbiased variable selection and interaction
detection", judge by the patterns of errors). For a nominal column, lines are over what the model
said: some categories may want more of it, and others less.
"""

from __future__ import annotations

from everlearn.base import Floats
from everlearn.learners.native.compile import inlined, lean_kernel
from everlearn.learners.native.tree.nodes import BUCKETS
from everlearn.learners.native.tree.regression import (
    EDGES,
    ERROR,
    MEAN_ONLY,
    NO_EDGE,
    PLACE,
    PRODUCT,
    SQUARE,
    TARGET,
    WEIGHT,
    RegressionRule,
    RegressionTree,
)

HEAVY = 2.0 / EDGES
"""A bin of a larger share of the leaf's weight is cut in two."""

RIDGE = 60.0
"""What keeps a line over errors flat: as so many rows do that are a standard deviation away."""


@inlined
def bin_of(tree: RegressionTree, block: int, j: int, value: float) -> int:
    """The bin of a value: how many edges are below it. All are compared, several at once."""
    below = 0
    for place in range(tree.edges.shape[2]):  # a constant range is not done several at once
        below += 1 if tree.edges[block, j, place] < value else 0
    return below


@inlined
def add_number(
    tree: RegressionTree,
    block: int,
    j: int,
    value: float,
    z: float,
    error: float,
    target: float,
    weight: float,
    whole: float,
) -> None:
    """Learn a row's error and target, given its number in a column and z, the same standardised;
    `whole` is the weight of all rows of the block."""
    b = bin_of(tree, block, j, value)
    if tree.sizes[block, j] < EDGES and tree.edges[block, j, min(b, EDGES - 1)] != value:
        insert_edge(tree, block, j, b, value)
    elif tree.bins[block, j, b, WEIGHT] > HEAVY * whole:
        b = refine(tree, block, j, b, value)
    collect(tree.bins[block, j, b], z, error, target, weight)


@inlined
def collect(held: Floats, z: float, error: float, target: float, weight: float) -> None:
    """Add a row to what a bin or a bucket holds."""
    held[WEIGHT] += weight
    held[TARGET] += weight * target
    held[ERROR] += weight * error
    held[PLACE] += weight * z
    held[SQUARE] += weight * z * z
    held[PRODUCT] += weight * z * error


@lean_kernel
def refine(tree: RegressionTree, block: int, j: int, b: int, value: float) -> int:
    """Cut bin b in two at a value, if two lighter neighbours can become one for it; half of what it
    holds is taken to be in either part. Returns the bin of the value."""
    edges, bins, size = tree.edges, tree.bins, tree.sizes[block, j]
    if b < size and edges[block, j, b] == value:
        return b
    if size == EDGES:
        lightest, least = -1, 0.5 * bins[block, j, b, WEIGHT]
        for i in range(size):
            both = bins[block, j, i, WEIGHT] + bins[block, j, i + 1, WEIGHT]
            if both < least and i != b and i + 1 != b:
                lightest, least = i, both
        if lightest < 0:
            return b
        remove_edge(tree, block, j, lightest)
        b -= 1 if lightest < b else 0
    insert_edge(tree, block, j, b, value)
    for place in range(6):
        bins[block, j, b + 1, place] *= 0.5
        bins[block, j, b, place] = bins[block, j, b + 1, place]
    return b


@lean_kernel
def insert_edge(tree: RegressionTree, block: int, j: int, b: int, value: float) -> None:
    """Put an edge at a value in bin b; what the bin holds goes to the upper part, b + 1."""
    edges, bins, size = tree.edges, tree.bins, tree.sizes[block, j]
    for i in range(size, b, -1):
        edges[block, j, i] = edges[block, j, i - 1]
    edges[block, j, b] = value
    for place in range(6):
        for i in range(size + 1, b, -1):
            bins[block, j, i, place] = bins[block, j, i - 1, place]
        bins[block, j, b, place] = 0.0
    tree.sizes[block, j] = size + 1


@lean_kernel
def remove_edge(tree: RegressionTree, block: int, j: int, b: int) -> None:
    """Make one of the bins b and b + 1."""
    edges, bins, size = tree.edges, tree.bins, tree.sizes[block, j]
    for i in range(b, size - 1):
        edges[block, j, i] = edges[block, j, i + 1]
    edges[block, j, size - 1] = NO_EDGE
    for place in range(6):
        bins[block, j, b, place] += bins[block, j, b + 1, place]
        for i in range(b + 1, size):
            bins[block, j, i, place] = bins[block, j, i + 1, place]
        bins[block, j, size, place] = 0.0
    tree.sizes[block, j] = size - 1


@lean_kernel
def best_split(
    tree: RegressionTree, rule: RegressionRule, block: int
) -> tuple[float, float, int, float, int]:
    """The best split of a block, against that of the next best column; none is one of merit 0.

    Returns:
        Merit of the best and of the next, the best's slot among the block's columns (−1 if it is no
        split), its cut, its mask.
    """
    m = tree.sizes.shape[1]
    best, second, slot, cut, mask = 0.0, 0.0, -1, 0.0, 0
    for j in range(tree.columns.shape[1]):
        if tree.columns[block, j] < 0:
            continue
        gain, at, these = 0.0, 0.0, 0
        if j < m:
            gain, at = best_cut(tree, rule, block, j)
        else:
            gain, these = best_mask(tree, rule, block, j - m)
        if gain > best:
            best, second, slot, cut, mask = gain, best, j, at, these
        elif gain > second:
            second = gain
    return best, second, slot, cut, mask


@lean_kernel
def best_cut(tree: RegressionTree, rule: RegressionRule, block: int, j: int) -> tuple[float, float]:
    """By how much the best cut of a column of numbers reduces the sum of squares, and where it
    is. One line over both sides is not kept flat, so that a steep line is no reason to cut it."""
    size, sides = tree.sizes[block, j], tree.desk.sides
    for place in range(6):
        sides[0, place], sides[1, place] = 0.0, 0.0
        for b in range(size + 1):
            sides[1, place] += tree.bins[block, j, b, place]
    whole = explained(sides, 1, rule, 0.0)
    best, cut = 0.0, 0.0
    for b in range(size):
        for place in range(6):
            sides[0, place] += tree.bins[block, j, b, place]
            sides[1, place] -= tree.bins[block, j, b, place]
        if min(sides[0, WEIGHT], sides[1, WEIGHT]) >= rule.min_samples_split:
            gain = explained(sides, 0, rule, RIDGE) + explained(sides, 1, rule, RIDGE) - whole
            if gain > best:
                best, cut = gain, tree.edges[block, j, b]
    return best, cut


@inlined
def explained(sides: Floats, side: int, rule: RegressionRule, flat: float) -> float:
    """The part of the sum of squares on a side that its mean or, where leaves have linear models,
    its line explains, less the penalty of ridge regression."""
    n, error = sides[side, WEIGHT], sides[side, ERROR]
    if n <= 0.0:
        return 0.0
    square = error * (error / n)
    if rule.leaf != MEAN_ONLY:
        product = sides[side, PRODUCT] - sides[side, PLACE] * (error / n)
        square += slope(sides, side, flat) * product
    return square  # type: ignore[no-any-return]


@inlined
def slope(sides: Floats, side: int, flat: float) -> float:
    """By how much errors on a side grow with z, by ridge regression that adds `flat` to the sum of
    squares of z."""
    mean = sides[side, PLACE] / sides[side, WEIGHT]
    square = max(sides[side, SQUARE] - sides[side, PLACE] * mean, 0.0)
    product = sides[side, PRODUCT] - sides[side, ERROR] * mean
    return product / (square + flat) if square > 0.0 else 0.0


@lean_kernel
def best_mask(tree: RegressionTree, rule: RegressionRule, block: int, j: int) -> tuple[float, int]:
    """By how much the best division of a nominal column's buckets reduces the sum of squares, and
    which buckets go right. Where means are compared, the best of all divisions is one of those in
    the order of the buckets' means (Fisher 1958, "On grouping for maximum homogeneity"; Breiman et
    al. 1984). Where lines are, divisions in the order of slopes are tried, too."""
    sides = tree.desk.sides
    for place in range(6):
        sides[0, place], sides[1, place] = 0.0, 0.0
        for b in range(BUCKETS):
            sides[0, place] += tree.buckets[block, j, b, place]
    flat = RIDGE * variance(sides)
    known = sort_buckets(tree, block, j, flat, False)
    best, mask = best_in_order(tree, rule, block, j, known, flat)
    if rule.leaf != MEAN_ONLY and known > 2:
        sort_buckets(tree, block, j, flat, True)
        gain, these = best_in_order(tree, rule, block, j, known, flat)
        if gain > best:
            best, mask = gain, these
    return best, mask


@lean_kernel
def sort_buckets(tree: RegressionTree, block: int, j: int, flat: float, by_slope: bool) -> int:
    """Leave in `order` the buckets that hold rows, by the means of their errors or by how these
    grow with z. Returns how many they are."""
    order, mean, known = tree.desk.order, tree.desk.mean, 0
    for b in range(BUCKETS):
        held = tree.buckets[block, j, b : b + 1]
        if held[0, WEIGHT] <= 0.0:
            continue
        mean[b] = slope(held, 0, flat) if by_slope else held[0, ERROR] / held[0, WEIGHT]
        at = known
        while at > 0 and mean[order[at - 1]] > mean[b]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = b
        known += 1
    return known


@lean_kernel
def best_in_order(
    tree: RegressionTree, rule: RegressionRule, block: int, j: int, known: int, flat: float
) -> tuple[float, int]:
    """The best division of so many buckets, of which `sides` hold the sums, into the first of
    `order` and those after them."""
    sides, order = tree.desk.sides, tree.desk.order
    for place in range(6):
        sides[0, place], sides[1, place] = sides[0, place] + sides[1, place], 0.0
    whole = explained(sides, 0, rule, flat)
    best, mask, these = 0.0, 0, 0
    for i in range(known - 1, 0, -1):
        these |= 1 << order[i]
        for place in range(6):
            sides[0, place] -= tree.buckets[block, j, order[i], place]
            sides[1, place] += tree.buckets[block, j, order[i], place]
        if min(sides[0, WEIGHT], sides[1, WEIGHT]) >= rule.min_samples_split:
            gain = explained(sides, 0, rule, flat) + explained(sides, 1, rule, flat) - whole
            if gain > best:
                best, mask = gain, these
    return best, mask


@inlined
def variance(sides: Floats) -> float:
    """The variance of z on both sides together."""
    n = sides[0, WEIGHT] + sides[1, WEIGHT]
    if n <= 0.0:
        return 0.0
    mean = (sides[0, PLACE] + sides[1, PLACE]) / n
    square = (sides[0, SQUARE] + sides[1, SQUARE]) / n
    return max(square - mean * mean, 0.0)  # type: ignore[no-any-return]


@lean_kernel
def divide(tree: RegressionTree, block: int, slot: int, cut: float, mask: int) -> None:
    """Leave in `sides` what bins or buckets hold on the sides of a split."""
    sides, m = tree.desk.sides, tree.sizes.shape[1]
    for place in range(6):
        sides[0, place], sides[1, place] = 0.0, 0.0
        if slot < m:
            for b in range(tree.sizes[block, slot] + 1):
                above = b == tree.sizes[block, slot] or tree.edges[block, slot, b] > cut
                sides[1 if above else 0, place] += tree.bins[block, slot, b, place]
        else:
            for b in range(BUCKETS):
                sides[(mask >> b) & 1, place] += tree.buckets[block, slot - m, b, place]
