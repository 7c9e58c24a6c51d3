"""Rows of a slice that were withdrawn: which these are, kept as a blob beside the slice.

They stay in the source, and in the account of what was read of it, set aside with the reason
"withdrawn". All else is as if they had never been there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from everlearn.base import InputError, Ints
from everlearn.data.slices import Slice

if TYPE_CHECKING:
    from everlearn.data.tables import BlobStore

WITHDRAWN = "withdrawn"
"""Why such a row is not learned, and the option of a slice that says which rows these are."""

_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Numbers:
    """A set of row numbers or positions, 8 bytes each.

    Args:
        values: (n,) ascending, each once.
    """

    values: Ints

    @classmethod
    def of(cls, parts: Iterable[Any]) -> Numbers:
        """The union of several arrays or lists, in any order."""
        every = np.sort(np.concatenate([_NONE, *(np.asarray(part, np.int64) for part in parts)]))
        return cls(every[np.diff(every, prepend=every[:1] - 1) != 0])

    @classmethod
    def load(cls, data: bytes) -> Numbers:
        """The inverse of `save`."""
        return cls(np.frombuffer(data, "<i8").astype(np.int64))

    def save(self) -> bytes:
        """Little-endian 64-bit integers, ascending."""
        return self.values.astype("<i8").tobytes()

    def __len__(self) -> int:
        return len(self.values)

    def __contains__(self, number: object) -> bool:
        at = bisect_left(self.values, number)
        return bool(at < len(self.values) and self.values[at] == number)

    def between(self, start: int, stop: int) -> Ints:
        """Those from `start` to `stop` - 1."""
        low, high = self.values.searchsorted((start, stop)).tolist()
        return self.values[low:high]


NOTHING = Numbers(_NONE)


def withdrawn_rows(part: Slice, blobs: BlobStore | None) -> Numbers:
    """The numbers of the source rows of a slice that were withdrawn.

    Raises:
        InputError: there are some, and no blobs to read them from.
    """
    option = part.options.get(WITHDRAWN)
    if option is None:
        return NOTHING
    if blobs is None:
        raise InputError(
            f"cannot read {part.source!r}: which of its rows were withdrawn is in blobs"
        )
    return Numbers.load(blobs.get(option["blob"]))


def without_rows(part: Slice, rows: Iterable[int] | Ints, blobs: BlobStore) -> Slice:
    """A slice of a file or of a spooled table without some of its rows.

    Args:
        part: the slice; rows of it that were withdrawn before stay so.
        rows: numbers of source rows, in any order; those outside the slice are passed over.
        blobs: where it is kept which rows these are.
    """
    given = Numbers.of([rows if isinstance(rows, np.ndarray) else list(rows)])
    here = given.between(part.start, part.stop)
    known = withdrawn_rows(part, blobs)
    both = Numbers.of([known.values, here])
    if len(both) == len(known):
        return part
    return part.with_options(**{WITHDRAWN: {"blob": blobs.put(both.save()), "rows": len(both)}})
