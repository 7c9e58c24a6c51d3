"""Bernoulli naive Bayes over the words of sparse rows.

A row tells by the words that it lacks as well, and those are nearly the whole vocabulary. The sum
of log(t − w) over all words, where t is the class's count + alpha and w the weight of its rows with
the word, is kept up at the cost of the row's own words: it is log t for each word, plus

    log(1 − w/t) = −Σ (w/t)^m / m, m = 1, 2 …    for words in up to a quarter of the rows, whose
                                                 powers (w/scale)^m are summed up
    log(1 − w/t) itself                          for the others, of which a list is kept.

The series ends after 16 powers, with an error below 5e-12 for a word in a quarter of the rows, and
far smaller for a rarer one. The scale is a power of 2, at most t and above t/2; when it moves on,
sums and list are made anew of all words, at a cost that is small for each of the rows between.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from everlearn.base import Array, Floats, InputError, Ints
from everlearn.learners.native.bayes.buckets import SMALLEST
from everlearn.learners.native.bayes.posterior import normalise
from everlearn.learners.native.bayes.words import (
    Words,
    is_known,
    longest_row,
    meet,
    place_of,
    words_of,
)
from everlearn.learners.native.compile import kernel

POWERS = 16
"""Terms of the series."""


class Presence(NamedTuple):
    """What is kept of the words of k classes.

    Args:
        scale: (k,) by what weights are measured.
        powers: (k, 16) sums over the rarer words of (w/scale)^m, m = 1 … 16.
        frequent: (k, room) places of the words of weight above scale/4.
        frequents: (k,) how many those are.
    """

    scale: Floats
    powers: Floats
    frequent: Ints
    frequents: Ints


def begin_presence(classes: int, room: int) -> dict[str, Array]:
    """The arrays of `Presence`, of no words."""
    return {
        "scale": np.zeros(classes),
        "powers": np.zeros((classes, POWERS)),
        "frequent": np.zeros((classes, room), np.int64),
        "frequents": np.zeros(classes, np.int64),
    }


def presence_of(state: dict[str, Array]) -> Presence:
    """What a state keeps of words."""
    return Presence(state["scale"], state["powers"], state["frequent"], state["frequents"])


def derived_presence(state: dict[str, Array], alpha: float) -> dict[str, Array]:
    """The arrays of `Presence` for the words and counts of a state."""
    totals = state["counts"] + alpha
    room = int((state["weights"] > 0.125 * totals).sum(axis=0).max())  # scale/4 is above this
    presence = begin_presence(len(totals), room)
    for c in np.flatnonzero(state["counts"]):
        rescale(words_of(state), presence_of(presence), int(c), float(totals[c]))
    return presence


def fitting_presence(state: dict[str, Array], alpha: float) -> dict[str, Array]:
    """What a state that was saved keeps of words; made anew where it is by the scale of an alpha so
    large that for this one the series would not end after so few powers.

    Raises:
        InputError: words are said to be frequent that are not, by their weights.
    """
    presence = presence_of(state)
    frequent = (state["weights"] > 0.25 * presence.scale).sum(axis=0)
    if (frequent != presence.frequents).any():
        raise InputError(
            f"{presence.frequents} words are frequent, but {frequent} by their weights"
        )
    if (presence.scale > 1.001 * (state["counts"] + alpha)).any():  # but for rounding, never above
        return derived_presence(state, alpha)
    return presence._asdict()


@kernel
def learn_presence(
    starts: Ints,
    places: Ints,
    values: Floats,
    y: Ints,
    weight: Floats,
    threshold: float,
    state: Any,
    alpha: float,
    marks: Array,
    start: int,
    out: Floats,
) -> int:
    """Predict sparse rows from `start` on into (m, k), each before it is learned; returns how many
    are done when there is no room for more frequent words. `marks` (width,) is all False, and is so
    again in the end.

    `state` is a plain tuple, which is handed over faster: the weights (k,) of the classes, and the
    arrays of `Words` and of `Presence`.
    """
    counts, words, presence = state[0], Words(*state[1:4]), Presence(*state[4:8])
    found = np.empty(longest_row(starts), np.int64)
    for i in range(start, len(starts) - 1):
        n = find_present(starts, places, values, i, threshold, marks, found)
        if i < len(out):
            for c in range(len(counts)):
                if counts[c] > 0.0:
                    out[i, c] = math.log(counts[c])
                    out[i, c] += log_odds(words, found, n, c, counts[c], alpha)
                    out[i, c] += log_absence(words, presence, c, counts[c], alpha)
            normalise(out, i, counts)
        w = weight[i] if len(weight) else 1.0
        if w == 0.0:
            continue
        c = y[i]
        if presence.frequents[c] + n > presence.frequent.shape[1]:
            return i
        counts[c] += w
        if counts[c] + alpha >= 2.0 * presence.scale[c]:
            rescale(words, presence, c, counts[c] + alpha)
        for s in range(n):
            meet(words, found[s], c)
            add_present(words, presence, c, found[s], w)
    return len(starts) - 1


@kernel
def find_present(
    starts: Ints, places: Ints, values: Floats, i: int, threshold: float, marks: Array, found: Ints
) -> int:
    """Fill `found` with the places of a row's words, each once; returns how many there are."""
    n = 0
    for s in range(starts[i], starts[i + 1]):
        place = place_of(places[s], len(marks))
        if values[s] > threshold and not marks[place]:
            marks[place] = True
            found[n] = place
            n += 1
    for s in range(n):
        marks[found[s]] = False
    return n


