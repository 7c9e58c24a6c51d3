"""Old rows of the feedback log, in Parquet blobs: whole, found by id, name, key or position.

A row is either in its table or in one segment here, never in both: see `data.compaction`. Where a
label is here, the prediction that it judges is too.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import InputError, Ints, NotFoundError
from everlearn.data.segments import IDS, NAMES, File, Kind, Row, Segment, hashed, places
from everlearn.data.tables import BlobStore
from everlearn.storage.bulk import rows_among
from everlearn.storage.schema import archive_names, archives, labels, predictions

OPEN = 4
"""Files that are kept open, compressed."""

KNOWN = 128
"""Files of which it is kept in memory which predictions they are about: 8 bytes a row."""


class Archive:
    """The archived rows of one model, read only. Safe for threads.

    Args:
        model: row id of the model.
        blobs: where the files are; None where nothing can be archived.
    """

    def __init__(self, model: int, blobs: BlobStore | None) -> None:
        self._model, self._blobs = model, blobs
        self._lock = threading.Lock()
        self._files: OrderedDict[str, File] = OrderedDict()
        self._ids: OrderedDict[str, pa.ChunkedArray] = OrderedDict()

    def segments(
        self, connection: Connection, kind: Kind, *which: sa.ColumnElement[bool]
    ) -> list[Segment]:
        """All segments of a table, or some, in the order of their rows."""
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
        ).where(table.model_id == self._model, table.kind == kind, *which)
        return [Segment(*row) for row in connection.execute(query.order_by(table.first))]

    def predictions(self, connection: Connection, ids: Iterable[int]) -> dict[int, Row]:
        """Id → the row, of the predictions that are here."""
        return {row["id"]: row for row in self._about(connection, "predictions", ids)}

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
        found = self._about(connection, "labels", ids)
        kept = (row for row in found if upto is None or row["position"] <= upto)
        return sorted(kept, key=lambda row: int(row["position"]))

    def label(self, connection: Connection, number: int) -> Row | None:
        """The label of a number, if it is here; files are read from the newest on."""
        for segment in reversed(self.segments(connection, "labels", archives.c.blob.is_not(None))):
            with self._lock:
                file = self._file(segment)
                found = file.rows(file.among("id", [number]))
            if found:
                return found[0]
        return None

    def labels(self, connection: Connection, after: int, upto: int) -> list[Row]:
        """The labels with after < position ≤ upto that are here, in the log's order.

        Raises:
            NotFoundError: some of them were dropped.
        """
        found: list[Row] = []
        table = archives.c
        within = (table.first <= upto, table.last > after)
        for segment in self.segments(connection, "labels", *within):
            if segment.blob is None:
                raise NotFoundError(
                    f"the labels at positions {segment.first} to {segment.last} were deleted by "
                    "`everlearn compact --drop-older-than`"
                )
            start = max(after + 1, segment.first) - segment.first  # positions have no gaps
            stop = min(upto, segment.last) - segment.first + 1
            with self._lock:
                found += self._file(segment).rows(np.arange(start, stop))
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
        with self._lock:
            return self._file(segment).table()

    # --- inside ---

    def _about(self, connection: Connection, kind: Kind, ids: Iterable[int]) -> list[Row]:
        """The rows that are about some predictions."""
        wanted = np.unique(np.fromiter(ids, np.int64))
        if not len(wanted):
            return []
        table = archives.c
        near = (table.lowest <= int(wanted[-1]), table.highest >= int(wanted[0]))
        found: list[Row] = []
        for segment in self.segments(connection, kind, *near, table.blob.is_not(None)):
            here = wanted[(wanted >= segment.lowest) & (wanted <= segment.highest)]
            if len(here):
                with self._lock:
                    at = self._places(segment, here)
                    found += self._file(segment).rows(at) if len(at) else []
        return found

    def _called(self, connection: Connection, kind: Kind, names: Iterable[str]) -> Iterator[Row]:
        """The rows that have one of some names. The database says in which files: see
        `schema.archive_names`."""
        listed = sorted(set(names))
        column, table = NAMES[kind], archives.c
        marks = hashed(listed)
        rows = rows_among(connection, archive_names, ("archive_id",), "name", marks, None)
        some = table.id.in_({row.archive_id for row in rows})
        which = sa.and_(table.blob.is_not(None), sa.or_(some, table.named.is_(None)))
        for segment in self.segments(connection, kind, which) if listed else ():
            with self._lock:
                file = self._file(segment)
                found = file.rows(file.among(column, listed))
            yield from found

    def _places(self, segment: Segment, ids: Collection[int]) -> Ints:
        """The rows of a segment that are about some predictions."""
        assert segment.blob is not None
        known = self._ids.get(segment.blob)
        if known is None:
            known = self._ids[segment.blob] = self._file(segment).column(IDS[segment.kind])
            if len(self._ids) > KNOWN:
                self._ids.popitem(last=False)
        self._ids.move_to_end(segment.blob)
        return places(known, ids)

    def _file(self, segment: Segment) -> File:
        """The file of a segment; the lock is held."""
        if segment.blob is None:
            raise NotFoundError(f"archived {segment.kind} were deleted")
        if self._blobs is None:
            raise InputError(f"archived {segment.kind} cannot be read here: no blobs were given")
        found = self._files.get(segment.blob)
        if found is None:
            found = self._files[segment.blob] = File(self._blobs.get(segment.blob))
            if len(self._files) > OPEN:
                self._files.popitem(last=False)
        self._files.move_to_end(segment.blob)
        return found
