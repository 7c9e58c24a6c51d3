"""All rows ever learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from everlearn.base import Batch, Floats, Held, State
from everlearn.strategies.held import HeldRows
from everlearn.strategies.strategy import share


@dataclass(frozen=True, slots=True)
class Everything:
    """All rows ever learned. With `Strategy(start="scratch")` this is full retraining.

    Rows lie in blocks on disk, of which few are in memory at a time: beyond 262,144 rows, each
    32,768 draws come out of four blocks that are chosen at random by their size.

    >>> Everything()
    Everything(ratio=1.0)

    Args:
        ratio: remembered rows drawn for each new one.

    Raises:
        SpecError: the ratio is negative.
    """

    ratio: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", share("Everything(ratio=)", self.ratio))

    def describe(self) -> str:
        """The memory in words."""
        return "all rows"

    def open(self, state: State | None = None) -> Held:
        """An empty memory, or the one that was saved.

        Raises:
            InputError: the state is of another kind of memory.
        """
        return HeldEverything(self.ratio, state)


class HeldEverything(HeldRows):
    """An `Everything` in use."""

    kind: ClassVar[str] = "everything"

    def offer(self, batch: Batch, loss: Floats, generator: np.random.Generator) -> None:
        self._aside.append(batch)
