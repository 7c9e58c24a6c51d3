"""Confidence sequences: intervals that hold at every look at once, so that one may look at any time
and stop at any time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from everlearn.base import Floats, InputError

FEWEST = 100
"""Values below which nothing is said of means: the bound is that of the limit of many."""

TUNED_FOR = 3000.0
"""Values at which a sequence of means is tightest."""


@dataclass(frozen=True, slots=True)
class Moments:
    """How many values there were, their mean, and the sum of squares about it.

    Example:
        >>> Moments().add(np.array([1.0, 2.0, 6.0])).mean
        3.0
    """

    n: int = 0
    mean: float = 0.0
    spread: float = 0.0

    def add(self, values: Floats) -> Self:
        """These and more, which are finite (Chan, Golub & LeVeque 1979, eq. 1.5).

        Args:
            values: (m,) in any order.

        Raises:
            InputError: one is not finite.
        """
        if len(values) == 0:
            return self
        mean = float(values.mean())
        if not math.isfinite(mean):
            raise InputError("a value of a confidence sequence is not finite")
        return self.plus(type(self)(len(values), mean, float(((values - mean) ** 2).sum())))

    def plus(self, other: Self) -> Self:
        """Of the values of both."""
        total = self.n + other.n
        if total == 0:
            return self
        apart, share = other.mean - self.mean, other.n / total
        spread = self.spread + other.spread + apart * apart * self.n * share
        return type(self)(total, self.mean + apart * share, spread)

    @property
    def variance(self) -> float:
        """Of the values seen."""
        return self.spread / self.n if self.n else math.inf


def mean_bounds(moments: Moments, alpha: float) -> tuple[float, float]:
    """(lower, upper) such that with probability 1 − alpha all bounds, after every value, hold the
    mean of what the values are drawn from; infinite before `FEWEST` values, and where all of them
    are equal. For shares of 0 and 1 see `share_bounds`, which holds for few and rare ones too.

    Asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024,
    "Time-uniform central limit theory and asymptotic confidence sequences", theorem 2.2, with ρ for
    the least width at `TUNED_FOR` values (their eq. 9).

    Raises:
        InputError: alpha is not between 0 and 1.
    """
    _check(alpha)
    if moments.n < FEWEST or moments.spread <= 0.0:
        return -math.inf, math.inf
    log = -2.0 * math.log(alpha)
    scaled = moments.n * (log + math.log(log + 1.0)) / TUNED_FOR
    inside = 2.0 * (scaled + 1.0) / (moments.n * scaled)
    inside *= 0.5 * math.log(scaled + 1.0) - math.log(alpha)
    wide = math.sqrt(moments.variance * inside)
    return moments.mean - wide, moments.mean + wide


def share_bounds(moments: Moments, alpha: float) -> tuple[float, float]:
    """The same for values of 0 and 1, however few, exactly: shares under which the values are less
    than alpha times as likely as under shares drawn from a beta distribution are ruled out
    (Robbins 1970, "Statistical methods related to the law of the iterated logarithm", section 3;
    Ville's inequality).

    Raises:
        InputError: alpha is not between 0 and 1.
    """
    _check(alpha)
    ones = moments.n * moments.mean
    rest = moments.n - ones
    mixed = _log_beta(0.5 + ones, 0.5 + rest) - _log_beta(0.5, 0.5)

    def ruled_out(share: float) -> bool:
        likely = ones * math.log(share) + rest * math.log1p(-share)
        return mixed - likely >= -math.log(alpha)

    low, high = moments.mean if moments.n else 0.5, moments.mean if moments.n else 0.5
    return _edge(low, 1e-12, ruled_out, 0.0), _edge(high, 1.0 - 1e-12, ruled_out, 1.0)


def difference(
    candidate: Moments, champion: Moments, alpha: float, shares: bool = False
) -> tuple[float, float, float]:
    """(mean of the candidate less that of the champion, lower bound, upper bound): with probability
    1 − alpha the bounds hold at every look, however many values each has by then.

    Each has a sequence with half of alpha, so that nothing need be known of how their values
    alternate.

    Args:
        shares: whether all values are 0 or 1.
    """
    bounds = share_bounds if shares else mean_bounds
    low, high = bounds(candidate, 0.5 * alpha)
    least, most = bounds(champion, 0.5 * alpha)
    return candidate.mean - champion.mean, low - most, high - least


def _check(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise InputError(f"alpha={alpha!r} is not between 0 and 1")


def _edge(inside: float, outside: float, ruled_out: Callable[[float], bool], end: float) -> float:
    """Where what is ruled out begins, between a share that is not and the end."""
    if not ruled_out(outside):
        return end
    for _ in range(60):
        middle = 0.5 * (inside + outside)
        if ruled_out(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
