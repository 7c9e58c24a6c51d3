"""Quadratic penalties on the weights of Keras models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from everlearn.base import Array, InputError, Part, State
from everlearn.learners.keras_models.holder import Given, KerasHolder
from everlearn.learners.keras_models.variables import arrayed, assign, part_of

if TYPE_CHECKING:
    from everlearn.learners.keras_models.training import KerasTraining


class KerasElastic(KerasHolder):
    """Adds the gradient of ``strength / 2 · Σ importance · (weight − anchor)²`` to each step, as
    `everlearn.strategies.elastic.Elastic` does for PyTorch: in closed form, with ``strength ·
    importance`` kept at most 1 / (step size of the optimizer).

    Args:
        name: of its parts in the state.
        strength: of the penalty.
    """

    def __init__(self, name: str, strength: float) -> None:
        super().__init__(name, given=1)
        self.strength = strength
        self.importance: dict[str, Any] = {}
        self.anchor: dict[str, Any] = {}
        self.holds = False

    def attach(self, training: KerasTraining) -> None:
        """Make room for importances and anchors."""
        self.importance = zeros_for(training)
        self.anchor = zeros_for(training)

    def begin(self, training: KerasTraining, rows: int) -> tuple[Array | None]:
        """Whether anything is held yet."""
        return (np.ones(1, np.float32) if self.holds else None,)

    def gradients(self, training: KerasTraining, found: list[Any], given: Given) -> list[Any]:
        """Pull the weights to their anchors."""
        if given[0] is None:
            return found
        rate = ops.convert_to_tensor(training.inner_optimizer.learning_rate)
        return [
            gradient
            if gradient is None
            else gradient + training.scale(self._pull(name, weight, rate))
            for gradient, (name, weight) in zip(found, training.moving.items(), strict=True)
        ]

    def _pull(self, name: str, weight: Any, rate: Any) -> Any:
        stiffest = 1.0 / ops.cast(rate, weight.dtype)
        stiffness = ops.minimum(self.strength * self.importance[name], stiffest)
        return stiffness * (weight - self.anchor[name])

    def save(self) -> State:
        """Importances and anchors."""
        if not self.holds:
            return {"importance": Part(), "anchor": Part()}
        return {"importance": part_of(self.importance), "anchor": part_of(self.anchor)}

    def load(self, state: State) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        if not {"importance", "anchor"} <= set(state):
            raise InputError(f"the state has {sorted(state)}; it is not of {self.name}")
        self.holds = bool(state["importance"].arrays)
        if self.holds:
            assign(self.importance, state["importance"], "architecture")
            assign(self.anchor, state["anchor"], "architecture")


def zeros_for(training: KerasTraining) -> dict[str, Any]:
    """A variable of zeros for each weight."""
    return {
        name: keras.Variable(np.zeros(tuple(w.shape)), dtype=w.dtype, trainable=False)
        for name, w in training.moving.items()
    }


def add(variable: Any, found: Array) -> None:
    """Add to what a variable holds."""
    variable.assign(arrayed(variable) + found)
