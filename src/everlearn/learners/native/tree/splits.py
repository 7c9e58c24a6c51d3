"""The search for the best split of a leaf."""

from __future__ import annotations

import math

from everlearn.base import Floats
from everlearn.learners.native.compile import inlined, lean_kernel
from everlearn.learners.native.tree.approximations import log2_of, normal_share
from everlearn.learners.native.tree.leaves import (
    GINI,
    HIGH,
    LANES,
    LOW,
    MEAN,
    PRECISION,
    WHOLE,
    Desk,
    N,
    Rule,
    Tree,
)
from everlearn.learners.native.tree.nodes import BUCKETS

TINY = 1e-300
"""In place of 0 where there is a logarithm; a weight up to this is none."""

ORDERINGS = 4
"""Buckets of a nominal column are ordered by the share of each of so many classes."""


@lean_kernel
def best_split(
    tree: Tree, rule: Rule, block: int, weight: float
) -> tuple[float, float, int, float, int]:
    """The best split of a block that has learned rows of this weight, against that of the next best
    column; not to split is one of merit 0. A column's merit counts for the share of the weight of
    which its value is known (Quinlan 1993, "C4.5", section 3.1).

    Returns:
        Merit of the best and of the next, the best's slot among the block's columns (−1 if it is no
        split), its cut, its mask.
    """
    m = tree.columns.shape[1] - len(tree.desk.bins)
    best, second, slot, cut, mask = 0.0, 0.0, -1, 0.0, 0
    for j in range(tree.columns.shape[1]):
        if tree.columns[block, j] < 0:
            continue
        gain, at, these = 0.0, 0.0, 0
        if j < m:
            gain, at = best_cut(tree, rule, block, j)
        else:
            gain, these = best_mask(tree, rule, block, j - m)
        gain /= weight
        if gain > best:
            best, second, slot, cut, mask = gain, best, j, at, these
        elif gain > second:
            second = gain
    return best, second, slot, cut, mask


@inlined
def best_cut(tree: Tree, rule: Rule, block: int, j: int) -> tuple[float, float]:
    """Merit and place of the best of `n_splits` equally spaced cuts of a column of numbers."""
    desk, g, lane = tree.desk, j // LANES, j % LANES
    low, high = math.inf, -math.inf
    for c in range(len(desk.left)):
        desk.left[c] = tree.moments[block, c, g, N + lane]
        if desk.left[c] > 0.0:
            low = min(low, tree.moments[block, c, g, LOW + lane])
            high = max(high, tree.moments[block, c, g, HIGH + lane])
    best, place = 0.0, 0.0
    if not low < high:
        return best, place
    step = (high - low) / (rule.n_splits + 1.0)
    divide_at_all(tree, rule, block, j, low, step)
    judge_all(desk, rule)
    for i in range(rule.n_splits):
        cut = low + step * (i + 1.0)
        if low < cut < high and desk.merit[i] > best:
            best, place = desk.merit[i], cut
    return best, place


@inlined
def divide_at_all(tree: Tree, rule: Rule, block: int, j: int, low: float, step: float) -> None:
    """Leave in `on_left` the weight up to each cut, and in `in_left` and `in_right` the sums over
    classes of what `ordered` makes of their weights."""
    desk, g, lane = tree.desk, j // LANES, j % LANES
    for i in range(len(desk.merit)):
        desk.on_left[i] = desk.in_left[i] = desk.in_right[i] = 0.0
    for c in range(len(desk.left)):
        n = tree.moments[block, c, g, N + lane]
        if n == 0.0:
            continue
        least, most = tree.moments[block, c, g, LOW + lane], tree.moments[block, c, g, HIGH + lane]
        mean = tree.moments[block, c, g, MEAN + lane]
        scale = math.sqrt(2.0 * max(tree.moments[block, c, g, PRECISION + lane], 0.0))
        for i in range(len(desk.merit)):
            left = n * share_up_to(low + step * (i + 1.0), least, most, mean, scale)
            desk.on_left[i] += left
            desk.in_left[i] += ordered(rule, left)
            desk.in_right[i] += ordered(rule, n - left)


@inlined
def judge_all(desk: Desk, rule: Rule) -> None:
    """Leave in `merit` how much less disorder each cut leaves on its sides than there is in the
    `left` weights of classes, all of which are divided; 0 if nearly all is on one side."""
    total = desk.left.sum()
    whole = disorder(rule, desk.left)
    for i in range(len(desk.merit)):
        on_left = desk.on_left[i]
        on_right = total - on_left
        gain = whole - disorder_in(rule, on_left, desk.in_left[i])
        gain -= disorder_in(rule, on_right, desk.in_right[i])
        desk.merit[i] = gain if min(on_left, on_right) > rule.min_branch_fraction * total else 0.0


@inlined
def share_up_to(cut: float, least: float, most: float, mean: float, scale: float) -> float:
    """The share of a class up to a cut, by its Gaussian within what was seen."""
    share = normal_share((cut - mean) * scale)
    share = 0.0 if cut < least else share
    return 1.0 if cut >= most else share


