"""Guards before learning: what of a slice of the feedback log is set aside, and why.

Nothing is dropped: a row that is set aside keeps its position and its reason in the account of the
increment. A slice is judged by itself, so that the same slice is always judged in the same way.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from everlearn.base import Decision, Floats, Json, SpecError, canonical_json, digest_bytes
from everlearn.data.answers import as_answered, class_name
from everlearn.data.convert import Mask
from everlearn.data.disagreement import Contradicted, Sources
from everlearn.data.feedback import LoggedPrediction
from everlearn.data.hashing import mix

OUT_OF_RANGE = "out of range"
TWICE = "the same event came before"
OUTLIER = "outlier of the loss"
OVER_BUDGET = "its source is over its budget"
QUARANTINED = "its source is in quarantine"

FEW = 100
"""Rows below which a slice tells nothing of what is usual in it."""

RARE = 0.01
"""Share of rows up to which outliers are set aside; if there are more, the data has changed."""

UNBELIEVABLE = 1e-6
"""Probability of its label below which a row is an outlier of the loss."""

BUDGET = np.uint64(0xD1B54A32D192ED03)
"""By which ids of predictions are scrambled, where a source is over its budget."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that is about to be learned: its prediction, and the label that counts for it.

    Args:
        position: in the log.
        prediction: that is judged.
        source: of the label.
        value: of the target.
        weight: of the row.
        dated: whether another row with the same features, key and time must be the same event.
    """

    position: int
    prediction: LoggedPrediction
    source: str
    value: Json
    weight: float
    dated: bool = True


@dataclass(frozen=True, slots=True)
class Findings:
    """What guards found.

    Args:
        aside: position → why the row is set aside.
        suspects: source → the decision to quarantine it, with its figures.
    """

    aside: Mapping[int, str]
    suspects: Mapping[str, Decision]


@dataclass(frozen=True, slots=True)
class Guards:
    """What keeps rows of the feedback log from being learned.

    A job judges the rows of its slice among each other. Where labels are learned online, a row is
    judged among the last 2,000 labels (`everlearn.data.watch`), so that nothing is said of the
    first 100; sources are compared every 2,000 labels, and what one said before it was found has
    been learned by then.

    Args:
        ranges: column → (lowest, highest) number that is believed; None is no bound. A text where a
            number is expected is out of range, a missing value is not.
        spread: a number that is further from the median of its column than so many interquartile
            ranges of the slice is out of range; None for any number is believed. Few such rows are
            set aside; if they are more than 1 %, none is: the data has changed.
        duplicates: set aside an event that was logged twice: the same features, key, time and label
            of the same source. Events have to have a key, or their time among their features.
        noise: compare how often each source contradicts what was answered, among rows with the same
            label and the same confidence of the answer; quarantine a source that surely does so
            more often than the others (`alpha`, `margin`). Nothing can be said of a source that is
            alone. One label that contradicts is no reason to set it aside: it may be news.
        budget: largest share of a slice's weight that any one source may have; or {source: share}.
            The rest is set aside, chosen by a hash of the prediction's id. One share for all that
            the sources of a slice cannot meet is met as nearly as they can: by equal weights.
            Named shares are kept even if nothing is left to learn.
        outliers: set aside rows whose label the answer gave a probability below one in a million
            or, of numbers, whose error is beyond `spread` interquartile ranges of the errors; with
            the same limit of 1 %.
        alpha: chance that any honest source of a slice is quarantined.
        margin: by how much a share of contradictions must surely exceed that of the others.

    Raises:
        SpecError: a parameter that cannot be.
    """

    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    spread: float | None = 1000.0
    duplicates: bool = True
    noise: bool = True
    budget: float | Mapping[str, float] | None = None
    outliers: bool = True
    alpha: float = 0.01
    margin: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranges", dict(self.ranges or {}))
        for name, bounds in self.ranges.items():
            if len(bounds) != 2 or (None not in bounds and not bounds[0] <= bounds[1]):  # type: ignore[operator]
                raise SpecError(f"the range of {name!r} is (lowest, highest), not {bounds!r}")
        if self.spread is not None and not self.spread >= 1.0:
            raise SpecError(f"Guards(spread=) is a number from 1, not {self.spread!r}")
        shares = self.budget.values() if isinstance(self.budget, Mapping) else [self.budget]
        for share in shares:
            if share is not None and not 0.0 <= share <= 1.0:
                raise SpecError(f"Guards(budget=) is a share from 0 to 1, not {share!r}")
        if not 0.0 < self.alpha < 1.0 or not 0.0 <= self.margin < 1.0:
            raise SpecError("Guards(alpha=, margin=) are shares between 0 and 1")

    def inspect(self, rows: Iterable[Candidate]) -> Findings:
        """Judge the rows of a slice, in the log's order."""
        gathered = _Gathered(self)
        for row in rows:
            gathered.add(row)
        aside = gathered.aside
        if self.spread is not None:
            for name, cells in sorted(gathered.numbers.items()):
                reason = f"{OUT_OF_RANGE}: {name!r} is far from all others"
                _mark(aside, cells, self.spread, reason)
        if self.outliers:
            _mark_rare(aside, gathered.unbelievable, len(gathered.sources), OUTLIER)
            if self.spread is not None:
                _mark(aside, gathered.errors, self.spread, OUTLIER)
        suspects: Mapping[str, Decision] = {}
        if self.noise:
            suspects = gathered.contradicted(aside).suspects(self.alpha, self.margin)
        if self.budget is not None:
            aside |= gathered.over_budget(self.budget, aside, set(suspects))
        return Findings(aside, suspects)


