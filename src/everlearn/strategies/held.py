"""What all memories in use share: draws from what was held at first, offers that lie aside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from everlearn.base import (
    Array,
    Batch,
    Floats,
    Hashes,
    InputError,
    Ints,
    Json,
    Part,
    State,
    prefixed,
    under,
)
from everlearn.strategies.block import BLOCK
from everlearn.strategies.rows import RESIDENT, Rows

PERMUTED = BLOCK
"""Up to so many rows are drawn in rounds: every one once, in random order, before any again."""

_ROUND = 16_384  # draws in a round from more rows than that
_LARGE_ROUND = 32_768  # draws in a round where the memory is larger than what stays resident,
_BLOCKS = 4  # out of so many blocks, which do
_AHEAD = 1_024  # rows gathered at first; doubles up to
_MOST_AHEAD = 8_192  # so many; draws of more are gathered as they are


class HeldRows(ABC):
    """A memory in use. Subclasses say what is kept (`offer`, `_settle`) and what is drawn more
    often than the rest (`_weights`).

    Draws come in rounds. A round is a sequence of ranks that follows from a seed, which the fold's
    generator gives; so (seed, place in the round) is all that a checkpoint needs.

    Args:
        ratio: remembered rows for each new one.
        state: what `save` returned, or None for an empty memory.

    Raises:
        InputError: the state is of another kind of memory.
    """

    kind: ClassVar[str]
    ranks_by_loss = False

    def __init__(self, ratio: float, state: State | None) -> None:
        self._ratio = ratio
        self._held, self._aside = Rows(), Rows()
        self._due = 0.0
        self._seed: int | None = None
        self._at = 0
        self._round: Ints | None = None
        self._pool: Batch | None = None
        self._pool_start = 0
        self._cumulated: Floats | None = None
        if state:
            self._restore(state)

    def __len__(self) -> int:
        """Rows that are held; what was offered since the increment began is not among them."""
        return len(self._held)

    def draw(self, n: int, generator: np.random.Generator) -> Batch | None:
        """`ratio` × n remembered rows (fractions are carried over), or None where there are none.

        Args:
            n: new rows beside which these are learned.
            generator: gives one seed for each round.
        """
        if not len(self._held) or not n or not self._ratio:
            return None
        self._due += self._ratio * n
        wanted = int(self._due + 1e-9)
        self._due = max(self._due - wanted, 0.0)
        spans = self._spans(wanted, generator)
        if wanted > _MOST_AHEAD:
            return self._held.gather(np.concatenate([r[start:stop] for r, start, stop in spans]))
        pieces = [self._rows(ranks, start, stop) for ranks, start, stop in spans]
        return Batch.concat(pieces) if pieces else None

    @abstractmethod
    def offer(self, batch: Batch, loss: Floats, generator: np.random.Generator) -> None:
        """Offer learned rows in their order. Nothing of them is drawn before `settle`.

        Args:
            batch: n rows, y in its own values.
            loss: (n,) loss of each before it was learned.
            generator: gives the same numbers for the same rows, however they are split into offers.

        Raises:
            InputError: the rows lack what this memory decides by.
        """

    def settle(self) -> None:
        """The increment is over: what it offered and the memory kept is now what is held."""
        self._settle()
        self._held.tidy()
        self._forget_round()

    def rows(self) -> Iterator[Batch]:
        """All that is held, in order of arrival, in batches of at most 65,536 rows."""
        for batch, _ in self._held.batches():
            yield batch

    def erase(self, ids: Hashes | None = None, keys: Hashes | None = None) -> int:
        """Remove the rows with one of these ids, or of one of these keys. Returns how many.

        Raises:
            InputError: an increment is being learned.
        """
        if len(self._aside) or self._seed is not None:
            raise InputError("rows are erased between increments: settle the memory first")
        erased = self._held.erase(ids, keys)
        self._held.tidy()
        self._forget_round()
        return erased

    def save(self) -> State:
        """Everything, in the middle of an increment too. Unchanged parts are the same objects."""
        meta: Json = {"memory": self.kind, "due": self._due, "seed": None, "at": self._at}
        if self._seed is not None:
            meta["seed"] = str(self._seed)
        own, arrays = self._own_state()
        meta["own"] = own
        index = {f"own.{name}": array for name, array in arrays.items()}
        state: dict[str, Part] = {}
        for name, rows in (("held", self._held), ("aside", self._aside)):
            meta[name], arrays, parts = rows.save()
            index |= {f"{name}.{key}": array for key, array in arrays.items()}
            state |= prefixed(name, parts)
        return state | {"index": Part(index, meta)}

    def _settle(self) -> None:
        """Bring together what is held and what lies aside; to keep all of it unless overridden."""
        self._held.extend(self._aside)

    def _weights(self) -> Floats | None:
        """(held rows,) how often each is drawn, relative to the others; None for all alike."""
        return None

    def _own_state(self) -> tuple[Json, dict[str, Array]]:
        """What a kind of memory knows beside its rows, as JSON and arrays."""
        return {}, {}

    def _restore_own(self, meta: Json, arrays: Mapping[str, Array]) -> None:
        """The inverse of `_own_state`."""
        if meta or arrays:
            raise InputError(f"a memory of kind {self.kind!r} knows nothing of {meta!r}")

    def _restore(self, state: State) -> None:
        meta = state["index"].meta if "index" in state else {}
        if meta.get("memory") != self.kind:
            raise InputError(
                f"the state is of a memory of kind {meta.get('memory')!r}, not {self.kind!r}"
            )
        arrays = state["index"].arrays
        loaded = {
            name: Rows.load(meta[name], _beside(name, arrays), under(name, state))
            for name in ("held", "aside")
        }
        self._held, self._aside = loaded["held"], loaded["aside"]
        self._due, self._at = float(meta["due"]), int(meta["at"])
        self._seed = None if meta["seed"] is None else int(meta["seed"])
        self._restore_own(meta["own"], _beside("own", arrays))

    def _spans(
        self, wanted: int, generator: np.random.Generator
    ) -> Iterator[tuple[Ints, int, int]]:
        """The next ranks to draw, in pieces: a round, and from where to where."""
        while wanted > 0:
            ranks, start = self._sequence(generator), self._at
            stop = min(start + wanted, len(ranks))
            yield ranks, start, stop
            wanted -= stop - start
            self._at = stop

    def _sequence(self, generator: np.random.Generator) -> Ints:
        """The ranks of this round; a new round where the last one is used up."""
        if self._seed is not None and self._round is None:
            self._round = self._make_round(self._seed)
        if self._round is None or self._at >= len(self._round):
            if self._round is not None and len(self._held) <= PERMUTED:
                self._held.flatten()
            self._seed, self._at = int(generator.integers(2**63)), 0
            self._round, self._pool = self._make_round(self._seed), None
        return self._round

    def _make_round(self, seed: int) -> Ints:
        """The sequence of ranks to draw that follows from a seed."""
        generator = np.random.Generator(np.random.PCG64(seed))
        held = len(self._held)
        size = _ROUND if held <= RESIDENT else _LARGE_ROUND
        if self._cumulated is None:
            weights = self._weights()
            self._cumulated = np.empty(0) if weights is None else np.cumsum(weights)
        if self._cumulated.size:
            total = self._cumulated[-1]
            weighted = np.sort(generator.random(size)) * total  # sorted, it is found much faster
            ranks: Ints = np.searchsorted(self._cumulated, weighted, side="right")
            return generator.permuted(ranks.clip(max=held - 1))
        if held <= PERMUTED:
            return generator.permutation(held)
        if held <= RESIDENT:
            return generator.integers(held, size=size)
        return self._few_blocks(generator, size)

    def _few_blocks(self, generator: np.random.Generator, size: int) -> Ints:
        """Ranks out of a few blocks, so that a round reads few; over rounds all rows are alike."""
        alive = np.array(self._held.blocks, dtype=np.int64)
        starts = np.cumsum(alive) - alive
        blocks = generator.choice(len(alive), size=_BLOCKS, p=alive / alive.sum())
        chosen = blocks[generator.integers(_BLOCKS, size=size)]
        ranks: Ints = starts[chosen] + (generator.random(size) * alive[chosen]).astype(np.int64)
        return ranks

    def _rows(self, ranks: Ints, start: int, stop: int) -> Batch:
        """The rows of ranks[start:stop], gathered ahead in larger pieces."""
        pool, at = self._pool, self._pool_start
        if pool is None or start < at or stop > at + len(pool):
            ahead = _AHEAD if pool is None else min(2 * len(pool), _MOST_AHEAD)
            pool = self._held.gather(ranks[start : max(stop, start + ahead)])
            self._pool, self._pool_start, at = pool, start, start
        return pool.take(slice(start - at, stop - at))

    def _forget_round(self) -> None:
        self._seed, self._at, self._round, self._pool, self._cumulated = None, 0, None, None, None


def _beside(name: str, arrays: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays named ``name.…``, with that taken off."""
    start = name + "."
    return {key[len(start) :]: array for key, array in arrays.items() if key.startswith(start)}
