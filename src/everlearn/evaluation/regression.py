"""Metrics of a regressor over a stream: sums that are added, merged and saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from everlearn.base import Array, Floats
from everlearn.evaluation.baselines import LastValue, Mean

QUANTILES = (0.1, 0.5, 0.9)


@dataclass(slots=True)
class Regression:
    """Streaming MAE, RMSE, R² and quantile (pinball) loss.

    Rows whose error is not finite are counted in `nonfinite`; one is enough for every metric
    to be None.

    Args:
        under, over: Σ max(y − prediction, 0) and Σ max(prediction − y, 0).
        square: Σ (y − prediction)².
    """

    rows: int = 0
    nonfinite: int = 0
    under: float = 0.0
    over: float = 0.0
    square: float = 0.0
    mean: Mean = field(default_factory=Mean)
    last_value: LastValue = field(default_factory=LastValue)

    def add(self, y: Floats, value: Floats, proba: None = None) -> None:
        """Add rows in their order: y and predictions, (n,) each."""
        self.rows += len(y)
        with np.errstate(over="ignore", invalid="ignore"):
            error = y - value
            total = float(error.sum())
            if not np.isfinite(total):
                good = np.isfinite(error)
                self.nonfinite += int(np.count_nonzero(~good))
                error, y = error[good], y[np.isfinite(y)]
                total = float(error.sum())
            absolute = float(np.abs(error).sum())
            self.square += float((error * error).sum())
            self.mean.add(y)
            self.last_value.add(y)
        self.under += (absolute + total) / 2.0
        self.over += (absolute - total) / 2.0

    def merge(self, later: Regression) -> None:
        """Add the rows of another one, which came after these."""
        self.rows += later.rows
        self.nonfinite += later.nonfinite
        self.under += later.under
        self.over += later.over
        self.square += later.square
        self.mean.merge(later.mean)
        self.last_value.merge(later.last_value)

    def results(self, positive: int = 1, quantiles: Sequence[float] = QUANTILES) -> dict[str, Any]:
        """Every metric by name; None where it is not defined.

        Args:
            positive: of no meaning here.
            quantiles: for which to give the loss q·(y − p)⁺ + (1 − q)·(p − y)⁺ (Koenker and
                Bassett 1978), by name: ``{"0.5": …}``.
        """
        n = self.rows
        sums = (self.under, self.over, self.square)
        usable = n > 0 and self.nonfinite == 0 and bool(np.isfinite(sums).all())
        found: dict[str, Any] = {
            "rows": n,
            "mae": (self.under + self.over) / n if usable else None,
            "rmse": float(np.sqrt(self.square / n)) if usable else None,
            "r2": 1.0 - self.square / self.mean.m2 if usable and self.mean.m2 > 0 else None,
            "quantile_loss": {
                str(q): (q * self.under + (1.0 - q) * self.over) / n if usable else None
                for q in quantiles
            },
        }
        if self.nonfinite:
            found["nonfinite"] = self.nonfinite
        found["baselines"] = {
            "mean": self.mean.results(),
            "last_value": self.last_value.results(),
        }
        return found

    def save(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays and JSON from which `load` makes the same one."""
        sums = np.array([self.under, self.over, self.square])
        meta = {"rows": self.rows, "nonfinite": self.nonfinite}
        return {"sums": sums}, meta | {
            "mean": asdict(self.mean),
            "last_value": asdict(self.last_value),
        }

    @classmethod
    def load(cls, arrays: dict[str, Array], meta: dict[str, Any]) -> Self:
        """The one that `save` saw."""
        under, over, square = (float(x) for x in arrays["sums"])
        mean, last = Mean(**meta["mean"]), LastValue(**meta["last_value"])
        return cls(meta["rows"], meta["nonfinite"], under, over, square, mean, last)
