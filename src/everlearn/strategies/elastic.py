"""Quadratic penalties: weights that mattered are held near to where they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from everlearn.base import InputError, State
from everlearn.learners.neural.holder import Holder, Padded
from everlearn.strategies.neural import part_of_tensors, tensors_of_part

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from everlearn.learners.neural.training import Training


class Elastic(Holder):
    """Adds the gradient of ``strength / 2 · Σ importance · (weight − anchor)²`` to each step.

    It is computed in closed form, and ``strength · importance`` is kept at most 1 / (step size of
    the optimizer): more would overshoot the anchor, and diverge.

    Args:
        name: of its parts in the state.
        strength: of the penalty.
    """

    def __init__(self, name: str, strength: float) -> None:
        super().__init__(name)
        self.strength = strength
        self.importance: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}
        self._stiff: dict[str, tuple[Tensor, float, Tensor]] = {}

    def before_step(self, training: Training) -> None:
        """Pull the weights to their anchors."""
        for group in training.optimizer.param_groups:
            stiffest = 1.0 / group["lr"] if group["lr"] > 0 else float("inf")
            for name, weight in _named(training, group["params"]):
                if weight.grad is not None and name in self.importance:
                    apart = weight.detach() - self.anchor[name]
                    weight.grad.addcmul_(self._stiffness(name, stiffest), apart)

    def _stiffness(self, name: str, stiffest: float) -> Tensor:
        """``strength · importance``, at most `stiffest`; made anew where one of them changed."""
        importance = self.importance[name]
        of, limit, stiffness = self._stiff.get(name, (None, stiffest, importance))
        if of is not importance or limit != stiffest:
            stiffness = (self.strength * importance).clamp_(max=stiffest)
            self._stiff[name] = importance, stiffest, stiffness
        return stiffness

    def grown(self, padded: Padded) -> None:
        """New weights are not held."""
        for kept in (self.importance, self.anchor):
            kept.update({name: padded(name, tensor) for name, tensor in kept.items()})

    def renamed(self, names: Mapping[str, str]) -> None:
        """Importances and anchors go by the names that parameters have now."""
        self.importance = by_name(self.importance, names)
        self.anchor = by_name(self.anchor, names)

    def save(self) -> State:
        """Importances and anchors."""
        return {
            "importance": part_of_tensors(self.importance),
            "anchor": part_of_tensors(self.anchor),
        }

    def load(self, state: State, device: torch.device) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        if not {"importance", "anchor"} <= set(state):
            raise InputError(f"the state has {sorted(state)}; it is not of {self.name}")
        self.importance = tensors_of_part(state["importance"], device)
        self.anchor = tensors_of_part(state["anchor"], device)
        self._stiff = {}


def _named(training: Training, parameters: list[Any]) -> list[tuple[str, Any]]:
    wanted = {id(parameter) for parameter in parameters}
    return [(name, p) for name, p in training.moving.items() if id(p) in wanted]


def by_name(tensors: dict[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The same tensors by other names."""
    return {names.get(name, name): tensor for name, tensor in tensors.items()}
