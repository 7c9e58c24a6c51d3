"""What a retention brings into the training of a PyTorch module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from everlearn.base import State

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from everlearn.learners.neural.training import Training


Padded = Callable[..., "Tensor"]


class Holder:
    """Holds on to what a module knew, while it learns. Whatever a method needs is overridden; all
    of it runs inside of the learner's own generators.

    Args:
        name: of its parts in the state.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def begin(self) -> None:
        """A step begins: another one, or the same anew where memory ran out. The last one may have
        been refused."""

    def loss(self, training: Training, x: Tensor, y: Tensor, output: Tensor) -> Tensor | None:
        """What is added to the mean loss of a step, whose rows and answers these are; or None."""
        return None

    def before_step(self, training: Training) -> None:
        """The gradient is in the parameters, and may be changed."""

    def after_step(self, training: Training) -> None:
        """The parameters have moved."""

    def seen(self, x: Tensor, y: Tensor) -> None:
        """The rows of a step, (n, width) and (n,), were learned."""

    def taken_up(self, training: Training) -> None:
        """The module has learned without it, and is held from here on."""

    def grown(self, padded: Padded) -> None:
        """Parameters got more rows, and so did the module's answers: ``padded(name, tensor, now)``
        is what a tensor like the parameter of that name is now, with zeros (or, `now`, the
        parameter's own numbers) for what is new."""

    def renamed(self, names: Mapping[str, str]) -> None:
        """The module calls its parameters otherwise than when it was saved: name then → now."""

    def settle(self, training: Training) -> None:
        """The increment is over."""

    def save(self) -> State:
        """All that `load` needs to go on."""
        raise NotImplementedError

    def load(self, state: State, device: torch.device) -> None:
        """Become what `save` saw, on the module's device. Raises `InputError` for a state of
        another kind."""
        raise NotImplementedError
