"""Learners that learn row by row, against River, CapyMOA, Vowpal Wabbit and scikit-learn.

    .venv/bin/python benchmarks/online.py [--quick] [--rounds N] [--only NAME …] [--streams NAME …]
                                          [--data DIR] [--capymoa-python PATH] [--out DIR]

Everything runs on one thread, each measurement in a process of its own, the sides of a section
taking turns; medians of three rounds are compared. Progress goes to standard error, the tables to
standard output; with --out, online.md and online.json are written as well. README.md says how it
is measured, and online_capymoa.py what CapyMOA needs.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import streams
from jobs import machine, say
from online_bench import Bench
from online_report import report
from online_sections import SECTIONS, WATCHED, baselines

LIBRARIES = ("everlearn", "numba", "numpy", "scikit-learn", "pyarrow", "river", "vowpalwabbit")
CAPYMOA_PYTHON = "EVERLEARN_CAPYMOA_PYTHON"
QUICK_ROWS = 3_000


def prepared(
    folder: Path, names: list[str], data: Path | None, most: int | None
) -> dict[str, tuple[int, int]]:
    """Make streams, keep them in a folder, and say how large they are; some may be absent."""
    shapes = {}
    for name in names:
        make = streams.STREAMS[name]
        try:
            X, y = make(data) if name == "Elec2" else make()
        except streams.Absent as error:
            say(f"{name} is left out: {error}")
            continue
        streams.keep(name, folder, (X[:most], y[:most]))
        shapes[name] = (len(y[:most]), X.shape[1])
    streams.keep("losses", folder, streams.losses(WATCHED if most is None else most))
    return shapes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS} rows, one round")
    parser.add_argument("--rounds", type=int, help="measurements of each side")
    parser.add_argument("--out", type=Path, help="folder for online.md and online.json")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    names = list(streams.STREAMS)
    parser.add_argument("--streams", nargs="+", choices=names, default=names)
    parser.add_argument("--data", type=Path, help=f"folder of electricity.csv; or {streams.FOLDER}")
    parser.add_argument(
        "--capymoa-python",
        default=os.environ.get(CAPYMOA_PYTHON),
        help=f"the Python of an environment with CapyMOA; or {CAPYMOA_PYTHON}",
    )
    options = parser.parse_args()
    loads, seconds = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        most = QUICK_ROWS if options.quick else None
        shapes = prepared(folder, options.streams, options.data, most)
        rounds = options.rounds or (1 if options.quick else 3)
        watched = len(streams.load("losses", folder)[1])
        bench = Bench(folder, shapes, watched, rounds, options.capymoa_python)
        baselines(bench)
        for name in options.only:
            loads.append(os.getloadavg()[0])
            say(f"{name} (load average {loads[-1]:.1f})")
            began = time.perf_counter()
            SECTIONS[name](bench)
            seconds.append(time.perf_counter() - began)
        about = machine(loads, LIBRARIES) | bench.versions()
        about["sections"] = ", ".join(options.only)
        about["seconds of each section"] = ", ".join(f"{spent:.0f}" for spent in seconds)
        about["rounds"] = str(rounds)
        text = report(bench, about)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "online.md").write_text(text)
        measured = [asdict(side) | {"results": found} for side, found in bench.found.items()]
        checks = [asdict(check) for check in bench.checks]
        whole = {"about": about, "checks": checks, "measured": measured}
        (options.out / "online.json").write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
