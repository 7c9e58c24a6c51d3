"""An anchor for Keras models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from everlearn.learners.keras_models.variables import arrayed
from everlearn.strategies.keras_retention.elastic import KerasElastic

if TYPE_CHECKING:
    from everlearn.learners.keras_models.training import KerasTraining


class KerasMoored(KerasElastic):
    """`Anchor` in use.

    Args:
        strength: of the penalty.
    """

    def __init__(self, strength: float) -> None:
        super().__init__("anchor", strength)

    def taken_up(self, training: KerasTraining) -> None:
        """The weights that were learned without it are the first anchors."""
        self.settle(training)

    def settle(self, training: KerasTraining) -> None:
        """The weights as they are now are the anchors of the next increment."""
        for name, weight in training.moving.items():
            now = arrayed(weight)
            self.importance[name].assign(np.ones_like(now))
            self.anchor[name].assign(now)
        self.holds = True
