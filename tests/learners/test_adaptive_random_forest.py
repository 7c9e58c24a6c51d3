"""Adaptive random forests: the algorithm spelled out, River, drift, threads, parameters."""

import math

import numpy as np
import pytest

from everlearn.base import SpecError, state_digest
from everlearn.evaluation import ADWIN
from everlearn.learners import AdaptiveRandomForestClassifier, HoeffdingTreeClassifier
from everlearn.learners.native.forest import chosen_features, poisson_table
from everlearn.learners.native.random import generator, uniform


def turning(rows, seed=0, columns=4, noise=0.05):
    """A rule of two columns that turns round in the middle of the rows."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(rows, columns))
    y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
    y[rows // 2 :] ^= 1
    return X, y ^ (random.random(rows) < noise)


class SpelledOut:
    """A forest whose leaves look at all columns, by the paper: out of trees and detectors."""

    def __init__(self, n_models, seed, mean, **tree):
        self.tree, self.mean = tree, mean
        self.members = [
            {
                "tree": self.fresh(),
                "spare": None,
                "drift": ADWIN(0.001),
                "warning": ADWIN(0.01),
                "draws": generator(seed, number, 2),
                "right": 0.0,
                "seen": 0.0,
            }
            for number in range(n_models)
        ]

    def fresh(self):
        return HoeffdingTreeClassifier(classes=3, **self.tree)

    def poisson(self, draws):
        at, number, chance = uniform(draws), 0, math.exp(-self.mean)
        total = chance
        while at >= total:
            number += 1
            chance *= self.mean / number
            total += chance
        return number

    def score_then_learn(self, x, y, weight):
        votes = [self.vote(member, x, y, weight) for member in self.members]
        return sum(votes) / sum(votes).sum()

    def vote(self, member, x, y, weight):
        proba = member["tree"].predict_proba(x[None])[0]
        vote = proba * (member["right"] + 1.0) / (member["seen"] + 3.0)
        if weight == 0.0:
            return vote
        wrong = proba.argmax() != y
        member["seen"] += weight
        member["right"] += weight * (not wrong)
        times = self.poisson(member["draws"])
        if times == 0:
            return vote
        for name in ("tree", "spare"):
            if member[name] is not None:
                member[name].partial_fit(x[None], [y], sample_weight=[weight * times])
        if len(member["warning"].update(wrong)):
            member["spare"] = self.fresh()
        if len(member["drift"].update(wrong)):
            member |= {"tree": member["spare"] or self.fresh(), "spare": None}
            member |= {"warning": ADWIN(0.01), "right": 0.0, "seen": 0.0}
        return vote


def test_votes_are_those_of_the_algorithm_spelled_out():
    random = np.random.default_rng(1)
    X = random.normal(size=(1600, 2))
    y = np.digitize(X[:, 0] + X[:, 1], [-0.5, 0.5])
    y[800:] = 2 - y[800:]
    weight = random.choice([0.0, 1.0, 2.5], 1600)
    forest = AdaptiveRandomForestClassifier(
        classes=3, n_models=2, max_features=None, grace_period=40, lambda_value=4, seed=7
    )
    spelled_out = SpelledOut(2, 7, 4.0, grace_period=40, delta=0.01)
    found = np.concatenate(
        [
            forest.partial_fit(X[:0], y[:0]).predict_proba(X[:1]),
            forest.score_then_learn(X, y, weight, proba=True)[1:],
        ]
    )
    expected = [
        spelled_out.score_then_learn(*row) for row in zip(X, y.tolist(), weight, strict=True)
    ]
    assert forest.n_drifts_ >= 2
    assert forest.n_warnings_ >= forest.n_drifts_
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_a_forest_recovers_from_drift_sooner_than_one_without_detectors():
    X, y = turning(6000)
    watched = AdaptiveRandomForestClassifier(seed=1)
    blind = AdaptiveRandomForestClassifier(drift_delta=1e-300, warning_delta=1e-300, seed=1)
    right = {forest: forest.score_then_learn(X, y) == y for forest in (watched, blind)}
    assert watched.n_drifts_ >= 8
    assert blind.n_drifts_ == blind.n_warnings_ == 0
    before, after = slice(2000, 3000), slice(3300, 4300)
    assert right[watched][before].mean() > 0.9
    assert right[blind][before].mean() > 0.9
    assert right[watched][after].mean() > 0.88
    assert right[blind][after].mean() < 0.75


def test_it_is_no_worse_than_rivers():
    forest = pytest.importorskip("river.forest", reason="River is what it is compared with")
    X, y = turning(2000, seed=3, columns=5)
    theirs = forest.ARFClassifier(n_models=5, max_features="sqrt", seed=1)
    right = 0
    for x, label in zip([dict(enumerate(row)) for row in X.tolist()], y.tolist(), strict=True):
        right += theirs.predict_one(x) == label
        theirs.learn_one(x, label)
    ours = AdaptiveRandomForestClassifier(n_models=5, max_features="sqrt", seed=1)
    assert (ours.score_then_learn(X, y) == y).mean() > right / len(y) - 0.005


def test_threads_make_no_difference():
    X, y = turning(3000)
    states, answers = [], []
    for n_jobs in (1, 2, -1):
        forest = AdaptiveRandomForestClassifier(n_models=4, n_jobs=n_jobs, seed=5)
        answers.append(forest.score_then_learn(X, y, proba=True))
        answers.append(forest.predict_proba(X))
        states.append(state_digest(forest.save()))
    assert len(set(states)) == 1
    for place in (2, 4):
        np.testing.assert_array_equal(answers[place], answers[0])
        np.testing.assert_array_equal(answers[place + 1], answers[1])


def test_seeds_make_other_forests():
    X, y = turning(1000)
    first, other = (
        AdaptiveRandomForestClassifier(n_models=2, seed=seed).partial_fit(X, y).predict_proba(X)
        for seed in (1, 2)
    )
    assert (first != other).any()


def test_leaves_that_drew_constant_columns_draw_others():
    X, y = turning(3000)
    X = np.hstack([X[:, :2], np.full((3000, 10), 3.5)])
    forest = AdaptiveRandomForestClassifier(max_features=1, seed=1)
    right = forest.score_then_learn(X, y) == y
    assert right[1000:1500].mean() > 0.85


def test_a_tree_without_experience_votes_least():
    """Of two trees, one that has just begun anew does not outvote one that is mostly right."""
    X, y = turning(1000)
    forest = AdaptiveRandomForestClassifier(n_models=2, seed=1).partial_fit(X[:500], y[:500])
    alone = forest.predict_proba(X[:500])
    state = dict(forest.save())
    new = AdaptiveRandomForestClassifier(n_models=2, seed=9).partial_fit(X[:1], y[:1]).save()
    state["tree 1"], state["member 1"] = new["tree 1"], new["member 1"]
    forest.load(state)
    assert (forest.predict(X[:500]) == y[:500]).mean() > 0.85
    assert (alone.argmax(axis=1) == y[:500]).mean() > 0.85


@pytest.mark.parametrize(
    ("max_features", "columns", "expected"),
    [
        ("sqrt", 6, 2),
        ("sqrt", 20, 4),
        ("log2", 20, 4),
        (0.6, 6, 4),
        (0.6, 20, 12),
        (0.01, 20, 1),
        (3, 6, 3),
        (6, 6, 0),
        (100, 6, 0),
        (1.0, 6, 0),
        (None, 6, 0),
        ("sqrt", 1, 0),
    ],
)
def test_how_many_columns_a_leaf_looks_at(max_features, columns, expected):
    assert chosen_features(max_features, columns) == expected


@pytest.mark.parametrize("mean", [1e-9, 0.5, 6.0, 100.0])
def test_poisson_numbers_are_those_of_the_distribution(mean):
    stats = pytest.importorskip("scipy.stats", reason="it has the distribution")
    table = poisson_table(mean)
    begins, below = table[:256].astype(int), table[256:]
    numbers = np.arange(len(below) - 1)
    np.testing.assert_allclose(below[:-1], stats.poisson.cdf(numbers, mean), rtol=1e-12, atol=1e-15)
    assert below[-1] == np.inf
    for place, begin in enumerate(begins):
        assert begin == np.count_nonzero(below <= place / 256)


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_models": 0},
        {"max_features": 0},
        {"max_features": 1.5},
        {"max_features": "all"},
        {"lambda_value": 0},
        {"lambda_value": 1000},
        {"drift_delta": 0.0},
        {"warning_delta": 2.0},
        {"grace_period": 0},
        {"delta": -1},
        {"leaf": "none"},
        {"split": "none"},
        {"max_bytes": 100},
        {"n_jobs": 0},
    ],
)
def test_wrong_parameters_are_named(parameters):
    X, y = turning(10)
    with pytest.raises(SpecError, match=next(iter(parameters))):
        AdaptiveRandomForestClassifier(**parameters).partial_fit(X, y)
