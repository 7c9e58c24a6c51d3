"""What a score costs, how steep that is, and how far one row should move the score.

A score is Σ w·x. A loss is a function ℓ(score, y); where it has a constant of its own (Huber's
bend, the quantile, the width of an insensitive band), that is `bend`. Classes are y = 0 and 1.

A row of weight h moves the weights by −rate · pull · x. The explicit pull is h · ∂ℓ/∂score. The
invariant pull is what learning the row as infinitely many rows of infinitely small weight comes
to (Karampatziakis & Langford 2011, "Online importance weight aware updates", theorem 1 and
table 1): no step goes past the minimum of the row's loss, and weight 2 is weight 1 twice. On the
way, the score changes by −pull · `length`, where `length` is rate · Σ x².
"""

from __future__ import annotations

import math

from everlearn.base import Floats
from everlearn.learners.native.compile import inlined, kernel
from everlearn.learners.native.descent.state import INVARIANT, SQUARED_SLACK

SQUARED, HUBER, QUANTILE, POISSON, LOGISTIC, HINGE, INSENSITIVE = range(7)
"""½ (score − y)²; Huber (1964, "Robust estimation of a location parameter", eq. 6); Koenker &
Bassett (1978, "Regression quantiles"); e^score − y · score; log(1 + e^∓score); max(0, 1 ∓ score);
max(0, |score − y| − bend)."""

STEEPEST = 500.0
"""Scores are limited to ± this where they are exponents."""

SMALLEST = 1e-12
"""Where weight · length is less, the invariant pull is the explicit one."""

HEAVIEST = 1e30
"""No row pulls more than this, whatever it weighs."""


@inlined
def value(loss: int, score: float, y: float, bend: float) -> float:
    """The loss of a score."""
    off = score - y
    sign = 2.0 * y - 1.0
    if loss == SQUARED:
        return 0.5 * off * off
    if loss == HUBER:
        return 0.5 * off * off if abs(off) <= bend else bend * (abs(off) - 0.5 * bend)
    if loss == QUANTILE:
        return (1.0 - bend) * off if off > 0.0 else -bend * off
    if loss == POISSON:
        return exponential(score) - y * score
    if loss == LOGISTIC:
        return max(0.0, -sign * score) + math.log1p(math.exp(-abs(score)))
    if loss == HINGE:
        return max(0.0, 1.0 - sign * score)
    return max(0.0, abs(off) - bend)


@inlined
def linked(loss: int, score: float) -> float:
    """What a score predicts: the probability of class 1, the mean of counts, or itself."""
    if loss == LOGISTIC:
        return probability(score)
    if loss == POISSON:
        return exponential(score)
    return score


@inlined
def gradient(loss: int, answer: float, y: float, bend: float) -> float:
    """∂ℓ/∂score, where the answer is the linked score."""
    off = answer - y
    if loss in (SQUARED, POISSON, LOGISTIC):
        return off
    if loss == HUBER:
        return min(max(off, -bend), bend)
    if loss == QUANTILE:
        return 1.0 - bend if off > 0.0 else (-bend if off < 0.0 else 0.0)
    if loss == HINGE:
        sign = 2.0 * y - 1.0
        return -sign if sign * answer < 1.0 else 0.0
    if abs(off) <= bend:
        return 0.0
    return math.copysign(1.0, off)


@inlined
def explicit_pull(
    loss: int, answer: float, y: float, bend: float, weight: float, length: float
) -> float:
    """weight · ∂ℓ/∂score. Of a loss that bends, it is limited to the step of Newton's method where
    it bends most (for squares, normalised least mean squares: Nagumo & Noda 1967), so that nothing
    diverges, however high the rate."""
    slope = gradient(loss, answer, y, bend)
    if loss == LOGISTIC:
        return min(weight, 4.0 / length) * slope
    if loss in (SQUARED, HUBER):
        return min(weight, 1.0 / length) * slope
    if loss == POISSON:
        return min(weight, 1.0 / (length * max(answer, y))) * slope
    return weight * slope


@inlined
def invariant_pull(
    loss: int, score: float, y: float, bend: float, weight: float, length: float
) -> float:
    """The pull of a row learned as infinitely many small ones, in closed form for each loss."""
    time = weight * length
    if time < SMALLEST:
        return weight * gradient(loss, linked(loss, score), y, bend)
    if loss == LOGISTIC:
        sign = 2.0 * y - 1.0
        return -sign * _logistic_way(sign * score, time) / length
    off = score - y
    if loss == SQUARED:
        return -off * math.expm1(-time) / length
    if loss == HUBER:
        return _huber_way(off, bend, time) / length
    if loss == QUANTILE:
        way = min((1.0 - bend) * time, off) if off > 0.0 else max(-bend * time, off)
        return way / length
    if loss == POISSON:
        return _poisson_way(score, y, time) / length
    if loss == HINGE:
        sign = 2.0 * y - 1.0
        return -sign * min(time, max(0.0, 1.0 - sign * score)) / length
    return math.copysign(min(time, max(0.0, abs(off) - bend)), off) / length


