"""Heads: the linear layer whose answer is the module's, made anew or with more outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from everlearn.base import SpecError
from everlearn.learners.neural.layers import calls_of

Replaced = dict[str, tuple[nn.Parameter, nn.Parameter]]
"""Name of a parameter → (what it was, what takes its place)."""


def head_of(module: nn.Module, blank: Tensor, name: str | None = None) -> str:
    """The name of the linear layer whose answer is the module's.

    Args:
        blank: (1, width) a row of zeros.
        name: which it is, where that is said.

    Raises:
        SpecError: there is none of this name, or none can be found.
    """
    if name is None:
        _, found = calls_of(module, blank, (nn.Linear,))
        if found is None:
            raise SpecError(
                "the module's answer is not that of a linear layer: name the one that is its head"
            )
        return found
    try:
        layer = module.get_submodule(name)
    except AttributeError:
        layer = None
    if not isinstance(layer, nn.Linear):
        lines = [known for known, one in module.named_modules() if isinstance(one, nn.Linear)]
        raise SpecError(f"the module has no linear layer {name!r}; it has {', '.join(lines)}")
    return name


def head_said(module: nn.Module, blank: Tensor, said: str | bool) -> str:
    """The same, of a name or True. Raises `SpecError`."""
    return head_of(module, blank, said if isinstance(said, str) else None)


def growing(module: nn.Module, blank: Tensor, said: str | bool, one_score: bool) -> str:
    """The name of the head that is to get an output for each class that comes.

    Args:
        blank: (1, width) a row of zeros.
        said: its name, or True.
        one_score: the module answers with one score for two classes.

    Raises:
        SpecError: it cannot grow.
    """
    if one_score:
        raise SpecError("TorchLearner(grow=) needs a score for each class: loss='cross_entropy'")
    name = head_said(module, blank, said)
    if is_shared(module, name):
        raise SpecError(f"the weights of {name!r} are another layer's too: it cannot grow")
    return name


def renew(module: nn.Module, name: str, outputs: int) -> nn.Module:
    """The module with a new head, drawn from PyTorch's generator as the layer draws its weights."""
    old = module.get_submodule(name)
    assert isinstance(old, nn.Linear)
    kind, device = old.weight.dtype, old.weight.device
    new = nn.Linear(old.in_features, outputs, old.bias is not None, device, kind)
    if not name:
        return new
    module.set_submodule(name, new)
    return module


def outputs_in(tensors: Mapping[str, Tensor], name: str) -> int:
    """How many outputs a head has in a state; 0 if it is not there.

    Args:
        name: of the head; "" where it is the whole module.
    """
    weight = tensors.get(f"{name}.weight" if name else "weight")
    return 0 if weight is None else len(weight)


def is_shared(module: nn.Module, name: str) -> bool:
    """Whether other layers have the head's weights too."""
    own = {id(p) for p in module.get_submodule(name).parameters()}
    return any(
        id(p) in own and key.rpartition(".")[0] != name
        for key, p in module.named_parameters(remove_duplicate=False)
    )


def widen(module: nn.Module, name: str, outputs: int) -> Replaced:
    """Give the head more outputs. Those that it has stay as they are; new weights are drawn as the
    layer draws its own, and an adapter's are 0.

    Raises:
        SpecError: another library's layer stands in its place.
    """
    head = module.get_submodule(name)
    if not isinstance(head, nn.Linear):
        raise SpecError(
            f"{name!r} is a {type(head).__name__} now, which cannot grow: leave it out of targets="
        )
    before, bias = head.out_features, head.bias is not None
    fresh = nn.Linear(
        head.in_features, outputs - before, bias, head.weight.device, head.weight.dtype
    )
    drawn = dict(fresh.named_parameters())
    replaced: Replaced = {}
    for key, old in list(head.named_parameters(recurse=False)):
        if key not in drawn and key not in ("lora_B", "personal_B"):
            continue
        more = (
            drawn[key].detach() if key in drawn else old.new_zeros(len(fresh.weight), *old[0].shape)
        )
        new = nn.Parameter(torch.cat([old.detach(), more]), requires_grad=old.requires_grad)
        setattr(head, key, new)
        replaced[f"{name}.{key}" if name else key] = (old, new)
    head.out_features = outputs
    return replaced


def padding(replaced: Replaced) -> Callable[[str, Tensor, bool], Tensor]:
    """(name, tensor, now) → the tensor, which was like the parameter of that name, as what took its
    place is: with zeros for what is new, or with what it is now."""

    def padded(name: str, tensor: Tensor, now: bool = False) -> Tensor:
        if name not in replaced or tensor.shape != replaced[name][0].shape:
            return tensor
        new = replaced[name][1].detach()
        more = new[len(tensor) :].to(tensor.dtype)
        return torch.cat([tensor, more.clone() if now else torch.zeros_like(more)])

    return padded


def pad_optimizer(optimizer: torch.optim.Optimizer, replaced: Replaced) -> None:
    """Let the optimizer move what took a parameter's place. What it remembers of each number is 0
    for new ones; of what it remembers in other shapes nothing is left."""
    by_id = {id(old): (old, new) for old, new in replaced.values()}
    for group in optimizer.param_groups:
        group["params"] = [by_id.get(id(p), (p, p))[1] for p in group["params"]]
    for old, new in by_id.values():
        known = optimizer.state.pop(old, None)
        if not known:
            continue
        kept = {}
        for key, value in known.items():
            if isinstance(value, Tensor) and value.shape == old.shape:
                kept[key] = torch.cat(
                    [value, value.new_zeros(new.shape[0] - len(old), *old.shape[1:])]
                )
            elif not isinstance(value, Tensor) or value.numel() == 1:
                kept[key] = value
            else:
                kept = {}
                break
        if kept:
            optimizer.state[new] = kept
