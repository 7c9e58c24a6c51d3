"""Keras models as learners, on whichever back end Keras runs on here."""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras", reason="Keras is needed")

import everlearn as el  # noqa: E402
from everlearn.base import (  # noqa: E402
    Columns,
    InputError,
    Learner,
    Part,
    SpecError,
    state_digest,
)
from everlearn.learners.encoder import Encoder  # noqa: E402
from everlearn.learners.keras_models.definition import KerasLearner  # noqa: E402
from everlearn.learners.keras_models.network import KerasNetwork  # noqa: E402
from everlearn.learners.keras_models.variables import arrayed  # noqa: E402
from everlearn.registry.config import from_config, to_config  # noqa: E402
from everlearn.registry.spec import load_spec  # noqa: E402
from everlearn.strategies import EWC, DarkReplay  # noqa: E402
from everlearn.testing.learner import COLUMNS, LearnerSuite, copied, make_rows  # noqa: E402

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
HERE = Path(__file__)
ENCODER = Encoder(categories="onehot", buckets=8)
WIDTH = 3 * 2 + 6 + 8


def net(outputs: int = 3, loss: Any = None, rate: float = 0.02) -> Any:
    model = keras.Sequential([keras.layers.Dense(24, "relu"), keras.layers.Dense(outputs)])
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    return model


def wide() -> Any:
    x = keras.Input((WIDTH,), dtype="float64")
    hidden = keras.layers.Dense(24, "relu", dtype="float64")(x)
    model = keras.Model(x, keras.layers.Dense(1, dtype="float64")(hidden))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def noisy() -> Any:
    model = keras.Sequential(
        [
            keras.layers.Dense(24),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 10, 0.99)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, clipnorm=1.0)
    model.compile(optimizer, "categorical_crossentropy")
    return model


class TestClassifier(LearnerSuite):
    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = KerasLearner(net, batch=50, encoder=ENCODER)
        return made.make_learner(columns, classes=classes, seed=seed)


on_pytorch = pytest.mark.skipif(ON_TENSORFLOW, reason="takes its time there; run on PyTorch")
"""TensorFlow takes a second for each graph, of which these make many."""


@on_pytorch
class TestAStepAChunk(LearnerSuite):
    learns = False
    scores = "step"

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = KerasLearner(net, encoder=ENCODER)
        return made.make_learner(columns, classes=classes, seed=seed)


@on_pytorch
class TestRegressor(LearnerSuite):
    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = KerasLearner(wide, batch=10, encoder=ENCODER)
        return made.make_learner(columns, classes=classes, seed=seed)

    def test_a_prediction_does_not_depend_on_the_rows_beside_it(self) -> None:
        if ON_TENSORFLOW:  # on PyTorch, Keras rounds matrix products of
            super().test_a_prediction_does_not_depend_on_the_rows_beside_it()  # float64 to float32


@on_pytorch
class TestEverythingAtOnce(LearnerSuite):
    """Dropout, batch normalisation, a schedule, clipping, momentum, probabilities, one-hot."""

    learns = False

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = KerasLearner(noisy, batch=25, encoder=ENCODER)
        return made.make_learner(columns, classes=classes, seed=seed)


def taught(definition: KerasLearner, columns: Columns = COLUMNS, rows: int = 200) -> KerasNetwork:
    learner = definition.make_learner(columns, classes=2)
    learner.learn(make_rows(0, rows))
    return learner


def compiled(*layers: Any, loss: Any = "mse", optimizer: Any = "sgd", **given: Any) -> Any:
    model = keras.Sequential(list(layers))
    model.compile(optimizer, loss, **given)
    return model


PLAIN = Encoder(numbers="as_is", categories="drop", times="drop", missing="mean")
CODES = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def text_example() -> Any:
    return compiled(
        keras.layers.Dense(64, activation="relu"), keras.layers.Dense(1), optimizer="adam"
    )


