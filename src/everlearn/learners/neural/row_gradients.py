"""Gradients of single rows of a PyTorch module, averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

NUMBERS = 8_000_000
"""Of gradients that are held at once: 32 MB, which an allocator keeps and gives out again; what is
larger is asked of the system each time, which takes 2.5 times as long."""

OfRow = Callable[[Tensor, Tensor], Tensor]
"""((k,) output of a row, its target) → a number, of which the gradient is taken."""


def mean_of_rows(
    module: torch.nn.Module,
    moving: Mapping[str, Tensor],
    of_row: OfRow,
    x: Tensor,
    y: Tensor,
    power: Literal[1, 2],
) -> dict[str, Tensor]:
    """The mean over rows of |gradient| or of its square, for each parameter; the module answers as
    it does when it predicts.

    Args:
        moving: the parameters by name.
        of_row: what the gradient is of.
        x, y: (n, width) rows and their (n,) targets.
        power: 1 for |gradient|, 2 for its square.
    """
    module.eval()
    still = {name: p for name, p in module.named_parameters() if name not in moving}
    fixed = {**still, **dict(module.named_buffers())}

    def value(parameters: dict[str, Tensor], row: Tensor, target: Tensor) -> Tensor:
        output = functional_call(module, {**fixed, **parameters}, (row.unsqueeze(0),))
        return of_row(output.reshape(-1), target)

    at = {name: p.detach() for name, p in moving.items()}
    one = grad(value)
    many: Any = vmap(one, in_dims=(None, 0, 0))
    total = {name: torch.zeros_like(p) for name, p in at.items()}
    rows = max(1, NUMBERS // sum(p.numel() for p in at.values()))
    for start in range(0, len(x), rows):
        piece = slice(start, start + rows)
        try:
            found = many(at, x[piece], y[piece])
        except RuntimeError:  # the module does something that cannot be done to many rows at once
            single = [one(at, row, target) for row, target in zip(x[piece], y[piece], strict=True)]
            found = {name: torch.stack([each[name] for each in single]) for name in at}
        for name, gradient in found.items():
            total[name] += (gradient.abs() if power == 1 else gradient.square()).sum(0)
    return {name: value / max(len(x), 1) for name, value in total.items()}
