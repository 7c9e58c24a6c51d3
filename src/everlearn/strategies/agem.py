"""Averaged gradient episodic memory: no step may raise the loss of remembered rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from everlearn.base import InputError, Learner, State
from everlearn.learners.neural.holder import Holder
from everlearn.strategies.neural import keras_of, network_of
from everlearn.strategies.sampled import RowSample
from everlearn.strategies.strategy import whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from everlearn.learners.neural.training import Training


@dataclass(frozen=True, slots=True)
class AGEM:
    """Keep a uniform sample of rows; where a step's gradient g would raise their loss, of gradient
    r, take ``g − (g·r / r·r) · r`` instead.

    Chaudhry et al., "Efficient lifelong learning with A-GEM", ICLR 2019, eq. 11.

    >>> AGEM(1000)
    AGEM(n=1000, draw=256)

    Args:
        n: rows to hold.
        draw: rows of which r is computed, a step.

    Raises:
        SpecError: an argument that is none of these.
    """

    n: int
    draw: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("AGEM(n=)", self.n))
        object.__setattr__(self, "draw", whole("AGEM(draw=)", self.draw))

    def describe(self) -> str:
        """The method in words."""
        return f"A-GEM with {self.n:,} rows"

    def wrap(self, learner: Learner) -> Learner:
        """See `Retention`. Raises `SpecError` for a learner that is no network."""
        model = keras_of(learner)
        if model is not None:
            from everlearn.strategies.keras_retention.agem import KerasProjection

            return model.hold(KerasProjection(self.n, self.draw))
        return network_of(learner, "AGEM").hold(Projection(self))


class Projection(Holder):
    """`AGEM` in use. Rows of an increment join the memory when it is over."""

    def __init__(self, definition: AGEM) -> None:
        super().__init__("agem")
        self._definition = definition
        self._memory = RowSample(definition.n)
        self._coming = RowSample(definition.n)

    def seen(self, x: Tensor, y: Tensor) -> None:
        """Rows of this increment."""
        self._coming.offer(x, y)

    def loss(self, training: Training, x: Tensor, y: Tensor, output: Tensor) -> Tensor | None:
        """Nothing; remembered rows are as these."""
        self._memory.fit(x)
        return None

    def before_step(self, training: Training) -> None:
        """Take out of the gradient what would raise the loss of remembered rows."""
        if not len(self._memory):
            return
        import torch

        x, y = self._memory.draw(self._definition.draw)
        moving = [p for p in training.moving.values() if p.grad is not None]
        with torch.enable_grad(), training.cast():
            remembered = training.loss(training.module(x), y, None)
        reference = torch.autograd.grad(remembered, moving, allow_unused=True)
        pairs = [
            (p.grad, r)
            for p, r in zip(moving, reference, strict=True)
            if r is not None and p.grad is not None
        ]
        along = sum(float((g * r).sum()) for g, r in pairs)
        if along < 0:
            length = sum(float((r * r).sum()) for _, r in pairs)
            for gradient, r in pairs:
                gradient.sub_(r, alpha=along / length)

    def settle(self, training: Training) -> None:
        """The increment's rows are old ones from now on."""
        if len(self._coming):
            self._memory.merge(self._coming)
            self._coming.clear()

    def save(self) -> State:
        """Both samples."""
        return {"memory": self._memory.save(), "coming": self._coming.save()}

    def load(self, state: State, device: torch.device) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        if set(state) != {"memory", "coming"}:
            raise InputError(f"the state has {sorted(state)}; it is not of A-GEM")
        self._memory.load(state["memory"], device)
        self._coming.load(state["coming"], device)
