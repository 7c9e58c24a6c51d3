"""What methods for networks share. PyTorch is imported where it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from everlearn.base import Learner, Part, SpecError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from everlearn.learners.keras_models.network import KerasNetwork
    from everlearn.learners.neural.network import Network


def keras_of(learner: Learner) -> KerasNetwork | None:
    """The learner, if it is a Keras model; None if it is none."""
    return learner if getattr(learner, "is_keras", False) else None  # type: ignore[return-value]


def network_of(learner: Learner, name: str) -> Network:
    """The learner, if it is a PyTorch module.

    Raises:
        SpecError: it is none.
    """
    if keras_of(learner) is not None:
        raise SpecError(
            f"{name} is for PyTorch modules, not for a Keras model: give Model(learner="
            "TorchLearner(…)); a Keras model's layers are frozen by layer.trainable = False"
        )
    if not hasattr(learner, "hold"):
        raise SpecError(
            f"{name} holds on to the weights of a PyTorch module or a Keras model: give"
            f" Model(learner=TorchLearner(…)) or KerasLearner(…); {type(learner).__name__} learns"
            " otherwise"
        )
    return learner  # type: ignore[return-value]


def part_of_tensors(tensors: Mapping[str, Tensor]) -> Part:
    """Tensors by their names, as a part of a state."""
    from everlearn.learners.neural.tensors import part_of

    return part_of(tensors)


def tensors_of_part(part: Part, device: torch.device) -> dict[str, Tensor]:
    """The inverse of `part_of_tensors`, on a device."""
    from everlearn.learners.neural.tensors import tensors_of

    return {name: tensor.to(device) for name, tensor in tensors_of(part).items()}
