"""A PyTorch module as a patch sees it: the input of its head, and the scores that that gives."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from everlearn.base import Batch, Floats, Prediction


class EditableHead:
    """A module whose answer is that of a linear layer. Its features are that layer's inputs and 1.

    Args:
        head: the layer.
        predict: what asks the module.
        answer: what makes a prediction of (n, k) outputs.
        classes: how many scores are of known classes; 0 for all.
    """

    def __init__(
        self,
        head: nn.Linear,
        predict: Callable[[Batch], Prediction],
        answer: Callable[[Tensor], Prediction],
        classes: int,
    ) -> None:
        self._head, self._predict, self._answer = head, predict, answer
        self._classes = classes

    def activations(self, batch: Batch) -> tuple[Any, Floats]:
        """See `Editable`."""
        seen: list[tuple[Tensor, Tensor]] = []
        mine = threading.get_ident()

        def note(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            if threading.get_ident() == mine:  # other threads may ask the module meanwhile
                seen.append((inputs[0], output))

        if not len(batch):
            outputs = self._classes or self._head.out_features
            return np.zeros((0, self._head.in_features + 1)), np.zeros((0, outputs))
        hook = self._head.register_forward_hook(note)
        try:
            self._predict(batch)
        finally:
            hook.remove()
        inputs, output = (x.to("cpu", torch.float64).reshape(len(batch), -1) for x in seen[-1])
        ones = torch.ones(len(batch), 1, dtype=torch.float64)
        scores = output[:, : self._classes] if self._classes else output
        return torch.cat([inputs, ones], dim=1).numpy(), scores.numpy()

    def answer(self, scores: Floats) -> Prediction:
        """See `Editable`."""
        return self._answer(torch.from_numpy(np.ascontiguousarray(scores)))
