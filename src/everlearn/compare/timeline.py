"""What is known when: periods, ticks and the moment at which each label may be learned.

All moments are int64: microseconds since 1970 UTC, or row numbers where there is no event time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from everlearn.base import NO_TIME, InputError, Ints, SpecError
from everlearn.strategies.span import UNITS, microseconds, written

NEVER = np.iinfo(np.int64).max
"""The moment at which a label becomes known that never does."""

_PERIODS_WANTED = 50
_FEWEST_PERIODS = 6
_ROWS_WANTED = 50
_FEWEST_WARM, _WARM_WANTED = 10, 50


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time or a number of rows.

    Args:
        length: microseconds, or rows.
        unit: "time" or "rows".
    """

    length: int
    unit: str = "time"

    @classmethod
    def parse(cls, text: str | Span) -> Span:
        """Read "7d", "2h", "30min", "1s", "1w" or "5000rows".

        Raises:
            InputError: it is none of these, or not positive.
        """
        if isinstance(text, Span):
            return text
        rows = re.fullmatch(r"\s*(\d+)\s*rows?\s*", str(text).lower())
        if rows is not None and int(rows[1]) > 0:
            return cls(int(rows[1]), "rows")
        try:
            return cls(microseconds(str(text).lower()))
        except SpecError:
            raise InputError(
                f"{text!r} is no span: write 7d, 2h, 30min, 1s, 1w or 5000rows, longer than nothing"
            ) from None

    def __str__(self) -> str:
        if self.unit == "rows":
            return f"{self.length:,} rows"
        return written(timedelta(microseconds=self.length))


