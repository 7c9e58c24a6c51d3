"""Losses of PyTorch modules by name, and those that users write."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from everlearn.base import InputError

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(output, target, weights or None) → the (weighted) mean."""


def named(function: Callable[..., Tensor], flat: bool) -> Loss:
    """A loss of `torch.nn.functional`; `flat` for one that takes a number a row."""

    def mean(output: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        if flat:
            output = output.reshape(-1)
            y = y.to(output.dtype)
        if weight is None:
            return function(output, y)
        return (function(output, y, reduction="none") * weight).sum() / weight.sum()

    return mean


def own(function: Callable[[Tensor, Tensor], Tensor], flat: bool) -> Loss:
    """A user's function of output and target, which returns (n,) losses or their mean.

    Args:
        flat: whether the output is one number a row; it is then (n,), as the target is.

    Raises:
        InputError: it returns the mean, and rows have weights.
    """

    def mean(output: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        each = function(output.reshape(-1) if flat else output, y)
        if weight is None:
            return each if each.ndim == 0 else each.mean()
        if each.shape != weight.shape:
            raise InputError(
                "rows have weights: the loss has to return one value a row, not a mean"
            )
        return (each * weight).sum() / weight.sum()

    return mean


LOSSES: dict[str, Loss] = {
    "cross_entropy": named(functional.cross_entropy, flat=False),
    "bce": named(functional.binary_cross_entropy_with_logits, flat=True),
    "mse": named(functional.mse_loss, flat=True),
    "l1": named(functional.l1_loss, flat=True),
    "huber": named(functional.huber_loss, flat=True),
    "poisson": named(functional.poisson_nll_loss, flat=True),
}
