"""Answers that look at no feature: what every learner has to beat, and the safest of experts."""

from __future__ import annotations

from typing import Any

import numpy as np

from everlearn.base import Floats, Ints, Part, State
from everlearn.learners.native.classifier import Classifier
from everlearn.learners.native.compile import exact_kernel, kernel
from everlearn.learners.native.loading import all_like, like
from everlearn.learners.native.regressor import Regressor
from everlearn.learners.native.rows import Rows, Shape

FAR = 1e300
"""Targets further from 0 count as this, so that no difference overflows."""


class Majority(Classifier):
    """The most frequent class so far; among equals, the first of `classes_`.

    The probability of a class that n_c of n rows had is (n_c + 1) / (n + k), for k classes.

    Args:
        classes: how many there are, or which; None where they are not known beforehand.

    Example:
        >>> learner = Majority()
        >>> learner.score_then_learn(np.zeros((4, 1)), ["late", "early", "early", "late"]).tolist()
        ['late', 'late', 'early', 'early']
        >>> learner.predict_proba(np.zeros((1, 1))).tolist()
        [[0.5, 0.5]]

    Paper:
        Laplace 1814, "Essai philosophique sur les probabilités": the rule of succession.
    """

    takes_sparse = True

    def __init__(self, classes: Any = None) -> None:
        self.classes = classes

    def _begin(self, shape: Shape, seed: int) -> None:
        self._counts = np.zeros(shape.outputs)

    def _learn(self, rows: Rows, y: Ints, weight: Floats, out: Floats) -> None:
        _learn_majority(y, weight, self._counts, out)

    def _predict(self, rows: Rows, out: Floats) -> None:
        _spread(out, self._counts)

    def _grow(self, outputs: int) -> None:
        self._counts = np.append(self._counts, np.zeros(outputs - len(self._counts)))

    def _save(self) -> dict[str, Part]:
        return {"counts": Part({"counts": self._counts.copy()})}

    def _load(self, state: State) -> None:
        self._counts = like(self._counts, state["counts"].arrays["counts"], "counts")


class NoChange(Classifier):
    """The class of the row that was learned last.

    Its probability is the share of rows, r of n, whose class was that of the row before:
    (r + 1) / (n + k) for k classes, but never less than that of another class; the others share
    what is left.

    Args:
        classes: how many there are, or which; None where they are not known beforehand.

    Example:
        >>> learner = NoChange(classes=["early", "late"])
        >>> learner.score_then_learn(np.zeros((4, 1)), ["late", "late", "early", "late"]).tolist()
        ['early', 'late', 'late', 'early']
        >>> learner.predict_proba(np.zeros((1, 1))).round(3).tolist()
        [[0.5, 0.5]]

    Paper:
        Bifet et al. 2015, "Efficient online evaluation of big data stream classifiers", section
        4.3.
    """

    takes_sparse = True

    def __init__(self, classes: Any = None) -> None:
        self.classes = classes

    def _begin(self, shape: Shape, seed: int) -> None:
        self._last = np.full(1, -1, np.int64)
        self._counts = np.zeros(2)

    def _learn(self, rows: Rows, y: Ints, weight: Floats, out: Floats) -> None:
        _learn_no_change(y, weight, self._outputs(), self._last, self._counts, out)

    def _predict(self, rows: Rows, out: Floats) -> None:
        _repeat(out, self._outputs(), self._last, self._counts)

    def _grow(self, outputs: int) -> None:
        pass

    def _save(self) -> dict[str, Part]:
        return {"last": Part({"last": self._last.copy(), "counts": self._counts.copy()})}

    def _load(self, state: State) -> None:
        arrays = all_like({"last": self._last, "counts": self._counts}, state["last"].arrays)
        self._last, self._counts = arrays["last"], arrays["counts"]


