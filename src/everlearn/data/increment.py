"""An increment as it is learned: chunks of compiled rows, read ahead, that can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from everlearn.base import Batch, Columns, Hashes, InputError, Ints, Json, State
from everlearn.data.ahead import ReadAhead
from everlearn.data.arrange import Window, arrange
from everlearn.data.blocks import BlockReader, Segment
from everlearn.data.compiler import empty_batch, wanted
from everlearn.data.convert import Mask
from everlearn.data.ids import SeenIds
from everlearn.data.order import Order, check_order
from everlearn.data.slices import Consumed, Slice, require
from everlearn.data.tally import Account, Snapshot, Tally

__all__ = ["Chunk", "Consumed", "Reader", "Slice", "Tally"]

KEPT = 256 * 2**20
"""Bytes up to which an increment's chunks stay in memory from the first pass to the last."""


class Chunk:
    """Rows to learn, rows to hold out, and a mark from which reading goes on after them.

    Args:
        batch: the rows to learn, in order.
        held: rows kept out of learning, or None.
        number: of the pass, from 1.
        position: where reading goes on.
        origins: the segments from which its rows came, with the first and one past the last row.
        account: in which the chunk's rows are counted.
        told: which rows these are, in words, where that is known and the segments are not.
    """

    __slots__ = (
        "_account",
        "_origins",
        "_position",
        "_snapshot",
        "_told",
        "batch",
        "held",
        "number",
    )

    def __init__(
        self,
        batch: Batch,
        held: Batch | None,
        number: int,
        position: Json,
        origins: list[tuple[Segment, int, int]],
        account: Account,
        told: str = "",
    ) -> None:
        self.batch, self.held, self.number, self._told = batch, held, number, told
        self._position, self._origins, self._account = position, origins, account
        self._snapshot: Snapshot | None = None

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def mark(self) -> Json:
        """JSON that `Reader(after=…)` takes: everything up to here was given out.

        Made when it is asked for: ask only where it is kept.
        """
        snapshot = self._snapshot or self._account.snapshot()
        return {"pass": self.number, "position": self._position, "account": snapshot.to_json()}

    def origins(self) -> tuple[Ints, Ints]:
        """(n,) slice number and source row of each row to learn."""
        pairs = [segment.origins(start, stop) for segment, start, stop in self._origins]
        none = np.zeros(0, np.int64)
        parts, rows = (np.concatenate([none, *(pair[k] for pair in pairs)]) for k in (0, 1))
        return parts, rows

    @property
    def where(self) -> str:
        """Which rows these are, in words."""
        if self._told:
            return self._told
        parts, rows = self.origins()
        told = [
            f"rows {among.min():,} to {among.max():,} of {self._account.slices[part].source}"
            for part in np.unique(parts).tolist()
            if len(among := rows[parts == part])
        ]
        return " and ".join(told[:3]) + (" …" if len(told) > 3 else "")

    def again(self, number: int) -> Chunk:
        """The same rows in a later pass; without the segments that they came from."""
        return Chunk(self.batch, None, number, self._position, [], self._account, self.where)

    def freeze(self) -> None:
        """Keep the account as it is now: a later chunk is about to be counted."""
        if self._snapshot is None:
            self._snapshot = self._account.snapshot()


