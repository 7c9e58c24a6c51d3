"""Labels of the feedback log beside the features of their predictions, as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import pyarrow as pa

from everlearn.base import InputError, Schema
from everlearn.data.compiler import column_of, records_to_table
from everlearn.data.feedback import ERASED, ERASED_DATA, Judged, id_text
from everlearn.data.tables import CORRECTS, REFUSED


def joined(
    rows: Sequence[Judged],
    schema: Schema,
    refused: Mapping[int, str] = {},
    corrects: Set[int] = frozenset(),
) -> pa.Table:
    """A table of labels beside the features of their predictions, one row each, in order.

    Args:
        rows: labels of the log.
        schema: names of the columns that are no features.
        refused: position → why that label is not learned.
        corrects: positions of labels that judge anew what was learned before.
    """
    if not rows:
        raise InputError("the feedback log has no labels yet")
    asked = [row.prediction for row in rows]
    table = records_to_table([one.features for one in asked])
    if not table.num_columns:  # all were erased
        table = pa.table({REFUSED: pa.nulls(len(rows), pa.string())})
    made: dict[str, pa.Array] = {}
    if schema.id is not None:
        ids = [one.external_id or id_text(one.id) for one in asked]
        made[schema.id] = column_of(ids, schema.id)
    if schema.key is not None:
        made[schema.key] = column_of([one.key for one in asked], schema.key)
    if schema.weight is not None:
        made[schema.weight] = column_of([row.weight for row in rows], schema.weight)
    if schema.target is not None:
        made[schema.target] = column_of([row.value for row in rows], schema.target)
    moment = pa.timestamp("us", tz="UTC")
    if schema.time is not None:
        made[schema.time] = pa.array([one.at for one in asked], moment)
    if schema.label_time is not None:
        made[schema.label_time] = pa.array([row.at for row in rows], moment)
    for name, column in made.items():
        given = name in table.schema.names and name in (schema.time, schema.id, schema.key)
        table = table if given else _with_column(table, name, column)
    reasons = [refused.get(row.position) for row in rows]
    if any(one.arm == ERASED for one in asked):
        pairs = zip(asked, reasons, strict=True)
        reasons = [ERASED_DATA if one.arm == ERASED else reason for one, reason in pairs]
    table = _with_column(table, REFUSED, pa.array(reasons, pa.string()))
    return _with_column(table, CORRECTS, pa.array([row.position in corrects for row in rows]))


def _with_column(table: pa.Table, name: str, column: Any) -> pa.Table:
    """The table with this column, in place of one of its name."""
    at = table.schema.get_field_index(name)
    if at < 0:
        return table.append_column(name, column)
    return table.set_column(at, name, column)
