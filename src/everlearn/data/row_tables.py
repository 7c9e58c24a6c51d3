"""Rows of recorded slices as tables on which conditions are evaluated.

The columns on which a condition is evaluated:

- of files and spooled tables the row's own and, unless one is called so, "source" (the name of the
  file or table), "row" (the number of the source row, from 0), and "id", "key", "time",
  "label_time" and "weight" for the columns that the schema names;
- of labels of the feedback log "source", "reviewer", "kind", "key", "time" (of the event),
  "label_time", "id" (as the schema has it), "prediction" (its id, as it was answered), "version"
  (that answered), "position" and "weight" and, unless they are called so, the features and the
  target.

A column has one kind, whatever format the row is in: that of `Columns` where it is learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from everlearn.base import NO_TIME, Columns, Schema
from everlearn.data.convert import is_text, plain, to_numbers, to_texts, to_times
from everlearn.data.feedback import id_text
from everlearn.data.joined import joined
from everlearn.data.log import FeedbackLog
from everlearn.data.pages import Page
from everlearn.data.slices import Slice
from everlearn.data.source import open_reader
from everlearn.data.tables import BlobStore
from everlearn.data.withdrawals import OF_LOG

MOMENT = pa.timestamp("us", "UTC")

_OF_PAGE: Mapping[str, tuple[str, pa.DataType]] = {
    "source": ("source", pa.string()),
    "reviewer": ("reviewer", pa.string()),
    "kind": ("kind", pa.string()),
    "key": ("key", pa.string()),
    "time": ("asked_at", MOMENT),
    "label_time": ("at", MOMENT),
    "weight": ("weight", pa.float64()),
    "position": ("position", pa.int64()),
}
"""Columns of labels → fields of their pages."""

_OF_LABELS = (*_OF_PAGE, "id", "prediction", "version")
_OF_SCHEMA = ("id", "key", "time", "label_time", "weight")


def names_of(part: Slice, columns: Columns) -> list[str]:
    """The columns that the rows of a slice have."""
    if part.kind == OF_LOG:
        features = (*columns.numbers, *columns.categories, *columns.times, *columns.texts)
        target = [] if columns.target is None else [columns.target]
        return list(dict.fromkeys((*_OF_LABELS, *features, *target, *part.names)))
    named = [name for name in _OF_SCHEMA if getattr(columns, name) is not None]
    return list(dict.fromkeys((*part.names, "source", "row", *named)))


def known_of(part: Slice, start: int, stop: int) -> pa.Table:
    """What is known of rows of a slice without reading them: of labels their positions; of files
    and tables the source and the numbers of their rows."""
    numbers = pa.array(np.arange(start, stop))
    if part.kind == OF_LOG:
        return pa.table({"position": numbers})
    known = {"source": pa.array([part.source] * len(numbers), pa.string()), "row": numbers}
    return pa.table({name: column for name, column in known.items() if name not in part.names})


# --- files and spooled tables -------------------------------------------------------------------


def tables_of_rows(
    part: Slice, columns: Columns, wanted: Sequence[str], blobs: BlobStore
) -> Iterator[tuple[int, pa.Table]]:
    """(number of the first row, table with the columns that are wanted) of each piece."""
    own = {name: found for name in wanted if (found := _own(part, columns, name)) is not None}
    kinds = {name: _kind(part, columns, name) for name in own.values()}
    reading = Columns(
        numbers=tuple(name for name, kind in kinds.items() if kind == "number"),
        times=tuple(name for name, kind in kinds.items() if kind == "time"),
        texts=tuple(name for name, kind in kinds.items() if kind not in ("number", "time")),
    )
    for first, batch in _pieces(part, reading, bool(own), blobs):
        n = batch.num_rows
        made = {}
        for name in wanted:
            if name in own:
                made[name] = _of_kind(batch.column(own[name]), kinds[own[name]], name)
            elif name == "source":
                made[name] = pa.array([part.source] * n, pa.string())
            elif name == "row":
                made[name] = pa.array(np.arange(first, first + n))
            else:
                made[name] = pa.nulls(n)
        yield first, pa.table(made)


def _pieces(
    part: Slice, reading: Columns, any_own: bool, blobs: BlobStore
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The pieces of a slice; where no column of it is wanted, they are not read."""
    if not any_own:
        for first in range(part.start, part.stop, 65_536):
            numbers = np.arange(first, min(first + 65_536, part.stop))
            yield first, pa.record_batch({"row": numbers})
        return
    reader = open_reader(part, reading, blobs)
    try:
        for piece in reader.pieces(None):
            yield piece.place.row, piece.table
    finally:
        reader.close()


