"""Intervals: the textbook's figures, and their coverage where rows depend on each other."""

import math

import numpy as np
import pytest
from scipy import stats

from everlearn.base import InputError
from everlearn.evaluation.intervals import (
    MOST_BLOCKS,
    independent_groups,
    mean_interval,
    paired_interval,
    t_quantile,
    time_blocks,
)


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 29, 30, 199, 200, 201, 1_000, 20_000])
@pytest.mark.parametrize("probability", [0.025, 0.5, 0.9, 0.95, 0.975, 0.9995])
def test_quantiles_of_t(probability, freedom):
    tolerance = 1e-9 if freedom <= 200 else 1e-6
    expected = stats.t.ppf(probability, freedom)
    assert t_quantile(probability, freedom) == pytest.approx(expected, rel=tolerance, abs=1e-12)


def test_no_quantile():
    for probability, freedom in ((0.0, 5), (1.0, 5), (0.5, 0)):
        with pytest.raises(InputError, match="no quantile"):
            t_quantile(probability, freedom)


def test_independent_rows_give_the_textbooks_interval():
    values = np.random.default_rng(0).normal(2.0, 3.0, 50)
    found = mean_interval(values, level=0.95)
    low, high = stats.t.interval(0.95, 49, values.mean(), stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert (found.rows, found.groups) == (50, 50)


def test_paired_difference_is_narrower_than_its_parts():
    rng = np.random.default_rng(0)
    common = rng.exponential(size=500)
    a, b = common + rng.normal(0, 0.01, 500), common
    found = paired_interval(a, b)
    assert found.high - found.low < 0.01 * (mean_interval(a).high - mean_interval(a).low) * 10
    with pytest.raises(InputError, match="3 and 2 rows"):
        paired_interval(np.zeros(3), np.zeros(2))


def test_too_little_to_tell():
    with pytest.raises(InputError, match="there are none"):
        mean_interval(np.zeros(0))
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match="1 of 2 are not"):
            paired_interval(np.array([bad, 1.0]), np.array([0.0, 1.0]))
    assert mean_interval(np.array([1e300, -1e300])).high == math.inf
    one = mean_interval(np.array([1.0]))
    assert one.high == math.inf
    assert one.to_json()["high"] is None
    together = mean_interval(np.arange(9.0), groups=np.zeros(9, np.int64))
    assert together.low == -math.inf
    with pytest.raises(InputError, match="2 group numbers"):
        mean_interval(np.arange(9.0), groups=np.zeros(2, np.int64))


def test_group_numbers_need_not_be_without_gaps():
    values, groups = np.arange(6.0), np.array([0, 0, 1, 1, 2, 2])
    assert mean_interval(values, groups=groups) == mean_interval(values, groups=groups * 5 + 1)


def coverage(draw, grouped):
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        values, groups = draw(rng)
        found = mean_interval(values, level=0.9, groups=groups if grouped else None)
        hits += found.low <= 0.0 <= found.high
    return hits / 400


def test_intervals_cover_where_rows_of_an_entity_are_alike():
    def draw(rng):
        groups = np.repeat(np.arange(40), 10)
        return np.repeat(rng.normal(size=40), 10) + 0.5 * rng.normal(size=400), groups

    assert 0.85 <= coverage(draw, grouped=True) <= 0.95
    assert coverage(draw, grouped=False) < 0.6


def test_intervals_cover_where_time_is_correlated():
    def draw(rng):
        noise = rng.normal(size=2_000)
        values = np.convolve(noise, np.ones(12) / 12, mode="valid")[:1_980]
        return values, independent_groups(len(values))

    assert coverage(draw, grouped=True) >= 0.84
    assert coverage(draw, grouped=False) < 0.6


def test_blocks_of_time():
    assert time_blocks(6, 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert time_blocks(4, 2, np.array([9, 1, 8, 2])).tolist() == [1, 0, 1, 0]
    assert time_blocks(0, 3).tolist() == []


def test_which_groups_are_independent():
    assert independent_groups(50) is None
    assert independent_groups(100_000).max() + 1 == MOST_BLOCKS
    assert independent_groups(250).max() + 1 == 25
    keys = np.repeat(np.arange(20, dtype=np.uint64) * 7, 5)
    assert independent_groups(100, key=keys).max() + 1 == 20
    few = np.zeros(300, np.uint64)
    assert independent_groups(300, key=few).max() + 1 == 30
