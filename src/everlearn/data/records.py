"""Where the records of a CSV file begin and end, and what its header says."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from everlearn.base import Array, InputError
from everlearn.data.files import open_file

LONGEST_RECORD = 64 << 20
"""Bytes after which a record that does not end is an error."""

_DELIMITERS = b",;\t|"


@dataclass(frozen=True, slots=True)
class Header:
    """The head of a CSV file: names, delimiter, and the byte at which the first row begins."""

    names: tuple[str, ...]
    delimiter: str
    offset: int


def last_line_end(data: bytes, delimiter: str) -> int:
    """One past the last line end outside quotes; 0 if there is none. `data` begins a record."""
    if b'"' not in data:
        return data.rfind(b"\n") + 1
    comma = delimiter.encode()
    ends, _ = _line_ends(comma + data, comma)
    return int(ends[-1]) if len(ends) else 0


def _line_ends(data: bytes, delimiters: bytes) -> tuple[Array, Array]:
    """Where the line ends outside quotes are, and where quotes open and close, in turn."""
    edges = _edges(data, delimiters)
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10)
    return ends[np.searchsorted(edges, ends) % 2 == 0], edges


def _edges(data: bytes, delimiters: bytes) -> Array:
    """Where quoted cells open and close, in turn; `data` does not begin with a quote.

    A quote opens a cell only as its first byte (RFC 4180, section 2), and stands for itself in a
    cell that does not begin with one. Where every second quote is the first byte of a cell, or
    the second one of a doubled quote, each quote is an edge (a doubled one closes and opens).
    """
    array = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(array == 34)
    before = np.zeros(256, bool)
    before[list(delimiters + b'\r\n"')] = True
    if before[array[quotes[::2] - 1]].all():
        return quotes
    edges: list[int] = []
    for match in _quoted(delimiters).finditer(data):
        edges.append(match.start())
        if match[1]:
            edges.append(match.start(1))
    return np.array(edges, np.int64)


@cache
def _quoted(delimiters: bytes) -> re.Pattern[bytes]:
    """A quoted cell; its group is the quote that closes it, empty if none does."""
    first = b'"(?<=[' + re.escape(delimiters) + b'\r\n]")'
    return re.compile(first + b'[^"]*+(?:""[^"]*+)*+("|\\Z)')


class RowCounter:
    """Counts the records of a CSV that is fed block by block; blank lines do not count."""

    def __init__(self, delimiter: str) -> None:
        self.ended = 0  # records whose line end was seen
        self._delimiter = delimiter.encode()
        self._before = self._delimiter  # bytes that leave a parser where the last block did
        self._line = b""  # at most two bytes of the unfinished line

    @property
    def rows(self) -> int:
        """Records so far, an unfinished last one included."""
        return self.ended + (self._line not in (b"", b"\r"))

    def feed(self, block: bytes) -> None:
        """Count the next block."""
        if not block:
            return
        array = np.frombuffer(block, np.uint8)
        ends = self._ends(block)
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

    def _ends(self, block: bytes) -> Array:
        """Where the line ends of the block outside quotes are."""
        data, edges = block, np.empty(0, np.int64)
        if b'"' in self._before or b'"' in block:
            data = self._before + block
            ends, edges = _line_ends(data, self._delimiter)
            ends -= len(self._before)
        else:
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10)
        if len(edges) % 2:
            self._before = self._delimiter + b'"'
        elif len(edges) and edges[-1] == len(data) - 1:  # closes, or is the first of a doubled one
            self._before = self._delimiter + b'""'
        else:
            starts_cell = data[-1:] in (self._delimiter, b"\r", b"\n")
            self._before = self._delimiter if starts_cell else b"x"
        return ends


def read_header(path: str) -> Header:
    """Read the first line that is not blank.

    Raises:
        InputError: there is none, it is not UTF-8, or a name stands there twice.
    """
    data = b""
    with open_file(path) as file:
        while more := file.read(max(len(data), 1 << 16)):
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
    bare = _quoted(_DELIMITERS).sub(b"", b"\n" + data[start:stop]).decode()
    if re.search(r"\r(?!\n)", bare.rstrip("\r\n")):
        raise InputError(f"{path!r} ends its lines with \\r alone; convert them to \\n first")
    delimiter = max(_DELIMITERS.decode(), key=bare.count)
    try:
        cells = next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter))
    except csv.Error as error:
        raise InputError(f"the first line of {path!r} names no columns: {error}") from None
    names = tuple(cell.strip() or f"column{i + 1}" for i, cell in enumerate(cells))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path!r} has two columns of the name {twice[0]!r}; rename one")
    return Header(names, delimiter, stop)


def _first_record(data: bytes, whole: bool) -> tuple[int, int]:
    """Start and stop of the first record that is not blank; stop is 0 if its end is not seen."""
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    start = len(data) - len(data[start:].lstrip(b"\r\n"))
    ends, _ = _line_ends(b"\n" + data[start:], _DELIMITERS)
    if len(ends) > 1:  # the first one was put there
        return start, start + int(ends[1])
    return start, len(data) if whole else 0
