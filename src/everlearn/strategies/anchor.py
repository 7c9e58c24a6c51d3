"""An anchor: all weights are held near to where they were when the increment began."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from everlearn.base import Learner
from everlearn.strategies.elastic import Elastic
from everlearn.strategies.linear import held_linear
from everlearn.strategies.neural import keras_of, network_of
from everlearn.strategies.strategy import share

if TYPE_CHECKING:
    from everlearn.learners.neural.training import Training


@dataclass(frozen=True, slots=True)
class Anchor:
    """Hold every weight alike, near to where it was when the increment began.

    Added to the loss: ``strength / 2 · Σ (weight − anchor)²``, around the weights of the version
    that is learned on: `EWC` with all importances 1, and with nothing left of earlier anchors.
    Chelba and Acero, "Adaptation of maximum entropy capitalizer: little data can help a lot", EMNLP
    2004; as a proximal term of online learning: McMahan, "Follow-the-regularized-leader and mirror
    descent", AISTATS 2011.

    For PyTorch modules, Keras models, and native linear learners, where it is applied after each
    row and in closed form.

    Alone it does not solve class-incremental learning, where classes come one after the other: use
    it with a memory.

    >>> Anchor(0.1).describe()
    'an anchor of strength 0.1'

    Args:
        strength: λ; 0 holds nothing.

    Raises:
        SpecError: it is no number of at least 0.
    """

    strength: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", share("Anchor(strength=)", self.strength))

    def describe(self) -> str:
        """The method in words."""
        return f"an anchor of strength {self.strength:g}"

    def wrap(self, learner: Learner) -> Learner:
        """See `Retention`. Raises `SpecError` for a learner without weights that it can hold."""
        linear = held_linear(learner, "Anchor", self.strength, fisher=False)
        if linear is not None:
            return linear
        model = keras_of(learner)
        if model is not None:
            from everlearn.strategies.keras_retention.anchor import KerasMoored

            return model.hold(KerasMoored(self.strength))
        return network_of(learner, "Anchor").hold(Moored(self.strength))


class Moored(Elastic):
    """`Anchor` in use.

    Args:
        strength: of the penalty.
    """

    def __init__(self, strength: float) -> None:
        super().__init__("anchor", strength)

    def taken_up(self, training: Training) -> None:
        """The weights that were learned without it are the first anchors."""
        self.settle(training)

    def settle(self, training: Training) -> None:
        """The weights as they are now are the anchors of the next increment."""
        import torch

        for name, weight in training.moving.items():
            now = weight.detach()
            self.importance[name], self.anchor[name] = torch.ones_like(now), now.clone()
