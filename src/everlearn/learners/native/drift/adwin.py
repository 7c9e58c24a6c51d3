"""Adaptive windowing.

Bifet & Gavaldà 2007, "Learning from time-changing data with adaptive windowing", ADWIN2 (§4).

An ADWIN is a row of a 2-D array, so that a tree or a forest can hold many: `adwin_begin(states,
row, …)`, then `adwin_update(states, row, value)` for each value, both inside kernels. A row is

    HEAD numbers                what has been seen, and the parameters (the names below)
    level 0, 1, 2, …            running sums at every value, every 2nd, every 4th, …: the latest
                                `ring` of them, then as many running sums of squares

The paper keeps the sum of each bucket of 2^level values and adds two of them to merge them. A
running sum at a bucket's end says the same, and nothing is added when buckets merge: the end of the
merged one is already there, at the next level. Which buckets there are follows from the number
of values alone. All sums are of differences from the first value, which keeps them exact.
"""

from __future__ import annotations

import math

import numpy as np

from everlearn.base import Array, Floats, InputError, Ints, Part
from everlearn.learners.native.compile import lean_kernel
from everlearn.learners.native.drift.detector import LIMIT, Detector, above, share

HEAD = 17
"""Numbers before level 0."""

(
    SEEN,  # values since the beginning, or since the last drift
    TOTAL,  # their sum, less the first value each
    SQUARES,  # the sum of the squares of the same
    FIRST,  # the first value
    LEFT,  # values until the next check
    CUT,  # how many of the oldest are no longer in the window
    CUT_TOTAL,
    CUT_SQUARES,
    DRIFT,  # 1 if the last value raised an alarm
    ROOM,  # from so many values on, the highest level may be full
    DELTA,
    CLOCK,
    MAX_BUCKETS,
    MIN_WINDOW,
    GRACE,
    RING,
    SPREAD,  # the least that the d of `_suspect` can be
) = range(HEAD)

PARAMETERS = slice(ROOM, HEAD)
"""Places of what is not learned: `adwin_begin` says it, and a state from elsewhere may not."""

LEVELS = 32
"""A window of 5 · 2**32 values; older ones are forgotten."""


def adwin_size(levels: int = LEVELS, max_buckets: int = 5) -> int:
    """The length of a row."""
    return HEAD + levels * 2 * _ring(max_buckets)


def _ring(max_buckets: int) -> int:
    """Sums kept of a level: its buckets, and those to come while lower levels still hold them."""
    return 1 << int(2 * max_buckets + 1).bit_length()


@lean_kernel
def adwin_begin(
    states: Floats,
    row: int,
    delta: float,
    clock: int = 32,
    max_buckets: int = 5,
    min_window: int = 5,
    grace: int = 10,
) -> None:
    """Make a row an ADWIN that has seen nothing; the row's length fits `max_buckets`."""
    ring = 1
    while ring < 2 * max_buckets + 2:
        ring *= 2
    states[row, DELTA] = delta
    states[row, CLOCK] = clock
    states[row, MAX_BUCKETS] = max_buckets
    states[row, MIN_WINDOW] = min_window
    states[row, GRACE] = grace
    states[row, RING] = ring
    levels = (states.shape[1] - HEAD) // (2 * ring)
    states[row, ROOM] = max_buckets * 2.0 ** (levels - 1)
    states[row, SPREAD] = math.log(2.0 * math.log(max(2, 2 * min_window, grace + 1)) / delta)
    adwin_forget(states, row)


