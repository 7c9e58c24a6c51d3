"""Rows and models for the tests of hold-outs and gates."""

import numpy as np

from everlearn.base import Batch, Columns, Prediction

COLUMNS = Columns(numbers=("a", "b"), categories=("origin",), target="late", key="tail")


def rows(n, seed=0, start=0, *, text=False, key=True):
    """n rows whose class depends on a and b; ids are unique for different seeds."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(n, 2))
    late = (rng.random(n) < sigmoid(numbers @ [2.0, -1.0])).astype(float)
    return Batch(
        numbers=numbers,
        categories=rng.integers(1, 4, (n, 1), dtype=np.uint64),
        times=np.zeros((n, 0), np.int64),
        y=np.where(late == 1, "yes", "no").astype(object) if text else late,
        ids=rng.integers(1, 2**63, n, dtype=np.uint64),
        time=np.int64(start) + np.arange(n),
        key=rng.integers(1, 50, n, dtype=np.uint64) if key else None,
    )


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


class Logistic:
    """A model with known weights; its classes may be coded in any order."""

    kind = "classifier"

    def __init__(self, weights, values=(0.0, 1.0), bias=0.0, columns=None):
        self.weights, self.values, self.bias = np.asarray(weights), list(values), bias
        self.columns = columns
        self.positive = self.values.index(1.0 if 1.0 in self.values else "yes")

    def predict(self, batch):
        chance = sigmoid(batch.numbers @ self.weights + self.bias)
        proba = np.zeros((len(batch), len(self.values)))
        proba[:, self.positive] = chance
        other = self.values.index(0.0 if 0.0 in self.values else "no")
        proba[:, other] = 1 - chance
        return Prediction(value=np.where(chance > 0.5, self.positive, other), proba=proba)

    def encode(self, y):
        code = {value: place for place, value in enumerate(self.values)}
        return np.array([code.get(value, -1) for value in y.tolist()], np.int64)

    def decode(self, codes):
        return np.array(self.values, dtype=object)[codes]


class Linear:
    """A regressor with known weights."""

    kind = "regressor"

    def __init__(self, weights):
        self.weights = np.asarray(weights)

    def predict(self, batch):
        return Prediction(value=batch.numbers @ self.weights)

    def encode(self, y):
        return y

    def decode(self, value):
        return value
