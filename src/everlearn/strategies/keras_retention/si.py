"""Synaptic intelligence for Keras models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from everlearn.base import Part, State
from everlearn.learners.keras_models.holder import Given
from everlearn.learners.keras_models.variables import arrayed, assign, part_of
from everlearn.strategies.keras_retention.elastic import KerasElastic, add, zeros_for

if TYPE_CHECKING:
    from everlearn.learners.keras_models.training import KerasTraining


class KerasPaths(KerasElastic):
    """`SI` in use.

    Args:
        strength, damping: as of `everlearn.strategies.SI`.
    """

    def __init__(self, strength: float, damping: float) -> None:
        super().__init__("si", strength)
        self._damping = damping
        self._begun = False
        self._gain: dict[str, Any] = {}
        self._start: dict[str, Any] = {}
        self._before: list[tuple[str, Any, Any, Any]] = []

    def attach(self, training: KerasTraining) -> None:
        """Make room for importances, anchors, gains, and where the increment began."""
        super().attach(training)
        self._gain, self._start = zeros_for(training), zeros_for(training)

    def begin(self, training: KerasTraining, rows: int) -> Any:
        """Remember where the weights are when an increment begins."""
        if not self._begun:
            for name, weight in training.moving.items():
                self._start[name].assign(weight.value)
            self._begun = True
        return super().begin(training, rows)

    def gradients(self, training: KerasTraining, found: list[Any], given: Given) -> list[Any]:
        """Remember where each weight is and the gradient of the new rows; then pull."""
        scale = training.scale(ops.ones(()))
        self._before = [
            (name, weight, ops.copy(weight.value), gradient / ops.cast(scale, weight.dtype))
            for gradient, (name, weight) in zip(found, training.moving.items(), strict=True)
            if gradient is not None
        ]
        return super().gradients(training, found, given)

    def after_step(self, training: KerasTraining) -> None:
        """Add what this step gained."""
        for name, weight, before, gradient in self._before:
            move = before - weight
            gain = ops.where(move != 0, gradient * move, ops.zeros_like(move))
            self._gain[name].assign_add(gain)  # a step left out had no finite gradient
        self._before = []

    def settle(self, training: KerasTraining) -> None:
        """Turn the gains of the increment into importance."""
        if not self._begun:
            return
        for name, weight in training.moving.items():
            moved = arrayed(weight) - arrayed(self._start[name])
            gain = np.maximum(arrayed(self._gain[name]), 0)
            add(self.importance[name], gain / (np.square(moved) + self._damping))
            self.anchor[name].assign(weight.value)
            self._gain[name].assign(np.zeros_like(gain))
        self.holds, self._begun = True, False

    def save(self) -> State:
        """Importances, anchors, and the gains of an increment that is not over."""
        if not self._begun:
            return {**super().save(), "gain": Part(), "start": Part()}
        return {**super().save(), "gain": part_of(self._gain), "start": part_of(self._start)}

    def load(self, state: State) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        super().load(state)
        self._begun = bool(state["gain"].arrays)
        if self._begun:
            assign(self._gain, state["gain"], "architecture")
            assign(self._start, state["start"], "architecture")
