"""`everlearn.learn`: the fold as a function, as a user calls it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import Perceptron, SGDClassifier, SGDRegressor
from sklearn.metrics import average_precision_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier, MLPRegressor

import everlearn as el
from everlearn.base import InputError, SpecError
from everlearn.jobs.direct import Learned

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(1_037, 4))
NOISE = GENERATOR.normal(size=len(X))
TWO = (X[:, 0] + NOISE > 0).astype(int)
THREE = np.digitize(X[:, 0] + 0.3 * NOISE, [-0.5, 0.5])


def remembered_ids(learned: Learned) -> set[int]:
    memory = learned._fold.memory
    assert memory is not None
    return {int(i) for rows in memory.rows() for i in rows.ids}


CLASSIFIERS = [
    SGDClassifier(loss="log_loss", random_state=0),
    SGDClassifier(average=True, random_state=0),
    Perceptron(random_state=0),
    GaussianNB(),
    MLPClassifier((4,), random_state=0),
]
REGRESSORS = [SGDRegressor(random_state=0), MLPRegressor(hidden_layer_sizes=(4,), random_state=0)]


@pytest.mark.parametrize(
    ("estimator", "y"),
    [
        *((estimator, y) for estimator in CLASSIFIERS for y in (TWO, THREE)),
        *((estimator, X[:, 1] * 3 + 0.5) for estimator in REGRESSORS),
    ],
)
def test_is_the_loop_that_users_write_bit_by_bit(estimator, y):
    told = {"classes": np.unique(y)} if y.dtype.kind == "i" else {}
    learned = el.learn(estimator, X, y, el.Strategy(chunk=100))
    by_hand = clone(estimator)
    for start in range(0, len(X), 100):
        by_hand.partial_fit(X[start : start + 100], y[start : start + 100], **told)
    assert (learned.predict(X) == by_hand.predict(X)).all()
    if hasattr(by_hand, "coef_"):
        assert (learned._fold.learner.estimator.coef_ == by_hand.coef_).all()
        assert (learned._fold.learner.estimator.intercept_ == by_hand.intercept_).all()


@pytest.mark.parametrize(
    "memory", [None, el.Reservoir(50), el.Balanced(50), el.Prioritized(50), el.Decay(half_life=30)]
)
def test_an_earlier_model_stays_what_it_was(memory):
    first = el.learn(GaussianNB(), X[:500], THREE[:500], el.Strategy(memory=memory, chunk=70))
    before = first.state_digest
    one, two = (el.learn(first, X[500:], THREE[500:]) for _ in range(2))
    assert one.state_digest == two.state_digest != before == first.state_digest
    assert el.learn(one, X[:0], THREE[:0]).state_digest == one.state_digest


def test_a_fresh_start_knows_the_classes_of_its_memory():
    """A learner that cannot be told of classes later is told of those that it will relive."""
    strategy = el.Strategy(memory=el.Everything(), start="scratch", chunk=100)
    order = np.argsort(THREE, kind="stable")
    first = el.learn(MLPClassifier((4,)), X[order], THREE[order], strategy)
    again = el.learn(first, X[THREE == 0], THREE[THREE == 0])
    assert again.classes_.tolist() == [0, 1, 2]
    assert again.set_aside == {}
    assert 2 in again.predict(X)


def test_rows_of_classes_unknown_to_a_given_state_are_not_drawn():
    known = THREE < 2
    small = el.learn(MLPClassifier((4,)), X[known], THREE[known])
    large = el.learn(MLPClassifier((4,)), X, THREE, el.Strategy(memory=el.Reservoir(300)))
    given = el.Strategy(start=small.state, memory=el.Reservoir(300))
    moved = el.learn(large, X[known], THREE[known], given)
    onward = el.learn(moved, X[known], THREE[known], el.Strategy(memory=el.Reservoir(300)))
    assert onward.classes_.tolist() == [0, 1]


def test_another_memory_takes_over_rows_by_their_loss():
    """Not as rows without loss, which the first new ones would replace."""
    old = el.learn(
        SGDClassifier(loss="log_loss"), X[:600], TWO[:600], el.Strategy(memory=el.Reservoir(200))
    )
    new = el.learn(old, X[600:800], TWO[600:800], el.Strategy(memory=el.Prioritized(200)))
    assert len(remembered_ids(new) & remembered_ids(old)) > 70


def test_later_passes_are_not_measured():
    once, thrice = (
        el.learn(SGDClassifier(loss="log_loss"), X, TWO, el.Strategy(passes=passes, chunk=200))
        for passes in (1, 3)
    )
    assert thrice.metrics["rows"] == len(X)
    assert thrice.metrics["rows"] == once.metrics["rows"]
    assert thrice.state_digest != once.state_digest


@pytest.mark.parametrize("first", [0, 1])
def test_the_positive_class_is_the_last_in_order_whichever_came_first(first):
    alone = np.equal(TWO, first)
    order = np.argsort(~alone, kind="stable")[400:]
    chunk = el.Strategy(chunk=50)
    start = el.learn(SGDClassifier(loss="log_loss"), X[alone], TWO[alone], chunk)
    learned = el.learn(start, X[order], TWO[order])
    assert learned.classes_.tolist() == [0, 1]
    fold = start._fold.load(start.state, start.model.learner, chunk)
    scores = []
    for at in range(0, len(order), 50):
        rows = order[at : at + 50]
        batch = start._compiled(X[rows]).with_y(TWO[rows].astype(float))
        prediction = fold.step(batch).prediction
        column = fold.encode(np.array([1.0]))[0]
        assert prediction is not None
        assert prediction.proba is not None
        known = prediction.proba.shape[1] > column >= 0
        scores.append(prediction.proba[:, column] if known else np.zeros(len(rows)))
    expected = average_precision_score(TWO[order], np.concatenate(scores))
    assert learned.metrics["pr_auc"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.xdist_group("compare")  # where the default learner is compiled
def test_what_is_a_class_and_what_is_a_quantity():
    assert el.learn(None, X, TWO.astype(float)).classes_.tolist() == [0, 1]
    assert el.learn(None, X, X[:, 0])._fold.kind == "regressor"
    assert el.learn(SGDRegressor(), X, TWO == 1).predict(X).dtype == np.float64
    with pytest.raises(InputError, match=r"is a quantity .* use a regressor"):
        el.learn(SGDClassifier(), X, X[:, 0])


def test_categories_of_polars():
    frame = pl.DataFrame({"x": X[:, 0], "place": [f"p{i % 3}" for i in range(len(X))]})
    learned = el.learn(None, frame, TWO)
    for kind in (pl.Categorical(), pl.Enum(["p0", "p1", "p2"])):
        other = frame.with_columns(pl.col("place").cast(kind))
        assert el.learn(None, other, TWO).state_digest == learned.state_digest
        target = other.rename({"place": "y"})
        schema = el.Schema(target="y")
        named = el.learn(el.Model("m", learner=GaussianNB(), schema=schema), target)
        assert named.classes_.tolist() == ["p0", "p1", "p2"]


def test_wrong_arguments_say_what_to_do():
    learned = el.learn(SGDClassifier(), X, TWO)
    with pytest.raises(InputError, match="X has 8 columns, and x4, x5, x6, x7 were not learned"):
        learned.predict(np.c_[X, X])
    with pytest.raises(InputError, match="were not learned"):
        el.learn(learned, np.c_[X, X], TWO)
    with pytest.raises(SpecError, match=r"is an everlearn.Strategy, as .* not Reservoir\(n=5"):
        el.learn(SGDClassifier(), X, TWO, el.Reservoir(5))
    with pytest.raises(InputError, match="a target is needed to learn"):
        el.learn(SGDClassifier(), X)
    with pytest.raises(InputError, match="has no rows"):
        el.learn(SGDClassifier(), X[:0], TWO[:0])
    assert el.learn(MiniBatchKMeans(3), X).predict(X).max() == 2
