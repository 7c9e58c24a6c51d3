"""Learners that learn chunk by chunk (scikit-learn's estimators), in the place of native ones.

The rows of one call are one chunk: all of them are predicted, then all are learned. What comes out
depends on the chunks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from everlearn.base import Array, Batch, Floats, Learner, Part, State, prefixed, under
from everlearn.learners.native.classifier import Classifier
from everlearn.learners.native.loading import like
from everlearn.learners.native.regressor import Regressor
from everlearn.learners.native.rows import Rows, Shape
from everlearn.learners.native.shared import SharedRows


class ChunkClassifier(Classifier):
    """A classifier behind the `Learner` protocol. Rows of a class that it can no longer make room
    for are not learned.

    Args:
        learner: what learns; it has learned nothing, and is this one's own.
    """

    per_row = False

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def _begin(self, shape: Shape, seed: int) -> None:
        self._room = shape.outputs
        self.learner.grow(self._room)
        self.probabilistic = self.learner.predict(_no_rows(shape)).proba is not None

    def _learn(self, rows: Rows, y: Array, weight: Floats, out: Floats) -> None:
        if (y >= self._room).any():
            weight = np.where(y < self._room, weight if len(weight) else 1.0, 0.0)
            y = np.minimum(y, self._room - 1)
        chunk = _chunk(rows, y, weight)
        answer = self.learner.learn(chunk, score=len(out))
        if answer is not None:
            self._fill(answer.value, answer.proba, out)

    def _predict(self, rows: Rows, out: Floats) -> None:
        answer = self.learner.predict(_chunk(rows, None, np.empty(0)))
        self._fill(answer.value, answer.proba, out)

    def _fill(self, value: Array, proba: Floats | None, out: Floats) -> None:
        out[:] = 0.0
        if proba is None:
            out[np.arange(len(out)), value] = 1.0
            return
        out[:, : proba.shape[1]] = proba
        broken = ~np.isfinite(out).all(axis=1)
        out[broken] = 1.0 / out.shape[1]

    def _grow(self, outputs: int) -> None:
        if self.learner.grow(outputs):
            self._room = outputs

    def _save(self) -> dict[str, Part]:
        return {"room": Part(meta={"room": self._room}), **prefixed("learner", self.learner.save())}

    def _load(self, state: State) -> None:
        self.learner.load(under("learner", state))
        self._room = int(state["room"].meta["room"])


class ChunkRegressor(Regressor):
    """A regressor behind the `Learner` protocol. Its answers are limited to the targets so far, and
    as far again on either side: one that diverges would spoil whatever it is averaged with.

    Args:
        learner: as for `ChunkClassifier`.
    """

    per_row = False

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def _begin(self, shape: Shape, seed: int) -> None:
        self._range = np.zeros(3)  # whether there was a target, the lowest, the highest

    def _learn(self, rows: Rows, y: Array, weight: Floats, out: Floats) -> None:
        answer = self.learner.learn(_chunk(rows, y, weight), score=len(out))
        if answer is not None:
            out[:, 0] = self._limited(answer.value)
        known = y[weight > 0.0] if len(weight) else y
        if len(known):
            seen, low, high = self._range if self._range[0] else (1.0, np.inf, -np.inf)
            self._range[:] = seen, min(low, known.min()), max(high, known.max())

    def _predict(self, rows: Rows, out: Floats) -> None:
        out[:, 0] = self._limited(self.learner.predict(_chunk(rows, None, np.empty(0))).value)

    def _limited(self, values: Floats) -> Floats:
        seen, low, high = self._range.tolist()
        finite, apart = np.nan_to_num(values), high - low
        return np.clip(finite, low - apart, high + apart) if seen else finite

    def _save(self) -> dict[str, Part]:
        part = Part({"range": self._range.copy()})
        return {"range": part, **prefixed("learner", self.learner.save())}

    def _load(self, state: State) -> None:
        self.learner.load(under("learner", state))
        self._range = like(self._range, state["range"].arrays["range"], "range")


def _chunk(rows: Rows, y: Array | None, weight: Floats) -> Batch:
    assert isinstance(rows, SharedRows)
    return replace(rows.as_batch(), y=y, weight=weight if len(weight) else None)


def _no_rows(shape: Shape) -> Batch:
    return Batch(
        numbers=np.empty((0, shape.numbers)),
        categories=np.empty((0, shape.categories), np.uint64),
        times=np.empty((0, shape.times // 3), np.int64),
        ids=np.empty(0, np.uint64),
    )
