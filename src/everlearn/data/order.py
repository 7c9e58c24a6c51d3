"""The order in which the rows of an increment are learned: its definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from everlearn.base import Columns, InputError, SpecError


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Windows of `buffer` rows, each in random order; the windows stay in the order of the stream.

    Args:
        buffer: rows to learn in a window.
        seed: of the permutations; None for the strategy's.

    Raises:
        SpecError: a buffer of fewer than 2 rows, or a negative seed.
    """

    buffer: int
    seed: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.buffer, int) or self.buffer < 2:
            raise SpecError(f"Shuffle(buffer) is at least 2 rows, not {self.buffer!r}")
        if self.seed is not None and (not isinstance(self.seed, int) or self.seed < 0):
            raise SpecError(f"Shuffle(seed=) is a whole number from 0 up, not {self.seed!r}")


Order = Literal["stream", "time"] | Shuffle


def check_order(order: Any, columns: Columns) -> None:
    """Raises `InputError` if rows of these columns cannot be brought into this order."""
    if order not in ("stream", "time") and not isinstance(order, Shuffle):
        raise InputError(f'order is "stream", "time" or Shuffle(buffer), not {order!r}')
    if order == "time" and columns.time is None:
        raise InputError('order="time" needs Schema(time=…), the column of event times')
