"""CSV: split into blocks at line ends outside quotes, each parsed with pinned types.

A block begins at a known row and byte offset, so that reading can resume at any block. Blank lines
are no rows. A line with too few or too many cells is a row that is set aside, and so is one with a
cell that is not what its column should be: neither stops the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from everlearn.base import Array, ChangedError, Columns, InputError, Json
from everlearn.data.buffers import values
from everlearn.data.convert import to_numbers, to_times
from everlearn.data.files import Scan, VerifiedFile, file_options, open_file, scan
from everlearn.data.records import (
    LONGEST_RECORD,
    Header,
    RowCounter,
    last_line_end,
    read_header,
)
from everlearn.data.slices import Consumed, Piece, Place, Slice

MISSING_WORDS = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "<NA>")
"""Cells that are read as missing."""

PIECE = 1 << 20
"""Bytes that are parsed at a time: what Arrow parses fastest."""

_DECIMAL = b"decimal"
_COMMA = r"^\s*[+-]?(\d+|\d*,\d+)([eE][+-]?\d+)?\s*$"

_FEW = 0.02
"""Share of bad cells up to which a column is still a column of numbers or times."""

_NAIVE, _UTC = pa.timestamp("us"), pa.timestamp("us", "UTC")
_HINTED = {"boolean": pa.bool_(), "number": pa.float64(), "time": _NAIVE, "utc": _UTC}


class CsvSource:
    """A CSV file. Its position is the row; it may grow at its end between jobs.

    Raises:
        InputError: it cannot be read, is empty or has no usable header.
    """

    kind = "csv"

    def __init__(self, name: str) -> None:
        self.name = name
        self.location = os.path.abspath(name)
        self._header = read_header(name)
        self._sample: pa.Table | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return self._header.names

    def sample(self) -> pa.Table:
        """The first rows (at most 1 MiB of them), with the types that they seem to have."""
        if self._sample is None:
            with open_file(self.location) as file:
                file.seek(self._header.offset)
                data = file.read(PIECE)
                at_end = not file.read(1)
            cut = len(data) if at_end else last_line_end(data, self._header.delimiter)
            self._sample = _infer(data[:cut], self._header, self.name)
        return self._sample

    def slice(
        self, known: Sequence[Consumed] = (), columns: Columns | None = None, again: bool = False
    ) -> Slice | None:
        """What of the file was not consumed before; None if all was. See `Source.slice`."""
        counter = RowCounter(self._header.delimiter)
        skip = self._header.offset

        def visit(offset: int, block: bytes) -> None:
            counter.feed(block[max(skip - offset, 0) :])

        mine = [] if again else [item for item in known if item.kind == "csv"]
        found = scan(self.location, (item.size for item in mine), visit)
        begin = Consumed("", "csv", "", 0, skip, "")
        for item in sorted(mine, key=lambda item: item.size):
            same = found.prefixes.get(item.size) == item.digest
            if same and self._ends_line(item.size, found.size):
                begin = item
        if begin.stop == counter.rows and begin.digest:
            return None
        self._refuse_changed(mine, begin)
        if begin.stop >= counter.rows and not begin.digest:
            return None
        return self._slice(found, begin, counter.rows)

    def _slice(self, found: Scan, begin: Consumed, rows: int) -> Slice:
        options: dict[str, Json] = {
            "delimiter": self._header.delimiter,
            "offset": begin.size,
            "hints": _hints(self.sample().schema),
            "decimal": (self.sample().schema.metadata or {}).get(_DECIMAL, b".").decode(),
            "row_digest": begin.row_digest,
        }
        return Slice(
            source=self.name,
            kind="csv",
            location=self.location,
            start=begin.stop,
            stop=rows,
            size=found.size,
            digest=found.digest,
            names=self.names,
            options=options | file_options(self.location, found, begin.size),
        )

    def _ends_line(self, size: int, whole: int) -> bool:
        with open_file(self.location) as file:
            file.seek(size - 1)
            around = file.read(2)
        return size == whole or around[:1] == b"\n" or around[1:] in (b"\n", b"\r")

    def _refuse_changed(self, known: Sequence[Consumed], begin: Consumed) -> None:
        stops = [item.stop for item in known if item.location == self.location]
        if stops and max(stops) > begin.stop:
            raise ChangedError(
                f"{self.name!r} was changed or cut since it was learned: its first {max(stops)} "
                "rows are not what they were. Give new rows in a new file or at the end, or learn "
                "the whole file once more with --again"
            )


def _infer(data: bytes, header: Header, name: str) -> pa.Table:
    """The rows with the types that they seem to have; a decimal comma is in the metadata."""
    try:
        table = pacsv.read_csv(
            pa.BufferReader(data),
            read_options=pacsv.ReadOptions(
                column_names=list(header.names), use_threads=False, block_size=len(data) + 64
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=header.delimiter,
                newlines_in_values=b'"' in data,
                invalid_row_handler=lambda row: "skip",
            ),
            convert_options=pacsv.ConvertOptions(
                null_values=MISSING_WORDS, strings_can_be_null=True
            ),
        )
    except pa.ArrowInvalid as error:
        if not data.strip():
            return pa.table({item: pa.nulls(0) for item in header.names})
        raise InputError(f"{name!r} cannot be read as CSV: {error}") from error
    if not table.num_rows and data.strip():
        raise InputError(
            f"the first line of {name!r} has {len(header.names)} cells, and no line after it has "
            "as many: is it the header?"
        )
    commas = header.delimiter != "," and any(map(_has_commas, table.columns))
    for index, item in enumerate(header.names):
        column = table.column(index)
        if commas and _has_commas(column):
            column = pc.replace_substring(column, ",", ".")
        table = table.set_column(index, item, _mostly(column, item))
    return table.replace_schema_metadata({_DECIMAL: b","}) if commas else table


def _has_commas(column: pa.ChunkedArray) -> bool:
    """Whether these are numbers of which some are written with a decimal comma: 3,14."""
    present = len(column) - column.null_count
    if not pa.types.is_string(column.type) or not present:
        return False
    fits = pc.sum(pc.match_substring_regex(column, _COMMA)).as_py() or 0
    return fits >= (1.0 - _FEW) * present and bool(pc.any(pc.match_substring(column, ",")).as_py())


def _mostly(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column of texts of which nearly all are numbers, or times, as that; the rest is null.

    So a few bad cells do not make a category of a number: their rows are set aside instead.
    """
    present = len(column) - column.null_count
    if not pa.types.is_string(column.type) or not present:
        return column
    texts = column.combine_chunks()
    readings: tuple[Callable[[pa.Array, str], tuple[Array, Any]], ...] = (to_numbers, to_times)
    for read, kind in zip(readings, (pa.float64(), _NAIVE), strict=True):
        found, bad = read(texts, name)
        missing = values(texts.is_null())
        if bad is None or bad.sum() <= _FEW * present:
            gone = missing if bad is None else missing | bad
            return pa.chunked_array([pa.array(found, mask=gone).cast(kind)])
    return column


