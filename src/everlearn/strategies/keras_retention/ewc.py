"""Elastic weight consolidation for Keras models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from everlearn.base import Array, State
from everlearn.learners.keras_models.row_gradients import RowGradients
from everlearn.learners.keras_models.variables import arrayed
from everlearn.strategies.keras_retention.elastic import KerasElastic
from everlearn.strategies.keras_retention.sampled import ArraySample

if TYPE_CHECKING:
    from everlearn.learners.keras_models.training import KerasTraining


class KerasFisher(KerasElastic):
    """`EWC` in use.

    Args:
        strength, decay, rows: as of `everlearn.strategies.EWC`.
    """

    def __init__(self, strength: float, decay: float, rows: int) -> None:
        super().__init__("ewc", strength)
        self._decay = decay
        self._sample = ArraySample(rows)

    def attach(self, training: KerasTraining) -> None:
        """Make room for importances and anchors."""
        super().attach(training)
        form = training.form
        of_row = (lambda output, _: ops.sum(output)) if form.kind == "regressor" else form.surprise
        self._gradients = RowGradients(training, of_row, power=2)

    def seen(self, training: KerasTraining, x: Array, y: Array, output: Array) -> None:
        """Keep a sample of the increment's rows."""
        self._sample.offer(training.generator, x)

    def settle(self, training: KerasTraining) -> None:
        """Add this increment's Fisher information."""
        if not len(self._sample):
            return
        found = self._fisher(training)
        for name, weight in training.moving.items():
            now = arrayed(weight)
            before = self._decay * arrayed(self.importance[name])
            after = before + found[name]
            anchor = now
            if self._decay == 1.0:
                kept = before * arrayed(self.anchor[name]) + found[name] * now
                anchor = np.where(after > 0, kept / np.maximum(after, 1e-30), now)
            self.anchor[name].assign(anchor)
            self.importance[name].assign(after)
        self.holds = True
        self._sample.clear()

    def _fisher(self, training: KerasTraining) -> dict[str, Array]:
        """By the rows kept; of a classifier, with classes drawn from its own answers."""
        x, form = self._sample.x, training.form
        if form.kind == "regressor":
            return self._gradients.mean(x)
        chance = form.proba(training.answer(x).astype(np.float64))
        drawn = (training.generator.random((len(x), 1)) > chance.cumsum(axis=1)).sum(axis=1)
        return self._gradients.mean(x, np.minimum(drawn, chance.shape[1] - 1).astype(np.int32))

    def save(self) -> State:
        """Importances, anchors, and the rows kept of an increment that is not over."""
        return {**super().save(), "rows": self._sample.save()}

    def load(self, state: State) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        super().load(state)
        self._sample.load(state["rows"])
