"""A feed poisons the feedback of a model; the model is repaired as if it had never met it.

January's flights from New York train the first version. Afterwards every week's flights are asked
for, four feeds say which of them were late, and a job learns what they said. From 19 April on the
largest of them, "app", says of every flight that it was late. What is told:

- how the quality falls with the poisoned weeks, on every fifth flight since April: the feeds say
  nothing of those, they were looked at by hand;
- in between, one prediction that is surely wrong is patched in a second, and nothing else changes;
- bisect finds the version with which it began, the feed, and its worst rows;
- excise withdraws the feed's labels and folds everything else again; the version in which that ends
  is bit-equal to the one of a second workspace, in which the feed never said anything.

    python examples/poisoned_feedback.py           # half a year
    python examples/poisoned_feedback.py --quick   # an eighth of the flights
    python examples/poisoned_feedback.py --json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from nyc_flights import flights
from sklearn.metrics import log_loss

import everlearn as el
from everlearn.base import state_digest
from everlearn.workspace.model import ModelHandle

FEATURES = ["carrier", "origin", "dest", "distance", "hour", "announced"]
FEEDS = {"tower": 0.2, "airline": 0.1, "radar": 0.1, "app": 0.6}
"""Who says how flights ended, and the share of the flights."""

LIAR, LIES_FROM = "app", "2013-04-19"
FIRST_WEEK, LAST_WEEK = "2013-02-01", "2013-05-11"
AUDITED = "2013-04-01", "2013-05-11"

MODEL = el.Model(
    "flight-delays",
    learner=el.learners.LogisticRegression(),
    schema=el.Schema(target="late", time="scheduled", categorical=("hour",)),
    strategy=el.Strategy(memory=el.Reservoir(2_000, ratio=0.25)),
)
"""Without a gate and guards, which would have refused the feed's rows: here they come through."""


def main(quick: bool) -> dict[str, Any]:
    """Live through the weeks, and repair; what was seen."""
    year = known_beforehand(flights(also=["dep_delay"]))
    if quick:
        year = year.iloc[::8].reset_index(drop=True)
    by_hand = year["scheduled"].between(*AUDITED) & (year.index % 5 == 0)
    judged, year = year[by_hand], year[~by_hand]
    told: dict[str, Any] = {"flights": int((year["scheduled"] < LAST_WEEK).sum())}
    with tempfile.TemporaryDirectory() as folder:
        truth = Path(folder) / "by-hand.csv"
        judged[[*FEATURES, "scheduled", "late"]].to_csv(truth, index=False)
        with el.open(Path(folder) / "workspace") as workspace:
            model = workspace.model(MODEL)
            began = live(model, year)
            told["log_loss"] = {
                number: round(score(model, truth, judged, number), 4)
                for number in range(1, model.champion() + 1)
            }
            told["patch"] = patched(model, judged)
            told["bisect"] = bisected(model, str(truth))
            told["excise"] = excised(model, truth, judged)
            repaired = learned(model)
        with el.open(Path(folder) / "twin") as workspace:
            model = workspace.model(MODEL)
            live(model, year[(year["feed"] != LIAR) | (year["scheduled"] < FIRST_WEEK)])
            twin = learned(model)
    told["lies_from_version"] = began
    told["bit_equal"] = repaired == twin
    return told


def known_beforehand(table: pd.DataFrame) -> pd.DataFrame:
    """The flights with what is known two hours before the departure, and which feed tells how each
    ended."""
    chance = np.random.default_rng(0).random(len(table))
    known = (table["dep_delay"] >= 90) & (chance < 0.5)
    feeds = np.random.default_rng(1).choice(list(FEEDS), len(table), p=list(FEEDS.values()))
    hour = table["scheduled"].dt.hour.astype(str)
    return table.assign(announced=table["dep_delay"].where(known, 0.0), hour=hour, feed=feeds)


def live(model: ModelHandle, year: pd.DataFrame) -> int:
    """Learn January, then week by week what the feeds say; the first version that learned lies."""
    january = year[year["scheduled"] < FIRST_WEEK]
    model.train(january[[*FEATURES, "scheduled", "late"]], source="january")
    began = 0
    for week in weeks(year):
        rows = week[[*FEATURES, "scheduled"]].assign(scheduled=week["scheduled"].astype(str))
        answers = model.predict(rows.to_dict("records"))
        lies = (week["feed"] == LIAR) & (week["scheduled"] >= LIES_FROM)
        said = np.where(lies, 1, week["late"])
        model.feedback_many(
            {"prediction_id": answer.id, "value": int(value), "source": feed}
            for answer, value, feed in zip(answers, said, week["feed"], strict=True)
        )
        version = model.update().version
        if lies.any() and not began:
            began = version
    return began


