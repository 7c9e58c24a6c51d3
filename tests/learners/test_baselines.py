"""Answers that look at no feature."""

import doctest

import numpy as np
import pytest

from everlearn.learners import as_learner
from everlearn.learners.native import baselines
from everlearn.learners.native.baselines import LastValue, Majority, NoChange, RunningMean
from everlearn.testing.learner import LearnerSuite

EVERY = {"majority": Majority, "no change": NoChange, "mean": RunningMean, "last": LastValue}


def target(rows, classes, seed=0):
    """(n, 1) columns of nothing, and classes that stay for a while (quantities for 0)."""
    generator = np.random.default_rng(seed)
    steps = generator.random(rows) < 0.3
    codes = generator.integers(0, max(classes, 2), rows)[np.cumsum(steps)]
    y = codes if classes else np.cumsum(generator.normal(size=rows)) * 1e6
    return np.zeros((rows, 1)), y


class TestBaselines(LearnerSuite):
    per_row = True
    learns = False

    @pytest.fixture(autouse=True, params=sorted(EVERY))
    def _choose(self, request):
        self.kind = EVERY[request.param]

    def learner(self, columns, classes=0, seed=0):
        return as_learner(self.kind(), columns, classes=classes, seed=seed)


def test_examples():
    result = doctest.testmod(baselines, extraglobs={"np": np})
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_majority_is_the_rule_of_succession(classes, seed):
    X, y = target(200, classes, seed)
    found = Majority(classes).score_then_learn(X, y, proba=True)
    for row in range(len(y)):
        counts = np.bincount(y[:row], minlength=classes)
        np.testing.assert_allclose(found[row], (counts + 1) / (row + classes), rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_no_change_says_how_often_it_was_right(classes):
    X, y = target(300, classes)
    learner = NoChange(classes)
    found = learner.score_then_learn(X, y, proba=True)
    same = 0
    for row in range(1, len(y)):
        chance = max((same + 1) / (row - 1 + classes), 1 / classes)
        expected = np.full(classes, (1 - chance) / (classes - 1))
        expected[y[row - 1]] = chance
        np.testing.assert_allclose(found[row], expected, atol=1e-8)
        assert found[row].argmax() == y[row - 1]
        same += y[row] == y[row - 1]
    assert learner.predict(X[:1])[0] == y[-1]


def test_no_change_names_the_last_class_even_where_it_never_stays():
    y = np.tile([0, 1, 2], 50)
    found = NoChange(3).score_then_learn(np.zeros((150, 1)), y)
    assert (found[1:] == y[:-1]).all()


def test_means_and_last_values():
    X, y = target(500, 0)
    means = RunningMean().score_then_learn(X, y)
    np.testing.assert_allclose(means[1:], np.cumsum(y)[:-1] / np.arange(1, 500), rtol=1e-9)
    last = LastValue().score_then_learn(X, y)
    assert (last[1:] == y[:-1]).all()
    assert means[0] == last[0] == 0.0


def test_like_those_of_river():
    dummy = pytest.importorskip("river.dummy", reason="River is not installed")
    stats = pytest.importorskip("river.stats", reason="River is not installed")
    X, y = target(300, 2)
    theirs = [dummy.NoChangeClassifier(), dummy.PriorClassifier()]
    ours = [NoChange(2).score_then_learn(X, y), Majority(2).score_then_learn(X, y)]
    for row, label in enumerate(y.tolist()):
        if row:
            assert theirs[0].predict_one({}) == ours[0][row]
            counts = np.bincount(y[:row], minlength=2)
            if counts[0] != counts[1]:
                assert theirs[1].predict_one({}) == ours[1][row]
        for model in theirs:
            model.learn_one({}, label)
    _, values = target(300, 0)
    model = dummy.StatisticRegressor(stats.Mean())
    mean = RunningMean().score_then_learn(X, values)
    for row, value in enumerate(values.tolist()):
        assert mean[row] == pytest.approx(model.predict_one({}) or 0.0)
        model.learn_one({}, value)


@pytest.mark.parametrize("kind", [Majority, RunningMean])
def test_a_row_of_weight_two_is_that_row_twice(kind):
    X, y = target(100, 0 if kind is RunningMean else 3)
    weight = np.tile([1.0, 2.0, 0.0, 1.0], 25)
    weighted = kind().partial_fit(X, y, sample_weight=weight)
    twice = kind().partial_fit(np.zeros((100, 1)), np.repeat(y, weight.astype(int)))
    if kind is Majority:
        assert (weighted.predict_proba(X[:1]) == twice.predict_proba(X[:1])).all()
    assert weighted.predict(X[:1]) == pytest.approx(twice.predict(X[:1]))


@pytest.mark.parametrize("kind", [Majority, NoChange])
def test_a_class_that_appears_late(kind):
    learner = kind().partial_fit(np.zeros((10, 1)), np.tile(["a", "b"], 5))
    before = learner.predict_proba(np.zeros((1, 1)))
    assert before.shape == (1, 2)
    learner.partial_fit(np.zeros((30, 1)), np.full(30, "c"))
    after = learner.predict_proba(np.zeros((1, 1)))
    assert after.shape == (1, 3)
    assert after.sum() == pytest.approx(1.0, abs=1e-12)
    assert learner.predict(np.zeros((1, 1)))[0] == "c"


@pytest.mark.parametrize("kind", [RunningMean, LastValue])
def test_huge_targets(kind):
    y = np.tile([1e308, -1e308], 20)
    learner = kind()
    assert np.isfinite(learner.score_then_learn(np.zeros((40, 1)), y)).all()
    assert np.isfinite(learner.predict(np.zeros((1, 1)))).all()


@pytest.mark.parametrize("weight", [5e-324, 1e-300, 1e50])
def test_huge_targets_of_any_weight(weight):
    y, weights = np.tile([1e300, -1e300, 3.0], 20), np.tile([weight, weight, 1.0, weight], 15)
    learner = RunningMean()
    assert np.isfinite(learner.score_then_learn(np.zeros((60, 1)), y, weights)).all()
    assert np.isfinite(learner._mean).all()


@pytest.mark.parametrize("kind", sorted(EVERY))
def test_chunks_make_no_difference(kind):
    X, y = target(300, 0 if EVERY[kind].kind == "regressor" else 3)
    whole, pieces = EVERY[kind](), EVERY[kind]()
    expected = whole.score_then_learn(X, y)
    found = [pieces.score_then_learn(X[i : i + 7], y[i : i + 7]) for i in range(0, 300, 7)]
    assert (np.concatenate(found) == expected).all()
