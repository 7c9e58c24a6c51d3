"""The rows of increments, read again as far as a bound: what became of them, from whom they are,
and single rows with the values that they came with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from everlearn.base import (
    NO_TIME,
    Array,
    Columns,
    EverlearnError,
    Hashes,
    Ints,
    Json,
    NotFoundError,
)
from everlearn.data.answers import restored
from everlearn.data.blocks import Block, BlockReader
from everlearn.data.compiler import wanted
from everlearn.data.feedback import id_text
from everlearn.data.history import said_within
from everlearn.data.ids import SeenIds
from everlearn.data.join import LogSource
from everlearn.data.log import FeedbackLog
from everlearn.data.policy import Said
from everlearn.data.slices import Place, Slice
from everlearn.data.source import open_reader
from everlearn.data.tables import BlobStore
from everlearn.registry.models import as_text

FATES = ("learned", "held_out", "set_aside", "duplicates")
"""What becomes of rows, in the order of their codes."""

CLASSES = 50
"""Different values of a target up to which they are counted one by one."""

SPANS = 12
"""Spans of time in which rows are counted."""


class Speaker(NamedTuple):
    """Where a row came from.

    Args:
        source: the file, table or topic; of a row of the feedback log, who labelled it.
        reviewer: the person, where a person did.
        kind: of the label; None for a row of another source.
    """

    source: str
    reviewer: str | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Located:
    """A row that was found again.

    Args:
        speaker: from whom it is.
        source: of the increment.
        row: number in the source; the position of its label less one in the feedback log.
        values: column → value, as they came.
        prediction: id of the prediction, of a row of the feedback log.
    """

    speaker: Speaker
    source: str
    row: int
    values: dict[str, Json]
    prediction: str | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one block: n of them, h held out."""

    part: Slice
    place: Place
    first: int
    fate: Ints
    speaker: Ints
    y: Array | None
    time: Ints | None
    held: Hashes
    held_at: Ints