@inlined
def squared_slack_pull(
    loss: int, score: float, y: float, bend: float, weight: float, length: float
) -> float:
    """The pull after which ½ |change of the weights|² / rate + weight · ℓ² is least, for the hinge
    and the insensitive loss (PA-II of Crammer et al. 2006, "Online passive-aggressive algorithms",
    eq. 8, where C is rate · weight)."""
    slope = gradient(loss, score, y, bend)
    return slope * value(loss, score, y, bend) / (length + 0.5 / weight)


@kernel
def _logistic_way(margin: float, time: float) -> float:
    """δ ≥ 0 with δ + e^margin (e^δ − 1) = time: how far the logistic loss drives a margin.

    Both addends alone bound δ from above. From the smaller bound, Halley's method falls to it with
    an error that is cubed at every step: the left side is convex.
    """
    margin = min(max(margin, -STEEPEST), STEEPEST)
    base = math.exp(margin)
    way = time / (1.0 + base)
    if way > 1.0:
        way = min(way, math.log(time + base) - margin)
    for _ in range(50):
        risen = base * _expm1(way) if way < 1.0 else math.exp(margin + way) - base
        slope = 1.0 + base + risen
        newton = (way + risen - time) / slope
        step = newton / (1.0 - 0.5 * newton * (base + risen) / slope)
        way -= step
        if abs(step) <= 1e-5 * way:
            break
    return way


@inlined
def _expm1(x: float) -> float:
    """e^x − 1 for x ≥ 0; the first terms of its series where x is small, which is faster."""
    if x > 0.1:
        return math.exp(x) - 1.0
    total = 1.0 + x * (1.0 / 8.0 + x * (1.0 / 72.0 + x / 720.0))
    for n in (7, 6, 5, 4, 3, 2):
        total = 1.0 + x / n * total
    return x * total


@inlined
def _huber_way(off: float, bend: float, time: float) -> float:
    """How far the residual falls: at the speed `bend` down to the bend, exponentially after it."""
    outside = max(0.0, abs(off) - bend)
    if time * bend <= outside:
        return math.copysign(time * bend, off)
    inside = min(abs(off), bend)
    return math.copysign(outside - inside * math.expm1(outside / bend - time), off)


@inlined
def _poisson_way(score: float, y: float, time: float) -> float:
    """How far the score falls: e^−score nears 1/y exponentially, at the speed y."""
    mean = exponential(score)
    if y == 0.0:
        return math.log1p(min(mean * time, 1e300))
    share = (mean - y) / y * -math.expm1(-y * time)
    return math.log1p(min(max(share, -1.0 + 2.0**-52), 1e300))


@inlined
def probability(score: float) -> float:
    """1 / (1 + e^−score)."""
    return 1.0 / (1.0 + math.exp(-score))


@inlined
def exponential(score: float) -> float:
    """e^score, finite."""
    return math.exp(min(max(score, -STEEPEST), STEEPEST))


# --- several scores at once --------------------------------------------------------------------


@inlined
def softmax(scores: Floats, out: Floats) -> None:
    """(k,) scores into probabilities, e^score over the sum of all."""
    largest = scores[0]
    for o in range(1, len(scores)):
        largest = max(largest, scores[o])
    total = 0.0
    for o in range(len(scores)):
        out[o] = math.exp(scores[o] - largest)
        total += out[o]
    for o in range(len(scores)):
        out[o] /= total


@inlined
def softmax_pulls(
    scores: Floats, y: int, weight: float, length: float, invariant: bool, pulls: Floats
) -> None:
    """(k,) pulls of the loss −log softmax(scores)[y].

    Explicitly weight · (probability − [class is y]), limited as other steps are. Invariantly, the
    other classes keep their shares among themselves while y's score moves away from theirs: exact
    for two classes.
    """
    softmax(scores, pulls)
    chance = pulls[y]
    pulls[y] = 0.0
    rest = 0.0
    for o in range(len(scores)):
        rest += pulls[o]
    if rest <= 0.0:
        return
    squares = 1.0
    for o in range(len(scores)):
        squares += (pulls[o] / rest) ** 2
    time = weight * length * squares
    strength = min(weight, 2.0 / length) * rest
    if invariant and time >= SMALLEST:
        margin = math.log(chance / rest) if chance > 0.0 else -STEEPEST
        strength = _logistic_way(margin, time) / (length * squares)
    for o in range(len(scores)):
        pulls[o] *= strength / rest
    pulls[y] = -strength


@inlined
def hinge_pulls(
    scores: Floats, y: int, weight: float, length: float, update: int, pulls: Floats
) -> None:
    """(k,) pulls of max(0, 1 + largest other score − scores[y]) (Crammer & Singer 2001, "On the
    algorithmic implementation of multiclass kernel-based vector machines", eq. 4)."""
    rival = 0 if y else 1
    for o in range(len(scores)):
        pulls[o] = 0.0
        if o != y and scores[o] > scores[rival]:
            rival = o
    slack = max(0.0, 1.0 + scores[rival] - scores[y])
    strength = weight if slack > 0.0 else 0.0
    if update == INVARIANT:
        strength = min(weight, slack / (2.0 * length))
    elif update == SQUARED_SLACK:
        strength = slack / (2.0 * length + 0.5 / weight)
    pulls[y], pulls[rival] = -strength, strength
