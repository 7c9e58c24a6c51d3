"""Dark experience replay for Keras models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras import ops

from everlearn.base import Array, InputError, State
from everlearn.learners.keras_models.holder import Given, KerasHolder
from everlearn.learners.keras_models.losses import at_full
from everlearn.strategies.keras_retention.sampled import ArraySample

if TYPE_CHECKING:
    from everlearn.learners.keras_models.training import KerasTraining


class KerasScores(KerasHolder):
    """`DarkReplay` in use. What is kept of a row is what the model answered: scores, or
    probabilities where its last activation makes them.

    Args:
        n, alpha, beta, draw: as of `everlearn.strategies.DarkReplay`.
    """

    def __init__(self, n: int, alpha: float, beta: float, draw: int | None) -> None:
        super().__init__("dark", given=4)
        self._alpha, self._beta, self._draw = alpha, beta, draw
        self._sample = ArraySample(n)

    def begin(self, training: KerasTraining, rows: int) -> tuple[Array | None, ...]:
        """Rows with the scores kept, and others with their labels."""
        x = kept = other = y = None
        if len(self._sample):
            rows = self._draw or rows
            if self._alpha:
                x, _, kept = self._sample.draw(training.generator, rows)
            if self._beta:
                other, y, _ = self._sample.draw(training.generator, rows)
        return x, kept, other, y

    def loss(self, training: KerasTraining, output: Any, x: Any, given: Given) -> Any:
        """How far the scores of remembered rows are from those kept, and the loss of others."""
        old, kept, other, y = given
        more = None
        if old is not None:
            apart = at_full(training.model(old, training=True)) - kept
            more = self._alpha * ops.mean(ops.square(apart))
        if other is not None:
            labels = self._beta * training.data_loss(y, training.model(other, training=True))
            more = labels if more is None else more + ops.cast(labels, more.dtype)
        return more

    def seen(self, training: KerasTraining, x: Array, y: Array, output: Array) -> None:
        """Offer the step's rows with the scores that they had."""
        self._sample.offer(training.generator, x, y, output)

    def save(self) -> State:
        """The sample."""
        return {"rows": self._sample.save()}

    def load(self, state: State) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        if set(state) != {"rows"}:
            raise InputError(f"the state has {sorted(state)}; it is not of dark replay")
        self._sample.load(state["rows"])
