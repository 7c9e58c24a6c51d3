"""Files of archived rows: Parquet, read by row groups and columns, so that few rows cost little."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from blake3 import blake3

from everlearn.base import Ints
from everlearn.storage.schema import labels, predictions

Kind = Literal["predictions", "labels"]
Row = dict[str, Any]

TABLES: dict[Kind, sa.Table] = {"predictions": predictions, "labels": labels}

IDS: dict[Kind, str] = {"predictions": "id", "labels": "prediction_id"}
"""The column that says which prediction a row is about."""

NAMES: dict[Kind, str] = {"predictions": "external_id", "labels": "idempotency_key"}
"""The column by which a caller names a row."""

GROUP = 5_000
"""Rows in a row group of a file."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows that are in one file.

    Args:
        number: id of its row.
        kind: of which table.
        blob: the file; None if it was dropped.
        rows: how many.
        first, last: positions of labels, ids of predictions.
        lowest, highest: ids of the predictions that it is about.
    """

    number: int
    kind: Kind
    blob: str | None
    rows: int
    first: int
    last: int
    lowest: int
    highest: int


class File:
    """The file of a segment. Not safe for threads.

    Args:
        data: what `write_rows` made.
    """

    def __init__(self, data: bytes) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(pa.BufferReader(data))
        facts = self._file.metadata
        sizes = [facts.row_group(at).num_rows for at in range(facts.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])

    def table(self) -> pa.Table:
        """All rows."""
        return self._file.read().combine_chunks()

    def column(self, name: str) -> pa.ChunkedArray:
        """(n,) one column."""
        return self._file.read(columns=[name]).column(0)

    def among(self, name: str, values: Collection[Any]) -> Ints:
        """(m,) the rows, ascending, of which a column is among some values."""
        return places(self.column(name), values)

    def rows(self, at: Ints) -> list[Row]:
        """The rows of these numbers, which ascend; only row groups that have some are read."""
        if not len(at):
            return []
        groups = np.searchsorted(self._starts, at, "right") - 1
        found: list[Row] = []
        for group in np.unique(groups).tolist():
            here = at[groups == group] - self._starts[group]
            found += self._file.read_row_group(group).take(pa.array(here)).to_pylist()
        return found


def places(column: pa.ChunkedArray, values: Collection[Any]) -> Ints:
    """(m,) the places, ascending, at which a column (n,) is among some values."""
    wanted = pa.array(list(values), column.type)
    found: Ints = np.flatnonzero(pc.is_in(column, wanted).to_numpy())
    return found


def hashed(names: Sequence[str]) -> list[int]:
    """Hashes of texts, as signed numbers of 64 bits; texts that share one are told apart by
    reading them."""
    data = b"".join(blake3(name.encode()).digest(8) for name in names)
    found: list[int] = np.frombuffer(data, np.int64).tolist()
    return found


def names_in(file: File, kind: Kind) -> list[int]:
    """The hashes of the names of its rows, ascending, each once."""
    return sorted(set(hashed(file.column(NAMES[kind]).drop_null().to_pylist())))


def write_rows(kind: Kind, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows of a table of the database as a Parquet file."""
    return write_table(pa.Table.from_pylist([dict(row) for row in rows], _schema(TABLES[kind])))


def write_table(table: pa.Table) -> bytes:
    """A table as a Parquet file."""
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=GROUP)
    return bytes(sink.getvalue())


def _schema(table: sa.Table) -> pa.Schema:
    kinds = {sa.BigInteger: pa.int64(), sa.Integer: pa.int64(), sa.Float: pa.float64()}
    fields = []
    for column in table.columns:
        kind = next((kind for base, kind in kinds.items() if isinstance(column.type, base)), None)
        fields.append(pa.field(column.name, kind or pa.large_string()))
    return pa.schema(fields)
