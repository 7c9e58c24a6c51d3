"""How much the mean loss has risen at least, between two windows of answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from everlearn.base import Floats, Json
from everlearn.evaluation.intervals import independent_groups, mean_interval, t_quantile


@dataclass(frozen=True, slots=True)
class Level:
    """The mean loss of a window.

    Args:
        mean: of the losses.
        error: standard error of the mean.
        groups: how many groups of rows were taken as independent.
        rows: losses.
    """

    mean: float
    error: float
    groups: int
    rows: int

    def to_json(self) -> dict[str, Json]:
        return {name: getattr(self, name) for name in self.__slots__}


def level_of(losses: Floats, shares: bool = False) -> Level:
    """The level of losses in the order in which they were seen: neighbours may be alike, so that
    the error is taken over blocks of them (see `evaluation.intervals`).

    Rows that are alike over much more than a block (ten rows or more) still make it too small.

    Where losses are 0 or 1 the error is at least that with one more of each (Agresti & Caffo 2000,
    "Simple and effective confidence intervals for proportions"): a window without a wrong answer
    is no proof that there is none.

    Args:
        losses: (n,) finite, at least 2.
        shares: whether all are 0 or 1.
    """
    found = mean_interval(losses, groups=independent_groups(len(losses)))
    error = found.error
    if shares:
        n = len(losses) + 2
        share = (float(losses.sum()) + 1.0) / n
        error = max(error, math.sqrt(share * (1.0 - share) / n))
    return Level(found.mean, error, found.groups, found.rows)


def least_rise(reference: Level, recent: Level, alpha: float) -> float:
    """A lower bound of the rise of the mean, wrong with chance alpha at most (Welch 1947, with the
    degrees of freedom of the smaller one, which is on the safe side)."""
    freedom = max(1, min(reference.groups, recent.groups) - 1)
    error = math.hypot(reference.error, recent.error)
    return recent.mean - reference.mean - t_quantile(1.0 - alpha, freedom) * error
