"""Kolmogorov–Smirnov windowing.

Raab, Heusinger & Schleif 2020, "Reactive soft prototype computing for concept drift streams", §3.2.
"""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np

from everlearn.base import Array, Floats, InputError, Ints, Part, SpecError
from everlearn.learners.native.compile import kernel
from everlearn.learners.native.drift.detector import LIMIT, Detector, above, share

(HELD, OLDEST, DRIFT) = range(3)
WORDS = 624
"""Of the state of the Mersenne twister; the next word to draw stands behind them."""


class KSWIN(Detector):
    """Kolmogorov–Smirnov windowing: the latest values are of another distribution than as many that
    are drawn at random from those before them, in a sliding window.

    It draws as Python's `random.sample` does, and its test is exact (two-sided, of two samples of
    the same size).

    Args:
        alpha: the chance of an alarm at any value where nothing changes; 0 to 1. A small one is
            wanted, since there is a test at every value.
        window_size: values in the window, at least twice `stat_size`.
        stat_size: how many are the latest, and how many are drawn.
        seed: of the draws; they begin anew with it after each alarm. None is 0.

    Raises:
        SpecError: a parameter out of its range.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> detector = KSWIN(alpha=0.0001)
        >>> detector.update(np.append(random.normal(0, 1, 1000), random.normal(2, 1, 1000)))
        array([1016])
    """

    def __init__(
        self,
        alpha: float = 0.005,
        *,
        window_size: int = 100,
        stat_size: int = 30,
        seed: int | None = None,
    ) -> None:
        self.alpha = alpha
        self.window_size = window_size
        self.stat_size = stat_size
        self.seed = seed
        super().__init__()
        self._least = _critical(stat_size, alpha)
        self._start = self._arrays["twister"].copy()
        self._marks = np.zeros(window_size, np.int64)
        self._pool = np.zeros(window_size, np.int64)

    @property
    def drift_detected(self) -> bool:
        """Whether the last number raised an alarm."""
        return bool(self._arrays["places"][DRIFT])

    def _begin(self) -> dict[str, Array]:
        share(alpha=self.alpha)
        above(0, stat_size=self.stat_size)
        if self.window_size < 2 * self.stat_size:
            raise SpecError(
                f"window_size is {self.window_size}; it must be at least 2 · {self.stat_size}"
            )
        words = random.Random(self.seed or 0).getstate()[1]
        return {
            "window": np.zeros(self.window_size),
            "order": np.zeros(self.window_size, np.int64),
            "places": np.zeros(3, np.int64),
            "twister": np.array(words, np.uint32),
        }

    def load(self, part: Part) -> None:
        """Become what `save` saw; the parameters stay those of this one.

        Raises:
            InputError: the part is of another detector, or none that a kernel could go on with.
        """
        super().load(part)
        order, places, twister = (self._arrays[name] for name in ("order", "places", "twister"))
        held, size = places[HELD], len(order)
        listed = np.arange(held) if 0 <= held <= size else None
        if (
            listed is None
            or not np.array_equal(np.sort(order[:held]), listed)
            or not 0 <= places[OLDEST] < (size if held == size else 1)
            or not (twister[1:WORDS].any() or twister[0] >> 31)  # from there, all words are 0
        ):
            self._arrays = self._begin()
            raise InputError("the state of KSWIN is broken: no window has such places")

    def _run(self, values: Floats, alarms: Ints) -> int:
        arrays = self._arrays
        return _run(
            values,
            alarms,
            arrays["window"],
            arrays["order"],
            arrays["places"],
            arrays["twister"],
            self._start,
            self._marks,
            self._pool,
            int(self.stat_size),
            self._least,
        )