@lean_kernel
def divide_at(tree: Tree, block: int, j: int, cut: float) -> None:
    """Leave in `left` and `right` the weights of classes up to a cut and above it."""
    g, lane = j // LANES, j % LANES
    for c in range(len(tree.desk.left)):
        n = tree.moments[block, c, g, N + lane]
        least, most = tree.moments[block, c, g, LOW + lane], tree.moments[block, c, g, HIGH + lane]
        mean = tree.moments[block, c, g, MEAN + lane]
        scale = math.sqrt(2.0 * max(tree.moments[block, c, g, PRECISION + lane], 0.0))
        tree.desk.left[c] = n * share_up_to(cut, least, most, mean, scale)
        tree.desk.right[c] = n - tree.desk.left[c]


@lean_kernel
def best_mask(tree: Tree, rule: Rule, block: int, j: int) -> tuple[float, int]:
    """Merit of the best division of a nominal column's buckets in two, and those that go right.

    For two classes the best of all divisions is found among those of buckets in order of a class's
    share (Breiman, Friedman, Olshen & Stone 1984, "Classification and regression trees", theorem
    4.5); for more, orders by the shares of the `ORDERINGS` most frequent classes are tried.
    """
    left, right, order = tree.desk.left, tree.desk.right, tree.desk.order
    k, n = len(left), list_buckets(tree, block, j)
    best, mask, previous = 0.0, 0, -1
    for _ in range(1 if k == 2 else min(k, ORDERINGS)):
        previous = next_frequent(tree, block, j, previous)
        sort_by_share(tree, block, j, previous, n)
        for c in range(k):
            left[c], right[c] = tree.buckets[block, c, j, WHOLE], 0.0
        whole, these = disorder(rule, left), 0
        for i in range(n - 1, 0, -1):
            these |= 1 << order[i]
            for c in range(k):
                left[c] -= tree.buckets[block, c, j, order[i]]
                right[c] += tree.buckets[block, c, j, order[i]]
            gain = merit(tree, rule, whole)
            if gain > best:
                best, mask = gain, these
    return best, mask


@lean_kernel
def list_buckets(tree: Tree, block: int, j: int) -> int:
    """Leave the weights of buckets in `weight`, and those that have any in `order[:n]`; returns
    n."""
    n = 0
    for b in range(BUCKETS):
        weight = 0.0
        for c in range(tree.counts.shape[1]):
            weight += tree.buckets[block, c, j, b]
        tree.desk.weight[b] = weight
        if weight > 0.0:
            tree.desk.order[n] = b
            n += 1
    return n


@lean_kernel
def next_frequent(tree: Tree, block: int, j: int, previous: int) -> int:
    """The most frequent class after the previous, or of all after −1; the lower among equals."""
    best = -1
    for c in range(tree.counts.shape[1]):
        weight = tree.buckets[block, c, j, WHOLE]
        if previous >= 0:
            before = tree.buckets[block, previous, j, WHOLE]
            if weight > before or (weight == before and c <= previous):
                continue
        if best < 0 or weight > tree.buckets[block, best, j, WHOLE]:
            best = c
    return best


@lean_kernel
def sort_by_share(tree: Tree, block: int, j: int, c: int, n: int) -> None:
    """Sort the first n buckets of `order` by their shares of class c, equal ones by themselves."""
    order, share = tree.desk.order, tree.desk.share
    for i in range(n):
        b = order[i]
        share[b] = tree.buckets[block, c, j, b] / tree.desk.weight[b]
    for i in range(1, n):
        moved, at = order[i], i
        while at > 0 and (
            share[order[at - 1]] > share[moved]
            or (share[order[at - 1]] == share[moved] and order[at - 1] > moved)
        ):
            order[at] = order[at - 1]
            at -= 1
        order[at] = moved


@lean_kernel
def divide_by(tree: Tree, block: int, j: int, mask: int) -> None:
    """Leave in `left` and `right` the weight of each class in the buckets of a nominal column that
    go there."""
    left, right = tree.desk.left, tree.desk.right
    for c in range(len(left)):
        left[c], right[c] = 0.0, 0.0
        for b in range(BUCKETS):
            if (mask >> b) & 1:
                right[c] += tree.buckets[block, c, j, b]
            else:
                left[c] += tree.buckets[block, c, j, b]


@inlined
def merit(tree: Tree, rule: Rule, whole: float) -> float:
    """How much less disorder there is in `left` and `right` than in the whole of both; 0 if nearly
    all is on one side."""
    on_left, on_right = tree.desk.left.sum(), tree.desk.right.sum()
    if min(on_left, on_right) <= rule.min_branch_fraction * (on_left + on_right):
        return 0.0
    return whole - disorder(rule, tree.desk.left) - disorder(rule, tree.desk.right)


@inlined
def disorder(rule: Rule, weights: Floats) -> float:
    """The entropy in bits, or the Gini index, of weights of classes, times their sum."""
    total, inside = 0.0, 0.0
    for c in range(len(weights)):
        total += weights[c]
        inside += ordered(rule, weights[c])
    return disorder_in(rule, total, inside)


@inlined
def ordered(rule: Rule, weight: float) -> float:
    """What the weight of a class, from 0, adds to the order of those with which it is."""
    return weight * weight if rule.split == GINI else weight * log2_of(max(weight, TINY))


@inlined
def disorder_in(rule: Rule, total: float, inside: float) -> float:
    """The disorder of weights from their sum and that of what `ordered` makes of them."""
    total = max(total, TINY)
    return total - inside / total if rule.split == GINI else total * log2_of(total) - inside
