"""Intervals in closed form for means and paired differences, of rows that may depend on each other.

Rows of one entity, or near in time, are alike; counted as independent, they make an interval too
narrow. So a mean's variance is taken over groups of rows (Liang and Zeger 1986; Cameron and Miller
2015, section II), with Student's t of as many degrees of freedom as there are groups, less one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from everlearn.base import Array, Floats, InputError, Ints

FEWEST_GROUPS = 10
"""With fewer entities than this, blocks of time are the groups."""

MOST_BLOCKS = 50
FEWEST_BLOCK_ROWS = 10
ROWS_FOR_BLOCKS = 200
"""With fewer rows than this, every row is a group of its own."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence interval.

    Args:
        mean: the mean over rows.
        low, high: bounds; infinite where there are too few groups to tell.
        rows: number of rows.
        groups: number of groups that were taken as independent.
        error: standard error of the mean.
    """

    mean: float
    low: float
    high: float
    rows: int
    groups: int
    error: float

    def to_json(self) -> dict[str, float | int | None]:
        """Figures by name; None for those that are not finite."""
        figures = {name: getattr(self, name) for name in self.__slots__}
        return {k: v if math.isfinite(v) else None for k, v in figures.items()}


def mean_interval(values: Floats, *, level: float = 0.95, groups: Ints | None = None) -> Interval:
    """The interval of a mean: mean ± t · √(G/(G−1) · Σ_g (Σ_{i∈g} (x_i − mean))²) / n.

    With groups of one row each this is the textbook's mean ± t·s/√n.

    Args:
        values: (n,) finite values.
        level: two-sided coverage, such as 0.95; each bound alone holds with (1 + level)/2.
        groups: (n,) number 0 … G−1 of each row's group, or None where rows are independent.

    Raises:
        InputError: no rows, values that are not finite, or groups of another length.

    Example:
        >>> mean_interval(np.array([1.0, 2.0, 3.0])).mean
        2.0
    """
    n = len(values)
    if n == 0:
        raise InputError("an interval needs rows, and there are none")
    if groups is not None and len(groups) != n:
        raise InputError(f"{n} values came with {len(groups)} group numbers; give one for each")
    bad = n - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise InputError(f"an interval needs finite values, and {bad} of {n} are not")
    with np.errstate(over="ignore"):
        return _interval(values, level, groups)


def _interval(values: Floats, level: float, groups: Ints | None) -> Interval:
    n, mean = len(values), float(values.mean())
    gaps: Floats = values - mean
    if groups is not None:
        sums: Floats = np.bincount(groups, weights=gaps).astype(np.float64)
        gaps = sums[np.bincount(groups) > 0]
    count = len(gaps)
    if count < 2:
        return Interval(mean, -math.inf, math.inf, n, count, math.inf)
    square = float(gaps @ gaps)
    if not math.isfinite(square):
        return Interval(mean, -math.inf, math.inf, n, count, math.inf)
    error = math.sqrt(count / (count - 1) * square) / n
    reach = t_quantile((1.0 + level) / 2.0, count - 1) * error
    return Interval(mean, mean - reach, mean + reach, n, count, error)


def paired_interval(
    a: Floats, b: Floats, *, level: float = 0.95, groups: Ints | None = None
) -> Interval:
    """The interval of the mean of a − b, for two losses of the same rows.

    Args:
        a, b: (n,) values for the same rows.
        level, groups: as for `mean_interval`.

    Raises:
        InputError: the lengths differ, a value is not finite, or there are no rows.
    """
    if len(a) != len(b):
        raise InputError(f"paired values have {len(a)} and {len(b)} rows; they must be the same")
    with np.errstate(invalid="ignore", over="ignore"):
        difference: Floats = a - b
    return mean_interval(difference, level=level, groups=groups)


def independent_groups(n: int, time: Ints | None = None, key: Array | None = None) -> Ints | None:
    """(n,) group numbers for rows: by entity where there are enough, else by blocks of time.

    Args:
        n: number of rows.
        time: (n,) event times, or None: then rows are taken to be in order.
        key: (n,) entities, or None.

    Returns:
        None where each row may count by itself (few rows, no entity).
    """
    if key is not None:
        _, groups = np.unique(key, return_inverse=True)
        if groups.size and int(groups.max()) + 1 >= FEWEST_GROUPS:
            return groups.astype(np.int64, copy=False)
    if n < ROWS_FOR_BLOCKS:
        return None
    return time_blocks(n, min(MOST_BLOCKS, n // FEWEST_BLOCK_ROWS), time)


def time_blocks(n: int, blocks: int, time: Ints | None = None) -> Ints:
    """(n,) block numbers: consecutive rows in order of time, equally many in each block.

    Args:
        n: number of rows.
        blocks: number of blocks, at least 1.
        time: (n,) event times, or None: then rows are taken to be in order.
    """
    ordered = np.arange(n, dtype=np.int64) * blocks // max(n, 1)
    if time is None or bool((time[1:] >= time[:-1]).all()):
        return ordered
    groups = np.empty(n, np.int64)
    groups[np.argsort(time, kind="stable")] = ordered
    return groups


def t_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t, to 1e-9 for up to 200 degrees of freedom and 1e-6 for more.

    Up to 200 by bisection of the exact series (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4),
    above by the expansion around the normal quantile (26.7.5).

    Args:
        probability: between 0 and 1.
        freedom: degrees of freedom, at least 1.

    Raises:
        InputError: either is outside its range.
    """
    if not 0.0 < probability < 1.0 or freedom < 1:
        raise InputError(f"no quantile of t for {probability!r} and {freedom!r} degrees of freedom")
    if probability < 0.5:
        return -t_quantile(1.0 - probability, freedom)
    z = NormalDist().inv_cdf(probability)
    if freedom > 200:
        return _expansion(z, freedom)
    low, high = 0.0, 1.0
    while _t_cdf(high, freedom) < probability:
        high *= 2.0
    for _ in range(80):
        middle = (low + high) / 2.0
        if _t_cdf(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def _expansion(z: float, v: int) -> float:
    first = (z**3 + z) / 4.0
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96.0
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384.0
    return z + first / v + second / v**2 + third / v**3


def _t_cdf(t: float, v: int) -> float:
    """P(T ≤ t) for t ≥ 0 by the finite series in θ = arctan(t/√v)."""
    angle = math.atan2(t, math.sqrt(v))
    square = math.cos(angle) ** 2
    term = math.cos(angle) if v % 2 else 1.0
    total, step = 0.0, 3 if v % 2 else 2
    while step <= v:
        total += term
        term *= square * (step - 1) / step
        step += 2
    inside = math.sin(angle) * total
    if v % 2:
        inside = 2.0 / math.pi * (angle + inside)
    return 0.5 + inside / 2.0
