"""Subtrees that are replaced where the stream changes, in a tree of a quantity: as alternates.py in
a tree of classes, with the size of errors in the place of whether there was one."""

from __future__ import annotations

import math

import numpy as np

from everlearn.base import Floats
from everlearn.learners.native.compile import inlined, lean_kernel
from everlearn.learners.native.drift.adwin import (
    adwin_mean,
    adwin_update,
    adwin_variance,
    adwin_width,
)
from everlearn.learners.native.scaling import size_in
from everlearn.learners.native.tree.alternates import (
    Care,
    Watch,
    begin_watching,
    clear_below,
    drop_alternate,
    errors_grow,
)
from everlearn.learners.native.tree.fitting import (
    answer,
    favour_promising,
    learn,
    least_promising,
    reach,
)
from everlearn.learners.native.tree.nodes import (
    BLOCK,
    BLOCKS,
    CHILD,
    DEPTH,
    FREE,
    FREE_BLOCKS,
    branch,
    enlarged,
    free_block,
    free_pair,
    take_pair,
)
from everlearn.learners.native.tree.regression import (
    N,
    RegressionRule,
    RegressionTree,
    begin_leaf,
)


def fitted_watch(watch: Watch, tree: RegressionTree) -> Watch:
    """The same watch with room for as many nodes as a tree has room for."""
    nodes = len(tree.values)
    return Watch(enlarged(watch.errors, nodes), enlarged(watch.alternates, nodes), np.zeros(2))


# --- answers -------------------------------------------------------------------------------------


@inlined
def ask_alternates(
    tree: RegressionTree, rule: RegressionRule, watch: Watch, x: Floats, z: Floats
) -> None:
    """Leave in `watch.answer` the sum of the answers of alternates on the way of (p + q,) x, and
    that of their weights."""
    watch.answer[0], watch.answer[1] = 0.0, 0.0
    node = 0
    while tree.nodes.links[node, CHILD] > 0:
        if watch.alternates[node] > 0:
            _ask(tree, rule, watch, x, z, watch.alternates[node])
        node = branch(tree.nodes, node, x)


@lean_kernel
def _ask(
    tree: RegressionTree, rule: RegressionRule, watch: Watch, x: Floats, z: Floats, root: int
) -> None:
    leaf = reach(tree, rule, x, z, root)
    add_answer(watch, tree, leaf, answer(tree, rule, leaf))


@inlined
def add_answer(watch: Watch, tree: RegressionTree, leaf: int, value: float) -> None:
    """Add the answer of a leaf that has learned anything, by the inverse of the square of its mean
    error, which begins as 1."""
    if tree.values[leaf, N] > 0.0:
        rows = adwin_width(watch.errors, leaf)
        error = (adwin_mean(watch.errors, leaf) * rows + 1.0) / (rows + 1.0)
        watch.answer[0] += value / (error * error)
        watch.answer[1] += 1.0 / (error * error)


# --- learning ------------------------------------------------------------------------------------


@inlined
def learn_and_watch(
    tree: RegressionTree,
    rule: RegressionRule,
    watch: Watch,
    care: Care,
    leaf: int,
    x: Floats,
    z: Floats,
    y: float,
    weight: float,
    size: float,
) -> None:
    """`learn` at the leaf that was reached, whose answer had an error of this size."""
    adwin_update(watch.errors, leaf, size)
    learn(tree, rule, leaf, x, z, y, weight)
    child = tree.nodes.links[leaf, CHILD]
    if child > 0:
        begin_watching(watch, care, child)
        begin_watching(watch, care, child + 1)


@inlined
def tend(
    tree: RegressionTree,
    rule: RegressionRule,
    watch: Watch,
    care: Care,
    x: Floats,
    z: Floats,
    leaf: int,
    y: float,
    weight: float,
    size: float,
    unit: float,
) -> None:
    """Take in at the splits above a leaf the size of its error about (p + q,) x, in this unit.
    Where errors have grown, an alternate begins; alternates learn the row, and stay, take over or
    go."""
    node = 0
    while node != leaf:
        child = branch(tree.nodes, node, x)
        if errors_grow(watch, node, size):
            _begin_alternate(tree, rule, watch, care, node)
        if watch.alternates[node] > 0:
            _teach_alternate(tree, rule, watch, care, node, x, z, y, weight, unit)
            better = _compare(watch, care, node)
            if better > 0:
                _take_over(tree, watch, node)
            elif better < 0:
                drop_alternate(tree.nodes, watch, node)
            if better != 0 and tree.nodes.used[BLOCKS] >= rule.max_blocks:
                favour_promising(tree, rule)
            if better > 0:
                return
        node = child


