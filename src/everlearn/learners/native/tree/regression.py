"""A tree of quantities: the statistics at its leaves, and how they begin, grow and are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from everlearn.base import Array, Floats, Hashes, InputError, Ints
from everlearn.learners.native.compile import inlined, lean_kernel
from everlearn.learners.native.loading import check_within
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

MEAN_ONLY, MODEL_ONLY, ADAPTIVE = range(3)
"""What a leaf answers: the mean of its targets, its linear model, or whichever was nearer of
late."""

N, MEAN, OFF_MEAN, OFF_MODEL = range(4)
"""Columns of `RegressionTree.values`: weight and mean of a node's targets, and the faded sums of
the squared errors of the mean and of the linear model."""

BEGUN, ATTEMPT, CENTRE = range(3)
"""Columns of `RegressionTree.tallies`: the leaf's weight when its block began and at its last
attempt to split, and what is subtracted from the targets that are summed up."""

WEIGHT, TARGET, ERROR, PLACE, SQUARE, PRODUCT = range(6)
"""What a bin holds of the rows that fell into it: their weight, and the weighted sums of their
targets, of the leaf's errors at the time (where leaves answer their mean, of the targets), of the
standardised number z, of z², and of z times the error. A bucket holds the same, with what the
leaf's linear model said less `CENTRE` as z."""

EDGES = 32
"""Places at which a column of numbers may be cut."""

NO_EDGE = 1e300
"""What stands where a column has no edge yet: all numbers are below."""


class RegressionRule(NamedTuple):
    """How a tree grows.

    Args:
        numbers, nominal: p and q, the columns of x.
        leaf: `MEAN_ONLY`, `MODEL_ONLY` or `ADAPTIVE`.
        max_depth: depth at which leaves are not split, the root being at 0.
        max_features: columns that a leaf draws when it is made; 0 for all.
        max_nodes, max_blocks: how many nodes there may be, and leaves that collect statistics.
        spare_nodes: nodes that splits leave to others.
        grace_period: weight that a leaf takes between attempts to split.
        delta: chance that the Hoeffding bound is wrong.
        tau: bound below which the best split is made, however close the next.
        min_samples_split: weight that each side of a split must have.
        learning_rate: of the linear models.
        decay: what is left of a squared error when the next one comes.
    """

    numbers: int
    nominal: int
    leaf: int
    max_depth: int
    max_features: int
    max_nodes: int
    max_blocks: int
    spare_nodes: int
    grace_period: float
    delta: float
    tau: float
    min_samples_split: float
    learning_rate: float
    decay: float


class RegressionDesk(NamedTuple):
    """Where kernels work, for they make no arrays.

    Args:
        model: (1,) what the linear model of the leaf that was reached says.
        sides: (2, 6) what the bins or buckets on the left and on the right of a split hold.
        order, mean: (64,) buckets, and the means of their errors, or how they grow with z.
    """

    model: Floats
    sides: Floats
    order: Ints
    mean: Floats


class RegressionTree(NamedTuple):
    """All of one tree of a quantity over p columns of numbers and q nominal ones.

    A block looks at m columns of numbers and at r nominal ones: all, or as many as were drawn.

    Args:
        nodes: the structure.
        values: (nodes, 4) see `N` … `OFF_MODEL`.
        models: (nodes, p + 1) coefficients of standardised numbers, and the intercept.
        edges: (blocks, m, 32) where columns of numbers may be cut, in ascending order.
        sizes: (blocks, m) how many edges a column has.
        bins: (blocks, m, 33, 6) of the numbers up to each edge and above the one before, and of
            those above the last; see `WEIGHT` … `PRODUCT`.
        buckets: (blocks, r, 64, 6) the same of each bucket of a nominal column.
        columns: (blocks, m + r) which columns of x a block looks at; −1 for none.
        tallies: (blocks, 3) see `BEGUN` … `CENTRE`.
        draws: (4,) generator from which leaves draw their columns.
        desk: what kernels leave for each other; no state.
    """

    nodes: Nodes
    values: Floats
    models: Floats
    edges: Floats
    sizes: Ints
    bins: Floats
    buckets: Floats
    columns: Ints
    tallies: Floats
    draws: Hashes
    desk: RegressionDesk


