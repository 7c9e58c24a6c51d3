"""From what a definition gives to a compiled Keras model of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from everlearn.base import SpecError
from everlearn.learners.keras_models.back_ends import back_end, without_numpy_warnings


def make_model(given: Any, seed: int) -> Any:
    """A compiled model that nobody else has: a copy, what a function made, or what a file holds.

    Args:
        given: as `KerasLearner` takes it.
        seed: of the weights that are drawn here.

    Raises:
        SpecError: it cannot be made, or is not compiled.
    """
    with seeded(seed), without_numpy_warnings():
        if isinstance(given, str):
            model = _loaded(given)
        elif isinstance(given, keras.Model):
            model = _copied(given)
        else:
            model = given()
    if not isinstance(model, keras.Model):
        raise SpecError(f"{given!r} made {model!r}, which is no keras.Model")
    if not model.compiled or model.optimizer is None or model.loss is None:
        raise SpecError(
            f"the model {model.name!r} is not compiled with an optimizer and a loss; say"
            " model.compile(optimizer=…, loss=…)"
        )
    return model


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw what Keras draws from generators that the seed began, and leave the process's as they
    were. Keras takes the seeds of its initializers and layers from Python's own."""
    steps = back_end()
    with steps.drawing_alone:
        python, numpy, own = random.getstate(), np.random.get_state(), steps.random_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        steps.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            steps.set_random_state(own)


def _loaded(path: str) -> Any:
    try:
        return keras.saving.load_model(path, safe_mode=True)
    except Exception as error:
        raise SpecError(f"{path!r} cannot be loaded: {type(error).__name__}: {error}") from error


def _copied(model: Any) -> Any:
    """A model of the same configuration, weights, loss and optimizer."""
    try:
        made = type(model).from_config(model.get_config())
        if model.built and not made.built:
            made.build_from_config(model.get_build_config())
        optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    except Exception as error:
        why = str(error).partition("\n")[0]
        raise SpecError(
            f"the model {model.name!r} cannot be copied ({type(error).__name__}: {why}); give a"
            " function that makes it"
        ) from error
    made.compile(
        optimizer=optimizer,
        loss=model.loss,
        loss_weights=getattr(model._compile_loss, "_user_loss_weights", None),
        run_eagerly=model.run_eagerly,
        jit_compile=model.jit_compile,
    )
    if model.built:
        _copy_values(model.variables, made.variables, model.name)
        if model.optimizer.built and made.trainable_variables:
            optimizer.build(made.trainable_variables)
            _copy_values(model.optimizer.variables, optimizer.variables, "its optimizer")
    return made


def _copy_values(given: list[Any], made: list[Any], name: str) -> None:
    if [tuple(v.shape) for v in given] != [tuple(v.shape) for v in made]:
        raise SpecError(f"a copy of {name!r} has other weights; give a function that makes it")
    for variable, copy in zip(given, made, strict=True):
        copy.assign(variable.value)
