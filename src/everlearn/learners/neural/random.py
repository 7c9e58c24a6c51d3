"""A learner's own random generators, in a process that has one of PyTorch's for all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

in_use = threading.RLock()
"""PyTorch's generators are the process's: one learner at a time draws from them."""


class Generators:
    """The generators of one learner: those of the CPU, and of its GPU.

    Args:
        device: of the module.

    Attributes:
        state: name → state of a generator.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.state = self.current()

    @contextmanager
    def begun(self, seed: int) -> Iterator[None]:
        """Draw from generators that a seed began, and keep them. The process's are left alone."""
        devices = [self._device] if self._device.type == "cuda" else []
        with in_use, torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield
            self.state = self.current()

    @contextmanager
    def own(self, keep: bool = True) -> Iterator[None]:
        """Draw from these, and leave the process's as they were.

        Args:
            keep: whether what is drawn is drawn for good.
        """
        with in_use:
            before = self.current()
            self._set(self.state)
            try:
                yield
            finally:
                if keep:
                    self.state = self.current()
                self._set(before)

    def current(self) -> dict[str, Tensor]:
        """The states of the process's generators."""
        made = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            made["cuda"] = torch.cuda.get_rng_state(self._device)
        return made

    def _set(self, states: dict[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if "cuda" in states and self._device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self._device)
