"""How much a new model's answers differ from the old one's, whatever their quality."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from everlearn.base import Array, InputError


@dataclass(frozen=True, slots=True)
class Churn:
    """Shares of rows whose answer changed.

    Args:
        rows: rows that were compared.
        churn: share of rows whose answer differs (Milani Fard et al. 2016, "Launch and Iterate").
        negative_flip_rate: share of rows that the old model got right and the new one wrong (Yan et
            al. 2021, eq. 1); None without targets and for regressors.
        positive_flip_rate: share of rows that only the new model got right.
        mean_change: mean |new − old| of a regressor's answers, else None.
    """

    rows: int
    churn: float | None = None
    negative_flip_rate: float | None = None
    positive_flip_rate: float | None = None
    mean_change: float | None = None

    def to_json(self) -> dict[str, float | int | None]:
        """Figures by name."""
        return asdict(self)


def churn(old: Array, new: Array, y: Array | None = None) -> Churn:
    """Churn between two models' classes for the same rows.

    Args:
        old, new: (n,) predicted classes, in the same codes or values.
        y: (n,) true classes in those codes or values, if known.

    Raises:
        InputError: the lengths differ.

    Example:
        >>> old, new, y = np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
        >>> churn(old, new, y).negative_flip_rate
        0.25
    """
    n = _same_rows(old, new, y)
    if n == 0:
        return Churn(0)
    changed = float(np.count_nonzero(old != new)) / n
    if y is None:
        return Churn(n, changed)
    was, is_now = old == y, new == y
    lost = float(np.count_nonzero(was & ~is_now)) / n
    won = float(np.count_nonzero(~was & is_now)) / n
    return Churn(n, changed, lost, won)


def value_churn(old: Array, new: Array, *, tolerance: float = 0.0) -> Churn:
    """Churn between two regressors' answers for the same rows.

    Args:
        old, new: (n,) predicted values.
        tolerance: answers that differ by no more count as the same.

    Raises:
        InputError: the lengths differ.
    """
    n = _same_rows(old, new, None)
    if n == 0:
        return Churn(0)
    with np.errstate(invalid="ignore", over="ignore"):
        change = np.abs(new - old)
        mean = float(change.mean())
    share = float(np.count_nonzero(~(change <= tolerance))) / n
    return Churn(n, share, mean_change=mean if np.isfinite(mean) else None)


def _same_rows(old: Array, new: Array, y: Array | None) -> int:
    lengths = {len(old), len(new)} | ({len(y)} if y is not None else set())
    if len(lengths) != 1:
        raise InputError(f"answers for the same rows are needed, not for {sorted(lengths)} rows")
    return len(old)
