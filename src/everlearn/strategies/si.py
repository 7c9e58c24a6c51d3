"""Synaptic intelligence: weights are held by what their moves gained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from everlearn.base import Learner, State
from everlearn.learners.neural.holder import Padded
from everlearn.strategies.elastic import Elastic, by_name
from everlearn.strategies.neural import keras_of, network_of, part_of_tensors, tensors_of_part
from everlearn.strategies.strategy import share

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from everlearn.learners.neural.training import Training


@dataclass(frozen=True, slots=True)
class SI:
    """Hold each weight by how much its way through earlier increments lowered the loss.

    Added to the loss: ``strength / 2 · Σ Ω · (weight − anchor)²``. In an increment ω grows by
    −gradient · move at each step; after it, Ω grows by max(ω, 0) / (whole move² + damping), and the
    anchor is where the weight is. It needs no rows and next to no time.

    Zenke, Poole, Ganguli, "Continual learning through synaptic intelligence", ICML 2017, eq. 4 and
    5 (whose c is strength / 2).

    Alone it does not solve class-incremental learning, where classes come one after the other: use
    it with a memory.

    >>> SI(1.0)
    SI(strength=1.0, damping=0.1)

    Args:
        strength: of the penalty.
        damping: ξ, in squared units of the weights.

    Raises:
        SpecError: an argument that is none of these.
    """

    strength: float = 1.0
    damping: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", share("SI(strength=)", self.strength))
        object.__setattr__(self, "damping", share("SI(damping=)", self.damping))

    def describe(self) -> str:
        """The method in words."""
        return f"synaptic intelligence of strength {self.strength:g}"

    def wrap(self, learner: Learner) -> Learner:
        """See `Retention`. Raises `SpecError` for a learner that is no network."""
        model = keras_of(learner)
        if model is not None:
            from everlearn.strategies.keras_retention.si import KerasPaths

            return model.hold(KerasPaths(self.strength, self.damping))
        return network_of(learner, "SI").hold(Paths(self))


class Paths(Elastic):
    """`SI` in use."""

    def __init__(self, definition: SI) -> None:
        super().__init__("si", definition.strength)
        self._damping = definition.damping
        self._gain: dict[str, Tensor] = {}
        self._start: dict[str, Tensor] = {}
        self._before: dict[str, tuple[Tensor, Tensor]] = {}

    def before_step(self, training: Training) -> None:
        """Remember where each weight is and the gradient of the new rows; then pull."""
        for name, weight in training.moving.items():
            if weight.grad is not None:
                now = weight.detach().clone()
                self._start.setdefault(name, now)
                self._before[name] = (now, weight.grad.clone())
        super().before_step(training)

    def after_step(self, training: Training) -> None:
        """Add what this step gained."""
        for name, (before, gradient) in self._before.items():
            move = before - training.moving[name].detach()
            gain = gradient.mul_(move).where(move != 0, 0.0)  # a step left out had no finite one
            self._gain[name] = self._gain[name].add_(gain) if name in self._gain else gain
        self._before.clear()

    def grown(self, padded: Padded) -> None:
        """New weights begin where they are."""
        super().grown(padded)
        self._gain = {name: padded(name, tensor) for name, tensor in self._gain.items()}
        self._start = {name: padded(name, tensor, True) for name, tensor in self._start.items()}

    def renamed(self, names: Mapping[str, str]) -> None:
        """The gains of an increment that is not over too."""
        super().renamed(names)
        self._gain, self._start = by_name(self._gain, names), by_name(self._start, names)

    def settle(self, training: Training) -> None:
        """Turn the gains of the increment into importance."""
        for name, gain in self._gain.items():
            now = training.moving[name].detach()
            found = gain.clamp(min=0) / ((now - self._start[name]).square() + self._damping)
            known = self.importance.get(name)
            self.importance[name] = found if known is None else known + found
            self.anchor[name] = now.clone()
        self._gain, self._start = {}, {}

    def save(self) -> State:
        """Importances, anchors, and the gains of an increment that is not over."""
        gain, start = part_of_tensors(self._gain), part_of_tensors(self._start)
        return {**super().save(), "gain": gain, "start": start}

    def load(self, state: State, device: torch.device) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        super().load(state, device)
        self._gain = tensors_of_part(state["gain"], device)
        self._start = tensors_of_part(state["start"], device)
