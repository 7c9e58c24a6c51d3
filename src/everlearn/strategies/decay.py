"""Rows that count for less the older they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import ClassVar

import numpy as np

from everlearn.base import Batch, Floats, Held, Ints, State
from everlearn.strategies.span import microseconds, written
from everlearn.strategies.strategy import share, whole
from everlearn.strategies.window import HeldWindow

HALF_LIVES = 10
"""Age, in half-lives, at which a row is let go: it would count for less than a thousandth."""


@dataclass(frozen=True, slots=True)
class Decay:
    """Exponential decay: a row of age a weighs 0.5^(a / half_life), and is drawn that often.

    Rows are let go at ten half-lives. Age is counted back from the latest row, or event time.

    >>> Decay(half_life="7d"), Decay(half_life=10_000)
    (Decay(half_life='7d', ratio=1.0), Decay(half_life=10000, ratio=1.0))

    Args:
        half_life: of event time ("7d", "2h", a timedelta; needs `Schema(time=)`, and a row whose
            own event time is missing is not held), or a number of rows.
        ratio: remembered rows drawn for each new one.

    Raises:
        SpecError: a half-life or a ratio that cannot be.
    """

    half_life: str | timedelta | int
    ratio: float = 1.0

    def __post_init__(self) -> None:
        half_life = self.half_life
        if isinstance(half_life, str | timedelta):
            object.__setattr__(self, "half_life", written(half_life))
        else:
            object.__setattr__(self, "half_life", whole("Decay(half_life=)", half_life))
        object.__setattr__(self, "ratio", share("Decay(ratio=)", self.ratio))

    def describe(self) -> str:
        """The memory in words."""
        unit = " rows" if isinstance(self.half_life, int) else ""
        return f"rows that decay with a half-life of {self.half_life}{unit}"

    def open(self, state: State | None = None) -> Held:
        """An empty memory, or the one that was saved.

        Raises:
            InputError: the state is of another kind of memory.
        """
        if isinstance(self.half_life, int):
            return HeldDecay(self.half_life, False, self.ratio, state)
        return HeldDecay(microseconds(self.half_life), True, self.ratio, state)


class HeldDecay(HeldWindow):
    """A `Decay` in use: a window of ten half-lives, in rows or in microseconds."""

    kind: ClassVar[str] = "decay"

    def __init__(self, half_life: int, timed: bool, ratio: float, state: State | None) -> None:
        self._half_life = half_life
        window = HALF_LIVES * half_life
        super().__init__(None if timed else window, window if timed else None, ratio, state)

    def rows(self) -> Iterator[Batch]:
        """All that is held, in order of arrival, each row's weight multiplied by its decay."""
        start = 0
        for batch in super().rows():
            decay = self._decay(batch, start)
            start += len(batch)
            yield replace(batch, weight=decay if batch.weight is None else batch.weight * decay)

    def _weights(self) -> Floats | None:
        start, weights = 0, []
        for batch in super().rows():
            weights.append(self._decay(batch, start))
            start += len(batch)
        return np.concatenate(weights)

    def _decay(self, batch: Batch, start: int) -> Floats:
        """(n,) weights of rows, the first of which has rank `start`."""
        latest = self._held.latest
        if self._span is None or batch.time is None or latest is None:
            age: Ints = len(self._held) - 1 - np.arange(start, start + len(batch))
        else:
            age = latest - batch.time
        decay: Floats = np.exp2(-age / self._half_life)
        return decay
