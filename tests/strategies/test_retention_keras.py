"""Retention: what Keras models are held to while they learn, on whichever back end Keras runs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras", reason="Keras is needed")

import everlearn as el  # noqa: E402
from everlearn.base import Columns, Learner, SpecError  # noqa: E402
from everlearn.learners.encoder import Encoder  # noqa: E402
from everlearn.learners.keras_models.definition import KerasLearner  # noqa: E402
from everlearn.learners.keras_models.variables import arrayed  # noqa: E402
from everlearn.strategies import (  # noqa: E402
    AGEM,
    EWC,
    MAS,
    SI,
    Anchor,
    DarkReplay,
    Expand,
    Freeze,
    LoRA,
    LwF,
)
from everlearn.strategies.keras_retention.sampled import ArraySample  # noqa: E402
from everlearn.testing.learner import COLUMNS, LearnerSuite, make_rows  # noqa: E402

on_pytorch = pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="takes its time there; run on PyTorch"
)
"""Run by `tests/learners/test_keras.py` in a process where Keras runs on PyTorch."""

PLAIN = Encoder(numbers="as_is", categories="drop", times="drop", missing="mean")


def compiled(*layers: Any, loss: Any = None, rate: float = 0.01, eager: bool = False) -> Any:
    model = keras.Sequential(layers)
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, run_eagerly=eager)
    return model


def net() -> Any:
    """Run as it stands: there are many of it, and TensorFlow takes a second for each graph."""
    dense = keras.layers.Dense
    return compiled(dense(16, "relu"), keras.layers.Dropout(0.1), dense(3), eager=True)


class Held(LearnerSuite):
    """A model that has been through one increment, and is held to it."""

    method: Any

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        encoder = Encoder(categories="onehot", buckets=8)
        definition = KerasLearner(net, batch=50, encoder=encoder)
        return self.method.wrap(  # type: ignore[no-any-return]
            definition.make_learner(columns, classes=classes, seed=seed)
        )

    def taught(self, rows: int = 300, seed: int = 0) -> Learner:
        learner = super().taught(rows, seed)
        if rows:
            learner.settle()  # type: ignore[attr-defined]
            for batch in self.rows(rows, rows + 120).split(60):
                learner.learn(batch)
        return learner


for told_of_the_learner in (
    "test_follows_the_protocol",
    "test_answers_with_a_prior_before_it_has_learned",
    "test_predictions_have_their_forms",
    "test_no_rows_are_answered_by_no_rows",
    "test_a_prediction_does_not_depend_on_the_rows_beside_it",
    "test_refuses_rows_with_other_columns",
    "test_stays_finite_with_nothing_but_missing_values",
    "test_learns",
    "test_room_for_classes_comes_before_them",
):  # whatever it is held to
    assert hasattr(Held, told_of_the_learner)
    setattr(Held, told_of_the_learner, None)


@on_pytorch
class TestEwc(Held):
    method = EWC(50.0, rows=64)


@on_pytorch
class TestAnchor(Held):
    method = Anchor(0.5)


@on_pytorch
class TestSi(Held):
    method = SI(5.0)


@on_pytorch
class TestMas(Held):
    method = MAS(5.0, rows=64)


@on_pytorch
class TestLwf(Held):
    method = LwF()


@on_pytorch
class TestDarkReplay(Held):
    method = DarkReplay(50)


@on_pytorch
class TestAgem(Held):
    method = AGEM(50, draw=20)


def two_tasks() -> list[tuple[Any, Any]]:
    """The sign of one of two numbers, each told apart from the other task by a third and fourth."""
    rng = np.random.default_rng(1)
    tasks = []
    for task in range(2):
        X = np.column_stack([rng.normal(size=(2000, 2)), np.zeros((2000, 2))])
        X[:, 2 + task] = 1.0
        tasks.append((X, (X[:, task] > 0).astype(int)))
    return tasks


def small() -> Any:
    return compiled(keras.layers.Dense(32, "relu"), keras.layers.Dense(2))


@pytest.fixture(scope="module")
def naive() -> list[float]:
    """Accuracy on the old task and on the new one, of a model that is held to nothing."""
    return accuracies(None)


def accuracies(method: Any) -> list[float]:
    definition = KerasLearner(small, batch=50, encoder=PLAIN)
    old, new = two_tasks()
    strategy = el.Strategy(retention=method, chunk=500, passes=5)
    learned = el.learn(el.learn(definition, *old, strategy), *new, strategy)
    return [float((learned.predict(X) == y).mean()) for X, y in (old, new)]


ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
SHARED_OUT = (
    [EWC(500.0), LwF(0.1), AGEM(500)] if ON_TENSORFLOW else [SI(50.0), MAS(5.0), DarkReplay(200)]
)
"""Between the back ends: both run all of them in the other tests, and this takes its time."""


@pytest.mark.parametrize("method", SHARED_OUT, ids=lambda method: type(method).__name__)
def test_less_is_forgotten_and_the_new_is_learned(method: Any, naive: list[float]) -> None:
    held = accuracies(method)
    assert held[0] > naive[0] + 0.05
    assert held[1] > 0.9


def linear(loss: str = "mse", outputs: int = 1, **given: Any) -> KerasLearner:
    def make() -> Any:
        return compiled(keras.layers.Dense(outputs, **given), loss=loss, rate=0.001)

    return KerasLearner(make, encoder=PLAIN)


def held_of(learner: Any) -> Any:
    [held] = learner._training.holders
    return held


def test_importance_is_the_mean_of_squared_gradients_of_single_rows() -> None:
    learner: Any = EWC(rows=1000).wrap(linear().make_learner(COLUMNS))
    anchors, fishers = [], []
    for start in (0, 40):
        rows = make_rows(start, start + 40, classes=0, missing=False)
        learner.learn(rows)
        learner.settle()
        anchors.append(arrayed(learner.model.variables[0])[:, 0])
        fishers.append((rows.numbers**2).mean(axis=0))
        if not start:
            importance = arrayed(held_of(learner).importance["dense/kernel"])[:, 0]
            np.testing.assert_allclose(importance, fishers[0], rtol=1e-5)
    assert arrayed(held_of(learner).importance["dense/bias"]) == pytest.approx(2.0)
    expected = (fishers[0] * anchors[0] + fishers[1] * anchors[1]) / (fishers[0] + fishers[1])
    found = arrayed(held_of(learner).anchor["dense/kernel"])[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_importance_does_not_depend_on_how_the_model_writes_its_answers() -> None:
    """As scores or as probabilities."""
    (X, y), _ = two_tasks()
    found = []
    for given in ({"loss": keras.losses.BinaryCrossentropy(from_logits=True)}, {"loss": "bce"}):
        activation = "sigmoid" if given["loss"] == "bce" else None
        strategy = el.Strategy(chunk=100, retention=EWC(rows=3000))
        learned = el.learn(linear(**given, activation=activation), X, y, strategy)
        found.append(learned.state["learner/held/ewc/importance"].arrays["dense/kernel"])
    assert found[0].min() >= 0.0 and found[0].max() > 0.01
    np.testing.assert_allclose(found[0], found[1], rtol=0.05, atol=1e-6)


@pytest.mark.parametrize(
    ("precision", "method"),
    [("float64", DarkReplay(30)), ("mixed_bfloat16", DarkReplay(30)), ("mixed_float16", LwF())],
)
def test_models_of_any_precision_are_held(precision: str, method: Any) -> None:
    def make() -> Any:
        x = keras.Input((3,), dtype="float64" if precision == "float64" else None)
        answer = keras.layers.Dense(1, "sigmoid", dtype=keras.dtype_policies.get(precision))(x)
        model = keras.Model(x, answer)
        model.compile(keras.optimizers.SGD(0.01), "binary_crossentropy")
        return model

    learner: Any = method.wrap(KerasLearner(make, encoder=PLAIN).make_learner(COLUMNS, classes=2))
    for start in (0, 60):
        learner.learn(make_rows(start, start + 60, missing=False))
        learner.settle()
    parts = [part for name, part in learner.save().items() if "held/" in name]
    arrays = [array for part in parts for array in part.arrays.values()]
    assert arrays
    assert all(np.isfinite(array).all() for array in arrays)


@pytest.mark.parametrize("method", [LoRA(), Freeze(last=1), Expand()])
def test_what_is_for_pytorch_alone_is_refused(method: Any) -> None:
    with pytest.raises(SpecError, match="for PyTorch modules, not for a Keras model"):
        method.wrap(linear().make_learner(COLUMNS))


def test_nothing_is_held_by_a_strength_of_0() -> None:
    weights = []
    for method in (None, EWC(0.0), SI(0.0), MAS(0.0)):
        learner: Any = linear().make_learner(COLUMNS)
        learner = learner if method is None else method.wrap(learner)
        for start in (0, 60):
            learner.learn(make_rows(start, start + 60, classes=0, missing=False))
            learner.settle()
        weights.append(arrayed(learner.model.variables[0]))
    for held in weights[1:]:
        np.testing.assert_array_equal(held, weights[0])


def test_a_penalty_of_any_strength_does_not_diverge() -> None:
    def make() -> Any:
        model = compiled(keras.layers.Dense(8, "relu"), keras.layers.Dense(2))
        model.optimizer = keras.optimizers.SGD(0.1)
        return model

    learner: Any = EWC(1e12, rows=64).wrap(
        KerasLearner(make, batch=50, encoder=PLAIN).make_learner(COLUMNS, classes=2)
    )
    for start in range(0, 600, 100):
        learner.learn(make_rows(start, start + 100))
        learner.settle()
        if not start:
            before = arrayed(learner.model.variables[0])
    assert np.isfinite(learner.predict(make_rows(0, 10)).proba).all()
    assert np.abs(arrayed(learner.model.variables[0]) - before).max() < 0.5


def test_a_strategy_may_begin_to_hold_on_and_stop() -> None:
    old, new = two_tasks()
    definition = KerasLearner(small, batch=100, encoder=PLAIN)
    free = el.learn(definition, *old, el.Strategy(chunk=1000))
    moved = []
    for retention in (None, LwF(100.0)):
        after = el.learn(free, *new, el.Strategy(chunk=1000, retention=retention))
        moved.append(np.abs(after.predict_proba(old[0]) - free.predict_proba(old[0])).mean())
    assert moved[1] < 0.5 * moved[0]
    assert any(name.startswith("learner/held/lwf/") for name in after.state)
    last = el.learn(after, *old, el.Strategy(chunk=1000))
    assert not any(name.startswith("learner/held/") for name in last.state)


def test_no_step_of_agem_raises_the_loss_of_remembered_rows() -> None:
    columns = Columns(numbers=("a", "b", "c", "d"), target="y", target_kind="integer")
    learner: Any = AGEM(100, draw=100).wrap(
        KerasLearner(small, encoder=PLAIN).make_learner(columns, classes=2)
    )
    training, rng = learner._training, np.random.default_rng(0)
    held = held_of(learner)
    x = rng.normal(size=(100, 4)).astype(np.float32)
    y = rng.integers(0, 2, 100).astype(np.int32)
    held.seen(training, x, y, x)
    held.settle(training)
    given = [keras.ops.convert_to_tensor(array) for array in held.begin(training, 100)]

    def gradient(labels: Any) -> list[Any]:
        return list(
            training.gradients(
                lambda: training.data_loss(labels, training.model(given[0], training=True))
            )
        )

    reference, other = gradient(given[1]), gradient(1 - given[1])
    opposite = [0.1 * g - 2.0 * r for g, r in zip(other, reference, strict=True)]
    found = held.gradients(training, opposite, given)

    def along(some: list[Any]) -> float:
        pairs = zip(some, reference, strict=True)
        return sum(float((to_array(g) * to_array(r)).sum()) for g, r in pairs)

    assert along(opposite) < -1e-3
    assert along(found) > -1e-6


def to_array(tensor: Any) -> Any:
    from everlearn.learners.keras_models.back_ends import back_end

    return back_end().array_of(tensor)


def test_samples_are_uniform_also_when_they_are_merged() -> None:
    rng = np.random.default_rng(0)
    counts = np.zeros(60)
    for _ in range(2000):
        first, second = ArraySample(10), ArraySample(10)
        for start in range(0, 40, 8):
            first.offer(rng, np.arange(start, start + 8)[:, None])
        second.offer(rng, np.arange(40, 60)[:, None])
        first.merge(rng, second)
        assert len(first) == 10
        counts[first.x[:, 0]] += 1
    # each of 60 rows is held with probability 1/6: a standard deviation of 17 in 2000
    assert abs(counts - 2000 / 6).max() < 70
    assert abs(counts[40:].sum() - 20_000 / 3) < 400


def test_a_sample_may_become_smaller() -> None:
    rng = np.random.default_rng(0)
    large, less = ArraySample(40), ArraySample(10)
    large.offer(rng, np.arange(200)[:, None])
    less.load(large.save())
    less.offer(rng, np.arange(200, 205)[:, None])
    kept = set(less.x[:, 0].tolist())
    assert len(kept) == 10
    assert kept <= {*large.x[:, 0].tolist(), *range(200, 205)}
