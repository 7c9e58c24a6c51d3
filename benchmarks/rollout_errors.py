"""How often rollouts and drift triggers are wrong, and how soon they are right, by simulation.

    python benchmarks/rollout_errors.py [--runs 1000] [--seed 0] [--out FILE]

Every decision is the judge's own (`everlearn.rollout.judge`), or that of `everlearn.Drift`. Where
arms are apart by less than `SURE` standard errors, no bound of the judge, which is wider, can be
crossed, and it is not asked; in the first run of each setting it is asked at every look, and has to
say the same.

`naive` is what a z-test at .05 would have said at any of the same looks.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.stats import beta

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.drift_errors import drift_tables
from everlearn.base import Floats, Ints
from everlearn.evaluation.sequences import Moments
from everlearn.rollout.judge import Arm, Seen, judge
from everlearn.rollout.plans import ABTest, Canary, Plan, Shadow
from everlearn.rollout.traffic_ratio import TrafficRatio

BASE = 0.10
"""Share of the champion's answers that are wrong."""

SURE = 2.8
"""Standard errors of both arms, added up, below which the judge is not asked. Its bounds are wider
than sqrt(2 log(1 / alpha)) of them, which is more than 3."""

PART = 100
"""Runs that are in memory at once."""


@dataclass(slots=True)
class Ended:
    """How the runs of one setting ended.

    Args:
        actions: "pass", "roll back" or "hold", one for each run.
        labels: of the candidate, when it was decided.
        naive: runs in which a z-test at .05 was significant for harm at any look.
    """

    actions: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    naive: int = 0

    def share(self, action: str) -> str:
        """Of the runs, with its interval (Clopper & Pearson 1934, at 95 %)."""
        return share(self.actions.count(action), len(self.actions))


def share(hits: int, runs: int) -> str:
    """A share as text, with its interval (Clopper & Pearson 1934, at 95 %).

    >>> share(0, 1000)
    '0.0 % (0.0–0.4)'
    """
    low = beta.ppf(0.025, hits, runs - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, runs - hits) if hits < runs else 1.0
    return f"{hits / runs:.1%} ({100 * low:.1f}–{100 * high:.1f})".replace("%", " %")


def errors_of(
    plan: Plan,
    worse: float,
    labels: int,
    runs: int,
    rng: np.random.Generator,
    *,
    every: int = 1,
    stage: int = 0,
) -> Ended:
    """One stage of a plan by accuracy, while the candidate is wrong more often by `worse`.

    Args:
        labels: of both arms, after which a run ends.
        every: labels between two looks.
    """
    ended, looks, part = Ended(), labels // every, plan.stages[stage].share
    while (size := min(PART, runs - len(ended.actions))) > 0:
        ours = rng.binomial(every, part, (size, looks))
        wrong = rng.binomial(ours, BASE + worse).cumsum(axis=1)
        others = rng.binomial(every - ours, BASE).cumsum(axis=1)
        ours = ours.cumsum(axis=1)
        _shares(plan, part, (ours, wrong), (every * np.arange(1, looks + 1) - ours, others), ended)
    return ended


Counted = tuple[Ints, Ints]
"""(runs, looks) labels of an arm so far, and wrong answers among them."""


def _shares(plan: Plan, part: float, candidate: Counted, champion: Counted, ended: Ended) -> None:
    def seen(run: int, look: int) -> Seen:
        found = [(int(n[run, look]), int(k[run, look])) for n, k in (candidate, champion)]
        arms = [Arm(n, loss=_zero_one(n, k)) for n, k in found]
        return Seen(
            arms[0], arms[1], ratio=TrafficRatio(part).seen(arms[0].requests, arms[1].requests)
        )

    plain, smooth, error = [], [], []
    for n, k in (candidate, champion):
        p = k / np.maximum(n, 1)
        plain.append(np.sqrt(p * (1.0 - p) / np.maximum(n, 1)))
        smooth.append((k + 1.0) / (n + 2.0))
        error.append(np.sqrt(smooth[-1] * (1.0 - smooth[-1]) / (n + 2.0)))
    apart = candidate[1] / np.maximum(candidate[0], 1) - champion[1] / np.maximum(champion[0], 1)
    enough = (candidate[0] >= 100) & (champion[0] >= 100)
    naive = (apart > 1.96 * np.hypot(*plain)) & enough
    ended.naive += int(naive.any(axis=1).sum())
    _decide(plan, smooth[0] - smooth[1], error[0] + error[1], seen, candidate[0], True, ended)