def _hints(schema: pa.Schema) -> dict[str, str]:
    """How each column seems to be written, so that it can be parsed at once."""
    hints = {}
    for item in schema:
        if pa.types.is_boolean(item.type):
            hints[item.name] = "boolean"
        elif pa.types.is_timestamp(item.type):
            hints[item.name] = "utc" if item.type.tz else "time"
        elif pa.types.is_date(item.type):
            hints[item.name] = "time"
        elif pa.types.is_integer(item.type) or pa.types.is_floating(item.type):
            hints[item.name] = "number"
    return hints


def column_types(columns: Columns, hints: Mapping[str, str]) -> dict[str, pa.DataType]:
    """The Arrow type in which each column that is wanted is parsed."""
    types: dict[str, pa.DataType] = {}
    for name in columns.numbers:
        types[name] = pa.bool_() if hints.get(name) == "boolean" else pa.float64()
    if columns.weight is not None:
        types[columns.weight] = pa.float64()
    for time in (*columns.times, columns.time, columns.label_time):
        if time is not None:
            types[time] = _HINTED.get(hints.get(time, ""), pa.string())
    texts = [*columns.categories, *columns.texts, columns.id, columns.key]
    types |= {name: pa.string() for name in texts if name is not None and name not in types}
    if columns.target is not None:
        numeric = columns.target_kind in ("number", "integer", "boolean")
        boolean = hints.get(columns.target) == "boolean"
        target = (pa.bool_() if boolean else pa.float64()) if numeric else pa.string()
        types[columns.target] = target
    return types


