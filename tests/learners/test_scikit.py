"""What the adapter adds is nothing but speed: scikit-learn's own answers, bit by bit."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import IncrementalPCA
from sklearn.linear_model import Perceptron, SGDClassifier, SGDRegressor
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB
from sklearn.neural_network import MLPClassifier

from everlearn.base import Batch, Columns, InputError
from everlearn.learners import Chain, Encoder, as_learner

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(600, 5))
BINARY = (X[:, 0] + 0.5 * GENERATOR.normal(size=600) > 0).astype(np.int64)
THREE = np.digitize(X[:, 1], [-0.5, 0.5]).astype(np.int64)
COLUMNS = Columns(numbers=tuple("abcde"), target="y", target_kind="integer")


def rows(values=X, y=None, weight=None):
    n = len(values)
    return Batch(
        numbers=np.ascontiguousarray(values),
        categories=np.zeros((n, 0), np.uint64),
        times=np.zeros((n, 0), np.int64),
        y=y,
        weight=weight,
        ids=np.arange(n, dtype=np.uint64),
    )


@pytest.mark.parametrize("target", [BINARY, THREE])
@pytest.mark.parametrize(
    "estimator",
    [
        SGDClassifier(loss="log_loss", random_state=0),
        SGDClassifier(loss="modified_huber", random_state=0),
        SGDClassifier(loss="hinge", average=True, random_state=0),
        Perceptron(random_state=0),
        GaussianNB(),
        BernoulliNB(),
        MLPClassifier((4,), random_state=0),
    ],
    ids=lambda estimator: str(estimator),
)
def test_answers_as_the_estimator_does(estimator, target):
    classes = int(target.max()) + 1
    estimator = clone(estimator)
    learner = as_learner(estimator, COLUMNS, classes=classes)
    for chunk in rows(y=target).split(100):
        learner.learn(chunk, score=10)
        estimator.partial_fit(chunk.numbers, chunk.y, classes=np.arange(classes))
    answer = learner.predict(rows())
    assert (answer.value == estimator.predict(X)).all()
    if hasattr(estimator, "predict_proba"):
        np.testing.assert_allclose(answer.proba, estimator.predict_proba(X), rtol=0, atol=1e-15)
    else:
        assert answer.proba is None
    if answer.margin is not None:
        np.testing.assert_allclose(answer.margin, estimator.decision_function(X), atol=1e-12)


def test_values_as_the_estimator_does():
    estimator = SGDRegressor(random_state=0)
    learner = as_learner(estimator, COLUMNS)
    y = X @ np.arange(5.0)
    for chunk in rows(y=y).split(100):
        learner.learn(chunk)
        estimator.partial_fit(chunk.numbers, chunk.y)
    np.testing.assert_allclose(learner.predict(rows()).value, estimator.predict(X), rtol=1e-14)


def test_probabilities_that_are_all_zero_become_uniform():
    learner = as_learner(SGDClassifier(loss="log_loss", random_state=0), COLUMNS, classes=3)
    learner.learn(rows(y=THREE))
    learner.estimator.intercept_[:] = -1e4
    answer = learner.predict(rows())
    np.testing.assert_allclose(answer.proba, 1 / 3)


@pytest.mark.parametrize("average", [False, True, 10_000])
@pytest.mark.parametrize("start", [2, 3])
def test_a_linear_model_says_no_to_a_new_class_until_it_learns_it(average, start):
    estimator = SGDClassifier(loss="log_loss", average=average, random_state=0)
    learner = as_learner(estimator, COLUMNS, classes=start)
    target = BINARY if start == 2 else THREE
    for chunk in rows(y=target).split(100):
        learner.learn(chunk)
    before = learner.predict(rows())
    scores = learner.estimator.decision_function(X)
    assert learner.grow(start + 2)
    after = learner.predict(rows())
    assert after.proba.shape == (600, start + 2)
    clear = scores.max(axis=1) > 0 if start > 2 else np.full(600, True)
    assert (after.value == before.value)[clear].all()
    shifted = np.where(X[:, 2] > 1, start + 1, target)
    for _ in range(10):
        for chunk in rows(y=shifted).split(100):
            learner.learn(chunk)
    learned = learner.predict(rows()).value
    assert (learned == start + 1)[X[:, 2] > 1.5].mean() > 0.6


def test_naive_bayes_grown_is_naive_bayes_told_at_once():
    grown = as_learner(GaussianNB(), COLUMNS, classes=2)
    told = as_learner(GaussianNB(), COLUMNS, classes=3)
    first, second = rows(y=BINARY).take(slice(0, 300)), rows(y=THREE).take(slice(300, 600))
    for learner in (grown, told):
        learner.learn(first)
    assert grown.grow(3)
    assert grown.predict(first).proba.shape == (300, 3)
    for learner in (grown, told):
        learner.learn(second)
    answers = grown.predict(rows()).proba, told.predict(rows()).proba
    np.testing.assert_allclose(*answers, atol=1e-9)


@pytest.mark.parametrize("estimator", [BernoulliNB(), CategoricalNB(min_categories=4)])
def test_counts_grow_exactly(estimator):
    values = np.abs(X).astype(np.int64).clip(0, 3).astype(np.float64)
    grown = as_learner(estimator, COLUMNS, classes=2)
    told = as_learner(estimator, COLUMNS, classes=3)
    for learner in (grown, told):
        learner.learn(rows(values, BINARY))
        assert learner.grow(3)
        learner.learn(rows(values, THREE))
    assert (grown.predict(rows(values)).proba == told.predict(rows(values)).proba).all()


def test_a_network_cannot_grow_once_it_has_learned():
    learner = as_learner(MLPClassifier((3,)), COLUMNS, classes=2)
    assert learner.grow(3)
    learner.learn(rows(y=THREE))
    assert not learner.grow(4)
    assert learner.grow(3)
    assert learner.classes == 3


def test_a_fixed_prior_has_no_room():
    learner = as_learner(GaussianNB(priors=[0.5, 0.5]), COLUMNS, classes=2)
    learner.learn(rows(y=BINARY))
    assert not learner.grow(3)


def test_weights_reach_the_estimator():
    weight = np.where(BINARY == 1, 5.0, 1.0)
    learner = as_learner(SGDClassifier(random_state=0), COLUMNS, classes=2)
    learner.learn(rows(y=BINARY, weight=weight))
    expected = SGDClassifier(random_state=0)
    expected.partial_fit(X, BINARY, classes=[0, 1], sample_weight=weight)
    assert (learner.estimator.coef_ == expected.coef_).all()


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_refuses_weights_that_are_none(wrong):
    learner = as_learner(SGDClassifier(), COLUMNS, classes=2)
    weight = np.ones(600)
    weight[3] = wrong
    with pytest.raises(InputError, match="weight"):
        learner.learn(rows(y=BINARY, weight=weight))


def test_an_estimator_without_weights_says_so():
    class Unweighted(SGDClassifier):
        def partial_fit(self, X, y, classes=None):
            return super().partial_fit(X, y, classes)

    learner = as_learner(Unweighted(), COLUMNS, classes=2)
    learner.learn(rows(y=BINARY, weight=np.ones(600)))
    with pytest.raises(InputError, match="Unweighted takes no sample weights"):
        learner.learn(rows(y=BINARY, weight=np.full(600, 2.0)))


def test_refuses_targets_that_are_none():
    classifier = as_learner(SGDClassifier(), COLUMNS, classes=2)
    with pytest.raises(InputError, match="no target"):
        classifier.learn(rows())
    with pytest.raises(InputError, match="codes are 0 … 1"):
        classifier.learn(rows(y=THREE))
    with pytest.raises(InputError, match="codes are"):
        classifier.learn(rows(y=BINARY - 1))
    regressor = as_learner(SGDRegressor(), COLUMNS)
    with pytest.raises(InputError, match="NaN"):
        regressor.learn(rows(y=np.full(600, np.nan)))


def test_a_learner_that_diverges_says_what_to_do():
    learner = as_learner(SGDRegressor(learning_rate="constant", eta0=1.0), COLUMNS)
    with pytest.raises(InputError, match=r"diverged.*Encoder"):
        for _ in range(3):
            learner.learn(rows(X * 1e160, y=X[:, 0] * 1e5))


def test_a_first_chunk_smaller_than_the_components_is_refused_clearly():
    learner = as_learner(
        Chain(Encoder(missing="mean"), IncrementalPCA(4), SGDClassifier()), COLUMNS, classes=2
    )
    state = {name: part.digest for name, part in learner.save().items()}
    small = rows(y=BINARY).take(slice(0, 3))
    with pytest.raises(InputError, match=r"3 rows.*larger Strategy\(chunk="):
        learner.learn(small)
    assert learner.save()["encoder"].digest == state["encoder"]
    learner.learn(rows(y=BINARY))
    learner.learn(small)
    learner.learn(small.take(slice(0, 1)))
    assert len(learner.predict(small)) == 3


def test_components_alone_answer_with_the_reconstruction_error():
    learner = as_learner(IncrementalPCA(2), COLUMNS)
    learner.learn(rows())
    estimator = IncrementalPCA(2).partial_fit(X)
    back = estimator.inverse_transform(estimator.transform(X))
    np.testing.assert_allclose(learner.predict(rows()).value, ((X - back) ** 2).sum(axis=1))


def test_components_that_have_learned_nothing_reconstruct_nothing():
    """An error of 0 would be the best there is."""
    fresh = as_learner(IncrementalPCA(2), COLUMNS)
    np.testing.assert_allclose(fresh.predict(rows()).value, (X**2).sum(axis=1))
    assert len(fresh.predict(rows().take(slice(0)))) == 0


def test_a_category_for_which_there_is_no_count_is_refused_in_words():
    values = np.digitize(X, [-1.0, 0.0, 1.0]).astype(np.float64)
    learner = as_learner(CategoricalNB(), COLUMNS, classes=2)
    learner.learn(rows(values, y=BINARY))
    with pytest.raises(InputError, match=r"no place for a value .* min_categories="):
        learner.predict(rows(values + 5))
    roomy = as_learner(CategoricalNB(min_categories=10), COLUMNS, classes=2)
    roomy.learn(rows(values, y=BINARY))
    assert np.isfinite(roomy.predict(rows(values + 5)).proba).all()


def test_loading_a_broken_state_leaves_a_fresh_learner():
    learner = as_learner(SGDClassifier(), COLUMNS, classes=2)
    learner.learn(rows(y=BINARY))
    state = dict(learner.save())
    state["estimator"] = as_learner(Perceptron(), COLUMNS, classes=2).save()["estimator"]
    with pytest.raises(InputError, match="Perceptron"):
        learner.load(state)
    assert (learner.predict(rows()).value == 0).all()
