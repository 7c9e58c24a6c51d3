"""Where the records of a CSV file begin and end, and what its header says."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass

import numpy as np

from everlearn.base import InputError
from everlearn.data.files import open_file

LONGEST_RECORD = 64 << 20
"""Bytes after which a record that does not end is an error."""


@dataclass(frozen=True, slots=True)
class Header:
    """The head of a CSV file: names, delimiter, and the byte at which the first row begins."""

    names: tuple[str, ...]
    delimiter: str
    offset: int


def last_line_end(data: bytes) -> int:
    """One past the last line end outside quotes; 0 if there is none. `data` begins a record."""
    if b'"' not in data:
        return data.rfind(b"\n") + 1
    array = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(array == 10)
    outside = ends[np.searchsorted(np.flatnonzero(array == 34), ends) % 2 == 0]
    return int(outside[-1]) + 1 if len(outside) else 0


class RowCounter:
    """Counts the records of a CSV that is fed block by block; blank lines do not count."""

    def __init__(self) -> None:
        self.ended = 0  # records whose line end was seen
        self._inside = False  # within quotes
        self._line = b""  # at most two bytes of the unfinished line

    @property
    def rows(self) -> int:
        """Records so far, an unfinished last one included."""
        return self.ended + (self._line not in (b"", b"\r"))

    def feed(self, block: bytes) -> None:
        """Count the next block."""
        array = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(array == 10)
        if self._inside or b'"' in block:
            quotes = np.flatnonzero(array == 34)
            ends = ends[(np.searchsorted(quotes, ends) + self._inside) % 2 == 0]
            self._inside = bool((len(quotes) + self._inside) % 2)
        if not len(ends):
            self._line = (self._line + block[:2])[:2]
            return
        first, last = int(ends[0]), int(ends[-1])
        self.ended += len(ends) - (self._line + block[: min(first, 2)] in (b"", b"\r"))
        lengths = np.diff(ends)  # of the lines after the first, with their ends
        short = np.flatnonzero(lengths <= 2)
        if len(short):
            bare = (lengths[short] == 1) | (array[ends[short] + 1] == 13)
            self.ended -= int(bare.sum())
        self._line = block[last + 1 : last + 3]


def read_header(path: str) -> Header:
    """Read the first line that is not blank.

    Raises:
        InputError: there is none, it is not UTF-8, or a name stands there twice.
    """
    data = b""
    with open_file(path) as file:
        while more := file.read(1 << 16):
            data += more
            if len(data) > LONGEST_RECORD or _first_record(data, False)[1]:
                break
    start, stop = _first_record(data, True)
    if start == stop:
        raise InputError(f"{path!r} is empty: it has not even a header line")
    try:
        line = data[start:stop].decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path!r} is not UTF-8 ({error}); convert it first") from None
    if re.search(r"\r(?!\n)", re.sub(r'"[^"]*"', "", line).rstrip("\r\n")):
        raise InputError(f"{path!r} ends its lines with \\r alone; convert them to \\n first")
    delimiter = max(",;\t|", key=re.sub(r'"[^"]*"', "", line).count)
    cells = next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter))
    names = tuple(cell.strip() or f"column{i + 1}" for i, cell in enumerate(cells))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path!r} has two columns of the name {twice[0]!r}; rename one")
    return Header(names, delimiter, stop)


def _first_record(data: bytes, whole: bool) -> tuple[int, int]:
    """Start and stop of the first record that is not blank; stop is 0 if its end is not seen."""
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    start = len(data) - len(data[start:].lstrip(b"\r\n"))
    for match in re.finditer(b"\n", data[start:]):
        stop = start + match.end()
        if data.count(b'"', start, stop) % 2 == 0:
            return start, stop
    return start, len(data) if whole else 0
