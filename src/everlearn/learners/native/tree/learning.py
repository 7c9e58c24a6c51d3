"""One row at a time: what a tree of classes answers, and what it learns."""

from __future__ import annotations

import math

from everlearn.base import Floats
from everlearn.learners.native.compile import inlined, lean_kernel
from everlearn.learners.native.tree.leaves import (
    ADAPTIVE,
    ATTEMPT,
    BAYES,
    BAYES_RIGHT,
    BEGUN,
    GINI,
    MAJORITY,
    MAJORITY_RIGHT,
    Rule,
    Tree,
    begin_leaf,
)
from everlearn.learners.native.tree.nodes import (
    BLOCK,
    BLOCKS,
    BUCKETS,
    CHILD,
    DEPTH,
    FREE,
    FREE_BLOCKS,
    NODES,
    free_block,
    has_left,
    leaf_of,
    split_node,
)
from everlearn.learners.native.tree.splits import TINY, best_split, divide_at, divide_by
from everlearn.learners.native.tree.statistics import bayes, look, observe

LEAST_MERIT = 1e-10
"""A merit up to this is no more than rounding."""

HEAVIEST = 1e50
"""Weights are limited to this."""


@inlined
def reach(tree: Tree, rule: Rule, x: Floats, root: int = 0) -> int:
    """The leaf of (p + q,) x, with all that `answer` and `learn` need left in the tree. What was
    reached is good until something is learned or another row is reached."""
    leaf = leaf_of(tree.nodes, x, root)
    block = tree.nodes.links[leaf, BLOCK]
    if block >= 0:
        missing = look(tree, rule, block, x)
        if rule.leaf != MAJORITY:
            bayes(tree, leaf, block, missing)
    return leaf


@inlined
def answer(tree: Tree, rule: Rule, leaf: int, out: Floats) -> None:
    """Put the probabilities of classes for the row that was reached into out[:k]."""
    k = tree.counts.shape[1]
    block = tree.nodes.links[leaf, BLOCK]
    if block >= 0 and (
        rule.leaf == BAYES
        or (
            rule.leaf == ADAPTIVE
            and tree.tallies[block, BAYES_RIGHT] >= tree.tallies[block, MAJORITY_RIGHT]
        )
    ):
        for c in range(k):
            out[c] = tree.desk.votes[c]
        return
    total = 0.0
    for c in range(k):
        total += tree.counts[leaf, c]
    for c in range(k):
        out[c] = tree.counts[leaf, c] / total if total > TINY else 1.0 / k


@inlined
def learn(tree: Tree, rule: Rule, leaf: int, y: int, weight: float) -> None:
    """Learn that the row that was reached is of class y; weight is above 0.

    There must be room for a split: ask `short_of_room` before.
    """
    counts, tallies = tree.counts, tree.tallies
    weight = min(weight, HEAVIEST)
    block = tree.nodes.links[leaf, BLOCK]
    if block < 0:
        counts[leaf, y] += weight
        return
    total, most, likely = 0.0, 0, 0
    for c in range(counts.shape[1]):
        total += counts[leaf, c]
        most = c if counts[leaf, c] > counts[leaf, most] else most
        likely = c if tree.desk.votes[c] > tree.desk.votes[likely] else likely
    if rule.leaf == ADAPTIVE:
        tallies[block, MAJORITY_RIGHT] += weight if most == y or total == 0.0 else 0.0
        tallies[block, BAYES_RIGHT] += weight if likely == y and total > 0.0 else 0.0
    observe(tree, block, y, weight)
    counts[leaf, y] += weight
    total += weight
    if total - tallies[block, ATTEMPT] >= rule.grace_period:
        tallies[block, ATTEMPT] = total
        attempt(tree, rule, leaf, total)


@lean_kernel
def attempt(tree: Tree, rule: Rule, leaf: int, total: float) -> None:
    """Split a leaf of this weight if its best split beats the next by the Hoeffding bound, or if
    that bound is below tau (Hulten, Spencer & Domingos 2001; Domingos & Hulten 2000, table 1).

    A leaf that drew columns of which none gives a split begins anew with others, or it would stay
    as it is for as long as those columns are constant.
    """
    if not may_split(tree, rule, leaf, total):
        return
    classes = 0
    for c in range(tree.counts.shape[1]):
        classes += tree.counts[leaf, c] > 0.0
    block = tree.nodes.links[leaf, BLOCK]
    weight = total - tree.tallies[block, BEGUN]
    best, second, slot, cut, mask = best_split(tree, rule, block, weight)
    if slot < 0 and rule.max_features > 0:
        free_block(tree.nodes, leaf)
        begin_leaf(tree, rule, leaf)
        return
    span = 1.0 if rule.split == GINI else math.log2(float(classes))
    bound = span * math.sqrt(math.log(1.0 / rule.delta) / (2.0 * total))
    if best > LEAST_MERIT and (best - second > bound or bound < rule.tau):
        split_leaf(tree, rule, leaf, slot, cut, mask)


