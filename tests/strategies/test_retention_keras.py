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
from everlearn.strategies import AGEM, EWC, MAS, SI, DarkReplay, LwF  # noqa: E402
from everlearn.strategies.keras_retention.sampled import ArraySample  # noqa: E402
from everlearn.testing.learner import COLUMNS, LearnerSuite, make_rows  # noqa: E402

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


class TestEwc(Held):
    method = EWC(50.0, rows=64)


class TestSi(Held):
    method = SI(5.0)


class TestMas(Held):
    method = MAS(5.0, rows=64)


class TestLwf(Held):
    method = LwF()


class TestDarkReplay(Held):
    method = DarkReplay(50)


class TestAgem(Held):
    method = AGEM(50, draw=20)