@lean_kernel
def adwin_update(states: Floats, row: int, value: float) -> bool:
    """Take in a value; whether the window's mean has changed. NaN is passed over."""
    if math.isnan(value):
        return False
    if states[row, DRIFT] != 0.0:
        adwin_forget(states, row)
    if states[row, SEEN] == 0.0:
        states[row, FIRST] = min(max(value, -LIMIT), LIMIT)
    off = min(max(value, -LIMIT), LIMIT) - states[row, FIRST]
    states[row, SEEN] += 1.0
    states[row, TOTAL] += off
    states[row, SQUARES] += off * off
    states[row, LEFT] -= 1.0
    ring = int(states[row, RING])
    _keep(states, row, int(states[row, SEEN]), states[row, TOTAL], states[row, SQUARES], ring)
    return states[row, LEFT] <= 0.0 and _check(states, row)


@lean_kernel
def adwin_width(states: Floats, row: int) -> float:
    """How many values are in the window."""
    return float(states[row, SEEN] - states[row, CUT])


@lean_kernel
def adwin_mean(states: Floats, row: int) -> float:
    """The mean of the window; 0 while it is empty."""
    width = states[row, SEEN] - states[row, CUT]
    if width == 0.0:
        return 0.0
    return float(states[row, FIRST] + (states[row, TOTAL] - states[row, CUT_TOTAL]) / width)


@lean_kernel
def adwin_variance(states: Floats, row: int) -> float:
    """The mean squared deviation of the window from its mean; 0 while it is empty."""
    width = states[row, SEEN] - states[row, CUT]
    if width == 0.0:
        return 0.0
    mean = (states[row, TOTAL] - states[row, CUT_TOTAL]) / width
    return float(max(0.0, (states[row, SQUARES] - states[row, CUT_SQUARES]) / width - mean * mean))


@lean_kernel
def adwin_forget(states: Floats, row: int) -> None:
    """Become one that has seen nothing; the parameters stay."""
    for place in (SEEN, TOTAL, SQUARES, FIRST, CUT, CUT_TOTAL, CUT_SQUARES, DRIFT):
        states[row, place] = 0.0
    states[row, LEFT] = states[row, CLOCK]


@lean_kernel
def _keep(states: Floats, row: int, seen: int, total: float, squares: float, ring: int) -> None:
    """Write the running sums at value number `seen` into every level of which it ends a bucket."""
    at = np.uint64(row)
    number = seen
    place = HEAD
    while place < states.shape[1]:
        states[at, _slot(place, number, ring)] = total
        states[at, _slot(place + ring, number, ring)] = squares
        if number & 1:
            break
        number >>= 1
        place += 2 * ring


@lean_kernel
def _slot(place: int, number: int, ring: int) -> int:
    """Where a level that begins at `place` has its sum at the end of bucket `number`."""
    return np.uint64(place + (number & (ring - 1)))  # type: ignore[return-value]


@lean_kernel
def _check(states: Floats, row: int) -> bool:
    """At the clock: look for a cut, and drop the oldest buckets while there is one."""
    states[row, LEFT] = states[row, CLOCK]
    if states[row, SEEN] > states[row, ROOM]:
        _bound(states, row)
    width = states[row, SEEN] - states[row, CUT]
    if width <= states[row, GRACE] or width < max(2.0, 2.0 * states[row, MIN_WINDOW]):
        return False
    if not _suspect(states, row):
        return False
    changed = False
    while _drop_if_cut(states, row):
        changed = True
    if changed:
        states[row, DRIFT] = 1.0
    return changed


