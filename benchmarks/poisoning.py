"""Labels flipped by one source of five: how often it is found, what is learned of them, and how
often an honest source is put into quarantine.

    python benchmarks/poisoning.py [--runs 200]      writes results/poisoning.md

Each run draws a slice of the feedback log with the answers of a calibrated model: the label is 1
with the chance that the model gave. The sources are not alike, as they are not in production: one
is asked only where the model is unsure, one says 1 three times as often as 0, three see everything.
A good model is right in four rows of five; a weak one, calibrated too, in three of five.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from everlearn.data.feedback import LoggedPrediction
from everlearn.data.quality import Candidate, Guards

SOURCES = ("unsure", "positive", "first", "second", "third")
LIAR = "first"
SHARES = (0.0, 0.01, 0.05, 0.20)
"""Of all labels, that the liar flips."""

MODELS = {"good": 2.0, "weak": 0.5}
"""Spread of the log-odds that the model gives."""


class Outcome(NamedTuple):
    """Of one run: was the liar found, how many others were, and flipped labels: given, learned."""

    found: bool
    wrongly: int
    flipped: int
    learned: int


def slice_of(
    random: np.random.Generator, rows: int, share: float, spread: float = MODELS["good"]
) -> Iterator[tuple[Candidate, bool]]:
    """Rows of a slice, each with whether its label was flipped.

    Args:
        rows: of each source.
        share: of all labels, that are flipped; all by the liar.
        spread: of the log-odds that the model gives.
    """
    position = 0
    for source in SOURCES:
        x = spread * random.standard_normal(12 * rows)
        chance = 1.0 / (1.0 + np.exp(-x))
        label = random.random(len(x)) < chance
        seen = np.abs(chance - 0.5) < 0.15 * spread if source == "unsure" else np.ones(len(x), bool)
        if source == "positive":
            seen = label | (random.random(len(x)) < 1 / 3)
        flips = min(1.0, share * len(SOURCES)) if source == LIAR else 0.0
        for row in np.flatnonzero(seen)[:rows].tolist():
            position += 1
            p, flipped = float(chance[row]), bool(random.random() < flips)
            output = {"value": int(p > 0.5), "probabilities": {"0": 1.0 - p, "1": p}}
            prediction = LoggedPrediction(position, {}, output)
            said = int(bool(label[row]) != flipped)
            yield Candidate(position, prediction, source, said, 1.0), flipped


def run(
    seed: int, rows: int, share: float, guards: Guards, spread: float = MODELS["good"]
) -> Outcome:
    """Draw a slice and inspect it as it is when a job is planned."""
    drawn = list(slice_of(np.random.default_rng(seed), rows, share, spread))
    found = guards.inspect(row for row, _ in drawn)
    flipped = [row for row, wrong in drawn if wrong]
    learned = [row for row in flipped if row.source not in found.suspects]
    return Outcome(
        LIAR in found.suspects, len(found.suspects.keys() - {LIAR}), len(flipped), len(learned)
    )


def table(runs: int) -> str:
    """The result as Markdown."""
    guards = Guards(duplicates=False, spread=None)
    lines = [
        "# Poisoning",
        "",
        f"`python benchmarks/poisoning.py --runs {runs}`: {runs} seeded slices for each line, five "
        "sources with as many labels each, one of them flips labels. Defaults of `Guards`.",
        "",
        "| model | labels a source | flipped, of all | liar found | flipped labels learned, of all "
        "| honest sources quarantined |",
        "|---|---|---|---|---|---|",
    ]
    cases = [("good", 500, SHARES), ("good", 2000, SHARES), ("good", 8000, SHARES[:2])]
    cases += [("weak", 500, SHARES), ("weak", 2000, SHARES)]
    for model, rows, shares in cases:
        for share in shares:
            seen = [run(seed, rows, share, guards, MODELS[model]) for seed in range(runs)]
            honest = len(SOURCES) - (1 if share else 0)
            wrongly = sum(one.wrongly for one in seen)
            wrongly += 0 if share else sum(one.found for one in seen)
            found = f"{sum(one.found for one in seen) / runs:.1%}" if share else "–"
            learned = sum(one.learned for one in seen) / (runs * rows * len(SOURCES))
            lines.append(
                f"| {model} | {rows} | {share:.0%} | {found} | {learned:.2%} "
                f"| {wrongly / (runs * honest):.2%} ({wrongly} of {runs * honest}) |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    result = table(parser.parse_args().runs)
    (Path(__file__).parent / "results" / "poisoning.md").write_text(result)
    print(result)


if __name__ == "__main__":
    main()