def weeks(year: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The flights of each week."""
    edges = pd.date_range(FIRST_WEEK, LAST_WEEK, freq="7D")
    for start, stop in pairwise(edges):
        yield year[(year["scheduled"] >= start) & (year["scheduled"] < stop)]


def score(model: ModelHandle, truth: Path, judged: pd.DataFrame, version: int) -> float:
    """Log loss of a version on the flights that were looked at by hand."""
    answers = model.predict(str(truth), version=version)
    return float(log_loss(judged["late"], [answer.probabilities[1] for answer in answers]))


def patched(model: ModelHandle, judged: pd.DataFrame) -> dict[str, Any]:
    """Put right the answer that is most surely wrong."""
    rows = judged[[*FEATURES, "scheduled"]].assign(scheduled=judged["scheduled"].astype(str))
    records = rows.to_dict("records")
    before = model.predict(records, log=False)
    sure = [answer.probabilities[1] for answer in before]
    worst = int(np.argmax(np.abs(judged["late"].to_numpy() - sure)))
    edit = {
        "features": records[worst],
        "output": int(judged["late"].iloc[worst]),
        "reason": "the airline called",
    }
    began = time.perf_counter()
    result = model.repair.patch([edit])
    seconds = time.perf_counter() - began
    after = model.predict(records, log=False)
    changed = [k for k, (a, b) in enumerate(zip(before, after, strict=True)) if a.value != b.value]
    return {
        "flight": records[worst],
        "answered": before[worst].value,
        "answers_now": after[worst].value,
        "other_answers_changed": len(set(changed) - {worst}),
        "of": len(records) - 1,
        "version": result.version,
        "seconds": round(seconds, 2),
    }


def bisected(model: ModelHandle, truth: str) -> dict[str, Any]:
    """Ask what made the champion worse than version 1."""
    report = model.repair.bisect(good=1, bad=model.champion(), metric="log_loss", on=truth)
    return {name: report[name] for name in ("decision", "version", "next", "cost")}


def excised(model: ModelHandle, truth: Path, judged: pd.DataFrame) -> dict[str, Any]:
    """Withdraw all that the feed ever said."""
    found = model.repair.excise(where=f"source = '{LIAR}'", reason="the feed lies")
    return {
        "rows": found.report["rows"],
        "folded_from": found.report["base"],
        "version": found.result.version,
        "log_loss": round(score(model, truth, judged, found.result.version), 4),
    }


def learned(model: ModelHandle) -> str:
    """The digest of all that the champion has learned: of its state without patches."""
    registry = model.workspace.registry
    state = registry.state(model.name, registry.version(model.name))
    return state_digest({k: part for k, part in state.items() if not k.startswith("patch/")})


def show(told: dict[str, Any]) -> None:
    """For people."""
    print(f"{told['flights']:,} flights; log loss on those that were looked at by hand:")
    for version, loss in told["log_loss"].items():
        note = "  <- the feed begins to lie" if version == told["lies_from_version"] else ""
        print(f"  version {version:>2}  {loss:.4f}{note}")
    patch, bisect, excise = told["patch"], told["bisect"], told["excise"]
    print(
        f"\npatch: one answer was {patch['answered']} and is {patch['answers_now']} now, in"
        f" {patch['seconds']} s; {patch['other_answers_changed']} of {patch['of']:,} others changed"
    )
    print(f"bisect: {bisect['decision']['reason']}")
    print(f"  next: {bisect['next']}")
    print(
        f"excise: {excise['rows']:,} labels withdrawn, folded again from version"
        f" {excise['folded_from']} on; version {excise['version']}: {excise['log_loss']:.4f}"
    )
    same = "bit-equal to" if told["bit_equal"] else "NOT equal to"
    print(f"  {same} what a model learned to which the feed never said anything")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="an eighth of the flights")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    outcome = main(given.quick)
    print(json.dumps(outcome, indent=2)) if given.json else show(outcome)
