"""False alarms of `everlearn.Drift` over many columns and looks, and what it finds.

python benchmarks/drift_errors.py [--runs 100] [--seed 0] [--out FILE]
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import everlearn as el
from everlearn.base import Json
from everlearn.jobs.triggers.facts import Answered, Facts, Given

WINDOW = 200
LOOKS = 30

Share = Callable[[int, int], str]


class Past:
    """What a champion was asked, answered and told, in memory (see `everlearn.jobs.triggers`).

    Args:
        rows: features and output of each answer, and its label, in order.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, Json], Json, Json]] = []

    def given(
        self, after: int, upto: int | None = None, last: int = 0, first: int = 0
    ) -> Sequence[Given]:
        """See `facts.Past`."""
        return [
            Given(number, *self.rows[number - 1][:2])
            for number in self._numbers(after, upto, last, first)
        ]

    def answered(
        self, after: int, upto: int | None = None, last: int = 0, first: int = 0
    ) -> Sequence[Answered]:
        """See `facts.Past`."""
        return [
            Answered(number, number, *self.rows[number - 1][1:])
            for number in self._numbers(after, upto, last, first)
        ]

    def head(self) -> int:
        """See `facts.Past`."""
        return len(self.rows)

    def waited(self, now: int) -> float:
        """See `facts.Past`."""
        return 0.0

    def job_seconds(self) -> Sequence[float]:
        """See `facts.Past`."""
        return []

    def _numbers(self, after: int, upto: int | None, last: int, first: int) -> Sequence[int]:
        found = range(after + 1, (len(self.rows) if upto is None else upto) + 1)
        if last:
            return found[-last:]
        return found[:first] if first else found


def window(rng: np.random.Generator, columns: int, shift: float = 0.0) -> list[tuple[Json, ...]]:
    """Answers and labels: normal columns, of which the first is shifted, and of every five columns
    one of counts, one of words, and one with missing values."""
    table: dict[str, list[Json]] = {}
    for column in range(columns):
        name, kind = f"c{column}", column % 5
        if kind == 1:
            table[name] = rng.poisson(1.0, WINDOW).tolist()
        elif kind == 2:
            shares = [0.5, 0.3, 0.15, 0.04, 0.01]
            table[name] = rng.choice(list("abcde"), WINDOW, p=shares).tolist()
        else:
            table[name] = (rng.normal(size=WINDOW) + shift * (column == 0)).tolist()
        if kind == 3:
            table[name] = [
                None if gone else value
                for value, gone in zip(table[name], rng.random(WINDOW) < 0.1, strict=True)
            ]
    chances, labels = rng.uniform(0.5, 1.0, WINDOW), rng.integers(0, 2, WINDOW).tolist()
    rows = []
    for place in range(WINDOW):
        chance = float(chances[place])
        output = {"value": 1, "probabilities": {"0": 1.0 - chance, "1": chance}}
        rows.append(({name: table[name][place] for name in table}, output, labels[place]))
    return rows


def fired_at(
    rng: np.random.Generator, columns: int, effect: float, shift: float = 0.0, looks: int = LOOKS
) -> int | None:
    """The look at which the trigger would learn: one window for reference, and one for each look,
    shifted from the first one on; None if it does not."""
    trigger, past = el.Drift(window=WINDOW, effect=effect), Past()
    facts = Facts(now=0, labels=1, champion=1, version=1, past=past)
    past.rows += window(rng, columns)
    trigger.decide(facts)
    for look in range(1, looks + 1):
        past.rows += window(rng, columns, shift)
        if trigger.decide(facts).action == "learn":
            return look
    return None


def drift_tables(runs: int, rng: np.random.Generator, share: Share) -> list[str]:
    """Family-wise false alarms, and shifts that are found.

    Args:
        runs: of each setting of few columns.
        share: writes hits of runs.
    """
    lines = [
        "## Drift: any false alarm while one version serves",
        "",
        f"`everlearn.Drift(alpha=.05, window={WINDOW})` asked {LOOKS} times; features of numbers,",
        "counts, words and missing values, the output, its largest probability, and labels, all of",
        "them stationary. 95 % intervals.",
        "",
        "| features | smallest effect | runs | any false alarm |",
        "|---:|---:|---:|---:|",
    ]
    for columns, effect, count in (
        (20, 0.0, runs),
        (20, 0.1, runs // 2),
        (100, 0.0, max(5, runs // 5)),
    ):
        alarms = sum(fired_at(rng, columns, effect) is not None for _ in range(count))
        lines.append(f"| {columns} | {effect:g} | {count} | {share(alarms, count)} |")
    lines += [
        "",
        "One of 20 features shifts, from the first look on; effect .1:",
        "",
        "| shift | runs | found at the first look | by the third | by the tenth |",
        "|---:|---:|---:|---:|---:|",
    ]
    for shift in (0.25, 0.5, 0.75, 1.0, 3.0):
        count = max(10, runs // 5)
        found = [fired_at(rng, 20, 0.1, shift, looks=10) for _ in range(count)]
        by = [sum(look is not None and look <= most for look in found) for most in (1, 3, 10)]
        cells = " | ".join(share(hits, count) for hits in by)
        lines.append(f"| {shift:g} sd | {count} | {cells} |")
    return [*lines, ""]


def main() -> None:
    """Simulate, and write the tables."""
    from benchmarks.rollout_errors import share

    about = argparse.ArgumentParser(description=__doc__)
    about.add_argument("--runs", type=int, default=100)
    about.add_argument("--seed", type=int, default=0)
    about.add_argument("--out", type=Path)
    options = about.parse_args()
    began = time.perf_counter()
    tables = drift_tables(options.runs, np.random.default_rng(options.seed), share)
    command = f"`python benchmarks/drift_errors.py --runs {options.runs} --seed {options.seed}`"
    took, python = f"{time.perf_counter() - began:.0f} s", f"Python {platform.python_version()}"
    where = f"{python}, {platform.system()} {platform.machine()}"
    text = "\n".join(
        ["# How often drift triggers are wrong", "", f"{command}, {took}, {where}.", "", *tables]
    )
    print(text)
    if options.out is not None:
        options.out.write_text(text.rstrip() + "\n")


if __name__ == "__main__":
    main()
