"""The layers of a PyTorch module: which there are, which answers, and which stand still."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from everlearn.base import SpecError

NORMS = (nn.modules.batchnorm._NormBase,)
"""Layers with running statistics."""


def layers_of(module: nn.Module) -> list[str]:
    """Names of the layers that have parameters of their own, in the module's order."""
    return [name for name, layer in module.named_modules() if layer._parameters]


def is_under(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one of these, below one of these, or fits a pattern with * or ?."""
    return any(
        name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)
        for pattern in patterns
    )


def check_named(what: str, patterns: Iterable[str], names: Iterable[str]) -> None:
    """Refuse a pattern that no name fits.

    Raises:
        SpecError: there is one; the message has the names.
    """
    known = list(names)
    for pattern in patterns:
        if not any(is_under(name, [pattern]) for name in known):
            tops = list(dict.fromkeys(name.rpartition(".")[0] or name for name in known))
            more = ", …" if len(tops) > 12 else ""
            raise SpecError(
                f"{what}: the module has nothing named {pattern!r}; it has "
                f"{', '.join(tops[:12])}{more}"
            )


def calls_of(module: nn.Module, blank: Tensor, kinds: Any) -> tuple[list[str], str | None]:
    """(names of the layers of these kinds in the order in which they answer one row, the one whose
    answer is the module's). A layer that is no part of the answer, or whose weights are read by
    another (the projections of `nn.MultiheadAttention`), is not among them."""
    names: list[str] = []
    found: list[Tensor] = []
    hooks = []

    def hook(name: str) -> Any:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            names.append(name)
            found.append(output)

        return note

    for name, layer in module.named_modules():
        if is_kind(layer, kinds):
            hooks.append(layer.register_forward_hook(hook(name)))
    was_training = module.training
    try:
        module.eval()
        with torch.no_grad():
            answer = module(blank)
    finally:
        module.train(was_training)
        for one in hooks:
            one.remove()
    last = [n for n, output in zip(names, found, strict=True) if _same(output, answer)]
    return list(dict.fromkeys(names)), last[-1] if last else None


def is_kind(layer: nn.Module, kinds: Any) -> bool:
    """Whether a layer is of one of these classes, some of which are named only: their libraries
    need not be there."""
    return any(
        type(layer).__name__ == kind if isinstance(kind, str) else isinstance(layer, kind)
        for kind in kinds
    )


def _same(output: Any, answer: Tensor) -> bool:
    """Whether an answer is what a layer made, if in another shape."""
    return (
        isinstance(output, Tensor)
        and output.numel() == answer.numel()
        and output.untyped_storage().data_ptr() == answer.untyped_storage().data_ptr()
    )


def keep_still(module: nn.Module, still: set[str]) -> None:
    """Parameters of these names need no gradient from here on. Normalisations with running
    statistics all of whose parameters are still (those without any: all of whose parent's are)
    keep their statistics."""
    for name, parameter in module.named_parameters():
        if name in still:
            parameter.requires_grad_(False)
    for name, layer in module.named_modules():
        if isinstance(layer, NORMS) and _stands(module, name):
            layer.register_forward_pre_hook(_evaluate)


def loosen(module: nn.Module, names: Iterable[str]) -> None:
    """Undo `keep_still` for these parameters, and for all normalisations."""
    for name in names:
        module.get_parameter(name).requires_grad_(True)
    for layer in module.modules():
        hooks = layer._forward_pre_hooks
        for key in [key for key, hook in hooks.items() if hook is _evaluate]:
            del hooks[key]


def still_buffers(module: nn.Module) -> set[str]:
    """Names of the statistics that `keep_still` fixed."""
    return {
        f"{name}.{key}" if name else key
        for name, layer in module.named_modules()
        if is_fixed(layer)
        for key in layer._buffers
    }


def is_fixed(layer: nn.Module) -> bool:
    """Whether `keep_still` fixed its statistics."""
    return any(hook is _evaluate for hook in layer._forward_pre_hooks.values())


def _evaluate(layer: nn.Module, _: Any) -> None:
    """Whoever has said `train()`: this layer does not."""
    layer.training = False


def _stands(module: nn.Module, name: str) -> bool:
    while True:
        parameters = list(module.get_submodule(name).parameters())
        if parameters or not name:
            return bool(parameters) and not any(p.requires_grad for p in parameters)
        name = name.rpartition(".")[0]
