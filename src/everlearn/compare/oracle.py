"""The best retraining schedule in hindsight, by dynamic programming over a cost matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from everlearn.base import Floats, InputError


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to retrain, and what it costs in all.

    Args:
        cost: of serving and of retraining together, in the unit of the matrices.
        retrain_at: periods at whose beginning the model is retrained, the first one (0) included.
    """

    cost: float
    retrain_at: tuple[int, ...]


def optimal_schedule(serving: Floats, retraining: Floats) -> Schedule:
    """The cheapest set of periods at which to retrain, knowing everything that came.

    Covers full retraining and losses that add up over rows only: what a model costs in a period
    must depend on nothing but when it was trained.

    Args:
        serving: (T, T) serving[i, j] is the cost of period j when it is served by the model that
            was trained at the beginning of period i, i ≤ j; the rest is not read.
        retraining: (T,) cost of retraining at the beginning of period i.

    Returns:
        The schedule; the model is always trained at the beginning of period 0.

    Raises:
        InputError: shapes that do not fit, no period, or costs that are not finite.

    Example:
        >>> import numpy as np
        >>> staleness = np.array([[0.0, 1.0, 5.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
        >>> optimal_schedule(staleness, np.array([2.0, 2.0, 2.0]))
        Schedule(cost=5.0, retrain_at=(0, 2))

    Reference:
        Mahadevan & Mathioudakis, "Cost-aware retraining for machine learning", Knowledge-Based
        Systems 2024 (arXiv 2310.04216), section 4: the oracle.
    """
    periods = len(retraining)
    if periods == 0 or serving.shape != (periods, periods):
        raise InputError(f"serving is {serving.shape} and retraining {retraining.shape}")
    used = np.triu(np.asarray(serving, np.float64))
    if not (np.isfinite(used).all() and np.isfinite(retraining).all()):
        raise InputError("the costs of a schedule must be finite numbers")
    run = np.cumsum(used, axis=1)  # run[i, j]: model i serves periods i … j
    best = np.full(periods + 1, np.inf)  # best[j]: cheapest way to serve periods 0 … j−1
    best[0] = 0.0
    came_from = np.zeros(periods + 1, np.int64)
    for stop in range(1, periods + 1):
        costs = best[:stop] + retraining[:stop] + run[:stop, stop - 1]
        came_from[stop] = int(np.argmin(costs))
        best[stop] = costs[came_from[stop]]
    chosen: list[int] = []
    stop = periods
    while stop > 0:
        stop = int(came_from[stop])
        chosen.append(stop)
    return Schedule(float(best[periods]), tuple(reversed(chosen)))


def schedule_cost(serving: Floats, retraining: Floats, retrain_at: tuple[int, ...]) -> float:
    """What a given schedule costs, for matrices as in `optimal_schedule`.

    Raises:
        InputError: the schedule does not begin with period 0, or is not ascending.
    """
    periods = len(retraining)
    if not retrain_at or retrain_at[0] != 0 or list(retrain_at) != sorted(set(retrain_at)):
        raise InputError(f"a schedule begins with 0 and ascends, not {retrain_at!r}")
    total = 0.0
    for start, stop in zip(retrain_at, (*retrain_at[1:], periods), strict=True):
        total += float(retraining[start]) + float(serving[start, start:stop].sum())
    return total
