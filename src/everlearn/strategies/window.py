"""The latest rows, by count or by event time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

import numpy as np

from everlearn.base import NO_TIME, Array, Batch, Floats, Held, InputError, Json, SpecError, State
from everlearn.strategies.held import HeldRows
from everlearn.strategies.rows import Rows
from everlearn.strategies.span import microseconds, written
from everlearn.strategies.strategy import share, whole


@dataclass(frozen=True, slots=True)
class Window:
    """The last rows that arrived, or all of the last span of event time.

    >>> Window(rows=50_000), Window(time="7d")
    (Window(rows=50000, time=None, ratio=1.0), Window(rows=None, time='7d', ratio=1.0))

    Args:
        rows: how many to hold.
        time: or how long before the latest event time ("7d", "2h", a timedelta) rows are held;
            needs `Schema(time=)`. A row whose own event time is missing is not held.
        ratio: remembered rows drawn for each new one.

    Raises:
        SpecError: not exactly one of `rows` and `time`, or one that cannot be.
    """

    rows: int | None = None
    time: str | timedelta | None = None
    ratio: float = 1.0

    def __post_init__(self) -> None:
        if (self.rows is None) == (self.time is None):
            raise SpecError(
                "Window() takes either rows= or time=, such as Window(rows=50_000) or "
                f"Window(time='7d'), not rows={self.rows!r} and time={self.time!r}"
            )
        if self.rows is not None:
            object.__setattr__(self, "rows", whole("Window(rows=)", self.rows))
        if self.time is not None:
            object.__setattr__(self, "time", written(self.time))
        object.__setattr__(self, "ratio", share("Window(ratio=)", self.ratio))

    def describe(self) -> str:
        """The memory in words."""
        return f"the last {self.time}" if self.rows is None else f"the last {self.rows:,} rows"

    def open(self, state: State | None = None) -> Held:
        """An empty memory, or the one that was saved.

        Raises:
            InputError: the state is of another kind of memory.
        """
        span = None if self.time is None else microseconds(self.time)
        return HeldWindow(self.rows, span, self.ratio, state)


class HeldWindow(HeldRows):
    """A `Window` in use: of `rows` rows, or of `span` microseconds before the latest event."""

    kind: ClassVar[str] = "window"

    def __init__(
        self, rows: int | None, span: int | None, ratio: float, state: State | None
    ) -> None:
        self._last = rows
        self._span = span
        self._clock: int | None = None  # the latest event time that was offered
        super().__init__(ratio, state)

    def offer(self, batch: Batch, loss: Floats, generator: np.random.Generator) -> None:
        if not len(batch):
            return
        if self._span is not None:
            batch = self._within(batch, self._span)
        full = len(self._aside.blocks)
        self._aside.append(batch)
        if len(self._aside.blocks) > full:
            self._expire(self._aside)

    def _settle(self) -> None:
        self._aside.seal()
        self._expire(self._aside)
        self._held.extend(self._aside)
        self._expire(self._held)

    def _within(self, batch: Batch, span: int) -> Batch:
        """The rows that are not out of the window when they arrive; moves the clock on."""
        if batch.time is None:
            raise InputError(
                f"{self.kind} by time needs event times, and these rows have none: name their "
                "column with Schema(time=), or give a number of rows"
            )
        clock = np.maximum.accumulate(batch.time)
        if self._clock is not None:
            clock = np.maximum(clock, self._clock)
        if clock[-1] != NO_TIME:
            self._clock = int(clock[-1])
        fresh = (batch.time != NO_TIME) & (batch.time >= clock - span)
        return batch if fresh.all() else batch.take(fresh)

    def _expire(self, rows: Rows) -> None:
        """Let go of what is out of the window; of a store's open rows, when they are sealed."""
        if self._last is not None:
            rows.keep_last(self._last)
        elif self._span is not None and self._clock is not None:
            rows.expire(self._clock - self._span)

    def _own_state(self) -> tuple[Json, dict[str, Array]]:
        return {"clock": self._clock}, {}

    def _restore_own(self, meta: Json, arrays: Mapping[str, Array]) -> None:
        self._clock = None if meta["clock"] is None else int(meta["clock"])
