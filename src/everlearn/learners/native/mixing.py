"""How the answers of experts become one, and how each row changes what they weigh.

Every expert e has a weight for each of some shares α; all weights sum to 1. After a learned row,

    w[α, e] ← w[α, e] exp(−η loss[e]) / Σ,    then    w[α, e] ← (1 − α) w[α, e] + α Σ_e w[α, e] / N

with a learning rate η. The second step keeps an expert that was bad so far from being forgotten, so
that it is followed soon after it has become good; the shares compete with each other as the experts
do. What the experts say is averaged by their weights, summed over the shares.
"""

from __future__ import annotations

import math

import numpy as np

from everlearn.base import Array, Floats, Ints
from everlearn.learners.native.compile import exact_kernel, inlined, kernel, lean_kernel

LEAST = 1e-100
"""No weight of classes falls below it: after any row, each can still rise again."""

LOWEST = -1e12
"""No logarithm of a weight of values falls below it, for the same reason."""

UNLIKELY = 1e-15
"""A probability that is lower counts as this."""

STEP = 0.3
"""Of the powers to which probabilities are raised."""

LOWEST_POWER, HIGHEST_POWER = 0.01, 100.0

FAR = 1e100
"""A distance that is larger counts as this, so that its square is finite."""

MOST = 1e280
"""So does a loss, so that their sum is."""


@lean_kernel
def mix_classes(
    advice: Array,
    y: Ints,
    weight: Floats,
    rate: float,
    shares: Floats,
    weights: Floats,
    room: Floats,
    out: Floats,
) -> None:
    """Blend probabilities row by row; the loss of an expert is −log of what it gave the class.

    What is only to be predicted weighs 0: through another kernel, sums might be rounded another
    way.

    Args:
        advice: (N, n, k) the experts' probabilities, each made before its row was learned.
        y, weight, out: as for `Native._learn`.
        rate: η.
        shares: (A,) every α.
        weights: (A, N) updated.
        room: (2, N) to write to.
    """
    experts = weights.shape[1]
    _sum_up(weights, room)
    for i in range(len(y)):
        if i < out.shape[0]:
            for code in range(advice.shape[2]):
                blended = 0.0
                for e in range(experts):
                    blended += room[0, e] * advice[e, i, code]
                out[i, code] = blended
        w = weight[i] if len(weight) else 1.0
        if w == 0.0:
            continue
        power, best = rate * w, UNLIKELY
        for e in range(experts):
            best = max(best, advice[e, i, y[i]])
        for e in range(experts):
            chance = max(advice[e, i, y[i]], UNLIKELY)
            ratio = chance / best if chance < best else 1.0
            room[1, e] = ratio if power == 1.0 else ratio**power
        total = 0.0
        for a in range(len(shares)):
            for e in range(experts):
                weights[a, e] *= room[1, e]
                total += weights[a, e]
        _share(weights, shares, 1.0 / total)
        _sum_up(weights, room)


@lean_kernel
def mix_values(
    advice: Array,
    y: Floats,
    weight: Floats,
    rate: float,
    shares: Floats,
    weights: Floats,
    beliefs: Floats,
    above: Floats,
    room: Floats,
    out: Floats,
) -> None:
    """Blend values row by row; the loss of an expert is its squared error.

    With `rate` 0, η is log (A N) / Δ, where Δ sums by how much the blend's loss was above what
    weights and losses allow for, −log Σ w exp(−η loss) / η, in the rows so far. It falls only when
    it has to, and no unit of the target matters (AdaHedge: de Rooij et al. 2014, section 2.2);
    weights are even until Δ is above 0.

    Args:
        advice: (N, n, 1) the experts' values, each made before its row was learned.
        y, weight, out: as for `Native._learn`.
        rate, shares: η, and (A,) every α.
        weights: (A, N) updated.
        beliefs: (A, N) their logarithms, updated: no weight is so small that it is forgotten.
        above: (1,) Δ, updated.
        room: (2, N) to write to.
    """
    experts = weights.shape[1]
    evenly = math.log(weights.size)
    _sum_up(weights, room)
    for i in range(len(y)):
        blended = 0.0
        for e in range(experts):
            blended += room[0, e] * advice[e, i, 0]
        if i < out.shape[0]:
            out[i, 0] = blended
        w = weight[i] if len(weight) else 1.0
        if w == 0.0:
            continue
        if experts == 1:
            continue
        best = np.inf
        for e in range(experts):
            room[1, e] = _loss(w, y[i] - advice[e, i, 0])
            best = min(best, room[1, e])
        allowed = best
        eta = rate if rate > 0.0 else evenly / above[0]
        if eta < np.inf:
            for a in range(len(shares)):
                for e in range(experts):
                    beliefs[a, e] -= eta * (room[1, e] - best)
            allowed -= _normalize(weights, beliefs) / eta
            _share(weights, shares, 1.0)
            _believe(weights, beliefs, shares)
        more = _loss(w, y[i] - blended) - allowed
        if rate == 0.0 and more > 0.0:
            above[0] = min(above[0] + more, MOST)
            if eta < np.inf:
                _cool(beliefs, evenly / above[0] / eta)
                _normalize(weights, beliefs)
        _sum_up(weights, room)


