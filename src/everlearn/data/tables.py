"""Data that is in memory or comes from an iterable: spooled first, as Arrow pieces in blobs.

What is spooled can be read again by another process, which is how a job over a data frame survives
the process that was given the frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from blake3 import blake3

from everlearn.base import Columns, InputError, NotFoundError
from everlearn.data.compiler import as_table, records_to_table, wanted
from everlearn.data.convert import Mask
from everlearn.data.growth import unconsumed
from everlearn.data.parquet import PIECE_ROWS, piece_rows
from everlearn.data.slices import Consumed, Piece, PieceReader, Place, Slice

REFUSED = "everlearn:refused"
"""Column of spooled rows that says why a row is not to be learned; null where it is."""


CORRECTS = "everlearn:corrects"
"""Column of spooled rows that says which of them judge anew what was learned before."""


class BlobStore(Protocol):
    """What spooling needs of a blob store; `everlearn.storage.blobs.Blobs` has it."""

    def put(self, data: bytes) -> str: ...

    def get(self, digest: str) -> bytes: ...


class MemoryBlobs:
    """Blobs in this process only, where there is no workspace."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        """Keep the bytes; the name is their BLAKE3."""
        digest = blake3(data).hexdigest()
        self._data[digest] = data
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes of that name. Raises `NotFoundError` if there are none."""
        if digest not in self._data:
            raise NotFoundError(f"no blob {digest} in memory")
        return self._data[digest]


class Scratch:
    """Blobs of a store, and beside them, in this process only, those that are put: nothing is left
    of what is only tried.

    Args:
        blobs: the store, which is only read.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs, self._own = blobs, MemoryBlobs()

    def put(self, data: bytes) -> str:
        """As `MemoryBlobs.put`."""
        return self._own.put(data)

    def get(self, digest: str) -> bytes:
        """The bytes of that name. Raises `NotFoundError` if there are none."""
        with suppress(NotFoundError):
            return self._own.get(digest)
        return self._blobs.get(digest)


def arrays_to_table(
    X: Any, y: Any = None, names: Sequence[str] | None = None, target: str = "y"
) -> pa.Table:
    """A table of the columns of X (n, p), named "x0", "x1", … unless said, and of y (n,).

    Raises:
        InputError: X is not two-dimensional, or y has another length.
    """
    if hasattr(X, "columns") or isinstance(X, (pa.Table, pa.RecordBatch)):
        table = as_table(X)
    else:
        matrix = np.asarray(X)
        if matrix.ndim != 2:
            raise InputError(f"X must have the shape (rows, columns), not {matrix.shape}")
        names = names or [f"x{j}" for j in range(matrix.shape[1])]
        table = pa.Table.from_arrays([_array(c) for c in _columns(matrix)], names=list(names))
    if y is None:
        return table
    values = np.asarray(y)
    if values.shape != (table.num_rows,):
        raise InputError(f"y must have the shape ({table.num_rows},), not {values.shape}")
    return table.append_column(target, _array(values))


def _columns(matrix: Any) -> Any:
    """(p, n) copy of an (n, p) matrix, made in blocks that stay in the cache."""
    columns = np.empty(matrix.shape[::-1], matrix.dtype)
    for start in range(0, len(matrix), 256):
        columns[:, start : start + 256] = matrix[start : start + 256].T
    return columns


def _array(values: Any) -> pa.Array:
    if values.dtype.kind in "USO":
        return pa.array(values.tolist(), from_pandas=True)
    if values.dtype.kind == "f" and not np.isnan(values).any():
        return pa.array(values)  # without a copy
    return pa.array(values, from_pandas=True)


class SpooledSource:
    """A table or an iterable of dicts, written to blobs when it is opened.

    Args:
        data: a table, a data frame, record batches, or an iterable of dicts or of frames.
        blobs: where to.
        name: of the source. Under a name, a longer table goes on where a shorter one ended;
            without one, a table is named by its content.

    Raises:
        InputError: rows that are no dicts, or values that no column can hold.
    """

    kind = "spool"
    location = ""

    def __init__(self, data: Any, blobs: BlobStore, name: str | None = None) -> None:
        self.blobs = blobs
        self._first: pa.Table | None = None
        self._pieces: list[tuple[str, int]] = []
        self._size = 0
        names: dict[str, None] = {}
        for table in _cut(data):
            self._first = table if self._first is None else self._first
            names |= dict.fromkeys(table.schema.names)
            written = write_table(table)
            self._pieces.append((blobs.put(written), table.num_rows))
            self._size += len(written)
        self.names = tuple(names)
        joined = "".join(f"{digest}:{rows}," for digest, rows in self._pieces)
        self._digest = blake3(joined.encode()).hexdigest()
        self.name = name or f"table-{self._digest[:12]}"
        if not self._pieces:
            raise InputError(f"{name or 'the data'} has no rows")

    def sample(self) -> pa.Table:
        """The first rows."""
        assert self._first is not None
        return self._first.slice(0, 10_000)

    def slice(
        self, known: Sequence[Consumed] = (), columns: Columns | None = None, again: bool = False
    ) -> Slice | None:
        """What of the table was not consumed before; None if all was. See `Source.slice`."""
        whole = Slice(
            source=self.name,
            kind="spool",
            location="",
            start=0,
            stop=sum(rows for _, rows in self._pieces),
            size=self._size,
            digest=self._digest,
            names=self.names,
            options={"pieces": [{"blob": blob, "rows": rows} for blob, rows in self._pieces]},
        )

        def reader(part: Slice, columns: Columns) -> PieceReader:
            return SpoolReader(part, columns, self.blobs)

        return unconsumed(whole, [] if again else known, columns, reader)


def write_table(table: pa.Table) -> bytes:
    """The table as an Arrow IPC file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _cut(data: Any) -> Iterator[pa.Table]:
    """Tables of at most `PIECE_ROWS` rows, without metadata, none of them empty."""
    for table in _tables(data):
        plain = table.replace_schema_metadata(None)
        if len(set(plain.schema.names)) < len(plain.schema.names):
            raise InputError(f"a column name stands twice: {sorted(plain.schema.names)}")
        step = piece_rows(table.num_columns)
        for start in range(0, table.num_rows, step):
            yield plain.slice(start, step).combine_chunks()


