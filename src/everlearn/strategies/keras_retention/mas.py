"""Memory aware synapses for Keras models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras import ops

from everlearn.base import Array, State
from everlearn.learners.keras_models.row_gradients import RowGradients
from everlearn.strategies.keras_retention.elastic import KerasElastic, add
from everlearn.strategies.keras_retention.sampled import ArraySample

if TYPE_CHECKING:
    from everlearn.learners.keras_models.training import KerasTraining


class KerasSensitivity(KerasElastic):
    """`MAS` in use.

    Args:
        strength, rows: as of `everlearn.strategies.MAS`.
    """

    def __init__(self, strength: float, rows: int) -> None:
        super().__init__("mas", strength)
        self._sample = ArraySample(rows)

    def attach(self, training: KerasTraining) -> None:
        """Make room for importances and anchors."""
        super().attach(training)
        self._gradients = RowGradients(
            training, lambda output, _: ops.sum(ops.square(output)), power=1
        )

    def seen(self, training: KerasTraining, x: Array, y: Array, output: Array) -> None:
        """Keep a sample of the increment's rows."""
        self._sample.offer(training.generator, x)

    def settle(self, training: KerasTraining) -> None:
        """Add how much the answers to this increment depend on each weight."""
        if not len(self._sample):
            return
        found = self._gradients.mean(self._sample.x)
        for name, weight in training.moving.items():
            add(self.importance[name], found[name])
            self.anchor[name].assign(weight.value)
        self.holds = True
        self._sample.clear()

    def save(self) -> State:
        """Importances, anchors, and the rows kept of an increment that is not over."""
        return {**super().save(), "rows": self._sample.save()}

    def load(self, state: State) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        super().load(state)
        self._sample.load(state["rows"])
