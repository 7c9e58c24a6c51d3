"""What benchmarks/online.py writes."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from online_bench import BASELINES, Bench
from online_table import long_table, rate, share, short_table

LEGEND = """How many times as many rows a second everlearn predicts and learns, and in brackets the
accuracies of everlearn / the peer / the other peer with the same settings, where it was run. @N:
of the first N rows. Rows are predicted before they are learned; by scikit-learn, a chunk at a
time."""

CHECKS = {
    "what": "what",
    "column": "on",
    "everlearn": "everlearn",
    "peer": "against",
    "ratio": "ratio",
    "goal": "goal",
    "result": "result",
}

FIGURES = {
    "stream": "stream",
    "side": "what",
    "rate": "rows/s",
    "warm": "rows/s of a second pass",
    "accuracy": "accuracy",
    "kappa": "Kappa",
    "kappa_temporal": "Kappa-Temporal",
}


def report(bench: Bench, about: dict[str, str]) -> str:
    """All tables as Markdown."""
    checks = [asdict(check) | {"result": check.result} for check in bench.checks]
    missing = bench.missing()
    parts = ["# Learning row by row", LEGEND, *short_tables(bench)]
    parts += ["Not measured: " + "; ".join(missing)] if missing else []
    parts += ["## Every comparison", long_table(checks, CHECKS)]
    parts += ["## Every figure", long_table(every_figure(bench), FIGURES)]
    parts += ["\n".join(f"- {name}: {value}" for name, value in about.items())]
    parts += ["Written by `benchmarks/online.py`; README.md says how it is measured."]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def short_tables(bench: Bench) -> list[str]:
    """For the README: on streams, of drift detectors, of first predictions."""
    streams = {name: f"{name}, {rows:,} × {p}" for name, (rows, p) in bench.shapes.items()}
    heads = {
        "streams": ("everlearn against", streams),
        "detectors": ("drift detector", {"River": "against River's"}),
        "start": ("from import to first prediction", {"seconds": "kernels on disk"}),
    }
    found = []
    for name, (head, columns) in heads.items():
        checks = [check for check in bench.checks if check.table == name]
        if checks:
            found.append(short_table(checks, head, columns))
    return found


def every_figure(bench: Bench) -> list[dict[str, Any]]:
    """What was measured of each side, and the baselines over as many rows, stream by stream."""
    sides = [side for side, results in bench.found.items() if "accuracy" in results[0]]
    rows: list[dict[str, Any]] = []
    for stream, count in sorted({(side.stream, side.rows) for side in sides}):
        place = f"{stream}@{count}"
        for name in BASELINES:
            rows.append(
                {"stream": place, "side": name, **scored(bench.baseline(name, stream, count))}
            )
        for side in sides:
            if (side.stream, side.rows) != (stream, count):
                continue
            results = bench.found[side]
            options = [Path(option).suffix.lstrip(".") or option for option in side.options]
            means = {name: bench.mean(side, name) for name in SCORES}
            named = results[0].get("name", " ".join([side.task, *options]))
            row = {"stream": place, "side": named, **scored(means)}
            row["rate"] = rate(bench.rate(side))
            if "warm_rate" in results[0]:
                row["warm"] = rate(statistics.median(result["warm_rate"] for result in results))
            rows.append(row)
    return rows


SCORES = ("accuracy", "kappa", "kappa_temporal")


def scored(scores: dict[str, float]) -> dict[str, str]:
    return {name: share(scores[name]) for name in SCORES}