@lean_kernel
def _suspect(states: Floats, row: int) -> bool:
    """Whether a cut is possible at all: a quick look that rules out nearly every check.

    `_drop_if_cut` asks for |mean0 − mean1| > √(2 m s² d) + …, where m = 1/(n0 − …) + 1/(n1 − …) is
    at least n/(n0 n1). Times n0 n1 / n, and squared, that needs neither root nor division: it takes
    (sum0 − mean n0)² > 2 d s² n0 n1 / n. Each level is read at its last `max_buckets` ends, whether
    or not there are as many.
    """
    cut, at = states[row, CUT], np.uint64(row)
    ring, buckets = int(states[row, RING]), int(states[row, MAX_BUCKETS])
    n = states[row, SEEN] - cut
    mean = (states[row, TOTAL] - states[row, CUT_TOTAL]) / n
    variance = (states[row, SQUARES] - states[row, CUT_SQUARES]) / n - mean * mean
    bound = 2.0 * (1.0 - 1e-9) * states[row, SPREAD] * variance / n
    shift = mean * cut - states[row, CUT_TOTAL]
    number, size, place = int(states[row, SEEN]), 1.0, HEAD
    last = number - 1  # the newest value ends the window: no cut
    found = 0
    while place < states.shape[1] and number > 0:
        for end in range(max(1, number - buckets + 1), last + 1):
            n0 = end * size - cut
            apart = states[at, _slot(place, end, ring)] - mean * (end * size) + shift
            found += apart * apart > bound * n0 * (n - n0)
        number = last = _older(number, buckets)
        size *= 2.0
        place += 2 * ring
    return found > 0


@lean_kernel
def _older(number: int, buckets: int) -> int:
    """How many buckets the next level has had, when this one has had `number`.

    A level of `buckets` + 1 merges its two oldest; so it holds `buckets` − 1 or `buckets`.
    """
    if number <= buckets:
        return 0
    return (number - buckets + 1) >> 1


@lean_kernel
def _drop_if_cut(states: Floats, row: int) -> bool:
    """If the window differs between its older and newer part, wherever parted: drop the oldest
    bucket (§4, with the variance as in equation 3.1 and windows of at least `min_window`)."""
    seen, cut = int(states[row, SEEN]), states[row, CUT]
    ring, buckets = int(states[row, RING]), int(states[row, MAX_BUCKETS])
    n = states[row, SEEN] - cut
    total = states[row, TOTAL] - states[row, CUT_TOTAL]
    squares = states[row, SQUARES] - states[row, CUT_SQUARES]
    variance = max(0.0, squares - total * total / n) / n
    spread = math.log(2.0 * math.log(n) / states[row, DELTA])
    less = states[row, MIN_WINDOW] - 1.0
    found = False
    oldest = 0.0
    oldest_at = HEAD
    number, size, place = seen, 1.0, HEAD
    while number > 0 and place < states.shape[1]:
        after = _older(number, buckets)
        for end in range(number, 2 * after, -1):
            n0 = end * size - cut
            n1 = n - n0
            if n0 <= 0.0:
                break
            oldest = end * size
            oldest_at = place + (end & (ring - 1))
            if n0 > less and n1 > less:
                sum0 = states[row, oldest_at] - states[row, CUT_TOTAL]
                m = 1.0 / (n0 - less) + 1.0 / (n1 - less)
                epsilon = math.sqrt(2.0 * m * variance * spread) + 2.0 / 3.0 * spread * m
                found = found or abs(sum0 / n0 - (total - sum0) / n1) > epsilon
        number = after
        size *= 2.0
        place += 2 * ring
    if found:
        states[row, CUT] = oldest
        states[row, CUT_TOTAL] = states[row, oldest_at]
        states[row, CUT_SQUARES] = states[row, oldest_at + ring]
    return found


@lean_kernel
def _bound(states: Floats, row: int) -> None:
    """If the highest level holds more than its buckets, its oldest ones leave the window."""
    ring, buckets = int(states[row, RING]), int(states[row, MAX_BUCKETS])
    number, size, place = int(states[row, SEEN]), 1.0, HEAD
    top = states.shape[1] - 2 * ring
    while place < top:
        number = _older(number, buckets)
        size *= 2.0
        place += 2 * ring
    if number > buckets and (number - buckets) * size > states[row, CUT]:
        at = place + ((number - buckets) & (ring - 1))
        states[row, CUT] = (number - buckets) * size
        states[row, CUT_TOTAL] = states[row, at]
        states[row, CUT_SQUARES] = states[row, at + ring]


