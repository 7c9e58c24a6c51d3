"""The loss of every row: what memories rank by, gates compare and intervals are made from.

All losses are lower-is-better, so that one comparison serves every metric.
"""

from __future__ import annotations

import numpy as np

from everlearn.base import Array, Floats, InputError, Prediction, SpecError

EPSILON = float(np.finfo(np.float64).eps)
"""Probabilities below this count as this, as in scikit-learn's ``log_loss``."""

CLASSIFIER_METRICS = ("log_loss", "accuracy", "brier", "roc_auc")
REGRESSOR_METRICS = ("mae", "rmse", "mse")
GREATER_IS_BETTER = frozenset({"accuracy", "roc_auc"})


def losses(kind: str, y: Array, prediction: Prediction) -> Floats:
    """The natural loss of each row for a kind of learner.

    Args:
        kind: "classifier", "regressor", "clusterer" or "transformer".
        y: (n,) class codes (−1: a class the learner does not know) or values; unused for learners
            without a target.
        prediction: of the same n rows.

    Returns:
        (n,) log loss in nats where there are probabilities, 0/1 error where there are none, squared
        error of a regressor, reconstruction error of a transformer, 0 for a clusterer.
    """
    if kind == "classifier":
        if prediction.proba is None:
            return zero_one(y, prediction)
        return log_loss(y, prediction)
    if kind == "regressor":
        return squared(y, prediction)
    if kind == "transformer":
        return prediction.value.astype(np.float64, copy=False)
    return np.zeros(len(prediction))


def metric_losses(metric: str, y: Array, prediction: Prediction, *, classes: int = 2) -> Floats:
    """The loss of each row under a named metric: 1 − accuracy, 1 − AUC, or the metric itself.

    Args:
        metric: one of `CLASSIFIER_METRICS` or `REGRESSOR_METRICS`. The loss of "rmse" and "mse" is
            the squared error; that of "roc_auc" is the influence of each row on 1 − AUC.
        y: (n,) class codes or values.
        prediction: of the same n rows.
        classes: number of classes, by which the Brier score is scaled as scikit-learn does.

    Raises:
        SpecError: there is no per-row form of this metric.
        InputError: the metric needs probabilities, and the learner gives none.
    """
    if metric in ("log_loss", "brier", "roc_auc") and prediction.proba is None:
        raise InputError(
            f"{metric!r} needs probabilities, and this learner gives none; use 'accuracy'"
        )
    if metric == "log_loss":
        return log_loss(y, prediction)
    if metric == "accuracy":
        return zero_one(y, prediction)
    if metric == "brier":
        return brier(y, prediction, classes=classes)
    if metric == "roc_auc":
        return auc_influence(y, prediction)
    if metric == "mae":
        return absolute(y, prediction)
    if metric in ("rmse", "mse"):
        return squared(y, prediction)
    raise SpecError(
        f"{metric!r} has no loss per row; for a classifier use one of "
        f"{', '.join(CLASSIFIER_METRICS)}, for a regressor one of {', '.join(REGRESSOR_METRICS)}"
    )


def true_probability(y: Array, proba: Floats) -> Floats:
    """(n,) probability given to the true class; 0 for a class the learner does not know.

    Args:
        y: (n,) class codes, −1 for unknown.
        proba: (n, k) class probabilities.
    """
    rows, classes = proba.shape
    codes = y.astype(np.intp, copy=False)
    known = (codes >= 0) & (codes < classes)
    if known.all():
        flat: Floats = proba.ravel().take(np.arange(0, rows * classes, classes) + codes)
        return flat
    found = np.zeros(rows)
    found[known] = proba[known, codes[known]]
    return found


def log_loss(y: Array, prediction: Prediction) -> Floats:
    """(n,) −ln of the probability of the true class, which is clipped at `EPSILON`."""
    if prediction.proba is None:
        raise InputError("log loss needs probabilities, and this learner gives none")
    chance = true_probability(y, prediction.proba)
    nats: Floats = -np.log(np.maximum(chance, EPSILON))
    return nats


def zero_one(y: Array, prediction: Prediction) -> Floats:
    """(n,) 1 where the predicted class is not the true one, else 0."""
    wrong: Floats = np.not_equal(prediction.value, y).astype(np.float64)
    return wrong


def brier(y: Array, prediction: Prediction, *, classes: int = 2) -> Floats:
    """(n,) Brier score (1950): Σ_c (p_c − o_c)², halved for two classes as scikit-learn does."""
    if prediction.proba is None:
        raise InputError("the Brier score needs probabilities, and this learner gives none")
    proba = prediction.proba
    full = np.einsum("ij,ij->i", proba, proba) - 2.0 * true_probability(y, proba) + 1.0
    scale = 0.5 if max(classes, proba.shape[1]) <= 2 else 1.0
    score: Floats = full * scale
    return score


def absolute(y: Array, prediction: Prediction) -> Floats:
    """(n,) absolute error."""
    with np.errstate(over="ignore", invalid="ignore"):
        error: Floats = np.abs(prediction.value - y)
    return error


def squared(y: Array, prediction: Prediction) -> Floats:
    """(n,) squared error; infinite where it overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        error: Floats = prediction.value - y
        square: Floats = error * error
    return square


def midranks(scores: Floats) -> Floats:
    """(n,) ranks from 1, ties sharing their mean rank."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    counts = np.diff(np.append(first, len(scores)))
    ranks = np.empty(len(scores))
    ranks[order] = np.repeat(first + (counts + 1) / 2.0, counts)
    return ranks


def auc_influence(y: Array, prediction: Prediction) -> Floats:
    """(n,) values whose mean is 1 − ROC AUC and whose variance is DeLong's.

    With V the share of the other class that a row is ranked right against (DeLong et al. 1988,
    eq. 4), a positive row's value is 1 − A − (V − A)·n/P, a negative one's 1 − A − (V − A)·n/N.

    Raises:
        InputError: there are not exactly two classes among the probabilities, or only one class
            among the rows.
    """
    proba = prediction.proba
    if proba is None or proba.shape[1] != 2:
        raise InputError("'roc_auc' can judge only two classes; use 'log_loss' for more")
    positive = y == 1
    n, p = len(y), int(np.count_nonzero(positive))
    if p == 0 or p == n:
        raise InputError("'roc_auc' needs rows of both classes, and these are all of one")
    scores = proba[:, 1]
    ranks = midranks(scores)
    share = np.empty(n)
    share[positive] = (ranks[positive] - midranks(scores[positive])) / (n - p)
    share[~positive] = 1.0 - (ranks[~positive] - midranks(scores[~positive])) / p
    area = share[positive].mean()
    scale = np.where(positive, n / p, n / (n - p))
    influence: Floats = 1.0 - area - (share - area) * scale
    return influence
