"""Memory aware synapses: weights are held by how much the answers depend on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from everlearn.base import Learner, State
from everlearn.strategies.elastic import Elastic
from everlearn.strategies.neural import keras_of, network_of
from everlearn.strategies.sampled import RowSample
from everlearn.strategies.strategy import share, whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from everlearn.learners.neural.training import Training


@dataclass(frozen=True, slots=True)
class MAS:
    """Hold each weight by how much the answers to earlier increments change with it.

    Added to the loss: ``strength / 2 · Σ Ω · (weight − anchor)²``. After an increment, Ω grows by
    the mean, over rows, of |∂‖answer‖² / ∂weight|; no label is needed for it.

    Aljundi et al., "Memory aware synapses: learning what (not) to forget", ECCV 2018, section 4.1
    (whose λ is strength / 2).

    Alone it does not solve class-incremental learning, where classes come one after the other: use
    it with a memory.

    >>> MAS(1.0)
    MAS(strength=1.0, rows=1024)

    Args:
        strength: of the penalty.
        rows: of an increment, drawn from all of it, by which Ω is estimated.

    Raises:
        SpecError: an argument that is none of these.
    """

    strength: float = 1.0
    rows: int = 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", share("MAS(strength=)", self.strength))
        object.__setattr__(self, "rows", whole("MAS(rows=)", self.rows))

    def describe(self) -> str:
        """The method in words."""
        return f"memory aware synapses of strength {self.strength:g}"

    def wrap(self, learner: Learner) -> Learner:
        """See `Retention`. Raises `SpecError` for a learner that is no network."""
        model = keras_of(learner)
        if model is not None:
            from everlearn.strategies.keras_retention.mas import KerasSensitivity

            return model.hold(KerasSensitivity(self.strength, self.rows))
        return network_of(learner, "MAS").hold(Sensitivity(self))


class Sensitivity(Elastic):
    """`MAS` in use."""

    def __init__(self, definition: MAS) -> None:
        super().__init__("mas", definition.strength)
        self._sample = RowSample(definition.rows)

    def seen(self, x: Tensor, y: Tensor) -> None:
        """Keep a sample of the increment's rows."""
        self._sample.offer(x, y)

    def settle(self, training: Training) -> None:
        """Add how much the answers to this increment depend on each weight."""
        if not len(self._sample):
            return
        from everlearn.learners.neural.row_gradients import mean_of_rows

        x = self._sample.x
        found = mean_of_rows(
            training.module, training.moving, lambda f, _: f.square().sum(), x, x[:, 0], power=1
        )
        for name, weight in training.moving.items():
            known = self.importance.get(name)
            self.importance[name] = found[name] if known is None else known + found[name]
            self.anchor[name] = weight.detach().clone()
        self._sample.clear()

    def save(self) -> State:
        """Importances, anchors, and the rows kept of an increment that is not over."""
        return {**super().save(), "rows": self._sample.save()}

    def load(self, state: State, device: torch.device) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        super().load(state, device)
        self._sample.load(state["rows"], device)
