"""A block: at most 65,536 remembered rows in one immutable part, and which of them are alive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from everlearn.base import Array, Batch, InputError, Ints, Json, Part
from everlearn.data.texts import texts_from_arrays, texts_to_arrays

BLOCK = 65_536
"""Rows of a full block."""

Notes = Mapping[str, Array]
"""Numbers that a memory keeps beside each row: name → (n,) array."""

_TABLES = {"numbers": np.float64, "categories": np.uint64, "times": np.int64}
_COLUMNS = ("weight", "ids", "time", "label_time", "key")


class Block:
    """Rows in one part.

    Args:
        part: as `Block.of` makes it; it may be lazy.
        size: rows in the part, dead ones included.
        span: earliest and latest event time in the part, if its rows have event times.
    """

    __slots__ = ("_alive", "_content", "_positions", "mask", "part", "size", "span")

    def __init__(self, part: Part, size: int, span: tuple[int, int] | None = None) -> None:
        self.part = part
        self.size = size
        self.span = span
        self.mask: npt.NDArray[np.bool_] = np.ones(0, bool)
        self._alive = size
        self._positions: Ints | None = None
        self._content: tuple[Batch, Notes] | None = None

    @classmethod
    def of(cls, batch: Batch, notes: Notes) -> Block:
        """A block of these rows.

        Raises:
            InputError: the target is neither numbers nor texts.
        """
        span = None
        if batch.time is not None and len(batch):
            span = int(batch.time.min()), int(batch.time.max())
        return cls(encode(batch, notes), len(batch), span)

    @property
    def alive(self) -> int:
        """Rows that are alive."""
        return self._alive

    @property
    def whole(self) -> bool:
        """Whether every row is alive."""
        return self._alive == self.size

    def keep(self, chosen: npt.NDArray[np.bool_]) -> None:
        """Let those of the (alive,) rows die that are not chosen."""
        positions = self.positions(np.flatnonzero(chosen))
        if len(positions) == self._alive:
            return
        self.mask = np.zeros(self.size, bool)
        self.mask[positions] = True
        self._positions, self._alive = positions, len(positions)

    def positions(self, ranks: Ints) -> Ints:
        """Where in the part the alive rows of these ranks are."""
        return ranks if self._positions is None else self._positions[ranks]

    def read(self) -> tuple[Batch, Notes]:
        """All rows of the part, dead ones included.

        Raises:
            InputError: the part does not hold what its index says.
        """
        if self._content is None:
            content = decode(self.part)
            if len(content[0]) != self.size:
                raise InputError(f"a block has {len(content[0])} rows, its index says {self.size}")
            self._content = content
        return self._content

    def release(self) -> None:
        """Drop the rows from memory if the part can be loaded again."""
        self._content = None
        self.part.release()


def encode(batch: Batch, notes: Notes) -> Part:
    """Rows as a part; columns of no width are left out. Views of larger arrays are copied, so that
    the part does not keep those in memory.

    Raises:
        InputError: the target is neither numbers nor texts.
    """
    arrays: dict[str, Array] = {f"note.{name}": _owned(v) for name, v in notes.items()}
    meta: Json = {"rows": len(batch)}
    for name in _TABLES:
        table = getattr(batch, name)
        meta[name] = table.shape[1]
        if table.size:
            arrays[name] = _owned(table)
    for name in _COLUMNS:
        column = getattr(batch, name)
        if column is not None:
            arrays[name] = _owned(column)
    if batch.y is not None:
        arrays["y"], meta["texts"] = encode_target(batch.y)
    if batch.texts is not None:
        arrays |= texts_to_arrays(batch.texts)
    return Part(arrays, meta)


def decode(part: Part) -> tuple[Batch, dict[str, Array]]:
    """The inverse of `encode`.

    Raises:
        InputError: the part is not of that form.
    """
    arrays, meta = part.arrays, part.meta
    try:
        rows = int(meta["rows"])
        content: dict[str, Any] = {name: arrays.get(name) for name in _COLUMNS}
        for name, dtype in _TABLES.items():
            empty = np.empty((rows, int(meta[name])), dtype)
            content[name] = arrays[name] if empty.size else empty
        if "y" in arrays:
            content["y"] = decode_target(arrays["y"], meta["texts"])
        content["texts"] = texts_from_arrays(arrays)
        notes = {name[5:]: v for name, v in arrays.items() if name.startswith("note.")}
        return Batch(**content), notes
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"a part does not hold remembered rows: {error!r}") from error


def encode_target(y: Array) -> tuple[Array, list[str] | None]:
    """(numbers, None), or (codes, the texts that they stand for, in order).

    Raises:
        InputError: an object that is no text.
    """
    if not y.dtype.hasobject:
        return _owned(y), None
    values = y.tolist()
    strange = [value for value in values if not isinstance(value, str)]
    if strange:
        raise InputError(f"a target has numbers or texts, not {strange[0]!r}")
    texts = sorted(set(values))
    code = {text: index for index, text in enumerate(texts)}
    return np.fromiter((code[value] for value in values), np.int32, len(values)), texts


def decode_target(y: Array, texts: list[str] | None) -> Array:
    """The inverse of `encode_target`."""
    return y if texts is None else np.array(texts, dtype=object)[y]


def _owned(array: Array) -> Array:
    """The array, or a copy of it where it is a view or not contiguous."""
    return array if array.base is None and array.flags.c_contiguous else np.array(array, order="C")
