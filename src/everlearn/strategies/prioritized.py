"""Rows that were hard to predict, kept and seen more often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from everlearn.base import Array, Batch, Floats, Held, Json, State
from everlearn.strategies.held import HeldRows
from everlearn.strategies.strategy import share, whole

LEAST, MOST = 1e-6, 1e6
"""Bounds of a row's weight, so that a loss of 0 can be kept and an endless one cannot rule."""


@dataclass(frozen=True, slots=True)
class Prioritized:
    """A sample of n rows, weighted by the loss of each when it was first predicted; drawn by that
    loss too.

    A row gets the key log(u) / loss, with u uniform in (0, 1], and the n largest keys are held:
    algorithm A-Res of Efraimidis & Spirakis, "Weighted random sampling with a reservoir",
    Information Processing Letters 97(5), 2006. Drawing in proportion to the loss is prioritized
    replay of Schaul et al., ICLR 2016 (arXiv 1511.05952), with α = 1 and no correction. Rows with a
    wrong label have a high loss: where labels are noisy, `Reservoir` is the safer choice.

    >>> Prioritized(5_000)
    Prioritized(n=5000, ratio=1.0)

    Args:
        n: rows to hold.
        ratio: remembered rows drawn for each new one.

    Raises:
        SpecError: n is no whole number of at least 1, or the ratio is negative.
    """

    n: int
    ratio: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("Prioritized(n=)", self.n))
        object.__setattr__(self, "ratio", share("Prioritized(ratio=)", self.ratio))

    def describe(self) -> str:
        """The memory in words."""
        return f"a sample of {self.n:,} rows weighted by their loss"

    def open(self, state: State | None = None) -> Held:
        """An empty memory, or the one that was saved.

        Raises:
            InputError: the state is of another kind of memory.
        """
        return HeldPrioritized(self.n, self.ratio, state)


class HeldPrioritized(HeldRows):
    """A `Prioritized` in use. Beside each row it notes its "loss" and its "priority" (the key)."""

    kind: ClassVar[str] = "prioritized"
    ranks_by_loss = True

    def __init__(self, n: int, ratio: float, state: State | None) -> None:
        self._n = n
        self._floor: float | None = None  # lower keys cannot be among the n largest
        super().__init__(ratio, state)

    def offer(self, batch: Batch, loss: Floats, generator: np.random.Generator) -> None:
        if not len(batch):
            return
        weight = np.clip(np.nan_to_num(loss, nan=LEAST, posinf=MOST), LEAST, MOST)
        priority = np.log1p(-generator.random(len(batch))) / weight
        if self._floor is None:
            self._floor = self._lowest()
        chosen = np.flatnonzero(priority >= self._floor)
        if not len(chosen):
            return
        notes = {"loss": weight[chosen], "priority": priority[chosen]}
        self._aside.append(batch.take(chosen), notes)
        if len(self._aside) > 2 * self._n + 1024:
            kept = self._largest()[len(self._held) :]
            self._aside.keep(kept)
            self._aside.compact()
            self._floor = max(self._floor, self._lowest())

    def _settle(self) -> None:
        self._floor = None
        if not len(self._aside):
            return
        kept = self._largest()
        held = len(self._held)
        self._held.keep(kept[:held])
        self._aside.keep(kept[held:])
        self._aside.compact()
        self._held.extend(self._aside)

    def _weights(self) -> Floats | None:
        weights: Floats = self._held.column("loss")
        return weights

    def _priorities(self) -> Floats:
        """(held + aside,) keys."""
        stores = [store for store in (self._held, self._aside) if len(store)]
        return np.concatenate([store.column("priority") for store in stores] or [np.empty(0)])

    def _largest(self) -> Array:
        """(held + aside,) whether a row's key is among the n largest."""
        priorities = self._priorities()
        kept = np.zeros(len(priorities), bool)
        kept[np.argsort(-priorities, kind="stable")[: self._n]] = True
        return kept

    def _lowest(self) -> float:
        """The n-th largest key; less than any where there are fewer rows."""
        priorities = self._priorities()
        if len(priorities) < self._n:
            return -np.inf
        return float(np.partition(priorities, -self._n)[-self._n])

    def _own_state(self) -> tuple[Json, dict[str, Array]]:
        return {}, {} if self._floor is None else {"floor": np.array([self._floor])}

    def _restore_own(self, meta: Json, arrays: Mapping[str, Array]) -> None:
        self._floor = float(arrays["floor"][0]) if "floor" in arrays else None
