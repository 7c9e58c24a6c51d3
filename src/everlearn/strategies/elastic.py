"""Quadratic penalties: weights that mattered are held near to where they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everlearn.base import InputError, Learner, Part, SpecError, State

if TYPE_CHECKING:
    from torch import Tensor

    from everlearn.learners.network import Network
    from everlearn.learners.training import Training


class Elastic:
    """Adds the gradient of ``strength / 2 · Σ importance · (weight − anchor)²`` to each step.

    It is computed in closed form, and ``strength · importance`` is kept at most 1 / (step size of
    the optimizer): more would overshoot the anchor, and diverge.

    Args:
        name: of its parts in the state.
        strength: of the penalty.
    """

    def __init__(self, name: str, strength: float) -> None:
        self.name, self.strength = name, strength
        self.importance: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}

    def seen(self, x: Tensor, y: Tensor) -> None:
        """Nothing, unless a method wants the rows."""

    def before_step(self, training: Training) -> None:
        """Pull the weights to their anchors."""
        for held in (self.importance, self.anchor):
            for name, tensor in held.items():
                held[name] = tensor.to(training.moving[name].device)
        for group in training.optimizer.param_groups:
            stiffest = 1.0 / group["lr"] if group["lr"] > 0 else float("inf")
            for name, weight in _named(training, group["params"]):
                if weight.grad is not None and name in self.importance:
                    stiffness = (self.strength * self.importance[name]).clamp_(max=stiffest)
                    weight.grad.addcmul_(stiffness, weight.detach() - self.anchor[name])

    def after_step(self, training: Training) -> None:
        """Nothing, unless a method wants to know how the weights moved."""

    def settle(self, training: Training) -> None:
        """What mattered in this increment is added to what did before."""
        raise NotImplementedError

    def save(self) -> State:
        """Importances and anchors."""
        return {
            "importance": part_of_weights(self.importance),
            "anchor": part_of_weights(self.anchor),
        }

    def load(self, state: State) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        if not {"importance", "anchor"} <= set(state):
            raise InputError(f"the state has {sorted(state)}; it is not of {self.name}")
        self.importance = weights_of_part(state["importance"])
        self.anchor = weights_of_part(state["anchor"])


def network_of(learner: Learner, name: str) -> Network:
    """The learner, if it is a network.

    Raises:
        SpecError: it is none.
    """
    if not hasattr(learner, "hold"):
        raise SpecError(
            f"{name} holds on to the weights of a PyTorch module: give Model(learner="
            f"TorchLearner(…)); {type(learner).__name__} learns otherwise"
        )
    return learner  # type: ignore[return-value]


def _named(training: Training, parameters: list[Any]) -> list[tuple[str, Any]]:
    wanted = {id(parameter) for parameter in parameters}
    return [(name, p) for name, p in training.moving.items() if id(p) in wanted]


def part_of_weights(tensors: dict[str, Tensor]) -> Part:
    """Tensors by the names of weights, as a part of a state."""
    from everlearn.learners.tensors import part_of

    return part_of(tensors)


def weights_of_part(part: Part) -> dict[str, Tensor]:
    """The inverse of `part_of_weights`."""
    from everlearn.learners.tensors import tensors_of

    return tensors_of(part)
