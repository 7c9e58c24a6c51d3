"""Arrow rows → a compiled `Batch`, with the rows that cannot be learned from named and why.

The compiled form of a row depends on its values only: not on the file format it was read from, nor
on how the rows are cut into record batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from everlearn.base import Array, Batch, Columns, Floats, Hashes, InputError, Ints
from everlearn.data.convert import (
    Mask,
    to_categories,
    to_numbers,
    to_strings,
    to_target,
    to_times,
)
from everlearn.data.guards import Refusals, check
from everlearn.data.hashing import combine, hash_rows, hash_texts
from everlearn.data.slices import nearest, require

MOST_IGNORED = 1000
"""Names that are no columns of which the rows are counted."""


@dataclass(slots=True)
class Compiled:
    """A compiled table of n rows, column by column.

    Args:
        numbers: (p, n) columns of numbers, in the order of `Columns`.
        categories, times: (n,) columns of each kind, likewise.
        y, weight, ids, time, label_time, key: as in `Batch`.
        refused: row → why it cannot be learned from; its bad cells are NaN, 0 or `NO_TIME`.
        content: (n,) hashes over everything in a row, the target included.
        texts: (n,) columns of texts.
    """

    numbers: Floats
    categories: Sequence[Hashes]
    times: Sequence[Ints]
    y: Array | None
    weight: Floats | None
    ids: Hashes
    time: Ints | None
    label_time: Ints | None
    key: Hashes | None
    refused: Mapping[int, str]
    content: Hashes
    texts: Sequence[Array] = ()
    _batch: Batch | None = None

    @property
    def batch(self) -> Batch:
        """All rows, those that are refused too."""
        if self._batch is None:
            self._batch = self.rows(None)
        return self._batch

    def rows(self, index: Ints | None) -> Batch:
        """The rows that an index chooses, in its order; None chooses all."""

        def chosen(values: Any) -> Any:
            return values if values is None or index is None else values.take(index)

        n = len(self.ids)
        return Batch(
            numbers=interleave(self.numbers, n, np.float64, index),
            categories=interleave(self.categories, n, np.uint64, index),
            times=interleave(self.times, n, np.int64, index),
            y=chosen(self.y),
            weight=chosen(self.weight),
            ids=chosen(self.ids),
            time=chosen(self.time),
            label_time=chosen(self.label_time),
            key=chosen(self.key),
            texts=interleave(self.texts, n, object, index) if self.texts else None,
        )


def wanted(columns: Columns, *, features_only: bool = False) -> list[str]:
    """The names of all columns that are read, each once."""
    names: list[str | None] = [*columns.numbers, *columns.categories, *columns.times]
    names += columns.texts
    if not features_only:
        names += [columns.target, columns.id, columns.time, columns.label_time, columns.key]
        names += [columns.weight]
    return [name for name in dict.fromkeys(names) if name is not None]


class Compiler:
    """Compiles tables by pinned columns.

    Args:
        columns: the kind and the order of every column.
        label: read the target and the time at which it became known; False for prediction.
        absent: a column that a table lacks is missing in all rows, instead of an error.
    """

    def __init__(self, columns: Columns, *, label: bool = True, absent: bool = False) -> None:
        self.columns = columns
        self._label = label and columns.target is not None
        self._absent = absent

    def compile(self, table: pa.RecordBatch, unread: Mapping[int, str] | None = None) -> Compiled:
        """Compile all rows of a table.

        Args:
            table: the rows; columns that are not wanted are passed over.
            unread: rows that could not be read, and why; they are refused.

        Raises:
            InputError: a column is not there, or is of a type that cannot be converted.
        """
        columns, n = self.columns, table.num_rows
        if not self._absent:
            require(wanted(columns, features_only=not self._label), table.schema.names, "the table")
        refusals = Refusals(n, unread)
        numbers = self._numbers(table, refusals)
        categories = [to_categories(self._column(table, name), name) for name in columns.categories]
        times = [self._times(table, name, refusals) for name in columns.times]
        event = self._event_time(table, times, refusals)
        extra = [event] if event is not None and columns.time not in columns.times else []
        texts = [self._texts(table, name, refusals) for name in columns.texts]
        rows = hash_rows([numbers, *categories, *times, *extra, *(t[1] for t in texts)], n)
        y = self._target(table, refusals) if self._label else None
        ids = self._ids(table, rows, refusals)
        known = self._label_time(table, refusals)
        key = self._hash(table, columns.key) if columns.key else None
        weight = self._weight(table, refusals)
        if self._label:
            check(y, event, known, refusals)
        return Compiled(
            numbers=numbers,
            categories=categories,
            times=times,
            y=y,
            weight=weight,
            ids=ids,
            time=event,
            label_time=known,
            key=key,
            refused=refusals.reasons,
            content=_content([rows, ids, y, known, key, weight]),
            texts=[text[0] for text in texts],
        )

    # each of the following reads one kind of column

    def _column(self, table: pa.RecordBatch, name: str) -> pa.Array:
        index = table.schema.get_field_index(name)
        if index < 0:
            return pa.nulls(table.num_rows)
        return table.column(index)

    def _numbers(self, table: pa.RecordBatch, refusals: Refusals) -> Floats:
        """(p, n) of all columns of numbers."""
        names = self.columns.numbers
        made, bad = np.empty((len(names), table.num_rows)), []
        for column, name in zip(made, names, strict=True):
            column[:], unreadable = to_numbers(self._column(table, name), name)
            bad.append(unreadable)
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.isfinite(made.sum())
        for column, name, unreadable in zip(made, names, bad, strict=True):
            refusals.mark(unreadable, f"column {name!r}: not a number")
            if not finite:
                refusals.mark_infinite(column, name)
        return made

    def _times(self, table: pa.RecordBatch, name: str, refusals: Refusals) -> Ints:
        times, bad = to_times(self._column(table, name), name)
        refusals.mark(bad, f"column {name!r}: not a time")
        return times

    def _texts(self, table: pa.RecordBatch, name: str, refusals: Refusals) -> tuple[Array, Hashes]:
        found, hashes, bad = to_strings(self._column(table, name), name)
        refusals.mark(bad, f"column {name!r}: not UTF-8")
        return found, hashes

    def _event_time(
        self, table: pa.RecordBatch, times: Sequence[Ints], refusals: Refusals
    ) -> Ints | None:
        name = self.columns.time
        if name is None:
            return None
        if name in self.columns.times:
            return times[self.columns.times.index(name)]
        return self._times(table, name, refusals)

    def _label_time(self, table: pa.RecordBatch, refusals: Refusals) -> Ints | None:
        name = self.columns.label_time
        if name is None or not self._label:
            return None
        return self._times(table, name, refusals)

    def _weight(self, table: pa.RecordBatch, refusals: Refusals) -> Floats | None:
        name = self.columns.weight
        if name is None or not self._label:
            return None
        weight, bad = to_numbers(self._column(table, name), name)
        with np.errstate(invalid="ignore"):
            bad = (weight < 0) | np.isinf(weight) | (False if bad is None else bad)
        refusals.mark(bad, f"weight {name!r}: not a number from 0")
        return np.where(np.isnan(weight), 1.0, weight)

    def _target(self, table: pa.RecordBatch, refusals: Refusals) -> Array:
        name = self.columns.target
        assert name is not None
        y, missing, bad = to_target(self._column(table, name), self.columns.target_kind, name)
        refusals.mark(missing, "target missing")
        refusals.mark(bad, f"target {name!r}: not a number")
        return y

    def _ids(self, table: pa.RecordBatch, rows: Hashes, refusals: Refusals) -> Hashes:
        name = self.columns.id
        if name is None or (not self._label and name not in table.schema.names):
            return rows
        ids = self._hash(table, name)
        if self._label:
            refusals.mark(ids == 0, "id missing")
        return ids

    def _hash(self, table: pa.RecordBatch, name: str) -> Hashes:
        return to_categories(self._column(table, name), name)


def interleave(
    columns: Sequence[Array] | Array, n: int, dtype: Any, index: Ints | None = None
) -> Array:
    """(n, p) C-contiguous matrix of p columns of n rows, or of the rows that an index chooses.

    It is filled in blocks that stay in the cache, from (p, n) columns in one array by a third of
    the time.
    """
    rows = n if index is None else len(index)
    if len(columns) == 1:
        column = columns[0] if index is None else columns[0].take(index)
        return np.ascontiguousarray(column).reshape(rows, 1)
    out = np.empty((rows, len(columns)), dtype)
    step = max(256, 65_536 // max(len(columns), 1))
    for start in range(0, rows if len(columns) else 0, step):
        block = out[start : start + step]
        places = None if index is None else index[start : start + step]
        if isinstance(columns, np.ndarray):
            block[:] = columns[:, slice(start, start + step) if places is None else places].T
            continue
        for j, column in enumerate(columns):
            block[:, j] = column[start : start + step] if places is None else column.take(places)
    return out


def _content(parts: Sequence[Array | None]) -> Hashes:
    hashable: list[Any] = []
    for part in parts:
        if part is None:
            continue
        if part.dtype == object:
            part = hash_texts(pa.array(part, pa.string()))
        hashable.append(part + 0.0 if part.dtype == np.float64 else part)
    return combine(*hashable)


def compile_rows(rows: Any, columns: Columns, ignored: Counter[str] | None = None) -> Batch:
    """Compile rows to predict for: a dict, a list of dicts, or a table or data frame.

    In a dict a column may be left out: it is missing then. The target is not read.

    Args:
        ignored: where names of dicts that are no columns are counted, by rows, where each row has
            names that are; without it, such a name is an error.

    Raises:
        InputError: a name that is no column, a value that is not of its column's kind, or infinite.
    """
    if isinstance(rows, Mapping):
        rows = [rows]
    records = isinstance(rows, Sequence) and not hasattr(rows, "__arrow_c_stream__")
    known = wanted(columns)
    if records and rows and not any(rows):  # all that they lack is missing
        table = pa.table({known[0]: pa.nulls(len(rows))})
    else:
        table = _records(rows) if records else as_table(rows)
    if records:
        unknown = [name for name in table.schema.names if name not in known]
        if unknown and ignored is not None and not _any_strange(rows, known):
            for name in unknown:
                if name in ignored or len(ignored) < MOST_IGNORED:
                    ignored[name] += table.num_rows - table.column(name).null_count
        elif unknown:
            raise InputError(f"no column {unknown[0]!r}: {nearest(unknown[0], known)}")
    compiler = Compiler(columns, label=False, absent=records)
    compiled = compiler.compile(one_batch(table))
    if compiled.refused:
        row, reason = min(compiled.refused.items())
        raise InputError(f"row {row}: {reason}")
    return compiled.batch


def _any_strange(rows: Sequence[Mapping[str, Any]], known: Sequence[str]) -> bool:
    """Whether some row has names, but none that is known."""
    names = set(known)
    return any(row and names.isdisjoint(row) for row in rows)


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """The rows of a table as one record batch."""
    batches = table.combine_chunks().to_batches()
    if len(batches) == 1:
        return batches[0]
    return pa.RecordBatch.from_arrays(
        [pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
         for column in table.columns],
        schema=table.schema,
    )  # fmt: skip


def as_table(data: Any) -> pa.Table:
    """An Arrow table of a table, a record batch, or a pandas or Polars frame.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if type(data).__module__.split(".")[0] == "pandas":
        return _from_pandas(data)
    if hasattr(data, "__arrow_c_stream__"):
        return pa.table(data)
    raise InputError(f"a table, a data frame or a list of dicts is needed, not {type(data)}")


