"""Logarithms and shares of the normal distribution without branches or calls: in a loop over an
array, a processor computes several at once, five to ten times faster than one after the other."""

from __future__ import annotations

import math

import numpy as np

from everlearn.learners.native.compile import inlined

_MANTISSA = 0x000FFFFFFFFFFFFF
"""The bits of a float64's mantissa."""

_ONE = 0x3FF0000000000000
"""The bits of 1.0."""

_SHIFT = 0x4330000000000000
"""The bits of 2**52: with a whole number below that in its mantissa, it is their sum."""


@inlined
def log2_of(x: float) -> float:
    """log2 x to 1e-12, for x above 0 that is neither subnormal nor infinite: the exponent, and the
    mantissa's logarithm by the series of the inverse hyperbolic tangent."""
    bits = np.float64(x).view(np.int64)
    exponent = np.int64((bits >> 52) | _SHIFT).view(np.float64) - (4503599627370496.0 + 1023.0)
    mantissa = np.int64((bits & _MANTISSA) | _ONE).view(np.float64)
    upper = mantissa > math.sqrt(2.0)
    exponent = exponent + 1.0 if upper else exponent
    mantissa = 0.5 * mantissa if upper else mantissa
    t = (mantissa - 1.0) / (mantissa + 1.0)
    s = t * t
    series = 1.0 / 11.0 + s / 13.0
    series = 1.0 / 7.0 + s * (1.0 / 9.0 + s * series)
    series = 1.0 + s * (1.0 / 3.0 + s * (1.0 / 5.0 + s * series))
    return float(exponent + 2.0 / math.log(2.0) * t * series)


@inlined
def normal_share(z: float) -> float:
    """The share of a standard normal distribution up to z, to 1e-7 (Abramowitz & Stegun 1964,
    "Handbook of mathematical functions", 26.2.17)."""
    a = min(abs(z), 37.0)
    t = 1.0 / (1.0 + 0.2316419 * a)
    tail = t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))
    tail = t * (0.319381530 + t * (-0.356563782 + tail))
    tail *= _exp2(-0.5 / math.log(2.0) * a * a) / math.sqrt(2.0 * math.pi)
    return tail if z < 0.0 else 1.0 - tail


@inlined
def _exp2(y: float) -> float:
    """2**y to 1e-8 of it, for y from −1000 to 1000."""
    whole = math.floor(y + 0.5)
    f = (y - whole) * math.log(2.0)
    series = 1.0 / 24.0 + f * (1.0 / 120.0 + f * (1.0 / 720.0 + f / 5040.0))
    series = 1.0 + f * (1.0 + f * (0.5 + f * (1.0 / 6.0 + f * series)))
    scale = np.int64((np.int64(np.int32(whole)) + 1023) << 52).view(np.float64)
    return float(series * scale)
