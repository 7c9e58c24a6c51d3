"""Class codes ↔ the target's own values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from everlearn.base import Array, InputError, Ints, Part


class Labels:
    """The classes of a target: code c stands for the value that appeared as the c-th.

    Codes never change: a class that appears later gets the next code. Values are all numbers
    (booleans are 0.0 and 1.0) or all texts.

    Args:
        values: the classes that are known beforehand, in the order of their codes.

    Raises:
        InputError: a value is missing or not finite, twice, or numbers are mixed with texts.

    Example:
        >>> labels = Labels(["b", "a"])
        >>> labels.encode(np.array(["a", "c"], dtype=object))
        array([ 1, -1])
        >>> labels.extend(np.array(["a", "c"], dtype=object))
        1
        >>> labels.order
        array([1, 0, 2])
    """

    def __init__(self, values: Iterable[str | float | bool] = ()) -> None:
        self._values: list[str | float] = []
        self._codes: dict[str | float, int] = {}
        listed = list(values)
        self.extend(listed)
        if len(self) < len(listed):
            raise InputError(f"a class is listed twice among {listed}")

    def __len__(self) -> int:
        return len(self._values)

    @property
    def values(self) -> tuple[str | float, ...]:
        """(k,) the value of each code."""
        return tuple(self._values)

    @property
    def is_text(self) -> bool:
        """Whether the values are texts."""
        return bool(self._values) and isinstance(self._values[0], str)

    @property
    def order(self) -> Ints:
        """(k,) int64 codes in the natural order of their values: ``proba[:, labels.order]``."""
        return np.array(sorted(self._codes.values(), key=self._values.__getitem__), np.int64)

    def extend(self, values: Array | Sequence[str | float | bool]) -> int:
        """Give a code to every value that has none, in order of appearance.

        Returns:
            How many classes were added.

        Raises:
            InputError: as for the class. Nothing was added.
        """
        array = values if isinstance(values, np.ndarray) else _as_array(values)
        if len(array) == 0:
            return 0
        new = self._new_values(array)
        for value in new:
            self._codes[value] = len(self._values)
            self._values.append(value)
        if new:
            self._index()
        return len(new)

    def encode(self, y: Array) -> Ints:
        """(n,) int64 codes of (n,) values; −1 for a value without a code."""
        if not self._values:
            return np.full(len(y), -1, np.int64)
        if y.dtype.kind in "OUS":
            get = self._codes.get
            return np.fromiter((get(value, -1) for value in y.tolist()), np.int64, len(y))
        if self.is_text:
            return np.full(len(y), -1, np.int64)
        at = np.searchsorted(self._sorted, y)
        np.minimum(at, len(self._sorted) - 1, out=at)
        codes = self._sorted_codes[at]
        known = self._sorted[at] == y
        return codes if known.all() else np.where(known, codes, -1)

    def decode(self, codes: Ints) -> Array:
        """(n,) values: float64, or objects that are `str`. −1 becomes NaN or None.

        Raises:
            InputError: a code that was never given.
        """
        if len(codes) and (codes.max() >= len(self) or codes.min() < -1):
            raise InputError(f"codes are −1 … {len(self) - 1}, not {codes.min()} … {codes.max()}")
        if self.is_text:
            return np.array([*self._values, None], dtype=object)[codes]
        return np.array([*self._values, np.nan], dtype=np.float64)[codes]

    def save(self) -> Part:
        """The values in the order of their codes."""
        return Part(meta={"values": list(self._values)})

    @classmethod
    def load(cls, part: Part) -> Labels:
        """The inverse of `save`."""
        return cls(part.meta["values"])

    def _new_values(self, array: Array) -> list[str | float]:
        """The values without a code, once each, in order of appearance; checked."""
        if array.dtype.kind in "biuf":
            numbers = array.astype(np.float64, copy=False)
            unknown = numbers[self.encode(numbers) < 0]
            if len(unknown) == 0:
                return []
            if not np.isfinite(unknown).all():
                raise InputError("a class is NaN or infinite; set rows without a target aside")
            found, first = np.unique(unknown, return_index=True)
            # −0.0 is 0.0
            new: list[str | float] = [float(v) + 0.0 for v in found[np.argsort(first)]]
        else:
            new = [value for value in dict.fromkeys(array.tolist()) if value not in self._codes]
            wrong = [value for value in new if not isinstance(value, str)]
            if wrong:
                raise InputError(f"a class is a text or a number, not {wrong[0]!r}")
        if new and self._values and isinstance(new[0], str) != self.is_text:
            raise InputError(
                f"the classes are {'texts' if self.is_text else 'numbers'} such as "
                f"{self._values[0]!r}; {new[0]!r} is not"
            )
        return new

    def _index(self) -> None:
        if not self.is_text:
            numbers = np.array(self._values, np.float64)
            self._sorted_codes = np.argsort(numbers, kind="stable")
            self._sorted = numbers[self._sorted_codes]


def _as_array(values: Sequence[str | float | bool]) -> Array:
    if all(isinstance(value, bool | int | float | np.number | np.bool_) for value in values):
        return np.array(values, np.float64)
    array = np.empty(len(values), object)
    array[:] = [str(v) if isinstance(v, np.str_) else v for v in values]
    return array
