"""Rows kept out of learning, by period: what candidates are judged on. Bounded in every way.

One increment's hold-out rows are a period. When there are too many periods, two neighbours are
merged, the old ones first, so that periods grow with their age; when there are too many rows, every
period keeps at most so many, those whose hashed id is smallest: a uniform sample that does not
depend on how often it was thinned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from everlearn.base import (
    NO_TIME,
    Array,
    Batch,
    Hashes,
    InputError,
    Json,
    Part,
    State,
)
from everlearn.data.texts import TEXTS, texts_from_arrays, texts_to_arrays

PERIODS = 32
ROWS = 20_000
RECENT_ROWS = 1_000

_ARRAYS = ("numbers", "categories", "times", "weight", "ids", "time", "label_time", "key")
_SALT = np.uint64(0xD6E8FEB86659FD93)


class Period:
    """The hold-out rows of one increment, or of several that were merged.

    Attributes:
        first, last: numbers of the first and the last increment in it, from 1.
        start, stop: earliest and latest event time in microseconds; None without event times.
        part: the rows as a part of a state, which stays the same object while they do not change.
    """

    def __init__(self, first: int, last: int, batch: Batch | None, part: Part, meta: Json) -> None:
        self.first, self.last = first, last
        self.part = part
        self._batch = batch
        self._meta = meta

    @classmethod
    def of(cls, first: int, last: int, batch: Batch) -> Period:
        """A period that holds these rows."""
        meta: Json = {"rows": len(batch), "start": None, "stop": None}
        if batch.time is not None and (known := batch.time[batch.time != NO_TIME]).size:
            meta |= {"start": int(known.min()), "stop": int(known.max())}
        return cls(first, last, batch, batch_to_part(batch), meta)

    @property
    def name(self) -> str:
        if self.first == self.last:
            return f"increment {self.first}"
        return f"increments {self.first}–{self.last}"

    @property
    def start(self) -> int | None:
        return None if self._meta["start"] is None else int(self._meta["start"])

    @property
    def stop(self) -> int | None:
        return None if self._meta["stop"] is None else int(self._meta["stop"])

    @property
    def batch(self) -> Batch:
        if self._batch is None:
            self._batch = batch_from_part(self.part)
        return self._batch

    def __len__(self) -> int:
        return int(self._meta["rows"])

    def to_json(self) -> Json:
        """What `HoldOuts.save` keeps beside the rows."""
        return {"first": self.first, "last": self.last, **self._meta}


class HoldOuts:
    """The hold-out rows of a lineage. y is in its own values, as in the reader's batches.

    Args:
        periods: most periods that are kept apart.
        rows: most rows in all.
        recent_rows: the newest periods that together have this many rows are the recent ones: at
            least the newest period, and more where it is small.

    Raises:
        InputError: a bound below 1.
    """

    def __init__(
        self, *, periods: int = PERIODS, rows: int = ROWS, recent_rows: int = RECENT_ROWS
    ) -> None:
        if min(periods, rows, recent_rows) < 1:
            raise InputError(
                f"periods={periods}, rows={rows}, recent_rows={recent_rows}: each is 1 or more"
            )
        self.most_periods, self.most_rows, self.recent_rows = periods, rows, recent_rows
        self._periods: list[Period] = []
        self._increments = 0
        self._current: Batch | None = None
        self._pending: list[Batch] = []
        self._pending_rows = 0

    def __len__(self) -> int:
        """Rows held, those of the present increment included."""
        return sum(len(period) for period in self.periods)

    def add(self, batch: Batch | None) -> None:
        """Keep hold-out rows of the present increment.

        Raises:
            InputError: the rows have other columns than those that are held.
        """
        if batch is None or not len(batch):
            return
        self._check(batch)
        self._pending.append(batch)
        self._pending_rows += len(batch)
        if self._pending_rows >= max(1024, len(self._current or ())):
            self._gather()

    def settle(self, anew: bool = False) -> None:
        """The increment is over: its rows are a period. No rows, no period, no change.

        Args:
            anew: it may have been read before: rows of older periods with its ids are removed.
        """
        current = self._gather()
        if current is None:
            return
        if anew:
            self._current = None
            self.drop(current.ids)
        self._increments += 1
        self._periods.append(Period.of(self._increments, self._increments, current))
        self._current = None
        while len(self._periods) > self.most_periods:
            self._merge_oldest()
        self._thin()

    @property
    def periods(self) -> list[Period]:
        """Periods, the oldest first, with the present increment as the last."""
        current = self._gather()
        if current is None:
            return list(self._periods)
        number = self._increments + 1
        return [*self._periods, Period.of(number, number, current)]

    @property
    def settled(self) -> list[Period]:
        """Periods without the present increment, the oldest first."""
        return list(self._periods)

    @property
    def increments(self) -> int:
        """How many increments had rows that were held out, without the present one."""
        return self._increments

    @property
    def recent(self) -> Batch | None:
        """The rows of the newest periods; None if nothing is held."""
        return _joined(self.split()[1])

    @property
    def historical(self) -> Batch | None:
        """The rows of all older periods; None if there are none."""
        return _joined(self.split()[0])

    def split(self) -> tuple[list[Period], list[Period]]:
        """(historical periods, recent periods), the oldest first."""
        periods, rows = self.periods, 0
        place = len(periods)
        while place > 0 and rows < self.recent_rows:
            place -= 1
            rows += len(periods[place])
        return periods[:place], periods[place:]

    def overlap(self, ids: Hashes) -> Hashes:
        """The ids among those given that are held out: empty for rows that were learned, or are
        remembered, if learning and judging are kept apart as they must be."""
        held = [period.batch.ids for period in self.periods]
        if not held:
            return np.zeros(0, np.uint64)
        return np.intersect1d(np.concatenate(held), ids)

    def drop(self, ids: Hashes) -> int:
        """Remove the rows with these ids (a retraction). Returns how many were removed."""
        removed, gone = 0, np.sort(ids)
        current = self._gather()
        if current is not None:
            keep = ~_among(current.ids, gone)
            removed += len(current) - int(keep.sum())
            self._current = current.take(keep) if keep.any() else None
        left = []
        for period in self._periods:
            keep = ~_among(period.batch.ids, gone)
            removed += len(period) - int(keep.sum())
            if keep.all():
                left.append(period)
            elif keep.any():
                left.append(Period.of(period.first, period.last, period.batch.take(keep)))
        self._periods = left
        return removed

    def save(self) -> dict[str, Part]:
        """Everything, in the middle of an increment too. Unchanged periods are the same parts."""
        bounds = [self.most_periods, self.most_rows, self.recent_rows]
        meta: Json = {"bounds": bounds, "increments": self._increments, "periods": []}
        state: dict[str, Part] = {}
        for period in self._periods:
            name = f"block/{period.first}-{period.last}"
            state[name] = period.part
            meta["periods"].append({"part": name, **period.to_json()})
        current = self._gather()
        if current is not None:
            state["current"] = batch_to_part(current)
        state["index"] = Part(meta=meta)
        return state

    @classmethod
    def load(cls, state: State) -> Self:
        """The hold-outs that `save` saw; empty ones for an empty state."""
        if "index" not in state:
            return cls()
        meta = state["index"].meta
        periods, rows, recent = meta["bounds"]
        made = cls(periods=periods, rows=rows, recent_rows=recent)
        made._increments = meta["increments"]
        for item in meta["periods"]:
            known = {name: item[name] for name in ("rows", "start", "stop")}
            part = state[item["part"]]
            made._periods.append(Period(item["first"], item["last"], None, part, known))
        if "current" in state:
            made._current = batch_from_part(state["current"])
        return made

    def _check(self, batch: Batch) -> None:
        other = self._pending[0] if self._pending else self._current
        if other is None and self._periods:
            other = self._periods[-1].batch
        if other is not None and _shape(other) != _shape(batch):
            raise InputError(
                "hold-out rows have (numbers, categories, times, texts, target) = "
                f"{_shape(batch)}, those held {_shape(other)}; a changed schema needs new hold-outs"
            )

    def _gather(self) -> Batch | None:
        """All rows of the present increment as one batch, thinned if there are too many."""
        if self._pending:
            rows = self._pending if self._current is None else [self._current, *self._pending]
            joined = Batch.concat(rows)
            if len(joined) > self.most_rows:
                joined = sample(joined, self.most_rows)
            self._current, self._pending, self._pending_rows = joined, [], 0
        return self._current

    def _merge_oldest(self) -> None:
        """Merge the two neighbours that are shortest for their age, in increments."""
        now = self._increments + 1

        def relative(place: int) -> float:
            one, two = self._periods[place], self._periods[place + 1]
            return (two.last - one.first + 1) / (now - one.first)

        place = min(range(len(self._periods) - 1), key=relative)
        one, two = self._periods[place : place + 2]
        joined = Batch.concat([one.batch, two.batch])
        self._periods[place : place + 2] = [Period.of(one.first, two.last, joined)]

    def _thin(self) -> None:
        sizes = [len(period) for period in self._periods]
        if sum(sizes) <= self.most_rows:
            return
        cap = row_cap(sizes, self.most_rows)
        for place, period in enumerate(self._periods):
            if len(period) > cap:
                rows = sample(period.batch, cap)
                self._periods[place] = Period.of(period.first, period.last, rows)


def _among(ids: Hashes, gone: Hashes) -> npt.NDArray[np.bool_]:
    """(n,) which of the ids are among others, sorted ones; `np.isin` would hash the hashes."""
    if not len(gone):
        return np.zeros(len(ids), bool)
    places = np.minimum(gone.searchsorted(ids), len(gone) - 1)
    found: npt.NDArray[np.bool_] = gone[places] == ids
    return found


def row_cap(sizes: Sequence[int], rows: int) -> int:
    """Most rows for each period so that Σ min(size, cap) ≤ rows: rows · 2^(−j/2) for the least j,
    so that the cap, and with it every period, changes only rarely."""
    cap, j = rows, 0
    while cap > 1 and sum(min(size, cap) for size in sizes) > rows:
        j += 1
        cap = max(1, int(rows * 2.0 ** (-j / 2)))
    return cap


def sample(batch: Batch, rows: int) -> Batch:
    """The `rows` rows whose salted id hash is smallest, in their order: the same ones however the
    batch came together."""
    mixed = batch.ids ^ _SALT
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)  # SplitMix64's steps
    mixed ^= mixed >> np.uint64(31)
    chosen = np.sort(np.argsort(mixed, kind="stable")[:rows])
    return batch.take(chosen)


def batch_to_part(batch: Batch) -> Part:
    """The rows as a part; a text target as codes with its texts in the JSON."""
    arrays: dict[str, Array] = {}
    for name in _ARRAYS:
        value = getattr(batch, name)
        if value is not None:
            arrays[name] = value
    meta: Json = {}
    if batch.y is not None and batch.y.dtype == object:
        texts = sorted(set(batch.y.tolist()))
        code = {text: place for place, text in enumerate(texts)}
        meta["texts"] = texts
        arrays["y"] = np.array([code[text] for text in batch.y.tolist()], np.int32)
    elif batch.y is not None:
        arrays["y"] = batch.y
    if batch.texts is not None:
        arrays |= texts_to_arrays(batch.texts)
    return Part(arrays, meta)


def batch_from_part(part: Part) -> Batch:
    """The inverse of `batch_to_part`."""
    arrays = {name: value for name, value in part.arrays.items() if name not in TEXTS}
    texts = texts_from_arrays(part.arrays)
    y = arrays.pop("y", None)
    if y is not None and "texts" in part.meta:
        y = np.array(part.meta["texts"], dtype=object)[y]
    return Batch(y=y, texts=texts, **arrays)


def _shape(batch: Batch) -> tuple[int, int, int, int, str]:
    kind = "none" if batch.y is None else ("text" if batch.y.dtype == object else "number")
    texts = 0 if batch.texts is None else batch.texts.shape[1]
    return batch.numbers.shape[1], batch.categories.shape[1], batch.times.shape[1], texts, kind


def _joined(periods: Sequence[Period]) -> Batch | None:
    return Batch.concat([period.batch for period in periods]) if periods else None
