"""What in the columns of a history should be looked at before its comparison is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from everlearn.base import NO_TIME, Batch, Columns, Schema
from everlearn.data.convert import is_text

MOSTLY = 0.95
"""Share of the rows that makes a hint."""

FEW_ROWS = 100
_SOON_AFTER_1970 = 20 * 365 * 86_400_000_000
_SEPARATED = r"^\s*[+-]?\d{1,3}([,.' ]\d{3})+([.,]\d+)?\s*$"


def hints(batch: Batch, columns: Columns, schema: Schema, sources: Sequence[Any]) -> list[str]:
    """Sentences about columns that seem to be misread, useless, or known too late.

    Args:
        batch: all rows, in the order in which they were read.
        sources: from which they were read.
    """
    sample = sources[0].sample()
    found = [
        *_order(columns),
        *_far(batch),
        *_late(batch, columns),
        *_clock(batch, columns, sample),
    ]
    if len(batch) >= FEW_ROWS:
        found += [*_counters(batch, columns), *_names(batch, columns)]
    return found + _separated(columns, sample)


def _order(columns: Columns) -> list[str]:
    """That no event time was named."""
    if columns.time is not None:
        return []
    said = "No time column was named, so the rows are taken in the order in which they stand."
    if columns.times:
        return [f"{said} {columns.times[0]!r} holds times: say --time {columns.times[0]}."]
    return [f"{said} If they did not happen in that order, these figures mean little."]


def _far(batch: Batch) -> list[str]:
    """A few events long before or after the others."""
    if batch.time is None or len(batch) < 2 * FEW_ROWS:
        return []
    far = len(batch) // 200
    times = np.partition(batch.time, [0, far, -1 - far, -1])
    low, early, late, high = (int(times[at]) for at in (0, far, -1 - far, -1))
    if high - low <= 5 * (late - early):
        return []
    days = [str(np.datetime64(moment, "us"))[:10] for moment in (low, high, early, late)]
    return [
        "The events lie between {} and {}, but nearly all of them between {} and {}: are the times "
        "of the others right?".format(*days)
    ]


def _late(batch: Batch, columns: Columns) -> list[str]:
    """Times after the event, which may be the moment at which the label became known."""
    if batch.time is None:
        return []
    said = []
    for j, name in enumerate(columns.times):
        known = batch.times[:, j] != NO_TIME
        if name == columns.time or not known.any():
            continue
        share = float((batch.times[known, j] > batch.time[known]).mean())
        if share >= MOSTLY:
            instead = "" if columns.label_time else f", or say --label-time {name}"
            said.append(
                f"Column {name!r} is later than the event in {share:.0%} of the rows. If it is not "
                f"known at the event, the models see the future: --ignore {name}{instead}."
            )
    return said


def _clock(batch: Batch, columns: Columns, sample: pa.Table) -> list[str]:
    """Numbers as event times that end soon after 1970: perhaps 20240131, or a year."""
    if batch.time is None or columns.time not in sample.schema.names:
        return []
    kind = sample.schema.field(columns.time).type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not numeric or not len(batch) or int(batch.time.max()) > _SOON_AFTER_1970:
        return []
    return [
        f"The numbers in {columns.time!r} were read as seconds since 1970. If they are dates or "
        "years, write them as 2024-01-31."
    ]


def _counters(batch: Batch, columns: Columns) -> list[str]:
    """Numbers that only count the rows."""
    said = []
    for j, name in enumerate(columns.numbers):
        values = batch.numbers[:, j]
        steps = np.diff(values)
        if bool((steps >= 1.0).all()) and values[-1] - values[0] <= 1.5 * len(values):
            said.append(f"Column {name!r} seems to number the rows; leave it out: --ignore {name}.")
    return said


def _names(batch: Batch, columns: Columns) -> list[str]:
    """Texts that name the row rather than describe it."""
    said = []
    for j, name in enumerate(columns.categories):
        if len(np.unique(batch.categories[:, j])) >= MOSTLY * len(batch):
            said.append(
                f"Column {name!r} has another text in nearly every row, from which nothing can be "
                f"learned; leave it out: --ignore {name}."
            )
    return said


def _separated(columns: Columns, sample: pa.Table) -> list[str]:
    """Numbers with thousands separators, which are read as categories."""
    said = []
    for name in columns.categories:
        if name not in sample.schema.names or not is_text(sample.schema.field(name).type):
            continue
        texts = sample.column(name).cast(pa.large_string()).drop_null()
        fits = pc.sum(pc.match_substring_regex(texts, _SEPARATED)).as_py() or 0
        if len(texts) and fits >= MOSTLY * len(texts):
            said.append(
                f"Column {name!r} holds texts such as {texts[0].as_py()!r}, which are read as "
                "categories; write numbers without thousands separators."
            )
    return said
