"""A sample of the rows that a Keras model learns, as arrays."""

from __future__ import annotations

import numpy as np

from everlearn.base import Array, Part


class ArraySample:
    """A uniform sample of n of all rows that were offered (algorithm R of Vitter 1985).

    Args:
        n: rows to hold.
    """

    def __init__(self, n: int) -> None:
        self._n, self._offered = n, 0
        self._held: list[Array] = []

    def __len__(self) -> int:
        return len(self._held[0]) if self._held else 0

    @property
    def x(self) -> Array:
        """(m, width) rows that are held; not to be asked of none."""
        return self._held[0]

    def offer(self, generator: np.random.Generator, *columns: Array) -> None:
        """Rows that are learned, in columns of (r, …): their numbers first, then what belongs to
        them. Always as many columns."""
        rows = len(columns[0])
        if len(self) > self._n:  # loaded from a larger one
            self._held = self.draw(generator, self._n)
        free = min(self._n - len(self), rows)
        if free:
            known = self._held or [column[:0] for column in columns]
            head = [column[:free] for column in columns]
            self._held = [np.concatenate(pair) for pair in zip(known, head, strict=True)]
        if rows > free:  # row number t takes place ⌊u·t⌋, if there is one; of several, the last
            number = np.arange(self._offered + free + 1, self._offered + rows + 1)
            place = (generator.random(rows - free) * number).astype(np.int64)
            taken = {int(place[row]): free + row for row in np.flatnonzero(place < self._n)}
            if taken:
                to, of = list(taken), list(taken.values())
                for held, column in zip(self._held, columns, strict=True):
                    held[to] = column[of]
        self._offered += rows

    def draw(self, generator: np.random.Generator, rows: int) -> list[Array]:
        """Columns of rows that are held, without repetition: as many as asked for, or all."""
        chosen = generator.permutation(len(self))[:rows]
        return [column[chosen] for column in self._held]

    def merge(self, generator: np.random.Generator, other: ArraySample) -> None:
        """Become a uniform sample of all rows that were offered to either."""
        total = min(self._n, self._offered + other._offered)
        of_other = int(generator.hypergeometric(other._offered, self._offered, total))
        parts = [
            one.draw(generator, rows)
            for one, rows in ((self, total - of_other), (other, of_other))
            if rows
        ]
        self._held = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        self._offered += other._offered

    def clear(self) -> None:
        """Begin anew."""
        self._offered, self._held = 0, []

    def save(self) -> Part:
        """The rows held."""
        columns = {str(index): column.copy() for index, column in enumerate(self._held)}
        return Part(columns, {"offered": self._offered})

    def load(self, part: Part) -> None:
        """The inverse of `save`."""
        self._offered = int(part.meta["offered"])
        self._held = [np.array(part.arrays[str(index)]) for index in range(len(part.arrays))]
