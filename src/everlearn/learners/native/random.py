"""Random numbers whose generator is an array: it is saved with the state, and kernels draw from it.

xoshiro256++ (Blackman & Vigna 2021, "Scrambled linear pseudorandom number generators", fig. 4),
seeded by SplitMix64 (Steele, Lea & Flood 2014, fig. 15).
"""

from __future__ import annotations

import math

import numpy as np

from everlearn.base import Array
from everlearn.learners.native.compile import kernel


def generator(*seed: int) -> Array:
    """(4,) uint64 generator; other seeds, or the same in another order, are other streams."""
    entropy = [len(seed), *(value % 2**63 for value in seed)]  # which ignores zeros at the end
    return np.random.SeedSequence(entropy).generate_state(4, np.uint64)


@kernel
def next_bits(state: Array) -> int:
    """64 random bits; the generator moves on."""
    a, b, c, d = state[0], state[1], state[2], state[3]
    total = a + d
    result = ((total << np.uint64(23)) | (total >> np.uint64(41))) + a
    c ^= a
    d ^= b
    state[1] = b ^ c
    state[0] = a ^ d
    state[2] = c ^ (b << np.uint64(17))
    state[3] = (d << np.uint64(45)) | (d >> np.uint64(19))
    return result  # type: ignore[no-any-return]


@kernel
def uniform(state: Array) -> float:
    """A number from 0 up to, not including, 1."""
    return float(next_bits(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@kernel
def below(state: Array, n: int) -> int:
    """A whole number from 0 to n − 1; its bias is under n / 2**53."""
    return int(uniform(state) * n)


@kernel
def normal(state: Array) -> float:
    """A standard normal number (Box & Muller 1958)."""
    radius = math.sqrt(-2.0 * math.log(1.0 - uniform(state)))
    return radius * math.cos(2.0 * math.pi * uniform(state))


@kernel
def poisson(state: Array, mean: float) -> int:
    """A Poisson number, by inversion of one uniform; for means up to some hundreds."""
    left = uniform(state)
    chance = math.exp(-mean)
    count = 0
    while left >= chance and chance > 0.0:
        left -= chance
        count += 1
        chance *= mean / count
    return count


@kernel
def mix(value: int) -> int:
    """64 bits in which each depends on all of `value`'s (the finaliser of SplitMix64)."""
    bits = np.uint64(value)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))  # type: ignore[return-value]