@lean_kernel
def _run(states: Floats, values: Floats, alarms: Ints) -> int:
    """`adwin_update` of row 0 for each value, with what changes at every value kept at hand."""
    ring = int(states[0, RING])
    count = index = 0
    while index < len(values):
        if math.isnan(values[index]):
            index += 1
            continue
        if states[0, DRIFT] != 0.0:
            adwin_forget(states, 0)
        seen, left = int(states[0, SEEN]), int(states[0, LEFT])
        total, squares, first = states[0, TOTAL], states[0, SQUARES], states[0, FIRST]
        while left > 0 and index < len(values):
            value = min(max(values[index], -LIMIT), LIMIT)
            index += 1
            if math.isnan(values[index - 1]):
                continue
            if seen == 0:
                first = value
            off = value - first
            seen += 1
            left -= 1
            total += off
            squares += off * off
            _keep(states, 0, seen, total, squares, ring)
        states[0, SEEN], states[0, LEFT] = seen, left
        states[0, TOTAL], states[0, SQUARES], states[0, FIRST] = total, squares, first
        if left <= 0 and _check(states, 0):
            alarms[count] = index - 1
            count += 1
    return count


class ADWIN(Detector):
    """Adaptive windowing: a window that is as long as its mean has not changed.

    The window is cut wherever its older and its newer part differ in mean by more than chance
    allows; then there is drift, and it begins anew with the next value.

    Args:
        delta: confidence, the chance of an alarm where nothing changes; 0 to 1.
        clock: a check every so many values.
        max_buckets: buckets of each size; more make cuts finer, at the cost of time.
        min_window_length: a part of fewer values is not compared.
        grace_period: no alarm before the window holds more values than this.

    Raises:
        SpecError: a parameter out of its range.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> detector = ADWIN()
        >>> detector.update(np.append(random.normal(0, 1, 1000), random.normal(2, 1, 1000)))
        array([1023])
    """

    def __init__(
        self,
        delta: float = 0.002,
        *,
        clock: int = 32,
        max_buckets: int = 5,
        min_window_length: int = 5,
        grace_period: int = 10,
    ) -> None:
        self.delta = delta
        self.clock = clock
        self.max_buckets = max_buckets
        self.min_window_length = min_window_length
        self.grace_period = grace_period
        super().__init__()

    @property
    def drift_detected(self) -> bool:
        """Whether the last number raised an alarm."""
        return bool(self._arrays["state"][0, DRIFT])

    @property
    def width(self) -> int:
        """How many values are in the window."""
        return int(adwin_width(self._arrays["state"], 0))

    @property
    def mean(self) -> float:
        """The mean of the window; 0 while it is empty."""
        return float(adwin_mean(self._arrays["state"], 0))

    @property
    def variance(self) -> float:
        """The mean squared deviation of the window from its mean; 0 while it is empty."""
        return float(adwin_variance(self._arrays["state"], 0))

    def _begin(self) -> dict[str, Array]:
        share(delta=self.delta)
        clock, buckets = int(self.clock), int(self.max_buckets)
        least, grace = int(self.min_window_length), int(self.grace_period)
        above(0, clock=clock, min_window_length=least)
        above(1, max_buckets=buckets)
        above(-1, grace_period=grace)
        state = np.zeros((1, adwin_size(max_buckets=buckets)))
        adwin_begin(state, 0, float(self.delta), clock, buckets, least, grace)
        return {"state": state}

    def load(self, part: Part) -> None:
        """Become what `save` saw; the parameters stay those of this one."""
        super().load(part)
        state = self._arrays["state"]
        state[0, PARAMETERS] = self._begin()["state"][0, PARAMETERS]
        if not state[0, LEFT] >= 1.0:
            self._arrays = self._begin()
            raise InputError("the state of ADWIN is broken: its next check is overdue")

    def _run(self, values: Floats, alarms: Ints) -> int:
        return _run(self._arrays["state"], values, alarms)