@lean_kernel
def _begin_alternate(
    tree: RegressionTree, rule: RegressionRule, watch: Watch, care: Care, node: int
) -> None:
    """Begin an alternate of a node as a leaf, in place of one that it may have. It collects
    statistics, if need be instead of the least promising leaf."""
    if watch.alternates[node] > 0:
        drop_alternate(tree.nodes, watch, node)
    root = take_pair(tree.nodes, rule.max_nodes)
    if root == 0:
        return
    if tree.nodes.used[FREE_BLOCKS] == 0 and tree.nodes.used[BLOCKS] >= rule.max_blocks:
        leaf, _ = least_promising(tree, rule)
        if leaf >= 0:
            free_block(tree.nodes, leaf)
    watch.alternates[node] = root
    tree.nodes.links[root, DEPTH] = tree.nodes.links[node, DEPTH]
    tree.nodes.links[root + 1, DEPTH] = FREE
    for place in range(tree.values.shape[1]):
        tree.values[root, place] = 0.0
    for j in range(tree.models.shape[1]):
        tree.models[root, j] = 0.0
    begin_watching(watch, care, root)
    begin_leaf(tree, rule, root)


@lean_kernel
def _teach_alternate(
    tree: RegressionTree,
    rule: RegressionRule,
    watch: Watch,
    care: Care,
    node: int,
    x: Floats,
    z: Floats,
    y: float,
    weight: float,
    unit: float,
) -> None:
    """Answer and learn a row below the root of a node's alternate. In there are no alternates."""
    root = watch.alternates[node]
    leaf = reach(tree, rule, x, z, root)
    begun = tree.values[leaf, N] > 0.0
    size = size_in(y - answer(tree, rule, leaf), unit) if begun else 1.0
    at = root
    while at != leaf:
        adwin_update(watch.errors, at, size)
        at = branch(tree.nodes, at, x)
    learn_and_watch(tree, rule, watch, care, leaf, x, z, y, weight, size)


@lean_kernel
def _compare(watch: Watch, care: Care, node: int) -> int:
    """1 if the alternate of a node is better than its own subtree, −1 if it is worse, else 0."""
    alternate = watch.alternates[node]
    own_rows, rows = adwin_width(watch.errors, node), adwin_width(watch.errors, alternate)
    if min(own_rows, rows) < care.least_rows:
        return 0
    apart = adwin_mean(watch.errors, node) - adwin_mean(watch.errors, alternate)
    spread = adwin_variance(watch.errors, node) / own_rows
    spread += adwin_variance(watch.errors, alternate) / rows
    if abs(apart) <= math.sqrt(2.0 * math.log(2.0 / care.significance) * spread):
        return 0
    return 1 if apart > 0.0 else -1


@lean_kernel
def _take_over(tree: RegressionTree, watch: Watch, node: int) -> None:
    """Put a node's alternate in the place of its own subtree."""
    nodes, links = tree.nodes, tree.nodes.links
    root = watch.alternates[node]
    watch.alternates[node] = 0
    clear_below(nodes, watch, node)
    for place in range(links.shape[1]):
        links[node, place] = links[root, place]
    nodes.cuts[node] = nodes.cuts[root]
    if links[node, BLOCK] >= 0:
        nodes.owners[links[node, BLOCK]] = node
    for place in range(tree.values.shape[1]):
        tree.values[node, place] = tree.values[root, place]
    for j in range(tree.models.shape[1]):
        tree.models[node, j] = tree.models[root, j]
    for place in range(watch.errors.shape[1]):
        watch.errors[node, place] = watch.errors[root, place]
    free_pair(nodes, root)