def _from_pandas(frame: Any) -> pa.Table:
    """A table of a pandas frame; columns of mixed types become text, as in dicts."""
    if getattr(frame, "ndim", 0) != 2:
        raise InputError(f"a data frame is needed, not {type(frame)}; write .to_frame()")
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        raise InputError(f"a column name stands twice: {sorted(names)}")
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        columns = [frame.iloc[:, j] for j in range(len(names))]
        arrays = [
            column_of(column.tolist(), name)
            if column.dtype == object
            else pa.array(column, from_pandas=True)
            for name, column in zip(names, columns, strict=True)
        ]
        return pa.Table.from_arrays(arrays, names=names)


def _records(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    return records_to_table(list(rows))


def records_to_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table of dicts; a name that some of them lack is missing there. Mixed types become text.

    Raises:
        InputError: a row is no dict, or holds a value that no column can hold.
    """
    for row in rows:
        if type(row) is not dict and not isinstance(row, Mapping):
            raise InputError(f"rows are dicts of column names and values, not {row!r}")
    shapes = dict.fromkeys(map(tuple, rows))
    names = list(dict.fromkeys(name for shape in shapes for name in shape))
    columns: Iterable[Sequence[Any]]
    if len(shapes) == 1:  # the same names in the same order
        columns = zip(*[row.values() for row in rows], strict=True)
    else:
        columns = ([row.get(name) for row in rows] for name in names)
    arrays = [column_of(values, str(name)) for name, values in zip(names, columns, strict=True)]
    return pa.Table.from_arrays(arrays, names=[str(name) for name in names])


def column_of(values: Sequence[Any], name: str) -> pa.Array:
    """A column of plain values; mixed types become text.

    Raises:
        InputError: a value that no column can hold.
    """
    plain = values
    if any(issubclass(kind, np.generic) for kind in set(map(type, values))):
        plain = [_python(value) if isinstance(value, np.generic) else value for value in values]
    try:
        return pa.array(plain, from_pandas=True)
    except UnicodeEncodeError as error:
        raise InputError(f"column {name!r} holds a text that is no Unicode: {error}") from error
    except OverflowError:  # whole numbers beyond 64 bits
        return pa.array([None if value is None else float(value) for value in plain])
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        pass
    try:
        texts = [None if value is None or value != value else _text(value) for value in plain]
        return pa.array(texts, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"column {name!r} holds values of mixed types: {error}") from error


def _python(value: np.generic) -> Any:
    """A numpy scalar as Python's; a time to the microsecond, for Python has no nanoseconds."""
    return (value.astype("datetime64[us]") if isinstance(value, np.datetime64) else value).item()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def empty_batch(columns: Columns) -> Batch:
    """A batch of no rows with these columns."""
    arrays = [pa.nulls(0) for _ in wanted(columns)]
    table = pa.RecordBatch.from_arrays(arrays, names=wanted(columns))
    return Compiler(columns).compile(table).batch


def refused_mask(compiled: Compiled) -> Mask | None:
    """(n,) which rows are refused; None if none is."""
    if not compiled.refused:
        return None
    mask = np.zeros(len(compiled.ids), bool)
    mask[list(compiled.refused)] = True
    return mask
