"""Old rows of the feedback log, in Parquet blobs: whole, found by id, name, key or position.

A row is either in its table or in one segment here, never in both: see `data.compaction`. Where a
label is here, the prediction that it judges is too.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from blake3 import blake3
from sqlalchemy.engine import Connection

from everlearn.base import Hashes, InputError, Ints, NotFoundError
from everlearn.data.tables import BlobStore
from everlearn.storage.schema import archives, labels, predictions

Kind = Literal["predictions", "labels"]
Row = dict[str, Any]

TABLES: dict[Kind, sa.Table] = {"predictions": predictions, "labels": labels}

KEPT = 4
"""Segments that are kept in memory."""

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


@dataclass(frozen=True, slots=True)
class _Index:
    """Where rows are in a file: (n,) values in order, and (n,) the rows that have them."""

    ids: Ints
    id_rows: Ints
    names: Hashes
    name_rows: Ints


class Archive:
    """The archived rows of one model, read only. Safe for threads.

    Args:
        model: row id of the model.
        blobs: where the files are; None where nothing can be archived.
    """

    def __init__(self, model: int, blobs: BlobStore | None) -> None:
        self._model, self._blobs = model, blobs
        self._lock = threading.Lock()
        self._tables: OrderedDict[str, pa.Table] = OrderedDict()
        self._indexes: dict[str, _Index] = {}

    def segments(self, connection: Connection, kind: Kind) -> list[Segment]:
        """All segments of a table, in the order of their rows."""
        table = archives.c
        query = sa.select(
            table.id,
            table.kind,
            table.blob,
            table.rows,
            table.first,
            table.last,
            table.lowest,
            table.highest,
        ).where(table.model_id == self._model, table.kind == kind)
        return [Segment(*row) for row in connection.execute(query.order_by(table.first))]

    def predictions(self, connection: Connection, ids: Iterable[int]) -> dict[int, Row]:
        """Id → the row, of the predictions that are here."""
        wanted = np.unique(np.fromiter(ids, np.int64))
        found: dict[int, Row] = {}
        for segment in self.segments(connection, "predictions") if len(wanted) else ():
            here = wanted[(wanted >= segment.lowest) & (wanted <= segment.highest)]
            if len(here) and segment.blob is not None:
                index = self._index(segment)
                rows = index.id_rows[_places(index.ids, here)]
                found |= {row["id"]: row for row in self._rows(segment, rows)}
        return found

    def named(self, connection: Connection, names: Iterable[str]) -> dict[str, Row]:
        """External id → the row, of the predictions that are here."""
        return {row["external_id"]: row for row in self._called(connection, "predictions", names)}

    def keys(self, connection: Connection, keys: Iterable[str]) -> list[Row]:
        """The labels that came with these idempotency keys."""
        return list(self._called(connection, "labels", keys))

    def judging(
        self, connection: Connection, ids: Iterable[int], upto: int | None = None
    ) -> list[Row]:
        """The labels of these predictions, up to a position, in the log's order."""
        wanted = np.unique(np.fromiter(ids, np.int64))
        found: list[Row] = []
        for segment in self.segments(connection, "labels") if len(wanted) else ():
            here = wanted[(wanted >= segment.lowest) & (wanted <= segment.highest)]
            if len(here) and segment.blob is not None:
                index = self._index(segment)
                found += self._rows(segment, index.id_rows[_places(index.ids, here)])
        found = [row for row in found if upto is None or row["position"] <= upto]
        return sorted(found, key=lambda row: int(row["position"]))

    def labels(self, connection: Connection, after: int, upto: int) -> list[Row]:
        """The labels with after < position ≤ upto that are here, in the log's order.

        Raises:
            NotFoundError: some of them were dropped.
        """
        found: list[Row] = []
        for segment in self.segments(connection, "labels"):
            if segment.first > upto or segment.last <= after:
                continue
            if segment.blob is None:
                raise NotFoundError(
                    f"the labels at positions {segment.first} to {segment.last} were deleted by "
                    "`everlearn compact --drop-older-than`"
                )
            start = max(after + 1, segment.first) - segment.first  # positions have no gaps
            stop = min(upto, segment.last) - segment.first + 1
            found += self._table(segment).slice(start, stop - start).to_pylist()
        return found

    def kept_after(self, connection: Connection) -> int:
        """The position after which all labels are still there: 0 unless some were dropped."""
        table = archives.c
        query = sa.select(sa.func.max(table.last)).where(
            table.model_id == self._model, table.kind == "labels", table.blob.is_(None)
        )
        return int(connection.execute(query).scalar() or 0)

    def judged(
        self, connection: Connection, after: int, upto: int, known: int | None = None
    ) -> list[tuple[Row, Row]]:
        """(label, prediction) of the labels with after < position ≤ upto, here or in their table,
        of which the predictions are here.

        Args:
            known: only what had arrived by this moment.

        Raises:
            NotFoundError: some of them were dropped.
        """
        rows = self.labels(connection, after, upto)
        table = labels.c
        query = sa.select(labels).where(
            table.model_id == self._model,
            table.position > after,
            table.position <= upto,
            ~sa.exists().where(predictions.c.id == table.prediction_id),
        )
        rows += [dict(row) for row in connection.execute(query).mappings()]
        about = self.predictions(connection, {row["prediction_id"] for row in rows})
        found = []
        for row in rows:
            asked = about.get(row["prediction_id"])
            if asked is None:
                raise NotFoundError(
                    f"the prediction of the label at position {row['position']} was deleted by "
                    "`everlearn compact --drop-older-than`"
                )
            if known is None or max(row["arrived_at"], asked["arrived_at"]) <= known:
                found.append((row, asked))
        return found

    def table(self, segment: Segment) -> pa.Table:
        """All rows of a segment. Raises `NotFoundError` if it was dropped."""
        return self._table(segment)

    # --- inside ---

    def _called(self, connection: Connection, kind: Kind, names: Iterable[str]) -> Iterator[Row]:
        listed = set(names)
        wanted = hashed(sorted(listed))
        for segment in self.segments(connection, kind) if listed else ():
            if segment.blob is None:
                continue
            index = self._index(segment)
            at = index.name_rows[_places(index.names, wanted)]
            for row in self._rows(segment, at) if len(at) else ():
                if row[_NAMES[kind]] in listed:
                    yield row

    def _rows(self, segment: Segment, at: Ints) -> list[Row]:
        rows: list[Row] = self._table(segment).take(pa.array(np.sort(at))).to_pylist()
        return rows

    def _index(self, segment: Segment) -> _Index:
        assert segment.blob is not None
        index = self._indexes.get(segment.blob)
        if index is None:
            table = self._table(segment)
            ids = table.column(_IDS[segment.kind]).to_numpy()
            named = table.column(_NAMES[segment.kind])
            places = np.flatnonzero(named.is_valid().to_numpy())
            names = hashed(named.drop_null().to_pylist())
            by_id, by_name = np.argsort(ids, kind="stable"), np.argsort(names, kind="stable")
            index = _Index(ids[by_id], by_id, names[by_name], places[by_name])
            self._indexes[segment.blob] = index
        return index

    def _table(self, segment: Segment) -> pa.Table:
        if segment.blob is None:
            raise NotFoundError(f"archived {segment.kind} were deleted")
        if self._blobs is None:
            raise InputError(f"archived {segment.kind} cannot be read here: no blobs were given")
        with self._lock:
            found = self._tables.get(segment.blob)
            if found is None:
                found = read_rows(self._blobs.get(segment.blob))
                self._tables[segment.blob] = found
                if len(self._tables) > KEPT:
                    self._tables.popitem(last=False)
            self._tables.move_to_end(segment.blob)
            return found


