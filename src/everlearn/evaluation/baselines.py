"""What a prediction must beat: answers that need no model. Always reported beside the metrics.

- majority: the best constant answer in hindsight: the most frequent class, and, as probabilities,
  the shares of the classes among the very rows that are scored;
- no change (Bifet et al. 2015, section 4.3): the class of the row before;
- mean: the mean of the rows (in hindsight for RMSE; of the rows before each row for MAE);
- last value: the value of the row before.

A first row has no row before it, and is left out of the two that need one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from everlearn.base import Array, Floats, Ints


def majority(counts: Ints) -> dict[str, float | None]:
    """Scores of the best constant answer.

    Args:
        counts: (k,) rows of each class.

    Returns:
        accuracy: share of the most frequent class; log_loss: entropy of the shares in nats; brier:
        1 − Σ share², halved for up to two classes; roc_auc: ½, where there are two classes.
    """
    total = int(counts.sum())
    if total == 0:
        return {"accuracy": None, "log_loss": None, "brier": None, "roc_auc": None}
    share = counts[counts > 0] / total
    spread = float(1.0 - share @ share)
    return {
        "accuracy": float(share.max()),
        "log_loss": abs(float(-(share @ np.log(share)))),
        "brier": spread * 0.5 if len(counts) <= 2 else spread,
        "roc_auc": 0.5 if len(share) > 1 else None,
    }


@dataclass(slots=True)
class NoChange:
    """Counts the rows whose class is that of the row before. Order matters.

    Args:
        pairs: rows that have a row before them.
        same: those of the same class as the row before.
        first, last: the classes at both ends, None before any row.
    """

    pairs: int = 0
    same: int = 0
    first: int | None = None
    last: int | None = None

    def add(self, y: Array) -> None:
        """Add the codes (n,) of the next rows, in their order."""
        if not len(y):
            return
        self.same += int(np.count_nonzero(y[1:] == y[:-1]))
        self.pairs += len(y) - 1
        self._join(int(y[0]), int(y[-1]))

    def merge(self, later: NoChange) -> None:
        """Add rows that came after these."""
        if later.first is None or later.last is None:
            return
        self.same += later.same
        self.pairs += later.pairs
        self._join(later.first, later.last)

    def _join(self, first: int, last: int) -> None:
        if self.last is None:
            self.first = first
        else:
            self.pairs += 1
            self.same += self.last == first
        self.last = last

    @property
    def accuracy(self) -> float | None:
        return self.same / self.pairs if self.pairs else None


@dataclass(slots=True)
class Mean:
    """The running mean as a prediction, and the spread around the mean in hindsight.

    Args:
        rows: rows so far.
        mean, m2: mean and sum of squared deviations (Chan et al. 1983: merged without cancelling).
        absolute: Σ |y − mean of the rows before it|.
        compared: rows in `absolute` (those with a row before them).
    """

    rows: int = 0
    mean: float = 0.0
    m2: float = 0.0
    absolute: float = 0.0
    compared: int = 0

    def add(self, y: Floats) -> None:
        """Add the values (n,) of the next rows, in their order."""
        n = len(y)
        if not n:
            return
        seen = self.rows + np.arange(n)
        before = (self.mean * self.rows + np.cumsum(y) - y) / np.maximum(seen, 1)
        gaps = np.abs(y - before)
        skip = 1 if self.rows == 0 else 0
        self.absolute += float(gaps[skip:].sum())
        self.compared += n - skip
        mean = float(y.mean())
        self._join(n, mean, float(((y - mean) ** 2).sum()))

    def merge(self, later: Mean) -> None:
        """Add rows that came after these; each is compared with the rows of its own part."""
        if later.rows:
            self.absolute += later.absolute
            self.compared += later.compared
            self._join(later.rows, later.mean, later.m2)

    def _join(self, n: int, mean: float, m2: float) -> None:
        total, gap = self.rows + n, mean - self.mean
        self.mean += gap * n / total
        self.m2 += m2 + gap * gap * self.rows * n / total
        self.rows = total

    def results(self) -> dict[str, float | None]:
        return {
            "mae": self.absolute / self.compared if self.compared else None,
            "rmse": float(np.sqrt(self.m2 / self.rows)) if self.rows else None,
            "r2": 0.0 if self.m2 > 0 else None,
        }


@dataclass(slots=True)
class LastValue:
    """The value of the row before as a prediction. Order matters.

    Args:
        pairs: rows that have a row before them.
        absolute, square: sums of the absolute and squared errors.
        first, last: the values at both ends, None before any row.
    """

    pairs: int = 0
    absolute: float = 0.0
    square: float = 0.0
    first: float | None = None
    last: float | None = None

    def add(self, y: Floats) -> None:
        """Add the values (n,) of the next rows, in their order."""
        if not len(y):
            return
        steps = np.diff(y)
        self.absolute += float(np.abs(steps).sum())
        self.square += float((steps * steps).sum())
        self.pairs += len(steps)
        self._join(float(y[0]), float(y[-1]))

    def merge(self, later: LastValue) -> None:
        """Add rows that came after these."""
        if later.first is None or later.last is None:
            return
        self.absolute += later.absolute
        self.square += later.square
        self.pairs += later.pairs
        self._join(later.first, later.last)

    def _join(self, first: float, last: float) -> None:
        if self.last is None:
            self.first = first
        else:
            step = first - self.last
            self.pairs += 1
            self.absolute += abs(step)
            self.square += step * step
        self.last = last

    def results(self) -> dict[str, float | None]:
        if not self.pairs:
            return {"mae": None, "rmse": None}
        return {
            "mae": self.absolute / self.pairs,
            "rmse": float(np.sqrt(self.square / self.pairs)),
        }