def test_is_the_loop_of_train_on_batch_bit_by_bit() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3050, 5))
    y = X @ np.arange(5.0) + rng.normal(size=len(X))
    plain = Encoder(numbers="as_is", missing="mean")
    definition = KerasLearner(text_example, encoder=plain)
    learned = el.learn(definition, X, y, el.Strategy(chunk=1000, seed=7))
    columns = learned._fold.columns
    by_hand = definition.make_learner(columns, seed=7).model  # the weights that the seed draws
    for start in range(0, len(X), 1000):
        rows = slice(start, start + 1000)
        by_hand.train_on_batch(X[rows].astype(np.float32), y[rows].astype(np.float32))
    model = learned._fold.learner.model  # type: ignore[attr-defined]
    for ours, theirs in zip(model.variables, by_hand.variables, strict=True):
        np.testing.assert_array_equal(arrayed(ours), arrayed(theirs))
    for ours, theirs in zip(model.optimizer.variables, by_hand.optimizer.variables, strict=True):
        np.testing.assert_array_equal(arrayed(ours), arrayed(theirs))


def test_scores_are_what_it_would_have_answered() -> None:
    for batch in (None, 20):
        learner = taught(KerasLearner(net, batch=batch, encoder=PLAIN))
        rows = make_rows(200, 300)
        expected = learner.predict(rows)
        answer = learner.learn(rows, score=60)
        assert answer is not None and answer.proba is not None and expected.proba is not None
        np.testing.assert_allclose(answer.proba, expected.proba[:60], atol=1e-6)


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    learner = taught(KerasLearner(net, batch=20, encoder=ENCODER))
    kernel = learner.model.variables[0]
    good = arrayed(kernel)
    bad = good.copy()
    bad[0, 0] = np.inf
    kernel.assign(bad)
    with pytest.raises(InputError, match=r"loss is nan in step 11, of 20 rows; lower"):
        learner.learn(make_rows(200, 240))
    with pytest.raises(InputError, match=r"dense/kernel is not finite after 10 steps"):
        learner.save()


def normed() -> Any:
    return compiled(keras.layers.BatchNormalization(), keras.layers.Dense(2), loss=CODES)


