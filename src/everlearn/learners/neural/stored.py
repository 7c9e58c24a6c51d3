"""A module as a state has it: the names of its tensors, and which of them move."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from everlearn.base import InputError, Json
from everlearn.learners.neural.change import Change
from everlearn.learners.neural.layers import still_buffers
from everlearn.learners.neural.tensors import check_same_shapes
from everlearn.learners.neural.training import DIVERGED, Training


@dataclass(frozen=True, slots=True)
class Stored:
    """A module as a state has it.

    Args:
        module: as it stands.
        change: what an adaptation made of it.
        training: what moves its parameters.
    """

    module: torch.nn.Module
    change: Change
    training: Training

    def still(self) -> set[str]:
        """Names, as stored, of what does not move."""
        named = self.module.named_parameters(remove_duplicate=False)
        still = {name for name, p in named if not p.requires_grad} | still_buffers(self.module)
        stored = {self.change.stored(name) for name in still}
        buffers = {self.change.stored(name) for name, _ in self.module.named_buffers()}
        return stored | {name for name in buffers if self.change.fixes(name)}

    def tensors(self) -> dict[str, Tensor]:
        """The module's tensors, by the names under which they are stored, each once."""
        named = self.module.state_dict().items()
        return {self.change.stored(k): v for k, v in named if not self.change.repeats(k)}

    def moving(self) -> list[str]:
        """Names, as stored, of the parameters that move."""
        return [self.change.stored(name) for name in self.training.moving]

    def other_names(self, known: Json) -> dict[str, str]:
        """What a saved module called its moving parameters → what this one calls them."""
        stored = known.get("moving", [])
        now = {self.change.stored(name): name for name in self.training.moving}
        then = known.get("called", stored)
        return {old: now.get(name, old) for old, name in zip(then, stored, strict=True)}

    def check_finite(self, tensors: dict[str, Tensor]) -> None:
        """Raises `InputError` if one of these has a number that is not finite."""
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise InputError(
                    f"{name} is not finite after {self.training.steps} steps; {DIVERGED}"
                )

    def load(self, tensors: dict[str, Tensor], same: bool) -> None:
        """Load tensors by the names under which they are stored.

        Args:
            same: the state has the same change; else it is without what this one added.

        Raises:
            InputError: they are of another architecture.
        """
        own = self.tensors()
        if not same:
            tensors = {k: v for k, v in own.items() if self.change.adds(k)} | tensors
        check_same_shapes("architecture", tensors, own)
        there = {name: tensors.get(self.change.stored(name)) for name in self.module.state_dict()}
        self.module.load_state_dict({k: v for k, v in there.items() if v is not None}, strict=False)
