"""The schedule in hindsight is the cheapest of all schedules."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.base import InputError
from everlearn.compare.oracle import optimal_schedule, schedule_cost


@given(st.integers(1, 7), st.integers(0, 2**32 - 1), st.floats(0.0, 3.0))
@settings(max_examples=150, deadline=None)
def test_no_schedule_is_cheaper(periods: int, seed: int, price: float) -> None:
    rng = np.random.default_rng(seed)
    serving = rng.random((periods, periods)).round(3)
    retraining = (price * rng.random(periods)).round(3)
    found = optimal_schedule(serving, retraining)
    costs = [
        schedule_cost(serving, retraining, (0, *more))
        for count in range(periods)
        for more in combinations(range(1, periods), count)
    ]
    assert found.cost == pytest.approx(min(costs))
    assert schedule_cost(serving, retraining, found.retrain_at) == pytest.approx(found.cost)


def test_free_retraining_is_done_whenever_it_helps_and_dear_retraining_once() -> None:
    staleness = np.triu(np.add.outer(-np.arange(6.0), np.arange(6.0)))
    assert optimal_schedule(staleness, np.zeros(6)).retrain_at == (0, 1, 2, 3, 4, 5)
    assert optimal_schedule(staleness, np.full(6, 1e6)).retrain_at == (0,)


@pytest.mark.parametrize(
    ("serving", "retraining"),
    [
        (np.zeros((2, 3)), np.zeros(2)),
        (np.zeros((0, 0)), np.zeros(0)),
        (np.full((2, 2), np.nan), np.zeros(2)),
        (np.zeros((2, 2)), np.array([0.0, np.inf])),
    ],
)
def test_costs_that_cannot_be_are_refused(serving: np.ndarray, retraining: np.ndarray) -> None:
    with pytest.raises(InputError):
        optimal_schedule(serving, retraining)


@pytest.mark.parametrize("schedule", [(), (1,), (0, 2, 1), (0, 1, 1)])
def test_what_is_no_schedule_is_refused(schedule: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="begins with 0"):
        schedule_cost(np.zeros((3, 3)), np.zeros(3), schedule)
