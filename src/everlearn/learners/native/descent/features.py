"""Rows as a linear model sees them: dense columns, and records of a table for all the rest.

Numbers are standardised by running moments (Welford 1962, "Note on a method for calculating
corrected sums of squares and products"; with weights: West 1979, "Updating mean and variance
estimates") as they were before the row. What is not a number in every row has records in a table:
that a number is missing, the classes of a category, the columns of a sparse matrix.
"""

from __future__ import annotations

import math

import numpy as np

from everlearn.learners.native.compile import inlined
from everlearn.learners.native.descent.state import (
    CLIP,
    LARGEST,
    STANDARDIZE,
    UNEVEN,
    WEIGHT,
    Data,
    Model,
    Row,
)
from everlearn.learners.native.random import mix

WAVE = 0.3
"""What sines and cosines of times are multiplied by. The place in the week or in the year moves
slowly: at full size, the last days would be learned by heart."""

CLASS = 1.5
"""What stands in the column of a category's class. Each is seen rarely and must learn fast."""

SALT = np.uint64(0x9E3779B97F4A7C15)
"""The same class in another column is another class: multiples of this are added."""


@inlined
def read(model: Model, data: Data, i: int, row: Row) -> tuple[int, float, bool]:
    """(how many records the i-th row has, Σ x², whether all of its numbers are ordinary: neither
    NaN nor infinite nor huge). Fills the row."""
    found = 0
    squares, ordinary = _standardize(model, data, i, row)
    if not ordinary:
        found, squares = _standardize_with_care(model, data, i, row)
    first = data.numbers.shape[1]
    for j in range(data.times.shape[1]):
        wave = data.times[i, j]
        wave = 0.0 if math.isnan(wave) else WAVE * wave
        row.z[first + j] = wave
        squares += wave * wave
    if data.categories.shape[1] > 0:
        found = _hash(model, data, i, row, found)
    if data.starts.shape[0] > 0:
        found = _entries(model, data, i, row)
    for f in range(found):
        squares += row.amounts[f] * row.amounts[f]
    return found, 1.0 + squares, ordinary


@inlined
def _standardize(model: Model, data: Data, i: int, row: Row) -> tuple[float, bool]:
    clip, far, squares = model.head[CLIP], 0.0, 0.0
    for j in range(data.numbers.shape[1]):
        apart = data.numbers[i, j] - model.mean[j]
        far += apart * apart
        scaled = apart * model.inverse[j]
        scaled = clip if clip < scaled else scaled
        scaled = -clip if -clip > scaled else scaled
        row.z[j] = scaled
        squares += scaled * scaled
    return squares, far < LARGEST * LARGEST


@inlined
def _standardize_with_care(model: Model, data: Data, i: int, row: Row) -> tuple[int, float]:
    """A missing number counts as the mean, and has a record that says that it is missing."""
    clip, found, squares = model.head[CLIP], 0, 0.0
    for j in range(data.numbers.shape[1]):
        number = data.numbers[i, j]
        if math.isnan(number):
            row.z[j] = 0.0
            row.places[found], row.amounts[found] = j, 1.0
            found += 1
        else:
            apart = min(max(number, -LARGEST), LARGEST) - model.mean[j]
            row.z[j] = min(max(apart * model.inverse[j], -clip), clip)
            squares += row.z[j] * row.z[j]
    return found, squares


@inlined
def _hash(model: Model, data: Data, i: int, row: Row, found: int) -> int:
    first = data.numbers.shape[1]
    mask = np.uint64(model.table.shape[0] - first - 1)
    for j in range(data.categories.shape[1]):
        bits = mix(int(data.categories[i, j] + np.uint64(j + 1) * SALT))
        row.places[found] = first + np.int64(bits & mask)
        row.amounts[found] = CLASS
        found += 1
    return found


@inlined
def _entries(model: Model, data: Data, i: int, row: Row) -> int:
    """A column's own number is its place where the table has that many; missing ones have none."""
    slots, found = model.table.shape[0], 0
    for entry in range(data.starts[i], data.starts[i + 1]):
        column, amount = data.columns[entry], data.values[entry]
        if math.isnan(amount) or amount == 0.0:
            continue
        if column >= slots:
            column = np.int64(mix(column) & np.uint64(slots - 1))
        row.places[found] = column
        row.amounts[found] = min(max(amount, -LARGEST), LARGEST)
        found += 1
    return found


@inlined
def learn_moments(model: Model, data: Data, i: int, weight: float, ordinary: bool) -> None:
    """Take a row's numbers into their moments, if they are standardised."""
    head = model.head
    if head[STANDARDIZE] == 0.0:
        return
    if not ordinary and head[UNEVEN] == 0.0:
        head[UNEVEN] = 1.0
        for j in range(model.present.shape[0]):
            model.present[j] = head[WEIGHT]
    head[WEIGHT] += weight
    if head[UNEVEN] == 0.0:
        _learn_even(model, data, i, weight)
    else:
        _learn_uneven(model, data, i, weight)


@inlined
def _learn_even(model: Model, data: Data, i: int, weight: float) -> None:
    total = model.head[WEIGHT]
    share, left = weight / total, weight * (1.0 - weight / total)
    each = 1.0 / total
    for j in range(data.numbers.shape[1]):
        apart = data.numbers[i, j] - model.mean[j]
        spread = model.spread[j] + left * (apart * apart)
        variance = spread * each
        model.mean[j] += share * apart
        model.spread[j] = spread
        model.inverse[j] = 1.0 / math.sqrt(variance) if variance > 0.0 else 0.0


@inlined
def _learn_uneven(model: Model, data: Data, i: int, weight: float) -> None:
    for j in range(data.numbers.shape[1]):
        number = data.numbers[i, j]
        if math.isnan(number):
            continue
        model.present[j] += weight
        share = weight / model.present[j]
        apart = min(max(number, -LARGEST), LARGEST) - model.mean[j]
        model.spread[j] += weight * (1.0 - share) * (apart * apart)
        model.mean[j] += share * apart
        variance = model.spread[j] / model.present[j]
        model.inverse[j] = 1.0 / math.sqrt(variance) if variance > 0.0 else 0.0
