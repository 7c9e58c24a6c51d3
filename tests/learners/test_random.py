"""The generator in an array: the published algorithm, its distributions, and that it is saved."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from everlearn.learners.native.compile import kernel
from everlearn.learners.native.random import (
    below,
    generator,
    mix,
    next_bits,
    normal,
    poisson,
    uniform,
)

MASK = 2**64 - 1
DRAWS = 200_000


@kernel
def draw_bits(state, out):
    for i in range(len(out)):
        out[i] = next_bits(state)


@kernel
def draw_uniform(state, out):
    for i in range(len(out)):
        out[i] = uniform(state)


@kernel
def draw_below(state, n, out):
    for i in range(len(out)):
        out[i] = below(state, n)


@kernel
def draw_normal(state, out):
    for i in range(len(out)):
        out[i] = normal(state)


@kernel
def draw_poisson(state, mean, out):
    for i in range(len(out)):
        out[i] = poisson(state, mean)


@kernel
def mix_all(values, out):
    for i in range(len(out)):
        out[i] = mix(values[i])


def drawn(function, *parameters, seed=1, count=DRAWS, dtype=np.float64):
    out = np.empty(count, dtype)
    function(generator(seed), *parameters, out)
    return out


def chi_square(counts, expected):
    """The chance of counts as far from what is expected, or farther."""
    return stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue


def rotated(value, places):
    return ((value << places) | (value >> (64 - places))) & MASK


def test_is_xoshiro256_plus_plus():
    a, b, c, d = (int(word) for word in generator(5))
    out = drawn(draw_bits, seed=5, count=1000, dtype=np.uint64)
    for found in out.tolist():
        expected = (rotated((a + d) & MASK, 23) + a) & MASK
        shifted = (b << 17) & MASK
        c, d = c ^ a, d ^ b
        a, b = a ^ d, b ^ c
        c, d = c ^ shifted, rotated(d, 45)
        assert found == expected


def test_mixing_is_that_of_splitmix64():
    values = np.concatenate([np.arange(3000), [2**63 - 1, -1]]).astype(np.int64).astype(np.uint64)
    out = np.empty_like(values)
    mix_all(values, out)
    for value, found in zip(values.tolist(), out.tolist(), strict=True):
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
        assert found == value ^ (value >> 31)
    assert len(set(out.tolist())) == len(out)


def test_seeds_make_streams_of_their_own():
    listed = [(0,), (1,), (0, 0), (0, 1), (1, 0), (-1,), (2**62,), (2**64 + 5,)]
    assert len({generator(*seed).tobytes() for seed in listed}) == len(listed)
    assert (generator(3, 4) == generator(3, 4)).all()
    assert generator(0).dtype == np.uint64 and generator(0).shape == (4,)
    assert generator(0).any(), "of zeros only, it would give zeros only"


def test_a_saved_generator_goes_on():
    state = generator(9)
    first, second, again = (np.empty(100) for _ in range(3))
    draw_normal(state, first)
    saved = state.copy()
    draw_normal(state, second)
    draw_normal(saved, again)
    assert (second == again).all()
    assert not (first == second).any()


def test_uniform():
    out = drawn(draw_uniform)
    assert out.min() >= 0.0 and out.max() < 1.0
    assert stats.kstest(out, "uniform").pvalue > 0.001
    for apart in (1, 2, 7):
        assert abs(np.corrcoef(out[:-apart], out[apart:])[0, 1]) < 4 / np.sqrt(DRAWS)
    pairs, _, _ = np.histogram2d(out[::2], out[1::2], bins=16, range=[[0, 1], [0, 1]])
    assert chi_square(pairs.ravel(), np.ones(256)) > 0.001
    last_bits = (out * 2**53).astype(np.int64) & 7
    assert chi_square(np.bincount(last_bits), np.ones(8)) > 0.001


def test_neighbouring_seeds_are_not_alike():
    first = np.array([drawn(draw_uniform, seed=seed, count=2) for seed in range(5000)])
    assert stats.kstest(first[:, 0], "uniform").pvalue > 0.001
    assert abs(np.corrcoef(first[:-1, 0], first[1:, 0])[0, 1]) < 4 / np.sqrt(5000)
    assert abs(np.corrcoef(first.T)[0, 1]) < 4 / np.sqrt(5000)


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_below(n):
    out = drawn(draw_below, n, dtype=np.int64)
    assert out.min() >= 0 and out.max() < n
    assert n == 1 or chi_square(np.bincount(out, minlength=n), np.ones(n)) > 0.001


def test_normal():
    out = drawn(draw_normal)
    assert np.isfinite(out).all()
    assert stats.kstest(out, "norm").pvalue > 0.001
    assert abs(out.mean()) < 4 / np.sqrt(DRAWS)
    assert abs(out.var() - 1.0) < 4 * np.sqrt(2 / DRAWS)
    assert abs(stats.skew(out)) < 4 * np.sqrt(6 / DRAWS)
    assert abs(stats.kurtosis(out)) < 4 * np.sqrt(24 / DRAWS)
    assert np.abs(out).max() > 4.0
    assert abs(np.corrcoef(out[:-1], out[1:])[0, 1]) < 4 / np.sqrt(DRAWS)


@pytest.mark.parametrize("mean", [0.1, 1.0, 6.0, 300.0])
def test_poisson(mean):
    out = drawn(draw_poisson, mean, dtype=np.int64)
    assert abs(out.mean() - mean) < 4 * np.sqrt(mean / DRAWS)
    low, high = (int(stats.poisson.ppf(share, mean)) for share in (0.001, 0.999))
    counts = np.bincount(np.clip(out, low, high), minlength=high + 1)[low:]
    expected = stats.poisson.pmf(np.arange(low, high + 1), mean)
    expected[0] = stats.poisson.cdf(low, mean)
    expected[-1] = stats.poisson.sf(high - 1, mean)
    assert chi_square(counts, expected) > 0.001


def test_poisson_of_mean_0_is_0():
    assert not drawn(draw_poisson, 0.0, count=1000, dtype=np.int64).any()
