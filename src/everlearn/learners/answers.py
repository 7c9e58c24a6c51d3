"""From an estimator and a matrix to a `Prediction`, by the shortest way that gives its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.linear_model._stochastic_gradient import BaseSGDClassifier, BaseSGDRegressor

from everlearn.base import Array, Floats, LearnerKind, Prediction

Answer = Callable[[Any, Any, int], Prediction]
"""(fitted estimator, (n, p) matrix, number of classes) → prediction."""


def answer_for(estimator: Any, kind: LearnerKind) -> Answer:
    """How this estimator's predictions are made."""
    if kind == "classifier":
        if _predicts_as(estimator, BaseSGDClassifier, SGDClassifier):
            return linear_classes
        return classes_of
    if kind == "transformer":
        return reconstruction_error
    if _predicts_as(estimator, BaseSGDRegressor, SGDRegressor):
        return linear_values
    return values_of


def prior(rows: int, kind: LearnerKind, classes: int, has_proba: bool) -> Prediction:
    """What is answered before anything was learned: uniform, or 0. `nothing_kept` for rows of a
    transformer."""
    if kind in ("regressor", "transformer"):
        return Prediction(value=np.zeros(rows))
    proba = np.full((rows, classes), 1.0 / classes) if has_proba and classes else None
    return Prediction(value=np.zeros(rows, np.int64), proba=proba)


def nothing_kept(matrix: Any) -> Prediction:
    """The reconstruction error before anything was learned, when each row is taken for 0: its
    squared length."""
    squares = matrix.multiply(matrix) if hasattr(matrix, "multiply") else matrix * matrix
    return Prediction(value=np.asarray(squares.sum(axis=1), np.float64).ravel())


def linear_classes(estimator: Any, matrix: Any, classes: int) -> Prediction:
    """One linear score per class, or one for code 1 of two; logistic ones become probabilities.

    Equal to scikit-learn's `predict` and `predict_proba`, without their checks.
    """
    scores = matrix @ estimator.coef_.T
    scores += estimator.intercept_
    if estimator.loss == "modified_huber":
        proba = np.asarray(estimator.predict_proba(matrix), np.float64)
        return of_scores(estimator, scores, classes, proba)
    return of_scores(estimator, scores, classes)


def of_scores(
    estimator: Any, scores: Floats, classes: int, proba: Floats | None = None
) -> Prediction:
    """What an SGD classifier says by (n, k) scores, one for code 1 of two.

    Args:
        proba: (n, k) probabilities, where the scores alone do not say them.
    """
    if proba is None and estimator.loss == "log_loss":
        proba = _linear_proba(scores)
    if scores.shape[1] > 1:
        return Prediction(value=scores.argmax(axis=1), proba=proba)
    margin = scores[:, 0]
    value = (margin > 0).astype(np.int64)
    return _narrow(Prediction(value=value, proba=proba, margin=margin), classes)


def linear_values(estimator: Any, matrix: Any, classes: int) -> Prediction:
    """A linear function of each row."""
    return Prediction(value=matrix @ estimator.coef_ + estimator.intercept_)


def values_of(estimator: Any, matrix: Any, classes: int) -> Prediction:
    """What `predict` says: values of a regressor, cluster numbers of a clusterer."""
    value = np.asarray(estimator.predict(matrix)).reshape(len(estimator_rows(matrix)))
    integer = value.dtype.kind in "iu"
    return Prediction(value=value.astype(np.int64 if integer else np.float64, copy=False))


def classes_of(estimator: Any, matrix: Any, classes: int) -> Prediction:
    """The most probable class where there are probabilities, else what `predict` says."""
    if hasattr(estimator, "predict_proba"):
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            proba = np.asarray(estimator.predict_proba(matrix), np.float64)
        value = proba.argmax(axis=1)
        return _narrow(Prediction(value=value, proba=proba), classes)
    value = np.asarray(estimator.predict(matrix)).astype(np.int64)
    margin = None
    if classes == 2 and hasattr(estimator, "decision_function"):
        scores = np.asarray(estimator.decision_function(matrix))
        margin = scores.astype(np.float64) if scores.ndim == 1 else None
    return _narrow(Prediction(value=value, margin=margin), classes)


def reconstruction_error(estimator: Any, matrix: Any, classes: int) -> Prediction:
    """Squared distance of each row from what is left of it after `transform` and back; the length
    of the transformed row where there is no way back."""
    components = np.asarray(estimator.transform(matrix))
    if not hasattr(estimator, "inverse_transform"):
        return Prediction(value=np.sqrt((components**2).sum(axis=1)))
    dense = matrix.toarray() if hasattr(matrix, "toarray") else matrix
    apart = dense - estimator.inverse_transform(components)
    return Prediction(value=np.einsum("ij,ij->i", apart, apart))


def estimator_rows(matrix: Any) -> range:
    """The rows of a dense or sparse matrix."""
    return range(matrix.shape[0])


def _predicts_as(estimator: Any, base: Any, model: Any) -> bool:
    """Whether it is a linear model of which no subclass has its own `predict`."""
    return isinstance(estimator, base) and type(estimator).predict is model.predict


def _linear_proba(scores: Floats) -> Floats:
    """(n, k) probabilities for (n, k) logistic scores, or (n, 2) for (n, 1)."""
    if scores.shape[1] > 1:
        return _normalised(expit(scores))
    proba = np.empty((len(scores), 2))
    expit(scores[:, 0], out=proba[:, 1])
    np.subtract(1.0, proba[:, 1], out=proba[:, 0])
    return proba


def _normalised(proba: Floats) -> Floats:
    """One-against-all probabilities scaled to sum 1; uniform where all are 0."""
    total = proba.sum(axis=1, keepdims=True)
    empty = total[:, 0] == 0.0
    if empty.any():
        proba[empty] = 1.0
        total[empty] = proba.shape[1]
    proba /= total
    return proba


def _narrow(prediction: Prediction, classes: int) -> Prediction:
    """An estimator has two classes at least; while one is known, the other is nothing."""
    if classes >= 2 or len(prediction) == 0:
        return prediction
    rows = len(prediction)
    proba: Array | None = None if prediction.proba is None else np.ones((rows, 1))
    return Prediction(value=np.zeros(rows, np.int64), proba=proba)
