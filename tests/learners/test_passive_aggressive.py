"""Passive-aggressive learning against the paper's formulas, and against River's."""

import doctest
import math

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from everlearn.base import SpecError, state_digest
from everlearn.learners.native import passive_aggressive
from everlearn.learners.native.passive_aggressive import (
    PassiveAggressiveClassifier,
    PassiveAggressiveRegressor,
)

VARIANTS = ("PA", "PA-I", "PA-II")


def test_examples():
    result = doctest.testmod(passive_aggressive, extraglobs={"np": np})
    assert result.attempted > 0 and result.failed == 0


def stream(n=500, p=4, seed=0):
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(n, p))
    return X, X @ np.linspace(-1.0, 1.0, p) + 0.2 * generator.normal(size=n) + 0.3


def step(loss, squares, C, variant):
    """τ of figure 1."""
    if variant == "PA":
        return loss / squares
    return min(C, loss / squares) if variant == "PA-I" else loss / (squares + 0.5 / C)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("C", [0.03, 1.0])
def test_classification_is_that_of_the_paper(variant, C):
    X, score = stream()
    weight = np.random.default_rng(1).choice([0.5, 1.0, 2.0], len(X))
    model = PassiveAggressiveClassifier(2, C=C, variant=variant, standardize=False)
    w = np.zeros(5)
    for x, y, h in zip(np.column_stack([X, np.ones(len(X))]), score > 0.0, weight, strict=True):
        sign = 1.0 if y else -1.0
        w += sign * step(max(0.0, 1.0 - sign * (w @ x)), x @ x, C * h, variant) * x
    model.partial_fit(X, (score > 0.0).astype(int), sample_weight=weight)
    np.testing.assert_allclose(model.coef_[0], w[:4], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.intercept_, w[4:], rtol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("C", [0.03, 1.0])
def test_regression_is_that_of_the_paper(variant, C):
    X, y = stream()
    model = PassiveAggressiveRegressor(C=C, variant=variant, epsilon=0.05, standardize=False)
    w = np.zeros(5)
    for x, value in zip(np.column_stack([X, np.ones(len(X))]), y, strict=True):
        loss = max(0.0, abs(w @ x - value) - 0.05)
        w += math.copysign(step(loss, x @ x, C, variant), value - w @ x) * x
    model.partial_fit(X, y)
    np.testing.assert_allclose(model.coef_, w[:4], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.intercept_, w[4:], rtol=1e-9)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_classification_is_rivers(mode):
    """River 0.26's regressor takes 2 y − 1 for y in its loss, so it is no oracle."""
    linear_model = pytest.importorskip("river.linear_model", reason="River is the oracle")
    X, score = stream()
    other = linear_model.PAClassifier(C=0.1, mode=mode, learn_intercept=False)
    for row, y in zip(np.column_stack([X, np.ones(len(X))]).tolist(), score, strict=True):
        other.learn_one(dict(enumerate(row)), bool(y > 0.0))
    model = PassiveAggressiveClassifier(2, C=0.1, variant=VARIANTS[mode], standardize=False)
    model.fit(X, (score > 0.0).astype(int))
    expected = [other.weights[j] for j in range(5)]
    np.testing.assert_allclose([*model.coef_[0], *model.intercept_], expected, rtol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_several_classes_are_those_of_the_paper(variant):
    """Section 8: the class of the row against the best of the others."""
    X, score = stream(800)
    y = np.digitize(score, [-0.5, 0.8])
    model = PassiveAggressiveClassifier(3, C=0.2, variant=variant, standardize=False)
    w = np.zeros((3, 5))
    for x, c in zip(np.column_stack([X, np.ones(len(X))]), y, strict=True):
        scores = w @ x
        rival = max((o for o in range(3) if o != c), key=lambda o: scores[o])
        tau = step(max(0.0, 1.0 + scores[rival] - scores[c]), 2.0 * (x @ x), 0.2, variant)
        w[c] += tau * x
        w[rival] -= tau * x
    model.partial_fit(X, y)
    np.testing.assert_allclose(model.coef_, w[:, :4], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_late_class_changes_nothing_of_the_others(variant):
    X, score = stream()
    y = np.where(score > 0.0, "b", "a")
    model = PassiveAggressiveClassifier(variant=variant).fit(X, y)
    before = model.decision_function(X)
    model.partial_fit(X[:1], ["c"], sample_weight=[1e-15 if variant != "PA" else 0.0])
    after = model.decision_function(X)
    if variant != "PA":
        np.testing.assert_allclose(after[:, 1] - after[:, 0], before, rtol=1e-9)
    third = np.where(X[:, 3] > 1.0, "c", y)
    for _ in range(3):
        model.partial_fit(X, third)
    assert (model.predict(X) == third).mean() > 0.75


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_passive_and_aggressive(variant):
    X, score = stream(50)
    y = (score > 0.0).astype(int)
    model = PassiveAggressiveClassifier(variant=variant, standardize=False, C=1e6).fit(X, y)
    for x, c in zip(X, y, strict=True):
        model.learn_one(x, c)
        margin = (2 * c - 1) * model.decision_function(x[None])[0]
        assert margin > 0.999
        before = model.coef_
        model.learn_one(x * (2.0 if margin > 1.0 else 1.0), c)
        if variant != "PA-II" and margin > 1.0:
            np.testing.assert_allclose(model.coef_, before, rtol=1e-9)


def test_quality_with_columns_of_any_scale():
    generator = np.random.default_rng(0)
    X, score = stream(20_000)
    X = X * [1e-9, 1.0, 1e3, 1e9] + [0.0, 5.0, 0.0, 1e9]
    y = score > 0.0
    best = (X[:, 3] > 1e9).mean()
    for variant in ("PA-I", "PA-II"):
        model = PassiveAggressiveClassifier(variant=variant)
        assert (model.score_then_learn(X, y) == y)[5000:].mean() > max(best, 0.85)
        regressor = PassiveAggressiveRegressor(variant=variant)
        errors = (regressor.score_then_learn(X, 1e6 * score) - 1e6 * score)[5000:]
        assert np.std(errors) < 0.4e6 * np.std(score)
    noisy = np.where(generator.random(len(X)) < 0.05, 1e9, score)
    answers = PassiveAggressiveRegressor().score_then_learn(X, noisy)
    assert np.isfinite(answers).all()


def test_sparse_rows_are_dense_rows():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(400, 16)) * (generator.random((400, 16)) < 0.3)
    y = (X[:, 0] > X[:, 1]).astype(int)
    params = {"bits": 4, "standardize": False, "C": 0.1}
    dense = PassiveAggressiveClassifier(**params).fit(X, y)
    sparse = PassiveAggressiveClassifier(**params).fit(csr_matrix(X), y)
    np.testing.assert_allclose(sparse.coef_, dense.coef_, rtol=1e-9, atol=1e-12)


def test_one_row_at_a_time_is_all_rows():
    X, score = stream(200)
    for make, y in (
        (lambda: PassiveAggressiveClassifier(variant="PA-II"), score > 0.0),
        (lambda: PassiveAggressiveRegressor(), score),
    ):
        one, all_rows = make(), make()
        answers = [one.learn_one(x, value) for x, value in zip(X, y.tolist(), strict=True)]
        np.testing.assert_array_equal(answers, all_rows.score_then_learn(X, y))
        assert state_digest(one.save()) == state_digest(all_rows.save())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PassiveAggressiveClassifier(C=0.0), "C=0.0; it takes a number above 0"),
        (lambda: PassiveAggressiveClassifier(variant="PA-III"), "PA, PA-I, PA-II"),
        (lambda: PassiveAggressiveClassifier(bits=0), "bits=0"),
        (lambda: PassiveAggressiveRegressor(epsilon=-1.0), "epsilon=-1.0"),
        (lambda: PassiveAggressiveRegressor(clip=-1.0), "clip=-1.0"),
    ],
)
def test_wrong_parameters(make, message):
    with pytest.raises(SpecError) as error:
        make().fit([[1.0], [2.0]], [0, 1])
    assert message in str(error.value)
