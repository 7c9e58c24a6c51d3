"""A year of New York flights: which retraining strategy, and then a year of learning with it.

First the seven strategies are compared on the whole year. Then the best of those that can be run
as jobs learns week by week, as it would have in production: each week's landed flights are a file,
each file is a job, and each candidate has to pass the gate before it serves. The first job learns
four weeks. Log loss and AUC are of test-then-train: each chunk is answered before it is learned.

    python examples/flights_demo.py --out out/demo
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pandas as pd
from flights import model
from nyc_flights import flights
from rich.console import Console
from rich.table import Table

import everlearn as el
from everlearn.compare.compare import compare
from everlearn.compare.results import Results
from everlearn.compare.strategies import as_jobs, built_in
from everlearn.compare.table import show
from everlearn.compare.timeline import Span

WEEK = "7d"
WEEKS_AT_FIRST = 4


def main(out: Path, weeks: int | None, workers: int | None) -> None:
    """Compare, then learn week by week. Everything is written to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    table = flights()
    print(f"{len(table):,} flights, {table['late'].mean():.1%} of them late")
    history = out / "flights.csv"
    table.to_csv(history, index=False)
    results = compare(
        str(history),
        model.schema,
        every=WEEK,
        out=out,
        workers=workers,
        progress=lambda line: print(line, file=sys.stderr),
    )
    show(results)
    learn_by_week(table, results, out, weeks)
    print(f"\nThe report: {out / 'report.html'}")


def learn_by_week(table: pd.DataFrame, results: Results, out: Path, weeks: int | None) -> None:
    """Run the best strategy of jobs: a job a week, through the gate, into the registry."""
    strategy = as_jobs(built_in(results.best_job), Span.parse(WEEK))
    print(f"\n{results.best_job}, week by week, in the workspace {out / 'workspace'}:")
    shown = Table(box=None, pad_edge=False)
    for name in ("week", "flights", "held out", "log loss", "AUC", "seconds", "gate", "champion"):
        shown.add_column(name, justify="right" if name != "gate" else "left")
    with el.open(out / "workspace") as workspace:
        handle = workspace.model(model.replace(strategy=strategy))
        paths = files_by_week(table, out / "weeks", weeks)
        first, later = paths[:WEEKS_AT_FIRST], paths[WEEKS_AT_FIRST:]
        for number, files in enumerate([first, *([path] for path in later)], WEEKS_AT_FIRST):
            start = time.perf_counter()
            result = handle.train(files)
            seconds = time.perf_counter() - start
            learned = sum(item["rows"] for item in result.increments)
            held = sum(item["held_out"] for item in result.increments)
            shown.add_row(
                f"1–{number}" if files is first else str(number),
                f"{learned:,}",
                f"{held:,}",
                figure(result.metrics.get("log_loss")),
                figure(result.metrics.get("roc_auc")),
                f"{seconds:.2f}",
                result.decision.action,
                str(handle.champion() or "–"),
            )
        Console(width=100).print(shown)
        refused = sum(v["decision"]["action"] == "refuse" for v in handle.versions())
        print(
            f"{len(handle.versions())} versions, {refused} of them refused by the gate; "
            f"version {handle.champion()} serves."
        )


def files_by_week(table: pd.DataFrame, folder: Path, weeks: int | None) -> list[str]:
    """One file for the flights that landed in each week, in the order of landing."""
    folder.mkdir(exist_ok=True)
    landed = table.sort_values("arrived", kind="stable")
    week = (landed["arrived"] - landed["arrived"].min().normalize()).dt.days // 7
    paths = []
    for number, rows in landed.groupby(week):
        path = folder / f"week-{int(str(number)) + 1:02d}.csv"
        rows.to_csv(path, index=False)
        paths.append(str(path))
    return paths[:weeks]


def figure(value: float | None) -> str:
    """A metric with four digits."""
    return "–" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A year of New York flights.")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), metavar="DIR")
    parser.add_argument("--weeks", type=int, metavar="N", help="learn so many weeks only")
    parser.add_argument("--workers", type=int, metavar="N", help="processes of the comparison")
    given = parser.parse_args()
    main(given.out, given.weeks, given.workers)
