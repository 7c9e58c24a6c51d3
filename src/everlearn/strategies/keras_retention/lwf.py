"""Learning without forgetting for Keras models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from everlearn.base import Array, InputError, Part, State
from everlearn.learners.keras_models.holder import Given, KerasHolder
from everlearn.learners.keras_models.losses import at_full
from everlearn.learners.keras_models.variables import assign, part_of

if TYPE_CHECKING:
    from everlearn.learners.keras_models.training import KerasTraining

NEVER = -1e9
"""The score of a class that was not known."""


class KerasTeacher(KerasHolder):
    """`LwF` in use. Temperatures act on scores; of a model that answers probabilities, on their
    logarithms.

    Args:
        strength, temperature: as of `everlearn.strategies.LwF`.
    """

    def __init__(self, strength: float, temperature: float) -> None:
        super().__init__("lwf", given=1)
        self._strength, self._temperature = strength, temperature
        self._weights: dict[str, Any] = {}
        self._classes = 0
        self._holds = False

    def attach(self, training: KerasTraining) -> None:
        """Make room for the weights of the increment's start."""
        every = {**training.moving, **training.others}
        self._weights = {
            name: keras.Variable(np.zeros(tuple(v.shape)), dtype=v.dtype, trainable=False)
            for name, v in every.items()
        }

    def begin(self, training: KerasTraining, rows: int) -> tuple[Array | None]:
        """How many classes there were at the increment's start."""
        return (np.array([self._classes], np.int32) if self._holds else None,)

    def loss(self, training: KerasTraining, output: Any, x: Any, given: Given) -> Any:
        """How far the answers are from those of the increment's start."""
        if given[0] is None:
            return None
        moving = [self._weights[name].value for name in training.moving]
        others = [self._weights[name].value for name in training.others]
        before, _ = training.model.stateless_call(moving, others, x, training=False)
        before = ops.stop_gradient(at_full(before))
        strength, t, form = self._strength, self._temperature, training.form
        if form.kind == "regressor":
            return strength * ops.mean(ops.square(output - before))
        now, then = form.scores(output) / t, form.scores(before) / t
        if form.one_score:  # KL divergence of two classes' chances, without a constant
            apart = ops.softplus(now) - ops.sigmoid(then) * now
            return strength * t * t * ops.mean(apart)
        known = ops.arange(form.outputs) < ops.cast(given[0], "int32")
        now, then = (
            ops.log_softmax(ops.where(known, s, NEVER * ops.ones_like(s)), -1) for s in (now, then)
        )
        rows = ops.sum(ops.exp(then) * (then - now), axis=-1)
        return strength * t * t * ops.mean(rows)

    def taken_up(self, training: KerasTraining) -> None:
        """The answers are to stay as they are from the first increment on."""
        self.settle(training)

    def settle(self, training: KerasTraining) -> None:
        """From now on, the answers are to stay as they are."""
        self._classes, self._holds = training.classes, True
        for name, variable in {**training.moving, **training.others}.items():
            self._weights[name].assign(variable.value)

    def save(self) -> State:
        """The weights of the increment's start."""
        weights = part_of(self._weights) if self._holds else Part()
        return {"weights": weights, "known": Part(meta={"classes": self._classes})}

    def load(self, state: State) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        if set(state) != {"weights", "known"}:
            raise InputError(f"the state has {sorted(state)}; it is not of lwf")
        self._classes = int(state["known"].meta["classes"])
        self._holds = bool(state["weights"].arrays)
        if self._holds:
            assign(self._weights, state["weights"], "architecture")
