import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.learners.moments import Moments


@given(st.lists(st.integers(0, 40), max_size=6), st.floats(-1e9, 1e9), st.floats(1e-3, 1e6))
def test_chunks_give_what_the_whole_gives(sizes, offset, spread):
    generator = np.random.default_rng(len(sizes))
    values = offset + spread * generator.normal(size=(sum(sizes), 3))
    values[generator.random(values.shape) < 0.2] = np.nan
    moments = Moments(3)
    for piece in np.split(values, np.cumsum(sizes)):
        moments.update(piece)
    present = ~np.isnan(values)
    assert (moments.count_ == present.sum(axis=0)).all()
    for column in range(3):
        kept = values[present[:, column], column]
        if len(kept):
            tolerance = 1e-12 * (abs(offset) + spread) * 10
            assert moments.mean_[column] == pytest.approx(kept.mean(), abs=tolerance)
            expected = ((kept - kept.mean()) ** 2).sum()
            rounding = 10 * len(kept) * np.finfo(float).eps * abs(offset) * spread
            assert moments.m2_[column] == pytest.approx(expected, rel=1e-9, abs=rounding)


def test_a_huge_mean_does_not_swallow_the_spread():
    generator = np.random.default_rng(0)
    moments = Moments(1)
    for _ in range(100):
        moments.update(1e9 + generator.normal(size=(100, 1)))
    assert moments.scale()[0] == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e8 / 3, 1e300, np.finfo(float).max])
def test_a_constant_column_has_scale_1(value):
    moments = Moments(1)
    for rows in (1, 7, 1000):
        moments.update(np.full((rows, 1), value))
    assert moments.m2_[0] >= 0
    assert moments.scale()[0] == 1.0


def test_nothing_overflows():
    moments = Moments(2)
    for _ in range(3):
        moments.update(np.array([[1e308, -np.inf], [-1e308, np.inf], [0.0, np.nan]]))
    assert np.isfinite(moments.mean_).all()
    assert np.isfinite(moments.m2_).all()
    assert np.isfinite(moments.scale()).all()


def test_means_alone():
    moments = Moments(2, spread=False)
    moments.update(np.array([[1.0, np.nan], [3.0, np.nan]]))
    moments.update(np.array([[5.0, 7.0]]))
    assert moments.mean_.tolist() == [3.0, 7.0]
    assert moments.m2_ is None
    assert moments.scale().tolist() == [1.0, 1.0]
