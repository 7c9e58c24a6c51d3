"""Remembered rows, stored once: immutable blocks, a mask of what is alive, few rewrites.

A block is one `Part`, so that versions that remember the same rows share their bytes. Blocks are
merged like the digits of a binary counter: n rows lie in O(log n) small blocks and n/65,536 large
ones, and each row is written O(log n) times however small the increments are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from everlearn.base import Array, Batch, Hashes, InputError, Ints, Json, State
from everlearn.strategies.block import BLOCK, Block, Notes

RESIDENT = 4 * BLOCK
"""Rows of decoded blocks that a store keeps in memory once they can be loaded again."""

_SMALL_APPENDS = 256

Mask = npt.NDArray[np.bool_]
Piece = tuple[Batch, Notes]


class Rows:
    """Rows in order of arrival, each with notes (numbers that a memory keeps beside it).

    A row's *rank* is its place among the rows that are alive, from 0. Rows are appended to an open
    buffer, which is sealed into blocks of exactly 65,536 rows, so that neither the chunks in which
    rows come nor the moments at which they are saved change the blocks. Not safe for use by two
    threads at once.
    """

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._open: list[Piece] = []
        self._small: list[Piece] = []
        self._open_rows = 0
        self._ends: Ints | None = None
        self._recent: dict[int, Block] = {}
        self._flat: Batch | None = None

    def __len__(self) -> int:
        """Rows that are alive."""
        return sum(block.alive for block in self._blocks) + self._open_rows

    @property
    def blocks(self) -> list[int]:
        """How many rows are alive in each block."""
        return [block.alive for block in self._blocks]

    @property
    def latest(self) -> int | None:
        """The latest event time in the blocks, if their rows have event times."""
        return max((block.span[1] for block in self._blocks if block.span), default=None)

    def append(self, batch: Batch, notes: Notes | None = None) -> None:
        """Add rows at the end.

        Args:
            batch: n rows; its arrays are kept until a block is full, and must not change.
            notes: name → (n,) numbers, the same names for every row of the store.
        """
        notes = notes or {}
        room = BLOCK - self._open_rows
        while len(batch) > room:
            self._push(batch.take(slice(room)), {name: v[:room] for name, v in notes.items()})
            self.seal()
            batch = batch.take(slice(room, None))
            notes = {name: values[room:] for name, values in notes.items()}
            room = BLOCK
        if len(batch):
            self._push(batch, notes)
        if self._open_rows == BLOCK:
            self.seal()

    def seal(self) -> None:
        """Make a block of the open rows."""
        if self._open_rows:
            batch, notes = self._opened()
            self._blocks.append(Block.of(batch, notes))
            self._changed()
        self._open, self._small, self._open_rows = [], [], 0
        self.cool()

    def keep(self, mask: Mask) -> None:
        """Let the rows die whose rank the mask (one for each that is alive) does not choose."""
        start = 0
        self.seal()
        for block in self._blocks:
            alive = block.alive
            block.keep(mask[start : start + alive])
            start += alive
        self._changed()

    def keep_last(self, rows: int) -> None:
        """Let all but the last rows die. The open ones stay as they are."""
        excess = len(self) - rows
        dropped = 0
        while dropped < len(self._blocks) and self._blocks[dropped].alive <= excess:
            excess -= self._blocks[dropped].alive
            dropped += 1
        del self._blocks[:dropped]
        if excess > 0 and self._blocks:
            first = self._blocks[0]
            first.keep(np.arange(first.alive) >= excess)
        self._changed()

    def expire(self, before: int) -> None:
        """Let the rows die whose event time is earlier, or missing. The open ones stay as they are.

        Args:
            before: microseconds since 1970-01-01 UTC.
        """
        kept = []
        for block in self._blocks:
            if block.span is None or block.span[1] < before:
                continue
            if block.span[0] < before:
                time = self._read(block)[0].time
                alive = block.positions(np.arange(block.alive))
                block.keep(np.asarray(time)[alive] >= before)
            kept.append(block)
        self._blocks = kept
        self._changed()

    def extend(self, other: Rows) -> None:
        """Take over all rows of another store, which is empty afterwards."""
        self.seal()
        other.seal()
        self._blocks += other._blocks
        other._blocks = []
        other._changed()
        self._changed()

    def compact(self) -> None:
        """Lay out the rows in blocks of exactly 65,536, written anew where some died."""
        self.seal()
        full = all(block.size == BLOCK for block in self._blocks[:-1])
        if full and all(block.whole for block in self._blocks):
            return
        fresh = Rows()
        for batch, notes in self.batches():
            fresh.append(batch, notes)
        fresh.seal()
        self._blocks = fresh._blocks
        self._changed()

    def tidy(self) -> None:
        """Merge neighbours until each block is at least twice as large as the next, or full; write
        anew those of which half has died."""
        self.seal()
        groups: list[tuple[int, list[Block]]] = []
        for block in self._blocks:
            if not block.alive:
                continue
            rows, members = block.alive, [block]
            while groups and groups[-1][0] < 2 * rows and groups[-1][0] + rows <= BLOCK:
                before, earlier = groups.pop()
                rows, members = rows + before, earlier + members
            groups.append((rows, members))
        self._blocks = [self._merge(members) for _, members in groups]
        self._changed()

    def gather(self, ranks: Ints) -> Batch:
        """The rows of these ranks, in the order of `ranks`, repeated where a rank is repeated."""
        ends = self._ranks()
        if self._flat is not None:
            return self._flat.take(ranks)
        if len(self._blocks) == 1:
            return self._read(self._blocks[0])[0].take(self._blocks[0].positions(ranks))
        which = np.searchsorted(ends, ranks, side="right").astype(np.uint16)
        order = np.argsort(which, kind="stable")
        counts = np.bincount(which, minlength=len(ends))
        pieces, start = [], 0
        for index in np.flatnonzero(counts):
            block, stop = self._blocks[index], start + counts[index]
            local = ranks[order[start:stop]] - (ends[index] - block.alive)
            pieces.append(self._read(block)[0].take(block.positions(local)))
            start = stop
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return Batch.concat(pieces).take(back)

    def flatten(self) -> None:
        """Keep a copy of all rows in one batch until they change, which makes `gather` faster."""
        if self._flat is None and len(self._blocks) > 1:
            self._flat = Batch.concat([batch for batch, _ in self.batches()])

    def batches(self) -> Iterator[Piece]:
        """All rows that are alive, in order of arrival, in pieces of at most 65,536."""
        for block in self._blocks:
            batch, notes = self._read(block)
            if not block.whole:
                chosen = block.positions(np.arange(block.alive))
                batch = batch.take(chosen)
                notes = {name: values[chosen] for name, values in notes.items()}
            if len(batch):
                yield batch, notes
        if self._open_rows:
            yield self._opened()

    def column(self, name: str) -> Array:
        """A field of the batches (`y`, `time`, `ids`, `key`), or a note, of all that are alive.

        Raises:
            InputError: some rows do not have it.
        """
        values = []
        for batch, notes in self.batches():
            value = notes[name] if name in notes else getattr(batch, name, None)
            if value is None:
                raise InputError(f"remembered rows have no {name!r}")
            values.append(value)
        return np.concatenate(values) if values else np.empty(0)

    def erase(self, ids: Hashes | None = None, keys: Hashes | None = None) -> int:
        """Remove the rows with one of these ids, or of one of these keys, and write anew the blocks
        that held them, so that no part of the store has their values. Returns how many."""
        self.seal()
        erased = 0
        for index, block in enumerate(self._blocks):
            batch, _ = self._read(block)
            gone = np.zeros(len(batch), bool)
            if ids is not None:
                gone |= np.isin(batch.ids, ids)
            if keys is not None and batch.key is not None:
                gone |= np.isin(batch.key, keys)
            if gone.any():
                alive = block.positions(np.arange(block.alive))
                erased += int(gone[alive].sum())
                block.keep(~gone[alive])
                self._blocks[index] = self._merge([block], anew=True)
        self._blocks = [block for block in self._blocks if block.alive]
        self._changed()
        return erased

    def save(self) -> tuple[Json, dict[str, Array], State]:
        """(meta, arrays) for an index and the blocks as parts "0", "1", …, "open"."""
        partial = [index for index, block in enumerate(self._blocks) if not block.whole]
        bits = [np.packbits(self._blocks[index].mask) for index in partial]
        meta: Json = {
            "sizes": [block.size for block in self._blocks],
            "spans": [block.span for block in self._blocks],
            "partial": partial,
        }
        arrays = {"live": np.concatenate(bits)} if bits else {}
        parts = {str(index): block.part for index, block in enumerate(self._blocks)}
        if self._open_rows:
            meta["open"] = self._open_rows
            parts["open"] = Block.of(*self._opened()).part
        self.cool()
        return meta, arrays, parts

    @classmethod
    def load(cls, meta: Json, arrays: Mapping[str, Array], parts: State) -> Rows:
        """The inverse of `save`; blocks are read when they are needed.

        Raises:
            InputError: the index does not fit the parts.
        """
        rows = cls()
        try:
            sizes = [int(size) for size in meta["sizes"]]
            spans = [
                None if span is None else (int(span[0]), int(span[1])) for span in meta["spans"]
            ]
            for index, (size, span) in enumerate(zip(sizes, spans, strict=True)):
                rows._blocks.append(Block(parts[str(index)], size, span))
            at = 0
            for index in meta["partial"]:
                block = rows._blocks[index]
                width = -(-block.size // 8)
                bits = arrays["live"][at : at + width]
                block.keep(np.unpackbits(bits, count=block.size).astype(bool))
                at += width
            if meta.get("open"):
                rows._push(*Block(parts["open"], int(meta["open"])).read())
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise InputError(f"the index of remembered rows is damaged: {error!r}") from error
        return rows

    def cool(self) -> None:
        """Drop blocks from memory that were not used lately and can be loaded again."""
        for block in self._blocks:
            if id(block) not in self._recent:
                block.release()

    def _push(self, batch: Batch, notes: Notes) -> None:
        self._small.append((batch, notes))
        self._open_rows += len(batch)
        if len(self._small) == _SMALL_APPENDS:
            self._open.append(_join(self._small))
            self._small = []

    def _opened(self) -> Piece:
        """All open rows as one piece."""
        self._open, self._small = [_join(self._open + self._small)], []
        return self._open[0]

    def _merge(self, members: list[Block], anew: bool = False) -> Block:
        """One block of what is alive in neighbours; the same block where nothing is to be won."""
        if len(members) == 1 and not anew and 2 * members[0].alive > members[0].size:
            return members[0]
        pieces: list[Piece] = []
        for block in members:
            batch, notes = self._read(block)
            chosen = block.positions(np.arange(block.alive))
            pieces.append((batch.take(chosen), {k: v[chosen] for k, v in notes.items()}))
        return Block.of(*_join(pieces))

    def _read(self, block: Block) -> Piece:
        """What a block holds; the blocks used longest ago are dropped from memory for it."""
        found = block.read()
        self._recent.pop(id(block), None)
        self._recent[id(block)] = block
        rows = sum(recent.size for recent in self._recent.values())
        while rows > RESIDENT and len(self._recent) > 1:
            oldest = self._recent.pop(next(iter(self._recent)))
            rows -= oldest.size
            oldest.release()
        return found

    def _ranks(self) -> Ints:
        """(blocks,) one past the rank of the last row of each block."""
        if self._ends is None:
            self._ends = np.cumsum([block.alive for block in self._blocks], dtype=np.int64)
        return self._ends

    def _changed(self) -> None:
        kept = {id(block) for block in self._blocks}
        self._recent = {key: block for key, block in self._recent.items() if key in kept}
        self._ends, self._flat = None, None


def _join(pieces: list[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    names = pieces[0][1]
    notes: dict[str, Any] = {k: np.concatenate([notes[k] for _, notes in pieces]) for k in names}
    return Batch.concat([batch for batch, _ in pieces]), notes
