"""Card fraud: the truth arrives weeks later, and those who steal change their tactics.

A purchase is scored at once. That it was fraud becomes known when its owner complains: some two
weeks later, sometimes seven, sometimes never. So a purchase without a complaint is no honest one
yet: `LabelPolicy(maturity="35d", unlabelled="negative")` makes it one after five weeks, and a
complaint that comes later still corrects it. Analysts can look at 2 % of each week's purchases, the
most suspicious ones: what counts is how much of the fraud is among them.

A first model is trained on a history whose complaints are all in. It serves for six weeks, then the
loop begins: each Monday a job learns the complaints that came and the windows that closed. The same
purchases are scored by the first model, frozen, as well. Weeks pass in a moment: the workspace is
given a clock.

    python examples/fraud.py            # 18 weeks of the loop, three seeds
    python examples/fraud.py --quick    # some seconds
    python examples/fraud.py --json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.metrics import average_precision_score, log_loss

import everlearn as el
from everlearn.base import Floats
from everlearn.evaluation.intervals import mean_interval

WEEK = 7 * 86_400_000_000
START = 1_704_067_200_000_000
"""Monday, 2024-01-01 UTC, in microseconds."""

LOOKED_AT = 0.02
"""Share of a week's purchases that analysts have time for."""

WAITED = 6
"""Weeks from the first model to the first job: its first windows have closed by then."""

FRAUD = 0.015
SHOPS = ["food", "fuel", "clothes", "electronics", "travel", "games", "gift cards"]

model = el.Model(
    "fraud",
    learner=el.learners.AdaptiveRandomForestClassifier(),
    schema=el.Schema(target="fraud", id="purchase", categorical=("shop", "country")),
    strategy=el.Strategy(memory=el.Balanced(5_000)),
    labels=el.LabelPolicy(maturity="35d", unlabelled="negative", negative=0),
    triggers=(el.Schedule("0 3 * * 1"),),
    holdout=0.0,
)


def purchases(random: np.random.Generator, week: int, count: int) -> tuple[list[Any], Floats]:
    """The purchases of a week, and which of them are fraud (1.0)."""
    fraud = random.random(count) < FRAUD
    tactic = (week + 4) // 9 % 3
    rows: list[dict[str, Any]] = []
    for place in range(count):
        amount, hour = random.lognormal(3.5, 1.0), random.normal(15.0, 5.0) % 24.0
        shop = SHOPS[random.choice(7, p=[0.35, 0.15, 0.15, 0.1, 0.1, 0.1, 0.05])]
        country = "home" if random.random() < 0.9 else "abroad"
        pause, device = random.exponential(1500.0), random.exponential(400.0)
        if fraud[place]:
            now = tactic if random.random() < 0.85 else int(random.integers(3))
            if now == 0:  # cards copied abroad: dear things that sell well
                amount, shop = random.lognormal(5.5, 0.7), random.choice(["electronics", "clothes"])
                country = "abroad" if random.random() < 0.8 else "home"
            elif now == 1:  # stolen numbers, tried out at night by small amounts, one by one
                amount, shop = random.lognormal(1.5, 0.5), random.choice(["games", "gift cards"])
                hour, pause, country = (
                    random.normal(3.0, 2.0) % 24.0,
                    random.exponential(10),
                    "home",
                )
            else:  # accounts taken over: a new device, and what the owner might have bought
                shop, device = random.choice(["travel", "gift cards"]), random.exponential(2.0)
                amount, country = random.lognormal(4.5, 0.7), "home"
        rows.append(
            {
                "purchase": f"{week}-{place}",
                "log_amount": float(np.log(amount)),
                "night": float(np.cos(hour / 12.0 * np.pi)),
                "shop": str(shop),
                "country": country,
                "log_pause": float(np.log1p(pause)),
                "log_device_days": float(np.log1p(device)),
            }
        )
    return rows, fraud.astype(np.float64)


