"""Hints: where a bisection looks first. They cost no learning, and nothing is found by them alone:
a step is judged, and a group of rows is folded, whatever they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from everlearn.base import EverlearnError, Floats, Ints, Json
from everlearn.data.increment import Reader
from everlearn.evaluation.loss import GREATER_IS_BETTER, losses
from everlearn.evaluation.trial import ask
from everlearn.jobs.bisect.cuts import Cut
from everlearn.jobs.bisect.measuring import Judge
from everlearn.jobs.learn import Fold
from everlearn.registry.versions import Version

STANDS_OUT = 2.0
"""How many times as much as any other an increment has to have surprised its parent, to be judged
first."""

SHARPER = 1.1
"""How many times as much the rows of one group have to surprise as those of another cut's, to be
tried before it."""

QUIET = 0.5
"""Share of the mean surprise up to which the rest of the rows, without a group, is quiet."""


def likely(path: Sequence[Version], metric: str) -> dict[str, Json] | None:
    """The version whose increment surprised its parent by far the most, as was recorded while it
    was learned: each row was predicted before it was learned.

    Surprise is counted in all: how much worse the metric was than is usual among these versions,
    times the rows. None where no increment stands out, or nothing was recorded.

    Args:
        path: the versions, each the parent of the next; the first is good.

    Returns:
        {"version", "rows", "value": the metric of its rows before they were learned, "usual": the
        median among the versions}.
    """
    recorded = [
        (one, float(value), int(rows))
        for one in path[1:]
        for value, rows in [(one.metrics.get(metric), one.metrics.get("rows"))]
        if value is not None and rows and math.isfinite(value)
    ]
    if len(recorded) < 3:
        return None
    usual = float(np.median([value for _, value, _ in recorded]))
    sign = -1.0 if metric in GREATER_IS_BETTER else 1.0
    surprise = np.array([sign * (value - usual) * rows for _, value, rows in recorded])
    second, first = np.argsort(surprise, kind="stable")[-2:].tolist()
    if not surprise[first] > STANDS_OUT * max(surprise[second], 0.0):
        return None
    version, value, rows = recorded[first]
    return {"version": version.number, "rows": rows, "value": value, "usual": usual}


def first_bad(steps: int, is_bad: Callable[[int], bool], likely: int | None = None) -> int:
    """The place of a bad one after a good one among places 0 (good) to `steps` (bad), by at most
    ⌈log2 steps⌉ questions about places between them: of monotone ones the first that is bad.

    Args:
        likely: a place that is asked about first, and the one before it if it is bad: two questions
            where that is the step, at most two more than else where it is not.

    >>> first_bad(8, lambda place: place >= 5)
    5
    >>> asked = []
    >>> first_bad(64, lambda place: asked.append(place) or place >= 49, likely=49), asked
    (49, [49, 48])
    """
    low, high = 0, steps
    first = [] if likely is None else [likely, likely - 1]
    while high - low > 1:
        place = first.pop(0) if first else (low + high) // 2
        if not low < place < high:
            continue
        if is_bad(place):
            high = place
        else:
            low = place
    return high


@dataclass(frozen=True, slots=True)
class Surprise:
    """How much the rows of an increment surprised a version that had not learned them.

    Args:
        losses: (n,) the natural loss of each row.
        above: (n,) by how much it is above the mean loss of the rows that versions are judged on.
        in_class: (n,) the same, above the mean loss of those of the row's class: rare classes
            surprise more.
    """

    losses: Floats
    above: Floats
    in_class: Floats

    @classmethod
    def of(cls, parent: Fold, reader: Reader, judge: Judge) -> Surprise | None:
        """By one prediction of each row; None where the version cannot answer all of them, or they
        have no target."""
        parts: list[tuple[Floats, Ints]] = []
        try:
            usual = ask(parent, judge.rows)
            with reader:
                for chunk in reader:
                    found = ask(parent, chunk.batch)
                    if found.y is None:
                        return None
                    parts.append((losses(parent.kind, found.y, found.prediction), found.y))
        except EverlearnError:
            return None
        if usual.y is None or not parts:
            return None
        mine, y = (np.concatenate(part) for part in zip(*parts, strict=True))
        theirs = losses(parent.kind, usual.y, usual.prediction)
        above, in_class = mine - theirs.mean(), mine - theirs.mean()
        if parent.kind == "classifier":
            for code in np.unique(usual.y):
                in_class[y == code] = mine[y == code] - theirs[usual.y == code].mean()
        return cls(mine, above, in_class) if np.isfinite(above).all() else None

    def ordered(self, cuts: Sequence[Cut]) -> list[Cut]:
        """Cuts, those first in which one group surprised most a row; as they are where that does
        not tell."""
        left, made = list(cuts), []
        while left:
            sharpest = [self._sharpness(cut) for cut in left]
            best = int(np.argmax(sharpest))
            if not sharpest[best] > SHARPER * max(sharpest[0], 0.0):
                best = 0
            made.append(left.pop(best))
        return made

    def stands_out(self, cut: Cut, unknown: bool) -> bool:
        """Whether one group, or a run of consecutive ones, may stand for all: the rows of all
        others together surprised at most half as much, on average, as all did.

        Args:
            unknown: what is said where all together are no surprise.
        """
        sums, rows = self._sums(cut)
        place, mean = self._places(cut), sums.sum() / rows.sum()
        if mean <= 0.0:
            return unknown
        rest = rows.sum() - rows[place].sum()
        return bool(not rest or (sums.sum() - sums[place].sum()) / rest <= QUIET * mean)

    def _sums(self, cut: Cut) -> tuple[Floats, Ints]:
        """(groups,) the surprise of each in all, and its rows."""
        of = self.in_class if cut.by == "class" else self.above
        sums = np.array([of[group.members].sum() for group in cut.groups])
        return sums, np.array([len(group.members) for group in cut.groups])

    def _places(self, cut: Cut) -> Ints:
        """(m,) places of the group, or of the run of at most half of them, that surprised most
        above the mean of all."""
        sums, rows = self._sums(cut)
        above = sums - rows * (sums.sum() / rows.sum())
        best, found = -math.inf, np.zeros(0, np.int64)
        for length in range(1, len(above) // 2 + 1 if cut.consecutive else 2):
            of_runs = np.convolve(above, np.ones(length), "valid")
            start = int(of_runs.argmax())
            if of_runs[start] > best:
                best, found = float(of_runs[start]), np.arange(start, start + length)
        return found

    def _sharpness(self, cut: Cut) -> float:
        """The mean surprise of the rows of that group; −∞ where there is only one."""
        if len(cut.groups) < 2:
            return -math.inf
        sums, rows = self._sums(cut)
        place = self._places(cut)
        return float(sums[place].sum() / rows[place].sum())
