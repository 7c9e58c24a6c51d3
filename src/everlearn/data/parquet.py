"""Parquet files, read row group by row group."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from everlearn.base import ChangedError, Columns, InputError
from everlearn.data.compiler import wanted
from everlearn.data.files import VerifiedFile, file_options, scan
from everlearn.data.growth import unconsumed
from everlearn.data.slices import Consumed, Piece, Place, Slice

PIECE_ROWS = 65_536
"""Most rows of a piece."""

PIECE_CELLS = 1 << 21
"""Most cells of a piece, where rows are wide."""


def piece_rows(width: int) -> int:
    """Rows of a piece with that many columns."""
    return max(1024, min(PIECE_ROWS, PIECE_CELLS // max(width, 1)))


class ParquetSource:
    """A Parquet file. Written anew with more rows at the end, only those are new.

    Raises:
        InputError: it cannot be read (the message names it), or has a column name twice.
    """

    kind = "parquet"

    def __init__(self, name: str) -> None:
        self.name = name
        self.location = os.path.abspath(name)
        self._sample: pa.Table | None = None
        try:
            with pq.ParquetFile(name) as file:
                self.rows: int = file.metadata.num_rows
                self.names: tuple[str, ...] = tuple(file.schema_arrow.names)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{name!r} is not a whole Parquet file: {error}") from error
        if len(set(self.names)) < len(self.names):
            raise InputError(f"{name!r} has a column name twice: {sorted(self.names)}")

    def sample(self) -> pa.Table:
        """The first rows of the file."""
        if self._sample is None:
            with pq.ParquetFile(self.location, pre_buffer=False, buffer_size=1 << 16) as file:
                batches = file.iter_batches(batch_size=10_000, use_threads=False)
                first = list(islice(batches, 1))
                self._sample = pa.Table.from_batches(first, file.schema_arrow)
        return self._sample

    def slice(
        self, known: Sequence[Consumed] = (), columns: Columns | None = None, again: bool = False
    ) -> Slice | None:
        """What of the file was not consumed before; None if all was. See `Source.slice`."""
        found = scan(self.location)
        whole = Slice(
            source=self.name,
            kind="parquet",
            location=self.location,
            start=0,
            stop=self.rows,
            size=found.size,
            digest=found.digest,
            names=self.names,
            options=file_options(self.location, found),
        )
        return unconsumed(whole, [] if again else known, columns, ParquetReader)


class ParquetReader:
    """Reads a slice of a Parquet file; see `PieceReader`."""

    def __init__(self, part: Slice, columns: Columns) -> None:
        options = part.options
        self._part = part
        names = set(part.names)
        self._names = [name for name in wanted(columns) if name in names]
        texts = {*columns.categories, columns.key}
        self._raw = VerifiedFile(
            part.location, part.size, options["blocks"], options["stamp"], options["first"]
        )
        try:
            self._file = pq.ParquetFile(
                part.location,
                read_dictionary=[name for name in self._names if name in texts],
                pre_buffer=False,
                buffer_size=1 << 20,
            )
        except (pa.ArrowException, OSError) as error:
            self._raw.close()
            raise ChangedError(f"{part.source!r} can no longer be read: {error}") from error

    def close(self) -> None:
        self._file.close()
        self._raw.close()

    def pieces(self, place: Place | None = None) -> Iterator[Piece]:
        """See `PieceReader`."""
        row = place.row if place else self._part.start
        metadata = self._file.metadata
        ends = np.cumsum([metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)])
        for group in range(metadata.num_row_groups):
            if ends[group] <= row:
                continue
            self._verify(group)
            begin = int(ends[group]) - metadata.row_group(group).num_rows
            for batch in self._file.iter_batches(
                batch_size=piece_rows(len(self._names)),
                row_groups=[group],
                columns=self._names,
                use_threads=False,
            ):
                end = begin + batch.num_rows
                if end > row:
                    yield Piece(Place(row), batch.slice(row - begin))
                    row = end
                begin = end
        self._raw.still()

    def _verify(self, group: int) -> None:
        """Check the bytes of the columns that are read of a row group."""
        if self._raw.unchanged:
            return
        described = self._file.metadata.row_group(group)
        chosen = set(self._names)
        for j in range(described.num_columns):
            column = described.column(j)
            path = column.path_in_schema
            if path in chosen or path.split(".")[0] in chosen:
                start = column.data_page_offset
                if column.has_dictionary_page:
                    start = min(start, column.dictionary_page_offset)
                self._raw.verify(start, start + column.total_compressed_size)