def _zero_one(n: int, ones: int) -> Moments:
    mean = ones / n if n else 0.0
    return Moments(n, mean, n * mean * (1.0 - mean))


def paired(
    plan: Plan, worse: float, labels: int, runs: int, rng: np.random.Generator, *, every: int = 1
) -> Ended:
    """A shadow: differences of the losses of the same rows, skewed, of deviation 1 and mean
    `worse`."""
    ended, looks = Ended(), labels // every
    n = every * np.arange(1, looks + 1)
    while (size := min(PART, runs - len(ended.actions))) > 0:
        apart = worse + rng.exponential(size=(size, looks, every)) - 1.0
        means = apart.sum(axis=2).cumsum(axis=1) / n
        spreads = (apart**2).sum(axis=2).cumsum(axis=1) - n * means**2
        error = np.sqrt(np.maximum(spreads, 0.0)) / n
        ended.naive += int(((means > 1.96 * error) & (n >= 100)).any(axis=1).sum())
        _pairs(plan, n, means, spreads, error, ended)
    return ended


def _pairs(
    plan: Plan, n: Ints, means: Floats, spreads: Floats, error: Floats, ended: Ended
) -> None:
    def seen(run: int, look: int) -> Seen:
        one = Moments(int(n[look]), float(means[run, look]), float(spreads[run, look]))
        return Seen(apart=one)

    _decide(plan, means, error, seen, np.broadcast_to(n, means.shape), False, ended)


Look = Callable[[int, int], Seen]
"""What was seen by a look of a run."""


def _decide(
    plan: Plan, apart: Floats, error: Floats, seen: Look, labels: Ints, ones: bool, ended: Ended
) -> None:
    """Each run until it is decided.

    Args:
        apart, error: (runs, looks) how much worse the candidate looks, and the standard errors.
        seen: what was seen.
        labels: (runs, looks) of the candidate.
        ones: whether losses are 0 or 1.
        ended: to add to.
    """
    margin = plan.bounds.margin
    goal = 0.0 if plan.must_be_better else margin
    asked = (apart - margin > SURE * error) | (apart - goal < -SURE * error)
    for run in range(len(apart)):
        found = _one(plan, seen, run, np.flatnonzero(asked[run]).tolist(), ones)
        if not ended.actions:
            assert found == _one(plan, seen, run, range(apart.shape[1]), ones)
        ended.actions.append(found[0])
        ended.labels.append(int(labels[run, found[1]]))


def _one(plan: Plan, seen: Look, run: int, looks: Sequence[int], ones: bool) -> tuple[str, int]:
    for look in looks:
        action = judge(plan, seen(run, look), ones).action
        if action != "hold":
            return action, int(look)
    return "hold", -1


def same_tables(runs: int, rng: np.random.Generator) -> list[str]:
    """Two that are the same, and one that is worse by just the margin."""
    lines = [
        "## A/A: the candidate is the champion",
        "",
        f"{runs:,} runs each, a look after every label, 95 % intervals. The level is .95: at most",
        "5 % of the rollouts may go wrong, over all questions, stages and looks.",
        "",
        "| plan | labels | rolled back | promoted | naive: harm at any look |",
        "|---|---:|---:|---:|---:|",
    ]
    cases: list[tuple[str, Plan, int]] = [
        ("Canary([50], margin=0)", Canary([50], margin=0.0), 10_000),
        ("Canary([5], margin=0)", Canary([5], margin=0.0), 10_000),
        ("ABTest 50/50, margin=0", ABTest(margin=0.0), 10_000),
        ("ABTest 80/20, margin=.01", ABTest({"champion": 80, "candidate": 20}), 10_000),
    ]
    for name, plan, labels in cases:
        ended = errors_of(plan, 0.0, labels, runs, rng)
        row = f"| {name} | {labels:,} | {ended.share('roll back')} | {ended.share('pass')} |"
        lines.append(f"{row} {share(ended.naive, runs)} |")
    ended = paired(Shadow(margin=0.0), 0.0, 5_000, runs, rng)
    row = f"| Shadow(margin=0), skewed losses | 5,000 | {ended.share('roll back')} |"
    lines.append(f"{row} {ended.share('pass')} | {share(ended.naive, runs)} |")
    steps = Canary([1, 5, 25, 50], margin=0.0)
    wrong = [False] * runs
    for stage in range(4):
        ended = errors_of(steps, 0.0, 10_000, runs, rng, stage=stage)
        wrong = [w or a == "roll back" for w, a in zip(wrong, ended.actions, strict=True)]
    lines.append(f"| Canary([1, 5, 25, 50], margin=0), any stage | 4 × 10,000 | "
                 f"{share(sum(wrong), runs)} | – | – |")  # fmt: skip
    lines += [
        "",
        "A false promotion of a canary is one of a candidate that is worse by the margin or more:",
        "",
        "| plan | the candidate is worse by | labels | passed | rolled back |",
        "|---|---:|---:|---:|---:|",
    ]
    for margin in (0.01, 0.03):
        plan = Canary([50], margin=margin)
        ended = errors_of(plan, margin, 10_000, runs, rng)
        lines.append(
            f"| Canary([50], margin={margin}) | {margin:.0%} | 10,000 | {ended.share('pass')} |"
            f" {ended.share('roll back')} |"
        )
    ended = paired(Shadow(margin=0.1), 0.1, 5_000, runs, rng)
    lines.append(
        f"| Shadow(margin=.1 sd), skewed losses | .1 sd | 5,000 | {ended.share('pass')} |"
        f" {ended.share('roll back')} |"
    )
    return [*lines, ""]


