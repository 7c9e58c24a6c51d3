"""How a weight moves by its gradient, and how penalties draw it to 0.

Each optimizer is a function of one weight, of what is remembered of its gradients (`first`,
`second`) and of its present gradient.
"""

from __future__ import annotations

import math

import numpy as np

from everlearn.base import Floats
from everlearn.learners.native.compile import inlined

SGD, ADAGRAD, ADAM, FTRL = range(4)

MEMORIES = (0, 1, 2, 2)
"""Numbers that each optimizer remembers for a weight."""

EPSILON = 1e-8
"""Keeps AdaGrad and Adam from dividing by 0."""

BETA_1, BETA_2 = 0.9, 0.999
"""How slowly Adam's means of gradients and of their squares forget."""

BETA = 1.0
"""FTRL's first divisor of the rate."""


@inlined
def scheduled(rate: float, power: float, horizon: float, rows: float) -> float:
    """The rate for the next row, rate / t^power, where t counts rows up to the horizon (Zinkevich
    2003, "Online convex programming", theorem 1: power ½ for convex losses)."""
    if power == 0.0:
        return rate
    t = min(rows + 1.0, horizon)
    if power == 0.5:
        return rate / math.sqrt(t)
    return rate * t**-power  # type: ignore[no-any-return]


@inlined
def adagrad(weight: float, first: float, gradient: float, rate: float) -> tuple[float, float]:
    """(weight, first): Duchi, Hazan & Singer 2011, "Adaptive subgradient methods for online
    learning and stochastic optimization", section 1.1, with a diagonal matrix."""
    first += gradient * gradient
    return weight - rate * gradient / math.sqrt(first + EPSILON), first


@inlined
def adam(
    weight: float, first: float, second: float, gradient: float, rate: float
) -> tuple[float, float, float]:
    """(weight, first, second): Kingma & Ba 2015, "Adam: a method for stochastic optimization",
    algorithm 1 as in its section 2's last paragraph: `rate` includes the correction of biases."""
    first = BETA_1 * first + (1.0 - BETA_1) * gradient
    second = BETA_2 * second + (1.0 - BETA_2) * gradient * gradient
    return weight - rate * first / (math.sqrt(second) + EPSILON), first, second


@inlined
def ftrl(
    weight: float,
    first: float,
    second: float,
    gradient: float,
    rate: float,
    unit: float,
    l1: float,
    l2: float,
) -> tuple[float, float, float]:
    """(weight, z, n): McMahan et al. 2013, "Ad click prediction: a view from the trenches",
    algorithm 1, FTRL-Proximal; its α is `rate`. Weights, z and λ₁ are in units of the target."""
    total = second + gradient * gradient
    first += unit * gradient - (math.sqrt(total) - math.sqrt(second)) / rate * weight
    return ftrl_weight(first, total, rate, unit * l1, l2), first, total


@inlined
def ftrl_weight(first: float, second: float, rate: float, l1: float, l2: float) -> float:
    """The weight that z and n stand for."""
    if abs(first) <= l1:
        return 0.0
    return (math.copysign(l1, first) - first) / ((BETA + math.sqrt(second)) / rate + l2)


def ftrl_first(weight: Floats, second: Floats, rate: float, l1: float, l2: float) -> Floats:
    """The z that, with these n, stand for weights: the inverse of `ftrl_weight`."""
    size = np.abs(weight) * ((BETA + np.sqrt(second)) / rate + l2) + l1
    return np.where(weight == 0.0, 0.0, -np.copysign(size, weight))


@inlined
def shrinkage(time: float, l1: float, l2: float) -> tuple[float, float]:
    """(factor, fall) of weights after `time` (a sum of rates) under l1 · |w| + ½ l2 · w² alone.

    The flow dw/dt = −l2 · w − l1 · sign(w) solved exactly. Its steps add up: a weight that was left
    alone for many rows is caught up in one step when it is needed (as in Langford, Li & Zhang 2009,
    "Sparse online learning via truncated gradient", section 5, and Tsuruoka, Tsujii & Ananiadou
    2009, "Stochastic gradient descent training for L1-regularized log-linear models", section 3).
    """
    if l2 == 0.0:
        return 1.0, l1 * time
    lost = -math.expm1(-l2 * time)
    return 1.0 - lost, l1 * lost / l2


@inlined
def shrunk(weight: float, factor: float, fall: float) -> float:
    """A weight drawn towards 0, not past it."""
    return math.copysign(max(0.0, abs(weight) * factor - fall), weight)
