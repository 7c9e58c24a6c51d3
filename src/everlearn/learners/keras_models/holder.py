"""What a retention brings into the training of a Keras model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from everlearn.base import Array, State

if TYPE_CHECKING:
    from everlearn.learners.keras_models.training import KerasTraining

Given = Sequence[Any]
"""What `begin` gave, as tensors; None where it gave None."""


class KerasHolder:
    """Holds on to what a model knew, while it learns. Whatever a method needs is overridden.

    `loss`, `gradients` and `after_step` are traced into a graph where Keras runs on TensorFlow:
    they compute with tensors and with variables that `attach` made. The others work on arrays.

    Args:
        name: of its parts in the state.
        given: how many arrays `begin` gives.
    """

    def __init__(self, name: str, given: int = 0) -> None:
        self.name, self.given = name, given

    def attach(self, training: KerasTraining) -> None:
        """The model is made: make variables for it."""

    def begin(self, training: KerasTraining, rows: int) -> Sequence[Array | None]:
        """A step of so many rows begins: arrays that `loss` and `gradients` are given, each with a
        first axis of any length; None where there is nothing to give."""
        return (None,) * self.given

    def loss(self, training: KerasTraining, output: Any, x: Any, given: Given) -> Any:
        """What is added to the mean loss of a step, whose answers and rows these are; or None."""
        return None

    def gradients(self, training: KerasTraining, found: list[Any], given: Given) -> list[Any]:
        """The gradients of a step, a tensor or None for each weight, possibly changed."""
        return found

    def after_step(self, training: KerasTraining) -> None:
        """The weights have moved."""

    def seen(self, training: KerasTraining, x: Array, y: Array, output: Array) -> None:
        """The rows of a step, (n, width), (n, …) as the loss takes them, and (n, k) as the model
        answered them, were learned."""

    def taken_up(self, training: KerasTraining) -> None:
        """The model has learned without it, and is held from here on."""

    def settle(self, training: KerasTraining) -> None:
        """The increment is over."""

    def save(self) -> State:
        """All that `load` needs to go on."""
        raise NotImplementedError

    def load(self, state: State) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        raise NotImplementedError
