"""Windows of rows in arrays: filled row by row until they weigh enough, moved, saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from everlearn.base import Floats, Hashes, InputError, Part
from everlearn.learners.native.compile import kernel, lean_kernel

LARGEST = 1e100
"""Numbers are limited to ± this."""

TRIM = 0.05
"""The share of a window's values at either end that does not count for a column's range."""

TINY = 1e-290
"""A range narrower than this is that of a constant."""

ROWS, WEIGHT = 0, 1


class Window(NamedTuple):
    """Rows in the order in which they came.

    Args:
        numbers: (room, d) numbers and times, from −1e100 to 1e100; NaN is missing.
        categories: (room, q) hashes; 0 is missing.
        weights: (room,) what each row weighs.
        filled: (2,) how many rows there are, and what they weigh together.
    """

    numbers: Floats
    categories: Hashes
    weights: Floats
    filled: Floats


def empty_window(room: int, dense: int, categories: int) -> Window:
    return Window(
        np.zeros((room, dense)),
        np.zeros((room, categories), np.uint64),
        np.zeros(room),
        np.zeros(2),
    )


def joined(windows: Sequence[Window], room: int) -> Window:
    """The rows of windows, one after the other, with room for at least as many as a window has."""
    rows = [int(window.filled[ROWS]) for window in windows]
    made = empty_window(max(room, sum(rows)), *widths(windows[0]))
    start = 0
    for window, count in zip(windows, rows, strict=True):
        for target, source in zip(made[:3], window[:3], strict=True):
            target[start : start + count] = source[:count]
        start += count
        made.filled[:] += window.filled
    return made


def widths(window: Window) -> tuple[int, int]:
    return window.numbers.shape[1], window.categories.shape[1]


def saved(window: Window) -> Part:
    rows = int(window.filled[ROWS])
    arrays = {
        # as bits: what is missing in a row does not make the state one that is not finite
        "numbers": window.numbers[:rows].view(np.uint64),
        "categories": window.categories[:rows],
        "weights": window.weights[:rows],
        "filled": window.filled,
    }
    return Part({name: array.copy() for name, array in arrays.items()})


def loaded(part: Part, empty: Window) -> Window:
    """The inverse of `saved`, for rows with the columns of a window that is empty.

    Raises:
        InputError: the rows have other columns, or weigh what no rows can.
    """
    rows = len(part.arrays["weights"])
    made = empty_window(rows, *widths(empty))
    mine = (made.numbers.view(np.uint64), made.categories, made.weights, made.filled)
    for array, name in zip(mine, Window._fields, strict=True):
        given = part.arrays[name]
        if given.shape != array.shape or given.dtype != array.dtype:
            raise InputError(f"the state is of rows with other columns: {name} is {given.shape}")
        array[...] = given
    weighed = (made.weights > 0.0).all() and np.isfinite(made.filled).all()
    weighed = weighed and np.isclose(made.weights.sum(), made.filled[WEIGHT], rtol=1e-6, atol=0.0)
    if not weighed or made.filled[ROWS] != rows:
        raise InputError(f"a window of {rows} rows says that it has {made.filled}")
    return made


@lean_kernel
def fill(
    window: Window,
    X: Floats,
    categories: Hashes,
    weight: Floats,
    row: int,
    left: float,
    size: float,
) -> tuple[int, float]:
    """Put rows into a window until it is full. Returns the next row, and how much of its weight is
    left if the window was full before all of it was in; `row` and `left` are such a pair."""
    while row < len(X):
        if left == 0.0:
            left = weight[row] if len(weight) else 1.0
            if left >= 3.0 * size:  # more than two windows of one row are as good as two
                left = 2.0 * size + left % size
        part = min(left, size - window.filled[WEIGHT])
        left -= part
        if part > 0.0:
            _append(window, X, categories, row, part)
        if left == 0.0:
            row += 1
        if is_full(window, size):
            break
    return row, left


@lean_kernel
def _append(window: Window, X: Floats, categories: Hashes, row: int, weight: float) -> None:
    place = int(window.filled[ROWS])
    for column in range(X.shape[1]):
        value = X[row, column]  # NaN stays
        value = LARGEST if value > LARGEST else value
        window.numbers[place, column] = -LARGEST if value < -LARGEST else value
    for column in range(categories.shape[1]):
        window.categories[place, column] = categories[row, column]
    window.weights[place] = weight
    window.filled[ROWS] += 1.0
    window.filled[WEIGHT] += weight


@lean_kernel
def is_full(window: Window, size: float) -> bool:
    return bool(window.filled[WEIGHT] >= size or window.filled[ROWS] >= size)


@kernel
def move(source: Window, target: Window) -> None:
    """Take all rows out of a window, and put them into another in place of those there."""
    rows = int(source.filled[ROWS])
    target.numbers[:rows] = source.numbers[:rows]
    target.categories[:rows] = source.categories[:rows]
    target.weights[:rows] = source.weights[:rows]
    target.filled[:] = source.filled
    source.filled[:] = 0.0


@kernel
def find_range(window: Window, column: int, ranges: Floats) -> None:
    """The range of a column in the rows of a window: where the middle 90 % of its values are, and
    half as much again on either side. If all miss it, it stays as it is."""
    rows = int(window.filled[ROWS])
    values, weights = np.empty(rows), np.empty(rows)
    present, total = 0, 0.0
    for row in range(rows):
        if not math.isnan(window.numbers[row, column]):
            values[present], weights[present] = window.numbers[row, column], window.weights[row]
            total += weights[present]
            present += 1
    if present == 0:
        return
    lowest, highest = values[:present].min(), values[:present].max()
    low = _beyond(values[:present], weights, TRIM * total)
    for place in range(present):
        values[place] = -values[place]
    high = -_beyond(values[:present], weights, TRIM * total)
    if high - low < TINY:  # nearly all are equal, or all
        low, high = lowest, highest
    if high - low < TINY:
        half = 0.5 * max(abs(low), 1.0)
        low, high = low - half, low + half
    ranges[column, 0], ranges[column, 1] = 1.5 * low - 0.5 * high, 1.5 * high - 0.5 * low


@lean_kernel
def _beyond(values: Floats, weights: Floats, cut: float) -> float:
    """The lowest value up to which there is more weight than `cut`, by quickselect (Hoare 1961).
    Both arrays are put in another order."""
    start, stop = 0, len(values)
    while stop - start > 1:
        a, b, c = values[start], values[(start + stop) // 2], values[stop - 1]
        pivot = max(min(a, b), min(max(a, b), c))
        upper, below = _put_first(values, weights, start, stop, pivot, False)
        if below > cut:
            stop = upper
            continue
        start, equal = _put_first(values, weights, upper, stop, pivot, True)
        cut -= below + equal
        if cut < 0.0:
            return float(pivot)
    return float(values[start])


@lean_kernel
def _put_first(
    values: Floats, weights: Floats, start: int, stop: int, pivot: float, equal: bool
) -> tuple[int, float]:
    """Put values below the pivot (with `equal`, those equal to it too) before the others; where
    these begin, and what those weigh. Without a branch, which would be taken at random."""
    cut, mass = start, 0.0
    for place in range(start, stop):
        value, weight = values[place], weights[place]
        first = value < pivot or (equal and value == pivot)
        values[place], weights[place] = values[cut], weights[cut]
        values[cut], weights[cut] = value, weight
        cut += 1 if first else 0
        mass += weight if first else 0.0
    return cut, mass
