"""Keras models as learners, on whichever back end Keras runs on here."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras", reason="Keras is needed")

from everlearn.base import Columns, InputError, Learner, SpecError  # noqa: E402
from everlearn.learners.encoder import Encoder  # noqa: E402
from everlearn.learners.keras_models.definition import KerasLearner  # noqa: E402
from everlearn.testing.learner import COLUMNS, LearnerSuite, copied, make_rows  # noqa: E402

ENCODER = Encoder(categories="onehot", buckets=8)
WIDTH = 3 * 2 + 6 + 8


def net(outputs: int = 3, loss: Any = None, rate: float = 0.01) -> Any:
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
        made = KerasLearner(net, batch=20, encoder=ENCODER)
        return made.make_learner(columns, classes=classes, seed=seed)


class TestAStepAChunk(LearnerSuite):
    learns = False
    scores = "step"

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = KerasLearner(net, encoder=ENCODER)
        return made.make_learner(columns, classes=classes, seed=seed)


class TestRegressor(LearnerSuite):
    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = KerasLearner(wide, batch=10, encoder=ENCODER)
        return made.make_learner(columns, classes=classes, seed=seed)

    def test_a_prediction_does_not_depend_on_the_rows_beside_it(self) -> None:
        if keras.backend.backend() == "tensorflow":  # on PyTorch, Keras rounds matrix products of
            super().test_a_prediction_does_not_depend_on_the_rows_beside_it()  # float64 to float32


class TestEverythingAtOnce(LearnerSuite):
    """Dropout, batch normalisation, a schedule, clipping, momentum, probabilities, one-hot."""

    learns = False

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = KerasLearner(noisy, batch=25, encoder=ENCODER)
        return made.make_learner(columns, classes=classes, seed=seed)
