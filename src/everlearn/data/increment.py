"""An increment as it is learned: chunks of compiled rows, read ahead, that can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from everlearn.base import Batch, Columns, InputError, Json
from everlearn.data.ahead import ReadAhead
from everlearn.data.blocks import BlockReader, Segment
from everlearn.data.compiler import wanted
from everlearn.data.ids import SeenIds
from everlearn.data.order import Order, arrange, check_order
from everlearn.data.slices import Consumed, Slice, require
from everlearn.data.tally import Account, Snapshot, Tally

__all__ = ["Chunk", "Consumed", "Reader", "Slice", "Tally"]


class Chunk:
    """Rows to learn, rows to hold out, and a mark from which reading goes on after them.

    Args:
        batch: the rows to learn, in order.
        held: rows kept out of learning, or None.
        passed: number of the pass, from 1.
    """

    __slots__ = ("_position", "_snapshot", "batch", "held", "passed")

    def __init__(
        self, batch: Batch, held: Batch | None, passed: int, position: Json, snapshot: Snapshot
    ) -> None:
        self.batch, self.held, self.passed = batch, held, passed
        self._position, self._snapshot = position, snapshot

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def mark(self) -> Json:
        """JSON that `Reader(after=…)` takes: everything up to here was given out."""
        return {
            "pass": self.passed,
            "position": self._position,
            "account": self._snapshot.to_json(),
        }


class Reader:
    """Iterates over the chunks of an increment.

    A chunk has exactly `chunk` rows to learn, whatever the format, the size of blocks or the number
    of files; only the last of each pass may have fewer, or none, with held-out rows alone. Later
    passes repeat the same chunks; rows are counted, and held-out rows given out, in the first only.

    Args:
        slices: of the sources, in order.
        columns: how rows are compiled.
        chunk: rows to learn in a chunk.
        order: "stream", "time" or a `Shuffle`.
        passes: how often the rows are gone over.
        seed: of the shuffling, where the order has none of its own.
        holdout: share of rows that are kept out of learning.
        seen: ids of the lineage; new ones are added as chunks are given out. Needed where
            `columns.id` is set, to recognise duplicates.
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
        order: Order = "stream",
        passes: int = 1,
        seed: int = 0,
        holdout: float = 0.0,
        seen: SeenIds | None = None,
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
        self._chunk, self._passes, self._order = chunk, passes, order
        self._account = Account(slices, after["account"] if after else None)
        self._seen = seen if seen is not None or columns.id is None else SeenIds()
        copy = None if self._seen is None else self._seen.copy()
        self._blocks = BlockReader(slices, columns, blobs, holdout, copy)
        self._first_pass = after["pass"] if after else 1
        self._position = after["position"] if after else None
        self._seed = seed
        self._ahead = ReadAhead(self._segments(), threaded=read_ahead)
        self._chunks = self._cut()

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        try:
            return next(self._chunks)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def tallies(self) -> list[Tally]:
        """The account of each slice, as of the chunk that was given out last."""
        return self._account.tallies()

    @property
    def rows_read(self) -> int:
        """Rows of the sources that were gone over in the first pass, as of the last chunk."""
        return int(self._account.counts[:, :4].sum())

    def close(self) -> None:
        """Stop reading ahead; waits for the thread."""
        self._ahead.close()

    def _segments(self) -> Iterator[tuple[int, Segment | None]]:
        """(pass, segment), and (pass, None) at the end of each pass; runs in the thread."""
        position = self._position
        for number in range(self._first_pass, self._passes + 1):
            if position is not None and position.get("end"):
                position = None
                continue
            if position is None:
                self._blocks.restart()
            for segment in arrange(self._blocks, self._order, self._seed, position):
                yield number, segment
            yield number, None
            position = None

    def _cut(self) -> Iterator[Chunk]:
        """Cut segments into chunks."""
        chunk = _Chunk(self)
        for number, segment in self._ahead:
            account = self._account if number == 1 else None
            if segment is None:
                if chunk.anything:
                    yield chunk.finish(number, {"end": True})
                if self._seen is not None and number < self._passes:
                    self._seen.restart()
                continue
            while segment.left:
                chunk.take(segment, account)
                if chunk.rows == self._chunk:
                    yield chunk.finish(number, segment.position())
            chunk.drain(segment, account)
        if self._seen is not None:
            self._seen.settle()


class _Chunk:
    """A chunk that is being put together."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._empty: Batch | None = None
        self._clear()

    def _clear(self) -> None:
        self.rows = 0
        self.anything = False
        self._learn: list[Batch] = []
        self._held: list[Batch] = []

    def take(self, segment: Segment, account: Account | None) -> None:
        n = min(self._reader._chunk - self.rows, segment.left)
        batch, held = segment.take(n, account)
        self._learn.append(batch)
        if held is not None:
            self._held.append(held)
        self.rows += n
        self.anything = True

    def drain(self, segment: Segment, account: Account | None) -> None:
        before = self._reader._account.counts.sum()
        held = segment.drain(account)
        if held is not None:
            self._held.append(held)
        self._empty = segment.empty()
        self.anything = self.anything or before != self._reader._account.counts.sum()

    def finish(self, number: int, position: Json) -> Chunk:
        reader = self._reader
        learn = Batch.concat(self._learn) if self._learn else self._empty
        assert learn is not None
        held = Batch.concat(self._held) if self._held else None
        if reader._seen is not None:
            reader._seen.add(learn.ids)
            if held is not None:
                reader._seen.add(held.ids)
        self._clear()
        return Chunk(learn, held, number, position, reader._account.snapshot())
