"""Moderation: people decide what is right, and feedback comes only from what was removed.

A model removes posts that probably break the rules. Authors whose posts were removed may appeal;
nobody appeals against a post that stayed. So feedback comes from removed posts only, most of it
from those that were removed by mistake, and a new kind of abuse that the model does not know is
never reported. `Review` asks people about posts that the model is unsure of and about some by
chance, whatever the model says, with a chance that is known. Three people answer for each; one of
them is careless and lets most things pass.

Five models live through the same posts. "frozen" never learns. "appeals" learns what appeals say.
"raw review" learns what the review queue says, the last answer as it came. "agreement" learns what
two of three agree on, and "loop" weighs that by the chance with which the post was chosen
(`LabelPolicy("agreement", propensity="inverse")`). They are judged on all posts: how much of what
breaks the rules is among the most suspicious 10 %, and the log loss.

    python examples/moderation.py           # 18 days, three seeds
    python examples/moderation.py --quick   # some seconds
    python examples/moderation.py --json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import everlearn as el
from everlearn.base import Floats
from everlearn.data.feedback import PredictionIds
from everlearn.evaluation.intervals import mean_interval

DAY = 86_400_000_000
START = 1_704_067_200_000_000
"""2024-01-01 UTC, in microseconds."""

SHARE = 0.1
"""Of posts, that break the rules; and of the most suspicious ones that are looked at."""

TURNS = 5
"""Days after which a new kind of abuse takes the place of the old one."""

MISTAKES = {"ada": (0.03, 0.03), "ben": (0.03, 0.03), "cas": (0.7, 0.2)}
"""Reviewer → how often he lets pass what breaks the rules, and condemns what does not."""

POLICIES = {
    "frozen": None,
    "appeals": el.LabelPolicy(),
    "raw review": el.LabelPolicy(),
    "agreement": el.LabelPolicy("agreement", agreement=2),
    "loop": el.LabelPolicy("agreement", agreement=2, propensity="inverse"),
}

RATES = {"loop": 0.03}
"""Learning rates, 0.15 unless named: of some from 0.03 to 0.4, those with the lowest log loss. Rows
that weigh more make larger steps, so one rate for all would compare rates."""

model = el.Model(
    "moderation",
    schema=el.Schema(target="bad", id="post", weight="weight", categorical=("topic",)),
    triggers=(el.Volume(30),),
    review=el.Review(share=0.5, uncertain=0.6, random=0.2, reviewers=3),
    holdout=0.0,
)


def posts(random: np.random.Generator, day: int, count: int) -> tuple[list[Any], Floats]:
    """The posts of a day, and which break the rules (1.0)."""
    bad = random.random(count) < SHARE
    new = min(max(day, 0) / TURNS, 1.0)
    rows = []
    for place in range(count):
        insults, links, capitals = random.normal(0.0, 1.0, 3)
        topic = str(random.choice(["games", "music", "news", "pets"]))
        if bad[place]:
            if random.random() < new:  # spam that looks polite
                links, insults, topic = links + 2.0, insults - 0.5, "pets"
            else:
                insults, capitals = insults + 2.0, capitals + 1.0
        rows.append(
            {
                "post": f"{day}-{place}",
                "insults": float(insults),
                "links": float(links),
                "capitals": float(capitals),
                "topic": topic,
            }
        )
    return rows, bad.astype(np.float64)


def opinion(random: np.random.Generator, reviewer: str, bad: float) -> int:
    """What a reviewer says of a post."""
    passes, condemns = MISTAKES[reviewer]
    return int(random.random() >= passes) if bad else int(random.random() < condemns)


def appeal(random: np.random.Generator, handle: Any, answers: Any, bad: Floats) -> None:
    """Authors of removed posts appeal: most where it was a mistake, few where it was none. The
    reviewer who has time decides."""
    for answer, truth in zip(answers, bad, strict=True):
        if answer.value == 1 and random.random() < (0.2 if truth else 0.8):
            reviewer = str(random.choice(list(MISTAKES)))
            handle.feedback(answer.id, opinion(random, reviewer, truth), kind="human")


def review(random: np.random.Generator, handle: Any, truth: dict[str, float]) -> None:
    """Each reviewer works the queue to its end, in an order that chance makes."""
    for reviewer in random.permutation(list(MISTAKES)):
        for item in handle.reviewers.next(str(reviewer), limit=1000):
            said = opinion(random, str(reviewer), truth[item.prediction])
            handle.reviewers.answer(str(reviewer), item.id, said)


def run(name: str, seed: int, folder: Path, days: int, count: int) -> tuple[Floats, Floats]:
    """Live through the days with one of the models; the truth and the chances that it gave, a row
    for each day after the first third."""
    random, people, moment = np.random.default_rng(seed), np.random.default_rng([seed, 1]), START
    bads, given = [], []
    with el.open(folder, clock=lambda: moment) as workspace:
        workspace.ids = PredictionIds(lambda: moment, process=0)  # the same sample each time
        reviewed = name not in ("frozen", "appeals")
        made = model.replace(
            learner=el.learners.LogisticRegression(learning_rate=RATES.get(name, 0.15)),
            labels=POLICIES[name],
            review=model.review if reviewed else None,
        )
        handle = workspace.model(made)
        rows, bad = posts(random, -1, 2000)
        past = [r | {"bad": int(b), "weight": 1.0} for r, b in zip(rows, bad, strict=True)]
        handle.train(pa.Table.from_pylist(past), source="history")
        for day in range(days):
            moment = START + day * DAY
            rows, bad = posts(random, day, count)
            answers: Any = handle.predict(rows, log=name != "frozen")
            if day >= days // 3:
                bads.append(bad)
                given.append([answer.probabilities[1] for answer in answers])
            if name == "appeals":
                appeal(people, handle, answers, bad)
            elif reviewed:
                truth = {answer.id: one for answer, one in zip(answers, bad, strict=True)}
                review(people, handle, truth)
            handle.trigger()
            workspace.work(once=True)
    return np.array(bads), np.array(given)


def caught(bad: Floats, score: Floats) -> float:
    """The share of what breaks the rules that is among the most suspicious posts."""
    looked_at = np.argsort(-score, kind="stable")[: round(SHARE * len(score))]
    return float(bad[looked_at].sum() / bad.sum())


def compare(seeds: int, days: int, count: int) -> dict[str, Any]:
    """Run some seeds; means by model, and what the loop gains over each other one, by days."""
    recall: dict[str, list[float]] = {name: [] for name in POLICIES}
    loss: dict[str, list[float]] = {name: [] for name in POLICIES}
    for seed in range(seeds):
        for name in POLICIES:
            with tempfile.TemporaryDirectory() as folder:
                bads, given = run(name, seed, Path(folder), days, count)
            for bad, score in zip(bads, np.clip(given, 1e-6, 1.0 - 1e-6), strict=True):
                recall[name].append(caught(bad, score))
                loss[name].append(float(-np.log(np.where(bad == 1.0, score, 1.0 - score)).mean()))
    groups = np.repeat(np.arange(seeds), len(recall["loop"]) // seeds)

    def gain(figures: dict[str, list[float]], name: str) -> Any:
        apart = np.array(figures["loop"]) - np.array(figures[name])
        return mean_interval(apart, groups=groups if seeds > 2 else None).to_json()

    others = [name for name in POLICIES if name != "loop"]
    return {
        "seeds": seeds,
        "posts": seeds * days * count,
        "models": {
            name: {"caught": float(np.mean(recall[name])), "log_loss": float(np.mean(loss[name]))}
            for name in POLICIES
        },
        "gain": {
            f"over_{name}": {"caught": gain(recall, name), "log_loss": gain(loss, name)}
            for name in others
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, fewer days")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    found = compare(1, 9, 150) if options.quick else compare(3, 18, 300)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{found['posts']:,} posts, {found['seeds']} seeds")
    print(f"{'':12}{'caught':>10}{'log loss':>10}   {'the loop catches more (95 %)'}")
    for name, metrics in found["models"].items():
        line = f"{name:12}{metrics['caught']:10.1%}{metrics['log_loss']:10.4f}"
        if name != "loop":
            more = found["gain"][f"over_{name}"]["caught"]
            line += f"   {more['mean']:+.1%} ({more['low']:+.1%} to {more['high']:+.1%})"
        print(line)


if __name__ == "__main__":
    main()
