"""Subtrees that are replaced where the stream changes, in a tree of classes.

Every node watches its errors with ADWIN. Where they grow, an alternate subtree begins to learn
beside the node's own; the better of the two stays (Bifet & Gavaldà 2009, "Adaptive learning from
evolving data streams", section 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from everlearn.base import Array, Floats, Ints
from everlearn.learners.native.compile import inlined, lean_kernel
from everlearn.learners.native.drift.adwin import (
    PARAMETERS,
    adwin_begin,
    adwin_mean,
    adwin_size,
    adwin_update,
    adwin_width,
)
from everlearn.learners.native.loading import like
from everlearn.learners.native.tree.learning import (
    answer,
    favour_promising,
    learn,
    least_promising,
    reach,
)
from everlearn.learners.native.tree.leaves import Rule, Tree, begin_leaf
from everlearn.learners.native.tree.nodes import (
    BLOCK,
    BLOCKS,
    CHILD,
    DEPTH,
    FREE,
    FREE_BLOCKS,
    MASK,
    Nodes,
    branch,
    enlarged,
    free_block,
    free_pair,
    take_pair,
)

LEVELS = 14
"""Of a node's ADWIN: its window is of up to 5 · 2**13 rows."""


class Care(NamedTuple):
    """When subtrees are replaced.

    Args:
        drift_delta: confidence of the detectors.
        least_rows: that a subtree and its alternate have answered before they are compared.
        significance: chance that the worse of the two is taken for the better.
    """

    drift_delta: float
    least_rows: float
    significance: float


class Watch(NamedTuple):
    """What is kept of each node beside the tree.

    Args:
        errors: (nodes, size) an ADWIN of whether the subtree was wrong.
        alternates: (nodes,) int64 the root of a node's alternate, 0 for none: the first of a pair
            whose second is not used.
        answer: (k,) the answer of the leaf that was reached last; no state.
    """

    errors: Floats
    alternates: Ints
    answer: Floats


SIZE = adwin_size(levels=LEVELS)
"""Numbers of an ADWIN."""

NODE_BYTES = 8 * (SIZE + 1)
"""What the watch takes for each node."""


def empty_watch() -> Watch:
    """A watch of no node."""
    return Watch(np.zeros((0, SIZE)), np.zeros(0, np.int64), np.zeros(0))


def fitted_watch(watch: Watch, tree: Tree) -> Watch:
    """The same watch with room for as many nodes and classes as a tree has room for."""
    nodes, classes = tree.counts.shape
    return Watch(
        enlarged(watch.errors, nodes), enlarged(watch.alternates, nodes), np.zeros(classes)
    )


def loaded_watch(arrays: Mapping[str, Array], links: Array) -> Watch:
    """The watch that was saved, of the nodes of which these are the links.

    Raises:
        InputError: its arrays are of other nodes, or of another type.
    """
    begun = np.zeros((len(links), SIZE)), np.zeros(len(links), np.int64)
    errors = like(begun[0], arrays["errors"], "errors")
    return Watch(errors, like(begun[1], arrays["alternates"], "alternates"), np.zeros(0))


def keep_care(nodes: Nodes, watch: Watch, care: Care) -> None:
    """Give all detectors of nodes in use the parameters that they would begin with."""
    begun = np.zeros((1, SIZE))
    adwin_begin(begun, 0, care.drift_delta)
    in_use = np.flatnonzero(nodes.links[:, DEPTH] != FREE)
    watch.errors[in_use, PARAMETERS] = begun[0, PARAMETERS]


@inlined
def unpacked_watch(arrays: Any) -> tuple[Watch, Care]:
    """The watch and its care of a plain tuple of their arrays."""
    return Watch(*arrays[:3]), Care(arrays[3][0], arrays[3][1], arrays[3][2])


# --- answers -------------------------------------------------------------------------------------


@inlined
def reach_and_answer(tree: Tree, rule: Rule, watch: Watch, x: Floats, root: int) -> int:
    """`reach` the leaf of (p + q,) x at or below a root, and leave its answer in `watch`."""
    leaf = reach(tree, rule, x, root)
    answer(tree, rule, leaf, watch.answer)
    return leaf


@inlined
def ask_alternates(tree: Tree, rule: Rule, watch: Watch, x: Floats, out: Floats) -> None:
    """Put the votes of the alternates on the way of (p + q,) x into out[:k]."""
    for c in range(len(watch.answer)):
        out[c] = 0.0
    node = 0
    while tree.nodes.links[node, CHILD] > 0:
        if watch.alternates[node] > 0:
            _ask(tree, rule, watch, x, watch.alternates[node], out)
        node = branch(tree.nodes, node, x)


@lean_kernel
def _ask(tree: Tree, rule: Rule, watch: Watch, x: Floats, root: int, out: Floats) -> None:
    add_vote(watch, reach_and_answer(tree, rule, watch, x, root), out)


@inlined
def add_vote(watch: Watch, leaf: int, out: Floats) -> None:
    """Add the answer of a leaf to out[:k], by the inverse of the square of its error rate."""
    rows = adwin_width(watch.errors, leaf)
    error = (adwin_mean(watch.errors, leaf) * rows + 1.0) / (rows + 2.0)
    for c in range(len(watch.answer)):
        out[c] += watch.answer[c] / (error * error)


