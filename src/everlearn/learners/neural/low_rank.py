"""Adapters of low rank: what is added to the answer of a linear layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

KINDS = (nn.Linear, "Conv1D")
"""Layers that take an adapter. `Conv1D` is the linear layer of the transformers library's GPT-2,
whose weight is the transpose of `nn.Linear`'s."""


def shape_of(layer: Any) -> tuple[int, int]:
    """(outputs, inputs)."""
    rows, columns = layer.weight.shape
    return (rows, columns) if isinstance(layer, nn.Linear) else (columns, rows)


def adapt(layer: Any, rank: int, scale: float, dropout: float) -> None:
    """Add scale · B A x to the answer of a layer to x: A, (rank, inputs), is drawn from PyTorch's
    generator as a linear layer draws its weights; B, (outputs, rank), is 0. Both are parameters of
    the layer."""
    outputs, inputs = shape_of(layer)
    weight = layer.weight
    down = torch.empty(rank, inputs, device=weight.device, dtype=weight.dtype)
    nn.init.kaiming_uniform_(down, a=5**0.5)
    layer.register_parameter("lora_A", nn.Parameter(down))
    layer.register_parameter("lora_B", nn.Parameter(weight.new_zeros(outputs, rank)))
    if dropout:
        layer.register_module("lora_dropout", nn.Dropout(dropout))
    layer.lora_scale = scale
    layer.register_forward_hook(_add)


def _add(layer: Any, given: tuple[Any, ...], output: Tensor) -> Tensor:
    x = given[0]
    if "lora_dropout" in layer._modules:
        x = layer.lora_dropout(x)
    more = functional.linear(functional.linear(x, layer.lora_A), layer.lora_B)
    return output + more * float(layer.lora_scale)


def shared(tensors: Mapping[str, Tensor], layers: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors without adapters by key: what all keys share of them is added to the weights."""
    left = dict(tensors)
    for name, kind in layers.items():
        start = f"{name}." if name else ""
        directions, matrix = left.pop(f"{start}personal_A"), left.pop(f"{start}personal_B", None)
        if matrix is None:
            continue
        weight, bias = left[f"{start}weight"], left.get(f"{start}bias")
        move = matrix[:, : len(directions)] @ directions
        left[f"{start}weight"] = weight + (move if kind == "Linear" else move.T)
        if bias is not None:
            left[f"{start}bias"] = bias + matrix[:, -1]
    return left


def merged(
    tensors: Mapping[str, Tensor], layers: Mapping[str, str], scale: float
) -> dict[str, Tensor]:
    """The tensors with W + scale · B A in the place of each W, A and B.

    Args:
        layers: name of each adapted layer → "Linear" or "Conv1D".
    """
    left = dict(tensors)
    for name, kind in layers.items():
        start = f"{name}." if name else ""
        move = scale * (left.pop(f"{start}lora_B") @ left.pop(f"{start}lora_A"))
        weight = left[f"{start}weight"]
        left[f"{start}weight"] = weight + (move if kind == "Linear" else move.T).to(weight.dtype)
    return left
