import math
from functools import cache

import numpy as np
import pytest

from everlearn.base import SpecError, state_digest
from everlearn.learners import HoeffdingTreeRegressor
from everlearn.learners.native.scaling import begin_scales, standardized
from everlearn.learners.native.tree.nodes import BLOCK, BLOCKS, CHILD, COLUMN, NODES
from everlearn.learners.native.tree.regression import OFF_MEAN

ROUNDS = (1, 2, 3, 50, 51, 700, 1999, 2000)
"""Ends of uneven chunks of 2000 rows."""


@cache
def friedman(rows=2000, seed=0):
    """Friedman's first function of 5 of 10 uniform numbers, with noise."""
    random = np.random.default_rng(seed)
    X = random.random((rows, 10))
    y = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2
    return X, y + 10 * X[:, 3] + 5 * X[:, 4] + random.normal(size=rows)


def rmse(found, y):
    return math.sqrt(np.mean((found - y) ** 2))


# --- an oracle: the tree of means in plain Python, for columns of few values ---------------------


class Plain:
    """The tree of means, each leaf of which keeps all its rows."""

    def __init__(self, grace_period, delta, tau, least):
        self.settings = grace_period, delta, tau, least
        self.root = {"n": 0.0, "mean": 0.0, "tried": 0.0, "rows": []}

    def leaf(self, x):
        node = self.root
        while "column" in node:
            value = x[node["column"]]
            right = node["missing"] if math.isnan(value) else value > node["cut"]
            node = node["sides"][int(right)]
        return node

    def learn(self, x, y, weight):
        grace_period, delta, tau, least = self.settings
        leaf = self.leaf(x)
        leaf["n"] += weight
        leaf["mean"] += weight / leaf["n"] * (y - leaf["mean"])
        leaf["rows"].append((x, y, weight))
        if leaf["n"] - leaf["tried"] < grace_period:
            return
        leaf["tried"] = leaf["n"]
        found = [self.cut(leaf["rows"], j, least) for j in range(len(x))]
        order = sorted(range(len(x)), key=lambda j: -found[j][0])
        bound = math.sqrt(math.log(1 / delta) / (2 * leaf["n"]))
        best, second = found[order[0]][0], found[order[1]][0]
        if best > 0 and (second < (1 - bound) * best or bound < tau):
            column, cut = order[0], found[order[0]][1]
            sides = [
                [row for row in leaf["rows"] if row[0][column] <= cut],
                [row for row in leaf["rows"] if row[0][column] > cut],
            ]
            weights = [sum(row[2] for row in side) for side in sides]
            leaf |= {"column": column, "cut": cut, "missing": weights[1] > weights[0]}
            leaf["sides"] = [
                {
                    "n": n,
                    "mean": sum(row[1] * row[2] for row in side) / n,
                    "tried": n,
                    "rows": [],
                }
                for side, n in zip(sides, weights, strict=True)
            ]

    @staticmethod
    def cut(rows, j, least):
        rows = [(x[j], y, weight) for x, y, weight in rows if not math.isnan(x[j])]
        best = 0.0, 0.0
        for cut in sorted({row[0] for row in rows}):
            sides = [[row for row in rows if (row[0] <= cut) == up] for up in (True, False)]
            weights = [sum(row[2] for row in side) for side in sides]
            if min(weights) < least:
                continue
            means = [
                sum(row[1] * row[2] for row in side) / n
                for side, n in zip(sides, weights, strict=True)
            ]
            gain = weights[0] * weights[1] / sum(weights) * (means[0] - means[1]) ** 2
            best = max(best, (gain, cut), key=lambda found: found[0])
        return best


@pytest.mark.parametrize("weighted", [False, True])
def test_the_tree_of_means_is_that_of_plain_python(weighted):
    X, y = friedman(1000)
    X = np.round(X[:, :5], 1) - 3.0
    random = np.random.default_rng(5)
    X[random.random(X.shape) < 0.1] = np.nan
    weight = random.choice([0.0, 0.5, 1.0, 3.0], len(y)) if weighted else np.ones(len(y))
    params = {"grace_period": 60, "delta": 0.01, "tau": 0.1, "min_samples_split": 7}
    learner = HoeffdingTreeRegressor(leaf="mean", **params)
    found = learner.score_then_learn(X, y, weight)
    plain, expected = Plain(60, 0.01, 0.1, 7), []
    for row, target, w in zip(X.tolist(), y.tolist(), weight.tolist(), strict=True):
        expected.append(plain.leaf(row)["mean"])
        if w:
            plain.learn(row, target, w)
    assert learner._tree.nodes.used[NODES] > 9
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


