import math

import numpy as np
import pytest

from everlearn.base import InputError, Part, SpecError, state_digest
from everlearn.learners import HoeffdingAdaptiveTreeRegressor, HoeffdingTreeRegressor
from everlearn.learners.native.tree.nodes import BLOCKS, NODES
from tests.learners.test_hoeffding_adaptive_tree import check


def stream(rows, period=3000, seed=0):
    """Rows of 4 uniform numbers; every so many rows others of them tell the target."""
    random = np.random.default_rng(seed)
    X = random.random((rows, 4))
    which = np.arange(rows) // period % 4
    told = np.take_along_axis(X, (which[:, None] + [0, 1]) % 4, axis=1)
    return X, 10 * (told[:, 0] > 0.5) + 5 * np.sin(6 * told[:, 1]) + random.normal(size=rows)


def rmse(found, y):
    return math.sqrt(np.mean((found - y) ** 2))


def error(learner, X, y):
    return rmse(learner.score_then_learn(X, y), y)


QUICK = {"grace_period": 50, "delta": 0.01, "drift_delta": 0.05, "drift_window_threshold": 100}
"""Parameters with which much happens in few rows."""


# --- what it is for -------------------------------------------------------------------------------


@pytest.mark.parametrize("leaf", ["mean", "adaptive"])
def test_it_follows_a_stream_that_changes(leaf):
    X, y = stream(15_000)
    fixed = HoeffdingTreeRegressor(leaf=leaf, delta=1e-3)
    learner = HoeffdingAdaptiveTreeRegressor(leaf=leaf, delta=1e-3)
    assert error(learner, X, y) < 0.9 * error(fixed, X, y)
    check(learner)


def test_where_nothing_changes_it_is_a_hoeffding_tree():
    X, y = stream(6000, period=6000)
    fixed, learner = HoeffdingTreeRegressor(), HoeffdingAdaptiveTreeRegressor(drift_delta=1e-300)
    assert np.array_equal(learner.score_then_learn(X, y), fixed.score_then_learn(X, y))
    assert not check(learner)
    ours, theirs = learner.save()["tree"], fixed.save()["tree"]
    for name, array in theirs.arrays.items():
        assert np.array_equal(array, ours.arrays[name]), name


def test_an_alternate_takes_over_only_a_part():
    """Only rows of the right half change, and the left half keeps its subtree."""
    random = np.random.default_rng(0)
    X = random.uniform(-1, 1, size=(24_000, 3))
    side = np.where(np.arange(24_000) < 12_000, X[:, 2] > 0.2, X[:, 2] < -0.2)
    y = 5.0 * np.where(X[:, 0] < 0, X[:, 1] > 0, side) + 50.0 * (X[:, 0] >= 0)
    learner = HoeffdingAdaptiveTreeRegressor(leaf="mean", drift_delta=1e-4)
    learner.partial_fit(X[:12_000], y[:12_000])
    before = learner._tree.values[0].copy()
    learner.partial_fit(X[12_000:], y[12_000:])
    assert (learner._tree.values[0] == before).all(), "the root was replaced"
    for half in (X[:, 0] < -0.1, (X[:, 0] > 0.1) & (np.arange(24_000) > 20_000)):
        assert rmse(learner.predict(X[half]), y[half]) < 1.5
    check(learner)


def test_errs_about_as_much_as_rivers():
    tree = pytest.importorskip("river.tree", reason="River is the oracle")
    from river import preprocessing

    ratios = []
    for seed in range(3):  # one tree or the other is luckier on each stream
        X, y = stream(10_000, period=5000, seed=seed)
        peer = preprocessing.StandardScaler() | tree.HoeffdingAdaptiveTreeRegressor(
            grace_period=100, delta=1e-3, seed=0
        )
        answers = []
        for row, target in zip(X.tolist(), y.tolist(), strict=True):
            answers.append(peer.predict_one(dict(enumerate(row))))
            peer.learn_one(dict(enumerate(row)), target)
        learner = HoeffdingAdaptiveTreeRegressor(grace_period=100, delta=1e-3)
        ratios.append(error(learner, X, y) / rmse(np.array(answers), y))
    assert np.mean(ratios) < 1.0
    assert max(ratios) < 1.05


