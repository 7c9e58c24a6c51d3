"""What a compiled loss of Keras says: what is predicted, and how answers and targets look."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from everlearn.base import Array, Floats, LearnerKind, Prediction, SpecError

TWO = ("binary_crossentropy", "binary_focal_crossentropy")
ONE_HOT = ("categorical_crossentropy", "categorical_focal_crossentropy")
CODES = ("sparse_categorical_crossentropy",)
QUANTITIES = (
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "huber",
    "log_cosh",
    "poisson",
)
SMALLEST = 1e-7
"""Probabilities are taken for at least this where their logarithm is needed."""


def name_of(loss: Any) -> str:
    """The name of a loss as Keras's function has it; "" for one that is no loss of Keras."""
    try:
        found = keras.losses.get(loss)
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"the model is compiled with the loss {loss!r}; KerasLearner takes a model of one"
            " output, with one loss"
        ) from error
    function = getattr(found, "fn", found)
    name = getattr(function, "__name__", "")
    return name if name in TWO + ONE_HOT + CODES + QUANTITIES else ""


def kind_of(loss: Any) -> LearnerKind | None:
    """What a model with this loss predicts; None for a loss that is no loss of Keras."""
    name = name_of(loss)
    if not name:
        return None
    return "regressor" if name in QUANTITIES else "classifier"


class Form:
    """How a model's answers and targets are written.

    Args:
        model: built and compiled.
        kind: of the learner.
        shape: of its answer to one row.

    Attributes:
        outputs: how many numbers it answers a row.
        one_score: whether a classifier answers one number, for the upper of two classes.

    Raises:
        SpecError: the answer's shape does not go with the loss.
    """

    def __init__(self, model: Any, kind: LearnerKind, shape: tuple[int, ...]) -> None:
        name = name_of(model.loss)
        self.kind = kind
        if len(shape) not in (1, 2) or shape[0] != 1:
            raise SpecError(f"the model answers {shape} to one row, where (1, outputs) is wanted")
        self.outputs = 1 if len(shape) == 1 else shape[1]
        self._flat = len(shape) == 1
        self.one_score = kind == "classifier" and (name in TWO or (not name and self.outputs == 1))
        if (kind == "regressor" or self.one_score) and self.outputs != 1:
            raise SpecError(f"the model answers {shape} to one row, where (1, 1) is wanted")
        if kind == "classifier" and not self.one_score and self.outputs == 1:
            raise SpecError(
                f"the model answers {shape} to one row, where {name} wants (1, classes); for two"
                " classes by one number, compile it with binary_crossentropy"
            )
        self._one_hot = name in ONE_HOT
        self._own = not name
        self._logits = kind == "classifier" and _is_of_logits(model, bool(name))

    def target(self, y: Array) -> Array:
        """(n,) class codes or quantities as the loss takes them, of its own memory."""
        if self.kind == "classifier" and not self.one_score:
            if self._one_hot:
                return np.eye(self.outputs, dtype=np.float32)[y.astype(np.int64)]
            return y.astype(np.int32)
        with np.errstate(over="ignore"):  # what is infinite then makes the loss so
            numbers = y.astype(np.float32)
        return numbers if self._flat else numbers[:, None]

    def prediction(self, output: Array, classes: int) -> Prediction:
        """What (n, k) answers of the model say, of `classes` known classes."""
        found = output.astype(np.float64)
        if self.kind == "regressor":
            return Prediction(value=found.reshape(-1))
        if classes == 1:
            proba = np.ones((len(found), 1))
        else:
            proba = self.proba(found)[:, :classes]
            proba = _normalised(proba)
        return Prediction(value=proba.argmax(axis=1), proba=proba)

    def proba(self, output: Floats) -> Floats:
        """(n, k) probabilities; (n, 2) of one score."""
        if self.one_score:
            score = output.reshape(-1)
            upper = 0.5 * (1.0 + np.tanh(0.5 * score)) if self._logits else score.clip(0.0, 1.0)
            return np.column_stack([1.0 - upper, upper])
        if not self._logits:
            return _normalised(output.clip(0.0))
        powers = np.exp(output - output.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def scores(self, output: Any) -> Any:
        """(n, k) answers of a classifier, a tensor, as scores: their softmax, or sigmoid of one
        score, are the probabilities."""
        output = at_full(output)
        if self._logits:
            return output
        chance = ops.clip(output, SMALLEST, 1.0 - SMALLEST)
        log = ops.log(chance)
        return log - ops.log1p(-chance) if self.one_score else log

    def surprise(self, output: Any, code: Any) -> Any:
        """−log of the probability that (1, k) answers give to a class, by its code."""
        scores = self.scores(output)
        if self.one_score:
            sign = 1.0 - 2.0 * ops.cast(code, scores.dtype)
            return ops.sum(ops.softplus(sign * scores))
        chosen = ops.one_hot(code, self.outputs, dtype=scores.dtype)
        return -ops.sum(chosen * ops.log_softmax(scores, axis=-1)[0])


def mean_loss(loss: Any, y: Any, output: Any) -> Any:
    """The mean of a compiled loss alone, without what layers add to it."""
    found = keras.losses.get(loss)
    if isinstance(found, keras.losses.Loss):
        return found(y, output)
    return _Mean(found)(y, output)


def reduction_of(loss: Any) -> str:
    """How a compiled loss makes one number of those of all rows, as Keras calls it."""
    return str(getattr(keras.losses.get(loss), "reduction", "sum_over_batch_size"))


def at_full(tensor: Any) -> Any:
    """In float32, where it is of fewer bits, as answers are in mixed precision."""
    kind = keras.backend.standardize_dtype(tensor.dtype)
    return ops.cast(tensor, "float32") if kind in ("float16", "bfloat16") else tensor


class _Mean(keras.losses.Loss):  # type: ignore[misc]
    """A function of targets and answers as a loss of Keras."""

    def __init__(self, function: Any) -> None:
        super().__init__(name="mean")  # by its class, "_mean", which TensorFlow takes for no name
        self._function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._function(y_true, y_pred)


def _is_of_logits(model: Any, is_known: bool) -> bool:
    """Whether answers are scores of any size: as the loss says, or the last activation."""
    found = keras.losses.get(model.loss)
    if is_known:
        config = found.get_config() if isinstance(found, keras.losses.Loss) else {}
        return bool(config.get("from_logits", False))
    layers = getattr(model, "layers", None)
    activation = getattr(layers[-1], "activation", None) if layers else None
    return activation not in (keras.activations.softmax, keras.activations.sigmoid) and not (
        layers and isinstance(layers[-1], keras.layers.Softmax)
    )


def _normalised(proba: Floats) -> Floats:
    """Scaled to sum 1; uniform where all are 0."""
    total = proba.sum(axis=1, keepdims=True)
    empty = total[:, 0] <= 0.0
    if empty.any():
        proba = np.where(empty[:, None], 1.0, proba)
        total = proba.sum(axis=1, keepdims=True)
    return np.asarray(proba / total)