class _Cells:
    """Numbers, and the positions of their rows, 16 bytes each."""

    def __init__(self) -> None:
        self.positions, self.values = array("q"), array("d")

    def add(self, position: int, value: float) -> None:
        self.positions.append(position)
        self.values.append(value)


class _Gathered:
    """What is kept of the rows of a slice while they are read once."""

    def __init__(self, guards: Guards) -> None:
        self._guards = guards
        self.aside: dict[int, str] = {}
        self.sources: dict[
            int, tuple[str, int, float]
        ] = {}  # position → source, prediction, weight
        self.numbers: dict[str, _Cells] = defaultdict(_Cells)
        self.errors = _Cells()
        self.unbelievable: list[int] = []
        self._answers: list[tuple[int, Contradicted]] = []
        self._events: set[str] = set()

    def add(self, row: Candidate) -> None:
        """Look at one row by itself, and keep what is needed to judge it among the others."""
        guards = self._guards
        self.sources[row.position] = (row.source, row.prediction.id, row.weight)
        self._columns(row)
        if guards.duplicates and row.dated:
            event = event_of(row)
            if event in self._events:
                self.aside.setdefault(row.position, TWICE)
            self._events.add(event)
        self._answer(row)

    def contradicted(self, aside: Mapping[int, str]) -> Sources:
        """How often each source contradicts what was answered."""
        seen = [said for position, said in self._answers if position not in aside]
        if self.errors.values:  # of numbers: an error among the largest tenth
            cells = zip(self.errors.positions, self.errors.values, strict=True)
            kept = [(place, error) for place, error in cells if place not in aside]
            limit = float(np.quantile([error for _, error in kept], 0.9)) if kept else 0.0
            seen += [
                Contradicted(self.sources[place][0], "", error > limit, 1.0)
                for place, error in kept
            ]
        return Sources(seen)

    def over_budget(
        self,
        budget: float | Mapping[str, float],
        aside: Mapping[int, str],
        suspects: set[str],
    ) -> dict[int, str]:
        """Position → the reason, of the rows by which sources are over their budget."""
        by_source: dict[str, list[tuple[int, int, float]]] = defaultdict(list)
        for position, (source, prediction, weight) in self.sources.items():
            if position not in aside and source not in suspects:
                by_source[source].append((position, prediction, weight))
        have = {source: sum(weight for _, _, weight in rows) for source, rows in by_source.items()}
        allowed = allowances(have, budget)
        over: dict[int, str] = {}
        for source, rows in by_source.items():
            if have[source] <= allowed[source]:
                continue
            order = mix(np.array([row[1] for row in rows], np.uint64) ^ BUDGET).argsort()
            kept = 0.0
            for place in order.tolist():
                position, _, weight = rows[place]
                if kept + weight > allowed[source] * (1.0 + 1e-9):
                    over[position] = OVER_BUDGET
                else:
                    kept += weight
        return over

    def _columns(self, row: Candidate) -> None:
        reason = believed(self._guards, row)
        if reason is not None:
            self.aside.setdefault(row.position, reason)
        if self._guards.spread is not None:
            for name, value in numbers_of(row):
                self.numbers[name].add(row.position, value)

    def _answer(self, row: Candidate) -> None:
        """Compare the label with what was answered."""
        error, said, unbelievable = compared(row)
        if error is not None:
            self.errors.add(row.position, error)
        if said is not None:
            self._answers.append((row.position, said))
        if unbelievable:
            self.unbelievable.append(row.position)


