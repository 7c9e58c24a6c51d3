"""Columns that came after a model began to learn: taken up by a version that begins from scratch,
with the rows that are remembered and held out, in which they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from everlearn.base import NO_TIME, Columns, Part, Schema, State
from everlearn.data.columns import resolve
from everlearn.data.compiler import wanted
from everlearn.data.join import LogSource
from everlearn.data.source import Source

_MISSING = {"numbers": np.float64("nan"), "categories": np.uint64(0), "times": np.int64(NO_TIME)}
"""Matrix of a batch → what stands in it for a missing value."""


def grown(columns: Columns, schema: Schema, sources: Sequence[Source]) -> Columns:
    """The columns, and after them those that the newest labels of the feedback log have beside."""
    for source in sources:
        recent = source.recent() if isinstance(source, LogSource) else None
        if recent is None:
            continue
        known = {*wanted(columns), *schema.ignore}
        new = [
            name
            for name in recent.schema.names
            if name not in known and recent.column(name).null_count < recent.num_rows
        ]
        if new:
            more = resolve(Schema(), pa.table({name: recent.column(name) for name in new}))
            columns = replace(
                columns,
                numbers=columns.numbers + more.numbers,
                categories=columns.categories + more.categories,
                times=columns.times + more.times,
            )
    return columns


def widened(state: State, columns: Columns) -> dict[str, Part]:
    """The parts of a state with rows, made for its columns, as if it had more of them; nothing if
    these are not its columns and more.

    Args:
        state: of a version; parts with `ids` are rows.
        columns: to which it is widened.
    """
    known = Columns.from_json(state["columns"].meta)
    same = {name: getattr(known, name) for name in _MISSING}
    grows = all(getattr(columns, name)[: len(had)] == had for name, had in same.items())
    if not grows or replace(columns, **same) != known:
        return {}
    return {name: _wider(part, columns) for name, part in state.items()} | {
        "columns": Part(meta=columns.to_json())
    }


def _wider(part: Part, columns: Columns) -> Part:
    """Rows of a memory (their meta has the widths) or of a hold-out; another part as it is."""
    arrays, meta = dict(part.arrays), part.meta
    remembered = isinstance(meta, dict) and {"rows", *_MISSING} <= meta.keys()
    if not remembered and not {"ids", *_MISSING} <= arrays.keys():
        return part
    rows = meta["rows"] if remembered else len(arrays["ids"])
    for name, missing in _MISSING.items():
        width = len(getattr(columns, name))
        had = arrays.get(name, np.empty((rows, 0), missing.dtype))
        if had.shape[1] < width:
            more = np.full((rows, width - had.shape[1]), missing)
            arrays[name] = np.concatenate([had, more], axis=1)
    if remembered:
        meta = meta | {name: len(getattr(columns, name)) for name in _MISSING}
    return Part(arrays, meta)
