"""How a Keras model takes a step on PyTorch. `steps_tensorflow.py` has the same functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import torch
from torch.func import grad, vmap

from everlearn.base import Array
from everlearn.learners.neural.random import in_use as drawing_alone

__all__ = ["drawing_alone"]

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)


class Compiled:
    """A function of arrays that takes tensors, or None where None was given. It is run as it
    stands.

    Args:
        learns: whether it takes gradients.
    """

    def __init__(self, function: Callable[..., Any], *, learns: bool, eager: bool = False) -> None:
        self._function, self._learns = function, learns

    def __call__(self, *arrays: Array | None) -> Any:
        given = [None if a is None else keras.ops.convert_to_tensor(a) for a in arrays]
        with torch.set_grad_enabled(self._learns):
            return self._function(*given)


def gradients(value: Callable[[], tuple[Any, Any]], weights: list[Any]) -> tuple[list[Any], Any]:
    """(gradient of a number for each weight, None where it does not depend on it; what else was
    computed with it)."""
    with torch.enable_grad():
        number, more = value()
        found = torch.autograd.grad(number, [w.value for w in weights], allow_unused=True)
    return list(found), more


def when(condition: Any, action: Callable[[], None]) -> None:
    """Do something that changes variables, if it is so."""
    if bool(condition):
        with torch.no_grad():
            action()


def without_replicas(optimizer: Any) -> None:
    """Nothing is to be done on PyTorch."""


def array_of(tensor: Any) -> Array:
    """What a tensor or variable holds."""
    plain = tensor.detach().cpu()
    if plain.dtype == torch.bfloat16:  # which numpy knows by ml_dtypes alone, as Keras does
        return plain.float().numpy().astype(np.dtype("bfloat16"))  # type: ignore[no-any-return]
    return np.asarray(plain.numpy())


def taken(variables: list[Any]) -> list[Any]:
    """What the variables hold now."""
    return [variable.value.detach().clone() for variable in variables]


def sums_over_rows(
    model: Any, weights: list[Any], of_row: Callable[[Any, Any], Any], power: int
) -> Callable[[Array, Array], list[Any]]:
    """A function of (n, width) rows and (n,) targets: the sum, over rows, of |gradient| (`power` 1)
    or of its square (2) for each weight, of what `of_row` makes of (1, k) answers and a target; the
    model answers as it does when it predicts."""
    others = [v.value.detach() for v in model.non_trainable_variables]

    def number(at: list[Any], row: Any, target: Any) -> Any:
        answer, _ = model.stateless_call(at, others, row[None], training=False)
        return of_row(answer, target)

    one = grad(number)

    def all_rows(x: Array, y: Array) -> list[Any]:
        rows, targets = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)
        at = [w.value.detach() for w in weights]
        try:
            each = vmap(one, in_dims=(None, 0, 0))(at, rows, targets)
        except RuntimeError:  # the model does something that cannot be done to many rows at once
            single = [one(at, row, target) for row, target in zip(rows, targets, strict=True)]
            each = [torch.stack(found) for found in zip(*single, strict=True)]
        return [(g.abs() if power == 1 else g.square()).sum(0) for g in each]

    return all_rows


def random_state() -> dict[str, Array]:
    """The process's generators, from which layers draw that were given no seed."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: state.numpy().copy() for name, state in states.items()}


def set_random_state(state: dict[str, Array]) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(torch.from_numpy(np.array(state["cpu"])))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.from_numpy(np.array(state["cuda"])))


def seed(number: int) -> None:
    """Begin the process's generators anew."""
    torch.manual_seed(number)


@contextmanager
def own_random(state: dict[str, Array]) -> Iterator[dict[str, Array]]:
    """Draw from generators of one's own, and leave the process's as they were. What is yielded
    holds, afterwards, where they got to."""
    with drawing_alone:
        before = random_state()
        set_random_state(state)
        after = dict(state)
        try:
            yield after
        finally:
            after.update(random_state())
            set_random_state(before)
