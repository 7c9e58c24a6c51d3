"""Speed and memory of jobs, as ratios within one run against the loops that users write.

    .venv/bin/python benchmarks/jobs.py [--quick] [--out DIR] [--only NAME …] [--data DIR]

Everything runs on one thread, each measurement in a process of its own, rounds of the two sides
taking turns; the medians are compared. Progress goes to standard error, the table to standard
output; with --out, jobs.md and jobs.json are written as well. Needs about 10 GB of disk for a
while (--quick: 300 MB).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TASKS = Path(__file__).with_name("tasks.py")
GROUP, DEFAULT_GROUP = 65_536, 1_048_576
LIBRARIES = ("everlearn", "numpy", "scikit-learn", "pyarrow", "pandas", "SQLAlchemy")
Row = dict[str, str]


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Args:
        rounds: measurements of each side.
        pass_rows: rows of the files that are gone over once.
        histories: rows of the histories before an incremental job.
        jobs: incremental jobs on each.
        many: jobs of a history of many jobs.
        memory: rows of the smaller and the larger Parquet file.
        memory_csv: the same for CSV.
    """

    rounds: int = 3
    pass_rows: int = 1_000_000
    histories: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)
    jobs: int = 40
    many: int = 500
    memory: tuple[int, int] = (2_000_000, 20_000_000)
    memory_csv: tuple[int, int] = (2_000_000, 6_000_000)


QUICK = Sizes(1, 200_000, (100_000, 300_000), 10, 100, (300_000, 1_000_000), (200_000, 600_000))


class Bench:
    """Runs tasks, makes the files that they need, and collects the rows of the table.

    Args:
        data: folder for the files.
    """

    def __init__(self, sizes: Sizes, data: Path) -> None:
        self.sizes, self.data = sizes, data
        self.rows: list[Row] = []
        self.raw: dict[str, Any] = {}

    def task(self, name: str, *arguments: object) -> dict[str, Any]:
        """What a task printed; it runs in a fresh process."""
        say(f"  {name} {' '.join(Path(str(item)).name for item in arguments)}")
        command = [sys.executable, str(TASKS), name, *map(str, arguments)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=one_thread())
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def file(self, kind: str, rows: int, group: int = GROUP, seed: int = 1) -> Path:
        """A made-up file; made if it is not there."""
        path = self.data / f"{kind}-{rows}-{group}-{seed}.{kind}"
        if not path.exists():
            self.task("write", path, rows, seed, group)
        return path

    def increments(self, count: int) -> Path:
        """The folder with so many files of new rows."""
        self.task("write_new", self.data, count)
        return self.data

    def rounds(self, *sides: Sequence[object]) -> list[list[dict[str, Any]]]:
        """The results of each side (a task and its arguments), the sides taking turns."""
        found: list[list[dict[str, Any]]] = [[] for _ in sides]
        for _ in range(self.sizes.rounds):
            for place, (name, *arguments) in enumerate(sides):
                found[place].append(self.task(str(name), *arguments))
        return found

    def add(self, what: str, ours: str, peer: str, ratio: float, goal: str, met: bool) -> None:
        """A row of the table."""
        said = f"{ratio:.3g}"
        say(f"{what}: {said} (goal {goal}: {'met' if met else 'MISSED'})")
        self.rows.append(
            {
                "what": what,
                "everlearn": ours,
                "against": peer,
                "ratio": said,
                "goal": goal,
                "result": "met" if met else "**missed**",
            }
        )


# --- the sections ------------------------------------------------------------------------------


