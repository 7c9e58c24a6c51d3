"""Labels of the feedback log beside the features of their predictions, as one table."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import pyarrow as pa

from everlearn.base import InputError, Schema
from everlearn.data.compiler import column_of, records_to_table
from everlearn.data.feedback import ERASED, ERASED_DATA, id_text, values_of
from everlearn.data.pages import Page
from everlearn.data.tables import CORRECTS, REFUSED


def joined(
    page: Page,
    schema: Schema,
    refused: Mapping[int, str] = {},
    corrects: Set[int] = frozenset(),
) -> pa.Table:
    """A table of labels beside the features of their predictions, one row each, in order.

    Args:
        page: labels of the log.
        schema: names of the columns that are no features.
        refused: position → why that label is not learned.
        corrects: positions of labels that judge anew what was learned before.
    """
    if not len(page):
        raise InputError("the feedback log has no labels yet")
    table = records_to_table(values_of(page.features))
    if not table.num_columns:  # all were erased
        table = pa.table({REFUSED: pa.nulls(len(page), pa.string())})
    for name, column in _labelled(page, schema).items():
        given = name in table.schema.names and name in (schema.time, schema.id, schema.key)
        table = table if given else with_column(table, name, column)
    table = with_column(table, REFUSED, _reasons(page, refused))
    marked = [position in corrects for position in page.position]
    return with_column(table, CORRECTS, pa.array(marked))


def _reasons(page: Page, refused: Mapping[int, str]) -> pa.Array:
    """(n,) why a label is not learned; null where it is."""
    if not refused and ERASED not in page.arm:
        return pa.nulls(len(page), pa.string())
    pairs = zip(page.position, page.arm, strict=True)
    reasons = [ERASED_DATA if arm == ERASED else refused.get(at) for at, arm in pairs]
    return pa.array(reasons, pa.string())


def _labelled(page: Page, schema: Schema) -> dict[str, pa.Array]:
    """The columns that are no features, by their names."""
    made: dict[str, pa.Array] = {}
    if schema.id is not None:
        pairs = zip(page.external_id, page.prediction, strict=True)
        made[schema.id] = column_of([name or id_text(number) for name, number in pairs], schema.id)
    if schema.key is not None:
        made[schema.key] = column_of(page.key, schema.key)
    if schema.weight is not None:
        made[schema.weight] = column_of(page.weight, schema.weight)
    if schema.target is not None:
        made[schema.target] = column_of(page.value, schema.target)
    moment = pa.timestamp("us", tz="UTC")
    if schema.time is not None:
        made[schema.time] = pa.array(page.asked_at, moment)
    if schema.label_time is not None:
        made[schema.label_time] = pa.array(page.at, moment)
    return made


def with_column(table: pa.Table, name: str, column: Any) -> pa.Table:
    """The table with this column, in place of one of its name."""
    at = table.schema.get_field_index(name)
    if at < 0:
        return table.append_column(name, column)
    return table.set_column(at, name, column)
