"""What benchmarks/online.py measures with: each side in a process of its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs import one_thread, say
from online_peers import write_vw
from online_table import Check, figures, first_rows, rate, share
from prequential import majority, no_change, scores
from streams import load

HERE = Path(__file__).parent
CAPYMOA = "capymoa "
BASELINES = {"majority": majority, "no-change": no_change}


@dataclass(frozen=True)
class Side:
    """One thing that is measured.

    Args:
        task: of online_tasks.py; or, after "capymoa ", of online_capymoa.py.
        stream: its name.
        rows: how many of its first rows.
        options: of the task; "{round}" in them is the number of the round, from 1.
    """

    task: str
    stream: str
    rows: int
    options: tuple[str, ...] = ()


@dataclass
class Bench:
    """Measures sides, and collects what is shown.

    Args:
        folder: where the streams are, and the files made of them.
        shapes: rows and columns of each stream that is there.
        watched: values of the stream "losses", for drift detectors.
        rounds: measurements of each side.
        capymoa: the Python that has it, if any.
    """

    folder: Path
    shapes: dict[str, tuple[int, int]]
    watched: int
    rounds: int
    capymoa: str | None
    found: dict[Side, list[dict[str, Any]]] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    # --- measuring -----------------------------------------------------------------------------

    def first(self, stream: str, rows: int | None = None) -> int:
        """How many rows of a stream are taken, where so many are wanted at most."""
        there = self.shapes[stream][0]
        return there if rows is None else min(rows, there)

    def measure(self, sides: Iterable[Side], rounds: int | None = None) -> None:
        """Measure what was not measured yet, the sides taking turns."""
        new = [side for side in dict.fromkeys(sides) if side not in self.found]
        for number in range(1, (rounds or self.rounds) + 1):
            for side in new:
                self.found.setdefault(side, []).append(self._run(side, number))

    def _run(self, side: Side, number: int) -> dict[str, Any]:
        elsewhere = side.task.startswith(CAPYMOA)
        if elsewhere and self.capymoa is None:
            return {"absent": "CapyMOA: name its Python with --capymoa-python"}
        say(f"  {side.task} {side.stream}@{side.rows} {' '.join(side.options)}")
        python = self.capymoa if elsewhere else sys.executable
        script = HERE / ("online_capymoa.py" if elsewhere else "online_tasks.py")
        task = side.task.removeprefix(CAPYMOA)
        options = [option.format(round=number) for option in side.options]
        command = [str(python), str(script), task, str(self.folder), side.stream, str(side.rows)]
        done = subprocess.run(
            [*command, *options], check=True, stdout=subprocess.PIPE, env=one_thread()
        )
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    def file(self, stream: str, kind: str) -> str:
        """The path of a whole stream as a file: "csv", "parquet", or "vw", Vowpal Wabbit's text."""
        path = self.folder / f"{stream}.{kind}"
        if not path.exists():
            say(f"  writing {path.name}")
            _write(path, kind, *load(stream, self.folder))
        return str(path)

    # --- what it came to -----------------------------------------------------------------------

    def rate(self, side: Side) -> float:
        return statistics.median(result["rate"] for result in self.found[side])

    def mean(self, side: Side, name: str = "accuracy") -> float:
        return statistics.fmean(result[name] for result in self.found[side])

    def absent(self, *sides: Side) -> bool:
        return any("absent" in self.found[side][0] for side in sides)

    def versions(self) -> dict[str, str]:
        """Of what runs in environments of its own."""
        results = [result for results in self.found.values() for result in results]
        found = [result["version"] for result in results if "version" in result]
        return {"capymoa": found[0]} if found else {}

    def baseline(self, name: str, stream: str, rows: int | None = None) -> dict[str, float]:
        """Scores of the most frequent label so far, or of the label before ("no-change")."""
        labels = load(stream, self.folder, self.first(stream, rows))[1]
        return scores(labels, BASELINES[name](labels))

    def missing(self) -> list[str]:
        """What could not be measured, and what to do."""
        results = [results[0] for results in self.found.values()]
        return list(dict.fromkeys(result["absent"] for result in results if "absent" in result))

    def add(self, check: Check) -> None:
        say(f"{check.what}, {check.column}: {check.short} ({check.goal}) {check.result}")
        self.checks.append(check)

    def faster(
        self,
        what: str,
        ours: Side,
        peer: Side,
        goal: float | None,
        rule: str = "",
        others: Iterable[Side] = (),
    ) -> None:
        """Add a check of speed against a peer, and of accuracy by a rule of `RULES` against the
        best of it and others that have the same settings."""
        if self.absent(ours, peer):
            return
        times = self.rate(ours) / self.rate(peer)
        right = self.mean(ours)
        rivals = [self.mean(side) for side in (peer, *others) if not self.absent(side)]
        reached = goal is None or times >= goal
        said, holds = RULES[rule]
        close = all(holds(right, rival) for rival in rivals)
        accuracies = f"{share(right)} / {' '.join(map(share, rivals))}"
        part = first_rows(ours.rows, self.shapes[ours.stream][0])
        self.add(
            Check(
                "streams",
                what,
                ours.stream,
                f"{figures(times)}× ({accuracies}){part}",
                f"{rate(self.rate(ours))} rows/s, {share(right)}{part}",
                f"{rate(self.rate(peer))} rows/s, {share(rivals[0])}{part}",
                f"{figures(times)}×",
                "" if goal is None else f"{goal:g}×{said}",
                None if goal is None else reached and close,
            )
        )


RULES = {
    "": ("", lambda ours, theirs: True),
    "equal": (", accuracy ± .001", lambda ours, theirs: abs(ours - theirs) <= 0.001),
    "not below": (", accuracy not below", lambda ours, theirs: ours >= theirs),
    "near": (", accuracy ≥ best − .005", lambda ours, theirs: ours >= theirs - 0.005),
}
"""What is asked of accuracy: how it is said, and whether it holds."""


def _write(path: Path, kind: str, X: Any, y: Any) -> None:
    if kind == "vw":
        write_vw(path, (X, y))
        return
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    table = pa.table({f"x{j}": X[:, j] for j in range(X.shape[1])} | {"y": y})
    if kind == "csv":
        pa.csv.write_csv(table, path)
    else:
        pa.parquet.write_table(table, path)