# --- what must hold -------------------------------------------------------------------------------


def test_nodes_and_blocks_are_never_lost():
    X, y = stream(30_000, period=1000, seed=3)
    learner = HoeffdingAdaptiveTreeRegressor(tau=0.2, max_bytes=300_000, **QUICK)
    had_alternates = 0
    for start in range(0, len(X), 300):
        learner.partial_fit(X[start : start + 300], y[start : start + 300])
        had_alternates += len(check(learner)) > 0
        used, rule = learner._tree.nodes.used, learner._rule
        assert used[NODES] <= rule.max_nodes and used[BLOCKS] <= rule.max_blocks
    assert 5 < had_alternates < 100
    arrays = (*learner._packed, *learner._packed_watch)
    assert sum(array.nbytes for array in arrays) < 310_000


def test_chunks_make_no_difference():
    X, y = stream(4000, period=1000)
    X[np.random.default_rng(1).random(X.shape) < 0.1] = np.nan
    weight = np.random.default_rng(0).choice([0.0, 1.0, 2.5], len(y))
    whole, parts = (HoeffdingAdaptiveTreeRegressor(**QUICK) for _ in range(2))
    answers, found, start = whole.score_then_learn(X, y, weight), [], 0
    for stop in (1, 2, 50, 51, 1300, 1301, 3999, 4000):
        piece = slice(start, stop)
        found.append(parts.score_then_learn(X[piece], y[piece], weight[piece]))
        start = stop
    assert np.array_equal(np.concatenate(found), answers)
    assert state_digest(parts.save()) == state_digest(whole.save())
    silent = HoeffdingAdaptiveTreeRegressor(**QUICK).partial_fit(X, y, sample_weight=weight)
    assert state_digest(silent.save()) == state_digest(whole.save())


def test_goes_on_bit_equal_after_save_and_load():
    X, y = stream(6000, period=1000)
    learner, saved = HoeffdingAdaptiveTreeRegressor(**QUICK), 0
    for start in range(0, 5000, 250):
        learner.partial_fit(X[start : start + 250], y[start : start + 250])
        if not check(learner):
            continue
        saved += 1
        other = HoeffdingAdaptiveTreeRegressor(**QUICK).load(learner.save())
        rest = slice(start + 250, start + 1250)
        assert np.array_equal(other.predict(X[rest]), learner.predict(X[rest]))
        kept = HoeffdingAdaptiveTreeRegressor(**QUICK).load(learner.save())
        for one in (other, kept):
            one.partial_fit(X[rest], y[rest])
        assert state_digest(other.save()) == state_digest(kept.save())
        if saved == 3:
            break
    assert saved
    expected = HoeffdingAdaptiveTreeRegressor(**QUICK).partial_fit(X[: rest.stop], y[: rest.stop])
    assert state_digest(expected.save()) == state_digest(other.save())


def test_units_of_targets_do_not_matter():
    X, y = stream(4000, period=1000)
    found = HoeffdingAdaptiveTreeRegressor(**QUICK).score_then_learn(X, y)
    large = HoeffdingAdaptiveTreeRegressor(**QUICK).score_then_learn(X, y * 2.0**30)
    assert np.array_equal(large, found * 2.0**30)


@pytest.mark.parametrize(
    "params",
    [
        {"drift_delta": 0.0},
        {"switch_significance": 1.0},
        {"drift_window_threshold": 0},
        {"leaf": "nba"},
        {"max_bytes": 9000},
    ],
    ids=repr,
)
def test_refuses_parameters(params):
    with pytest.raises(SpecError, match=next(iter(params))):
        HoeffdingAdaptiveTreeRegressor(**params).fit(np.ones((2, 2)), [0.0, 1.0])


def test_refuses_a_watch_of_other_nodes():
    X, y = stream(500)
    state = dict(HoeffdingAdaptiveTreeRegressor().fit(X, y).save())
    arrays = dict(state["watch"].arrays)
    state["watch"] = Part(arrays | {"alternates": np.zeros(99, np.int64)})
    with pytest.raises(InputError, match="alternates"):
        HoeffdingAdaptiveTreeRegressor().load(state)
