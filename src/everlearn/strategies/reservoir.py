"""A uniform sample of all rows ever offered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from everlearn.base import Array, Batch, Floats, Held, Ints, Json, State
from everlearn.strategies.block import BLOCK
from everlearn.strategies.held import HeldRows
from everlearn.strategies.strategy import share, whole


@dataclass(frozen=True, slots=True)
class Reservoir:
    """A uniform sample of n rows of all that were ever offered: each is held with probability
    n / rows offered.

    Algorithm R of Vitter, "Random sampling with a reservoir", ACM TOMS 11(1), 1985, section 2. Row
    t > n takes, with probability n/t, the place of a row chosen at random.

    >>> Reservoir(20_000)
    Reservoir(n=20000, ratio=1.0)

    Args:
        n: rows to hold.
        ratio: remembered rows drawn for each new one.

    Raises:
        SpecError: n is no whole number of at least 1, or the ratio is negative.
    """

    n: int
    ratio: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("Reservoir(n=)", self.n))
        object.__setattr__(self, "ratio", share("Reservoir(ratio=)", self.ratio))

    def describe(self) -> str:
        """The memory in words."""
        return f"a uniform sample of {self.n:,} of all rows"

    def open(self, state: State | None = None) -> Held:
        """An empty memory, or the one that was saved.

        Raises:
            InputError: the state is of another kind of memory.
        """
        return HeldReservoir(self.n, self.ratio, state)


class HeldReservoir(HeldRows):
    """A `Reservoir` in use. n places; when an increment begins, the rows held are in the first ones
    in order of arrival. A place that erasure emptied is filled by the next row that draws it, which
    keeps the probability of every other row at n / rows offered."""

    kind: ClassVar[str] = "reservoir"

    def __init__(self, n: int, ratio: float, state: State | None) -> None:
        self._n = n
        self._seen = 0
        self._places: Ints | None = None  # (n,) rank held, or len(held) + number aside, or −1
        super().__init__(ratio, state)

    def offer(self, batch: Batch, loss: Floats, generator: np.random.Generator) -> None:
        rows = len(batch)
        if not rows:
            return
        count = np.arange(self._seen + 1, self._seen + rows + 1)
        place = (generator.random(rows) * count).astype(np.int64)
        if self._seen < self._n:
            first = self._n - self._seen
            place[:first] = count[:first] - 1
        self._seen += rows
        taken = np.flatnonzero(place < self._n)
        if not len(taken):
            return
        if self._places is None:
            self._places = np.full(self._n, -1, np.int64)
            self._places[: len(self._held)] = np.arange(len(self._held))
        start = len(self._held) + len(self._aside)
        self._places[place[taken]] = np.arange(start, start + len(taken))  # of equals the last
        self._aside.append(batch.take(taken))
        if len(self._aside) > 2 * self._n + BLOCK:
            self._drop_replaced(self._places)

    def _settle(self) -> None:
        if self._places is None:
            return
        kept = self._placed(self._places)
        held = len(self._held)
        self._held.keep(kept[:held])
        self._aside.keep(kept[held:])
        self._aside.compact()
        self._held.extend(self._aside)
        self._places = None

    def _placed(self, places: Ints) -> Array:
        """(held + aside,) whether a row has a place."""
        kept = np.zeros(len(self._held) + len(self._aside), bool)
        kept[places[places >= 0]] = True
        return kept

    def _drop_replaced(self, places: Ints) -> None:
        """Let go of rows aside that others took the place of, in a long increment."""
        held = len(self._held)
        kept = self._placed(places)[held:]
        number = np.cumsum(kept) - 1
        aside = places >= held
        places[aside] = held + number[places[aside] - held]
        self._aside.keep(kept)
        self._aside.compact()

    def _own_state(self) -> tuple[Json, dict[str, Array]]:
        places = {} if self._places is None else {"places": self._places.copy()}
        return {"seen": self._seen}, places

    def _restore_own(self, meta: Json, arrays: Mapping[str, Array]) -> None:
        self._seen = int(meta["seen"])
        self._places = arrays["places"].copy() if "places" in arrays else None
