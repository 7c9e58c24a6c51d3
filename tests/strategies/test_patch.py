"""Exceptions and changes of weights: what they hold, what they leave, and how they are solved."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.base import Array, Batch, Columns, Floats, Prediction
from everlearn.learners import (
    AdaptiveRandomForestClassifier,
    Chain,
    Encoder,
    GaussianNB,
    HoeffdingTreeClassifier,
    HoeffdingTreeRegressor,
    LinearRegression,
    LinearSVM,
    LogisticRegression,
    as_learner,
)
from everlearn.learners.editable import editable_of
from everlearn.strategies.patch import Edit, Patch
from everlearn.strategies.patch_exceptions import SAME, Exceptions, Space
from everlearn.strategies.patch_weights import UnsolvableError, Weights, _classes, _gaps, solved

SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(deadline=None, max_examples=40)


def rows(numbers: Array, y: Array | None = None, *, categories: Array | None = None) -> Batch:
    """A batch of numbers, and of one category where there are any."""
    n = len(numbers)
    return Batch(
        numbers=np.ascontiguousarray(numbers, np.float64),
        categories=np.zeros((n, 0), np.uint64) if categories is None else categories[:, None],
        times=np.zeros((n, 0), np.int64),
        ids=np.arange(n, dtype=np.uint64),
        y=y,
    )


def columns(p: int, categories: int = 0, kind: Any = "integer") -> Columns:
    """Numbers, and categories."""
    names = tuple(f"c{place}" for place in range(categories))
    numbers = tuple(f"x{place}" for place in range(p))
    return Columns(numbers=numbers, categories=names, target="y", target_kind=kind)


# --- the solver ---------------------------------------------------------------------------------


def problem(seed: int) -> tuple[Floats, Floats, Floats, Array]:
    """(features, features with C⁻¹, scores, wanted classes) of a few edits."""
    generator = np.random.default_rng(seed)
    count, k, d = (int(generator.integers(low, high)) for low, high in ((1, 9), (2, 6), (9, 20)))
    features = generator.normal(size=(count, d))
    around = generator.normal(size=(50, d)) * generator.uniform(0.2, 3.0, d)
    ways = np.asarray(
        np.linalg.solve(around.T @ around / 50.0 + 0.01 * np.eye(d), features.T), np.float64
    )
    return features, ways, generator.normal(size=(count, k)), generator.integers(0, k, count)


@given(SEEDS)
@FEW
def test_all_edits_hold_and_the_change_is_the_least(seed: int) -> None:
    features, ways, scores, wanted = problem(seed)
    multipliers = _classes(features @ ways, scores, wanted, 0.5)
    gaps = _gaps(scores + features @ ways @ multipliers, wanted)
    assert gaps.min() >= 0.5 * (1.0 - 1e-5)
    # the conditions of Karush, Kuhn and Tucker, by which a solution of a convex problem is known
    own = np.take_along_axis(multipliers, wanted[:, None], axis=1)
    pulls = -multipliers
    np.put_along_axis(pulls, wanted[:, None], 0.0, axis=1)
    assert pulls.min() >= -1e-9
    np.testing.assert_allclose(own[:, 0], pulls.sum(axis=1), atol=1e-9)
    held = pulls > 1e-6 * max(pulls.max(), 1e-12)
    np.testing.assert_allclose(gaps[held], 0.5, rtol=1e-4)


@given(SEEDS)
@FEW
def test_the_order_of_edits_does_not_matter(seed: int) -> None:
    features, ways, scores, wanted = problem(seed)
    order = np.random.default_rng(seed).permutation(len(wanted))
    change = ways @ _classes(features @ ways, scores, wanted, 0.5)
    again = ways[:, order] @ _classes(
        (features @ ways)[np.ix_(order, order)], scores[order], wanted[order], 0.5
    )
    np.testing.assert_allclose(again, change, atol=1e-6 * max(1.0, np.abs(change).max()))


def test_edits_that_are_alike_to_the_learner_cannot_have_different_answers() -> None:
    products = np.ones((2, 2))
    with pytest.raises(UnsolvableError, match="alike to the learner"):
        _classes(products, np.zeros((2, 3)), np.array([0, 1]), 0.5)


# --- learners whose answers can be changed ------------------------------------------------------


def _data(seed: int = 0) -> tuple[Floats, Array]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(600, 4))
    return x, (x[:, 0] + 0.5 * x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 1.0)


def _torch() -> Any:
    nn = pytest.importorskip("torch.nn")
    from everlearn.learners import TorchLearner

    def net() -> Any:
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))

    return TorchLearner(net, batch=32, encoder=Encoder(missing="mean"))


def _sgd(**parameters: Any) -> Any:
    from sklearn.linear_model import SGDClassifier

    return Chain(Encoder(), SGDClassifier(random_state=0, **parameters))


def _sgd_regressor() -> Any:
    from sklearn.linear_model import SGDRegressor

    return Chain(Encoder(), SGDRegressor(random_state=0))


def _keras(*last: Any, loss: str) -> Any:
    keras = pytest.importorskip("keras")
    from everlearn.learners import KerasLearner

    layers = [keras.layers.Input((4,)), keras.layers.Dense(16, activation="relu")]
    model = keras.Sequential([*layers, keras.layers.Dense(*last)])
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss)
    return KerasLearner(model, batch=32, encoder=Encoder(missing="mean"))


def _boosted(library: str, name: str) -> Any:
    return getattr(pytest.importorskip(library), name)(n_estimators=5, max_depth=3)


CLASSIFIERS: dict[str, Any] = {
    "logistic": LogisticRegression,
    "svm": LinearSVM,
    "sgd": lambda: _sgd(loss="log_loss"),
    "hinge": _sgd,
    "tree": HoeffdingTreeClassifier,
    "forest": lambda: AdaptiveRandomForestClassifier(n_models=5),
    "torch": _torch,
    "lightgbm": lambda: _boosted("lightgbm", "LGBMClassifier"),
    "xgboost": lambda: _boosted("xgboost", "XGBClassifier"),
    "keras": lambda: _keras(3, "softmax", loss="sparse_categorical_crossentropy"),
}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_unchanged_scores_say_what_the_learner_predicts(name: str, classes: int) -> None:
    x, y = _data()
    learner = as_learner(
        CLASSIFIERS[name](), columns(4), classes=3 if name in ("torch", "keras") else classes
    )
    learner.learn(rows(x, np.minimum(y, classes - 1)))
    editable = editable_of(learner)
    assert editable is not None
    features, scores = editable.activations(rows(x))
    assert features.shape[0] == len(scores) == len(x)
    said, predicted = editable.answer(scores), learner.predict(rows(x))
    assert np.array_equal(said.value, predicted.value)
    if predicted.proba is not None:
        assert said.proba is not None
        np.testing.assert_allclose(said.proba, predicted.proba, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name != "tree"])
def test_edits_hold_by_a_change_of_weights_and_nearly_all_else_stays(name: str) -> None:
    x, y = _data()
    learner = as_learner(CLASSIFIERS[name](), columns(4), classes=3)
    learner.learn(rows(x, y))
    fresh, right = _data(seed=1)
    before = learner.predict(rows(fresh)).value
    wrong = np.flatnonzero(before != right)[:2]
    edits, wanted = rows(fresh[wrong]), right[wrong]
    weights = solved(learner, edits, wanted, rows(x))
    assert np.array_equal(weights.answer(learner, edits).value, wanted)
    assert (weights.answer(learner, rows(fresh)).value == before).mean() > 0.85
    again = Weights.load(weights.save())
    assert np.array_equal(again.answer(learner, edits).value, wanted)


def test_categories_and_missing_numbers_are_features_of_a_linear_model() -> None:
    x, y = _data()
    x[::5, 1] = np.nan
    kinds = (np.arange(600) % 7 + 1).astype(np.uint64)
    learner = as_learner(LogisticRegression(), columns(4, 1), classes=3)
    learner.learn(rows(x, y, categories=kinds))
    edits = rows(x[:3], categories=kinds[:3])
    wanted = (learner.predict(edits).value + 1) % 3
    weights = solved(learner, edits, wanted, rows(x, categories=kinds))
    assert np.array_equal(weights.answer(learner, edits).value, wanted)
    assert weights.columns is not None  # of a table of 2¹⁸ places, the few that the edits have


@pytest.mark.parametrize("make", [LinearRegression, HoeffdingTreeRegressor, _sgd_regressor])
def test_values_are_moved_to_where_they_are_wanted(make: Any) -> None:
    x, _ = _data()
    learner = as_learner(make(), columns(4, kind="number"))
    learner.learn(rows(x, x[:, 0] * 3.0 + x[:, 1]))
    edits, wanted = rows(x[:1]), np.array([7.5])
    weights = solved(learner, edits, wanted, rows(x))
    np.testing.assert_allclose(weights.answer(learner, edits).value, wanted, rtol=1e-9)


def test_a_learner_without_a_linear_layer_is_not_editable() -> None:
    x, y = _data()
    learner = as_learner(GaussianNB(), columns(4), classes=3)
    learner.learn(rows(x, y))
    assert editable_of(learner) is None
    untaught = as_learner(LogisticRegression(), columns(4), classes=3)
    assert editable_of(untaught) is None


# --- exceptions ---------------------------------------------------------------------------------


class Fixed:
    """A learner that always answers 0, with probability .7."""

    kind = "classifier"

    def predict(self, batch: Batch) -> Prediction:
        n = len(batch)
        return Prediction(value=np.zeros(n, np.int64), proba=np.tile([0.7, 0.2, 0.1], (n, 1)))


def exceptions(seed: int, count: int = 8, p: int = 3) -> tuple[Exceptions, Batch, Floats]:
    """Exceptions to `Fixed`, their inputs, and reference rows."""
    generator = np.random.default_rng(seed)
    around, edits = generator.normal(size=(60, p)), rows(generator.normal(size=(count, p)))
    wanted = generator.integers(1, 3, count)
    kept = np.zeros((60, 1), np.int64)
    return Exceptions.around(edits, wanted, rows(around), kept), edits, around


@given(SEEDS)
@FEW
def test_edits_are_answered_as_wanted_and_reference_rows_as_before(seed: int) -> None:
    made, edits, around = exceptions(seed)
    fixed: Any = Fixed()
    patch = Patch(edits=(), exceptions=made)
    assert np.array_equal(patch.answer(fixed, edits).value, made.wanted)
    assert (patch.answer(fixed, rows(around)).value == 0).all()


@given(SEEDS)
@FEW
def test_the_ball_of_a_row_is_found_as_by_looking_at_all(seed: int) -> None:
    made, edits, _ = exceptions(seed, count=20)
    generator = np.random.default_rng(seed)
    places = np.repeat(edits.numbers, 10, axis=0)
    asked = rows(places + generator.normal(0.0, 0.3, places.shape))
    points, _ = made.space.places(asked)
    apart = np.sqrt(((points[:, None] - made.centers) ** 2).sum(axis=2))
    inside = np.where(apart <= made.radii, apart, np.inf)
    expected = np.where(np.isfinite(inside).any(axis=1), inside.argmin(axis=1), -1)
    assert np.array_equal(made.covering(asked), expected)


@given(SEEDS)
@FEW
def test_the_order_of_exceptions_does_not_matter(seed: int) -> None:
    generator = np.random.default_rng(seed)
    around, inputs = rows(generator.normal(size=(60, 2))), generator.normal(size=(12, 2))
    wanted, kept = generator.integers(1, 3, 12), np.zeros((60, 1), np.int64)
    order = generator.permutation(12)
    one = Exceptions.around(rows(inputs), wanted, around, kept)
    other = Exceptions.around(rows(inputs[order]), wanted[order], around, kept)
    asked = rows(np.repeat(inputs, 5, axis=0) + generator.normal(0.0, 0.2, (60, 2)))
    before = Fixed().predict(asked)
    first, second = one.answer(asked, before), other.answer(asked, before)
    assert np.array_equal(first.value, second.value)


def test_in_a_ball_the_wanted_class_takes_the_probability_of_the_answer() -> None:
    made, edits, _ = exceptions(0)
    before = Fixed().predict(edits)
    after = made.answer(edits, before)
    assert after.proba is not None and before.proba is not None
    np.testing.assert_allclose(after.proba.sum(axis=1), 1.0)
    np.testing.assert_allclose(after.proba.max(axis=1), 0.7)
    assert np.array_equal(after.proba.argmax(axis=1), made.wanted)
    assert (before.proba[:, 0] == 0.7).all()  # what was handed over is as it was


def test_of_two_classes_the_margin_changes_its_side() -> None:
    made, edits, _ = exceptions(0)
    before = Prediction(value=np.zeros(8, np.int64), margin=np.full(8, -2.0))
    two = Exceptions(made.space, made.centers, made.hashes, made.radii, np.ones(8, np.int64))
    after = two.answer(edits, before)
    assert after.margin is not None and (after.margin == 2.0).all()


def test_a_category_and_what_is_missing_have_to_be_the_same() -> None:
    kinds = np.array([1, 1, 2], np.uint64)
    edit = rows(np.zeros((1, 2)), categories=np.array([1], np.uint64))
    far = rows(np.full((3, 2), 4.0), categories=kinds)
    made = Exceptions.around(edit, np.array([1]), far, np.zeros((3, 1), np.int64))
    near = np.array([[0.01, 0.0], [0.01, 0.0], [np.nan, 0.0]])
    asked = rows(near, categories=np.array([1, 2, 1], np.uint64))
    assert made.covering(asked).tolist() == [0, -1, -1]
    for row in range(3):  # and in a batch of its own
        assert made.covering(asked.take(slice(row, row + 1)))[0] == [0, -1, -1][row]


def test_without_reference_rows_only_the_input_itself_is_an_exception() -> None:
    edit = rows(np.array([[1.0, 2.0]]))
    made = Exceptions.around(edit, np.array([1]), edit.take(slice(0, 0)), np.zeros((0, 1)))
    assert made.radii.tolist() == [SAME]
    assert made.covering(rows(np.array([[1.0, 2.0], [1.0, 2.1]]))).tolist() == [0, -1]


def test_rows_that_are_known_to_be_wrong_may_be_in_a_ball() -> None:
    edit, other = rows(np.zeros((1, 1))), rows(np.array([[0.5], [3.0], [-3.0]]))
    kept = np.zeros((3, 1), np.int64)
    narrow = Exceptions.around(edit, np.array([1]), other, kept)
    known = np.column_stack([kept, [1, 0, 0]])  # the first row's answer should be 1 as well
    wide = Exceptions.around(edit, np.array([1]), other, known)
    assert wide.radii[0] > 5.0 * narrow.radii[0]
    assert wide.covering(other)[0] == 0


def test_a_constant_column_does_not_make_rows_infinitely_far() -> None:
    space = Space.of(rows(np.array([[1.0, 5.0], [3.0, 5.0]])))
    assert np.isfinite(space.places(rows(np.array([[2.0, 6.0]])))[0]).all()


def test_a_patch_is_what_was_saved() -> None:
    made, edits, _ = exceptions(3)
    edit = Edit(number=1, features={"x0": 1.0}, output=1, reason="seen", expires_at=5)
    weights = Weights(np.array([0, 2]), np.ones((2, 3)))
    patch = Patch(edits=(edit,), base=4, weights=weights, exceptions=made)
    again = Patch.load(patch.save())
    assert again is not None and again.exceptions is not None and again.weights is not None
    assert (again.edits, again.base) == (patch.edits, 4)
    assert np.array_equal(again.exceptions.covering(edits), made.covering(edits))
    assert Patch.load({}) is None


@pytest.mark.parametrize("far", [1e6, 1e25, 1e200, np.nan])
def test_an_exception_that_is_far_from_all_rows_leaves_the_others(far: float) -> None:
    x = np.random.default_rng(0).normal(size=(200, 4))
    y = (x[:, 0] > 0).astype(np.int64)
    own = x[:3].copy()
    own[0, 1] = far
    exceptions = Exceptions.around(rows(own), 1 - y[:3], rows(x[3:]), y[3:, None])
    assert exceptions.covering(rows(own)).tolist() == [0, 1, 2]
    assert exceptions.covering(rows(x[3:])).max() == -1


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (300, 10), (9000, 1), (9000, 2)])
def test_a_change_of_weights_is_the_same_to_the_bit_for_one_row_and_for_many(shape: Any) -> None:
    generator = np.random.default_rng(0)
    weights = Weights(None, generator.normal(size=shape))
    x, scores = generator.normal(size=(20, shape[0])), generator.normal(size=(20, shape[1]))
    many = weights.changed(x, scores)
    alone = [weights.changed(x[i : i + 1].copy(), scores[i : i + 1]) for i in range(20)]
    assert np.array_equal(many, np.vstack(alone))
    np.testing.assert_allclose(many, scores + x @ weights.change)


def test_another_thread_that_asks_a_module_changes_no_scores_of_this_one() -> None:
    torch = pytest.importorskip("torch")
    from everlearn.learners.neural.editable import EditableHead

    head = torch.nn.Linear(4, 3).requires_grad_(False)
    answer: Any = None
    x = rows(np.random.default_rng(0).normal(size=(5, 4)))

    def predict(batch: Batch) -> Any:
        head(torch.tensor(batch.numbers, dtype=torch.float32))
        other = threading.Thread(target=head, args=(torch.ones(5, 4),))
        other.start()
        other.join()

    features, _ = EditableHead(head, predict, answer, 3).activations(x)
    np.testing.assert_allclose(features[:, :4], x.numbers, rtol=1e-6)