class OwnStep(keras.Model):  # type: ignore[misc]
    """Its `train_step` is that of Keras, called by another name."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dense = keras.layers.BatchNormalization(), keras.layers.Dense(2)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.dense(self.norm(x, training=training))

    def train_step(self, *data: Any) -> Any:
        return super().train_step(*data)


def own_step() -> Any:
    model = OwnStep()
    model.compile("sgd", CODES)
    return model


@pytest.mark.parametrize(
    ("make", "retention"),
    [(normed, None), (normed, DarkReplay(50)), (normed, EWC(1.0)), (own_step, None)],
)
def test_a_refused_step_leaves_nothing_behind(make: Any, retention: Any) -> None:
    learner: Any = taught(KerasLearner(make, encoder=PLAIN, batch=40))
    learner = learner if retention is None else retention.wrap(learner)
    before = {name: part.digest for name, part in learner.save().items() if "model" in name}
    bad = make_rows(200, 220, missing=False)
    bad = replace(bad, numbers=bad.numbers * 1e39)  # infinite in float32
    with pytest.raises(InputError, match="the loss is nan"):
        learner.learn(bad)
    after = learner.save()
    assert {name: part.digest for name, part in after.items() if "model" in name} == before
    learner.learn(make_rows(0, 200, missing=False))
    learner.settle()
    assert all(
        np.isfinite(a).all() for part in learner.save().values() for a in part.arrays.values()
    )


def test_a_step_of_the_models_own_is_taken_and_cannot_be_held() -> None:
    definition = KerasLearner(own_step, encoder=PLAIN, batch=20)
    own, usual = taught(definition), taught(KerasLearner(normed, encoder=PLAIN, batch=20))
    for ours, theirs in zip(own.model.variables, usual.model.variables, strict=True):
        assert tuple(ours.shape) == tuple(theirs.shape)
    assert own.predict(make_rows(0, 5)).proba is not None
    with pytest.raises(SpecError, match="OwnStep has a train_step of its own"):
        EWC().wrap(definition.make_learner(COLUMNS, classes=2))


def test_a_state_of_another_architecture_is_refused_by_its_names() -> None:
    state = taught(KerasLearner(net, encoder=ENCODER)).save()
    other = KerasLearner(noisy, encoder=ENCODER).make_learner(COLUMNS, classes=2)
    with pytest.raises(InputError, match=r"architecture: batch_normalization/gamma is missing"):
        other.load(copied(state))
    wider = KerasLearner(lambda: net(4), encoder=ENCODER).make_learner(COLUMNS, classes=2)
    with pytest.raises(InputError, match=r"dense_1/kernel has \(24, 3\) float32, not \(24, 4\)"):
        wider.load(copied(state))
    momentum = KerasLearner(
        lambda: compiled(
            keras.layers.Dense(24, "relu"), keras.layers.Dense(3), loss=CODES, optimizer="rmsprop"
        ),
        encoder=ENCODER,
    ).make_learner(COLUMNS, classes=2)
    with pytest.raises(InputError, match="another optimizer: dense/kernel/momentum is not in it"):
        momentum.load(copied(state))


class Hungry(keras.layers.Layer):  # type: ignore[misc]
    """Runs out of memory where there are more rows than it takes."""

    most = 1000

    def call(self, x: Any) -> Any:
        if x.shape[0] is not None and x.shape[0] > self.most:
            raise MemoryError(f"{x.shape[0]} rows")
        return x


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_memory_that_runs_out_halves_the_step_and_not_its_gradient(reduction: Any) -> None:
    def hungry() -> Any:
        dense = keras.layers.Dense
        layers = [Hungry(), dense(8, "tanh", kernel_regularizer="l2"), dense(2)]
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
        optimizer = keras.optimizers.SGD(0.001)
        return compiled(*layers, loss=loss, optimizer=optimizer, run_eagerly=True)

    definition = KerasLearner(hungry, encoder=ENCODER)
    whole, parts = (definition.make_learner(COLUMNS, classes=2) for _ in range(2))
    rows = make_rows(0, 70)
    rows = replace(rows, weight=np.linspace(0.5, 3.0, 70))
    whole.learn(rows)
    try:
        Hungry.most = 30
        parts.learn(rows)
        for ours, theirs in zip(parts.model.variables, whole.model.variables, strict=True):
            np.testing.assert_allclose(arrayed(ours), arrayed(theirs), atol=1e-6)
        Hungry.most = 0
        with pytest.raises(MemoryError, match="1 rows"):
            parts.learn(make_rows(200, 210))
    finally:
        Hungry.most = 1000


def test_the_processs_own_random_numbers_are_left_alone() -> None:
    random.seed(3)
    np.random.seed(3)
    expected = random.random(), np.random.random()
    random.seed(3)
    np.random.seed(3)
    taught(KerasLearner(noisy, encoder=ENCODER, batch=100)).predict(make_rows(0, 10))
    assert (random.random(), np.random.random()) == expected


def test_a_compiled_model_is_copied_with_its_weights_and_its_optimizer() -> None:
    given = compiled(keras.Input((WIDTH,)), keras.layers.Dense(2), loss=CODES, optimizer="adam")
    given.train_on_batch(np.ones((4, WIDTH)), np.zeros(4))
    before = [arrayed(v) for v in (*given.variables, *given.optimizer.variables)]
    learner = KerasLearner(given, encoder=ENCODER, pretrained=True).make_learner(COLUMNS, classes=2)
    theirs = (*learner.model.variables, *learner.model.optimizer.variables)
    assert all((arrayed(v) == b).all() for v, b in zip(theirs, before, strict=True))
    assert learner.predict(make_rows(0, 5)).proba.std() > 0  # type: ignore[union-attr]
    learner.learn(make_rows(0, 100))
    now = [arrayed(v) for v in (*given.variables, *given.optimizer.variables)]
    assert all((a == b).all() for a, b in zip(now, before, strict=True))
    assert not (arrayed(learner.model.variables[0]) == before[0]).all()


def test_a_copy_learns_as_the_model_that_was_given() -> None:
    layers = keras.Input((3,)), keras.layers.Dense(1, kernel_regularizer="l2")
    given = compiled(*layers, optimizer="adam", loss_weights=3.0, run_eagerly=True)
    columns = replace(COLUMNS, target_kind="number")
    rows = make_rows(0, 60, classes=0, missing=False)
    learner = KerasLearner(given, encoder=PLAIN).make_learner(columns)
    learner.learn(rows)
    given.train_on_batch(rows.numbers.astype(np.float32), rows.y.astype(np.float32)[:, None])  # type: ignore[union-attr]
    theirs = (*given.variables, *given.optimizer.variables)
    ours = (*learner.model.variables, *learner.model.optimizer.variables)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(arrayed(one), arrayed(other), rtol=1e-6)


class Late(keras.layers.Layer):  # type: ignore[misc]
    """Makes its layer where it learns its width."""

    def build(self, shape: Any) -> None:
        self.inner = keras.layers.Dense(WIDTH)
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        return self.inner(x)


def test_layers_that_are_made_late_draw_weights_of_their_own() -> None:
    def make() -> Any:
        return compiled(keras.layers.Dense(WIDTH), Late(), keras.layers.Dense(2), loss=CODES)

    model = KerasLearner(make, encoder=ENCODER).make_learner(COLUMNS, classes=2).model
    first, second = (arrayed(v) for v in model.variables if v.shape == (WIDTH, WIDTH))
    assert not np.allclose(first, second)


@on_pytorch
def test_a_state_from_a_gpu_is_loaded_without_one() -> None:
    definition = KerasLearner(net, encoder=ENCODER)
    state = dict(taught(definition).save())
    random = state["random"]
    state["random"] = Part({**random.arrays, "cuda": np.arange(16, dtype=np.uint8)}, random.meta)
    learner = definition.make_learner(COLUMNS, classes=2)
    learner.load(copied(state))
    assert state_digest(learner.save()) == state_digest(state)


def test_a_file_is_where_learning_begins_and_what_it_ends_in(tmp_path: Path) -> None:
    first = taught(KerasLearner(net, encoder=PLAIN))
    path = tmp_path / "kinds.keras"
    first.save_file(path)
    again = KerasLearner(path, encoder=PLAIN).make_learner(COLUMNS, classes=2)
    assert int(arrayed(again.model.optimizer.iterations)) == 1
    for learner in (first, again):
        learner.learn(make_rows(200, 300, missing=False))
    for ours, theirs in zip(first.model.variables, again.model.variables, strict=True):
        assert (arrayed(ours) == arrayed(theirs)).all()
    assert to_config(KerasLearner(path))["params"]["model"] == str(path)
    with pytest.raises(InputError, match=r"ends in \.keras"):
        first.save_file(tmp_path / "kinds.h5")
    with pytest.raises(SpecError, match="cannot be loaded"):
        KerasLearner(tmp_path / "none.keras").make_learner(COLUMNS)


def test_files_that_hold_code_are_not_loaded(tmp_path: Path) -> None:
    model = compiled(keras.Input((WIDTH,)), keras.layers.Dense(1), keras.layers.Lambda(abs))
    path = tmp_path / "lambda.keras"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model.save(path)
    definition = KerasLearner(path, encoder=ENCODER)
    with pytest.raises(SpecError, match="cannot be loaded"):
        definition.make_learner(replace(COLUMNS, target_kind="number"))


def test_frozen_layers_are_a_part_that_versions_share() -> None:
    def partly() -> Any:
        first = keras.layers.Dense(8, "tanh", trainable=False)
        return compiled(first, keras.layers.Dense(2), loss=CODES)

    learner = taught(KerasLearner(partly, encoder=ENCODER))
    state = learner.save()
    learner.learn(make_rows(200, 300))
    after = learner.save()
    assert set(state["model/frozen"].arrays) == {"dense/kernel", "dense/bias"}
    assert after["model/frozen"].digest == state["model/frozen"].digest
    assert after["model/moving"].digest != state["model/moving"].digest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": 3}, "is a compiled model, a function"),
        ({"model": "model.h5"}, "no path of a .keras file"),
        ({"batch": 0}, "is a number of rows"),
        ({"model": keras.Sequential([keras.layers.Dense(1)])}, "not compiled"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        KerasLearner(**{"model": net, **arguments})


def two_inputs() -> Any:
    inputs = [keras.Input((3,)), keras.Input((2,))]
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()(inputs)))
    model.compile("sgd", "mse")
    return model


def two_outputs() -> Any:
    x = keras.Input((WIDTH,))
    model = keras.Model(x, [keras.layers.Dense(1)(x), keras.layers.Dense(1)(x)])
    model.compile("sgd", ["mse", "mse"])
    return model


def narrow() -> Any:
    return compiled(keras.Input((2,)), keras.layers.Dense(1))


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        (KerasLearner(two_inputs, encoder=ENCODER), "has 2 inputs; KerasLearner takes one"),
        (KerasLearner(two_outputs, encoder=ENCODER), "one output, with one loss"),
        (KerasLearner(narrow, encoder=ENCODER), r"cannot take \(1, 20\) numbers"),
        (KerasLearner(lambda: net(3, "binary_crossentropy"), encoder=ENCODER), r"answers \(1, 3\)"),
        (KerasLearner(lambda: net(1), encoder=ENCODER), "compile it with binary_crossentropy"),
        (KerasLearner(net, classes=9, encoder=ENCODER), "says 9, but the model has room for 3"),
        (KerasLearner(lambda: compiled(keras.layers.Flatten()), encoder=ENCODER), "answers|learns"),
        (KerasLearner(dict, encoder=ENCODER), "which is no keras.Model"),
        (KerasLearner(keras.Sequential, encoder=ENCODER), "not compiled with an optimizer"),
    ],
)
def test_models_that_do_not_go_with_the_rows_are_refused(
    definition: KerasLearner, said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        definition.make_learner(COLUMNS, classes=2)


@pytest.mark.parametrize(
    ("last", "loss"),
    [
        (keras.layers.Dense(1), keras.losses.BinaryCrossentropy(from_logits=True)),
        (keras.layers.Dense(1, "sigmoid"), "binary_crossentropy"),
        (keras.layers.Dense(3, "softmax"), "categorical_crossentropy"),
        (keras.layers.Dense(3), keras.losses.CategoricalCrossentropy(from_logits=True)),
        (keras.layers.Dense(3, "softmax"), "sparse_categorical_crossentropy"),
        (keras.layers.Dense(3, "softmax"), keras.losses.CategoricalFocalCrossentropy()),
    ],
)
def test_classes_are_learned_by_every_loss(last: Any, loss: Any) -> None:
    model = compiled(keras.layers.Dense(24, "relu"), last, loss=loss, run_eagerly=True)
    model.optimizer = keras.optimizers.Adam(0.02)
    learner = KerasLearner(model, batch=20, encoder=ENCODER).make_learner(COLUMNS, classes=2)
    rows = make_rows(0, 400)
    learner.learn(rows)
    answer = learner.predict(rows)
    assert learner.kind == "classifier"
    assert answer.proba is not None and answer.proba.shape == (400, 2)
    assert (answer.value == rows.y).mean() > 0.9
    assert 0.3 < answer.proba[:, 1].mean() < 0.7
    assert learner.grow(3) is (last.units == 3)


@pytest.mark.parametrize("loss", ["mae", keras.losses.Huber(), lambda y, f: (y - f) ** 2])
def test_quantities_are_learned_by_every_loss(loss: Any) -> None:
    model = compiled(keras.layers.Dense(24, "relu"), keras.layers.Dense(1), loss=loss)
    model.optimizer = keras.optimizers.Adam(0.05)
    columns = replace(COLUMNS, target_kind="number")
    learner = KerasLearner(model, batch=100, encoder=ENCODER).make_learner(columns)
    rows = make_rows(0, 400, classes=0)
    for _ in range(40):
        learner.learn(rows)
    assert rows.y is not None
    assert np.mean((learner.predict(rows).value - rows.y) ** 2) < 0.3 * np.var(rows.y)


def test_the_weights_of_rows_are_those_of_train_on_batch() -> None:
    rows = make_rows(0, 60, missing=False)
    weight = np.linspace(0.5, 3.0, 60)
    definition = KerasLearner(
        lambda: compiled(keras.layers.Dense(2), loss=CODES, optimizer="sgd"), encoder=PLAIN
    )
    learner, by_hand = (definition.make_learner(COLUMNS, classes=2) for _ in range(2))
    learner.learn(replace(rows, weight=weight))
    by_hand.model.train_on_batch(rows.numbers.astype(np.float32), rows.y, sample_weight=weight)
    for ours, theirs in zip(learner.model.variables, by_hand.model.variables, strict=True):
        np.testing.assert_allclose(arrayed(ours), arrayed(theirs), rtol=1e-6)


OWN_CLASS = """\
import keras
import numpy as np
import everlearn as el

