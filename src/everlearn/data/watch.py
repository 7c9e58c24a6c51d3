"""Guards for labels that come one by one: each row is judged by the rows before it.

A job judges a slice of the log by itself. Where every label is learned as it arrives there is no
slice, so a row is judged among the last `WINDOW` labels instead. What is usual among them is worked
out anew at fixed positions of the log, every `BLOCK` labels, and a row's verdict follows from the
log alone: not from when it was looked at, and not from what was set aside before.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from everlearn.base import Decision
from everlearn.data.disagreement import Contradicted, Sources
from everlearn.data.hashing import mix
from everlearn.data.quality import (
    BUDGET,
    FEW,
    OUT_OF_RANGE,
    OUTLIER,
    OVER_BUDGET,
    RARE,
    TWICE,
    Candidate,
    Guards,
    allowances,
    believed,
    compared,
    event_of,
    numbers_of,
)

BLOCK = 100
"""Labels after which what is usual is worked out anew."""

WINDOW = 2000
"""Labels by which a row is judged; sources are compared once in so many."""

ERROR = "\0error"
UNBELIEVABLE = "\0unbelievable"


@dataclass(slots=True)
class _Block:
    """What is kept of the rows at `BLOCK` positions: those that count, whatever guards said."""

    number: int
    rows: int = 0
    cells: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    unbelievable: int = 0
    weights: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    events: set[str] = field(default_factory=set)
    said: list[Contradicted] = field(default_factory=list)
    errors: list[tuple[str, float]] = field(default_factory=list)


@dataclass(slots=True)
class _Usual:
    """What is usual of one column, and how many rows were not.

    Args:
        middle, reach: a number further from the middle than this is far; NaN where none is.
        far, rows: of the rows that it is judged by, with those of the present block.
    """

    middle: float
    reach: float
    far: int
    rows: int

    def is_rare(self, is_far: bool) -> bool:
        """Count a row; whether it is far, and few were: if they are many, the data has changed."""
        self.far, self.rows = self.far + is_far, self.rows + 1
        return is_far and self.rows > FEW and self.far <= RARE * self.rows


class Watch:
    """Judges the rows of a log in its order.

    Args:
        position: the rows after it come first.
    """

    def __init__(self, position: int) -> None:
        self.position = position
        self._past: deque[_Block] = deque()
        self._now = _Block(position // BLOCK)
        self._usual: dict[str, _Usual] = {}
        self._worked_out = False
        self._weights: dict[str, float] | None = None  # of the blocks before

    @staticmethod
    def begin(position: int) -> int:
        """Where to begin, so that all that rows after a position depend on is seen."""
        return max(0, position // BLOCK * BLOCK - WINDOW)

    def judge(self, guards: Guards | None, rows: Sequence[Candidate], upto: int) -> dict[int, str]:
        """Position → why the row there is set aside.

        Args:
            guards: that hold for these rows; without them the rows are only remembered.
            rows: that count, of the positions after the last ones and up to `upto`.
        """
        aside: dict[int, str] = {}
        for row in rows:
            self._turn_to((row.position - 1) // BLOCK)
            event = event_of(row) if row.dated else None
            if guards is not None:
                reason = self._reason(guards, row, event)
                if reason is not None:
                    aside[row.position] = reason
            self._remember(row, event)
        self.position = upto
        return aside

    def suspects(self, guards: Guards) -> Mapping[str, Decision]:
        """The sources that surely contradict more than the others did among the last labels."""
        if not guards.noise:
            return {}
        seen, errors = list[Contradicted](), list[tuple[str, float]]()
        for block in self._blocks():
            if block.number >= (self.position - WINDOW) // BLOCK:
                seen += block.said
                errors += block.errors
        if errors:  # of numbers: an error among the largest tenth
            limit = float(np.quantile([error for _, error in errors], 0.9))
            seen += [Contradicted(source, "", error > limit, 1.0) for source, error in errors]
        return Sources(seen).suspects(guards.alpha, guards.margin)

    # --- inside ---

    def _blocks(self) -> Iterator[_Block]:
        yield from self._past
        yield self._now

    def _turn_to(self, number: int) -> None:
        """Begin the block of this number, unless it was begun."""
        if number == self._now.number:
            return
        if self._now.rows:
            self._past.append(self._now)
        while self._past and self._past[0].number < number - WINDOW // BLOCK:
            self._past.popleft()
        self._now, self._usual, self._worked_out = _Block(number), {}, False
        self._weights = None

    def _reason(self, guards: Guards, row: Candidate, event: str | None) -> str | None:
        """Why a row is set aside; every guard looks at every row, for each counts."""
        reasons = [believed(guards, row)]
        if guards.duplicates and event is not None:
            twice = any(event in block.events for block in self._blocks())
            reasons.append(TWICE if twice else None)
        if not self._worked_out:
            self._work_out(guards)
        if guards.spread is not None:
            for name, value in sorted(numbers_of(row)):
                if self._is_far(name, value):
                    reasons.append(f"{OUT_OF_RANGE}: {name!r} is far from all others")
        if guards.outliers and self._is_outlier(guards, row):
            reasons.append(OUTLIER)
        if guards.budget is not None and self._is_over(guards, row):
            reasons.append(OVER_BUDGET)
        return next((reason for reason in reasons if reason is not None), None)

    def _work_out(self, guards: Guards) -> None:
        """What is usual among the rows of the blocks before, and of the present one so far."""
        self._worked_out = True
        names = dict.fromkeys(name for block in self._past for name in block.cells)
        for name in names if guards.spread is not None else ():
            values = np.array([cell for block in self._past for cell in block.cells.get(name, ())])
            self._usual[name] = _usual(values, float(guards.spread or 0.0))
        rows = sum(block.rows for block in self._past)
        many = sum(block.unbelievable for block in self._past)
        self._usual[UNBELIEVABLE] = _Usual(0.0, 0.0, many, rows)
        for name, cells in self._now.cells.items():  # where guards began within a block
            for value in cells:
                self._is_far(name, value)
        self._usual[UNBELIEVABLE].far += self._now.unbelievable
        self._usual[UNBELIEVABLE].rows += self._now.rows

    def _is_far(self, name: str, value: float) -> bool:
        usual = self._usual.get(name)
        if usual is None:
            return False
        return usual.is_rare(abs(value - usual.middle) > usual.reach)

    def _is_outlier(self, guards: Guards, row: Candidate) -> bool:
        error, _, unbelievable = compared(row)
        rare = self._usual[UNBELIEVABLE].is_rare(unbelievable)
        if error is None or guards.spread is None:
            return rare
        return self._is_far(ERROR, error) or rare

    def _is_over(self, guards: Guards, row: Candidate) -> bool:
        """Whether a source has had its share of the weight; a hash of the prediction's id chooses
        which of its rows are more than that."""
        assert guards.budget is not None
        if self._weights is None:
            self._weights = defaultdict(float)
            for block in self._past:
                for source, weight in block.weights.items():
                    self._weights[source] += weight
        have = dict(self._weights)
        for source, weight in [*self._now.weights.items(), (row.source, row.weight)]:
            have[source] = have.get(source, 0.0) + weight
        mine = have[row.source]
        share = allowances(have, guards.budget)[row.source] / mine if mine > 0.0 else 1.0
        if share >= 1.0 - 1e-9:
            return False
        scrambled = mix(np.array([row.prediction.id], np.uint64) ^ BUDGET)[0]
        return int(scrambled) >= int(share * 2**64)

    def _remember(self, row: Candidate, event: str | None) -> None:
        block = self._now
        block.rows += 1
        block.weights[row.source] += row.weight
        if event is not None:
            block.events.add(event)
        for name, value in numbers_of(row):
            block.cells[name].append(value)
        error, said, unbelievable = compared(row)
        if error is not None:
            block.cells[ERROR].append(error)
            block.errors.append((row.source, error))
        if said is not None:
            block.said.append(said)
        block.unbelievable += unbelievable


def _usual(values: np.ndarray, spread: float) -> _Usual:
    """Of numbers (n,) that are looked at together: as a slice's column is judged."""
    if len(values) < FEW:
        return _Usual(0.0, float("nan"), 0, len(values))
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    reach = spread * float(high - low) if high > low else float("nan")
    far = int((np.abs(values - middle) > reach).sum())
    return _Usual(float(middle), reach, far, len(values))
