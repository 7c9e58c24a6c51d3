"""Half-space trees over a window of rows: made from it, and gone down by other rows."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from everlearn.base import Floats, Hashes, Ints
from everlearn.learners.native.compile import kernel, lean_kernel
from everlearn.learners.native.random import mix
from everlearn.learners.native.row_window import ROWS, TINY, WEIGHT, Window, find_range

SIZE_LIMIT = 0.1
"""A part with no more than this share of a window's rows is not divided (paper, section 4.2)."""


class Forest(NamedTuple):
    """All trees as kernels see them. Node 0 is the root; the right child follows the left.

    Args:
        children: (n_trees, room) left child of each node, 0 if it is not divided.
        columns: (n_trees, room) which column divides it: numbers, times, then categories.
        middles: (n_trees, room) values from here on are in the right child.
        values: (n_trees, room) how usual the node's rows are; over all trees at most 1.
        shifts: (n_trees, d) where in each range the tree's own one is centred, from 0 to 1.
        keys: (n_trees,) uint64 what the tree draws its columns by.
    """

    children: Ints
    columns: Ints
    middles: Floats
    values: Floats
    shifts: Floats
    keys: Hashes


def new_forest(trees: int, depth: int, dense: int, seed: int) -> Forest:
    """Trees that are not divided, over so many numbers and times."""
    # of the parts of one size, fewer than 1 / SIZE_LIMIT are divided
    nodes = (trees, 1 + 2 * depth * math.ceil(1.0 / SIZE_LIMIT))
    draws = np.random.default_rng([seed % 2**63, 1])
    return Forest(
        children=np.zeros(nodes, np.int64),
        columns=np.zeros(nodes, np.int64),
        middles=np.zeros(nodes),
        values=np.zeros(nodes),
        shifts=draws.random((trees, dense)),
        keys=draws.integers(0, 2**64, trees, np.uint64),
    )


@lean_kernel
def score(
    X: Floats,
    categories: Hashes,
    start: int,
    stop: int,
    reference: Window,
    forest: Forest,
    out: Floats,
) -> None:
    """Take every row down every tree, to a node that is not divided (algorithm 2)."""
    if reference.filled[ROWS] == 0.0:
        out[start:stop, 0] = 0.0
        return
    children, columns, middles = forest.children, forest.columns, forest.middles
    values, keys = forest.values, forest.keys
    for i in range(start, stop):
        usual = 0.0
        for tree in range(children.shape[0]):
            node = 0
            while children[tree, node] > 0:
                left = children[tree, node]
                value = _value(X, categories, i, columns[tree, node], keys[tree])
                right = value >= middles[tree, node]
                if math.isnan(value):
                    right = values[tree, left + 1] > values[tree, left]
                node = left + 1 if right else left
            usual += values[tree, node]
        out[i, 0] = max(1.0 - usual, 0.0)


@lean_kernel
def _value(X: Floats, categories: Hashes, i: int, column: int, key: int) -> float:
    """A row's number, or its category as a number from 0 to 1 that depends on the tree."""
    if column < X.shape[1]:
        return float(X[i, column])
    category = categories[i, column - X.shape[1]]
    if category == 0:
        return math.nan
    return float(mix(category ^ (key + np.uint64(column))) >> np.uint64(11)) * 2.0**-53


@kernel
def build(window: Window, forest: Forest, ranges: Floats, found: int, depth: int) -> None:
    """Make all trees those of a window's rows."""
    ranges, extents = ranges.copy(), _extents(window)
    for column in range(found):
        find_range(window, column, ranges)
    for tree in range(forest.children.shape[0]):
        _grow(window, forest, tree, ranges, extents, depth)