def harm_tables(runs: int, rng: np.random.Generator) -> list[str]:
    """What is worse is rolled back: how surely, and after how many labels."""
    most, budgets = 40_000, (250, 500, 1000, 2000, 5000, 10_000, 20_000)
    lines = [
        "## Harm: the candidate is wrong more often",
        "",
        f"The champion is wrong in {BASE:.0%}; Canary([50], margin=0), {runs:,} runs of",
        f"{most:,} labels (half of them the candidate's), a look after every 100.",
        "",
        "| worse by | rolled back | promoted | candidate's labels, median | 90 % |",
        "|---:|---:|---:|---:|---:|",
    ]
    power = [
        "",
        "Power: share rolled back by the time that the candidate has so many labels.",
        "",
        "| worse by | " + " | ".join(f"{count:,}" for count in budgets) + " |",
        "|---:|" + "---:|" * len(budgets),
    ]
    for worse in (0.01, 0.02, 0.03, 0.05, 0.10, 0.20):
        ended = errors_of(Canary([50], margin=0.0), worse, most, runs, rng, every=100)
        needed = np.array(
            [
                labels if action == "roll back" else np.inf
                for action, labels in zip(ended.actions, ended.labels, strict=True)
            ]
        )
        half, nine = np.quantile(needed, [0.5, 0.9], method="inverted_cdf")
        lines.append(
            f"| {100 * worse:.0f} points | {ended.share('roll back')} | {ended.share('pass')} |"
            f" {_count(half)} | {_count(nine)} |"
        )
        shares = [f"{(needed <= count).mean():.0%}".replace("%", " %") for count in budgets]
        power.append(f"| {100 * worse:.0f} points | " + " | ".join(shares) + " |")
    return lines + power + _paired_power(runs, rng)


def _paired_power(runs: int, rng: np.random.Generator) -> list[str]:
    budgets = (100, 200, 500, 1000, 2000, 5000)
    lines = [
        "",
        "The same of a shadow, whose losses are compared row by row; in deviations of the",
        "difference. Below 100 labels nothing is said.",
        "",
        "| worse by | " + " | ".join(f"{count:,}" for count in budgets) + " |",
        "|---:|" + "---:|" * len(budgets),
    ]
    for worse in (0.05, 0.1, 0.2, 0.5, 1.0):
        ended = paired(Shadow(margin=0.0), worse, 5000, runs, rng, every=10)
        rolled = np.array([action == "roll back" for action in ended.actions])
        shares = [(rolled & (np.array(ended.labels) <= count)).mean() for count in budgets]
        cells = [f"{one:.0%}".replace("%", " %") for one in shares]
        lines.append(f"| {worse:g} sd | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _count(labels: float) -> str:
    return f"{labels:,.0f}" if np.isfinite(labels) else "more"


def main() -> None:
    """Simulate, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    began = time.perf_counter()
    rng = np.random.default_rng(options.seed)
    made = same_tables(options.runs, rng) + harm_tables(max(20, options.runs // 2), rng)
    made += drift_tables(max(10, options.runs // 5), rng, share)
    seconds = time.perf_counter() - began
    head = [
        "# How often rollouts and drift triggers are wrong",
        "",
        f"`python benchmarks/rollout_errors.py --runs {options.runs} --seed {options.seed}`,"
        f" {seconds:.0f} s, Python {platform.python_version()}, {platform.system()}"
        f" {platform.machine()}. Simulated; no server.",
        "",
    ]
    text = "\n".join(head + made).rstrip() + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
