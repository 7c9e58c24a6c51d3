"""Events and labels in one sequence, for learners that learn row by row.

Every event is answered by what was known at its time, and every label is learned as soon as it is
known. Such a learner is handed both in one batch: what weighs nothing is predicted, not learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from everlearn.base import Batch, Ints
from everlearn.compare.timeline import Timeline

BLOCK = 16_384
"""Rows that are handed over at once."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive events and labels.

    Args:
        rows: (m,) their rows in the history, in the order in which they come.
        is_event: (m,) whether a row is predicted as an event, or learned as a label.
    """

    rows: Ints
    is_event: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> Piece:
        return Piece(self.rows[start:stop], self.is_event[start:stop])

    def split(self, codes: Ints | None, known: set[int]) -> Iterator[Piece]:
        """Pieces of at most `BLOCK` rows, cut before each label of a class that is new then.

        Args:
            codes: (n,) class of every row of the history; None where there are no classes.
            known: the classes that are known before; extended.
        """
        cuts = {*range(0, len(self), BLOCK), len(self)}
        if codes is not None:
            labels = np.flatnonzero(~self.is_event)
            found, first = np.unique(codes[self.rows[labels]], return_index=True)
            new = ~np.isin(found, sorted(known))
            cuts |= set(labels[first[new]].tolist())
            known |= set(found.tolist())
        ends = sorted(cuts)
        for start, stop in pairwise(ends):
            yield self.part(start, stop)


def interleaved(line: Timeline, position: Ints, events: range, labels: range) -> Piece:
    """Events in the order of their times, each after the labels that were known by then.

    Args:
        line: when things happen.
        position: (n,) the row of each event in the history.
        events: to be answered.
        labels: to be learned, by their place in the order of becoming known.
    """
    known = np.searchsorted(line.available, line.time[events.start : events.stop], "right")
    before = np.clip(known, labels.start, labels.stop) - labels.start
    is_event = np.zeros(len(events) + len(labels), np.bool_)
    is_event[before + np.arange(len(events))] = True
    rows = np.empty(len(is_event), np.int64)
    rows[is_event] = position[events.start : events.stop]
    rows[~is_event] = np.arange(labels.start, labels.stop)
    return Piece(rows, is_event)


def as_batch(whole: Batch, piece: Piece) -> Batch:
    """The rows of a piece with some label in it: an event weighs nothing, and shows neither its
    target (the piece's first label stands there) nor when that became known."""
    batch = whole.take(piece.rows)
    assert batch.y is not None
    y = batch.y.copy()
    y[piece.is_event] = y[int(np.argmin(piece.is_event))]
    weight = np.ones(len(piece)) if batch.weight is None else batch.weight.copy()
    weight[piece.is_event] = 0.0
    return replace(batch, y=y, weight=weight, label_time=None)
