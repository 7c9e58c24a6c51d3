"""Arrays of a state from elsewhere: kernels check no index, so these are checked on loading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from everlearn.base import Array, InputError, Json
from everlearn.learners.native.rows import Shape


def like(mine: Array, given: Array, name: str) -> Array:
    """A copy of an array that was saved, to stand in the place of one that has just begun.

    Raises:
        InputError: it has another shape or type.
    """
    if given.shape != mine.shape or given.dtype != mine.dtype:
        raise InputError(
            f"{name} is {given.shape} of {given.dtype}, not {mine.shape} of {mine.dtype}"
        )
    return np.array(given, order="C")


def all_like(mine: Mapping[str, Array], given: Mapping[str, Array]) -> dict[str, Array]:
    """The same for arrays by their names; others are passed over."""
    return {name: like(array, given[name], name) for name, array in mine.items()}


def check_within(values: Array, lowest: int, highest: int, name: str) -> None:
    """Raises `InputError` for whole numbers that are not all from the lowest to the highest."""
    if values.size and not lowest <= values.min() <= values.max() <= highest:
        raise InputError(f"{name} go from {values.min()} to {values.max()}, not {lowest}–{highest}")


def shape_from(said: Any, outputs: int) -> Shape:
    """What a state says of the rows that it is of, for a learner of at least so many outputs.

    Raises:
        InputError: that cannot be.
    """
    shape = Shape(**said)
    sizes: tuple[Json, ...] = (shape.numbers, shape.times, shape.categories, shape.outputs)
    if any(type(size) is not int or not 0 <= size < 2**31 for size in sizes):
        raise InputError(f"no rows have the shape {said}")
    if type(shape.sparse) is not bool or shape.outputs < outputs:
        raise InputError(f"no rows have the shape {said}")
    return shape
