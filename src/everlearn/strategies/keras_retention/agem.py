"""Averaged gradient episodic memory for Keras models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras import ops

from everlearn.base import Array, InputError, State
from everlearn.learners.keras_models.holder import Given, KerasHolder
from everlearn.strategies.keras_retention.sampled import ArraySample

if TYPE_CHECKING:
    from everlearn.learners.keras_models.training import KerasTraining


class KerasProjection(KerasHolder):
    """`AGEM` in use. Rows of an increment join the memory when it is over.

    Args:
        n, draw: as of `everlearn.strategies.AGEM`.
    """

    def __init__(self, n: int, draw: int) -> None:
        super().__init__("agem", given=2)
        self._draw = draw
        self._memory, self._coming = ArraySample(n), ArraySample(n)

    def begin(self, training: KerasTraining, rows: int) -> tuple[Array | None, ...]:
        """Remembered rows, and their labels."""
        if not len(self._memory):
            return None, None
        x, y = self._memory.draw(training.generator, self._draw)
        return x, y

    def gradients(self, training: KerasTraining, found: list[Any], given: Given) -> list[Any]:
        """Take out of the gradient what would raise the loss of remembered rows."""
        x, y = given
        if x is None:
            return found
        reference = training.gradients(
            lambda: training.data_loss(y, training.model(x, training=True))
        )
        pairs = [
            (g, r) for g, r in zip(found, reference, strict=True) if g is not None and r is not None
        ]
        along = sum(ops.sum(g * r) for g, r in pairs)
        length = sum(ops.sum(r * r) for _, r in pairs)
        nothing = ops.zeros_like(along)
        against = ops.logical_and(along < 0, length > 0)
        factor = ops.where(against, along / ops.where(against, length, length + 1), nothing)
        return [
            g if g is None or r is None else g - factor * r
            for g, r in zip(found, reference, strict=True)
        ]

    def seen(self, training: KerasTraining, x: Array, y: Array, output: Array) -> None:
        """Rows of this increment."""
        self._coming.offer(training.generator, x, y)

    def settle(self, training: KerasTraining) -> None:
        """The increment's rows are old ones from now on."""
        if len(self._coming):
            self._memory.merge(training.generator, self._coming)
            self._coming.clear()

    def save(self) -> State:
        """Both samples."""
        return {"memory": self._memory.save(), "coming": self._coming.save()}

    def load(self, state: State) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        if set(state) != {"memory", "coming"}:
            raise InputError(f"the state has {sorted(state)}; it is not of A-GEM")
        self._memory.load(state["memory"])
        self._coming.load(state["coming"])
