"""A tree of classes: the statistics at its leaves, and how they begin, grow and are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from everlearn.base import Array, Floats, Hashes, Ints
from everlearn.learners.native.compile import inlined, lean_kernel
from everlearn.learners.native.random import below, generator
from everlearn.learners.native.tree.loading import check_columns, check_nodes, loaded_arrays
from everlearn.learners.native.tree.nodes import (
    BLOCK,
    BLOCKS,
    BUCKETS,
    FREE_BLOCKS,
    FREE_NODES,
    NODES,
    Nodes,
    begin_nodes,
    enlarged,
    take_block,
)

MAJORITY, BAYES, ADAPTIVE = range(3)
"""What a leaf answers: its majority class, naive Bayes, or whichever was right more often."""

INFO_GAIN, GINI = range(2)
"""How a split is judged."""

LANES = 8
"""Columns of numbers that are kept side by side, so that they are learned at once."""

N, MEAN, M2, LOW, HIGH, PRECISION = range(0, 6 * LANES, LANES)
"""What is known of the numbers of a class in a column, each of `LANES` places: weight, mean, sum of
squared deviations, smallest, largest, and 1 / (2 variance), −1 if that is 0, and 0 before there is
any number."""

WHOLE = BUCKETS
"""The place after the buckets of a nominal column: the weight in all of them."""

BEGUN, ATTEMPT, MAJORITY_RIGHT, BAYES_RIGHT, SEEN = range(5)
"""Columns of `Tree.tallies`: the leaf's weight when its block began and at its last attempt to
split, the weight of rows that the majority class and that naive Bayes got right, and from `SEEN` on
for each nominal column how many of its buckets have weight."""


class Rule(NamedTuple):
    """How a tree grows.

    Args:
        numbers, nominal: p and q, the columns of x.
        leaf: `MAJORITY`, `BAYES` or `ADAPTIVE`.
        split: `INFO_GAIN` or `GINI`.
        n_splits: cuts that are tried of each column of numbers.
        max_depth: depth at which leaves are not split, the root being at 0.
        max_features: columns that a leaf draws when it is made; 0 for all.
        max_nodes, max_blocks: how many nodes there may be, and leaves that collect statistics.
        grace_period: weight that a leaf takes between attempts to split.
        delta: chance that the Hoeffding bound is wrong.
        tau: bound below which the best split is made, however close the next.
        min_branch_fraction: share of the weight that each side of a split must exceed.
        max_share: share of one class above which a leaf is not split.
        spare_nodes: nodes that splits leave to others.
    """

    numbers: int
    nominal: int
    leaf: int
    split: int
    n_splits: int
    max_depth: int
    max_features: int
    max_nodes: int
    max_blocks: int
    grace_period: float
    delta: float
    tau: float
    min_branch_fraction: float = 0.01
    max_share: float = 0.99
    spare_nodes: int = 0


class Desk(NamedTuple):
    """Where kernels work, for they make no arrays.

    Args:
        row: (groups, 8) what a block sees of a row's numbers; NaN is missing.
        flat: (8 groups,) the same memory.
        bins: (r,) the buckets of a row's nominal columns; −1 is missing.
        votes: (k,) probabilities of a row's classes by naive Bayes.
        left, right: (k,) weights of classes on the sides of a split.
        on_left, in_left, in_right, merit: (cuts,) of each cut of a column of numbers, the weight up
            to it, the order of classes on its sides, and its merit.
        order, share, weight: (64,) buckets, their shares of one class, and their weights.
    """

    row: Floats
    flat: Floats
    bins: Ints
    votes: Floats
    left: Floats
    right: Floats
    on_left: Floats
    in_left: Floats
    in_right: Floats
    merit: Floats
    order: Ints
    share: Floats
    weight: Floats


class Tree(NamedTuple):
    """All of one tree of k classes over p columns of numbers and q nominal ones.

    A block looks at m columns of numbers, in ⌈m / 8⌉ groups, and at r nominal ones: all, or as many
    as were drawn for it.

    Args:
        nodes: the structure.
        counts: (nodes, k) weight of each class.
        moments: (blocks, k, groups, 48) what is known of numbers, see `N` … `PRECISION`.
        norms: (blocks, k) half the logarithm of the product of 2π variance over columns of numbers.
        buckets: (blocks, k, r, 65) weight in each bucket of nominal columns, and in all.
        columns: (blocks, m + r) which columns of x a block looks at; −1 for none.
        tallies: (blocks, 4 + r) see `BEGUN` … `SEEN`.
        draws: (4,) generator from which leaves draw their columns.
        desk: what kernels leave for each other; no state.
    """

    nodes: Nodes
    counts: Floats
    moments: Floats
    norms: Floats
    buckets: Floats
    columns: Ints
    tallies: Floats
    draws: Hashes
    desk: Desk


OF_NODES = ("links", "cuts", "counts")
"""State with a row for each node."""

OF_BLOCKS = ("owners", "moments", "norms", "buckets", "columns", "tallies")
"""State with a row for each block."""

OF_CLASSES = ("counts", "moments", "norms", "buckets")
"""State whose second axis is classes."""

STATE = (*OF_NODES, *OF_BLOCKS, "used", "draws")


# --- beginning, growing, keeping -----------------------------------------------------------------


def begin_tree(classes: int, rule: Rule, *seed: int) -> Tree:
    """A tree of one leaf that has learned nothing."""
    m, r = looked_at(rule)
    groups = -(-m // LANES)
    tree = Tree(
        nodes=begin_nodes(3, 2),
        counts=np.zeros((3, classes)),
        moments=np.zeros((2, classes, groups, 6 * LANES)),
        norms=np.zeros((2, classes)),
        buckets=np.zeros((2, classes, r, BUCKETS + 1)),
        columns=np.zeros((2, m + r), np.int64),
        tallies=np.zeros((2, SEEN + r)),
        draws=generator(*seed),
        desk=_desk(groups, r, classes, rule.n_splits),
    )
    reset_tree(tree, rule)
    return tree


def looked_at(rule: Rule) -> tuple[int, int]:
    """At how many columns of numbers, and nominal ones, a block can look."""
    if rule.max_features <= 0:
        return rule.numbers, rule.nominal
    return min(rule.numbers, rule.max_features), min(rule.nominal, rule.max_features)


def bytes_of(m: int, r: int, classes: int) -> tuple[int, int]:
    """Bytes of a node, and of a block that looks at m columns of numbers and r nominal ones."""
    of_class = -(-m // LANES) * 6 * LANES + 1 + r * (BUCKETS + 1)
    return 8 * (6 + 1 + classes), 8 * (1 + classes * of_class + m + r + SEEN + r)


def larger_tree(tree: Tree, rule: Rule) -> Tree:
    """The same tree in arrays with more room: what a kernel that ran short of it asks for."""
    nodes, blocks = len(tree.counts), len(tree.norms)
    rows = dict.fromkeys(OF_NODES, max(nodes, min(2 * nodes + 1, rule.max_nodes)))
    rows |= dict.fromkeys(OF_BLOCKS, max(blocks, min(2 * blocks + 1, rule.max_blocks)))
    arrays = _arrays(tree)
    arrays |= {name: enlarged(arrays[name], rows[name]) for name in rows}
    return _tree(arrays, len(tree.desk.merit))


def grown_tree(tree: Tree, classes: int, rule: Rule) -> Tree:
    """The same tree with more classes, of which it has learned nothing. Where it has more blocks
    than the rule allows now, the least promising leaves lose theirs."""
    arrays = _arrays(tree)
    known = tree.counts.shape[1]
    for name in OF_CLASSES:
        array = arrays[name]
        arrays[name] = np.zeros((len(array), classes, *array.shape[2:]))
        arrays[name][:, :known] = array
    if tree.nodes.used[BLOCKS] > rule.max_blocks:
        _drop_blocks(arrays, rule.max_blocks)
    return _tree(arrays, len(tree.desk.merit))


def saved_tree(tree: Tree) -> dict[str, Array]:
    """Copies of the arrays, without room that was never used."""
    nodes, blocks = int(tree.nodes.used[NODES]), int(tree.nodes.used[BLOCKS])
    rows = dict.fromkeys(OF_NODES, nodes) | dict.fromkeys(OF_BLOCKS, blocks)
    return {name: array[: rows.get(name)].copy() for name, array in _arrays(tree).items()}


def loaded_tree(tree: Tree, arrays: Mapping[str, Array], rule: Rule) -> Tree:
    """The tree that was saved, in the place of one that has just begun.

    Raises:
        InputError: the arrays are of another kind of tree, or of none.
    """
    made = _tree(loaded_arrays(_arrays(tree), arrays, OF_NODES, OF_BLOCKS), len(tree.desk.merit))
    check_nodes(made.nodes, rule.numbers, rule.nominal)
    check_columns(made.columns, looked_at(rule)[0], rule.numbers, rule.nominal)
    return made


def _arrays(tree: Tree) -> dict[str, Array]:
    return {name: getattr(tree.nodes if name in Nodes._fields else tree, name) for name in STATE}


def _tree(arrays: dict[str, Array], cuts: int) -> Tree:
    nodes = Nodes(**{name: arrays.pop(name) for name in Nodes._fields})
    groups, r, classes = (arrays["moments"].shape[2], *arrays["buckets"].shape[2:0:-1])
    return Tree(nodes=nodes, **arrays, desk=_desk(groups, r, classes, cuts))


def _desk(groups: int, r: int, classes: int, n_splits: int) -> Desk:
    flat = np.full(groups * LANES, np.nan)
    cuts = -(-n_splits // LANES) * LANES
    return Desk(
        row=flat.reshape(groups, LANES),
        flat=flat,
        bins=np.full(r, -1, np.int64),
        votes=np.zeros(classes),
        left=np.zeros(classes),
        right=np.zeros(classes),
        on_left=np.zeros(cuts),
        in_left=np.zeros(cuts),
        in_right=np.zeros(cuts),
        merit=np.zeros(cuts),
        order=np.zeros(BUCKETS, np.int64),
        share=np.zeros(BUCKETS),
        weight=np.zeros(BUCKETS),
    )


def _drop_blocks(arrays: dict[str, Array], most: int) -> None:
    """Leave blocks to so many leaves, those with the most weight outside their majority class."""
    used, links, owners = arrays["used"], arrays["links"], arrays["owners"]
    taken = np.flatnonzero(owners[: used[BLOCKS]] >= 0)
    counts = arrays["counts"][owners[taken]]
    promise = counts.sum(axis=1) - counts.max(axis=1)
    kept = np.sort(taken[np.argsort(-promise, kind="stable")[:most]])
    links[owners[taken], BLOCK] = -1
    links[owners[kept], BLOCK] = np.arange(len(kept))
    for name in OF_BLOCKS:
        arrays[name] = np.ascontiguousarray(arrays[name][kept])
    used[BLOCKS], used[FREE_BLOCKS] = len(kept), 0


# --- kernels -------------------------------------------------------------------------------------


def packed(tree: Tree, rule: Rule) -> tuple[Array, ...]:
    """A tree and its rule as a plain tuple of arrays, which a kernel that is called from Python
    takes four times faster than a tuple with names; `unpacked` is its inverse there."""
    settings = np.array(rule, np.float64)
    return (*tree.nodes, *tree[1:-1], *tree.desk, settings)


@inlined
def unpacked(arrays: Any) -> tuple[Tree, Rule]:
    """The inverse of `packed`."""
    s = arrays[24]
    rule = Rule(
        int(s[0]),
        int(s[1]),
        int(s[2]),
        int(s[3]),
        int(s[4]),
        int(s[5]),
        int(s[6]),
        int(s[7]),
        int(s[8]),
        s[9],
        s[10],
        s[11],
        s[12],
        s[13],
        int(s[14]),
    )
    nodes, desk = Nodes(*arrays[:4]), Desk(*arrays[11:24])
    return Tree(nodes, *arrays[4:11], desk), rule  # type: ignore[call-arg]


@lean_kernel
def reset_tree(tree: Tree, rule: Rule) -> None:
    """Make it a single leaf that has learned nothing; its generator goes on."""
    used, links = tree.nodes.used, tree.nodes.links
    for node in range(used[NODES]):  # what is left there would come back with the next splits
        tree.nodes.cuts[node] = 0.0
        for place in range(links.shape[1]):
            links[node, place] = 0
    used[NODES], used[BLOCKS], used[FREE_NODES], used[FREE_BLOCKS] = 1, 0, 0, 0
    links[0, BLOCK] = -1
    tree.counts[0, :] = 0.0
    begin_leaf(tree, rule, 0)


@lean_kernel
def begin_leaf(tree: Tree, rule: Rule, leaf: int) -> None:
    """Let a leaf collect statistics, if the bound leaves a block for it."""
    block = take_block(tree.nodes, leaf, rule.max_blocks)
    if block < 0:
        return
    weight = 0.0
    for c in range(tree.counts.shape[1]):
        weight += tree.counts[leaf, c]
        tree.norms[block, c] = 0.0
        for g in range(tree.moments.shape[2]):
            for place in range(6 * LANES):
                tree.moments[block, c, g, place] = 0.0
        for j in range(tree.buckets.shape[2]):
            for place in range(BUCKETS + 1):
                tree.buckets[block, c, j, place] = 0.0
    for place in range(tree.tallies.shape[1]):
        tree.tallies[block, place] = 0.0
    tree.tallies[block, BEGUN] = weight
    tree.tallies[block, ATTEMPT] = weight
    draw_columns(tree, rule, block)


@lean_kernel
def draw_columns(tree: Tree, rule: Rule, block: int) -> None:
    """Which columns a block looks at: all, or `max_features` of them, each as likely."""
    columns, of_all = tree.columns, rule.numbers + rule.nominal
    if rule.max_features <= 0:
        for j in range(of_all):
            columns[block, j] = j
        return
    for j in range(columns.shape[1]):
        columns[block, j] = -1
    left, number, nominal = rule.max_features, 0, columns.shape[1] - tree.buckets.shape[2]
    for j in range(of_all):  # Knuth, "The art of computer programming", volume 2, 3.4.2, S
        if below(tree.draws, of_all - j) < left:
            left -= 1
            if j < rule.numbers:
                columns[block, number] = j
                number += 1
            else:
                columns[block, nominal] = j
                nominal += 1
