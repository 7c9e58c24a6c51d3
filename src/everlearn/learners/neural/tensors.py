"""PyTorch's tensors and settings as parts of a state: named arrays and JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from everlearn.base import Array, InputError, Json, Part

_AS_INTEGERS = {
    torch.bfloat16: torch.int16,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e5m2: torch.uint8,
}
"""What numpy lacks is kept as integers of the same bits."""

_NAMES = {str(kind).removeprefix("torch."): kind for kind in _AS_INTEGERS}


def part_of(tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Json] | None = None) -> Part:
    """A part that holds copies of the tensors.

    Raises:
        InputError: a tensor is sparse or quantised.
    """
    arrays: dict[str, Array] = {}
    kinds: dict[str, str] = {}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise InputError(f"{name} is a {tensor.layout} tensor, which cannot be saved")
        plain = tensor.detach().to("cpu")
        if plain.dtype in _AS_INTEGERS:
            kinds[name] = str(plain.dtype).removeprefix("torch.")
            plain = plain.view(_AS_INTEGERS[plain.dtype])
        arrays[name] = np.array(plain.numpy(), copy=True, order="C")
    return Part(arrays, {**(meta or {}), "kinds": kinds})


def tensors_of(part: Part) -> dict[str, torch.Tensor]:
    """The inverse of `part_of`: tensors of their own memory, on the CPU."""
    kinds = part.meta.get("kinds", {}) if isinstance(part.meta, dict) else {}
    made: dict[str, torch.Tensor] = {}
    for name, array in part.arrays.items():
        tensor = torch.from_numpy(np.array(array, copy=True, order="C"))
        made[name] = tensor.view(_NAMES[kinds[name]]) if name in kinds else tensor
    return made


def check_same_shapes(
    what: str, found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """Refuse tensors that are not those of another mapping, naming what differs.

    Raises:
        InputError: names are missing or too many, or shapes or types differ.
    """
    differ = [f"{name} is missing" for name in expected if name not in found]
    differ += [f"{name} is not in it" for name in found if name not in expected]
    for name, tensor in expected.items():
        if name in found and _form(found[name]) != _form(tensor):
            differ.append(f"{name} has {_form(found[name])}, not {_form(tensor)}")
    if differ:
        more = f" and {len(differ) - 8} more" if len(differ) > 8 else ""
        raise InputError(f"the state is of another {what}: {'; '.join(differ[:8])}{more}")


def _form(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def optimizer_part(optimizer: torch.optim.Optimizer) -> Part:
    """What an optimizer remembers of each parameter, and its settings.

    Raises:
        InputError: it remembers something that is no tensor, number or text.
    """
    saved = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, Json] = {}
    for index, remembered in saved["state"].items():
        for name, value in remembered.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}/{name}"] = value
            else:
                plain[f"{index}/{name}"] = as_json(value, f"the optimizer's {name}")
    groups = as_json(saved["param_groups"], "the optimizer's settings")
    return part_of(tensors, {"plain": plain, "groups": groups})


def load_optimizer(optimizer: torch.optim.Optimizer, part: Part) -> None:
    """The inverse of `optimizer_part`.

    Raises:
        InputError: the part is of an optimizer of other parameters.
    """
    remembered: dict[int, dict[str, Any]] = {}
    try:
        plain = {name: from_json(value) for name, value in part.meta["plain"].items()}
        for path, value in {**tensors_of(part), **plain}.items():
            index, _, name = path.partition("/")
            remembered.setdefault(int(index), {})[name] = value
        groups = from_json(part.meta["groups"])
        optimizer.load_state_dict({"state": remembered, "param_groups": groups})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the state is of another optimizer: {error}") from error


def as_json(value: Any, what: str) -> Json:
    """Settings as JSON: tuples and tensors are marked.

    Raises:
        InputError: something in it is no number, text, list, dict or tensor.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return {"tuple": [as_json(item, what) for item in value]}
    if isinstance(value, list):
        return [as_json(item, what) for item in value]
    if isinstance(value, Mapping):
        return {"dict": [[as_json(k, what), as_json(v, what)] for k, v in value.items()]}
    if isinstance(value, torch.Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return {"tensor": {"dtype": kind, "values": value.detach().cpu().double().tolist()}}
    raise InputError(f"{what} hold {value!r}, which cannot be saved")


def from_json(value: Json) -> Any:
    """The inverse of `as_json`."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if isinstance(value, dict):
        ((tag, body),) = value.items()
        if tag == "tuple":
            return tuple(from_json(item) for item in body)
        if tag == "dict":
            return {from_json(k): from_json(v) for k, v in body}
        return torch.tensor(body["values"], dtype=getattr(torch, body["dtype"]))
    return value
