"""Arrow IPC files (Feather version 2), read record batch by record batch from a memory map."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence

import pyarrow as pa

from everlearn.base import ChangedError, Columns, InputError
from everlearn.data.compiler import wanted
from everlearn.data.files import VerifiedFile, file_options, open_file, scan
from everlearn.data.growth import unconsumed
from everlearn.data.parquet import piece_rows
from everlearn.data.slices import Consumed, Piece, Place, Slice


def _map(location: str) -> mmap.mmap:
    with open_file(location) as file:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)


def _open(pages: mmap.mmap, names: Sequence[str] | None = None) -> pa.RecordBatchFileReader:
    """A reader of the named columns, in the file's order; of all without names."""
    buffer = pa.py_buffer(pages)
    reader = pa.ipc.open_file(buffer)
    if names is None:
        return reader
    chosen = [i for i, name in enumerate(reader.schema.names) if name in set(names)]
    options = pa.ipc.IpcReadOptions(included_fields=chosen or [0], use_threads=False)
    return pa.ipc.open_file(buffer, options=options)


class IpcSource:
    """An Arrow IPC file. Written anew with more rows at the end, only those are new.

    Raises:
        InputError: it cannot be read (the message names it), or has a column name twice.
    """

    kind = "ipc"

    def __init__(self, name: str) -> None:
        self.name = name
        self.location = os.path.abspath(name)
        try:
            reader = _open(_map(name))
            self.names: tuple[str, ...] = tuple(reader.schema.names)
            first = _open(_map(name), self.names[:1])
            self._ends = [0]
            for i in range(first.num_record_batches):
                self._ends.append(self._ends[-1] + first.get_batch(i).num_rows)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{name!r} is not a whole Arrow IPC file: {error}") from error
        if len(set(self.names)) < len(self.names):
            raise InputError(f"{name!r} has a column name twice: {sorted(self.names)}")

    def sample(self) -> pa.Table:
        """The first rows of the file."""
        reader = _open(_map(self.location))
        for i in range(reader.num_record_batches):
            if batch := reader.get_batch(i):
                return pa.Table.from_batches([batch.slice(0, 10_000)])
        return reader.schema.empty_table()

    def slice(
        self, known: Sequence[Consumed] = (), columns: Columns | None = None, again: bool = False
    ) -> Slice | None:
        """What of the file was not consumed before; None if all was. See `Source.slice`."""
        found = scan(self.location)
        whole = Slice(
            source=self.name,
            kind="ipc",
            location=self.location,
            start=0,
            stop=self._ends[-1],
            size=found.size,
            digest=found.digest,
            names=self.names,
            options={"ends": self._ends} | file_options(self.location, found),
        )
        return unconsumed(whole, [] if again else known, columns, IpcReader)


class IpcReader:
    """Reads a slice of an Arrow IPC file; see `PieceReader`."""

    def __init__(self, part: Slice, columns: Columns) -> None:
        options = part.options
        self._part = part
        self._names = [name for name in wanted(columns) if name in set(part.names)]
        self._raw = VerifiedFile(
            part.location, part.size, options["blocks"], options["stamp"], options["first"]
        )
        self._pages = _map(part.location)

    def close(self) -> None:
        self._raw.close()

    def pieces(self, place: Place | None = None) -> Iterator[Piece]:
        """See `PieceReader`. All bytes are verified before the first piece."""
        row = place.row if place else self._part.start
        self._raw.verify(0, self._part.size)
        try:
            reader = _open(self._pages, self._names)
        except pa.ArrowException as error:
            raise ChangedError(f"{self._part.source!r} can no longer be read: {error}") from error
        step = piece_rows(len(self._names))
        ends = self._part.options["ends"]
        for i in range(reader.num_record_batches):
            if ends[i + 1] <= row:
                continue
            batch = reader.get_batch(i)
            while row < ends[i + 1]:
                self._raw.still()
                piece = batch.slice(row - ends[i], step)
                yield Piece(Place(row), piece)
                row += piece.num_rows
                self._pages.madvise(mmap.MADV_DONTNEED)  # keep what was read out of our memory
        self._raw.still()