# --- the whole of it ------------------------------------------------------------------------------


@pytest.mark.parametrize("leaf", ["mean", "model", "adaptive"])
def test_errs_no_more_than_rivers(leaf):
    river = pytest.importorskip("river", reason="River is the oracle")
    from river import preprocessing, tree

    assert river.__version__
    X, y = friedman(3000, 1)
    params = {"grace_period": 100, "delta": 1e-4}
    peer = preprocessing.StandardScaler() | tree.HoeffdingTreeRegressor(
        leaf_prediction=leaf, splitter=tree.splitter.QOSplitter(0.1), **params
    )
    answers = []
    for row, target in zip(X.tolist(), y.tolist(), strict=True):
        answers.append(peer.predict_one(dict(enumerate(row))))
        peer.learn_one(dict(enumerate(row)), target)
    ours = HoeffdingTreeRegressor(leaf=leaf, **params).score_then_learn(X, y)
    assert rmse(ours[500:], y[500:]) < 1.02 * rmse(np.array(answers)[500:], y[500:])


def test_splits_are_made_where_the_linear_model_errs():
    random = np.random.default_rng(0)
    X = random.normal(size=(3000, 3))
    y = 20.0 * X[:, 0] + 3.0 * np.abs(X[:, 1])
    for leaf, column in (("mean", 0), ("model", 1), ("adaptive", 1)):
        learner = HoeffdingTreeRegressor(leaf=leaf, grace_period=1500).fit(X, y)
        links = learner._tree.nodes.links
        assert links[0, CHILD] > 0
        assert links[0, COLUMN] == column


def test_categories_are_parted_in_two_sets():
    random = np.random.default_rng(0)
    colour = random.integers(0, 6, 3000).astype(float)
    X = np.column_stack([random.normal(size=3000), colour])
    y = np.where(np.isin(colour, [0, 3, 5]), 10.0, -10.0) + random.normal(size=3000)
    learner = HoeffdingTreeRegressor(nominal=(1,)).fit(X, y)
    assert learner._tree.nodes.links[0, COLUMN] == 1
    found = learner.predict(np.column_stack([np.zeros(6), np.arange(6.0)]))
    np.testing.assert_allclose(found, [10, -10, -10, 10, -10, 10], atol=1.5)
    heavier = learner.predict([[0.0, 77.0], [0.0, np.nan]])
    assert (np.abs(np.abs(heavier) - 10.0) < 1.5).all()


def test_missing_values_go_where_most_rows_go():
    random = np.random.default_rng(0)
    X = random.random((3000, 2))
    y = np.where(X[:, 0] > 0.3, 5.0, -5.0) + 0.1 * random.normal(size=3000)
    X[random.random((3000, 2)) < 0.2] = np.nan
    learner = HoeffdingTreeRegressor(leaf="mean").fit(X, y)
    assert learner.predict([[np.nan, 0.5]])[0] == pytest.approx(
        y[(X[:, 0] > 0.3) | np.isnan(X[:, 0])][600:].mean(), abs=0.7
    )
    assert np.isfinite(learner.predict([[np.nan, np.nan]])).all()


@pytest.mark.parametrize("leaf", ["mean", "model", "adaptive"])
def test_chunks_make_no_difference(leaf):
    X, y = friedman()
    weight = np.random.default_rng(0).choice([0.0, 1.0, 2.5], len(y))
    params = {"leaf": leaf, "grace_period": 50, "delta": 0.01}
    whole, parts = HoeffdingTreeRegressor(**params), HoeffdingTreeRegressor(**params)
    answers, found, start = whole.score_then_learn(X, y, weight), [], 0
    for stop in ROUNDS:
        piece = slice(start, stop)
        found.append(parts.score_then_learn(X[piece], y[piece], weight[piece]))
        start = stop
    assert np.array_equal(np.concatenate(found), answers)
    assert state_digest(parts.save()) == state_digest(whole.save())


def test_goes_on_bit_equal_after_save_and_load():
    X, y = friedman()
    learner = HoeffdingTreeRegressor(grace_period=50, delta=0.01).partial_fit(X[:1111], y[:1111])
    other = HoeffdingTreeRegressor(grace_period=50, delta=0.01).load(learner.save())
    for one in (learner, other):
        one.partial_fit(X[1111:], y[1111:])
    assert state_digest(other.save()) == state_digest(learner.save())
    assert np.array_equal(other.predict(X), learner.predict(X))


