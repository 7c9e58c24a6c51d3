"""A schema resolved against data: which column is read as what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from everlearn.base import Columns, InputError, Schema, TargetKind
from everlearn.data.convert import is_text, plain
from everlearn.data.slices import nearest

_ISO = r"^\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}(:?\d{2})?)?)?\s*$"


def resolve(
    schema: Schema, samples: pa.Table | Sequence[Any] | Any, target_is_class: bool | None = None
) -> Columns:
    """Decide from samples how each column is read.

    Numbers and truth values become numbers; texts, and what `schema.categorical` names, categories,
    but those that `schema.text` names stay texts;
    dates, moments and texts that are ISO 8601 times. The event time is a feature too (of its cyclic
    parts); id, label time, key, weight and target are none unless `numeric`, `categorical` or
    `text` names them.

    Args:
        schema: what the user says.
        samples: a table, or a list of tables or of sources (of each its `sample()` is taken).
        target_is_class: whether the learner is a classifier; None if that is not known.

    Raises:
        InputError: a column of the schema is not there (the message names the nearest), a column
            cannot be read, there are no rows, or the target does not suit the learner.
    """
    table = _join(samples)
    _check_names(schema, table)
    special = {schema.target, schema.id, schema.label_time, schema.key, schema.weight}
    special |= set(schema.ignore)
    listed = {*schema.numeric, *schema.categorical, *schema.text}
    kinds: dict[str, list[str]] = {"number": [], "category": [], "time": [], "text": []}
    for name in table.schema.names:
        if name == schema.target or (name in special and name not in listed):
            continue
        kinds[_kind(schema, name, table.column(name))].append(name)
    if not any(kinds.values()):
        raise InputError(f"no feature columns among {table.schema.names}")
    target: TargetKind = "none"
    if schema.target is not None:
        target = _target_kind(schema, table.column(schema.target), target_is_class)
    return Columns(
        numbers=tuple(kinds["number"]),
        categories=tuple(kinds["category"]),
        times=tuple(kinds["time"]),
        target=schema.target,
        target_kind=target,
        id=schema.id,
        time=schema.time,
        label_time=schema.label_time,
        key=schema.key,
        weight=schema.weight,
        texts=tuple(kinds["text"]),
    )


def _join(samples: Any) -> pa.Table:
    """One table of all samples; a column has the widest type of its types."""
    many = samples if isinstance(samples, Sequence) else [samples]
    tables = [item if isinstance(item, pa.Table) else item.sample() for item in many]
    tables = [table for table in tables if table.num_rows] or tables[:1]
    if not tables or not tables[0].num_rows:
        where = "".join(f" in {item.name!r}" for item in many[:1] if hasattr(item, "name"))
        raise InputError(f"there are no rows{where}, so that the types of columns are not known")
    names = list(dict.fromkeys(name for table in tables for name in table.schema.names))
    columns = []
    there = [(table, set(table.schema.names)) for table in tables]
    for name in names:
        parts = [table.column(name) for table, own in there if name in own]
        columns.append(_widest([part for part in parts if part.null_count < len(part)] or parts))
    length = min(len(column) for column in columns)
    return pa.Table.from_arrays([column.slice(0, length) for column in columns], names=names)


def _widest(parts: list[Any]) -> pa.ChunkedArray:
    """The column with the most general type: text before number before truth value."""
    if len(parts) == 1:
        return parts[0]

    def rank(part: pa.ChunkedArray) -> int:
        tests = (pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
        for place, test in enumerate(tests):
            if test(part.type):
                return place
        return len(tests) + _is_textual(part.type)

    return max(parts, key=rank)


def _check_names(schema: Schema, table: pa.Table) -> None:
    one = {"target": schema.target, "id": schema.id, "time": schema.time}
    one |= {"label_time": schema.label_time, "key": schema.key, "weight": schema.weight}
    asked = [(role, name) for role, name in one.items() if name is not None]
    for role in ("numeric", "categorical", "text", "ignore"):
        asked += [(role, name) for name in getattr(schema, role)]
    names = table.schema.names
    missing = [(role, name) for role, name in asked if name not in names]
    if missing:
        hints = [
            f"no column {name!r} for {role} ({nearest(name, names)})" for role, name in missing
        ]
        raise InputError("; ".join(hints))


def _is_textual(kind: pa.DataType) -> bool:
    return is_text(kind) or (pa.types.is_dictionary(kind) and is_text(kind.value_type))


def _kind(schema: Schema, name: str, column: pa.ChunkedArray) -> str:
    if name == schema.time:
        return "time"
    if name in schema.numeric:
        return "number"
    if name in schema.categorical:
        return "category"
    if name in schema.text:
        return "text"
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if any(
        test(kind)
        for test in (
            pa.types.is_integer,
            pa.types.is_floating,
            pa.types.is_boolean,
            pa.types.is_decimal,
            pa.types.is_null,
        )
    ):
        return "number"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time"
    if is_text(kind):
        return "time" if _looks_like_times(column) else "category"
    if pa.types.is_time(kind):
        return "category"
    raise InputError(
        f"column {name!r} has the type {kind}, of which no feature can be made; convert it, or "
        "leave it out with Schema(ignore=[…])"
    )


def _looks_like_times(column: pa.ChunkedArray) -> bool:
    texts = pa.chunked_array(
        [plain(chunk).cast(pa.string()) for chunk in column.chunks], pa.string()
    )
    texts = texts.drop_null()
    texts = texts.filter(pc.not_equal(texts, ""))
    return len(texts) > 0 and bool(pc.all(pc.match_substring_regex(texts, _ISO)).as_py())


def _target_kind(
    schema: Schema, column: pa.ChunkedArray, target_is_class: bool | None
) -> TargetKind:
    name, kind = schema.target, column.type
    if pa.types.is_null(kind) or column.null_count == len(column):
        raise InputError(f"target {name!r} is missing in every row that was looked at")
    if schema.classes and target_is_class is not False:
        return _kind_of_classes(schema.classes)
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        whole = pc.all(pc.equal(column, pc.floor(column))).as_py()
        return "integer" if target_is_class and whole else "number"
    if _is_textual(kind) or (pa.types.is_dictionary(kind)):
        if target_is_class is False:
            raise InputError(
                f"target {name!r} is text such as {column.drop_null()[0].as_py()!r}, and the "
                "learner predicts numbers"
            )
        return "text"
    raise InputError(f"target {name!r} has the type {kind}; it must be numbers, texts or booleans")


def _kind_of_classes(classes: Sequence[str | float | bool]) -> TargetKind:
    if all(isinstance(value, bool) for value in classes):
        return "boolean"
    if any(isinstance(value, str) for value in classes):
        return "text"
    return "integer" if all(float(value).is_integer() for value in classes) else "number"
