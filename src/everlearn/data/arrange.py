"""Blocks in the order of the stream → segments in the order that a strategy asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from everlearn.base import Batch, Hashes, Ints, Json
from everlearn.data.blocks import Block, BlockReader, Segment
from everlearn.data.order import Order, Shuffle
from everlearn.data.slices import Slice
from everlearn.data.tally import LEARNED, Account
from everlearn.data.timesort import sorted_segments


def arrange(
    blocks: BlockReader, order: Order, seed: int, position: Json = None
) -> Iterator[Segment]:
    """The segments of one pass, in the given order, after a position that a segment gave."""
    if isinstance(order, Shuffle):
        chosen = seed if order.seed is None else order.seed
        return _shuffled(blocks, order.buffer, chosen, position)
    if order == "time":
        return sorted_segments(blocks, position)
    return blocks.blocks(position)


@dataclass(slots=True)
class Window:
    """A window of the stream in random order; a `Segment`.

    Args:
        number: of the window, from 0.
        start: position in the stream at which it begins; None for the stream's beginning.
        learn: rows to learn, in random order.
        parts, rows: slice number and source row of each of these.
        held: held-out rows of the window, or None.
        delta: what else is to be counted when its first row is given out; None once it was.
        ids: of all rows of the window, in the order of the stream.
        given: rows given out.
    """

    number: int
    start: Json
    learn: Batch
    parts: Ints
    rows: Ints
    held: Batch | None
    delta: Account | None
    ids: Hashes
    given: int = 0

    @property
    def left(self) -> int:
        return len(self.learn) - self.given

    def take(self, n: int, account: Account | None) -> tuple[Batch, Batch | None]:
        held = self._enter(account)
        chosen = slice(self.given, self.given + n)
        self.given += n
        if account is not None:
            counts = np.bincount(self.parts[chosen], minlength=len(account.counts))
            account.counts[:, LEARNED] += counts
        return self.learn.take(chosen), held

    def drain(self, account: Account | None) -> Batch | None:
        return self._enter(account)

    def _enter(self, account: Account | None) -> Batch | None:
        delta, self.delta = self.delta, None
        if delta is None:
            return None
        if account is not None:
            delta.counts[:, LEARNED] = 0
            account.merge(delta)
        return self.held

    def position(self) -> Json:
        return {"window": self.number, "start": self.start, "given": self.given}

    def origins(self, start: int, stop: int) -> tuple[Ints, Ints]:
        return self.parts[start:stop], self.rows[start:stop]


def _shuffled(blocks: BlockReader, buffer: int, seed: int, position: Json) -> Iterator[Window]:
    position = position or {"window": 0, "start": None, "given": 0}
    builder = _Builder(blocks.slices, position["window"], position["start"])
    given = position["given"]
    for block in blocks.blocks(position["start"]):
        while block.left:
            builder.take(block, min(block.left, buffer - builder.count))
            if builder.count == buffer:
                yield _entered(builder.finish(seed, block.position()), given)
                given = 0
        builder.drain(block)
    if builder.count or builder.anything:
        yield _entered(builder.finish(seed, None), given)


def _entered(window: Window, given: int) -> Window:
    """The window, of which some rows were given out before; the rest of it was counted then."""
    window.given = given
    if given:
        window.delta = None
    return window


class _Builder:
    """Collects windows."""

    def __init__(self, slices: Sequence[Slice], number: int, start: Json) -> None:
        self._slices, self._number, self._start = slices, number, start
        self._clear()

    def _clear(self) -> None:
        self.count = 0
        self.anything = False
        self._delta = Account.empty(self._slices)
        self._learn: list[Batch] = []
        self._held: list[Batch] = []
        self._origins: list[tuple[Ints, Ints]] = []

    def take(self, block: Block, n: int) -> None:
        before = block.given
        batch, held = block.take(n, self._delta)
        self._learn.append(batch)
        self._origins.append(block.origins(before, before + n))
        self._keep(held)
        self.count += n

    def drain(self, block: Block) -> None:
        self._keep(block.drain(self._delta))
        self._template = block.learn.take(slice(0, 0))
        self.anything = bool(self._delta.counts.any())

    def _keep(self, held: Batch | None) -> None:
        if held is not None:
            self._held.append(held)

    def finish(self, seed: int, after: Json) -> Window:
        learn = Batch.concat(self._learn) if self._learn else self._template
        held = Batch.concat(self._held) if self._held else None
        generator = np.random.Generator(np.random.Philox(key=[seed, self._number]))
        order = generator.permutation(len(learn))
        none = np.zeros(0, np.int64)
        parts, rows = (
            np.concatenate([none, *(origin[k] for origin in self._origins)])[order] for k in (0, 1)
        )
        ids = learn.ids if held is None else np.concatenate([learn.ids, held.ids])
        window = Window(
            number=self._number,
            start=self._start,
            learn=learn.take(order),
            parts=parts,
            rows=rows,
            held=held,
            delta=self._delta,
            ids=ids,
        )
        self._number, self._start = self._number + 1, after
        self._clear()
        return window
