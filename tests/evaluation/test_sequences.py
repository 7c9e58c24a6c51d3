"""Confidence sequences hold at every look."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.base import InputError
from everlearn.evaluation.sequences import (
    FEWEST,
    Moments,
    difference,
    mean_bounds,
    share_bounds,
)


def looks(values):
    """The moments after each of (n,) values."""
    counts = np.arange(1, len(values) + 1)
    means = np.cumsum(values) / counts
    spreads = np.maximum(np.cumsum(values**2) - counts * means**2, 0.0)
    return [
        Moments(int(n), float(m), float(s)) for n, m, s in zip(counts, means, spreads, strict=True)
    ]


@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=20), max_size=5))
def test_moments_do_not_depend_on_parts(parts):
    made = Moments()
    for part in parts:
        made = made.add(np.array(part, np.float64))
    values = np.array([value for part in parts for value in part])
    assert made.n == len(values)
    if len(values):
        assert made.mean == pytest.approx(values.mean(), abs=1e-6)
        assert made.spread == pytest.approx(
            ((values - values.mean()) ** 2).sum(), rel=1e-6, abs=1e-3
        )


def test_what_is_not_finite_is_refused():
    with pytest.raises(InputError, match="not finite"):
        Moments().add(np.array([1.0, math.nan]))
    for bounds in (mean_bounds, share_bounds):
        with pytest.raises(InputError, match="alpha"):
            bounds(Moments(100, 0.0, 1.0), 1.0)


def test_with_few_values_nothing_is_said():
    values = np.random.default_rng(0).normal(size=FEWEST)
    assert mean_bounds(Moments().add(values[:-1]), 0.05) == (-math.inf, math.inf)
    low, high = mean_bounds(Moments().add(values), 0.05)
    assert -1.0 < low < 0.0 < high < 1.0
    assert mean_bounds(Moments().add(np.ones(1000)), 0.05) == (-math.inf, math.inf)
    assert share_bounds(Moments(), 0.05) == (0.0, 1.0)
    low, high = share_bounds(Moments().add(np.zeros(100)), 0.05)
    assert low == 0.0
    assert 0.03 < high < 0.1


@pytest.mark.parametrize("draw", ["normal", "loss", "error", "rare error"])
def test_the_mean_is_hardly_ever_left_at_any_look(draw):
    """Looking after every value, a z-test at the same level is wrong in nearly half of the runs."""
    generator = np.random.default_rng(0)
    left = naive = 0
    bounds = share_bounds if "error" in draw else mean_bounds
    for _ in range(200):
        values, mean = {
            "normal": lambda: (generator.normal(size=1000), 0.0),
            "loss": lambda: (generator.exponential(size=1000), 1.0),
            "error": lambda: ((generator.random(1000) < 0.2).astype(float), 0.2),
            "rare error": lambda: ((generator.random(1000) < 0.02).astype(float), 0.02),
        }[draw]()
        every = looks(values)
        for one in every:
            low, high = bounds(one, 0.05)
            if not low <= mean <= high:
                left += 1
                break
        naive += any(
            abs(one.mean - mean) > 1.96 * math.sqrt(one.variance / one.n) for one in every[FEWEST:]
        )
    assert left <= 0.05 * 200
    assert naive > 0.2 * 200


def test_a_harm_is_found_and_no_harm_is_not():
    generator = np.random.default_rng(1)
    found = wrong = 0
    for _ in range(100):
        champion = (generator.random(40_000) < 0.10).astype(float)
        same = (generator.random(40_000) < 0.10).astype(float)
        worse = (generator.random(40_000) < 0.13).astype(float)
        base = Moments()
        for arm, counts in ((worse, "harm"), (same, "none")):
            tried, base, hit = Moments(), Moments(), False
            for start in range(0, 40_000, 500):
                tried = tried.add(arm[start : start + 500])
                base = base.add(champion[start : start + 500])
                hit = hit or difference(tried, base, 0.05, shares=True)[1] > 0.0
            found += hit and counts == "harm"
            wrong += hit and counts == "none"
    assert found >= 95
    assert wrong <= 5