class Net(keras.Model):
    def __init__(self, **given):
        super().__init__(**given)
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)

net = Net()
net.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
net(np.zeros((1, 2)))
net.set_weights([np.eye(2), np.zeros(2)])
plain = el.learners.Encoder(numbers="as_is", missing="mean")
model = el.Model("m", learner=el.learners.KerasLearner(net, encoder=plain, pretrained=True))
"""


def test_a_model_of_a_class_of_the_file_is_rebuilt_with_its_weights(tmp_path: Path) -> None:
    (tmp_path / "spec.py").write_text(OWN_CLASS)
    model, text = load_spec(tmp_path / "spec.py")
    rebuilt = from_config(to_config(model, text), text).learner
    learner = rebuilt.make_learner(Columns(numbers=("a", "b"), target_kind="integer"), classes=2)
    assert (arrayed(learner.model.variables[0]) == np.eye(2)).all()
    with pytest.raises(SpecError, match="give a class or function that makes it"):
        to_config(model)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="PyTorch has no graphs")
def test_graphs_go_with_their_learner() -> None:
    def graphs() -> int:
        gc.collect()
        return sum(type(o).__name__ == "FuncGraph" for o in gc.get_objects())

    before = graphs()
    taught(KerasLearner(net, encoder=ENCODER))
    assert graphs() <= before


def test_two_learners_of_a_process_have_equal_names() -> None:
    states = [taught(KerasLearner(net, encoder=ENCODER)).save() for _ in range(2)]
    assert state_digest(states[0]) == state_digest(states[1])
    assert set(states[0]["model/moving"].arrays) == {
        f"{layer}/{own}" for layer in ("dense", "dense_1") for own in ("kernel", "bias")
    }


KILLED = """\
import keras
import everlearn as el