@dataclass(frozen=True, slots=True)
class Timeline:
    """Rows in two orders (of events, and of labels becoming known), cut into periods.

    Args:
        unit: "time" (microseconds) or "rows" (row numbers).
        time: (n,) moments of the events, ascending.
        known: (n,) for each event, the moment from which its label may be learned: its label time,
            and later than its own time; `NEVER` for a label that is never known.
        arrival: (n,) events, as indices into `time`, in the order in which labels become known.
        available: (n,) `known[arrival]`, ascending.
        edges: (P + 1,) period p has the events with edges[p] ≤ time < edges[p + 1].
        warmup: number of leading periods that are not scored.
        every: length of a period.
        tick: how often what learns in chunks takes its labels online.
    """

    unit: str
    time: Ints
    known: Ints
    arrival: Ints
    available: Ints
    edges: Ints
    warmup: int
    every: Span
    tick: Span

    @property
    def start(self) -> int:
        """The moment at which every strategy begins, and scoring with it."""
        return int(self.edges[self.warmup])

    def known_at(self, moment: int) -> int:
        """How many labels are known at a moment: the first so many of `arrival`."""
        return int(np.searchsorted(self.available, moment, "right"))

    def before(self, moment: int) -> int:
        """How many events are before a moment: the first so many of `time`."""
        return int(np.searchsorted(self.time, moment, "left"))

    def period_of(self, events: Ints) -> Ints:
        """(m,) the periods of events."""
        return (np.searchsorted(self.edges, self.time[events], "right") - 1).astype(np.int64)

    def edges_to_learn(self) -> Ints:
        """Ends of periods at which an update may serve somebody, the end of warm-up first."""
        edges: Ints = self.edges[self.warmup : -1]
        return np.asarray(edges[edges <= self.time[-1]], np.int64)

    def ticks(self) -> Ints:
        """Multiples of a tick, after warm-up, at which at least one new label is known."""
        fresh = self.available[self.known_at(self.start) :]
        fresh = fresh[fresh <= self.time[-1]]
        if not len(fresh):
            return np.empty(0, np.int64)
        if self.unit == "time" and self.tick.unit == "rows":
            return np.unique(fresh[self.tick.length - 1 :: self.tick.length])
        length = self.tick.length
        origin = int(self.edges[0])
        moments = origin + -(-(fresh - origin) // length) * length
        return np.unique(moments[moments <= self.time[-1]]).astype(np.int64)


def make_timeline(
    time: Ints | None,
    label_time: Ints | None,
    *,
    rows: int,
    every: Span | None = None,
    tick: Span | None = None,
    label_delay: Span | None = None,
    warmup: int = 1,
    probes: Ints | None = None,
) -> Timeline:
    """Order events and labels, and cut the history into periods.

    Args:
        time: (n,) event times, ascending; None where rows have no time but their order.
        label_time: (n,) times at which labels became known, or None.
        rows: n.
        every: length of a period; chosen so that there are about 50 where None.
        tick: of online learning in chunks, at most a period; one hour, or a fiftieth of a period
            where None.
        label_delay: from an event to its label, where there is no `label_time`.
        warmup: periods at the beginning that are not scored; more if too few labels are known.
        probes: events that nothing may learn from.

    Raises:
        InputError: fewer than two periods, spans that do not fit, times out of order.
    """
    unit = "rows" if time is None else "time"
    moments = np.arange(rows, dtype=np.int64) if time is None else np.asarray(time, np.int64)
    if rows < 2:
        raise InputError(f"a history of {rows} rows cannot be compared on")
    if (np.diff(moments) < 0).any():
        raise InputError("events must be in order of time")
    if moments[0] == moments[-1]:
        raise InputError("all events have the same time; without a time the rows' order is taken")
    least = _FEWEST_WARM if every else _WARM_WANTED
    every = every or choose_every(moments, unit)
    if unit == "rows" and every.unit == "time":
        raise InputError(f"every={every} needs a time column; without one, write 5000rows")
    known = _known(moments, label_time, label_delay, unit)
    if probes is not None:
        known[probes] = NEVER
    arrival = np.argsort(known, kind="stable").astype(np.int64)
    edges = _edges(moments, every, unit)
    if len(edges) - 1 <= warmup:
        raise InputError(
            f"periods of {every} cut this history into {len(edges) - 1}; "
            f"with a warm-up of {warmup} at least {warmup + 1} are needed: make every shorter"
        )
    available = known[arrival]
    warmup = _warmup(moments, available, edges, warmup, min(least, rows / 10))
    tick = _tick(tick, every, unit)
    return Timeline(unit, moments, known, arrival, available, edges, warmup, every, tick)


def choose_every(time: Ints, unit: str) -> Span:
    """A period of a round length of which the history has about 50; fewer where there are few
    rows, so that a period has about 50 of them. A few events far away from the rest do not count.
    """
    periods = min(_PERIODS_WANTED, max(_FEWEST_PERIODS, len(time) / _ROWS_WANTED))
    if unit == "rows":
        wanted = max(1.0, len(time) / periods)
        power = 10 ** int(np.floor(np.log10(wanted)))
        return Span(max((s * power for s in (1, 2, 5) if s * power <= wanted), default=1), "rows")
    far = len(time) // 200
    span = max(1, (int(time[-1 - far]) - int(time[far])) * len(time) // (len(time) - 2 * far))
    names = (
        "1ms",
        "10ms",
        "100ms",
        "1s",
        "10s",
        "1min",
        "10min",
        "1h",
        "6h",
        "1d",
        "7d",
        "30d",
        "90d",
        "365d",
    )
    lengths = np.array([Span.parse(name).length for name in names])
    distance = np.abs(np.log(span / lengths) - np.log(periods))
    return Span(int(lengths[int(np.argmin(distance))]))


def _known(time: Ints, label_time: Ints | None, delay: Span | None, unit: str) -> Ints:
    """When each label may be learned: label_time ≤ t, of rows with time < t."""
    if label_time is not None:
        stated = np.asarray(label_time, np.int64)
        return np.where(stated == NO_TIME, NEVER, np.maximum(stated, time + 1))
    if delay is None:
        return time + 1
    if delay.unit != unit:
        kind = "a number of rows (100rows)" if unit == "rows" else "a length of time (2h)"
        raise InputError(f"label_delay={delay} must be {kind} here")
    return time + max(1, delay.length)


def _edges(time: Ints, every: Span, unit: str) -> Ints:
    end = int(time[-1]) + 1
    if every.unit == "rows":
        return np.unique(np.append(time[:: every.length], end)).astype(np.int64)
    day = UNITS["d"]
    grain = min(every.length, day)
    first = int(time[0]) // grain * grain
    count = -(-(end - first) // every.length)
    if count > 20_000:
        low, high = (str(np.datetime64(int(t), "us"))[:19] for t in (time[0], time[-1]))
        raise InputError(
            f"periods of {every} cut this history, from {low} to {high}, into {count:,}: make "
            "every longer, or leave out events whose time is wrong"
        )
    return first + np.arange(count + 1, dtype=np.int64) * every.length


def _warmup(time: Ints, available: Ints, edges: Ints, warmup: int, least: float) -> int:
    """The first end of a period, from `warmup` on, at which half as many labels are known as the
    first `warmup` periods had events, and `least`."""
    wanted = max(np.searchsorted(time, edges[warmup], "left") / 2, least)
    known = np.searchsorted(available, edges[:-1], "right")
    enough = np.flatnonzero((known >= wanted) & (np.arange(len(known)) >= warmup))
    if not len(enough):
        raise InputError(
            "the labels become known too late: before the last period begins, fewer are known "
            "than half of the first period's; check the label time or the label delay"
        )
    return int(enough[0])


def _tick(tick: Span | None, every: Span, unit: str) -> Span:
    if tick is None:
        if unit == "time" and every.unit == "time":
            return Span(min(UNITS["h"], every.length))
        return Span(max(1, every.length // 50), "rows")
    if unit == "rows" and tick.unit == "time":
        raise InputError(f"tick={tick} needs a time column; without one, write 100rows")
    return every if tick.unit == every.unit and tick.length > every.length else tick