@lean_kernel
def may_split(tree: Tree, rule: Rule, leaf: int, total: float) -> bool:
    """Whether depth, memory and classes of a leaf allow a split."""
    most = 0.0
    for c in range(tree.counts.shape[1]):
        most = max(most, tree.counts[leaf, c])
    return (
        tree.nodes.links[leaf, DEPTH] < rule.max_depth
        and most <= rule.max_share * total
        and has_left(tree.nodes, rule.max_nodes, 2 + rule.spare_nodes)
    )


@lean_kernel
def split_leaf(tree: Tree, rule: Rule, leaf: int, slot: int, cut: float, mask: int) -> None:
    """Make a leaf a split with two leaves. Each begins with the weights of classes that the split
    gives it; missing values, and buckets not seen so far, go to the heavier one."""
    k, m = tree.counts.shape[1], tree.columns.shape[1] - len(tree.desk.bins)
    block = tree.nodes.links[leaf, BLOCK]
    if slot < m:
        divide_at(tree, block, slot, cut)
    else:
        divide_by(tree, block, slot - m, mask)
    left, right = tree.desk.left, tree.desk.right
    missing = 1 if right.sum() > left.sum() else 0
    if slot >= m and missing:
        for b in range(BUCKETS):
            weight = 0.0
            for c in range(k):
                weight += tree.buckets[block, c, slot - m, b]
            mask |= (1 if weight == 0.0 else 0) << b
    column = tree.columns[block, slot]
    child = split_node(tree.nodes, leaf, column, cut, mask, missing, rule.max_nodes)
    free_block(tree.nodes, leaf)
    for c in range(k):
        tree.counts[child, c] = left[c]
        tree.counts[child + 1, c] = right[c]
    begin_leaf(tree, rule, child)
    begin_leaf(tree, rule, child + 1)
    if tree.nodes.used[BLOCKS] >= rule.max_blocks:
        favour_promising(tree, rule)


@lean_kernel
def favour_promising(tree: Tree, rule: Rule) -> None:
    """While a leaf without a block promises more than one with a block, or while there are blocks
    that nobody has, let it have one (Kirkby 2007, "Improving Hoeffding trees", section 2.4)."""
    nodes = tree.nodes
    while True:
        worst, least = -1, -1.0
        if nodes.used[FREE_BLOCKS] == 0 and nodes.used[BLOCKS] >= rule.max_blocks:
            worst, least = least_promising(tree, rule)
        best, highest = -1, 0.0
        for node in range(nodes.used[NODES]):
            if nodes.links[node, CHILD] == 0 and nodes.links[node, BLOCK] < 0:
                of_node = promise(tree, rule, node)
                if of_node > highest:
                    best, highest = node, of_node
        if best < 0 or highest <= least:
            return
        if worst >= 0:
            free_block(nodes, worst)
        begin_leaf(tree, rule, best)


@lean_kernel
def least_promising(tree: Tree, rule: Rule) -> tuple[int, float]:
    """The leaf with a block that promises least, and what it promises; all blocks are taken."""
    worst, least = -1, math.inf
    for block in range(tree.nodes.used[BLOCKS]):
        of_block = promise(tree, rule, tree.nodes.owners[block])
        if of_block < least:
            worst, least = tree.nodes.owners[block], of_block
    return worst, least


@lean_kernel
def promise(tree: Tree, rule: Rule, leaf: int) -> float:
    """The weight that a leaf gets wrong by its majority class, which is what splits could gain."""
    depth = tree.nodes.links[leaf, DEPTH]
    if depth == FREE or depth >= rule.max_depth:
        return 0.0
    total, most = 0.0, 0.0
    for c in range(tree.counts.shape[1]):
        total += tree.counts[leaf, c]
        most = max(most, tree.counts[leaf, c])
    return total - most
