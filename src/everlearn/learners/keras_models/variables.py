"""Keras's variables by names that every process gives them, and as parts of a state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from everlearn.base import Array, InputError, Part
from everlearn.learners.keras_models.back_ends import back_end

_AS_INTEGERS = {"bfloat16": np.uint16, "float8_e4m3fn": np.uint8, "float8_e5m2": np.uint8}
"""What numpy lacks is kept as integers of the same bits."""


def named(model: Any) -> dict[str, Any]:
    """Name → variable of a built model: the layer's name and its own. Keras numbers the layers of a
    process (dense_7); here they are numbered within the model.

    A layer that the user has named keeps its name.
    """
    automatic = {_snake(type(layer).__name__) for layer in model._flatten_layers()}
    automatic.add("seed_generator")
    numbers: dict[str, dict[str, int]] = {}
    found: dict[str, Any] = {}
    for variable in model.variables:
        parts: list[str] = ["", *str(variable.path).split("/")]
        layer, own = parts[-2:]
        base = re.sub(r"_\d+$", "", layer)
        if base in automatic:
            known = numbers.setdefault(base, {})
            number = known.setdefault(layer, len(known))
            layer = f"{base}_{number}" if number else base
        _add(found, f"{layer}/{own}".lstrip("/"), variable)
    return found


def named_of_optimizer(optimizer: Any, moving: Mapping[str, Any]) -> dict[str, Any]:
    """Name → variable of a built optimizer, by the names of the weights that it moves."""
    raw = {variable.path.replace("/", "_"): name for name, variable in moving.items()}
    longest = sorted(raw, key=len, reverse=True)
    found: dict[str, Any] = {}
    for variable in optimizer.variables:
        own = variable.name
        start = next((path for path in longest if own.startswith(f"{path}_")), None)
        _add(found, own if start is None else f"{raw[start]}/{own[len(start) + 1 :]}", variable)
    return found


def part_of(variables: Mapping[str, Any]) -> Part:
    """A part that holds copies of the variables."""
    return part_of_arrays({name: arrayed(variable) for name, variable in variables.items()})


def part_of_arrays(arrays: Mapping[str, Array]) -> Part:
    """A part of arrays, some of types that numpy lacks."""
    kinds = {name: str(a.dtype) for name, a in arrays.items() if str(a.dtype) in _AS_INTEGERS}
    kept = {
        name: array.view(_AS_INTEGERS[kinds[name]]) if name in kinds else array
        for name, array in arrays.items()
    }
    return Part(kept, {"kinds": kinds} if kinds else {})


def arrayed(variable: Any) -> Array:
    """A copy of what a variable holds."""
    return np.array(back_end().array_of(variable.value), copy=True, order="C")


def assign(variables: Mapping[str, Any], part: Part, what: str) -> None:
    """The inverse of `part_of`, on variables of the same names, shapes and types.

    Raises:
        InputError: they are others; the message names what differs. Nothing is assigned.
    """
    kinds = part.meta.get("kinds", {}) if isinstance(part.meta, dict) else {}
    check_same(what, part, variables)
    for name, array in part.arrays.items():
        if name in kinds:
            array = array.view(np.dtype(kinds[name]))
        variables[name].assign(np.array(array, copy=True, order="C"))


def check_same(what: str, part: Part, variables: Mapping[str, Any]) -> None:
    """Raises `InputError` where the part is not of such variables, naming what differs."""
    kinds = part.meta.get("kinds", {}) if isinstance(part.meta, dict) else {}
    found = {name: _form(a.shape, kinds.get(name, a.dtype)) for name, a in part.arrays.items()}
    wanted = {name: _form(v.shape, v.dtype) for name, v in variables.items()}
    differ = [f"{name} is missing" for name in wanted if name not in found]
    differ += [f"{name} is not in it" for name in found if name not in wanted]
    differ += [
        f"{name} has {found[name]}, not {form}"
        for name, form in wanted.items()
        if name in found and found[name] != form
    ]
    if differ:
        more = f" and {len(differ) - 8} more" if len(differ) > 8 else ""
        raise InputError(f"the state is of another {what}: {'; '.join(differ[:8])}{more}")


def _form(shape: Any, kind: Any) -> str:
    return f"{tuple(shape)} {kind}"


def _add(found: dict[str, Any], name: str, variable: Any) -> None:
    """Put a variable under its name, numbered where another one has it."""
    free, number = name, 1
    while free in found:
        number += 1
        free = f"{name}#{number}"
    found[free] = variable


def _snake(name: str) -> str:
    """The name that Keras gives to a layer of this class."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