def believed(guards: Guards, row: Candidate) -> str | None:
    """Why a row is out of the ranges that are said; None if it is not."""
    features = row.prediction.features
    if not isinstance(features, Mapping):
        return None
    for name, (low, high) in guards.ranges.items():
        value = features.get(name)
        if value is None or value != value:
            continue
        number = _number(value)
        outside = (
            number is None
            or (low is not None and number < low)
            or (high is not None and number > high)
        )
        if outside:
            return f"{OUT_OF_RANGE}: {name!r} is {value!r}"
    return None


def numbers_of(row: Candidate) -> Iterator[tuple[str, float]]:
    """The finite numbers among the features of a row, with the names of their columns."""
    features = row.prediction.features
    if isinstance(features, Mapping):
        for name, value in features.items():
            if type(value) in (int, float) and abs(value) < float("inf"):
                yield name, float(value)


def compared(row: Candidate) -> tuple[float | None, Contradicted | None, bool]:
    """A label beside the answer that it judges: the error of a number, or whether it contradicts
    the answered class, and whether the answer gave it next to no probability."""
    output = row.prediction.output
    if not isinstance(output, Mapping) or output.get("value") is None:
        return None, None, False
    answered, chances = output["value"], output.get("probabilities")
    if chances is None and _number(row.value) is not None and _number(answered) is not None:
        return abs(float(row.value) - float(answered)), None, False
    label = class_name(as_answered(row.value, answered))
    confidence = max(chances.values()) if chances else 1.0
    said = Contradicted(row.source, label, label != class_name(answered), confidence)
    return None, said, chances is not None and chances.get(label, 1.0) < UNBELIEVABLE


def allowances(have: Mapping[str, float], budget: float | Mapping[str, float]) -> dict[str, float]:
    """Source → the weight that it may have, so that none has more than its share of what is kept.

    >>> allowances({"a": 8.0, "b": 1.0, "c": 1.0}, 0.5)
    {'a': 2.0, 'b': 1.0, 'c': 1.0}
    """
    if isinstance(budget, Mapping):
        share = {source: budget.get(source, 1.0) for source in have}
    else:
        share = {source: max(budget, 1.0 / len(have)) for source in have}
    capped: set[str] = set()
    total = sum(have.values())
    while True:
        more = {source for source in have if have[source] > share[source] * total * (1 + 1e-12)}
        if more <= capped:
            break
        capped |= more
        left = 1.0 - sum(share[source] for source in capped)
        rest = sum(have[source] for source in have if source not in capped)
        if left > 1e-12:
            total = rest / left
        else:  # shares that only equal weights meet
            total = min(have[source] / share[source] if share[source] else 0.0 for source in capped)
            break
    return {source: min(have[source], share[source] * total) for source in have}


def _mark(aside: dict[int, str], cells: _Cells, spread: float, reason: str) -> None:
    """Set aside the few that are far from the others."""
    if len(cells.values) < FEW:
        return
    far = np.flatnonzero(_far(np.array(cells.values), spread))
    positions = [cells.positions[place] for place in far.tolist()]
    _mark_rare(aside, positions, len(cells.values), reason)


def _far(values: Floats, spread: float) -> Mask:
    """(n,) which values are further than `spread` interquartile ranges from the median."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    if high <= low:
        return np.zeros(len(values), bool)
    far: Mask = np.abs(values - middle) > spread * (high - low)
    return far


def _mark_rare(aside: dict[int, str], positions: Sequence[int], rows: int, reason: str) -> None:
    if rows >= FEW and len(positions) <= RARE * rows:
        for position in positions:
            aside.setdefault(position, reason)


def event_of(row: Candidate) -> str:
    """SHA-256 of what makes a row an event: the same one logged twice has it twice."""
    prediction = row.prediction
    said: list[Any] = [prediction.features, prediction.key, prediction.at, row.source, row.value]
    return digest_bytes(canonical_json(said))


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) else None
