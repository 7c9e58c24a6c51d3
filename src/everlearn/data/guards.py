"""What keeps a row from being learned. It is set aside, counted and shown; nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from everlearn.base import NO_TIME, Array, Floats, Ints
from everlearn.data.convert import Mask

EXAMPLES = 20
"""Rows that are shown as examples for each source."""


class Refusals:
    """Why rows of a table are refused: the first reason that was found for each.

    Args:
        n: rows of the table.
        unread: rows that were refused before, with their reasons.
    """

    def __init__(self, n: int, unread: Mapping[int, str] | None = None) -> None:
        self.n = n
        self.reasons: dict[int, str] = dict(unread or {})

    def mark(self, mask: Mask | None, reason: str) -> None:
        """Refuse the rows of a mask (n,); None is a mask of no row."""
        if mask is None or not mask.any():
            return
        for row in np.flatnonzero(mask).tolist():
            self.reasons.setdefault(row, reason)

    def mark_infinite(self, values: Floats, name: str) -> None:
        """Refuse the rows in which a column of numbers (n,) is infinite."""
        with np.errstate(invalid="ignore", over="ignore"):
            total = values.sum()
        if not np.isfinite(total):
            self.mark(np.isinf(values), f"column {name!r}: infinite")


def check(y: Array | None, time: Ints | None, label_time: Ints | None, refusals: Refusals) -> None:
    """Refuse rows with an infinite target, without their event time, or with impossible times."""
    if y is not None and y.dtype != object:
        refusals.mark(np.isinf(y), "target infinite")
    if time is not None:
        refusals.mark(time == NO_TIME, "event time missing")
    if label_time is not None:
        refusals.mark(label_time == NO_TIME, "label time missing")
        if time is not None:
            early = (label_time < time) & (label_time != NO_TIME)
            refusals.mark(early, "label known before the event")


def kind_of(reason: str) -> str:
    """The reason under which rows are counted: without the figures of a single row."""
    return reason.split(":")[0] if reason.startswith("ragged line") else reason