class Reread:
    """Rows of increments, read again.

    Args:
        columns: how they are compiled.
        holdout: share of them that was held out, where a slice does not say.
        blobs: of the workspace.
        log: of the model.

    Attributes:
        missing: what could not be read, and why.
    """

    def __init__(
        self, columns: Columns, holdout: float, blobs: BlobStore, log: FeedbackLog
    ) -> None:
        self.columns, self.missing = columns, list[str]()
        self._holdout, self._blobs, self._log = holdout, blobs, log
        self._speakers: dict[Speaker, int] = {}
        self._parts: list[_Part] = []
        self._asked: dict[int, dict[int, int]] = {}  # start of a slice → position → prediction

    def __len__(self) -> int:
        """Rows that were read."""
        return sum(len(part.fate) for part in self._parts)

    def read(self, slices: Iterable[Slice], most: int, seen: SeenIds | None = None) -> None:
        """Read slices in their order, until `most` rows are read in all.

        Args:
            seen: ids that were known before, where rows have ids; changed.
        """
        for part in slices:
            left = most - len(self)
            if left <= 0:
                return
            try:
                self._read(part, left, seen)
            except EverlearnError as error:
                self.missing.append(f"{part.source}: {error}")

    def _read(self, part: Slice, most: int, seen: SeenIds | None) -> None:
        speakers = self._of(part, min(part.stop, part.start + most))
        blocks = BlockReader([part], self.columns, self._blobs, self._holdout, seen).blocks()
        for block in blocks:
            self._parts.append(self._part(part, block, speakers[block.first - part.start :]))
            most -= block.rows
            if most <= 0:
                return

    def _part(self, part: Slice, block: Block, speakers: Ints) -> _Part:
        """A block, by what is kept of it; rows past the bound are from an unknown speaker."""
        n = block.rows
        fate, speaker = np.zeros(n, np.int64), np.full(n, -1, np.int64)
        fate[block.held_at], fate[block.twice_at] = 1, 3
        fate[[at for at, _ in block.aside]] = 2
        speaker[: len(speakers)] = speakers[:n]
        y = _placed(n, block.learn_at, block.learn.y, block.held_at, block.held.y)
        held, place = block.held.ids, block.place
        return _Part(part, place, block.first, fate, speaker, y, block.times, held, block.held_at)

    def _of(self, part: Slice, stop: int) -> Ints:
        """(rows,) number of the speaker of each row from the slice's first up to `stop`."""
        found = np.full(stop - part.start, self._number(Speaker(part.source)), np.int64)
        if part.kind != LogSource.kind:
            return found
        asked = self._asked.setdefault(part.start, {})
        for prediction, labels in self._said(part.start, stop).items():
            for one in labels:
                speaker = Speaker(one.source, one.reviewer, one.kind)
                found[one.position - 1 - part.start] = self._number(speaker)
                asked[one.position] = prediction
        return found

    def _said(self, start: int, stop: int) -> dict[int, list[Said]]:
        """Prediction → its labels between two positions; none where they were deleted."""
        try:
            return said_within(self._log, start, stop)
        except NotFoundError as error:
            self.missing.append(str(error))
            return {}

    def _number(self, speaker: Speaker) -> int:
        return self._speakers.setdefault(speaker, len(self._speakers))

    # --- what is known of them ---

    @property
    def speakers(self) -> Sequence[Speaker]:
        """All of them, in the order of their numbers."""
        return list(self._speakers)

    def speakers_of(self, ids: Hashes) -> Ints:
        """(n,) number of the speaker of held-out rows with these ids; −1 where it is not known."""
        known = [np.zeros(0, np.uint64), *(part.held for part in self._parts)]
        said = [np.zeros(0, np.int64), *(part.speaker[part.held_at] for part in self._parts)]
        held, speaker = np.concatenate(known), np.concatenate(said)
        if not len(held):
            return np.full(len(ids), -1, np.int64)
        order = np.argsort(held, kind="stable")
        at = np.minimum(np.searchsorted(held[order], ids), len(held) - 1)
        found = order[at]
        return np.where(held[found] == ids, speaker[found], -1)

    def find(self, ids: Hashes) -> dict[int, Located]:
        """Id → the row as it came, of held-out rows with these ids."""
        found: dict[int, Located] = {}
        for part in self._parts:
            hits = np.flatnonzero(np.isin(part.held, ids))
            if len(hits):
                places = part.held_at[hits]
                for number, row in zip(part.held[hits].tolist(), self._rows(part, places),
                                       strict=True):  # fmt: skip
                    found.setdefault(number, row)
        return found

    def _rows(self, part: _Part, places: Ints) -> list[Located]:
        reader = open_reader(part.part, self.columns, self._blobs)
        try:
            piece = next(iter(reader.pieces(part.place)))
            offset = part.first - piece.place.row
            table = piece.table.select([n for n in self._names if n in piece.table.schema.names])
            rows = table.take(pa.array(places + offset)).to_pylist()
        finally:
            reader.close()
        asked = self._asked.get(part.part.start, {}) if part.part.kind == LogSource.kind else {}
        made = []
        for place, came in zip(places.tolist(), rows, strict=True):
            values, row = {key: _plain(value) for key, value in came.items()}, part.first + place
            number = asked.get(row + 1)
            name = None if number is None else id_text(number)
            speaker = self.speakers[part.speaker[place]]
            made.append(Located(speaker, part.part.source, row, values, name))
        return made

    @property
    def _names(self) -> list[str]:
        return [one for one in (self.columns.id, *wanted(self.columns, features_only=True)) if one]

    # --- in figures ---

    def by_speaker(self) -> list[Json]:
        """Of each speaker, most rows first: rows by what became of them, and by class those that
        were learned."""
        count = len(self._speakers)
        tables = np.zeros((count, len(FATES)), np.int64)
        classes: list[dict[Any, int]] = [{} for _ in range(count)]
        few = self._classes() is not None
        for part in self._parts:
            known = part.speaker >= 0
            np.add.at(tables, (part.speaker[known], part.fate[known]), 1)
            if few and part.y is not None:
                _count(classes, part.speaker, part.y, known & (part.fate == 0))
        made = [
            {**speaker._asdict(), **dict(zip(FATES, row, strict=True)), "classes": self._named(of)}
            for speaker, row, of in zip(self._speakers, tables.tolist(), classes, strict=True)
        ]
        return sorted((one for one in made if any(one[fate] for fate in FATES)), key=_most)

    def by_class(self) -> list[Json]:
        """Of each class, how many rows were learned and held out; empty without classes."""
        if self._classes() is None:
            return []
        counted: list[dict[Any, int]] = [{}, {}]
        for part in self._parts:
            if part.y is not None:
                _count(counted, part.fate, part.y, part.fate < 2)
        learned, held = counted
        ordered = sorted({*learned, *held})
        return [
            {"value": value, "learned": learned.get(key, 0), "held_out": held.get(key, 0)}
            for value, key in zip(self._written(ordered), ordered, strict=True)
        ]

    def values(self) -> Json:
        """Quantiles of a target of numbers that were learned; None where it has classes."""
        learned = [part.y[part.fate == 0] for part in self._parts if part.y is not None]
        if not learned or self._classes() is not None or learned[0].dtype == object:
            return None
        names = ("least", "quarter", "median", "three_quarters", "most")
        quantiles = np.quantile(np.concatenate(learned), np.linspace(0, 1, 5))
        return dict(zip(names, quantiles.tolist(), strict=True))

    def by_time(self) -> list[Json]:
        """Rows that were learned, in spans of event time of the same length."""
        times = [part.time[part.fate == 0] for part in self._parts if part.time is not None]
        known = np.concatenate([np.zeros(0, np.int64), *times])
        known = known[known != NO_TIME]
        if not len(known):
            return []
        low, high = int(known.min()), int(known.max())
        count = SPANS if high > low else 1
        edges = np.linspace(low, high + 1, count + 1).astype(np.int64)
        counts = np.histogram(known, edges)[0].tolist()
        return [
            {"start": as_text(int(a)), "stop": as_text(int(b)), "learned": n}
            for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
        ]

    def _classes(self) -> set[Any] | None:
        """The values of the target; None where there are none, or too many to be classes."""
        found: set[Any] = set()
        for part in self._parts:
            if part.y is not None:
                found |= set(np.unique(part.y[part.fate < 2]).tolist())
            if len(found) > CLASSES:
                return None
        return found or None

    def _named(self, counts: dict[Any, int]) -> list[Json]:
        """Value → rows, as a list in the order of the values, each as the target is written."""
        ordered = sorted(counts)
        pairs = zip(self._written(ordered), ordered, strict=True)
        return [{"value": value, "rows": counts[key]} for value, key in pairs]

    def _written(self, values: Sequence[Any]) -> list[Json]:
        """Values as the target is written."""
        return list(restored(np.array(values, object), self.columns))


def _placed(n: int, learn_at: Ints, learn: Array | None, held_at: Ints, held: Array | None) -> Any:
    """(n,) targets of rows that were learned or held out; those of others mean nothing."""
    if learn is None or held is None:
        return None
    y = np.zeros(n, learn.dtype) if learn.dtype != object else np.full(n, "", object)
    y[learn_at], y[held_at] = learn, held
    return y


def _count(counts: list[dict[Any, int]], groups: Ints, y: Array, rows: Array) -> None:
    """Count the values of some rows, by group."""
    pairs = zip(groups[rows].tolist(), y[rows].tolist(), strict=True)
    for group, value in pairs:
        counts[group][value] = counts[group].get(value, 0) + 1


def _plain(value: Any) -> Json:
    """A value of an Arrow table as JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _most(one: Json) -> int:
    return -sum(int(one[fate]) for fate in FATES)