def parquet(bench: Bench) -> None:
    """A job over Parquet against the bare loop; all rows learned by both, then with hold-outs."""
    path = bench.file("parquet", bench.sizes.pass_rows)
    loop, job, held = bench.rounds(("loop_parquet", path), ("job", path, 0), ("job", path, 0.05))
    bench.raw["parquet"] = {"loop": loop, "job": job, "job_with_holdout": held}
    base = median(loop, "cpu")
    for name, found in (("", job), (", 5 % held out", held)):
        cpu = median(found, "cpu")
        bench.add(
            f"Parquet, {bench.sizes.pass_rows:,} rows{name}",
            f"{cpu:.2f} CPU s",
            f"pyarrow loop: {base:.2f} CPU s",
            cpu / base,
            "≤ 1.15",
            cpu / base <= 1.15,
        )


def csv(bench: Bench) -> None:
    """A job over CSV against pandas.read_csv in chunks: rows a second, by CPU and by the clock."""
    path = bench.file("csv", bench.sizes.pass_rows)
    frames, arrays, job = bench.rounds(
        ("loop_csv", path, "frames"), ("loop_csv", path, "arrays"), ("job", path, 0)
    )
    bench.raw["csv"] = {"loop_of_frames": frames, "loop_of_arrays": arrays, "job": job}
    for form, loop in (("frames", frames), ("arrays", arrays)):
        for name, unit in (("cpu", "CPU s"), ("wall", "s")):
            ours, theirs = median(job, name), median(loop, name)
            bench.add(
                f"CSV, {bench.sizes.pass_rows:,} rows, rows per {unit}",
                f"{bench.sizes.pass_rows / ours:,.0f}",
                f"pandas loop of {form}: {bench.sizes.pass_rows / theirs:,.0f}",
                theirs / ours,
                "≥ 2",
                theirs / ours >= 2,
            )


def memory(bench: Bench) -> None:
    """Peak memory of a job over a large file against a job over a smaller one."""
    for name, kind, group, sizes in (
        ("Parquet, small row groups", "parquet", GROUP, bench.sizes.memory),
        ("Parquet, pyarrow's row groups", "parquet", DEFAULT_GROUP, bench.sizes.memory),
        ("CSV", "csv", GROUP, bench.sizes.memory_csv),
    ):
        peaks = []
        for rows in sizes:
            path = bench.file(kind, rows, group)
            peaks.append(bench.task("memory", path))
            path.unlink()
        bench.raw[f"memory, {name}"] = peaks
        small, large = (peak["peak_mib"] for peak in peaks)
        bench.add(
            f"Peak memory, {name}, {sizes[1]:,} rows",
            f"{large:.0f} MiB",
            f"{sizes[0]:,} rows: {small:.0f} MiB",
            large / small,
            "≤ 1.1",
            large / small <= 1.1,
        )


def incremental(bench: Bench) -> None:
    """A job over 10,000 new rows, gate included, after histories of different lengths, and
    against full retraining."""
    sizes = bench.sizes
    folder = bench.increments(sizes.jobs + 3)
    paths = [bench.file("parquet", rows) for rows in sizes.histories]
    found = bench.task("incremental", folder, sizes.jobs, *paths)
    middle = sizes.histories[1]
    full = bench.rounds(("retraining", bench.file("parquet", middle)))[0]
    bench.raw["incremental"] = {"histories": sizes.histories, **found, "retraining": full}
    costs = found["increment_cpu"]
    for rows, cost, held in zip(sizes.histories, costs, found["holdout_rows"], strict=True):
        ratio = cost / costs[1]
        bench.add(
            f"Incremental job after {rows:,} rows ({held:,} hold-out rows)",
            f"{cost * 1000:.1f} CPU ms",
            f"after {middle:,} rows: {costs[1] * 1000:.1f} CPU ms",
            ratio,
            "0.9 to 1.1",
            0.9 <= ratio <= 1.1,
        )
    cost = median(full, "scratch_cpu")
    bench.add(
        f"Incremental job against full retraining over {middle:,} rows",
        f"{costs[1] * 1000:.1f} CPU ms",
        f"retraining from scratch: {cost:.2f} CPU s",
        costs[1] / cost,
        "≤ 0.03",
        costs[1] / cost <= 0.03,
    )


