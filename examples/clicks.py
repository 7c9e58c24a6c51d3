"""Click-through: silence is the only "no", and what is shown decides what can be learned.

A page shows one of three banners. A click comes within minutes; nobody ever says "not interested",
so `LabelPolicy(maturity="30m", unlabelled="negative")` makes a silent half hour one.

The page shows what the model likes best, with two exceptions: in 40 % of visits any banner, by
chance; and to visitors whom it takes for keen, mostly the banner that the sales team wants shown.
The model is not told who is keen. Keen visitors click more on anything, so to a model that learns
the log as it is that banner seems to be better than it is. The page logs the chance with which it
showed what it showed, and `propensity="inverse"` weighs each row by it: what is learned is then as
if banners had been shown at random.

Three models live through the same visits, each with its own banners: one frozen, one that learns
without weights ("naive"), one that learns with them ("loop"). They are judged on the audit slice,
the visits whose banner was left to chance: these are the same visits, banners and clicks for all.

    python examples/clicks.py           # 80 turns of ten minutes, three seeds
    python examples/clicks.py --quick   # some seconds
    python examples/clicks.py --json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import everlearn as el
from everlearn.base import Array, Floats
from everlearn.data.feedback import Label
from everlearn.evaluation.intervals import mean_interval

MINUTE = 60_000_000
START = 1_704_067_200_000_000
"""2024-01-01 UTC, in microseconds."""

BANNERS, CHANCE = 3, 0.4
KEEN, PUSHED = 0.4, 0.9
"""Share of keen visitors, and of those to whom banner 0 is shown whatever the model likes."""

TURN = 10
"""Minutes: visits of a turn are answered together, and jobs may follow it."""

WEIGHED = el.LabelPolicy(
    maturity="30m",
    unlabelled="negative",
    negative=0,
    signals={"click": (1, 1.0)},
    propensity="inverse",
)
UNWEIGHED = el.LabelPolicy(
    maturity="30m", unlabelled="negative", negative=0, signals={"click": (1, 1.0)}
)
POLICIES = {"frozen": UNWEIGHED, "naive": UNWEIGHED, "loop": WEIGHED}

model = el.Model(
    "clicks",
    learner=el.learners.LogisticRegression(learning_rate=0.003),
    schema=el.Schema(target="click", id="visit", weight="weight", categorical=("banner",)),
    triggers=(el.Volume(500),),
    holdout=0.0,
)


class Visits(NamedTuple):
    """The visits of a turn: (n,) arrays, and (n, 3) ones with a column for each banner.

    Args:
        match: (n, 3) how well each banner suits the visitor; the model is told.
        keen: (n,) whether the page takes the visitor for keen; the model is not told.
        clicks: (n, 3) whether each banner would be clicked, 1.0 or 0.0.
        audit, pushed: (n,) what chance says: any banner; banner 0, if the visitor is keen.
        any: (n,) a banner by chance.
    """

    match: Floats
    keen: Array
    clicks: Floats
    audit: Array
    pushed: Array
    any: Array


class World:
    """Visitors, and banners whose appeal wanders."""

    def __init__(self, seed: int, visits: int) -> None:
        self.random, self.visits = np.random.default_rng(seed), visits
        self.appeal = self.random.normal(0.0, 0.5, BANNERS)

    def turn(self) -> Visits:
        """The visits of the next ten minutes."""
        random, n = self.random, self.visits
        self.appeal = 0.98 * self.appeal + random.normal(0.0, 0.2, BANNERS)
        match, keen = random.normal(size=(n, BANNERS)), random.random(n) < KEEN
        score = self.appeal - 2.5 + match + 3.0 * keen[:, None]
        clicks = (random.random(match.shape) < 1.0 / (1.0 + np.exp(-score))).astype(np.float64)
        audit, pushed = random.random(n) < CHANCE, random.random(n) < PUSHED
        return Visits(match, keen, clicks, audit, pushed, random.integers(BANNERS, size=n))


def choose(visits: Visits, best: Array) -> tuple[Array, Floats]:
    """What the page shows (n,), where the model likes `best` (n,), and the chance of just that."""
    pushed = visits.keen & visits.pushed
    shown = np.where(visits.audit, visits.any, np.where(pushed, 0, best))
    by_rule = np.where(
        visits.keen, PUSHED * (shown == 0) + (1.0 - PUSHED) * (shown == best), shown == best
    )
    return shown, CHANCE / BANNERS + (1.0 - CHANCE) * by_rule


def row(visit: str, banner: int, match: float) -> dict[str, Any]:
    """What the model is asked."""
    return {"visit": visit, "banner": f"banner {banner}", "match": match}


def history(world: World) -> pa.Table:
    """Visits before there was a model: any banner was shown."""
    rows = []
    for turn in range(20):
        visits = world.turn()
        for place, banner in enumerate(visits.any):
            made = row(f"past {turn}-{place}", int(banner), float(visits.match[place, banner]))
            rows.append(made | {"click": int(visits.clicks[place, banner]), "weight": 1.0})
    return pa.Table.from_pylist(rows)


def chances(handle: Any, asked: list[dict[str, Any]]) -> Floats:
    """The probability of a click in each row; nothing is logged."""
    return np.array([one.probabilities[1] for one in handle.predict(asked, log=False)])


def run(name: str, seed: int, folder: Path, turns: int, count: int) -> tuple[Floats, float]:
    """Live through the turns with one of the three models.

    Returns:
        The log loss of each visit of the audit slice, and the share of the other visits with a
        click, both without the first fifth.
    """
    world, moment = World(seed, count), START
    hurry = np.random.default_rng([seed, 1])
    losses: list[Floats] = []
    earned: list[float] = []
    coming: list[tuple[int, str]] = []
    with el.open(folder, clock=lambda: moment) as workspace:
        handle = workspace.model(model.replace(labels=POLICIES[name]))
        handle.train(history(world), source="history")
        for turn in range(turns):
            visits, every = world.turn(), np.arange(count)
            asked = [
                row(f"{turn}-{visit}", banner, float(visits.match[visit, banner]))
                for visit in range(count)
                for banner in range(BANNERS)
            ]
            liked = chances(handle, asked).reshape(count, BANNERS)
            shown, propensity = choose(visits, liked.argmax(axis=1))
            answers: Any = handle.predict(
                [asked[visit * BANNERS + banner] for visit, banner in enumerate(shown)],
                propensities=propensity.tolist(),
            )
            clicked, chance, audit = visits.clicks[every, shown], liked[every, shown], visits.audit
            if turn >= turns // 5:
                right = np.where(clicked == 1.0, chance, 1.0 - chance)[audit]
                losses.append(-np.log(np.clip(right, 1e-6, 1.0)))
                earned.extend(clicked[~audit])
            if name == "frozen":
                moment += TURN * MINUTE
                continue
            for visit in np.flatnonzero(clicked):
                delay = int(hurry.exponential(4.0) * MINUTE)
                coming.append((moment + delay, answers[visit].id))
            coming.sort()
            end = moment + TURN * MINUTE
            said = [one for one in coming if one[0] < end]
            del coming[: len(said)]
            moment = end
            handle.log.append_labels(
                [Label("click", prediction, kind="implicit", at=at) for at, prediction in said]
            )
            handle.trigger()
            workspace.work(once=True)
    return np.concatenate(losses), float(np.mean(earned))


def compare(seeds: int, turns: int, count: int) -> dict[str, Any]:
    """Run some seeds; means, and gains with their intervals."""
    losses: dict[str, list[Floats]] = {name: [] for name in POLICIES}
    earned: dict[str, list[float]] = {name: [] for name in POLICIES}
    for seed in range(seeds):
        for name in POLICIES:
            with tempfile.TemporaryDirectory() as folder:
                loss, clicks = run(name, seed, Path(folder), turns, count)
            losses[name].append(loss)
            earned[name].append(clicks)
    audited = {name: np.concatenate(found) for name, found in losses.items()}
    return {
        "seeds": seeds,
        "audited": len(audited["loop"]),
        "models": {
            name: {"log_loss": float(audited[name].mean()), "clicks": float(np.mean(earned[name]))}
            for name in POLICIES
        },
        "gain": {
            f"over_{name}": mean_interval(audited[name] - audited["loop"]).to_json()
            for name in ("frozen", "naive")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, fewer visits")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    found = compare(1, 30, 200) if given.quick else compare(3, 80, 200)
    if given.json:
        print(json.dumps(found))
        return
    print(f"{found['audited']:,} visits with a banner chosen by chance, {found['seeds']} seeds")
    print(f"{'':10}{'log loss':>10}{'clicks of the other visits':>30}")
    for name, metrics in found["models"].items():
        print(f"{name:10}{metrics['log_loss']:10.4f}{metrics['clicks']:30.1%}")
    for name, gain in found["gain"].items():
        print(
            f"loop {name.replace('_', ' ')}: log loss lower by {gain['mean']:.4f} "
            f"(95 %: {gain['low']:.4f} to {gain['high']:.4f})"
        )


if __name__ == "__main__":
    main()