def _tables(data: Any) -> Iterator[pa.Table]:
    if isinstance(data, pa.RecordBatchReader):
        for batch in data:
            yield pa.Table.from_batches([batch])
        return
    if isinstance(data, Mapping):
        yield pa.table({str(key): _array(np.asarray(value)) for key, value in data.items()})
        return
    if hasattr(data, "__arrow_c_stream__") or isinstance(data, pa.RecordBatch):
        yield as_table(data)
        return
    if not isinstance(data, Iterable):
        raise InputError(f"cannot read rows from {type(data)}")
    rows = iter(data)
    while part := list(islice(rows, PIECE_ROWS)):
        if isinstance(part[0], Mapping):
            yield records_to_table(part)
        else:
            yield from (as_table(item) for item in part)


class SpoolReader:
    """Reads a slice of spooled data; see `PieceReader`."""

    def __init__(self, part: Slice, columns: Columns, blobs: BlobStore) -> None:
        self._part, self._blobs = part, blobs
        self._names = [name for name in wanted(columns) if name in set(part.names)]

    def close(self) -> None:
        pass

    def pieces(self, place: Place | None = None) -> Iterator[Piece]:
        """See `PieceReader`."""
        row = place.row if place else self._part.start
        begin = self._part.options.get("first", 0)  # row of the source with which the blobs begin
        for piece in self._part.options["pieces"]:
            end = begin + piece["rows"]
            if end > row:
                batch = self._complete(self._blobs.get(piece["blob"]))
                table = batch.slice(row - begin)
                yield Piece(Place(row), table, refused_rows(table))
                row = end
            begin = end

    def _complete(self, data: bytes) -> pa.RecordBatch:
        """The piece, with columns of nulls where only other pieces have the name."""
        batch = spooled(data)
        there = set(batch.schema.names)
        for name in self._names:
            if name not in there:
                batch = batch.append_column(name, pa.nulls(batch.num_rows))
        return batch


def spooled(data: bytes) -> pa.RecordBatch:
    """The inverse of `write_table`, of a table with rows."""
    return pa.ipc.open_file(pa.py_buffer(data)).read_all().combine_chunks().to_batches()[0]


def refused_rows(table: pa.RecordBatch) -> dict[int, str]:
    """Row → why it is not to be learned."""
    at = table.schema.get_field_index(REFUSED)
    if at < 0 or table.column(at).null_count == table.num_rows:
        return {}
    reasons = table.column(at).to_pylist()
    return {row: reason for row, reason in enumerate(reasons) if reason is not None}


def corrections(table: pa.RecordBatch) -> Mask | None:
    """(n,) which rows judge anew what was learned before; None if none does."""
    at = table.schema.get_field_index(CORRECTS)
    if at < 0:
        return None
    marked = table.column(at).to_numpy(zero_copy_only=False)
    return marked if marked.any() else None