OF_NODES = ("links", "cuts", "values", "models")
"""State with a row for each node."""

OF_BLOCKS = ("owners", "edges", "sizes", "bins", "buckets", "columns", "tallies")
"""State with a row for each block."""

STATE = (*OF_NODES, *OF_BLOCKS, "used", "draws")


# --- beginning, growing, keeping -----------------------------------------------------------------


def begin_tree(rule: RegressionRule, *seed: int) -> RegressionTree:
    """A tree of one leaf that has learned nothing."""
    m, r = looked_at(rule)
    tree = RegressionTree(
        nodes=begin_nodes(3, 2),
        values=np.zeros((3, 4)),
        models=np.zeros((3, rule.numbers + 1)),
        edges=np.zeros((2, m, EDGES)),
        sizes=np.zeros((2, m), np.int64),
        bins=np.zeros((2, m, EDGES + 1, 6)),
        buckets=np.zeros((2, r, BUCKETS, 6)),
        columns=np.zeros((2, m + r), np.int64),
        tallies=np.zeros((2, 3)),
        draws=generator(*seed),
        desk=_desk(),
    )
    reset_tree(tree, rule)
    return tree


def looked_at(rule: RegressionRule) -> tuple[int, int]:
    """At how many columns of numbers, and nominal ones, a block can look."""
    if rule.max_features <= 0:
        return rule.numbers, rule.nominal
    return min(rule.numbers, rule.max_features), min(rule.nominal, rule.max_features)


def bytes_of(rule: RegressionRule) -> tuple[int, int]:
    """Bytes of a node, and of a block."""
    m, r = looked_at(rule)
    of_number, of_nominal = EDGES + 1 + 6 * (EDGES + 1) + 1, 6 * BUCKETS + 1
    return 8 * (6 + 1 + 4 + rule.numbers + 1), 8 * (1 + m * of_number + r * of_nominal + 3)


def larger_tree(tree: RegressionTree, rule: RegressionRule) -> RegressionTree:
    """The same tree in arrays with more room: what a kernel that ran short of it asks for."""
    nodes, blocks = len(tree.values), len(tree.tallies)
    rows = dict.fromkeys(OF_NODES, max(nodes, min(2 * nodes + 1, rule.max_nodes)))
    rows |= dict.fromkeys(OF_BLOCKS, max(blocks, min(2 * blocks + 1, rule.max_blocks)))
    arrays = _arrays(tree)
    return _tree(arrays | {name: enlarged(arrays[name], rows[name]) for name in rows})


def saved_tree(tree: RegressionTree) -> dict[str, Array]:
    """Copies of the arrays, without room that was never used."""
    nodes, blocks = int(tree.nodes.used[NODES]), int(tree.nodes.used[BLOCKS])
    rows = dict.fromkeys(OF_NODES, nodes) | dict.fromkeys(OF_BLOCKS, blocks)
    return {name: array[: rows.get(name)].copy() for name, array in _arrays(tree).items()}


def loaded_tree(
    tree: RegressionTree, arrays: Mapping[str, Array], rule: RegressionRule
) -> RegressionTree:
    """The tree that was saved, in the place of one that has just begun.

    Raises:
        InputError: the arrays are of another kind of tree, or of none.
    """
    made = _tree(loaded_arrays(_arrays(tree), arrays, OF_NODES, OF_BLOCKS))
    check_nodes(made.nodes, rule.numbers, rule.nominal)
    check_columns(made.columns, looked_at(rule)[0], rule.numbers, rule.nominal)
    check_within(made.sizes, 0, EDGES, "sizes")
    if (made.edges[np.arange(EDGES) >= made.sizes[:, :, None]] != NO_EDGE).any():
        raise InputError("there are more edges than sizes say")
    return made


def packed(tree: RegressionTree, rule: RegressionRule) -> tuple[Array, ...]:
    """A tree and its rule as a plain tuple of arrays, which a kernel that is called from Python
    takes faster than a tuple with names; `unpacked` is its inverse there."""
    return (*tree.nodes, *tree[1:-1], *tree.desk, np.array(rule, np.float64))