@inlined
def _loss(weight: float, apart: float) -> float:
    apart = min(abs(apart), FAR)
    return min(weight * apart * apart, MOST)


@inlined
def _sum_up(weights: Floats, room: Floats) -> None:
    """Row 0 of (2, N) room: the weight of each expert, over all shares."""
    for e in range(weights.shape[1]):
        room[0, e] = weights[0, e]
    for a in range(1, weights.shape[0]):
        for e in range(weights.shape[1]):
            room[0, e] += weights[a, e]


@inlined
def _share(weights: Floats, shares: Floats, scale: float) -> None:
    """Multiply (A, N) weights, so that they sum to 1; spread of each row its share evenly."""
    experts = weights.shape[1]
    for a in range(len(shares)):
        own = 0.0
        for e in range(experts):
            weights[a, e] = max(weights[a, e] * scale, LEAST)
            own += weights[a, e]
        for e in range(experts):
            weights[a, e] = (1.0 - shares[a]) * weights[a, e] + shares[a] * own / experts


@inlined
def _normalize(weights: Floats, beliefs: Floats) -> float:
    """Make weights of (A, N) beliefs; returns the logarithm of what they summed up to."""
    highest = -np.inf
    for a in range(weights.shape[0]):
        for e in range(weights.shape[1]):
            highest = max(highest, beliefs[a, e])
    total = 0.0
    for a in range(weights.shape[0]):
        for e in range(weights.shape[1]):
            weights[a, e] = math.exp(beliefs[a, e] - highest)
            total += weights[a, e]
    summed = highest + math.log(total)
    for a in range(weights.shape[0]):
        for e in range(weights.shape[1]):
            weights[a, e] /= total
            beliefs[a, e] = max(beliefs[a, e] - summed, LOWEST)
    return summed


@inlined
def _believe(weights: Floats, beliefs: Floats, shares: Floats) -> None:
    """Take the logarithms of weights that were shared."""
    for a in range(len(shares)):
        if shares[a] > 0.0:
            for e in range(weights.shape[1]):
                beliefs[a, e] = math.log(weights[a, e])


@inlined
def _cool(beliefs: Floats, ratio: float) -> None:
    """What beliefs would be, had η always been `ratio` times what it was."""
    for a in range(beliefs.shape[0]):
        for e in range(beliefs.shape[1]):
            beliefs[a, e] *= ratio


@exact_kernel
def sum_log_losses(advice: Array, y: Ints, weight: Floats, losses: Floats) -> None:
    """Add to (N,) losses those of (N, n, k) probabilities, in the order of rows."""
    for i in range(len(y)):
        w = weight[i] if len(weight) else 1.0
        if w > 0.0:
            for e in range(len(losses)):
                losses[e] -= w * math.log(max(advice[e, i, y[i]], UNLIKELY))


@exact_kernel
def sum_squares(advice: Array, y: Floats, weight: Floats, losses: Floats) -> None:
    """Add to (N,) losses those of (N, n, 1) values, in the order of rows."""
    for i in range(len(y)):
        w = weight[i] if len(weight) else 1.0
        for e in range(len(losses)):
            losses[e] = min(losses[e] + _loss(w, y[i] - advice[e, i, 0]), MOST)


