import math

import numpy as np
import pytest

from everlearn.base import SpecError, state_digest
from everlearn.learners import AdaptiveRandomForestRegressor
from everlearn.learners.native.tree.nodes import NODES
from everlearn.learners.native.tree.regression import N


def friedman(rows=2000, seed=0, swap_at=None):
    """Friedman's first function; from a row on with other columns in the places of the first."""
    random = np.random.default_rng(seed)
    X = random.random((rows, 10))
    used = X.copy()
    if swap_at is not None:
        used[swap_at:] = 1.0 - X[swap_at:, ::-1]
    y = 10 * np.sin(np.pi * used[:, 0] * used[:, 1]) + 20 * (used[:, 2] - 0.5) ** 2
    return X, y + 10 * used[:, 3] + 5 * used[:, 4] + random.normal(size=rows)


def rmse(found, y):
    return math.sqrt(np.mean((found - y) ** 2))


def made(**params):
    return AdaptiveRandomForestRegressor(**{"n_models": 3} | params)


def test_errs_less_than_rivers():
    river = pytest.importorskip("river.forest", reason="River is the oracle")
    from river import preprocessing

    X, y = friedman(1000, 1)
    peer = preprocessing.StandardScaler() | river.ARFRegressor(n_models=5, seed=1)
    answers = []
    for row, target in zip(X.tolist(), y.tolist(), strict=True):
        answers.append(peer.predict_one(dict(enumerate(row))))
        peer.learn_one(dict(enumerate(row)), target)
    ours = made(n_models=5, max_features="sqrt", seed=1).score_then_learn(X, y)
    assert rmse(ours[300:], y[300:]) < 0.9 * rmse(np.array(answers)[300:], y[300:])


def test_trees_are_replaced_where_the_stream_changes():
    X, y = friedman(6000, 0, swap_at=3000)
    forest, rigid = made(n_models=5), made(n_models=5, drift_delta=1e-300)
    found = forest.score_then_learn(X, y)
    kept = rigid.score_then_learn(X, y)
    assert forest.n_drifts_ >= 3
    assert forest.n_warnings_ >= forest.n_drifts_ >= 3 > rigid.n_drifts_ == 0
    assert np.array_equal(made(n_models=5).score_then_learn(X[:3000], y[:3000]), kept[:3000]), (
        "no alarm where nothing changes"
    )
    assert rmse(found[4000:], y[4000:]) < 0.95 * rmse(kept[4000:], y[4000:])


@pytest.mark.parametrize("aggregation", ["median", "mean"])
def test_chunks_and_threads_make_no_difference(aggregation):
    X, y = friedman(2500, 0, swap_at=1500)
    X[np.random.default_rng(1).random(X.shape) < 0.1] = np.nan
    weight = np.random.default_rng(0).choice([0.0, 1.0, 2.5], len(y))
    params = {"aggregation": aggregation, "nominal": (9,), "warning_delta": 0.1, "seed": 3}
    whole, parts, threads = (made(**params) for _ in range(3))
    threads.set_params(n_jobs=2)
    answers = whole.score_then_learn(X, y, weight)
    assert whole.n_warnings_ > 0
    assert np.array_equal(threads.score_then_learn(X, y, weight), answers)
    found, start = [], 0
    for stop in (1, 2, 3, 40, 41, 1400, 2499, 2500):
        piece = slice(start, stop)
        found.append(parts.score_then_learn(X[piece], y[piece], weight[piece]))
        start = stop
    assert np.array_equal(np.concatenate(found), answers)
    assert state_digest(parts.save()) == state_digest(whole.save())
    assert state_digest(threads.save()) == state_digest(whole.save())
    assert np.isfinite(answers).all()


def test_goes_on_bit_equal_after_save_and_load():
    X, y = friedman(3000, 0, swap_at=1000)
    learner = made(warning_delta=0.1).partial_fit(X[:1700], y[:1700])
    assert learner.n_warnings_ > 0
    other = made(warning_delta=0.1).load(learner.save())
    for one in (learner, other):
        one.partial_fit(X[1700:], y[1700:])
    assert state_digest(other.save()) == state_digest(learner.save())
    assert np.array_equal(other.predict(X), learner.predict(X))


@pytest.mark.parametrize("aggregation", ["median", "mean"])
def test_answers_the_median_or_the_mean_of_its_trees(aggregation):
    X, y = friedman(800)
    params = {"n_models": 4, "aggregation": aggregation}
    forest = made(**params).partial_fit(X, y)
    alone = []
    for member in forest._members:
        one = made(n_models=1).partial_fit(X, y, sample_weight=np.r_[1.0, np.zeros(799)])
        one._scales = forest._scales
        one._members[0].tree, one._rule = member.tree, forest._rule
        one._packed(one._members[0])
        alone.append(one.predict(X[:50]))
    expected = {"median": np.median, "mean": np.mean}[aggregation](alone, axis=0)
    np.testing.assert_allclose(forest.predict(X[:50]), expected, rtol=1e-12)
    assert np.ptp(alone, axis=0).min() > 0, "trees differ"


def test_seeds_and_columns_make_trees_differ():
    X, y = friedman(1500)
    first = made(seed=1).fit(X, y).predict(X)
    assert np.array_equal(made(seed=1).fit(X, y).predict(X), first)
    assert not np.array_equal(made(seed=2).fit(X, y).predict(X), first)
    forest = made(max_features=2).fit(X, y)
    for member in forest._members:
        assert ((member.tree.columns >= 0).sum(axis=1) <= 2).all()
    assert ((made(max_features=None).fit(X, y)._members[0].tree.columns >= 0).all(axis=1)).any()


def test_a_tree_that_has_learned_nothing_abstains():
    X, y = friedman(8)
    forest = made(n_models=5, lambda_value=0.05, aggregation="mean", seed=4)
    found = forest.score_then_learn(X, y + 1000.0)
    learned = [member.tree.values[0, N] > 0 for member in forest._members]
    assert any(learned) and not all(learned)
    assert found[0] == 0 and found[-1] > 1000
    assert (forest.predict(X) > 1000).all()


def test_memory_is_bounded():
    X, y = friedman(6000)
    forest = made(max_bytes=400_000, delta=0.5).partial_fit(X, y)
    for member in forest._members:
        assert member.tree.nodes.used[NODES] > 3
    arrays = [array for member in forest._members for array in member.arrays + member.spare_arrays]
    assert sum(array.nbytes for array in arrays) < 420_000


@pytest.mark.parametrize(
    "params",
    [
        {"n_models": 0},
        {"max_features": 1.5},
        {"aggregation": "best"},
        {"lambda_value": 0.0},
        {"drift_delta": 0.0},
        {"warning_delta": 2.0},
        {"grace_period": 0},
        {"leaf": "nba"},
        {"n_jobs": 0},
        {"max_bytes": 10_000},
    ],
    ids=repr,
)
def test_refuses_parameters(params):
    with pytest.raises(SpecError, match=next(iter(params))):
        AdaptiveRandomForestRegressor(**params).fit(np.ones((2, 2)), [0.0, 1.0])
