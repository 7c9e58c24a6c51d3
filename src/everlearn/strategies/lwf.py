"""Learning without forgetting: new rows are answered nearly as they were before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from everlearn.base import InputError, Learner, Part, SpecError, State
from everlearn.learners.neural.holder import Holder, Padded
from everlearn.strategies.neural import keras_of, network_of, part_of_tensors, tensors_of_part
from everlearn.strategies.strategy import share

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from everlearn.learners.neural.training import Training


@dataclass(frozen=True, slots=True)
class LwF:
    """Distil what the module answered at the increment's start into what it answers now, on the new
    rows themselves; no old row is kept.

    Added to the loss: ``strength · T² · KL(softmax(before / T) ‖ softmax(now / T))``, the mean over
    rows, over the classes known at the increment's start; for quantities
    ``strength · (before − now)²``.

    Li, Hoiem, "Learning without forgetting", ECCV 2016, eq. 2 and 3; the factor T² of Hinton et al.
    2015, section 2, keeps the gradient's size.

    Alone it does not solve class-incremental learning, where classes come one after the other: use
    it with a memory.

    >>> LwF()
    LwF(strength=1.0, temperature=2.0)

    Args:
        strength: of the distillation.
        temperature: T.

    Raises:
        SpecError: an argument that is none of these.
    """

    strength: float = 1.0
    temperature: float = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", share("LwF(strength=)", self.strength))
        object.__setattr__(self, "temperature", share("LwF(temperature=)", self.temperature))
        if not self.temperature:
            raise SpecError("LwF(temperature=) is above 0")

    def describe(self) -> str:
        """The method in words."""
        return f"learning without forgetting of strength {self.strength:g}"

    def wrap(self, learner: Learner) -> Learner:
        """See `Retention`. Raises `SpecError` for a learner that is no network."""
        model = keras_of(learner)
        if model is not None:
            from everlearn.strategies.keras_retention.lwf import KerasTeacher

            return model.hold(KerasTeacher(self.strength, self.temperature))
        network = network_of(learner, "LwF")
        return network.hold(Teacher(self, classes=network.classifies))


class Teacher(Holder):
    """`LwF` in use.

    Args:
        definition: its parameters.
        classes: whether the module answers with scores of classes.
    """

    def __init__(self, definition: LwF, classes: bool) -> None:
        super().__init__("lwf")
        self._definition, self._classifies = definition, classes
        self._weights: dict[str, Tensor] = {}
        self._classes = 0

    def loss(self, training: Training, x: Tensor, y: Tensor, output: Tensor) -> Tensor | None:
        """How far the answers are from those of the increment's start."""
        if not self._weights:
            return None
        import torch
        from torch.func import functional_call
        from torch.nn import functional

        training.module.eval()
        with torch.no_grad():
            before = functional_call(training.module, self._weights, (x,), tie_weights=False)
        training.module.train()
        strength, t = self._definition.strength, self._definition.temperature
        if not self._classifies:
            return strength * functional.mse_loss(output, before)
        if output.ndim == 1 or output.shape[1] == 1:
            return strength * t * t * _between_two(output / t, before / t)
        k = self._classes
        now = functional.log_softmax(output[:, :k] / t, dim=1)
        then = functional.log_softmax(before[:, :k] / t, dim=1)
        apart = functional.kl_div(now, then, reduction="batchmean", log_target=True)
        return strength * t * t * apart

    def taken_up(self, training: Training) -> None:
        """The answers are to stay as they are from the first increment on."""
        self.settle(training)

    def grown(self, padded: Padded) -> None:
        """Outputs that the increment's start did not have are there, and are not compared: adapters
        by key and further columns, which the answers of the start go through, have them too."""
        self._weights = {name: padded(name, tensor) for name, tensor in self._weights.items()}

    def settle(self, training: Training) -> None:
        """From now on, the answers are to stay as they are."""
        self._classes = training.classes
        self._weights = {
            name: tensor.detach().clone() for name, tensor in training.module.state_dict().items()
        }

    def save(self) -> State:
        """The weights of the increment's start."""
        return {
            "weights": part_of_tensors(self._weights),
            "known": Part(meta={"classes": self._classes}),
        }

    def load(self, state: State, device: torch.device) -> None:
        """Become what `save` saw. Raises `InputError` for a state of another kind."""
        if set(state) != {"weights", "known"}:
            raise InputError(f"the state has {sorted(state)}; it is not of lwf")
        self._weights = tensors_of_part(state["weights"], device)
        self._classes = int(state["known"].meta["classes"])


def _between_two(now: Tensor, then: Tensor) -> Tensor:
    """KL divergence of the two classes' chances, by their scores; without a constant."""
    from torch.nn import functional

    return functional.binary_cross_entropy_with_logits(now, then.sigmoid())
