"""Dark experience replay: remembered rows are answered as they were when they were learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from everlearn.base import InputError, Learner, State
from everlearn.learners.neural.holder import Holder
from everlearn.strategies.neural import keras_of, network_of
from everlearn.strategies.sampled import RowSample
from everlearn.strategies.strategy import share, whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from everlearn.learners.neural.training import Training


@dataclass(frozen=True, slots=True)
class DarkReplay:
    """Keep a uniform sample of rows with the scores that the module gave them, and hold it to them.

    Added to the loss of each step: ``alpha · mean (scores now − scores kept)²`` on rows drawn from
    the sample, and ``beta · loss`` on others drawn from it. Buzzega et al., "Dark experience for
    general continual learning", NeurIPS 2020, eq. 5 (DER, beta = 0) and 6 (DER++).

    >>> DarkReplay(500)
    DarkReplay(n=500, alpha=0.5, beta=0.5, draw=None)

    Args:
        n: rows to hold.
        alpha: weight of the scores.
        beta: weight of the labels.
        draw: rows drawn for each of the two, a step; None for as many as the step has new ones.

    Raises:
        SpecError: an argument that is none of these.
    """

    n: int
    alpha: float = 0.5
    beta: float = 0.5
    draw: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("DarkReplay(n=)", self.n))
        object.__setattr__(self, "alpha", share("DarkReplay(alpha=)", self.alpha))
        object.__setattr__(self, "beta", share("DarkReplay(beta=)", self.beta))
        if self.draw is not None:
            object.__setattr__(self, "draw", whole("DarkReplay(draw=)", self.draw))

    def describe(self) -> str:
        """The method in words."""
        return f"dark experience replay of {self.n:,} rows"

    def wrap(self, learner: Learner) -> Learner:
        """See `Retention`. Raises `SpecError` for a learner that is no network."""
        model = keras_of(learner)
        if model is not None:
            from everlearn.strategies.keras_retention.dark_replay import KerasScores

            return model.hold(KerasScores(self.n, self.alpha, self.beta, self.draw))
        return network_of(learner, "DarkReplay").hold(Scores(self))


class Scores(Holder):
    """`DarkReplay` in use."""

    def __init__(self, definition: DarkReplay) -> None:
        super().__init__("dark")
        self._definition = definition
        self._sample = RowSample(definition.n)
        self._new: list[tuple[Tensor, Tensor, Tensor]] = []

    def begin(self) -> None:
        """No row of this step is known yet."""
        self._new.clear()

    def loss(self, training: Training, x: Tensor, y: Tensor, output: Tensor) -> Tensor | None:
        """How far the scores of remembered rows are from those kept, and the loss of others."""
        self._new.append((x, y, output.detach()))
        if not len(self._sample):
            return None
        self._sample.fit(x)
        if output.ndim == 2:
            self._sample.widen(2, output.shape[1])
        definition, rows = self._definition, self._definition.draw or len(x)
        more: Tensor | None = None
        if definition.alpha:
            old, _, kept = self._sample.draw(rows)
            more = definition.alpha * _apart(training.module(old), kept)
        if definition.beta:
            old, label, _ = self._sample.draw(rows)
            labels = definition.beta * training.loss(training.module(old), label, None)
            more = labels if more is None else more + labels
        return more

    def after_step(self, training: Training) -> None:
        """Offer the step's rows with the scores that they had."""
        for rows in self._new:
            self._sample.offer(*rows)
        self._new.clear()

    def save(self) -> State:
        """The sample."""
        return {"rows": self._sample.save()}

    def load(self, state: State, device: torch.device) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        if set(state) != {"rows"}:
            raise InputError(f"the state has {sorted(state)}; it is not of dark replay")
        self._sample.load(state["rows"], device)


def _apart(now: Tensor, kept: Tensor) -> Tensor:
    """The mean squared difference of scores; an output that was not there then has none."""
    from torch.nn import functional

    known = ~kept.isnan()
    return functional.mse_loss(now[known], kept[known])
