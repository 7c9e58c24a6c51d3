"""What benchmarks/online.py found, as tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One comparison.

    Args:
        table: which of the short tables shows it.
        what: its line there.
        column: its column there: a stream, a detector, a learner.
        short: what stands in that cell, without the verdict.
        everlearn, peer: what was measured, with its unit.
        ratio: of the two, as text.
        goal: what was to be reached; "" where nothing was.
        met: whether it was; None without a goal.
    """

    table: str
    what: str
    column: str
    short: str
    everlearn: str
    peer: str
    ratio: str
    goal: str
    met: bool | None

    @property
    def result(self) -> str:
        return {True: "met", False: "**missed**", None: ""}[self.met]


def short_table(checks: Iterable[Check], head: str, columns: dict[str, str]) -> str:
    """One line for each thing that is compared, one column for each of what it was compared on.

    Args:
        head: of the first column.
        columns: column → how it is headed.
    """
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for check in checks:
        missed = " **missed**" if check.met is False else ""
        cells.setdefault((check.what, check.goal), {})[check.column] = check.short + missed
    rows: list[dict[str, Any]] = [
        {head: what, **{column: found.get(column, "–") for column in columns}, "goal": goal}
        for (what, goal), found in cells.items()
    ]
    return long_table(rows, {head: head, **columns, "goal": "goal"})


def long_table(rows: list[dict[str, Any]], columns: dict[str, str]) -> str:
    """Rows with these columns, name → how it is headed."""
    lines = [f"| {' | '.join(columns.values())} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(str(row.get(name, '')) for name in columns)} |" for row in rows]
    return "\n".join(lines) + "\n"


def rate(value: float) -> str:
    """A number a second: 33.8M, 89.9k."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{figures(value / size)}{unit}"
    return figures(value)


def figures(value: float) -> str:
    """Three figures, or all that stand before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def share(value: float) -> str:
    """Four places, without the zero before the point."""
    return f"{value:.4f}".replace("0.", ".", 1)


def first_rows(count: int, of: int) -> str:
    """ " @100k" where these are not all."""
    if count == of:
        return ""
    return f" @{count // 1000}k" if count % 1000 == 0 else f" @{count}"