def _arrays(tree: RegressionTree) -> dict[str, Array]:
    return {name: getattr(tree.nodes if name in Nodes._fields else tree, name) for name in STATE}


def _tree(arrays: dict[str, Array]) -> RegressionTree:
    nodes = Nodes(**{name: arrays.pop(name) for name in Nodes._fields})
    return RegressionTree(nodes=nodes, **arrays, desk=_desk())


def _desk() -> RegressionDesk:
    return RegressionDesk(
        model=np.zeros(1),
        sides=np.zeros((2, 6)),
        order=np.zeros(BUCKETS, np.int64),
        mean=np.zeros(BUCKETS),
    )


# --- kernels -------------------------------------------------------------------------------------


@inlined
def unpacked(arrays: Any) -> tuple[RegressionTree, RegressionRule]:
    """The inverse of `packed`."""
    s = arrays[17]
    rule = RegressionRule(
        int(s[0]),
        int(s[1]),
        int(s[2]),
        int(s[3]),
        int(s[4]),
        int(s[5]),
        int(s[6]),
        int(s[7]),
        s[8],
        s[9],
        s[10],
        s[11],
        s[12],
        s[13],
    )
    return RegressionTree(Nodes(*arrays[:4]), *arrays[4:13], RegressionDesk(*arrays[13:17])), rule  # type: ignore[call-arg]


@lean_kernel
def reset_tree(tree: RegressionTree, rule: RegressionRule) -> None:
    """Make it a single leaf that has learned nothing; its generator goes on."""
    used, links = tree.nodes.used, tree.nodes.links
    for node in range(used[NODES]):  # what is left there would come back with the next splits
        tree.nodes.cuts[node] = 0.0
        for place in range(links.shape[1]):
            links[node, place] = 0
    used[NODES], used[BLOCKS], used[FREE_NODES], used[FREE_BLOCKS] = 1, 0, 0, 0
    links[0, BLOCK] = -1
    for place in range(tree.values.shape[1]):
        tree.values[0, place] = 0.0
    for j in range(tree.models.shape[1]):
        tree.models[0, j] = 0.0
    begin_leaf(tree, rule, 0)


@lean_kernel
def begin_leaf(tree: RegressionTree, rule: RegressionRule, leaf: int) -> None:
    """Let a leaf collect statistics, if the bound leaves a block for it."""
    block = take_block(tree.nodes, leaf, rule.max_blocks)
    if block < 0:
        return
    for j in range(tree.sizes.shape[1]):
        tree.sizes[block, j] = 0
        for b in range(EDGES):
            tree.edges[block, j, b] = NO_EDGE
        for b in range(EDGES + 1):
            for place in range(6):
                tree.bins[block, j, b, place] = 0.0
    for j in range(tree.buckets.shape[1]):
        for b in range(BUCKETS):
            for place in range(6):
                tree.buckets[block, j, b, place] = 0.0
    tree.tallies[block, BEGUN] = tree.values[leaf, N]
    tree.tallies[block, ATTEMPT] = tree.values[leaf, N]
    tree.tallies[block, CENTRE] = tree.values[leaf, MEAN]
    draw_columns(tree, rule, block)


@lean_kernel
def draw_columns(tree: RegressionTree, rule: RegressionRule, block: int) -> None:
    """Which columns a block looks at: all, or `max_features` of them, each as likely."""
    columns, of_all = tree.columns, rule.numbers + rule.nominal
    if rule.max_features <= 0:
        for j in range(of_all):
            columns[block, j] = j
        return
    for j in range(columns.shape[1]):
        columns[block, j] = -1
    left, number, nominal = rule.max_features, 0, tree.sizes.shape[1]
    for j in range(of_all):  # Knuth, "The art of computer programming", volume 2, 3.4.2, S
        if below(tree.draws, of_all - j) < left:
            left -= 1
            if j < rule.numbers:
                columns[block, number] = j
                number += 1
            else:
                columns[block, nominal] = j
                nominal += 1