@kernel
def _grow(
    window: Window, forest: Forest, tree: int, ranges: Floats, extents: Floats, depth: int
) -> None:
    """Divide nodes from the root down while they hold many rows (algorithms 1 and 3)."""
    rows, total = int(window.filled[ROWS]), window.filled[WEIGHT]
    most_parts = 2.0**depth
    most = forest.children.shape[0] * math.log1p(max(total * most_parts, TINY))
    room, key = forest.children.shape[1], forest.keys[tree]
    boxes = np.empty((room, ranges.shape[0] + window.categories.shape[1], 2))  # a node's space
    _work_range(forest.shifts[tree], ranges, boxes[0])
    order = np.arange(rows)  # the rows of a node, from its start to its stop
    starts, stops, names = np.zeros(room, np.int64), np.full(room, rows), np.ones(room, np.uint64)
    masses, parts = np.full(room, total), np.ones(room)  # of how many such parts space consists
    node, used = 0, 1
    while node < used:
        forest.values[tree, node] = math.log1p(masses[node] * parts[node]) / most
        forest.children[tree, node] = 0
        if masses[node] > SIZE_LIMIT * total and parts[node] < most_parts:
            column = _column(names[node], key, boxes.shape[1])
            middle = 0.5 * (boxes[node, column, 0] + boxes[node, column, 1])
            start, stop = starts[node], stops[node]
            cut, left, right = stop, masses[node], 0.0
            if middle <= extents[column, 0]:
                cut, left, right = start, 0.0, masses[node]
            elif middle <= extents[column, 1]:
                cut, left, right = _divide(window, order, start, stop, column, middle, key)
            forest.columns[tree, node], forest.middles[tree, node] = column, middle
            forest.children[tree, node] = used
            starts[used], stops[used], masses[used] = start, cut, left
            starts[used + 1], stops[used + 1], masses[used + 1] = cut, stop, right
            for side in range(2):
                boxes[used + side] = boxes[node]
                boxes[used + side, column, 1 - side] = middle
                parts[used + side] = 2.0 * parts[node]
                names[used + side] = np.uint64(2) * names[node] + np.uint64(side)
            used += 2
        node += 1


@kernel
def _extents(window: Window) -> Floats:
    """Lowest and highest value of each column: all rows are on one side of a middle beyond these.
    A column that some rows lack has no lowest one, for they go left where nothing is known."""
    dense, columns = window.numbers.shape[1], window.numbers.shape[1] + window.categories.shape[1]
    extents = np.empty((columns, 2))
    extents[:, 0], extents[:, 1] = -math.inf, math.inf
    for column in range(dense):
        low, high = math.inf, -math.inf
        for row in range(int(window.filled[ROWS])):
            value = window.numbers[row, column]
            low = -math.inf if math.isnan(value) else min(low, value)
            high = value if value > high else high
        extents[column, 0], extents[column, 1] = low, high
    return extents


@lean_kernel
def _divide(
    window: Window, order: Ints, start: int, stop: int, column: int, middle: float, key: int
) -> tuple[int, float, float]:
    """Put rows below the middle before the others; where these begin, and what both weigh."""
    mass, right, missing = 0.0, 0.0, 0.0
    cut = start
    for place in range(start, stop):
        row = order[place]
        value = _value(window.numbers, window.categories, row, column, key)
        weight = window.weights[row]
        order[place], order[cut] = order[cut], row
        above = value >= middle
        cut += 0 if above else 1
        mass += weight
        right += weight if above else 0.0
        missing += weight if math.isnan(value) else 0.0
    left = max(mass - right, 0.0)
    if missing > 0.0 and right > left - missing:  # what is missing is on the wrong side
        stop, cut = cut, start
        for place in range(start, stop):
            row = order[place]
            order[place], order[cut] = order[cut], row
            if not math.isnan(_value(window.numbers, window.categories, row, column, key)):
                cut += 1
        left, right = max(left - missing, 0.0), right + missing
    return cut, left, right


@lean_kernel
def _column(name: int, key: int, columns: int) -> int:
    """The column that divides a node: evenly drawn by a hash, so that it is always the same."""
    bits = mix(key ^ name) >> np.uint64(32)
    return int((bits * np.uint64(columns)) >> np.uint64(32))


@lean_kernel
def _work_range(shifts: Floats, ranges: Floats, box: Floats) -> None:
    """The space of a tree's root. If a column's range were from 0 to 1, the tree's would be
    s ± 2 max(s, 1 − s) with an s from there (section 3.1); that of a category is from 0 to 1."""
    for column in range(len(box)):
        box[column, 0], box[column, 1] = 0.0, 1.0
        if column < len(ranges):
            low, width = ranges[column, 0], ranges[column, 1] - ranges[column, 0]
            half = 2.0 * max(shifts[column], 1.0 - shifts[column])
            box[column, 0] = low + (shifts[column] - half) * width
            box[column, 1] = low + (shifts[column] + half) * width
