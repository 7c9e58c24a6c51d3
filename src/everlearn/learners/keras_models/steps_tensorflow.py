"""How a Keras model takes a step on TensorFlow. `steps_torch.py` has the same functions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from everlearn.base import Array

OUT_OF_MEMORY = (tf.errors.ResourceExhaustedError, MemoryError)

drawing_alone = threading.RLock()
"""Python's generator, from which Keras takes seeds, is the process's."""


class Compiled:
    """A function of arrays, as one graph for each combination of their types, whatever the number
    of rows: equal rows give equal bits, whichever came before.

    Args:
        function: takes tensors, or None where None was given.
        eager: run it as it stands, for a model that was compiled with ``run_eagerly=True``.
    """

    def __init__(self, function: Callable[..., Any], *, learns: bool, eager: bool = False) -> None:
        self._function, self._eager = function, eager
        self._graphs: dict[Any, Any] = {}

    def __call__(self, *arrays: Array | None) -> Any:
        given = [tf.convert_to_tensor(array) for array in arrays if array is not None]
        kinds = tuple(None if a is None else (a.dtype.str, a.shape[1:]) for a in arrays)
        if self._eager:
            return self._traced(kinds)(*given)
        graph = self._graphs.get(kinds)
        if graph is None:
            specs = [tf.TensorSpec([None, *k[1]], np.dtype(k[0])) for k in kinds if k is not None]
            graph = tf.function(self._traced(kinds), input_signature=specs, autograph=False)
            self._graphs[kinds] = graph
        return graph(*given)

    def _traced(self, kinds: Sequence[Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            left = iter(given)
            return self._function(*[None if kind is None else next(left) for kind in kinds])

        return run


def gradients(value: Callable[[], tuple[Any, Any]], weights: list[Any]) -> tuple[list[Any], Any]:
    """(gradient of a number for each weight, None where it does not depend on it; what else was
    computed with it)."""
    with tf.GradientTape() as tape:
        number, more = value()
    return tape.gradient(number, weights), more


def when(condition: Any, action: Callable[[], None]) -> None:
    """Do something that changes variables, if it is so."""

    def act() -> Any:
        action()
        return tf.constant(True)

    tf.cond(condition, act, lambda: tf.constant(False))


def without_replicas(optimizer: Any) -> None:
    """Let an optimizer not add up gradients over replicas where there are none: TensorFlow keeps
    the function that does so for ever, and with it the graph of every learner there has been."""
    if not tf.distribute.has_strategy():
        optimizer._all_reduce_sum_gradients = list


def array_of(tensor: Any) -> Array:
    """What a tensor or variable holds."""
    return np.asarray(tensor.numpy())


def taken(variables: list[Any]) -> list[Any]:
    """What the variables hold now."""
    return [tf.identity(variable.value) for variable in variables]


def sums_over_rows(
    model: Any, weights: list[Any], of_row: Callable[[Any, Any], Any], power: int
) -> Compiled:
    """A function of (n, width) rows and (n,) targets: the sum, over rows, of |gradient| (`power` 1)
    or of its square (2) for each weight, of what `of_row` makes of (1, k) answers and a target; the
    model answers as it does when it predicts."""

    def one(given: tuple[Any, Any]) -> list[Any]:
        with tf.GradientTape() as tape:
            number = of_row(model(given[0][None], training=False), given[1])
        found = tape.gradient(number, weights, unconnected_gradients="zero")
        return [tf.abs(g) if power == 1 else tf.square(g) for g in found]

    def all_rows(x: Any, y: Any) -> list[Any]:
        each = tf.vectorized_map(one, (x, y), fallback_to_while_loop=True)
        return [tf.reduce_sum(g, axis=0) for g in each]

    return Compiled(all_rows, learns=False)


def random_state() -> dict[str, Array]:
    """The process's generators from which layers draw: none, as layers have their own."""
    return {}


def set_random_state(state: dict[str, Array]) -> None:
    """The inverse of `random_state`."""


def seed(number: int) -> None:
    """Begin the process's generators anew."""


@contextmanager
def own_random(state: dict[str, Array]) -> Iterator[dict[str, Array]]:
    """Draw from generators of one's own; nothing is to be done for it."""
    yield state
