"""Where rows come from: files, globs of them, tables, arrays, iterables; addressable by row."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from everlearn.base import Columns, InputError
from everlearn.data.csv import CsvReader, CsvSource
from everlearn.data.files import expand, format_of
from everlearn.data.ipc import IpcReader, IpcSource
from everlearn.data.parquet import ParquetReader, ParquetSource
from everlearn.data.slices import Consumed, PieceReader, Slice
from everlearn.data.tables import (
    BlobStore,
    MemoryBlobs,
    SpooledSource,
    SpoolReader,
    arrays_to_table,
)
from everlearn.data.tensorflow_datasets import is_dataset, rows_of


@runtime_checkable
class Source(Protocol):
    """Rows that can be addressed by their position and recognised by their content."""

    @property
    def name(self) -> str: ...

    @property
    def names(self) -> tuple[str, ...]:
        """The columns, in their order."""
        ...

    def sample(self) -> pa.Table:
        """Some of the first rows, for `resolve`."""
        ...

    def slice(
        self, known: Sequence[Consumed] = (), columns: Columns | None = None, again: bool = False
    ) -> Slice | None:
        """Freeze what is new in the source.

        Args:
            known: what the lineage has consumed, of any source.
            columns: how the rows are compiled; with them, a Parquet or IPC file that was written
                anew and longer is recognised by its rows.
            again: take everything, whatever was consumed.

        Returns:
            The whole source if nothing of it is known, its tail if it grew, None if all is known.

        Raises:
            ChangedError: it was learned under this name, and those rows are no longer there.
        """
        ...


def open_sources(
    data: Any, *, blobs: BlobStore | None = None, name: str | None = None
) -> list[Source]:
    """Open everything that `data` means, in order; nothing but heads and footers is read of files.

    Args:
        data: a path or a glob, or a list of them; a pandas or Polars frame, an Arrow table or
            record batch reader, a dict of columns; (X, y) arrays; an iterable of dicts or frames; a
            `tf.data.Dataset`; or a source.
        blobs: where tables and iterables are spooled; in memory without.
        name: of the source, for tables and iterables.

    Raises:
        InputError: something cannot be read; the message names it.
    """
    if isinstance(data, Source):
        return [data]
    if isinstance(data, (str, os.PathLike)):
        return [open_path(path) for path in expand(data)]
    if isinstance(data, (list, tuple)) and data and isinstance(data[0], (str, os.PathLike)):
        paths = dict.fromkeys(path for item in data for path in expand(item))
        return [open_path(path) for path in paths]
    if is_dataset(data):
        data = rows_of(data)
    elif isinstance(data, tuple) and len(data) == 2:
        data = arrays_to_table(*data)
    elif _is_matrix(data):
        data = arrays_to_table(data)
    if not isinstance(data, Iterable) and not hasattr(data, "__arrow_c_stream__"):
        raise InputError(
            "data is a path, a glob, a list of them, a data frame, a table, (X, y) arrays or an "
            f"iterable of dicts, not {type(data)}"
        )
    return [SpooledSource(data, blobs or MemoryBlobs(), name)]


def _is_matrix(data: Any) -> bool:
    return getattr(data, "ndim", 0) == 2 and not hasattr(data, "columns")


def open_path(path: str) -> Source:
    """Open one file.

    Raises:
        InputError: it is empty, cut off, or of no format that is known.
    """
    kinds: dict[str, Any] = {"csv": CsvSource, "parquet": ParquetSource, "ipc": IpcSource}
    source: Source = kinds[format_of(path)](path)
    return source


def open_reader(part: Slice, columns: Columns, blobs: BlobStore | None = None) -> PieceReader:
    """A reader of the pieces of a slice.

    Raises:
        ChangedError: the file is gone or shorter.
        InputError: a slice of spooled data without blobs, or of a kind that is not known.
    """
    if part.kind == "csv":
        return CsvReader(part, columns)
    if part.kind == "parquet":
        return ParquetReader(part, columns)
    if part.kind == "ipc":
        return IpcReader(part, columns)
    if part.kind in ("spool", "log") and blobs is not None:
        return SpoolReader(part, columns, blobs)
    raise InputError(f"cannot read {part.source!r}: a slice of the kind {part.kind!r} needs blobs")