class Reader:
    """Iterates over the chunks of an increment.

    A chunk has exactly `chunk` rows to learn, whatever the format, the size of blocks or the number
    of files; only the last of each pass may have fewer, or none, with held-out rows alone. Later
    passes repeat the same chunks; rows are counted, and held-out rows given out, in the first only.
    What is small enough stays in memory for them; else it is read and compiled again.

    Args:
        slices: of the sources, in order.
        columns: how rows are compiled.
        chunk: rows to learn in a chunk.
        order: "stream", "time" or a `Shuffle`.
        passes: how often the rows are gone over.
        seed: of the shuffling, where the order has none of its own.
        holdout: share of rows that are kept out of learning.
        seen: ids of the lineage (or their saved state); new ones are added as chunks are given
            out, and settled when the last chunk was. Used where `columns.id` is set.
        blobs: where spooled rows are.
        after: the mark of the chunk after which reading goes on.
        read_ahead: read and compile in a thread of its own.

    Raises:
        InputError: an argument that cannot be, or a slice that lacks a column (named, with the
            nearest that exists), before anything is read.
    """

    def __init__(
        self,
        slices: Sequence[Slice],
        columns: Columns,
        *,
        chunk: int = 1000,
        order: Any = "stream",
        passes: int = 1,
        seed: int = 0,
        holdout: float = 0.0,
        seen: SeenIds | State | None = None,
        blobs: Any = None,
        after: Json = None,
        read_ahead: bool = True,
    ) -> None:
        if chunk < 1 or passes < 1:
            raise InputError(f"chunk and passes are at least 1, not {chunk!r} and {passes!r}")
        check_order(order, columns)
        for part in slices:
            require(wanted(columns), part.names, part.source)
        self.slices, self.columns = slices, columns
        self.seen = seen if isinstance(seen, SeenIds) else SeenIds(seen)
        self._chunk_rows, self._passes = chunk, passes
        self._order: Order = order
        self._seed = seed
        self._account = Account(slices, after["account"] if after else None)
        self._blocks = BlockReader(slices, columns, blobs, holdout, self.seen.copy())
        self._after = after
        self._last: Chunk | None = None
        keeps = passes > 1 and after is None and _bytes(slices, columns) <= KEPT
        self._kept: list[Chunk | Hashes] | None = [] if keeps else None
        self._ahead = ReadAhead(self._segments(), threaded=read_ahead)
        self._chunks = self._cut()

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        if self._last is not None:
            self._last.freeze()
        try:
            self._last = next(self._chunks)
        except BaseException:
            self.close()
            raise
        return self._last

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def is_first_pass(self) -> bool:
        """Whether the chunk that was given out last belongs to the first pass."""
        return self._last is None or self._last.number == 1

    @property
    def tallies(self) -> list[Tally]:
        """The account of each slice, as of the chunk that was given out last."""
        return self._account.tallies()

    @property
    def rows_read(self) -> int:
        """Rows of the sources that were gone over in the first pass, as of the last chunk."""
        return int(self._account.counts[:, :4].sum())

    def refuse(self, rows: Mask, reason: str) -> None:
        """Set aside rows (n,) of the last chunk that the learner could not learn.

        They are counted under `reason` instead of as learned; the chunk's `mark` says so too if it
        is asked for afterwards. In later passes nothing is counted.
        """
        if self._last is None or self._last.number > 1:
            return
        parts, numbers = self._last.origins()
        chosen = np.flatnonzero(rows)
        for part in np.unique(parts[chosen]).tolist():
            among = numbers[chosen][parts[chosen] == part]
            self._account.refuse(part, [(int(row), reason) for row in among])

    def close(self) -> None:
        """Stop reading ahead; waits for the thread."""
        self._ahead.close()

    def _segments(self) -> Iterator[tuple[int, Segment | None]]:
        """(pass, segment), and (pass, None) at the end of each pass; runs in the thread."""
        after = self._after or {"pass": 1, "position": None}
        position = after["position"]
        last = 1 if self._kept is not None else self._passes
        for number in range(after["pass"], last + 1):
            if position == _END:
                position = None
                yield number, None
                continue
            if position is None:
                self._blocks.restart()
            for segment in arrange(self._blocks, self._order, self._seed, position):
                yield number, segment
            yield number, None
            position = None

    def _cut(self) -> Iterator[Chunk]:
        """Cut segments into chunks."""
        cutter = _Cutter(self._chunk_rows, self._account, self.columns, self._remember)
        for number, segment in self._ahead:
            counted = number == 1
            if segment is None:
                if cutter.anything:
                    yield self._keep(cutter.finish(number, _END))
                cutter.settle()
                if number < self._passes:
                    self.seen.restart()
                continue
            while segment.left:
                cutter.take(segment, counted)
                if cutter.rows == self._chunk_rows:
                    yield self._keep(cutter.finish(number, segment.position()))
            cutter.drain(segment, counted)
            if isinstance(segment, Window) and self.columns.id is not None:
                self._add(segment.ids)
        if self._kept is not None:
            yield from self._again(self._kept)
        self.seen.settle()

    def _keep(self, chunk: Chunk) -> Chunk:
        if self._kept is not None and len(chunk):
            self._kept.append(chunk.again(1))
        return chunk

    def _again(self, kept: list[Chunk | Hashes]) -> Iterator[Chunk]:
        """The passes after the first, out of memory."""
        for number in range(2, self._passes + 1):
            for item in kept:
                if isinstance(item, Chunk):
                    yield item.again(number)
                else:
                    self.seen.add(item)
            if number < self._passes:
                self.seen.restart()

    def _remember(self, learn: Batch, held: Batch | None) -> None:
        """Add a chunk's ids to those that were seen; a shuffled window adds its own at its end."""
        if self.columns.id is None or not isinstance(self._order, str):
            return
        self._add(learn.ids)
        if held is not None:
            self._add(held.ids)

    def _add(self, ids: Hashes) -> None:
        self.seen.add(ids)
        if self._kept is not None:
            self._kept.append(ids)


def _bytes(slices: Sequence[Slice], columns: Columns) -> int:
    """About what the rows of all slices take in memory."""
    width = 8 * (len(columns.numbers) + len(columns.categories) + len(columns.times) + 6)
    return sum(part.rows * width + part.size for part in slices)


_END = {"end": True}


class _Cutter:
    """Puts one chunk after the other together."""

    def __init__(self, size: int, account: Account, columns: Columns, remember: Any) -> None:
        self._size, self._account, self._remember = size, account, remember
        self._columns = columns
        self._clear()

    @cached_property
    def _empty(self) -> Batch:
        return empty_batch(self._columns)

    def _clear(self) -> None:
        self.rows = 0
        self.anything = False
        self._learn: list[Batch] = []
        self._held: list[Batch] = []
        self._origins: list[tuple[Segment, int, int]] = []

    def take(self, segment: Segment, counted: bool) -> None:
        """Add what is missing, or all that the segment has left."""
        n, start = min(self._size - self.rows, segment.left), segment.given
        batch, held = segment.take(n, self._account if counted else None)
        self._origins.append((segment, start, start + n))
        self._learn.append(batch)
        self._held += [held] if held is not None else []
        self.rows += n
        self.anything = True

    def drain(self, segment: Segment, counted: bool) -> None:
        """Add what comes after the segment's last row to learn."""
        before = self._account.counts.sum()
        held = segment.drain(self._account if counted else None)
        self._held += [held] if held is not None else []
        self.anything = self.anything or bool(before != self._account.counts.sum())

    def settle(self) -> None:
        """A pass is over: held-out rows of a later pass that no chunk carried were still met."""
        if self._held:
            self._remember(self._empty, Batch.concat(self._held))
        self._clear()

    def finish(self, number: int, position: Json) -> Chunk:
        """The chunk, and begin another."""
        learn = Batch.concat(self._learn) if self._learn else self._empty
        held = Batch.concat(self._held) if self._held else None
        self._remember(learn, held)
        given = held if number == 1 else None
        chunk = Chunk(learn, given, number, position, self._origins, self._account)
        self._clear()
        return chunk
