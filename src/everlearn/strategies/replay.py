"""Experience replay, by the buffer's name."""

from __future__ import annotations

from typing import Literal

from everlearn.base import SpecError
from everlearn.strategies.balanced import Balanced
from everlearn.strategies.prioritized import Prioritized
from everlearn.strategies.reservoir import Reservoir

Buffer = type[Reservoir] | type[Balanced] | type[Prioritized]

BUFFERS: dict[str, Buffer] = {
    "reservoir": Reservoir,
    "balanced": Balanced,
    "prioritized": Prioritized,
}


def Replay(
    n: int,
    buffer: Literal["reservoir", "balanced", "prioritized"] = "reservoir",
    ratio: float = 1.0,
) -> Reservoir | Balanced | Prioritized:
    """Experience replay: beside each new row, `ratio` rows out of n remembered ones are learned
    again.

    Rolnick et al., "Experience replay for continual learning", NeurIPS 2019. It is the memory of
    that name; each says how it chooses its rows.

    >>> Replay(1000)
    Reservoir(n=1000, ratio=1.0)

    Args:
        n: rows to hold.
        buffer: "reservoir" (a uniform sample of all rows), "balanced" (as many of each class) or
            "prioritized" (drawn more often the larger their loss was).
        ratio: remembered rows drawn for each new one.

    Raises:
        SpecError: a buffer of another name, or what that memory refuses.
    """
    if buffer not in BUFFERS:
        raise SpecError(f"Replay(buffer=) is one of {', '.join(BUFFERS)}, not {buffer!r}")
    return BUFFERS[buffer](n, ratio=ratio)
