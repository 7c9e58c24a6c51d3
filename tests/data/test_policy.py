"""Which label counts, and how much."""

from collections.abc import Sequence

import numpy as np
import pytest

from everlearn.base import SpecError
from everlearn.data.policy import (
    MATURITY,
    TAKEN_BACK,
    UNDECIDED,
    LabelPolicy,
    Said,
    microseconds,
)
from everlearn.registry.config import from_config, to_config


def said(*labels: tuple[str, object] | tuple[str, object, str]) -> list[Said]:
    """Labels in the log's order: (kind, value, source or the kind)."""
    return [
        Said(place, label[0], label[2] if len(label) > 2 else label[0], None, label[1])  # type: ignore[arg-type, misc]
        for place, label in enumerate(labels, start=1)
    ]


def settled(policy: LabelPolicy, labels: Sequence[Said]) -> object:
    verdict = policy.settle(labels)
    return verdict.reason if verdict.winner is None else verdict.value


def test_the_last_label_counts_unless_it_is_taken_back() -> None:
    policy = LabelPolicy()
    assert settled(policy, said(("human", 1), ("implicit", 0))) == 0
    assert settled(policy, said(("human", 1), ("implicit", None))) == TAKEN_BACK


def test_the_best_source_counts_whenever_it_spoke() -> None:
    policy = LabelPolicy("priority", priority=("expert", "human", "explicit"))
    assert settled(policy, said(("human", 1), ("explicit", 0), ("implicit", 0))) == 1
    assert settled(policy, said(("human", 1), ("implicit", 0, "expert"), ("human", 1))) == 0
    assert settled(policy, said(("human", 1), ("explicit", 0), ("human", None))) == 0
    assert settled(policy, said(("implicit", 1, "a"), ("system", 0, "b"))) == 0  # both come last


def test_the_majority_counts_each_speaker_once() -> None:
    policy = LabelPolicy("majority")
    votes = said(("human", 1, "a"), ("human", 0, "b"), ("human", 0, "b"), ("human", 1, "c"))
    assert settled(policy, votes) == 1
    assert settled(policy, votes[:3]) == 0  # as many for both: what was said last


def test_nothing_counts_before_enough_agree() -> None:
    policy = LabelPolicy("agreement", agreement=2)
    votes = said(("human", 1, "a"), ("human", 0, "b"), ("human", 1, "c"), ("human", 0, "d"))
    answers = [settled(policy, votes[:count]) for count in (1, 2, 3, 4)]
    assert answers == [UNDECIDED, UNDECIDED, 1, UNDECIDED]


@pytest.mark.parametrize("conflict", ["last", "priority", "majority"])
def test_what_a_closed_window_says_counts_only_alone(conflict: str) -> None:
    policy = LabelPolicy(conflict, priority=("system", "implicit"))  # type: ignore[arg-type]
    window = ("system", 0, MATURITY)
    assert settled(policy, said(window)) == 0
    assert settled(policy, said(("implicit", 1), window)) == 1
    assert settled(policy, said(window, ("explicit", 1))) == 1


def test_signals_stand_for_values_and_weights() -> None:
    policy = LabelPolicy(signals={"click": (1, 1.0), "hide": (0, 0.5)})
    (one,) = said(("implicit", "hide"))
    verdict = policy.settle([one._replace(weight=4.0)])
    assert (verdict.value, verdict.weight) == (0, 2.0)
    assert policy.settle(said(("explicit", 7))).value == 7
    same = said(("implicit", "click", "a"), ("explicit", 0, "b"), ("explicit", 1, "c"))
    assert settled(LabelPolicy("majority", signals=policy.signals), same) == 1


def test_inverse_chances_are_clipped_and_bounded_by_the_audit() -> None:
    policy = LabelPolicy(propensity="inverse", clip=10.0)
    assert policy.factor(None, None) == 1.0 and policy.factor(0.5, 0.5) == 4.0
    assert policy.factor(0.001, None) == 10.0 and policy.factor(0.0, None) == 10.0
    audited = LabelPolicy(propensity="inverse", clip=100.0, audit=0.1)
    assert audited.factor(0.0, None) == 10.0
    assert audited.factor(0.5, None) == pytest.approx(1 / (0.1 + 0.9 * 0.5))
    assert LabelPolicy().factor(0.1, 0.1) == 1.0


def test_the_audit_takes_its_share_of_predictions() -> None:
    policy = LabelPolicy(audit=0.2)
    taken = [policy.audited(number) for number in range(10_000)]
    assert 1850 < sum(taken) < 2150
    assert not LabelPolicy().audited(5) and LabelPolicy(audit=1.0).audited(5)


def test_intervals_of_inverse_propensities_cover_the_truth() -> None:
    """A log in which an output was shown by chance; its value is estimated from weighted labels."""
    policy = LabelPolicy(propensity="inverse", clip=20.0)
    random = np.random.default_rng(3)
    runs, n, truth = 2000, 1000, 0.35
    inside = np.zeros(2)
    for _ in range(runs):
        x = random.random(n)
        chance = 0.1 + 0.8 * x  # the shown ones are not like all of them
        shown = random.random(n) < chance
        y = random.random(n) < 0.2 + 0.3 * x
        factors = np.array([policy.factor(p, None) for p in chance[shown].tolist()])
        weights = np.zeros(n)
        weights[shown] = factors
        ips = weights * y
        inside[0] += abs(ips.mean() - truth) <= 1.96 * ips.std(ddof=1) / np.sqrt(n)
        snips = ips.sum() / weights.sum()
        spread = np.sqrt(np.sum((weights * (y - snips)) ** 2)) / weights.sum()
        inside[1] += abs(snips - truth) <= 1.96 * spread
    assert np.all((inside / runs >= 0.93) & (inside / runs <= 0.97)), inside / runs


def test_spans_of_time() -> None:
    assert [microseconds(text) for text in ("90s", "1.5h", "7d")] == [
        90_000_000,
        5_400_000_000,
        604_800_000_000,
    ]


@pytest.mark.parametrize(
    "said",
    [
        {"conflict": "first"},
        {"maturity": "soon"},
        {"unlabelled": "negative", "maturity": "7d"},
        {"unlabelled": "negative", "negative": 0},
        {"signals": {"click": (1, -1.0)}},
        {"clip": 0.5},
        {"audit": 2.0},
        {"agreement": 0},
        {"priority": "human"},
    ],
)
def test_what_cannot_be_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        LabelPolicy(**said)  # type: ignore[arg-type]


def test_a_policy_is_kept_with_its_model() -> None:
    policy = LabelPolicy("priority", maturity="7d", signals={"click": (1, 1.0)})
    assert from_config(to_config(policy)) == policy