class RunningMean(Regressor):
    """The mean of all targets so far; 0 before the first.

    Example:
        >>> RunningMean().score_then_learn(np.zeros((4, 1)), [2.0, 4.0, 9.0, 5.0]).tolist()
        [0.0, 2.0, 3.0, 5.0]

    Paper:
        Welford 1962, "Note on a method for calculating corrected sums of squares and products".
    """

    takes_sparse = True

    def __init__(self) -> None:
        """It has no parameters."""

    def _begin(self, shape: Shape, seed: int) -> None:
        self._mean = np.zeros(2)  # total weight, mean

    def _learn(self, rows: Rows, y: Floats, weight: Floats, out: Floats) -> None:
        _learn_mean(y, weight, self._mean, out)

    def _predict(self, rows: Rows, out: Floats) -> None:
        out[:, 0] = self._mean[1]

    def _save(self) -> dict[str, Part]:
        return {"mean": Part({"mean": self._mean.copy()})}

    def _load(self, state: State) -> None:
        self._mean = like(self._mean, state["mean"].arrays["mean"], "mean")


class LastValue(Regressor):
    """The target that was learned last (the naive forecast); 0 before the first.

    Example:
        >>> LastValue().score_then_learn(np.zeros((3, 1)), [2.0, 4.0, 9.0]).tolist()
        [0.0, 2.0, 4.0]

    Paper:
        Hyndman & Koehler 2006, "Another look at measures of forecast accuracy", section 2.
    """

    takes_sparse = True

    def __init__(self) -> None:
        """It has no parameters."""

    def _begin(self, shape: Shape, seed: int) -> None:
        self._last = np.zeros(1)

    def _learn(self, rows: Rows, y: Floats, weight: Floats, out: Floats) -> None:
        _learn_last(y, weight, self._last, out)

    def _predict(self, rows: Rows, out: Floats) -> None:
        out[:, 0] = self._last[0]

    def _save(self) -> dict[str, Part]:
        return {"last": Part({"last": self._last.copy()})}

    def _load(self, state: State) -> None:
        self._last = like(self._last, state["last"].arrays["last"], "last")


# --- kernels -----------------------------------------------------------------------------------


@kernel
def _learn_majority(y: Ints, weight: Floats, counts: Floats, out: Floats) -> None:
    for i in range(len(y)):
        if i < out.shape[0]:
            _spread(out[i : i + 1], counts)
        counts[y[i]] += weight[i] if len(weight) else 1.0


@kernel
def _spread(out: Floats, counts: Floats) -> None:
    """Fill (n, ≥ k) with the shares of (k,) counts."""
    total = float(len(counts))
    for code in range(len(counts)):
        total += counts[code]
    for i in range(out.shape[0]):
        for code in range(len(counts)):
            out[i, code] = (counts[code] + 1.0) / total


@kernel
def _learn_no_change(
    y: Ints, weight: Floats, outputs: int, last: Ints, counts: Floats, out: Floats
) -> None:
    """`last`: (1,) the class learned last, −1 for none; `counts`: (2,) rows, and those like the
    row before them."""
    for i in range(len(y)):
        if i < out.shape[0]:
            _repeat(out[i : i + 1], outputs, last, counts)
        w = weight[i] if len(weight) else 1.0
        if w == 0.0:
            continue
        if last[0] >= 0:
            counts[0] += w
            if y[i] == last[0]:
                counts[1] += w
        last[0] = y[i]


@kernel
def _repeat(out: Floats, outputs: int, last: Ints, counts: Floats) -> None:
    """Fill (n, ≥ k) with the probabilities of `NoChange`."""
    even = 1.0 / outputs
    same = max((counts[1] + 1.0) / (counts[0] + outputs), even * (1.0 + 1e-9))
    for i in range(out.shape[0]):
        for code in range(outputs):
            if last[0] < 0:
                out[i, code] = even
            elif code == last[0]:
                out[i, code] = same
            else:
                out[i, code] = (1.0 - same) / (outputs - 1)


@exact_kernel
def _learn_mean(y: Floats, weight: Floats, mean: Floats, out: Floats) -> None:
    """`mean`: (2,) total weight and mean. As written, where no product overflows: the row's share
    of the weight is at most 1."""
    for i in range(len(y)):
        if i < out.shape[0]:
            out[i, 0] = mean[1]
        w = weight[i] if len(weight) else 1.0
        if w == 0.0:
            continue
        mean[0] += w
        mean[1] += w / mean[0] * (min(max(y[i], -FAR), FAR) - mean[1])


@kernel
def _learn_last(y: Floats, weight: Floats, last: Floats, out: Floats) -> None:
    for i in range(len(y)):
        if i < out.shape[0]:
            out[i, 0] = last[0]
        if len(weight) == 0 or weight[i] > 0.0:
            last[0] = y[i]
