"""A Keras model as a patch sees it: what its last dense layer is given, and what that scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from everlearn.base import Array, Batch, Floats, Prediction

LINKS = (keras.activations.linear, keras.activations.softmax, keras.activations.sigmoid)
"""Activations of a last layer whose scores can be changed."""


def has_head(model: Any) -> bool:
    """Whether its answer is that of a dense layer that is known by its inputs."""
    layers = getattr(model, "layers", None)
    if not layers or not getattr(model, "inputs", None):
        return False
    last = layers[-1]
    if type(last) is not keras.layers.Dense or last.activation not in LINKS:
        return False
    return model.outputs[0] is last.output and len(last.output.shape) == 2


class EditableDense:
    """A model whose answer is that of a dense layer. Its features are that layer's inputs and 1;
    its scores are what the layer makes of them before its activation.

    Args:
        model: which `has_head`.
        matrix: what makes rows for it of a batch.
        array_of: what makes an array of a tensor.
        prediction: what makes a prediction of the model's answers and a number of classes.
        classes: says how many class codes are known.
    """

    def __init__(
        self,
        model: Any,
        matrix: Callable[[Batch], Array],
        array_of: Callable[[Any], Array],
        prediction: Callable[[Array, int], Prediction],
        classes: Callable[[], int],
    ) -> None:
        self._last = model.layers[-1]
        self._before = keras.Model(model.inputs, self._last.input)
        self._matrix, self._array_of = matrix, array_of
        self._prediction, self._classes = prediction, classes

    def activations(self, batch: Batch) -> tuple[Any, Floats]:
        """See `Editable`."""
        weights = [self._array_of(weight.value) for weight in self._last.weights]
        kernel = np.asarray(weights[0], np.float64)
        inputs = np.zeros((0, len(kernel)))
        if len(batch):
            found = self._before(ops.convert_to_tensor(self._matrix(batch)), training=False)
            inputs = np.asarray(self._array_of(found), np.float64)
        scores = inputs @ kernel + (weights[1] if self._last.use_bias else 0.0)
        if scores.shape[1] > 1:
            scores = scores[:, : self._classes()]
        return np.hstack([inputs, np.ones((len(inputs), 1))]), scores

    def answer(self, scores: Floats) -> Prediction:
        """See `Editable`."""
        answers = scores
        if self._last.activation is keras.activations.softmax:
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            answers = powers / powers.sum(axis=1, keepdims=True)
        elif self._last.activation is keras.activations.sigmoid:
            answers = 0.5 * (1.0 + np.tanh(0.5 * scores))
        return self._prediction(answers, self._classes())
