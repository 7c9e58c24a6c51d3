"""Two native learners in plain Python, for tests of what all share."""

from __future__ import annotations

import numpy as np

from everlearn.base import Part, SpecError
from everlearn.learners.native.classifier import Classifier
from everlearn.learners.native.regressor import Regressor


class Counts(Classifier):
    """Shares of classes among the rows so far, each class counted once more than it was seen."""

    def __init__(self, classes=None, *, start=1.0, inner=None, seed=None):
        self.classes = classes
        self.start = start
        self.inner = inner
        self.seed = seed

    def _begin(self, shape, seed):
        if self.start <= 0.0:
            raise SpecError(f"start={self.start!r}; it is a number above 0")
        self.calls, self.begun_with = [], (shape, seed)
        self._counts = np.full(shape.outputs, float(self.start))

    def _learn(self, rows, y, weight, out):
        self.calls.append((len(rows), len(weight), len(out), len(self._counts)))
        for i in range(len(rows)):
            if i < len(out):
                out[i, : len(self._counts)] = self._counts / self._counts.sum()
            self._counts[y[i]] += weight[i] if len(weight) else 1.0

    def _predict(self, rows, out):
        out[:, : len(self._counts)] = self._counts / self._counts.sum()

    def _grow(self, outputs):
        self._counts = np.append(self._counts, np.full(outputs - len(self._counts), self.start))

    def _save(self):
        return {"counts": Part({"counts": self._counts.copy()})}

    def _load(self, state):
        self._counts = np.array(state["counts"].arrays["counts"])


class Total(Regressor):
    """The sum of all targets so far."""

    takes_categories = False

    def _begin(self, shape, seed):
        self._total = np.zeros(1)

    def _learn(self, rows, y, weight, out):
        for i in range(len(rows)):
            if i < len(out):
                out[i] = self._total
            self._total += np.clip(y[i], -1e6, 1e6) * min(weight[i] if len(weight) else 1.0, 1e6)

    def _predict(self, rows, out):
        out[:] = self._total

    def _save(self):
        return {"total": Part({"total": self._total.copy()})}

    def _load(self, state):
        self._total = np.array(state["total"].arrays["total"])
