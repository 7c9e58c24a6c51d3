"""The order in which the rows of an increment are learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from everlearn.base import Columns, InputError, Json, SpecError
from everlearn.data.blocks import BlockReader, Segment


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Windows of `buffer` rows, each in random order.

    Args:
        buffer: rows to learn in a window.
        seed: of the permutations; None for the strategy's.

    Raises:
        SpecError: a buffer of fewer than 2 rows.
    """

    buffer: int
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.buffer < 2:
            raise SpecError(f"Shuffle(buffer) is at least 2 rows, not {self.buffer!r}")


Order = Literal["stream", "time"] | Shuffle


def check_order(order: Order, columns: Columns) -> None:
    """Raises `InputError` if rows cannot be brought into this order."""
    if order not in ("stream", "time") and not isinstance(order, Shuffle):
        raise InputError(f'order is "stream", "time" or Shuffle(buffer), not {order!r}')
    if order == "time" and columns.time is None:
        raise InputError('order="time" needs Schema(time=…), the column of event times')


def arrange(
    blocks: BlockReader, order: Order, seed: int, position: Json = None
) -> Iterator[Segment]:
    """The segments of one pass, in the given order, after a position."""
    yield from blocks.blocks(position)