def complaints(random: np.random.Generator, ids: list[str], fraud: Floats, now: int) -> Any:
    """(moment, id of the prediction) of the complaints about a week's purchases."""
    for number in np.flatnonzero(fraud):
        if random.random() < 0.95:
            yield now + int(random.lognormal(np.log(14.0), 0.45) * WEEK / 7), ids[number]


def chances(answers: Any) -> Floats:
    """The probability of fraud in each answer."""
    return np.array([answer.probabilities[1] for answer in answers])


def caught(fraud: Floats, score: Floats) -> float:
    """The share of the fraud that is among the most suspicious purchases."""
    looked_at = np.argsort(-score, kind="stable")[: round(LOOKED_AT * len(score))]
    return float(fraud[looked_at].sum() / fraud.sum())


def run(seed: int, folder: Path, weeks: int, count: int) -> dict[str, dict[str, float]]:
    """Live through the weeks; what each model was worth in those after the loop began."""
    random, moment = np.random.default_rng(seed), START
    seen: list[tuple[Floats, Floats, Floats]] = []
    waiting: list[tuple[int, str]] = []
    with el.open(folder, clock=lambda: moment) as workspace:
        loop, frozen = workspace.model(model), workspace.model(model)
        rows, fraud = purchases(random, -1, 4 * count)
        past = [row | {"fraud": int(label)} for row, label in zip(rows, fraud, strict=True)]
        loop.train(pa.Table.from_pylist(past), source="history")
        for week in range(WAITED + weeks):
            moment = START + week * WEEK
            rows, fraud = purchases(random, week, count)
            answers: Any = loop.predict(rows)
            if week >= WAITED:
                first = frozen.predict(rows, version=1, log=False)
                seen.append((fraud, chances(first), chances(answers)))
            waiting += complaints(random, [one.id for one in answers], fraud, moment)
            waiting.sort()
            while waiting and waiting[0][0] < START + (week + 1) * WEEK:
                moment, prediction = waiting.pop(0)
                loop.feedback(prediction, 1, source="bank")
            if week >= WAITED - 2:
                moment = START + (week + 1) * WEEK + WEEK // 40
                loop.trigger()
                workspace.work(once=True)
    return {
        name: {
            "caught": float(np.mean([caught(week[0], week[place]) for week in seen])),
            "pr_auc": float(np.mean([average_precision_score(w[0], w[place]) for w in seen])),
            "log_loss": float(np.mean([log_loss(w[0], w[place], labels=[0, 1]) for w in seen])),
        }
        for place, name in ((1, "frozen"), (2, "loop"))
    }


def compare(seeds: int, weeks: int, count: int) -> dict[str, Any]:
    """Run some seeds; the means, and the gain with its interval over the seeds."""
    runs = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(run(seed, Path(folder), weeks, count))
    means = {
        name: {metric: float(np.mean([one[name][metric] for one in runs])) for metric in metrics}
        for name, metrics in runs[0].items()
    }
    gains = {}
    for metric in ("caught", "pr_auc", "log_loss"):
        apart = np.array([one["loop"][metric] - one["frozen"][metric] for one in runs])
        gains[metric] = mean_interval(apart).to_json()
    return {"seeds": seeds, "purchases": seeds * weeks * count, "models": means, "gain": gains}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seeds, fewer weeks")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    found = compare(2, 6, 500) if given.quick else compare(3, 18, 1500)
    if given.json:
        print(json.dumps(found))
        return
    print(f"{found['purchases']:,} purchases, {found['seeds']} seeds, after the loop began")
    print(f"{'':14}{'fraud caught':>14}{'PR-AUC':>10}{'log loss':>10}")
    for name, metrics in found["models"].items():
        figures = f"{metrics['caught']:14.1%}{metrics['pr_auc']:10.3f}{metrics['log_loss']:10.4f}"
        print(f"{name:14}{figures}")
    gain = found["gain"]["caught"]
    print(
        f"In the {LOOKED_AT:.0%} that analysts look at, the loop catches {gain['mean']:+.1%} more"
        f" of the fraud (95 %: {gain['low']:+.1%} to {gain['high']:+.1%})."
    )


if __name__ == "__main__":
    main()
