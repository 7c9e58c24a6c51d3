"""Where a transformer's facts are written: the layer of each block with which its MLP answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from everlearn.learners.neural.low_rank import KINDS, shape_of

SHARES = (0.35, 0.7, 1.0)
"""Depths that are tried, as shares of the last block. ROME edits GPT-2 XL at .36, MEMIT GPT-J at
.11 to .3 of the depth; that is no rule for a model of a few blocks, so later ones are tried too."""

WRAPPED = ".base_layer"
"""What the peft library calls a layer inside of one with an adapter."""


def projections(model: nn.Module) -> list[str]:
    """Names of the linear layer of each block through which its MLP adds to the state, in their
    order; blocks without exactly one (mixtures of experts) are left out.

    It is told by its shape: it has more inputs than outputs, another layer of the block goes the
    other way (twice as wide where it is gated), and it is no part of an attention.
    """
    lists = [(name, one) for name, one in model.named_modules() if isinstance(one, nn.ModuleList)]
    found: list[list[str]] = []
    for name, blocks in lists:
        inner = [_projection(block, f"{name}.{place}") for place, block in enumerate(blocks)]
        found.append([one for one in inner if one is not None])
    return max(found, key=len, default=[])


def _projection(block: nn.Module, name: str) -> str | None:
    """The one layer of a block that is such, or None."""
    shapes = {
        f"{name}.{inner}".removesuffix(WRAPPED): shape_of(layer)
        for inner, layer in block.named_modules()
        if is_linear(layer) and "lora_" not in inner and "attention" not in inner
        if "attn" not in inner
    }
    there = set(shapes.values())
    fit = [
        inner
        for inner, (outputs, inputs) in shapes.items()
        if inputs > outputs and {(inputs, outputs), (2 * inputs, outputs)} & there
    ]
    return fit[0] if len(fit) == 1 else None


def is_linear(layer: nn.Module) -> bool:
    """Whether it is a linear layer, of PyTorch or of the transformers library."""
    return any(
        isinstance(layer, kind) if isinstance(kind, type) else type(layer).__name__ == kind
        for kind in KINDS
    )


def tried(names: list[str]) -> list[str]:
    """Those at `SHARES` of the depth, each once."""
    if not names:
        return []
    places = dict.fromkeys(round(share * (len(names) - 1)) for share in SHARES)
    return [names[place] for place in places]


@contextmanager
def hooked(layer: nn.Module, hook: Callable[[Tensor, Tensor], Tensor | None]) -> Iterator[None]:
    """Within it, what a layer answers to this thread is replaced.

    Args:
        hook: (inputs, output) → what takes the output's place, or None.
    """
    mine = threading.get_ident()

    def called(layer: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return hook(given[0], output) if threading.get_ident() == mine else None

    handle = layer.register_forward_hook(called)
    try:
        yield
    finally:
        handle.remove()
