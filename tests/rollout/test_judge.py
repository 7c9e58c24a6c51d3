"""Harm is rolled back, what is not sure is held, and looking often changes neither."""

import numpy as np
import pytest

from everlearn.base import SpecError
from everlearn.evaluation.sequences import Moments
from everlearn.rollout.judge import Arm, Seen, judge
from everlearn.rollout.plans import ABTest, Canary, Shadow
from everlearn.rollout.traffic_ratio import TrafficRatio


def run(plan, share, truth, champion=0.10, requests=40_000, every=200, seed=0):
    """The decision of one stage, looked at after every so many requests whose labels are known at
    once, and how many requests it took."""
    generator = np.random.default_rng(seed)
    arms, ratio = {True: Moments(), False: Moments()}, TrafficRatio(share)
    for start in range(0, requests, every):
        ours = generator.random(every) < share
        wrong = generator.random(every) < np.where(ours, truth, champion)
        for arm in (True, False):
            arms[arm] = arms[arm].add(wrong[ours == arm].astype(float))
        ratio = ratio.seen(int(ours.sum()), int((~ours).sum()))
        seen = Seen(
            Arm(arms[True].n, loss=arms[True]), Arm(arms[False].n, loss=arms[False]), ratio=ratio
        )
        found = judge(plan, seen, zero_one=True)
        if found.action != "hold":
            return found.action, start + every
    return "hold", requests


def test_two_that_are_the_same_are_hardly_ever_rolled_back():
    found = [
        run(Canary([50], margin=0.0), 0.5, 0.10, requests=10_000, seed=seed)[0]
        for seed in range(150)
    ]
    assert found.count("roll back") <= 0.05 * 150


def test_a_harm_of_three_points_is_rolled_back_and_nothing_is_promoted():
    found = [run(Canary([25], margin=0.0), 0.25, 0.13, seed=seed) for seed in range(40)]
    assert [action for action, _ in found].count("roll back") >= 38
    assert np.median([requests for _, requests in found]) < 25_000


def test_what_is_not_worse_by_more_than_the_margin_passes():
    found = [run(Canary([50], margin=0.03), 0.5, 0.10, seed=seed)[0] for seed in range(20)]
    assert found.count("pass") >= 19


def test_a_test_promotes_only_what_is_better():
    assert run(ABTest(), 0.5, 0.10)[0] == "hold"
    assert run(ABTest(), 0.5, 0.05)[0] == "pass"
    assert run(ABTest(), 0.5, 0.20)[0] == "roll back"


def test_a_shadow_compares_on_the_same_rows():
    generator = np.random.default_rng(0)
    base = generator.exponential(size=2000)
    for apart, action in ((0.0, "pass"), (0.1, "roll back")):
        moments = Moments().add(apart + 0.05 * generator.normal(size=2000) + 0 * base)
        assert judge(Shadow(), Seen(apart=moments), zero_one=False).action == action
    other = Seen(apart=Moments().add(0.01 * generator.normal(size=500)))
    changed = Seen(apart=other.apart, differs=Moments().add(np.ones(500)))
    assert judge(Shadow(churn=0.2), other, zero_one=False).action == "pass"
    found = judge(Shadow(churn=0.2), changed, zero_one=False)
    assert found.action == "roll back"
    assert "otherwise" in found.reason


def test_without_traffic_or_labels_it_holds():
    for plan in (Shadow(), Canary(), ABTest()):
        assert judge(plan, Seen(), zero_one=True).action == "hold"
    arm = Arm(100_000)
    assert judge(Canary(), Seen(arm, arm), zero_one=True).action == "hold"


def test_failing_answers_and_slow_ones_are_rolled_back():
    generator = np.random.default_rng(0)
    fails = Seen(Arm(500, errors=60), Arm(50_000, errors=20))
    found = judge(Canary(), fails, zero_one=True)
    assert found.action == "roll back"
    assert "fails to answer" in found.reason
    quick, slow = (Moments().add(generator.exponential(t, 1000)) for t in (0.01, 0.05))
    found = judge(Canary(), Seen(Arm(seconds=slow), Arm(seconds=quick)), zero_one=True)
    assert "times as long" in found.reason
    assert judge(Canary(), Seen(Arm(seconds=quick), Arm(seconds=slow)), True).action == "hold"


def test_wrong_shares_of_traffic_hold():
    good = Moments().add(np.zeros(5000))
    seen = Seen(
        Arm(5000, loss=good), Arm(4000, loss=good), ratio=TrafficRatio(0.5).seen(5000, 4000)
    )
    found = judge(Canary([50], margin=0.1), seen, zero_one=True)
    assert found.action == "hold"
    assert "traffic" in found.reason
    even = Seen(seen.candidate, seen.champion, ratio=TrafficRatio(0.5).seen(4500, 4500))
    assert judge(Canary([50], margin=0.1), even, zero_one=True).action == "pass"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Canary([]), "steps"),
        (lambda: Canary([5, 1]), "steps"),
        (lambda: Canary([50, 150]), "steps"),
        (lambda: ABTest({"a": 50, "b": 50}), "shares"),
        (lambda: ABTest({"champion": 50, "candidate": 60}), "shares"),
        (lambda: Shadow(metric="speed"), "metric"),
        (lambda: Shadow(level=1.0), "level"),
        (lambda: Canary([1], margin=-1.0), "margin"),
        (lambda: Canary([1], churn=2.0), "churn"),
    ],
)
def test_plans_that_cannot_be_are_refused(make, match):
    with pytest.raises(SpecError, match=match):
        make()
