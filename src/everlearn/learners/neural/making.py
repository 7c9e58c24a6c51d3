"""What a network is made of, from its definition."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from everlearn.base import LearnerKind, SpecError
from everlearn.learners.neural.answering import Form

if TYPE_CHECKING:
    from everlearn.learners.neural.definition import TorchLearner


def form_of(kind: LearnerKind, loss: Any) -> Form:
    """What a module puts out, by the learner's kind and the loss."""
    if kind == "regressor":
        return "logarithm" if loss == "poisson" else "number"
    return "one score" if loss == "bce" else "scores"


def device_of(name: str) -> torch.device:
    """A device by its name; "auto" is a GPU where there is one.

    Raises:
        SpecError: there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SpecError(f"TorchLearner(device={name!r}): PyTorch finds no GPU here; say 'auto'")
    return device


def module_of(definition: TorchLearner) -> torch.nn.Module:
    """A module of its own: made, or copied.

    Raises:
        SpecError: what is made is no module.
    """
    made = definition.module
    module = copy.deepcopy(made) if isinstance(made, torch.nn.Module) else made()
    if not isinstance(module, torch.nn.Module):
        raise SpecError(f"{made!r} made {module!r}, which is no torch.nn.Module")
    return module


def room_of(
    module: torch.nn.Module, blank: Tensor, definition: TorchLearner, one_score: bool
) -> int:
    """How many classes a module tells apart, by its answer to a row, which also tells lazy layers
    their width.

    Args:
        blank: (1, width) that row.
        one_score: whether one number a row is wanted, not a score for each class.

    Raises:
        SpecError: it cannot take the row, or answers in another shape.
    """
    module.eval()
    try:
        with torch.no_grad():
            shape = tuple(module(blank).shape)
    except Exception as error:
        raise SpecError(
            f"the module cannot take (1, {blank.shape[1]}) numbers, which is what the encoder makes"
            f" of a row: {type(error).__name__}: {error}"
        ) from error
    if one_score and not definition.new_head:
        if shape not in ((1,), (1, 1)):
            raise SpecError(f"the module answers {shape} to one row, where (1, 1) is wanted")
        return 2
    if len(shape) != 2 or shape[0] != 1:
        raise SpecError(f"the module answers {shape} to one row, where (1, classes) is wanted")
    said = definition.room
    if definition.grow or definition.new_head:
        return int(shape[1])
    if said > shape[1]:
        raise SpecError(f"classes= says {said}, but the module has {shape[1]} outputs")
    return said or int(shape[1])


def room_of_new(definition: TorchLearner, classes: int, one_score: bool) -> int:
    """How many classes a new head tells apart.

    Args:
        classes: how many are known beforehand.
        one_score: it answers with one score for two classes.

    Raises:
        SpecError: nothing says it.
    """
    room = 2 if one_score else definition.room
    if not room and definition.grow:
        room = max(classes, 2)
    if not room:
        raise SpecError("TorchLearner(new_head=) needs classes=, or grow=True")
    return room
