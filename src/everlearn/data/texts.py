"""Tables of texts as bytes: in arrays of a state, which hold no objects, and in a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from tempfile import TemporaryFile

import numpy as np

from everlearn.base import Array, InputError, Ints

BYTES, ENDS = TEXTS = "texts.bytes", "texts.ends"
"""Names of the two arrays: UTF-8, one text after the other, row by row, and where each ends."""


def texts_to_arrays(texts: Array) -> dict[str, Array]:
    """(n, t) objects that are `str` as two arrays.

    Raises:
        InputError: an object that is no text, or a text that has no UTF-8 (a lone surrogate).

    >>> made = texts_to_arrays(np.array([["né", ""]], object))
    >>> made["texts.bytes"].tobytes().decode(), made["texts.ends"]
    ('né', array([[3, 3]]))
    """
    data, lengths = _encoded(texts)
    ends = np.cumsum(lengths, dtype=np.int64).reshape(texts.shape)
    return {BYTES: np.frombuffer(data, np.uint8).copy(), ENDS: ends}


def texts_from_arrays(arrays: Mapping[str, Array]) -> Array | None:
    """The inverse of `texts_to_arrays`; None where there are no such arrays.

    Raises:
        InputError: the arrays do not hold texts.
    """
    if ENDS not in arrays:
        return None
    ends = arrays[ENDS]
    try:
        return _decoded(arrays[BYTES].tobytes(), ends.ravel().tolist(), ends.shape)
    except (KeyError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"the arrays do not hold texts: {error!r}") from error


class TextFile:
    """Texts in a file that has no name; what stands for a text is where it begins and its length.

    Args:
        files: what closes the file.
    """

    def __init__(self, files: ExitStack) -> None:
        self._file = files.enter_context(TemporaryFile())  # noqa: SIM115 (closed by files)
        self._size = 0

    def add(self, texts: Array) -> Ints:
        """Keep (n, t) texts; returns (n, t, 2) starts and lengths.

        Raises:
            OSError: there is no room.
        """
        data, lengths = _encoded(texts)
        self._file.write(data)
        self._file.flush()
        ends = np.cumsum(lengths, dtype=np.int64)
        places = np.stack([self._size + ends - lengths, lengths], axis=1)
        self._size += len(data)
        return np.asarray(places.reshape(*texts.shape, 2))

    def read(self, places: Ints) -> Array:
        """(n, t) texts of (n, t, 2) starts and lengths."""
        file = self._file.fileno()
        flat = places.reshape(-1, 2).tolist()
        found = np.empty(len(flat), object)
        found[:] = [os.pread(file, length, start).decode() for start, length in flat]
        return found.reshape(places.shape[:-1])


def _encoded(texts: Array) -> tuple[bytes, Ints]:
    """All texts as UTF-8, and how long each is."""
    try:
        pieces = [text.encode() for text in texts.ravel().tolist()]
    except UnicodeEncodeError as error:
        raise InputError(f"a text is no Unicode: {error}") from error
    except AttributeError as error:
        raise InputError(f"a column of texts holds something else: {error}") from error
    return b"".join(pieces), np.array([len(piece) for piece in pieces], np.int64)


def _decoded(data: bytes, ends: list[int], shape: tuple[int, ...]) -> Array:
    if (ends[-1] if ends else 0) != len(data) or min(ends, default=0) < 0:
        raise ValueError(f"{len(data)} bytes, where {ends[-1] if ends else 0} are said")
    found = np.empty(len(ends), object)
    starts = [0, *ends][:-1]
    found[:] = [data[start:end].decode() for start, end in zip(starts, ends, strict=True)]
    return found.reshape(shape)
