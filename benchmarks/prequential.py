"""Test-then-train, measured and scored the same way for all sides of benchmarks/online.py.

Needs numpy only, so that the peers' own environments can use it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ENOUGH = 0.3
"""Seconds: what takes less is repeated from the beginning until it took so long in all."""


def timed(run: Callable[[], Any], enough: float = ENOUGH) -> tuple[list[float], Any]:
    """Seconds of each pass, as many as are enough, and what the last one returned."""
    seconds: list[float] = []
    while not seconds or sum(seconds) < enough:
        begin = time.perf_counter()
        returned = run()
        seconds.append(time.perf_counter() - begin)
    return seconds, returned


def result(seconds: list[float], y: np.ndarray, *predicted: Any) -> dict[str, Any]:
    """What a side says: rows a second of its middle pass, and the mean scores of its runs.

    Args:
        seconds: of each pass.
        y: (n,) codes of classes.
        predicted: (n,) codes that were predicted, for each run.
    """
    middle = statistics.median(seconds)
    each = [scores(y, np.asarray(codes)) for codes in predicted]
    means = {name: statistics.fmean(score[name] for score in each) for name in each[0]}
    found = {"rows": len(y), "passes": len(seconds), "seconds": middle, "rate": len(y) / middle}
    return found | means


def scores(y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy, and how much of what chance, or no change, leaves wrong is right.

    Kappa compares with a classifier that predicts classes as often as this one did, at random;
    Kappa-Temporal with one that predicts the label before (Bifet et al. 2015, "Efficient online
    evaluation of big data stream classifiers", section 4).

    Args:
        y, predicted: (n,) codes of classes.
    """
    right = float(np.mean(y == predicted))
    codes = np.unique(y).tolist()
    chance = sum(float(np.mean(y == code)) * float(np.mean(predicted == code)) for code in codes)
    last = float(np.mean(no_change(y) == y))
    return {
        "accuracy": right,
        "kappa": (right - chance) / (1.0 - chance),
        "kappa_temporal": (right - last) / (1.0 - last),
    }


def no_change(y: np.ndarray) -> np.ndarray:
    """The label before; class 0 for the first row."""
    return np.concatenate([[0], y[:-1]])


def majority(y: np.ndarray) -> np.ndarray:
    """The more frequent of two classes among the labels before; class 0 among equals."""
    ones = np.concatenate([[0], np.cumsum(y)[:-1]])
    return (2 * ones > np.arange(len(y))).astype(np.int64)
