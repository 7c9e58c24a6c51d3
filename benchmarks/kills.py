"""Kills jobs with SIGKILL at random moments, hundreds of times, and counts what survived.

    python -m benchmarks.kills [--kills 500] [--seed 0] [--out benchmarks/results/kills.md]

A trial trains one of the small models of tests/jobs/scenarios.py on two files, each a job, in a
process of its own. The process is killed up to four times in a row, each time at a random moment
(a time, a number of function calls, or a passage of a crash point), and then left to end. After
each kill the workspace must be the one before or after a commit: the database is sound, every
version's digest is that of the uninterrupted run, the champion loads and predicts. At the end
versions, digests, metrics, aliases, history and counts of rows equal the uninterrupted run's.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import everlearn as el
from tests.jobs.checks import check_any_moment, check_ended, summary
from tests.jobs.driver import Driver, Ended
from tests.jobs.scenarios import CHECKPOINT_ROWS, ROWS, models, write_files

POINTS = {
    "learn.step": 40,
    "checkpoint.saved": 9,
    "checkpoint.committed": 9,
    "job.judged": 2,
    "job.saved": 2,
    "job.committing": 2,
    "job.committed": 2,
    "job.done": 2,
}
"""Crash point → how often the two jobs of a trial pass it, at least."""

MOST_KILLS = 4
FOUND = (
    "no job yet",
    "job not begun",
    "job running, no checkpoint",
    "job running, checkpoint",
    "between commit and promotion",
    "between two jobs",
    "all done",
)


@dataclass
class Counts:
    """What the trials of one model came to."""

    trials: int = 0
    kills: int = 0
    found: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    rows: int = 0
    violations: list[str] = field(default_factory=list)


def main() -> None:
    """Run trials until there were enough kills, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Driver() as driver:
        counts = _trials(driver, Path(folder), options.kills, options.seed)
    text = _table(counts, options.seed, time.perf_counter() - began)
    print(text)
    if options.out:
        options.out.write_text(text)
    if any(item.violations for item in counts.values()):
        raise SystemExit(1)


def _trials(driver: Driver, folder: Path, kills: int, seed: int) -> dict[str, Counts]:
    counts = {name: Counts() for name in models()}
    files = {suffix: write_files(folder / suffix[1:], suffix) for suffix in (".parquet", ".csv")}
    whole: dict[tuple[str, str], tuple[list[dict[str, Any]], Ended]] = {}
    number = 0
    while sum(item.kills for item in counts.values()) < kills:
        name = list(counts)[number % len(counts)]
        rng = np.random.default_rng([seed, number])
        suffix = (".parquet", ".csv")[int(rng.integers(2))]
        if (name, suffix) not in whole:
            workspace = folder / f"{name}{suffix}"
            el.open(workspace).close()
            run = {"workspace": str(workspace), "model": name, "files": files[suffix]}
            ended = driver.run(**run, count_calls=True)
            whole[name, suffix] = summary(workspace, name), ended
        workspace = folder / f"trial-{number}"
        try:
            _trial(driver, workspace, name, files[suffix], whole[name, suffix], counts[name], rng)
        except AssertionError as error:
            counts[name].violations.append(f"trial {number}: {error!r}")
        number += 1
    return counts


def _trial(
    driver: Driver,
    workspace: Path,
    model: str,
    files: list[str],
    whole: tuple[list[dict[str, Any]], Ended],
    counts: Counts,
    rng: np.random.Generator,
) -> None:
    """Kill once or more, check after each, end, and check all."""
    expected, undisturbed = whole
    run = {"workspace": str(workspace), "model": model, "files": files}
    counts.trials += 1
    if rng.random() < 0.9:  # else the workspace is made by the process that is killed
        el.open(workspace).close()
    for _ in range(int(rng.integers(1, MOST_KILLS + 1))):
        ended = driver.run(**run, **_moment(rng, undisturbed))
        assert ended.killed or ended.error is None, ended.error
        check_any_moment(workspace, model, expected)
        counts.resumed += any(result["resumed_from"] for result in ended.results)
        if not ended.killed:
            break
        counts.kills += 1
        counts.found[_found(workspace, model)] += 1
    ended = driver.run(**run)
    assert ended.error is None, ended.error
    check_ended(workspace, model, expected, [ROWS, ROWS // 2])
    counts.resumed += any(result["resumed_from"] for result in ended.results)
    counts.rows += ROWS + ROWS // 2


def _moment(rng: np.random.Generator, whole: Ended) -> dict[str, Any]:
    """When to kill, as an option of a run."""
    kind = rng.integers(3)
    if kind == 0:
        return {"kill_after": float(rng.uniform(0.0, whole.seconds / 2))}
    if kind == 1:
        return {"kill_at_call": int(rng.integers(1, whole.calls))}
    name = list(POINTS)[int(rng.integers(len(POINTS)))]
    return {"crash": f"{name}:{int(rng.integers(1, POINTS[name] + 1))}"}


def _found(workspace: Path, model: str) -> str:
    """What state a kill left behind."""
    if not (workspace / "everlearn.db").exists():
        return FOUND[0]
    with el.open(workspace) as ws:
        jobs = ws.jobs()
        if not jobs:
            return FOUND[0]
        last = jobs[-1]
        if last.state == "queued":
            return FOUND[1]
        if last.state == "running":
            return FOUND[3] if last.checkpoint else FOUND[2]
        if last.state == "committed":
            return FOUND[4]
        return FOUND[5] if len(jobs) == 1 else FOUND[6]


def _table(counts: dict[str, Counts], seed: int, seconds: float) -> str:
    """The result as Markdown."""
    total = Counts()
    for item in counts.values():
        total.trials += item.trials
        total.kills += item.kills
        total.found += item.found
        total.resumed += item.resumed
        total.rows += item.rows
        total.violations += item.violations
    lines = [
        "# Jobs killed at random moments",
        "",
        f"{total.kills} times SIGKILL in {total.trials} trials of two jobs each "
        f"(`python -m benchmarks.kills --kills {total.kills} --seed {seed}`, {seconds:.0f} s, "
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}). "
        f"Files of {ROWS} and {ROWS // 2} rows, a checkpoint every {CHECKPOINT_ROWS} rows.",
        "",
        f"**Violations: {len(total.violations)}.** After each kill: database sound, digests of all "
        "versions those of an uninterrupted run, champion loads and predicts. At each end: "
        "versions, digests, metrics, aliases and their history equal, each row counted once.",
        "",
        "| model | trials | kills | jobs ended from a checkpoint | rows, each once | violations |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, item in [*counts.items(), ("all", total)]:
        figures = (item.trials, item.kills, item.resumed, item.rows, len(item.violations))
        lines.append(f"| {name} | " + " | ".join(f"{figure:,}" for figure in figures) + " |")
    lines += ["", "| what a kill left behind | times |", "|---|---:|"]
    lines += [f"| {name} | {total.found[name]} |" for name in FOUND]
    if total.violations:
        lines += ["", "Violations:", "", *(f"- {text}" for text in total.violations)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
