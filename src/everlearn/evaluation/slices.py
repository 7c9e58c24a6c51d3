"""Named slices of rows that a gate watches on their own: one airport, one customer, night hours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from everlearn.base import Array, Batch, Columns, SpecError

Value = str | float | bool


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows that have a value, or one within bounds, in one column.

    Args:
        name: what it is called in reasons and reports.
        column: a feature column, the key or the target.
        equals: the value that a row must have, or a tuple of values of which it has one.
        above: a number column must be greater than this.
        below: a number column must be less than this.

    Example:
        >>> Slice("from JFK", column="origin", equals="JFK").describe()
        "origin is 'JFK'"

    Raises:
        SpecError: no condition, or `equals` together with bounds.
    """

    name: str
    column: str
    equals: Value | tuple[Value, ...] | None = None
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        bounded = self.above is not None or self.below is not None
        if (self.equals is None) != bounded:
            raise SpecError(
                f"slice {self.name!r} needs equals= or else at least one of above= and below="
            )

    @property
    def values(self) -> tuple[Value, ...]:
        if self.equals is None:
            return ()
        return self.equals if isinstance(self.equals, tuple) else (self.equals,)

    def describe(self) -> str:
        """The condition in words."""
        if self.equals is not None:
            return f"{self.column} is " + " or ".join(repr(value) for value in self.values)
        bounds = []
        if self.above is not None:
            bounds.append(f"above {self.above:g}")
        if self.below is not None:
            bounds.append(f"below {self.below:g}")
        return f"{self.column} is " + " and ".join(bounds)

    def mask(self, batch: Batch, columns: Columns) -> Array:
        """(n,) True for the rows of the slice.

        Args:
            batch: n rows, y in the target's own values.
            columns: what the columns of the batch are.

        Raises:
            SpecError: there is no such column, or the condition does not fit its kind.
        """
        if self.column == columns.target and batch.y is not None:
            return self._of_target(batch.y)
        if self.column in columns.numbers:
            return self._of_numbers(batch.numbers[:, columns.numbers.index(self.column)])
        if self.column in columns.categories:
            return self._of_hashes(batch.categories[:, columns.categories.index(self.column)])
        if self.column == columns.key and batch.key is not None:
            return self._of_hashes(batch.key)
        known = [*columns.numbers, *columns.categories, columns.key, columns.target]
        names = ", ".join(repr(name) for name in known if name)
        raise SpecError(
            f"slice {self.name!r} is of column {self.column!r}; slices can be made of {names}"
        )

    def _of_target(self, y: Array) -> Array:
        if y.dtype != object:
            return self._of_numbers(y)
        if self.equals is None:
            raise SpecError(f"slice {self.name!r}: {self.column!r} holds texts; use equals=")
        return np.isin(y.astype(str), [str(value) for value in self.values])

    def _of_numbers(self, values: Array) -> Array:
        if self.equals is not None:
            try:
                wanted = [float(value) for value in self.values]
            except ValueError:
                raise SpecError(
                    f"slice {self.name!r}: {self.column!r} holds numbers, not {self.equals!r}"
                ) from None
            return np.isin(values, wanted)
        chosen = np.isfinite(values)
        if self.above is not None:
            chosen &= values > self.above
        if self.below is not None:
            chosen &= values < self.below
        return chosen

    def _of_hashes(self, hashes: Array) -> Array:
        if self.equals is None:
            raise SpecError(f"slice {self.name!r}: {self.column!r} holds categories; use equals=")
        import pyarrow as pa

        from everlearn.data.hashing import hash_texts

        texts = pa.array([str(value) for value in self.values], pa.string())
        return np.isin(hashes, hash_texts(texts))