@pytest.mark.parametrize("leaf", ["mean", "model"])
def test_a_row_of_weight_two_is_that_row_twice(leaf):
    X, y = friedman()
    times = np.random.default_rng(0).integers(0, 4, len(y))
    params = {"leaf": leaf, "grace_period": 10**6}
    weighted = HoeffdingTreeRegressor(**params).partial_fit(X, y, sample_weight=times)
    repeated = HoeffdingTreeRegressor(**params)
    z = standardized(weighted._scales, X, np.zeros(len(y)))
    rows = np.repeat(np.arange(len(y)), times)
    repeated.partial_fit(X[rows], y[rows])
    np.testing.assert_allclose(repeated._scales, weighted._scales)
    if leaf == "mean":
        np.testing.assert_allclose(repeated.predict(X), weighted.predict(X))
    else:  # the first rows are standardised by a few others, which are not quite the same
        assert rmse(repeated.predict(X), weighted.predict(X)) < 0.01 * y.std()
    assert np.isfinite(z).all()


def test_units_of_columns_and_targets_do_not_matter():
    X, y = friedman()
    params = {"grace_period": 50, "delta": 0.01}
    answers = HoeffdingTreeRegressor(**params).score_then_learn(X, y)
    units = 4.0 ** np.arange(-5, 5)
    assert np.array_equal(HoeffdingTreeRegressor(**params).score_then_learn(X * units, y), answers)
    found = HoeffdingTreeRegressor(**params).score_then_learn(X, y * 2.0**40)
    np.testing.assert_array_equal(found, answers * 2.0**40)
    found = HoeffdingTreeRegressor(**params).score_then_learn(X, y + 64.0)
    np.testing.assert_allclose(found[1:], answers[1:] + 64.0, rtol=1e-6)


def test_memory_is_bounded_and_goes_to_the_leaves_that_err_most():
    random = np.random.default_rng(0)
    X = random.random((20_000, 4))
    y = np.where(X[:, 0] < 0.5, 0.0, np.sin(40 * X[:, 1]) * 10.0) + 0.1 * random.normal(size=20_000)
    params = {"leaf": "mean", "grace_period": 50, "delta": 0.1}
    learner = HoeffdingTreeRegressor(max_bytes=60_000, **params).partial_fit(X, y)
    tree, rule = learner._tree, learner._rule
    assert tree.nodes.used[BLOCKS] == rule.max_blocks < 20
    assert sum(array.nbytes for array in learner._packed) < 62_000
    watched = tree.nodes.owners[: rule.max_blocks]
    assert (tree.nodes.links[watched, BLOCK] == np.arange(rule.max_blocks)).all()
    assert (tree.values[watched, OFF_MEAN] > 5.0).all()
    unbounded = HoeffdingTreeRegressor(**params).partial_fit(X, y)
    assert unbounded._tree.nodes.used[BLOCKS] > 20
    assert rmse(unbounded.predict(X), y) < rmse(learner.predict(X), y) < 0.9 * y.std()


def test_no_deeper_than_max_depth():
    X, y = friedman()
    learner = HoeffdingTreeRegressor(max_depth=2, grace_period=50, delta=0.1).partial_fit(X, y)
    assert learner._tree.nodes.used[NODES] == 7
    stump = HoeffdingTreeRegressor(max_depth=0, leaf="mean").partial_fit(X, y)
    np.testing.assert_allclose(stump.predict(X[:3]), y.mean())


def test_numbers_are_standardised_by_the_rows_before():
    X, _ = friedman(200)
    X = X.copy()
    X[::7, 2] = np.nan
    z = standardized(begin_scales(10), X, np.empty(0))
    assert (z[:2] == 0).all()
    for row in (3, 5, 50, 199):
        before = X[:row]
        expected = (X[row] - np.nanmean(before, axis=0)) / np.nanstd(before, axis=0)
        farthest = np.minimum(10.0, np.sqrt(np.isfinite(before).sum(axis=0)))
        expected = np.clip(np.nan_to_num(expected), -farthest, farthest)
        np.testing.assert_allclose(z[row], expected, atol=1e-9)


@pytest.mark.parametrize(
    "params",
    [
        {"grace_period": 0},
        {"delta": 2.0},
        {"tau": -1},
        {"leaf": "median"},
        {"learning_rate": float("nan")},
        {"decay": 1.5},
        {"min_samples_split": 0},
        {"max_depth": 1.5},
        {"max_bytes": 1000},
    ],
    ids=repr,
)
def test_refuses_parameters(params):
    with pytest.raises(SpecError, match=next(iter(params))):
        HoeffdingTreeRegressor(**params).fit(np.ones((2, 2)), [0.0, 1.0])