def net():
    layers = [
        keras.layers.Dense(8, "relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model

model = el.Model(
    "m",
    learner=el.learners.KerasLearner(net, batch=10),
    schema=el.Schema(target="kind"),
    strategy=el.Strategy(
        chunk=25, memory=el.Reservoir(60), retention=el.strategies.EWC(10.0, rows=32), passes=2
    ),
)
"""


def test_a_killed_job_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """On PyTorch, as processes can be forked there; on TensorFlow, set KERAS_BACKEND and look."""
    pytest.importorskip("torch", reason="PyTorch is needed")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    lines = [f"{a:.4f},{b:.4f},{c:.4f},{int(a > b)}" for a, b, c in x]
    files = []
    for name, part in (("first", lines[:200]), ("second", lines[200:])):
        files.append(str(tmp_path / f"{name}.csv"))
        Path(files[-1]).write_text("\n".join(["a,b,c,kind", *part]) + "\n")
    (tmp_path / "spec.py").write_text(KILLED)
    done = run_on_pytorch("tests.learners.keras_killed", tmp_path, tmp_path / "spec.py", *files)
    assert done.returncode == 0, done.stdout + done.stderr
    digests = json.loads(done.stdout.splitlines()[-1])
    expected = digests.pop("None")
    assert len(expected) == 2
    assert expected[0] != expected[1]
    assert len(digests) == 2
    assert all(found == expected for found in digests.values())


def run_on_pytorch(module: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """A module as a process in which Keras runs on PyTorch."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=HERE.parent.parent.parent,
        env={**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


TOLD_ALREADY = (
    "not killed and not TestClassifier and not arguments and not do_not_go_with and not samples"
    " and not smaller and not hold_code and not class_of_the_file and not every_loss"
    " and not refused_by_its_names"
    " and (scores or bit_equal or not TestAStepAChunk)"
)
"""What the tests on TensorFlow say of PyTorch, too: nothing in it is of either."""


@pytest.mark.skipif(not ON_TENSORFLOW, reason="this is run by the test on TensorFlow")
def test_the_same_holds_where_keras_runs_on_pytorch() -> None:
    pytest.importorskip("torch", reason="PyTorch is needed")
    tests = ["tests/learners/test_keras.py", "tests/strategies/test_retention_keras.py"]
    done = run_on_pytorch("pytest", "-q", "-p", "no:cacheprovider", "-k", TOLD_ALREADY, *tests)
    assert done.returncode == 0, done.stdout + done.stderr
