"""Pieces → blocks: compiled rows, each with its fate: learned, held out, set aside, or seen before.

A block is a segment of what is read: rows to learn in order, and between them the others, which are
counted when the row to learn after them is given out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from everlearn.base import NO_TIME, Batch, Columns, Hashes, Ints, Json
from everlearn.data.compiler import Compiled, Compiler
from everlearn.data.convert import Mask
from everlearn.data.hashing import RowDigest
from everlearn.data.holdout import in_holdout
from everlearn.data.ids import SeenIds
from everlearn.data.slices import Piece, Place, Slice
from everlearn.data.source import open_reader
from everlearn.data.tables import corrections
from everlearn.data.tally import DISORDER, HELD, LEARNED, TWICE, Account
from everlearn.data.withdrawn import WITHDRAWN, Numbers, withdrawn_rows


class Segment(Protocol):
    """Consecutive rows to learn, given out from front to back, with what lies between them."""

    @property
    def given(self) -> int:
        """How many rows to learn were given out."""
        ...

    @property
    def left(self) -> int:
        """How many rows to learn are still to be given out."""
        ...

    def take(self, n: int, account: Account | None) -> tuple[Batch, Batch | None]:
        """The next n rows to learn, and the held-out rows before the last of them; counted if
        there is an account."""
        ...

    def drain(self, account: Account | None) -> Batch | None:
        """The held-out rows after the last row to learn; all that is left is counted."""
        ...

    def position(self) -> Json:
        """Where reading goes on after what was given out."""
        ...

    def origins(self, start: int, stop: int) -> tuple[Ints, Ints]:
        """Slice number and source row of each of the rows to learn from `start` to `stop` - 1."""
        ...


@dataclass(slots=True)
class Block:
    """Compiled rows of one slice in the order of the source; a `Segment`.

    Args:
        part: number of the slice.
        first: source row of the block's row 0.
        place: from where the block's piece can be read again.
        rows: of the source, in the block.
        learn, held: rows to learn and rows kept out.
        learn_at, held_at, twice_at: places of these, and of duplicates, within the block.
        aside: (place within the block, reason), in order.
        sums: (rows + 1, 2) running row digests.
        disorder: places of rows whose event time is before that of the row before.
        times: (rows,) event times, or None.
    """

    part: int
    first: int
    place: Place
    rows: int
    learn: Batch
    held: Batch
    learn_at: Ints
    held_at: Ints
    twice_at: Ints
    aside: Sequence[tuple[int, str]]
    sums: Hashes
    disorder: Ints
    times: Ints | None
    given: int = 0  # rows to learn
    held_given: int = 0
    cursor: int = 0  # rows of the source

    @property
    def left(self) -> int:
        return len(self.learn_at) - self.given

    def take(self, n: int, account: Account | None) -> tuple[Batch, Batch | None]:
        start = self.given
        self.given += n
        batch = self.learn.take(slice(start, self.given))
        stop = int(self.learn_at[self.given - 1]) + 1
        return batch, self._pass(stop, n, account)

    def drain(self, account: Account | None) -> Batch | None:
        return self._pass(self.rows, 0, account)

    def _pass(self, stop: int, learned: int, account: Account | None) -> Batch | None:
        start, self.cursor = self.cursor, stop
        held, self.held_given = self.held_given, int(self.held_at.searchsorted(stop))
        if account is not None and stop > start:
            counts = account.counts[self.part]
            counts[LEARNED] += learned
            counts[HELD] += self.held_given - held
            account.sums[self.part] += self.sums[stop] - self.sums[start]
            self._count_others(start, stop, account)
        return self.held.take(slice(held, self.held_given)) if held < self.held_given else None

    def _count_others(self, start: int, stop: int, account: Account) -> None:
        """Count duplicates, rows out of order and rows set aside; mostly there are none."""
        for column, places in ((TWICE, self.twice_at), (DISORDER, self.disorder)):
            if len(places):
                low, high = places.searchsorted((start, stop)).tolist()
                account.counts[self.part, column] += high - low
        if self.aside:
            low, high = (bisect_left(self.aside, (end,)) for end in (start, stop))
            rows = [(self.first + at, reason) for at, reason in self.aside[low:high]]
            account.set_aside(self.part, rows)

    def origins(self, start: int, stop: int) -> tuple[Ints, Ints]:
        rows = self.learn_at[start:stop] + self.first
        return np.full(len(rows), self.part), rows

    def position(self) -> Json:
        last = self.cursor - 1
        return {
            "slice": self.part,
            "row": self.first + self.cursor,
            "place": self.place.to_json(),
            "time": int(self.times[last]) if self.times is not None and last >= 0 else None,
        }


class BlockReader:
    """Reads the blocks of all slices from a position on.

    Args:
        slices, columns, blobs: what is read, and how.
        share: of rows that are held out, unless a slice says its own (option "holdout").
        seen: ids of the lineage, a copy that this reader may change; None where rows have no ids.
    """

    def __init__(
        self,
        slices: Sequence[Slice],
        columns: Columns,
        blobs: Any,
        share: float,
        seen: SeenIds | None,
    ) -> None:
        self.slices, self.columns, self.blobs = slices, columns, blobs
        self._share = share
        self._seen = seen if columns.id is not None else None
        self._compiler = Compiler(columns)

    def restart(self) -> None:
        """Another pass begins."""
        if self._seen is not None:
            self._seen.restart()

    def blocks(self, position: Json = None) -> Iterator[Block]:
        """All blocks after a position, or all.

        Raises:
            ChangedError, InputError: a source is not what was planned, or cannot be read.
        """
        first = position["slice"] if position else 0
        for part in range(first, len(self.slices)):
            place = row = time = None
            if position and part == first:
                place, row = Place.from_json(position["place"]), position["row"]
                time = position["time"]
            gone = withdrawn_rows(self.slices[part], self.blobs)
            reader = open_reader(self.slices[part], self.columns, self.blobs)
            try:
                for piece in reader.pieces(place):
                    block = self._block(part, piece, row, time, gone)
                    if block is not None:
                        if block.times is not None:
                            time = int(block.times[-1])
                        yield block
            finally:
                reader.close()

    def _block(
        self, part: int, piece: Piece, row: int | None, time: int | None, gone: Numbers
    ) -> Block | None:
        first, table, bad = piece.place.row, piece.table, piece.bad
        skip = max(row - first, 0) if row is not None else 0
        if skip >= table.num_rows:
            return None
        if skip:
            table = table.slice(skip)
            bad = {at - skip: reason for at, reason in bad.items() if at >= skip}
        first += skip
        compiled = self._compiler.compile(table, bad)
        out = gone.between(first, first + table.num_rows) - first
        if len(out):
            compiled = _without(compiled, out, time)
        return self._sort_out(part, first, piece.place, compiled, time, corrections(table))

    def _sort_out(
        self,
        part: int,
        first: int,
        place: Place,
        compiled: Compiled,
        time: int | None,
        again: Mask | None,
    ) -> Block:
        """Decide what becomes of each row; those that are learned `again` are no duplicates."""
        ids = compiled.ids
        n = len(ids)
        good = np.ones(n, bool)
        if compiled.refused:
            good[list(compiled.refused)] = False
        twice = np.zeros(0, np.int64)
        if self._seen is not None:
            among = np.flatnonzero(good if again is None else good & ~again)
            twice = among[self._seen.duplicates(ids[among])]
            good[twice] = False
            self._seen.add(ids[good])
        held = good & in_holdout(ids, self.slices[part].options.get("holdout", self._share))
        held_at, learn_at = np.flatnonzero(held), np.flatnonzero(good & ~held)
        return Block(
            part=part,
            first=first,
            place=place,
            rows=n,
            learn=compiled.rows(None if len(learn_at) == n else learn_at),
            held=compiled.rows(held_at),
            learn_at=learn_at,
            held_at=held_at,
            twice_at=twice,
            aside=sorted(compiled.refused.items()),
            sums=RowDigest.sums(compiled.content, first),
            disorder=_disorder(compiled.time, time),
            times=compiled.time,
        )


def _without(compiled: Compiled, out: Ints, before: int | None) -> Compiled:
    """The rows with those at some places set aside as withdrawn. Their times are those of the row
    before, so that the rows around them are in the order in which they would be without them."""
    reasons = dict.fromkeys(out.tolist(), WITHDRAWN)
    made = replace(compiled, refused={**compiled.refused, **reasons})
    if compiled.time is None:
        return made
    n = len(compiled.time)
    stays = np.ones(n, bool)
    stays[out] = False
    last = np.maximum.accumulate(np.where(stays, np.arange(n), -1))
    times = compiled.time[np.maximum(last, 0)]
    times[last < 0] = NO_TIME if before is None else before
    return replace(made, time=times)


def _disorder(times: Ints | None, before: int | None) -> Ints:
    """Places of the times that are before the time of the row before them."""
    if times is None or not len(times):
        return np.zeros(0, np.int64)
    earlier = np.concatenate(([times[0] if before is None else before], times[:-1]))
    return np.flatnonzero(times < earlier)
