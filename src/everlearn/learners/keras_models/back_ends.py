"""What Keras runs on: TensorFlow or PyTorch, chosen when it is first imported."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import keras

from everlearn.base import SpecError


def back_end() -> ModuleType:
    """The file that says how a step is taken on what Keras runs on; both have the same functions.

    Raises:
        SpecError: Keras runs on something else.
    """
    name = keras.backend.backend()
    if name not in ("tensorflow", "torch"):
        raise SpecError(
            f"Keras runs on {name!r} here; KerasLearner needs KERAS_BACKEND=tensorflow or torch"
        )
    return import_module(f"everlearn.learners.keras_models.steps_{name}")


@contextmanager
def without_numpy_warnings() -> Iterator[None]:
    """Where Keras writes and reads configurations and files, it makes arrays of tensors as numpy 1
    did, which numpy 2 warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