def _own(part: Slice, columns: Columns, name: str) -> str | None:
    """The column of the source that a name means, if it means one."""
    if name in part.names:
        return name
    named = getattr(columns, name) if name in _OF_SCHEMA else None
    return named if named in part.names else None


def _kind(part: Slice, columns: Columns, name: str) -> str | None:
    """ "number", "time" or "text"; None: as the source has it."""
    target = "text" if columns.target_kind == "text" else "number"
    if name in (*columns.times, columns.time, columns.label_time):
        return "time"
    if name in (*columns.numbers, columns.weight):
        return "number"
    if name in (*columns.categories, *columns.texts, columns.id, columns.key):
        return "text"
    if name == columns.target:
        return target
    hints = part.options.get("hints")
    if hints is None:
        return None
    known = {"number": "number", "boolean": "number", "time": "time", "utc": "time"}
    return known.get(hints.get(name, ""), "text")


def _of_kind(column: Any, kind: str | None, name: str) -> pa.Array:
    """A column as values of its kind; what is none of them is missing."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    column = plain(column)
    if pa.types.is_null(column.type):
        return column
    if kind == "text":
        return plain(to_texts(column, name))
    if kind == "number" and is_text(column.type):
        numbers, bad = to_numbers(column, name)
        return pa.array(numbers, mask=np.isnan(numbers) if bad is None else np.isnan(numbers) | bad)
    if kind == "time":
        times, _ = to_times(column, name)
        return pa.array(times, mask=times == NO_TIME).cast(MOMENT)
    return column


# --- labels of the log --------------------------------------------------------------------------


def tables_of_labels(
    part: Slice, columns: Columns, schema: Schema, wanted: Sequence[str], log: FeedbackLog
) -> Iterator[tuple[int, pa.Table]]:
    """(position of the first label, table with the columns that are wanted) of each page."""
    named = {name: _named(schema, name) for name in wanted}
    for page in log.pages(part.start, part.stop):
        rows = joined(page, schema) if any(item is not None for item in named.values()) else None
        made = {}
        for name, own in named.items():
            if own is not None and rows is not None and own in rows.schema.names:
                made[name] = _of_kind(rows.column(own), _kind(part, columns, own), name)
            else:
                made[name] = _of_page(page, name, log)
        yield page.position[0], pa.table(made)


def _named(schema: Schema, name: str) -> str | None:
    """The column of the joined rows that a name means; None for what pages have by themselves."""
    if name in ("id", "key", "time"):  # which features may give
        return getattr(schema, name)  # type: ignore[no-any-return]
    return None if name in _OF_LABELS else name


def _of_page(page: Page, name: str, log: FeedbackLog) -> pa.Array:
    if name in _OF_PAGE:
        field, kind = _OF_PAGE[name]
        return pa.array(getattr(page, field), kind)
    if name == "prediction":
        return pa.array([id_text(number) for number in page.prediction], pa.string())
    if name == "id":
        pairs = zip(page.external_id, page.prediction, strict=True)
        return pa.array([given or id_text(number) for given, number in pairs], pa.string())
    if name == "version":
        said = log.read(page.position[0] - 1, page.position[-1])
        return pa.array([one.prediction.version for one in said], pa.int64())
    return pa.nulls(len(page))