@kernel
def vote(
    scores: Floats, y: Ints, weight: Floats, outputs: int, record: Floats, out: Floats
) -> None:
    """Probabilities for an expert that only names classes: by how often it was right so far.

    Args:
        scores: (n, k) whose largest is the class that is named, or (n, 1), above 0 for code 1.
        y, weight: as for `Native._learn`; (0,) where nothing is learned.
        record: (2,) rows so far, and those it was right about; updated.
        out: (n, ≥ outputs) filled.
    """
    for i in range(scores.shape[0]):
        named = 0
        if scores.shape[1] == 1:
            named = int(scores[i, 0] > 0.0)
        else:
            for code in range(1, outputs):
                if scores[i, code] > scores[i, named]:
                    named = code
        right = (record[1] + 1.0) / (record[0] + outputs)
        for code in range(outputs):
            out[i, code] = right if code == named else (1.0 - right) / (outputs - 1)
        if len(y):
            w = weight[i] if len(weight) else 1.0
            record[0] += w
            if y[i] == named:
                record[1] += w


@lean_kernel
def temper(
    advice: Array, y: Ints, weight: Floats, by_row: bool, powers: Floats, out: Array
) -> None:
    """Raise the probabilities of each expert to a power of its own, and scale them to sum 1: too
    sure ones become less so, too timid ones more. The power goes down the gradient of the log loss
    (AdaGrad: Duchi et al. 2011, "Adaptive subgradient methods for online learning").

    Args:
        advice: (N, n, k) probabilities.
        y, weight: as for `Native._learn`; (0,) where nothing is learned.
        by_row: whether powers move after every row, rather than by `move_powers`.
        powers: (N, 3) the powers, their squared slopes so far, and the slopes since the last
            move added up; updated.
        out: (N, n, k) filled.
    """
    experts, rows, outputs = advice.shape
    for e in range(experts):
        for i in range(rows):
            top = 0.0
            for code in range(outputs):
                top = max(top, advice[e, i, code])
            total = mean = 0.0
            for code in range(outputs):
                apart = _behind(advice[e, i, code], top)
                chance = math.exp(powers[e, 0] * apart)
                out[e, i, code] = chance
                total += chance
                mean += chance * apart
            for code in range(outputs):
                out[e, i, code] /= total
            w = 0.0
            if len(y):
                w = weight[i] if len(weight) else 1.0
            if w > 0.0:
                slope = min(w, FAR) * (mean / total - _behind(advice[e, i, y[i]], top))
                if by_row:
                    _move_power(powers, e, slope)
                else:
                    powers[e, 2] += slope


@lean_kernel
def move_powers(powers: Floats, share: float) -> None:
    """One step for all rows since the last one, whose slopes are added up, each by this share: rows
    of one version are alike, and would move a power as far as thousands of others."""
    for e in range(powers.shape[0]):
        _move_power(powers, e, share * powers[e, 2])
        powers[e, 2] = 0.0


@inlined
def _move_power(powers: Floats, e: int, slope: float) -> None:
    powers[e, 1] = min(powers[e, 1] + slope * slope, MOST)
    if powers[e, 1] > 0.0:
        moved = powers[e, 0] - STEP * slope / math.sqrt(powers[e, 1])
        powers[e, 0] = min(max(moved, LOWEST_POWER), HIGHEST_POWER)


@inlined
def _behind(chance: float, top: float) -> float:
    """The logarithm of a probability's ratio to the highest one."""
    return math.log(max(chance, UNLIKELY) / top) if chance < top else 0.0


@kernel
def waves_of(phases: Floats, out: Floats) -> None:
    """Sines and cosines, (n, 2 r), of (n, r) places in a day, a week or a year."""
    for i in range(phases.shape[0]):
        for j in range(phases.shape[1]):
            angle = 2.0 * np.pi * phases[i, j]
            out[i, 2 * j] = np.sin(angle)
            out[i, 2 * j + 1] = np.cos(angle)
