"""The sober baseline: keep a balanced sample, and learn nothing but that, from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from everlearn.base import Held, State
from everlearn.strategies.balanced import HeldBalanced
from everlearn.strategies.strategy import whole


@dataclass(frozen=True, slots=True)
class GDumb:
    """New rows are offered to a class-balanced sample of n rows, and are not learned; when the
    increment is over, a fresh model learns the sample, `epochs` times in random order.

    Prabhu, Torr & Dokania, "GDumb: a simple approach that questions our progress in continual
    learning", ECCV 2020, algorithms 1 and 2. Its sampler never lets go of a row for another of the
    same class; this one is that of `Balanced`, whose sample is uniform within each class. A method
    that does worse than this at the same n gains nothing from what it learned before.

    It is used with ``Strategy(start="scratch", memory=GDumb(n))``: what was learned from earlier
    samples is not gone on from. Rows are not answered before they are learned, so that such a job
    has no metrics of test-then-train; its hold-outs judge it.

    >>> GDumb(500)
    GDumb(n=500, epochs=30)

    Args:
        n: rows to hold.
        epochs: times that the sample is learned.

    Raises:
        SpecError: an argument that is no whole number of at least 1.
    """

    n: int
    epochs: int = 30

    ratio: ClassVar[float] = 0.0
    alone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("GDumb(n=)", self.n))
        object.__setattr__(self, "epochs", whole("GDumb(epochs=)", self.epochs))

    def describe(self) -> str:
        """The memory in words."""
        return f"a sample of {self.n:,} rows with classes balanced, learned alone"

    def open(self, state: State | None = None) -> Held:
        """An empty memory, or the one that was saved.

        Raises:
            InputError: the state is of another kind of memory.
        """
        return HeldBalanced(self.n, self.ratio, state)
