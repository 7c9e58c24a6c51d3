"""From what a PyTorch module puts out to a `Prediction`."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from everlearn.base import LearnerKind, Prediction
from everlearn.learners.answers import prior
from everlearn.learners.neural.layers import is_fixed
from everlearn.learners.neural.random import Generators

Form = Literal["scores", "one score", "number", "logarithm"]
"""What an output is: scores of all classes, one of two classes, a quantity, or its logarithm."""


def answer(kind: LearnerKind, output: Tensor, classes: int, form: Form) -> Prediction:
    """What (n, k) or (n,) outputs say.

    Args:
        kind: of the learner.
        output: float64, on the CPU.
        classes: how many class codes are known.
        form: what the outputs are.
    """
    if kind == "regressor":
        value = output.reshape(-1)
        return Prediction(value=(value.exp() if form == "logarithm" else value).numpy())
    if form == "one score":
        upper = torch.sigmoid(output.reshape(-1))
        proba = torch.stack([1.0 - upper, upper], dim=1)[:, :classes]
    else:
        proba = torch.softmax(output[:, :classes], dim=1)
    if classes == 1:
        proba = torch.ones_like(proba)
    return Prediction(value=proba.argmax(dim=1).numpy(), proba=proba.numpy())


def put_prior(answered: Prediction, rows: int, kind: LearnerKind, classes: int) -> None:
    """Let the first rows, which came before anything was learned, be answered with the prior."""
    first = prior(rows, kind, classes, has_proba=True)
    answered.value[:rows] = first.value
    if answered.proba is not None and first.proba is not None:
        answered.proba[:rows] = first.proba


def takes_statistics(module: torch.nn.Module) -> bool:
    """Whether it learns by statistics of a step's rows, of which there have to be two."""
    return any(
        isinstance(m, _BatchNorm) and m.training and not is_fixed(m) for m in module.modules()
    )


def draws(module: torch.nn.Module, row: Tensor, random: Generators) -> bool:
    """Whether a module draws random numbers where it predicts, as few do: the others answer while
    another learner learns."""
    before = random.current()
    with torch.no_grad():
        module(row)
    after = random.current()
    return not all(torch.equal(before[name], after[name]) for name in before)


def answers_alike(module: torch.nn.Module, x: Tensor) -> bool:
    """Whether a module answers rows in training as in use; its buffers stay as they were."""
    if any(isinstance(m, _DropoutNd | _BatchNorm) for m in module.modules()):
        return False
    buffers = [buffer.clone() for buffer in module.buffers()]
    with torch.no_grad():
        in_use, in_training = (module.train(mode)(x) for mode in (False, True))
        for buffer, before in zip(module.buffers(), buffers, strict=True):
            buffer.copy_(before)
    return torch.allclose(in_use, in_training, rtol=1e-4, atol=1e-5, equal_nan=True)
