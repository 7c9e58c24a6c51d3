"""How wrong an answer was that was given, by a metric."""

from __future__ import annotations

import math

from everlearn.base import Json
from everlearn.data.answers import as_answered, class_name
from everlearn.evaluation.loss import CLASSIFIER_METRICS, EPSILON, REGRESSOR_METRICS

METRICS = tuple(name for name in (*CLASSIFIER_METRICS, *REGRESSOR_METRICS) if name != "roc_auc")
"""Metrics that are means over rows; "rmse" is judged by squared errors."""

ZERO_ONE = "accuracy"
"""The metric whose losses are 0 or 1."""


def metric_for(output: Json, value: Json) -> str:
    """The natural metric where none is named: log loss where there are probabilities, squared error
    of numbers with a fraction, accuracy elsewhere."""
    if output["probabilities"] is not None:
        return "log_loss"
    return "mse" if isinstance(output["value"], float) or isinstance(value, float) else ZERO_ONE


def loss_of(metric: str, output: Json, value: Json) -> float | None:
    """The loss of an answer, lower is better; None where there was no answer, or where it does not
    go with the metric.

    Args:
        metric: one of `METRICS`.
        output: as it was logged: the value, and the probability of each class or None.
        value: the label.
    """
    said, chances = output["value"], output["probabilities"]
    if said is None:
        return None
    value = as_answered(value, said)
    if metric == ZERO_ONE:
        return float(class_name(said) != class_name(value))
    if metric in ("log_loss", "brier"):
        if chances is None:
            return None
        chance = float(chances.get(class_name(value), 0.0))
        if metric == "log_loss":
            return -math.log(max(chance, EPSILON))
        others = sum(float(p) ** 2 for name, p in chances.items() if name != class_name(value))
        return (others + (1.0 - chance) ** 2) / (2.0 if len(chances) == 2 else 1.0)
    if isinstance(said, str) or isinstance(value, str):
        return None
    apart = abs(float(said) - float(value))
    return apart if metric == "mae" else apart * apart