class CsvReader:
    """Reads a slice of a CSV file; see `PieceReader`."""

    def __init__(self, part: Slice, columns: Columns) -> None:
        options = part.options
        self._part = part
        self._delimiter: str = options["delimiter"]
        types = column_types(columns, options["hints"])
        self._types = {name: kind for name, kind in types.items() if name in set(part.names)}
        self._decimal: str = options.get("decimal", ".")
        self._numbers = {name for name, kind in self._types.items() if kind == pa.float64()}
        self._file = VerifiedFile(
            part.location, part.size, options["blocks"], options["stamp"], options["first"]
        )

    def close(self) -> None:
        self._file.close()

    def pieces(self, place: Place | None = None) -> Iterator[Piece]:
        """See `PieceReader`. Raises `InputError` where a quote is opened and never closed."""
        place = place or Place(self._part.start, self._part.options["offset"])
        row, begin, end = place.row, place.offset, place.offset
        rest = b""
        while end < self._part.size:
            start, end = end, min((end // PIECE + 1) * PIECE, self._part.size)
            data = rest + self._file.read(start, end)
            whole = end == self._part.size
            cut = len(data) if whole else last_line_end(data, self._delimiter)
            if cut == 0 and len(data) > LONGEST_RECORD:
                raise InputError(f"{self._part.source!r}: a quote after row {row} is never closed")
            if cut:
                table, bad = self._parse(data[:cut])
                yield Piece(Place(row, begin), table, bad)
                row, begin = row + table.num_rows, begin + cut
            rest = data[cut:]
        if row != self._part.stop:
            raise InputError(
                f"{self._part.source!r} has {row} rows when parsed but "
                f"{self._part.stop} by its line ends; is a quote that begins a cell left "
                "open, or does a line end with \\r alone? A cell that begins with a quote ends "
                "with one, and a quote inside it is doubled"
            )

    def _parse(self, data: bytes) -> tuple[pa.RecordBatch, dict[int, str]]:
        bad: dict[int, str] = {}
        whole, repaired = data, False
        while True:
            try:
                table = self._read(data, bad)
                break
            except pa.ArrowInvalid as error:
                data = self._after(error, data)
                repaired = data is not whole
        batch = _one_batch(self._with_points(table))
        if bad:
            batch = _make_room(batch, bad)
        if repaired:
            _mark_repaired(batch, bad)
        return batch, bad

    def _with_points(self, table: pa.Table) -> pa.Table:
        """Numbers that had to be read as texts, without decimal commas."""
        for name in self._numbers if self._decimal == "," else ():
            column = table.column(name)
            if pa.types.is_string(column.type):
                place = table.schema.get_field_index(name)
                table = table.set_column(place, name, pc.replace_substring(column, ",", "."))
        return table

    def _after(self, error: pa.ArrowInvalid, data: bytes) -> bytes:
        """Make parsing possible after an error: a column becomes text, or the bytes UTF-8."""
        message = str(error)
        if "UTF8" in message:
            fixed = data.decode(errors="replace").encode()
            if fixed != data:
                return fixed
        found = re.search(r"column #(\d+)", message)
        name = self._part.names[int(found[1])] if found else ""
        if self._types.get(name, pa.string()) == pa.string():
            raise InputError(f"{self._part.source!r} cannot be read as CSV: {message}") from error
        self._types[name] = pa.string()
        return data

    def _read(self, data: bytes, bad: dict[int, str]) -> pa.Table:
        bad.clear()

        def ragged(row: pacsv.InvalidRow) -> str:
            bad[row.number - 1] = (
                f"ragged line: {row.actual_columns} cells instead of {row.expected_columns}"
            )
            return "skip"

        return pacsv.read_csv(
            pa.BufferReader(data),
            read_options=pacsv.ReadOptions(
                column_names=list(self._part.names), use_threads=False, block_size=len(data) + 64
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=self._delimiter,
                newlines_in_values=b'"' in data,
                invalid_row_handler=ragged,
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=self._types,
                include_columns=list(self._types),
                null_values=MISSING_WORDS,
                strings_can_be_null=True,
                decimal_point=self._decimal,
            ),
        )


def _mark_repaired(batch: pa.RecordBatch, bad: dict[int, str]) -> None:
    """Note the rows whose texts hold the sign that replaced what was not UTF-8."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if not pa.types.is_string(column.type):
            continue
        broken = pc.fill_null(pc.match_substring(column, "\ufffd"), False)
        for index in np.flatnonzero(values(broken)):
            bad.setdefault(int(index), f"column {name!r}: not UTF-8")


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    if batches:
        return batches[0]
    return pa.RecordBatch.from_pylist([], schema=table.schema)


def _make_room(batch: pa.RecordBatch, bad: Mapping[int, str]) -> pa.RecordBatch:
    """Put rows of nulls where lines were skipped."""
    total = batch.num_rows + len(bad)
    keep = np.ones(total, bool)
    keep[list(bad)] = False
    index = np.cumsum(keep) - 1
    return batch.take(pa.array(index, mask=~keep))