def _critical(n: int, alpha: float) -> int:
    """The least k for which max |F0 − F1| = k / n of two samples of n raises an alarm: the chance
    of it or more is at most `alpha` (Gnedenko & Korolyuk 1951), and k / n is above 0.1.

    n + 1 where there is none.
    """
    whole = math.comb(2 * n, n)
    low, high = 1, n + 1
    while low < high:
        k = (low + high) // 2
        beyond = 2 * sum(
            (-1) ** (i - 1) * math.comb(2 * n, n + i * k) for i in range(1, n // k + 1)
        )
        if Fraction(beyond, whole) <= Fraction(alpha):
            high = k
        else:
            low = k + 1
    while low <= n and not low / n > 0.1:
        low += 1
    return low


@kernel
def _run(
    values: Floats,
    alarms: Ints,
    window: Floats,
    order: Ints,
    places: Ints,
    twister: Array,
    start: Array,
    marks: Ints,
    pool: Ints,
    recent: int,
    least: int,
) -> int:
    """`order` lists the places in `window` by what is there; `marks` and `pool` are scratch."""
    count, size = 0, len(window)
    for index in range(len(values)):
        if math.isnan(values[index]):
            continue
        if places[DRIFT]:
            places[:] = 0
            twister[:] = start
        _slide(window, order, places, min(max(values[index], -LIMIT), LIMIT))
        if places[HELD] < size:
            continue
        oldest = places[OLDEST]
        marks[:] = 0
        for age in range(size - recent, size):
            marks[_wrapped(oldest + age, size)] = -1
        _sample(twister, pool, marks, oldest, size - recent, recent)
        if _statistic(window, order, marks) >= least:
            places[DRIFT] = 1
            alarms[count] = index
            count += 1
    return count


@kernel
def _wrapped(place: int, size: int) -> int:
    return place - size if place >= size else place


@kernel
def _slide(window: Floats, order: Ints, places: Ints, value: float) -> None:
    """The value takes the place of the oldest, in the window and in the order."""
    size, held, place = len(window), places[HELD], places[OLDEST]
    if held == size:
        places[OLDEST] = _wrapped(place + 1, size)
        at = 0
        while order[at] != place:
            at += 1
        while at + 1 < size and window[order[at + 1]] < value:
            order[at] = order[at + 1]
            at += 1
    else:
        at = place = held
        places[HELD] = held + 1
    while at > 0 and window[order[at - 1]] > value:
        order[at] = order[at - 1]
        at -= 1
    order[at] = place
    window[place] = value


@kernel
def _sample(twister: Array, pool: Ints, marks: Ints, oldest: int, population: int, n: int) -> None:
    """Mark n of the oldest `population` places with 1, those that `random.sample` would choose."""
    size = len(marks)
    if population <= _set_size(n):
        for age in range(population):
            pool[age] = _wrapped(oldest + age, size)
        for drawn in range(n):
            at = _below(twister, population - drawn)
            marks[pool[at]] = 1
            pool[at] = pool[population - drawn - 1]
        return
    for _ in range(n):
        place = _wrapped(oldest + _below(twister, population), size)
        while marks[place] == 1:
            place = _wrapped(oldest + _below(twister, population), size)
        marks[place] = 1


@kernel
def _set_size(n: int) -> int:
    """Up to which population `random.sample` draws from a list."""
    size = 21
    if n > 5:
        power = 1
        while power < 3 * n:
            power *= 4
        size += power
    return size


@kernel
def _below(twister: Array, n: int) -> int:
    """A number from 0 to n − 1: as many bits as n has, until they are below it."""
    bits = 0
    while n >> bits:
        bits += 1
    while True:
        drawn = np.int64(_next_word(twister) >> np.uint32(32 - bits))
        if drawn < n:
            return drawn  # type: ignore[return-value]


@kernel
def _next_word(twister: Array) -> int:
    """32 bits of MT19937 (Matsumoto & Nishimura 1998, "Mersenne twister")."""
    at = np.int64(twister[WORDS])
    if at >= WORDS:
        _twist(twister)
        at = np.int64(0)
    twister[WORDS] = at + 1
    word = twister[at]
    word ^= word >> np.uint32(11)
    word ^= (word << np.uint32(7)) & np.uint32(0x9D2C5680)
    word ^= (word << np.uint32(15)) & np.uint32(0xEFC60000)
    return np.uint32(word ^ (word >> np.uint32(18)))  # type: ignore[return-value]


@kernel
def _twist(twister: Array) -> None:
    """The next 624 words."""
    for k in range(WORDS):
        following = twister[k + 1 if k + 1 < WORDS else 0]
        joined = (twister[k] & np.uint32(0x80000000)) | (following & np.uint32(0x7FFFFFFF))
        word = twister[k + 397 if k + 397 < WORDS else k + 397 - WORDS] ^ (joined >> np.uint32(1))
        if joined & np.uint32(1):
            word ^= np.uint32(0x9908B0DF)
        twister[k] = word


@kernel
def _statistic(window: Floats, order: Ints, marks: Ints) -> int:
    """n · max |F0 − F1| of the places marked 1 and −1; equal values count together."""
    ahead = most = 0
    for at in range(len(order)):
        ahead += marks[order[at]]
        if at + 1 == len(order) or window[order[at + 1]] > window[order[at]]:
            most = max(most, abs(ahead))
    return most
