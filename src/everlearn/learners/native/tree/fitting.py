"""One row at a time: what a tree of a quantity answers, and what it learns."""

from __future__ import annotations

import math

from everlearn.base import Floats
from everlearn.learners.native.compile import inlined, lean_kernel
from everlearn.learners.native.tree.bins import (
    RIDGE,
    add_number,
    best_split,
    collect,
    divide,
    slope,
    variance,
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
from everlearn.learners.native.tree.regression import (
    ADAPTIVE,
    ATTEMPT,
    BEGUN,
    CENTRE,
    ERROR,
    MEAN,
    MEAN_ONLY,
    MODEL_ONLY,
    OFF_MEAN,
    OFF_MODEL,
    PLACE,
    TARGET,
    WEIGHT,
    N,
    RegressionRule,
    RegressionTree,
    begin_leaf,
)

LARGEST = 1e100
"""Numbers and targets are limited to ± this."""

HEAVIEST = 1e50
"""Weights are limited to this."""


@inlined
def reach(tree: RegressionTree, rule: RegressionRule, x: Floats, z: Floats, root: int = 0) -> int:
    """The leaf of (p + q,) x, with what `answer` and `learn` need left in the tree;
    (p,) z are its numbers, standardised. What was reached is good until something is learned or
    another row is reached."""
    leaf = leaf_of(tree.nodes, x, root)
    if rule.leaf != MEAN_ONLY:
        total = tree.models[leaf, rule.numbers]
        for j in range(rule.numbers):
            total += tree.models[leaf, j] * z[j]
        tree.desk.model[0] = total
    return leaf


@inlined
def by_model(tree: RegressionTree, rule: RegressionRule, leaf: int) -> bool:
    """Whether a leaf answers what its linear model says, not its mean."""
    values = tree.values
    return rule.leaf == MODEL_ONLY or (
        rule.leaf == ADAPTIVE and values[leaf, OFF_MODEL] <= values[leaf, OFF_MEAN]
    )


@inlined
def answer(tree: RegressionTree, rule: RegressionRule, leaf: int) -> float:
    """What the tree says of the row that was reached."""
    model, mean = tree.desk.model[0], tree.values[leaf, MEAN]
    return model if by_model(tree, rule, leaf) else mean  # type: ignore[no-any-return]


@inlined
def learn(
    tree: RegressionTree,
    rule: RegressionRule,
    leaf: int,
    x: Floats,
    z: Floats,
    y: float,
    weight: float,
) -> None:
    """Learn that y is the target of the row that was reached; weight is above 0.

    There must be room for a split: ask `short_of_room` before.
    """
    values = tree.values
    weight = min(weight, HEAVIEST)
    y = min(max(y, -LARGEST), LARGEST)
    if values[leaf, N] == 0.0:
        start_at(tree, rule, leaf, y)
    off_mean = y - values[leaf, MEAN]
    values[leaf, OFF_MEAN] = rule.decay * values[leaf, OFF_MEAN] + off_mean * off_mean
    off_model = 0.0
    if rule.leaf != MEAN_ONLY:
        off_model = min(max(y - tree.desk.model[0], -LARGEST), LARGEST)
        values[leaf, OFF_MODEL] = rule.decay * values[leaf, OFF_MODEL] + off_model * off_model
        fit(tree, rule, leaf, z, off_model, weight)
    values[leaf, N] += weight
    values[leaf, MEAN] += weight / values[leaf, N] * off_mean
    block = tree.nodes.links[leaf, BLOCK]
    if block >= 0:
        target = y - tree.tallies[block, CENTRE]
        error = target if rule.leaf == MEAN_ONLY else off_model
        observe(tree, leaf, block, x, z, error, target, weight)
        if values[leaf, N] - tree.tallies[block, ATTEMPT] >= rule.grace_period:
            tree.tallies[block, ATTEMPT] = values[leaf, N]
            attempt(tree, rule, leaf, block)


@inlined
def start_at(tree: RegressionTree, rule: RegressionRule, leaf: int, y: float) -> None:
    """Let the first target of all be what a leaf says, so that it need not be approached from 0."""
    tree.values[leaf, MEAN] = y
    tree.models[leaf, rule.numbers] = y
    tree.desk.model[0] = y
    if tree.nodes.links[leaf, BLOCK] >= 0:
        tree.tallies[tree.nodes.links[leaf, BLOCK], CENTRE] = y


@inlined
def fit(
    tree: RegressionTree, rule: RegressionRule, leaf: int, z: Floats, off: float, weight: float
) -> None:
    """Let the leaf's linear model descend the squared error of a row, as if in infinitely many
    steps: it never steps over the target, and twice the weight is twice the row (Karampatziakis &
    Langford 2011, "Online importance weight aware updates", table 1)."""
    models, p = tree.models, rule.numbers
    norm = 1.0
    for j in range(p):
        norm += z[j] * z[j]
    step = off * (1.0 - math.exp(-2.0 * rule.learning_rate * weight * norm)) / norm
    for j in range(p):
        models[leaf, j] += step * z[j]
    models[leaf, p] += step


@inlined
def observe(
    tree: RegressionTree,
    leaf: int,
    block: int,
    x: Floats,
    z: Floats,
    error: float,
    target: float,
    weight: float,
) -> None:
    """Learn how a row's error and target depend on each column that the block looks at."""
    m = tree.sizes.shape[1]
    whole = tree.values[leaf, N] - tree.tallies[block, BEGUN]
    for j in range(tree.columns.shape[1]):
        column = tree.columns[block, j]
        value = x[column] if column >= 0 else math.nan
        if value != value:
            continue
        if j < m:
            value = min(max(value, -LARGEST), LARGEST)
            add_number(tree, block, j, value, z[column], error, target, weight, whole)
        else:
            b = int(value)
            collect(tree.buckets[block, j - m, b], target - error, error, target, weight)


@lean_kernel
def attempt(tree: RegressionTree, rule: RegressionRule, leaf: int, block: int) -> None:
    """Split a leaf if the next best column reduces the sum of squares by clearly less than the
    best, by the Hoeffding bound of that ratio, or if the bound is below tau (Ikonomovska, Gama &
    Džeroski 2011, section 4.1).

    A leaf that drew columns of which none gives a split begins anew with others.
    """
    if tree.nodes.links[leaf, DEPTH] >= rule.max_depth:
        return
    if not has_left(tree.nodes, rule.max_nodes, 2 + rule.spare_nodes):
        return
    best, second, slot, cut, mask = best_split(tree, rule, block)
    if slot < 0 and rule.max_features > 0:
        free_block(tree.nodes, leaf)
        begin_leaf(tree, rule, leaf)
        return
    bound = math.sqrt(math.log(1.0 / rule.delta) / (2.0 * tree.values[leaf, N]))
    if best > 0.0 and (second < (1.0 - bound) * best or bound < rule.tau):
        split_leaf(tree, rule, leaf, block, slot, cut, mask)


@lean_kernel
def split_leaf(
    tree: RegressionTree,
    rule: RegressionRule,
    leaf: int,
    block: int,
    slot: int,
    cut: float,
    mask: int,
) -> None:
    """Make a leaf a split with two leaves. Each begins with the mean of the targets on its side and
    with the leaf's linear model and the line over its errors there; missing values, and buckets not
    seen so far, go to the heavier side. There is no split where the search took rounding for the
    weight of a side, as it may beside weights 1e16 times as large."""
    divide(tree, block, slot, cut, mask)
    sides, m = tree.desk.sides, tree.sizes.shape[1]
    if min(sides[0, WEIGHT], sides[1, WEIGHT]) < 0.5 * rule.min_samples_split:
        return
    missing = 1 if sides[1, WEIGHT] > sides[0, WEIGHT] else 0
    if slot >= m and missing:
        for b in range(BUCKETS):
            mask |= (1 if tree.buckets[block, slot - m, b, WEIGHT] == 0.0 else 0) << b
    flat = RIDGE * (1.0 if slot < m else variance(sides))
    column, centre = tree.columns[block, slot], tree.tallies[block, CENTRE]
    left = split_node(tree.nodes, leaf, column, cut, mask, missing, rule.max_nodes)
    free_block(tree.nodes, leaf)
    for side in range(2):
        child = left + side
        tree.values[child, N] = sides[side, WEIGHT]
        tree.values[child, MEAN] = centre + sides[side, TARGET] / sides[side, WEIGHT]
        tree.values[child, OFF_MEAN] = tree.values[leaf, OFF_MEAN]
        tree.values[child, OFF_MODEL] = tree.values[leaf, OFF_MODEL]
        for j in range(rule.numbers + 1):
            tree.models[child, j] = tree.models[leaf, j]
        if rule.leaf != MEAN_ONLY:
            steep = slope(sides, side, flat)
            level = (sides[side, ERROR] - steep * sides[side, PLACE]) / sides[side, WEIGHT]
            if slot < m:
                tree.models[child, column] += steep
            else:  # the line is over what the model says, less centre
                level -= steep * centre
                for j in range(rule.numbers + 1):
                    tree.models[child, j] *= 1.0 + steep
            tree.models[child, rule.numbers] += level
        begin_leaf(tree, rule, child)
    if tree.nodes.used[BLOCKS] >= rule.max_blocks:
        favour_promising(tree, rule)


@lean_kernel
def favour_promising(tree: RegressionTree, rule: RegressionRule) -> None:
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
def least_promising(tree: RegressionTree, rule: RegressionRule) -> tuple[int, float]:
    """The leaf with a block that promises least, and what it promises; all blocks are taken."""
    worst, least = -1, math.inf
    for block in range(tree.nodes.used[BLOCKS]):
        of_block = promise(tree, rule, tree.nodes.owners[block])
        if of_block < least:
            worst, least = tree.nodes.owners[block], of_block
    return worst, least


@lean_kernel
def promise(tree: RegressionTree, rule: RegressionRule, leaf: int) -> float:
    """The weight of a leaf times its squared error of late, which is what splits could gain."""
    depth = tree.nodes.links[leaf, DEPTH]
    if depth == FREE or depth >= rule.max_depth:
        return 0.0
    off = OFF_MODEL if by_model(tree, rule, leaf) else OFF_MEAN
    return tree.values[leaf, N] * tree.values[leaf, off]  # type: ignore[no-any-return]