@kernel
def log_odds(words: Words, found: Ints, n: int, c: int, count: float, alpha: float) -> float:
    """The logarithm of the odds of a row's words in class c, as far as they are known."""
    odds, logarithm = 1.0, 0.0
    for s in range(n):
        w = words.weights[found[s], c]
        if w == 0.0 and not is_known(words, found[s]):
            continue
        odds *= (w + alpha) / (max(count - w, 0.0) + alpha)
        if odds < SMALLEST or odds > 1.0 / SMALLEST:
            logarithm += math.log(odds)
            odds = 1.0
    return logarithm + math.log(odds)


@kernel
def log_absence(words: Words, presence: Presence, c: int, count: float, alpha: float) -> float:
    """The logarithm of the probability in class c of a row without any word."""
    t = count + alpha
    ratio, power, series = presence.scale[c] / t, 1.0, 0.0
    for m in range(POWERS):
        power *= ratio
        series += presence.powers[c, m] * power / (m + 1)
    share, logarithm = 1.0, 0.0
    for s in range(presence.frequents[c]):
        w = words.weights[presence.frequent[c, s], c]
        share *= (max(count - w, 0.0) + alpha) / t
        if share < SMALLEST:
            logarithm += math.log(share)
            share = 1.0
    of_each = math.log(t / (t + alpha))
    return logarithm + math.log(share) - series + int(words.size[0]) * of_each


@kernel
def add_present(words: Words, presence: Presence, c: int, place: int, weight: float) -> None:
    """Add to the weight of a word in class c, and to what is kept of it."""
    before = words.weights[place, c]
    after = before + weight
    words.weights[place, c] = after
    scale = presence.scale[c]
    if before > 0.25 * scale:
        return
    if after > 0.25 * scale:
        presence.frequent[c, presence.frequents[c]] = place
        presence.frequents[c] += 1
        after = 0.0
    add_powers(presence, c, before / scale, after / scale)


@kernel
def add_powers(presence: Presence, c: int, before: float, after: float) -> None:
    """Put the powers of one number in the place of another's."""
    old, new = 1.0, 1.0
    for m in range(POWERS):
        old *= before
        new *= after
        presence.powers[c, m] += new - old


@kernel
def rescale(words: Words, presence: Presence, c: int, t: float) -> None:
    """Measure the words of class c by the power of 2 up to t."""
    scale = 2.0 ** math.floor(math.log2(t))
    presence.scale[c] = scale
    presence.powers[c] = 0.0
    presence.frequents[c] = 0
    for s in range(words.size[0]):
        place = words.seen[s]
        w = words.weights[place, c]
        if w > 0.25 * scale:
            presence.frequent[c, presence.frequents[c]] = place
            presence.frequents[c] += 1
        elif w > 0.0:
            add_powers(presence, c, 0.0, w / scale)
