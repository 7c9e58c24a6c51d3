"""Trees and what watches them, where weights are extreme, memory is short, or parameters odd."""

from __future__ import annotations

import numpy as np
import pytest

from everlearn.base import Part, SpecError, state_digest
from everlearn.learners import (
    AdaptiveRandomForestClassifier,
    HalfSpaceTrees,
    HoeffdingAdaptiveTreeClassifier,
    HoeffdingTreeClassifier,
    HoeffdingTreeRegressor,
)
from everlearn.learners.native.drift.adwin import ADWIN
from everlearn.learners.native.tree.nodes import BLOCKS, NODES

CLASSIFIERS = [
    HoeffdingTreeClassifier,
    HoeffdingAdaptiveTreeClassifier,
    AdaptiveRandomForestClassifier,
]


def rows(n):
    X = np.random.default_rng(0).normal(size=(n, 4))
    X[:, 3] = np.arange(n) % 9
    return X, (X[:, 0] > 0.0).astype(int)


# --- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaf", ["mc", "nb", "nba"])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_rows_of_hardly_any_weight_give_probabilities(kind, leaf):
    X, y = rows(300)
    weight = np.full(300, 5e-324)
    proba = kind(leaf=leaf).score_then_learn(X, y, weight, proba=True)
    assert (proba >= 0.0).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)


@pytest.mark.parametrize("leaf", ["mc", "nb"])
def test_a_leaf_of_hardly_any_weight_gives_probabilities(leaf):
    X, y = rows(20)
    state = HoeffdingTreeClassifier(leaf=leaf).fit(X, y).save()
    arrays = dict(state["tree"].arrays) | {"counts": np.array([[5e-324, 0.0]])}
    learner = HoeffdingTreeClassifier(leaf=leaf).load({**state, "tree": Part(arrays)})
    assert learner.predict_proba(X[:3]).tolist() == [[0.5, 0.5]] * 3


@pytest.mark.parametrize("seed", [5, 7, 8, 12, 39])
def test_rounding_of_huge_weights_is_no_side_of_a_split(seed):
    random = np.random.default_rng(seed)
    X, weight = random.integers(0, 3, (200, 1)), 10.0 ** random.uniform(30.0, 50.0, 200)
    y = np.full(200, 1e6)
    y[0], weight[0] = 0.0, 1e-9
    for leaf in ("mean", "model"):
        learner = HoeffdingTreeRegressor(leaf=leaf, delta=1.0, tau=1.0, grace_period=1)
        learner.partial_fit(X, y, sample_weight=weight)
        assert np.isfinite(learner._tree.values).all()
        assert np.isfinite(learner.predict([[0.0], [1.0], [2.0], [3.0]])).all()


def test_a_window_of_hardly_any_weight_gives_scores():
    X, _ = rows(40)
    weight = np.full(40, 5e-324)
    scores = HalfSpaceTrees(window=5).score_then_learn(X, sample_weight=weight)
    assert ((scores >= 0.0) & (scores <= 1.0)).all()
    assert scores.any()


# --- memory --------------------------------------------------------------------------------------

SHORT = {
    HoeffdingTreeClassifier: 12_000,
    HoeffdingAdaptiveTreeClassifier: 25_000,
    AdaptiveRandomForestClassifier: 120_000,
}
"""Bytes in which there are trees of two classes, and no statistics for sixty."""


@pytest.mark.parametrize("kind", SHORT)
def test_a_tree_of_more_classes_than_there_is_memory_for_is_loaded(kind):
    X, _ = rows(1200)
    y = np.arange(1200) // 20
    with pytest.raises(SpecError, match="max_bytes"):
        kind(classes=60, max_bytes=SHORT[kind]).partial_fit(X, y)
    whole = kind(max_bytes=SHORT[kind]).partial_fit(X[:1000], y[:1000])
    other = kind(max_bytes=SHORT[kind]).load(whole.save())
    for learner in (whole, other):
        learner.partial_fit(X[1000:], y[1000:])
    assert state_digest(other.save()) == state_digest(whole.save())


@pytest.mark.parametrize("kind", CLASSIFIERS[:2])
def test_a_tree_without_statistics_grows_on_where_there_is_memory(kind):
    """Of a class that comes after it was loaded, too."""
    X, _ = rows(1200)
    small = kind(max_bytes=SHORT[kind]).partial_fit(X, np.arange(1200) // 20)
    assert small._tree.nodes.used[BLOCKS] == 0
    large = kind().load(small.save()).partial_fit(X, np.arange(1200) // 18)
    assert len(large.classes_) == 67
    assert large._tree.nodes.used[NODES] == small._tree.nodes.used[NODES]


# --- parameters ----------------------------------------------------------------------------------


def test_a_check_at_less_than_every_value_is_refused():
    for odd in ({"clock": 0.5}, {"max_buckets": 1.9}, {"min_window_length": 0.5}):
        with pytest.raises(SpecError, match=next(iter(odd))):
            ADWIN(**odd)