def many(bench: Bench) -> None:
    """The last of many incremental jobs against an early one."""
    count = bench.sizes.many
    found = bench.task("many", bench.increments(count), count)
    bench.raw["many"] = found
    ratio = found["late"] / found["early"]
    bench.add(
        f"Incremental job after {count} jobs",
        f"{found['late'] * 1000:.1f} CPU ms",
        f"after 50 jobs: {found['early'] * 1000:.1f} CPU ms",
        ratio,
        "≤ 1.1",
        ratio <= 1.1,
    )


def command(bench: Bench) -> None:
    """How long `everlearn --help` and `import everlearn` take."""
    script = Path(sys.executable).with_name("everlearn")
    whole = [str(script)] if script.exists() else [sys.executable, "-m", "everlearn"]
    for name, words in (
        ("everlearn --help", [*whole, "--help"]),
        ("import everlearn", [sys.executable, "-c", "import everlearn"]),
    ):
        times, bare = [], []
        for _ in range(2 * bench.sizes.rounds + 3):
            times.append(clock(words))
            bare.append(clock([sys.executable, "-c", "pass"]))
        seconds, least = statistics.median(times), statistics.median(bare)
        bench.raw[name] = {"seconds": times, "bare_python": bare}
        bench.add(
            f"`{name}`",
            f"{seconds:.2f} s",
            f"bare Python: {least:.2f} s",
            seconds / least,
            "≤ 0.5 s",
            seconds <= 0.5,
        )


def comparison(bench: Bench) -> None:
    """The demo's comparison of seven strategies."""
    workers = min(2, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as out:
        seconds = bench.task("comparison", out, workers)["seconds"]
    bench.raw["comparison"] = {"seconds": seconds, "workers": workers}
    goal = "≤ 90 s"
    bench.add(
        f"Seven strategies, {workers} processes",
        f"{seconds:.0f} s",
        "90 s",
        seconds / 90,
        goal,
        seconds <= 90,
    )


SECTIONS: dict[str, Callable[[Bench], None]] = {
    section.__name__: section
    for section in (parquet, csv, incremental, many, command, comparison, memory)
}


# --- parts of them -----------------------------------------------------------------------------


def median(results: list[dict[str, Any]], name: str) -> float:
    return float(statistics.median(result[name] for result in results))


def clock(words: list[str]) -> float:
    """Wall seconds of a command."""
    start = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=one_thread())
    return time.perf_counter() - start


def one_thread() -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, "1")}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def machine(loads: list[float], libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """What the figures were measured on; libraries that are not installed are left out."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = models[0].split(":", 1)[1].strip() if models else model
    installed = {}
    for name in libraries:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "Python": platform.python_version(),
        **installed,
        "load average (1 min) before each section": ", ".join(f"{load:.1f}" for load in loads),
    }


def table(rows: list[Row], about: dict[str, str]) -> str:
    """The results as Markdown."""
    names = list(rows[0])
    lines = ["# Speed and memory of jobs", "", f"| {' | '.join(names)} |"]
    lines += ["|" + "---|" * len(names)]
    lines += [f"| {' | '.join(row[name] for name in names)} |" for row in rows]
    lines += ["", *(f"- {name}: {value}" for name, value in about.items())]
    lines += ["", "Written by `benchmarks/jobs.py`; README.md says how it is measured."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--out", type=Path, help="folder for jobs.md and jobs.json")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--data", type=Path, help="folder in which made-up files are kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = options.data or Path(temporary)
        data.mkdir(parents=True, exist_ok=True)
        bench, loads = Bench(QUICK if options.quick else Sizes(), data), []
        for name in options.only:
            loads.append(os.getloadavg()[0])
            say(f"{name} (load average {loads[-1]:.1f})")
            SECTIONS[name](bench)
    about = machine(loads)
    text = table(bench.rows, about)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "jobs.md").write_text(text)
        whole = {"about": about, "rows": bench.rows, "measured": bench.raw}
        (options.out / "jobs.json").write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