# --- learning ------------------------------------------------------------------------------------


@inlined
def learn_and_watch(
    tree: Tree, rule: Rule, watch: Watch, care: Care, leaf: int, y: int, weight: float, wrong: float
) -> None:
    """`learn` at the leaf that was reached, whose answer was wrong, 1, or right, 0."""
    adwin_update(watch.errors, leaf, wrong)
    learn(tree, rule, leaf, y, weight)
    child = tree.nodes.links[leaf, CHILD]
    if child > 0:
        begin_watching(watch, care, child)
        begin_watching(watch, care, child + 1)


@lean_kernel
def begin_watching(watch: Watch, care: Care, node: int) -> None:
    """A node's window is empty, and it has no alternate."""
    watch.alternates[node] = 0
    for place in range(watch.errors.shape[1]):
        watch.errors[node, place] = 0.0
    adwin_begin(watch.errors, node, care.drift_delta)


@inlined
def tend(
    tree: Tree,
    rule: Rule,
    watch: Watch,
    care: Care,
    x: Floats,
    leaf: int,
    y: int,
    weight: float,
    wrong: float,
) -> None:
    """Take in at the splits above a leaf whether it was wrong about (p + q,) x. Where errors have
    grown, an alternate begins; alternates learn the row, and stay, take over or go."""
    node = 0
    while node != leaf:
        child = branch(tree.nodes, node, x)
        if errors_grow(watch, node, wrong):
            _begin_alternate(tree, rule, watch, care, node)
        if watch.alternates[node] > 0:
            _teach_alternate(tree, rule, watch, care, watch.alternates[node], x, y, weight)
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


@inlined
def errors_grow(watch: Watch, node: int, wrong: float) -> bool:
    before = adwin_mean(watch.errors, node)
    changed = adwin_update(watch.errors, node, wrong)
    return changed and adwin_mean(watch.errors, node) > before


@lean_kernel
def _begin_alternate(tree: Tree, rule: Rule, watch: Watch, care: Care, node: int) -> None:
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
    for c in range(tree.counts.shape[1]):
        tree.counts[root, c] = 0.0
    begin_watching(watch, care, root)
    begin_leaf(tree, rule, root)


@lean_kernel
def _teach_alternate(
    tree: Tree,
    rule: Rule,
    watch: Watch,
    care: Care,
    root: int,
    x: Floats,
    y: int,
    weight: float,
) -> None:
    """Answer and learn a row below the root of an alternate. In there are no alternates."""
    leaf = reach_and_answer(tree, rule, watch, x, root)
    wrong = 1.0 if largest(watch.answer) != y else 0.0
    node = root
    while node != leaf:
        adwin_update(watch.errors, node, wrong)
        node = branch(tree.nodes, node, x)
    learn_and_watch(tree, rule, watch, care, leaf, y, weight, wrong)


@lean_kernel
def _compare(watch: Watch, care: Care, node: int) -> int:
    """1 if the alternate of a node is better than its own subtree, −1 if it is worse, else 0."""
    alternate = watch.alternates[node]
    own_rows, rows = adwin_width(watch.errors, node), adwin_width(watch.errors, alternate)
    if min(own_rows, rows) < care.least_rows:
        return 0
    own = adwin_mean(watch.errors, node)
    apart = own - adwin_mean(watch.errors, alternate)
    spread = 2.0 * own * (1.0 - own) * math.log(2.0 / care.significance)
    if abs(apart) <= math.sqrt(spread * (1.0 / own_rows + 1.0 / rows)):
        return 0
    return 1 if apart > 0.0 else -1


@lean_kernel
def _take_over(tree: Tree, watch: Watch, node: int) -> None:
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
    for c in range(tree.counts.shape[1]):
        tree.counts[node, c] = tree.counts[root, c]
    for place in range(watch.errors.shape[1]):
        watch.errors[node, place] = watch.errors[root, place]
    free_pair(nodes, root)


@lean_kernel
def drop_alternate(nodes: Nodes, watch: Watch, node: int) -> None:
    root = watch.alternates[node]
    watch.alternates[node] = 0
    clear_below(nodes, watch, root)
    free_block(nodes, root)
    free_pair(nodes, root)


@lean_kernel
def clear_below(nodes: Nodes, watch: Watch, root: int) -> None:
    """Free all nodes below one, which becomes a leaf. Pairs that wait for it are in line: each has
    the next in the place of its mask."""
    links = nodes.links
    waiting = links[root, CHILD]
    if waiting == 0:
        return
    links[root, CHILD], links[waiting, MASK] = 0, 0
    while waiting > 0:
        pair, waiting = waiting, links[waiting, MASK]
        for node in (pair, pair + 1):
            free_block(nodes, node)
            for below in (links[node, CHILD], watch.alternates[node]):
                if below > 0:
                    links[below, MASK] = waiting
                    waiting = below
            watch.alternates[node] = 0
        free_pair(nodes, pair)


@inlined
def largest(votes: Floats) -> int:
    """The class with the largest vote, the first among equals."""
    best = 0
    for c in range(1, len(votes)):
        best = c if votes[c] > votes[best] else best
    return best