_IDS: dict[Kind, str] = {"predictions": "id", "labels": "prediction_id"}
_NAMES: dict[Kind, str] = {"predictions": "external_id", "labels": "idempotency_key"}


def hashed(names: Sequence[str]) -> Hashes:
    """(n,) hashes of texts; texts that share one are told apart by reading them."""
    data = b"".join(blake3(name.encode()).digest(8) for name in names)
    return np.frombuffer(data, np.uint64)


def write_rows(kind: Kind, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows of a table of the database as a Parquet file."""
    return write_table(pa.Table.from_pylist([dict(row) for row in rows], _schema(TABLES[kind])))


def write_table(table: pa.Table) -> bytes:
    """A table as a Parquet file."""
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=GROUP)
    return bytes(sink.getvalue())


def read_rows(data: bytes) -> pa.Table:
    """The inverse of `write_rows`."""
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(data)).combine_chunks()


def _schema(table: sa.Table) -> pa.Schema:
    kinds = {sa.BigInteger: pa.int64(), sa.Integer: pa.int64(), sa.Float: pa.float64()}
    fields = []
    for column in table.columns:
        kind = next((kind for base, kind in kinds.items() if isinstance(column.type, base)), None)
        fields.append(pa.field(column.name, kind or pa.large_string()))
    return pa.schema(fields)


def _places(values: Any, wanted: Any) -> Ints:
    """The places in `values` (n,), which are in order, of each of `wanted`."""
    left = np.searchsorted(values, wanted, "left")
    right = np.searchsorted(values, wanted, "right")
    spans = [np.arange(low, high) for low, high in zip(left, right, strict=True) if high > low]
    return np.concatenate(spans) if spans else np.zeros(0, np.int64)
