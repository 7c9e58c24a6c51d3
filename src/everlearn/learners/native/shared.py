"""Rows for several learners at once, which want them differently."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from everlearn.base import Batch
from everlearn.learners.native.mixing import waves_of
from everlearn.learners.native.rows import Rows


@dataclass(frozen=True, slots=True)
class SharedRows(Rows):
    """Rows with times as phases, and the batch that they are of.

    Args:
        batch: None where the rows are of a matrix.
    """

    batch: Batch | None = None

    @classmethod
    def of(cls, rows: Rows, batch: Batch | None) -> SharedRows:
        return cls(
            rows.numbers,
            rows.times,
            rows.categories,
            rows.starts,
            rows.places,
            rows.values,
            batch,
        )

    def part(self, start: int, stop: int) -> SharedRows:
        """Rows start … stop − 1, as views."""
        batch = None if self.batch is None else self.batch.take(slice(start, stop))
        return SharedRows.of(Rows.part(self, start, stop), batch)

    def in_waves(self) -> Rows:
        """The same rows with times as sines and cosines, bit-equal to `rows_of_batch`'s."""
        waves = np.empty((len(self.times), 2 * self.times.shape[1]))
        waves_of(self.times, waves)
        return Rows(self.numbers, waves, self.categories, self.starts, self.places, self.values)

    def as_batch(self) -> Batch:
        """What a learner that is not native takes."""
        if self.batch is not None:
            return self.batch
        rows = len(self)
        return Batch(
            numbers=self.numbers,
            categories=self.categories,
            times=np.empty((rows, 0), np.int64),
            ids=np.arange(rows, dtype=np.uint64),
        )
