"""The nodes of a binary tree as arrays, and the way of a row through them.

Nothing in here knows what is predicted: trees of classes and of quantities keep their statistics in
blocks of their own, and a leaf that collects statistics has the number of one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from everlearn.base import Array, Floats, Hashes, Ints
from everlearn.learners.native.compile import inlined, lean_kernel
from everlearn.learners.native.random import mix
from everlearn.learners.native.rows import Rows

BUCKETS = 64
"""Categories of a nominal column are hashed into this many buckets, one bit of a mask each."""

CHILD, COLUMN, MASK, MISSING, DEPTH, BLOCK = range(6)
"""Columns of `Nodes.links`: the left child, 0 for a leaf (the right one comes after it); the column
of x that is split; of a nominal one the mask of the buckets that go right, 0 for numbers (which go
right if above the cut); where a missing value goes, 1 for right; the depth, 0 for the root; the
block of a leaf that collects statistics, −1 for none."""

FREE = -1
"""The depth of a node that is no part of the tree."""

NODES, BLOCKS, FREE_NODES, FREE_BLOCKS = range(4)
"""Places in `Nodes.used`: how many nodes and blocks were ever in use at once, and the first of
those that are free again: a left child, or a block + 1; 0 for none."""


class Nodes(NamedTuple):
    """The structure of one tree; node 0 is the root.

    Args:
        links: (nodes, 6) int64, see `CHILD` … `BLOCK`. A free left child's CHILD is the next free.
        cuts: (nodes,) float64 where a split of numbers cuts: left is x ≤ cut.
        owners: (blocks,) int64 the node that has a block; of a free one −1 − `FREE_BLOCKS` as it
            was, which makes a list.
        used: (4,) int64, see `NODES` … `FREE_BLOCKS`.
    """

    links: Ints
    cuts: Floats
    owners: Ints
    used: Ints


def begin_nodes(nodes: int, blocks: int) -> Nodes:
    """A root without a block, and room for this many nodes and blocks."""
    links = np.zeros((nodes, 6), np.int64)
    links[0, BLOCK] = -1
    used = np.array([1, 0, 0, 0], np.int64)
    return Nodes(links, np.zeros(nodes), np.zeros(blocks, np.int64), used)


def enlarged(array: Array, rows: int) -> Array:
    """The array with room for this many rows; what is new is 0."""
    larger = np.zeros((rows, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def features(rows: Rows) -> Floats:
    """(n, p + q) what trees take: numbers and times, then categories as buckets 0 … 63; NaN is
    missing."""
    dense = rows.dense()
    n, p = dense.shape
    q = rows.categories.shape[1]
    if q == 0:
        return dense
    x = np.empty((n, p + q))
    x[:, :p] = dense
    _place_in_buckets(rows.categories, x)
    return x


@lean_kernel
def _place_in_buckets(categories: Hashes, x: Floats) -> None:
    n, q = categories.shape
    p = x.shape[1] - q
    for i in range(n):
        for j in range(q):
            value = categories[i, j]
            if value == np.uint64(0):
                x[i, p + j] = np.nan
            else:
                bits = mix(value + np.uint64(j) * np.uint64(0x9E3779B97F4A7C15))
                x[i, p + j] = float(bits >> np.uint64(58))


@inlined
def branch(nodes: Nodes, node: int, x: Floats) -> int:
    """The child of a split node to which (p + q,) x goes."""
    links = nodes.links
    value = x[links[node, COLUMN]]
    if value != value:
        right = links[node, MISSING]
    elif links[node, MASK] != 0:
        right = (links[node, MASK] >> int(value)) & 1
    else:
        right = 1 if value > nodes.cuts[node] else 0
    return int(links[node, CHILD] + right)


@inlined
def leaf_of(nodes: Nodes, x: Floats, root: int = 0) -> int:
    """The leaf to which (p + q,) x goes, of the nodes at or below a root."""
    node = root
    while nodes.links[node, CHILD] > 0:
        node = branch(nodes, node, x)
    return node


@inlined
def short_of_room(nodes: Nodes, max_nodes: int, max_blocks: int, splits: int = 1) -> bool:
    """Whether the arrays are too small for splits that the bounds allow: a learner returns to
    Python then, which makes them larger, so that capacity never shows in what is learned."""
    used = nodes.used
    short_of_nodes = len(nodes.cuts) < min(used[NODES] + 2 * splits, max_nodes)
    short_of_blocks = len(nodes.owners) < min(used[BLOCKS] + 2 * splits, max_blocks)
    return bool(short_of_nodes or short_of_blocks)


@lean_kernel
def has_left(nodes: Nodes, max_nodes: int, wanted: int) -> bool:
    """Whether so many nodes could be taken within the bound."""
    found = max_nodes - nodes.used[NODES]
    left = nodes.used[FREE_NODES]
    while found < wanted and left > 0:
        found += 2
        left = nodes.links[left, CHILD]
    return bool(found >= wanted)


@lean_kernel
def take_pair(nodes: Nodes, max_nodes: int) -> int:
    """The first of two nodes side by side, both leaves without blocks at depth 0; 0 if there are
    none within the bound."""
    used, links = nodes.used, nodes.links
    left = used[FREE_NODES]
    if left > 0:
        used[FREE_NODES] = links[left, CHILD]
    elif used[NODES] + 2 <= max_nodes:
        left = used[NODES]
        used[NODES] += 2
    else:
        return 0
    for node in (left, left + 1):
        nodes.cuts[node] = 0.0
        for place in range(links.shape[1]):
            links[node, place] = 0
        links[node, BLOCK] = -1
    return int(left)


@lean_kernel
def free_pair(nodes: Nodes, left: int) -> None:
    """Give two nodes side by side back; their blocks and children are no longer theirs."""
    links = nodes.links
    for node in (left, left + 1):
        links[node, CHILD] = 0
        links[node, BLOCK] = -1
        links[node, DEPTH] = FREE
    links[left, CHILD] = nodes.used[FREE_NODES]
    nodes.used[FREE_NODES] = left


@lean_kernel
def split_node(
    nodes: Nodes, node: int, column: int, cut: float, mask: int, missing: int, max_nodes: int
) -> int:
    """Give a leaf two children, leaves without blocks; returns the left, or 0 if there is no room
    within the bound."""
    left = take_pair(nodes, max_nodes)
    if left == 0:
        return 0
    links = nodes.links
    links[left, DEPTH] = links[left + 1, DEPTH] = links[node, DEPTH] + 1
    links[node, CHILD] = left
    links[node, COLUMN] = column
    links[node, MASK] = mask
    links[node, MISSING] = missing
    nodes.cuts[node] = cut
    return left


@lean_kernel
def take_block(nodes: Nodes, node: int, max_blocks: int) -> int:
    """Give a leaf a block, whose statistics it must begin; −1 if there is none within the bound."""
    used = nodes.used
    block = used[FREE_BLOCKS] - 1
    if block >= 0:
        used[FREE_BLOCKS] = -1 - nodes.owners[block]
    elif used[BLOCKS] < max_blocks:
        block = used[BLOCKS]
        used[BLOCKS] += 1
    else:
        return -1
    nodes.owners[block] = node
    nodes.links[node, BLOCK] = block
    return int(block)


@lean_kernel
def free_block(nodes: Nodes, node: int) -> None:
    """Take a node's block away, if it has one."""
    block = nodes.links[node, BLOCK]
    if block >= 0:
        nodes.owners[block] = -1 - nodes.used[FREE_BLOCKS]
        nodes.used[FREE_BLOCKS] = block + 1
        nodes.links[node, BLOCK] = -1
