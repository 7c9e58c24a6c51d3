"""Trees from elsewhere: kernels check no index, so whatever leads them is checked on loading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from everlearn.base import Array, InputError, Ints
from everlearn.learners.native.loading import check_within, like
from everlearn.learners.native.tree.nodes import (
    BLOCK,
    BLOCKS,
    CHILD,
    COLUMN,
    DEPTH,
    FREE,
    FREE_BLOCKS,
    FREE_NODES,
    MASK,
    MISSING,
    NODES,
    Nodes,
)


def loaded_arrays(
    begun: Mapping[str, Array],
    given: Mapping[str, Array],
    of_nodes: Iterable[str],
    of_blocks: Iterable[str],
) -> dict[str, Array]:
    """Copies of the arrays of a tree that was saved, to stand in the place of one that has begun.

    Args:
        begun, given: the arrays of both trees by their names.
        of_nodes, of_blocks: which of them have a row for each node, or for each block, in use.

    Raises:
        InputError: one has another shape or type.
    """
    used = like(begun["used"], given["used"], "used")
    rows = dict.fromkeys(of_nodes, int(used[NODES])) | dict.fromkeys(of_blocks, int(used[BLOCKS]))
    for name, array in begun.items():
        shape = (rows[name], *array.shape[1:]) if name in rows else array.shape
        if given[name].shape != shape or given[name].dtype != array.dtype:
            raise InputError(f"{name} is {given[name].shape} of {given[name].dtype}, not {shape}")
    return {name: np.array(given[name], order="C") for name in begun}


def check_nodes(nodes: Nodes, numbers: int, nominal: int) -> None:
    """Raises `InputError` unless every way down ends at a leaf, and every pair of nodes and every
    block has one place: in the tree, or in the list of those that are free."""
    links, used = nodes.links, nodes.used
    if len(links) == 0:
        raise InputError("a tree has no node")
    child, depth = links[:, CHILD], links[:, DEPTH]
    _check_pairs(nodes, np.append(child, used[FREE_NODES]))
    split = (child > 0) & (depth != FREE)
    next_free = np.append(child[depth == FREE], used[FREE_NODES])
    next_free = next_free[next_free > 0]
    deeper = depth[split] + 1
    if (
        depth[0] != 0
        or depth.min() < FREE
        or any((depth[child[split] + side] != deeper).any() for side in (0, 1))
        or any((depth[next_free + side] != FREE).any() for side in (0, 1))
    ):
        raise InputError("the depths of nodes are not those of a tree")
    check_within(links[split, COLUMN], 0, numbers + nominal - 1, "columns of splits")
    check_within(links[split, MISSING], 0, 1, "sides of missing values")
    if (links[split, MASK] != 0)[links[split, COLUMN] < numbers].any():
        raise InputError("a column of numbers is split by categories")
    _check_blocks(nodes, (child == 0) & (depth != FREE))


def check_columns(columns: Ints, slots: int, numbers: int, nominal: int) -> None:
    """Raises `InputError` unless blocks look at columns of numbers in the first slots, and at
    nominal ones in the others; −1 is none."""
    check_within(columns[:, :slots], -1, numbers - 1, "columns of numbers")
    others = columns[:, slots:]
    check_within(others[others != -1], numbers, numbers + nominal - 1, "nominal columns")


def check_alternates(nodes: Nodes, alternates: Ints) -> None:
    """Raises `InputError` unless all alternates of nodes are trees of their own."""
    depth, free = nodes.links[:, DEPTH], nodes.used[FREE_NODES]
    _check_pairs(nodes, np.concatenate([nodes.links[:, CHILD], alternates, [free]]))
    having = np.flatnonzero(alternates)
    roots = alternates[having]
    if (depth[having] == FREE).any() or (depth[roots] != depth[having]).any():
        raise InputError("the depths of alternates are not those of their nodes")
    if (depth[roots + 1] != FREE).any():
        raise InputError("a node beside the root of an alternate is in use")


def _check_pairs(nodes: Nodes, referred: Ints) -> None:
    """Raises `InputError` unless these, without 0, are first nodes of different pairs."""
    referred = referred[referred != 0]
    check_within(referred, 1, len(nodes.links) - 2, "places of nodes")
    if (referred % 2 == 0).any() or len(np.unique(referred)) < len(referred):
        raise InputError("two nodes have the same child")


def _check_blocks(nodes: Nodes, leaf: Array) -> None:
    block, owners = nodes.links[:, BLOCK], nodes.owners
    having = np.flatnonzero(block != -1)
    check_within(block[having], 0, len(owners) - 1, "blocks of nodes")
    if (
        not leaf[having].all()
        or (owners[block[having]] != having).any()
        or np.count_nonzero(owners >= 0) != len(having)
    ):
        raise InputError("nodes have other blocks than blocks say")
    free = np.append(-1 - owners[owners < 0], nodes.used[FREE_BLOCKS])
    free = free[free != 0]
    check_within(free, 1, len(owners), "places of blocks")
    if (owners[free - 1] >= 0).any() or len(np.unique(free)) < len(free):
        raise InputError("a block is free twice, or is in use")
