"""Rows as a matrix that trees split: numbers as they are, places in time, codes of categories."""

from __future__ import annotations

from typing import Any

import numpy as np

from everlearn.base import (
    MISSING_CATEGORY,
    NO_TIME,
    Array,
    Batch,
    Columns,
    Floats,
    Hashes,
    InputError,
    Part,
    SpecError,
)
from everlearn.learners.encoder import MONDAY, PERIODS

LARGEST = 3e38
"""Numbers are limited to ± this, which float32 holds: an infinite one is the largest."""


class Matrix:
    """From a batch to (n, width) float64, NaN where a value is missing. From the left: numbers;
    for each time its place in the day, the week and the year, from 0 to 1; for each category a
    code, 0 for the value that was learned first.

    Args:
        columns: what batches hold.
        categories: codes of a column; values that come after them are as if they were missing.

    Raises:
        SpecError: there is no feature column.
    """

    def __init__(self, columns: Columns, categories: int) -> None:
        self._columns, self._most = columns, categories
        self._counts = (len(columns.numbers), len(columns.categories), len(columns.times))
        p, q, r = self._counts
        self.width = p + 3 * r + q
        self.first_category = p + 3 * r
        self._codes = [_Codes() for _ in range(q)]
        if self.width == 0:
            raise SpecError("there is no feature column to learn from; check the Schema")

    @property
    def categorical(self) -> range:
        """Which columns of the matrix are codes."""
        return range(self.first_category, self.width)

    def learn(self, batch: Batch) -> bool:
        """Give codes to values that have none; whether there were any."""
        self._check(batch)
        new = [
            codes.extend(batch.categories[:, place], self._most)
            for place, codes in enumerate(self._codes)
        ]
        return any(new)

    def transform(self, batch: Batch) -> Floats:
        """(n, width) of (n,) rows.

        Raises:
            InputError: the rows have other columns.
        """
        self._check(batch)
        p, _, r = self._counts
        matrix = np.empty((len(batch), self.width))
        np.clip(batch.numbers, -LARGEST, LARGEST, out=matrix[:, :p])
        for place in range(r):
            times = batch.times[:, place]
            for index, period in enumerate(PERIODS):
                into = matrix[:, p + 3 * place + index]
                np.divide(np.mod(times - MONDAY, int(period)), period, out=into)
                into[times == NO_TIME] = np.nan
        for place, codes in enumerate(self._codes):
            matrix[:, self.first_category + place] = codes.of(batch.categories[:, place])
        return matrix

    def snapshot(self) -> Any:
        """What `restore` goes back to."""
        return [codes.values for codes in self._codes]

    def restore(self, snapshot: Any) -> None:
        """Forget what was learned since the snapshot."""
        self._codes = [_Codes(values) for values in snapshot]

    def save(self) -> Part:
        """The values that have codes, in their order."""
        arrays: dict[str, Array] = {
            f"values.{place}": codes.values for place, codes in enumerate(self._codes)
        }
        return Part(arrays, {"columns": list(self._counts)})

    def load(self, part: Part) -> None:
        """The inverse of `save`.

        Raises:
            InputError: it is of rows with other columns.
        """
        found = part.meta.get("columns")
        if found != list(self._counts):
            raise InputError(
                f"the state is of rows with {found} numbers, categories and times, not"
                f" {list(self._counts)}"
            )
        self._codes = [
            _Codes(np.array(part.arrays[f"values.{place}"], np.uint64))
            for place in range(len(self._codes))
        ]

    def _check(self, batch: Batch) -> None:
        found = (batch.numbers.shape[1], batch.categories.shape[1], batch.times.shape[1])
        if found != self._counts:
            raise InputError(
                f"rows have {self._counts[0]} numbers, {self._counts[1]} categories and"
                f" {self._counts[2]} times, but {list(found)} were given"
            )


class _Codes:
    """Values of a category and their codes, 0, 1, … in the order in which they were learned."""

    def __init__(self, values: Hashes | None = None) -> None:
        self.values: Hashes = np.zeros(0, np.uint64) if values is None else values
        self._order = np.argsort(self.values, kind="stable")
        self._sorted = self.values[self._order]

    def of(self, hashes: Hashes) -> Floats:
        """(n,) codes of (n,) hashes, NaN for none."""
        if not len(self.values):
            return np.full(len(hashes), np.nan)
        at = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        return np.where(self._sorted[at] == hashes, self._order[at].astype(np.float64), np.nan)

    def extend(self, hashes: Hashes, most: int) -> bool:
        """Give codes to those that have none, up to `most` in all; whether there were any."""
        if len(self.values) >= most:
            return False
        unseen = hashes[np.isnan(self.of(hashes)) & (hashes != MISSING_CATEGORY)]
        if not len(unseen):
            return False
        found, first = np.unique(unseen, return_index=True)
        new = found[np.argsort(first)]
        self.__init__(np.concatenate([self.values, new])[:most])  # type: ignore[misc]
        return True
