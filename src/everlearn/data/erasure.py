"""Takes the data of one key out of the feedback log, its archive, and the spooled slices of it.

Rows stay as tombstones: a prediction keeps its id and its times, a label its position and its
source, so that positions have no gap and nothing is learned twice. A tombstone is set aside.

Labels that wait for a prediction, and messages of streams that were set aside, are of the key where
they name it: by the caller's id of the prediction, or in a message's field "key". Whose the others
are nothing tells; `everlearn compact --drop-older-than` deletes waiting labels of that age.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import Columns, ConflictError, Hashes, Json
from everlearn.data.compiler import Compiler
from everlearn.data.convert import Mask
from everlearn.data.feedback import ERASED, ERASED_DATA
from everlearn.data.join import LOG
from everlearn.data.log import FeedbackLog
from everlearn.data.segments import Segment, write_table
from everlearn.data.tables import CORRECTS, REFUSED, BlobStore
from everlearn.data.tables import write_table as write_piece
from everlearn.storage.bulk import rows_among
from everlearn.storage.schema import (
    archives,
    labels,
    predictions,
    review_items,
    shadow_answers,
    stream_set_aside,
)

_PAGE = 500


@dataclass(slots=True)
class Found:
    """The rows of a log that are of one key.

    Args:
        hot: ids of the predictions that are in their table.
        ids: of all predictions.
        positions: of the labels that judge them.
        labels: how many these are.
        hot_labels: how many of them are in their table.
        waiting: numbers of labels that name the key, and wait for a prediction.
        aside: numbers of messages that name the key or its predictions, and were set aside.
        files: segment of the archive → the blob that takes the place of its own.
    """

    hot: set[int] = field(default_factory=set)
    ids: set[int] = field(default_factory=set)
    positions: set[int] = field(default_factory=set)
    labels: int = 0
    hot_labels: int = 0
    waiting: set[int] = field(default_factory=set)
    aside: set[int] = field(default_factory=set)
    files: list[tuple[Segment, str]] = field(default_factory=list)


def find(log: FeedbackLog, connection: Connection, key: str, blobs: BlobStore) -> Found:
    """The rows of a key; archived segments that have some are written anew without their data."""
    found, table = Found(), predictions.c
    mine = sa.select(table.id).where(table.model_id == log.model, table.key == key)
    found.hot = set(connection.execute(mine).scalars())
    found.ids = set(found.hot)
    for segment in log.archive.segments(connection, "predictions"):
        if segment.blob is not None:
            rows = log.archive.table(segment)
            mask = pc.fill_null(pc.equal(rows.column("key"), key), False)
            if pc.any(mask).as_py():
                found.ids |= set(rows.column("id").filter(mask).to_pylist())
                blank = {"features": "{}", "output": "null", "key": None, "arm": ERASED}
                found.files.append((segment, blobs.put(write_table(_with(rows, mask, blank)))))
    asked = ("prediction_id", "model_id", "position")
    hot = rows_among(connection, labels, asked, "prediction_id", found.ids, None)
    judging = [row.position for row in hot if row.model_id == log.model]
    found.hot_labels = len(judging)
    for segment in log.archive.segments(connection, "labels") if found.ids else ():
        if segment.blob is not None:
            rows = log.archive.table(segment)
            mask = pc.is_in(rows.column("prediction_id"), pa.array(sorted(found.ids), pa.int64()))
            if pc.any(mask).as_py():
                judging += rows.column("position").filter(mask).to_pylist()
                blank = {"value": None, "digest": ""}
                found.files.append((segment, blobs.put(write_table(_with(rows, mask, blank)))))
    found.labels = len(judging)
    found.positions = set(judging)
    found.waiting = set(
        connection.execute(sa.select(labels.c.id).where(_waits(log, key))).scalars()
    )
    found.aside = _aside(log, connection, key)
    return found


def _waits(log: FeedbackLog, key: str) -> sa.ColumnElement[bool]:
    table = labels.c
    mine = (table.model_id == log.model, table.external_id == key)
    return sa.and_(*mine, table.prediction_id.is_(None))


def _aside(log: FeedbackLog, connection: Connection, key: str) -> set[int]:
    """The messages that were set aside and name a key; of what is no object, those that hold it."""
    table, found = stream_set_aside.c, set[int]()
    query = sa.select(table.id, table.body).where(table.model_id == log.model)
    for row in connection.execute(query):
        said: Any = None
        with suppress(ValueError, RecursionError):
            said = json.loads(row.body)
        if isinstance(said, dict):
            named = key in (str(said.get("key")), str(said.get("external_id")))
        else:
            named = key in row.body
        if named:
            found.add(row.id)
    return found


def erase(log: FeedbackLog, connection: Connection, key: str, found: Found) -> None:
    """Make tombstones of the rows that were found.

    Args:
        connection: of a writing transaction.

    Raises:
        ConflictError: there are others by now.
    """
    log.database.in_commit_order(connection, f"labels/{log.model}")
    table = predictions.c
    mine = sa.update(predictions).where(table.model_id == log.model, table.key == key)
    changed = connection.execute(mine.values(features="{}", output="null", key=None, arm=ERASED))
    if changed.rowcount != len(found.hot):
        raise ConflictError("predictions of the key came meanwhile")
    for segment, blob in found.files:
        here = archives.c
        update = sa.update(archives).where(here.id == segment.number, here.blob == segment.blob)
        if connection.execute(update.values(blob=blob)).rowcount != 1:
            raise ConflictError("the archive was changed meanwhile")
    count = 0
    for part in _pages(sorted(found.ids)):
        said = sa.update(labels).where(labels.c.prediction_id.in_(part))
        said = said.where(labels.c.model_id == log.model)
        count += connection.execute(said.values(value=None, digest="")).rowcount
        for other in (review_items, shadow_answers, stream_set_aside):
            connection.execute(sa.delete(other).where(other.c.prediction_id.in_(part)))
    waiting = sa.select(labels.c.id).where(_waits(log, key))
    if not found.waiting.issuperset(connection.execute(waiting).scalars()):
        raise ConflictError("labels that name the key came meanwhile")
    blank = {"value": None, "digest": "", "external_id": None, "reviewer": None}
    for part in _pages(sorted(found.waiting)):
        connection.execute(sa.update(labels).where(labels.c.id.in_(part)).values(blank))
    for part in _pages(sorted(found.aside)):
        connection.execute(sa.delete(stream_set_aside).where(stream_set_aside.c.id.in_(part)))
    if count != found.hot_labels:
        raise ConflictError("labels of the key came, or were archived, meanwhile")


class Pieces:
    """Spooled slices without the data of a key. What was written anew once is not again.

    Args:
        blobs: where the pieces are.
        found: the rows of the log that are of the key.
        key: the key, as it stands in the column of keys.
    """

    def __init__(self, blobs: BlobStore, found: Found, key: str) -> None:
        self._blobs, self._found, self._key = blobs, found, key
        self._made: dict[tuple[str, int], tuple[str, Mask | None]] = {}
        self.replaced: set[str] = set()

    def without(self, part: Json, columns: Columns | None) -> tuple[Json, int, Hashes]:
        """(the slice as JSON, how many of its rows were erased now, (m,) their ids).

        Args:
            part: a slice as JSON.
            columns: by which its rows were compiled; None where that is not known any more.
        """
        pieces, count, ids = [], 0, [np.zeros(0, np.uint64)]
        begin = part["options"].get("first", 0)
        for piece in part["options"].get("pieces", ()):
            blob, mask = self._piece(part, piece, begin, None if columns is None else columns.key)
            if mask is not None:
                count += int(mask.sum())
                if columns is not None:
                    ids.append(_ids(self._blobs.get(piece["blob"]), mask, columns))
            pieces.append({**piece, "blob": blob})
            begin += piece["rows"]
        if not count:
            return part, 0, ids[0]
        erased = part["options"].get("erased", 0) + count
        options = {**part["options"], "pieces": pieces, "erased": erased}
        return {**part, "options": options}, count, np.unique(np.concatenate(ids))

    def _piece(
        self, part: Json, piece: Json, begin: int, column: str | None
    ) -> tuple[str, Mask | None]:
        name = (piece["blob"], begin)
        if name not in self._made:
            of_log = part["kind"] == "log" and part["source"] == LOG
            here = [at - 1 - begin for at in self._found.positions] if of_log else []
            here = [at for at in here if 0 <= at < piece["rows"]]
            self._made[name] = piece["blob"], None
            if here or (column is not None and column in part["names"]):
                table = _read(self._blobs.get(piece["blob"]))
                mask = np.zeros(table.num_rows, bool)
                mask[here] = True
                mask |= _of_key(table, column, self._key)
                if mask.any():
                    new = self._blobs.put(write_piece(_blank(table, mask)))
                    self._made[name] = new, mask
                    self.replaced.add(piece["blob"])
        return self._made[name]


def _of_key(table: pa.Table, column: str | None, key: str) -> Mask:
    if column is None or column not in table.schema.names:
        return np.zeros(table.num_rows, bool)
    values = table.column(column).to_pylist()
    return np.fromiter((value is not None and str(value) == key for value in values), bool)


def _ids(data: bytes, mask: Mask, columns: Columns) -> Hashes:
    table = _read(data).filter(pa.array(mask)).combine_chunks()
    ids: Hashes = Compiler(columns, absent=True).compile(table.to_batches()[0]).ids
    return ids


def _blank(table: pa.Table, mask: Mask) -> pa.Table:
    """The table with nothing in the rows of a mask but why they are not to be learned."""
    places = pa.array(np.arange(table.num_rows), mask=mask)
    reason = pa.array([ERASED_DATA if gone else None for gone in mask.tolist()], pa.string())
    made: dict[str, Any] = {}
    for name in table.schema.names:
        column = table.column(name)
        if name == REFUSED:
            made[name] = pc.coalesce(reason, column.combine_chunks())
        else:
            made[name] = column if name == CORRECTS else column.take(places)
    made.setdefault(REFUSED, reason)
    if CORRECTS in made:
        marks = made[CORRECTS].to_numpy(zero_copy_only=False)
        made[CORRECTS] = pa.array(marks & ~mask)
    return pa.table(made)


def _read(data: bytes) -> pa.Table:
    return pa.ipc.open_file(pa.py_buffer(data)).read_all().combine_chunks()


def _with(table: pa.Table, mask: Any, values: dict[str, str | None]) -> pa.Table:
    """The table with other values in some columns of the rows of a mask."""
    for name, value in values.items():
        at, column = table.schema.get_field_index(name), table.column(name)
        new = pc.if_else(mask, pa.scalar(value, column.type), column)
        table = table.set_column(at, table.schema.field(at), new)
    return table


def _pages(values: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(values), _PAGE):
        yield values[start : start + _PAGE]
