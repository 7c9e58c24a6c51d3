"""Which answers flipped between two models, and in which slices more often than chance gives.

A slice is named only where its flips are too many to be an accident among all that were looked at.
Given how many rows flipped in all, the flips of a slice that is nothing special are drawn without
replacement: their number is hypergeometric, which is Fisher's exact test (Fisher 1922). Hundreds of
slices are tested, most of them too small to be found whatever happens in them, so that the level is
divided by the number of those that could be (Tarone 1990, "A modified Bonferroni method for
discrete data"): the chance of naming any slice where there is nothing stays below the level. Rows
are taken as exchangeable; where many are of one entity, look at the slices of its key first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from everlearn.base import MISSING_CATEGORY, Array, Batch, Columns, Floats, Hashes, Ints
from everlearn.evaluation.trial import Trial

Mask = npt.NDArray[np.bool_]
Kind = Literal["lost", "won"]

LEVEL = 0.05
"""Chance of naming any slice where flips are spread by chance."""

BINS = 5
"""Of a number column, with about as many rows each."""

VALUES = 50
"""Values of a column that are looked at: the most frequent ones."""

FEWEST = 5
"""Rows of a slice."""

NAMED = 10
"""Slices that are named at most."""

ALIKE = 0.8
"""Share of common flips from which two slices are one finding: the one of which most rows flipped
is named."""

_SAMPLE = 5000  # rows by which the bins of a number column are set


@dataclass(frozen=True, slots=True)
class Flips:
    """What became of the answers for n rows.

    Args:
        changed: (n,) answers that differ.
        lost: (n,) right before and wrong now: negative flips (Yan et al. 2021).
        won: (n,) wrong before and right now.
        tolerance: of a regressor, by how much an answer has to change, or its absolute error to
            grow or shrink, to count: the mean absolute error of the model before.
    """

    changed: Mask
    lost: Mask
    won: Mask
    tolerance: float | None = None

    def counts(self, rows: Array | slice = slice(None)) -> dict[str, int]:
        """Rows, and how many of them changed, were lost and won; of some rows or of all."""
        found = {name: getattr(self, name)[rows] for name in ("changed", "lost", "won")}
        counted = {name: int(np.count_nonzero(mask)) for name, mask in found.items()}
        return {"rows": len(found["changed"]), **counted}


@dataclass(frozen=True, slots=True)
class Group:
    """The rows with one value, or with values in one span, of a column.

    Args:
        column: its name; "period" and "source" are none of the rows' own.
        equals: the value, where it is known.
        hashed: of a category or a key, of which rows have only a hash.
        above, upto: bounds of a number: above < value ≤ upto.
        missing: the rows in which it is missing.
    """

    column: str
    equals: str | float | bool | None = None
    hashed: int | None = None
    above: float | None = None
    upto: float | None = None
    missing: bool = False

    def describe(self, text: str | None = None) -> str:
        """The condition in words; `text` is the value of the hash, where that is known."""
        if self.missing:
            return f"{self.column} is missing"
        if self.hashed is not None:
            said = f"one of the hash {self.hashed:016x}" if text is None else repr(text)
            return f"{self.column} is {said}"
        if self.equals is not None:
            return f"{self.column} is {self.equals!r}"
        bounds = [] if self.above is None else [f"above {self.above:g}"]
        bounds += [] if self.upto is None else [f"up to {self.upto:g}"]
        return f"{self.column} is " + " and ".join(bounds)


@dataclass(frozen=True, slots=True)
class Grouping:
    """Groups that exclude each other.

    Args:
        groups: of them.
        codes: (n,) number of the group of each row; −1 for none.
    """

    groups: Sequence[Group]
    codes: Ints


@dataclass(frozen=True, slots=True)
class Finding:
    """A slice with more flips than chance gives.

    Args:
        group: of which rows.
        kind: "lost" or "won".
        rows, flips: of the slice.
        rest: share of flips among all other rows.
        low, high: 95 % interval of the slice's own share (Wilson 1927).
        p: corrected for all slices that could have been named.
        place: of a row that flipped.
    """

    group: Group
    kind: Kind
    rows: int
    flips: int
    rest: float
    low: float
    high: float
    p: float
    place: int


@dataclass(frozen=True, slots=True)
class Search:
    """What was found among all slices.

    Args:
        findings: the surest first.
        tested: slices that could have been named, those for what was lost and for what was won
            counted apart.
    """

    findings: Sequence[Finding]
    tested: int


def flips(trial: Trial) -> Flips | None:
    """The flips from a champion to a candidate; None without either, or without a target."""
    new, old = trial.candidate, trial.champion
    if new is None or old is None or new.y is None or old.y is None:
        return None
    before, after = old.prediction.value, new.prediction.value
    if trial.kind != "classifier":
        return _value_flips(before, after, new.y)
    was = (before == old.y) & (old.y >= 0)
    now = (after == new.y) & (new.y >= 0)
    same = before if trial.translation is None else trial.translation[before]
    return Flips(same != after, was & ~now, ~was & now)


def _value_flips(before: Floats, after: Floats, y: Floats) -> Flips:
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(before - y)
        known = error[np.isfinite(error)]
        tolerance = float(known.mean()) if len(known) else 0.0
        grown = np.abs(after - y) - error
        return Flips(
            ~(np.abs(after - before) <= tolerance),
            ~(grown <= tolerance),
            grown < -tolerance,
            tolerance,
        )


def groupings(batch: Batch, columns: Columns, *, classes: bool) -> Iterator[Grouping]:
    """All columns' groups: values of categories, of the key and of the target, bins of numbers.

    Args:
        batch: n rows, y in the target's own values.
        columns: what the columns of the batch are.
        classes: the target has classes; else it is cut into bins.
    """
    if batch.y is not None and columns.target is not None:
        cut = by_value if classes else by_bin
        yield cut(columns.target, batch.y)
    for place, name in enumerate(columns.categories):
        yield by_hash(name, batch.categories[:, place])
    if batch.key is not None and columns.key is not None:
        yield by_hash(columns.key, batch.key)
    for place, name in enumerate(columns.numbers):
        yield by_bin(name, batch.numbers[:, place])


def by_value(column: str, values: Array) -> Grouping:
    """A group for each of the most frequent values."""
    known, codes = np.unique(values, return_inverse=True)
    kept, numbers = _frequent(codes, len(known))
    values = known[kept].tolist()
    return Grouping([Group(column, equals=value) for value in values], numbers[codes])


def by_hash(column: str, hashes: Hashes) -> Grouping:
    """A group for each of the most frequent hashes."""
    known, codes = np.unique(hashes, return_inverse=True)
    kept, numbers = _frequent(codes, len(known))
    groups = [
        Group(column, missing=True)
        if known[at] == MISSING_CATEGORY
        else Group(column, hashed=int(known[at]))
        for at in kept
    ]
    return Grouping(groups, numbers[codes])


def by_bin(column: str, values: Floats) -> Grouping:
    """Bins of numbers with about as many rows each, or their values where they are few; and the
    rows without one."""
    values = values.astype(np.float64, copy=False)
    there = np.isfinite(values)
    some = values[there][:: max(1, int(there.sum()) // _SAMPLE)]
    few = np.unique(some)
    if len(few) <= BINS and np.isin(values[there], few).all():
        edges, groups = few, [Group(column, equals=float(value)) for value in few]
    else:
        edges = np.unique(np.quantile(some, np.arange(1, BINS) / BINS, method="lower"))
        ends = [None, *edges.tolist(), None]
        groups = [Group(column, above=a, upto=b) for a, b in pairwise(ends)]
    codes = np.where(there, np.searchsorted(edges, values), len(groups))
    return Grouping([*groups, Group(column, missing=True)], codes.astype(np.int64))


def _frequent(codes: Ints, count: int) -> tuple[Ints, Ints]:
    """(numbers of the most frequent codes, new number of each code or −1)."""
    sizes = np.bincount(codes, minlength=count)
    kept = np.sort(np.argsort(-sizes, kind="stable")[:VALUES])
    numbers = np.full(count, -1, np.int64)
    numbers[kept] = np.arange(len(kept))
    return kept.astype(np.int64), numbers


def search(found: Flips, cut: Sequence[Grouping], *, level: float = LEVEL) -> Search:
    """The slices with more flips than chance gives.

    Args:
        found: the flips of n rows.
        cut: groups of the same rows.
        level: chance of naming any slice where flips are spread by chance.
    """
    tests = [one for kind in ("lost", "won") for one in _tests(kind, getattr(found, kind), cut)]
    tried = _could_be_named([test.least for test in tests], level)
    sure = [test for test in tests if test.p * tried <= level]
    told: list[tuple[float, Finding]] = []
    flipped: list[Ints] = []
    for test in sorted(sure, key=lambda one: -one.share):
        mask, rows = getattr(found, test.kind), test.codes == test.code
        places = np.flatnonzero(rows & mask)
        if not any(_common(places, other) >= ALIKE for other in flipped):
            flipped.append(places)
            told.append((test.log_p, _finding(test, mask, rows, places, tried)))
    told.sort(key=lambda one: one[0])
    return Search([finding for _, finding in told[:NAMED]], tried)


def _finding(test: _Test, mask: Mask, rows: Mask, places: Ints, tried: int) -> Finding:
    inside = int(rows.sum())
    low, high = share_interval(len(places), inside)
    return Finding(
        group=test.group,
        kind=test.kind,
        rows=inside,
        flips=len(places),
        rest=int(np.count_nonzero(mask & ~rows)) / (len(mask) - inside),
        low=low,
        high=high,
        p=min(1.0, test.p * tried),
        place=int(places[0]),
    )


@dataclass(frozen=True, slots=True)
class _Test:
    """One slice.

    Args:
        kind, group: what it is of.
        codes, code: its rows are those with this code.
        share: of its rows that flipped.
        log_p: of the slice alone.
        least: the smallest p that it could have had.
    """

    kind: Kind
    group: Group
    codes: Ints
    code: int
    share: float
    log_p: float
    least: float

    @property
    def p(self) -> float:
        return math.exp(self.log_p)


def _tests(kind: Kind, mask: Mask, cut: Sequence[Grouping]) -> Iterator[_Test]:
    n, flipped = len(mask), int(mask.sum())
    if not flipped or flipped == n:
        return
    tail = _Tail(n, flipped)
    for grouping in cut:
        known = grouping.codes >= 0
        count = len(grouping.groups)
        sizes = np.bincount(grouping.codes[known], minlength=count)
        hits = np.bincount(grouping.codes[known & mask], minlength=count)
        for code, (size, hit) in enumerate(zip(sizes.tolist(), hits.tolist(), strict=True)):
            if FEWEST <= size < n:
                least = math.exp(tail(size, min(size, flipped)))
                group = grouping.groups[code]
                log_p = tail(size, hit)
                yield _Test(kind, group, grouping.codes, code, hit / size, log_p, least)


class _Tail:
    """The upper tail of the hypergeometric distribution, for n rows of which some flipped."""

    def __init__(self, n: int, flipped: int) -> None:
        self._n, self._flipped = n, flipped
        self._log = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))  # of factorials

    def __call__(self, size: int, hits: int) -> float:
        """log P(at least `hits` flips in a slice of `size` rows)."""
        n, flipped, log = self._n, self._flipped, self._log
        x = np.arange(max(hits, size + flipped - n), min(size, flipped) + 1)
        ways = log[flipped] - log[x] - log[flipped - x]
        rest = n - flipped
        ways += log[rest] - log[size - x] - log[rest - size + x]
        most = float(ways.max())
        total = most + math.log(float(np.exp(ways - most).sum()))
        return min(0.0, total - float(log[n] - log[size] - log[n - size]))


def _could_be_named(least: Sequence[float], level: float) -> int:
    """Tarone's divisor: the smallest k such that at most k tests can reach level / k."""
    ordered, tried = np.sort(np.array(least)), 1
    while np.searchsorted(ordered, level / tried, side="right") > tried:
        tried += 1
    return tried


def _common(a: Ints, b: Ints) -> float:
    """Share of the rows of either that are in both."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / max(1, len(a) + len(b) - both)


def share_interval(hits: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927, "Probable inference").

    >>> [round(bound, 3) for bound in share_interval(5, 10)]
    [0.237, 0.763]
    """
    z = 1.959963984540054
    share, square = hits / rows, z * z
    centre = (share + square / (2 * rows)) / (1 + square / rows)
    reach = z / (1 + square / rows) * np.sqrt(share * (1 - share) / rows + square / (4 * rows**2))
    return max(0.0, float(centre - reach)), min(1.0, float(centre + reach))


def counts_by(found: Flips, grouping: Grouping) -> list[dict[str, Any]]:
    """The counts of each group that has rows, with what it is."""
    made = []
    for code, group in enumerate(grouping.groups):
        counts = found.counts(grouping.codes == code)
        if counts["rows"]:
            made.append({"name": group.equals, **counts})
    return made
