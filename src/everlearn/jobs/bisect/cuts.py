"""The rows that an increment learned, and the groups into which they are cut: by who said them, by
whom they are of, by class, by time, by their place in the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from everlearn.base import NO_TIME, Array, Batch, Columns, Ints, Json
from everlearn.data.answers import restored
from everlearn.data.condition import Condition
from everlearn.data.convert import plain, to_texts
from everlearn.data.feedback import id_text
from everlearn.data.increment import Reader
from everlearn.data.join import LogSource
from everlearn.data.log import FeedbackLog
from everlearn.data.predicates import Among, And, Compare, Missing, Or, Predicate
from everlearn.data.slices import Slice
from everlearn.data.source import open_reader
from everlearn.data.tables import BlobStore
from everlearn.registry.models import as_text

GROUPS = 50
"""Most groups of one cut; more sources, reviewers or keys are first taken together."""

SPANS = 8
"""Groups of consecutive rows."""

SAID = ("source", "reviewer")
"""Cuts by who answers for the rows; the others are ours."""

TEXTS = ("source", "reviewer", "key", "id")


@dataclass(frozen=True, slots=True)
class Group:
    """Some of the rows.

    Args:
        name: for people.
        members: (m,) places of the rows.
        where: what tells them from the other groups; None where no condition does.
    """

    name: str
    members: Ints
    where: Predicate | None


@dataclass(frozen=True, slots=True)
class Cut:
    """Groups that together are all rows.

    Args:
        by: "source", "reviewer", "key", "class", "time" or "row".
        groups: one or more.
    """

    by: str
    groups: Sequence[Group]

    @property
    def consecutive(self) -> bool:
        """Whether neighbours among the groups are neighbours among the rows."""
        return self.by in ("time", "row")


class Rows:
    """The n rows that an increment learned, in the order in which it did.

    Args:
        reader: of its rows, as they were learned.
        log: of the model.
        blobs: of the workspace.

    Attributes:
        part, row: (n,) ordinal of the slice and number of the source row.
        texts: "source", "reviewer", "key" and "id" → (n,) what the rows have of these, or None.
    """

    def __init__(self, reader: Reader, log: FeedbackLog, blobs: BlobStore) -> None:
        self.slices, self.columns = reader.slices, reader.columns
        none = np.zeros(0, np.int64)
        parts, rows, y, times = [none], [none], [], []
        with reader:
            for chunk in reader:
                part, row = chunk.origins()
                parts.append(part)
                rows.append(row)
                y += [] if chunk.batch.y is None else [chunk.batch.y]
                times += [] if chunk.batch.time is None else [chunk.batch.time]
        self.part, self.row = np.concatenate(parts), np.concatenate(rows)
        self.y: Array | None = np.concatenate(y) if y else None
        self.time: Ints | None = np.concatenate(times) if times else None
        said = [_said(part, self.columns, log, blobs) for part in self.slices]
        self.texts = {name: self._joined([one[name] for one in said]) for name in TEXTS}

    def __len__(self) -> int:
        return len(self.row)

    def _joined(self, of_slices: Sequence[pa.Array]) -> pa.Array:
        """(n,) texts of the rows from those of whole slices."""
        starts = np.cumsum([0, *(len(one) for one in of_slices)])
        first = np.array([part.start for part in self.slices])
        places = starts[self.part] + self.row - first[self.part]
        return pa.concat_arrays(list(of_slices)).take(pa.array(places))

    def codes(self, groups: Sequence[Ints]) -> dict[str, Array]:
        """The groups (given by the places of their rows) as `measuring.Codes`; names are texts."""
        of = np.full(len(self), -1, np.int64)
        for number, members in enumerate(groups):
            of[members] = number
        made: dict[str, Array] = {}
        for ordinal, part in enumerate(self.slices):
            codes = np.full(part.rows, -1, np.int32)
            mine = self.part == ordinal
            codes[self.row[mine] - part.start] = of[mine]
            made[str(ordinal)] = codes
        return made

    def told(self, place: int) -> dict[str, Json]:
        """Where a row is and what is known of it."""
        part = self.slices[int(self.part[place])]
        row, of_log = int(self.row[place]), part.kind == LogSource.kind
        known = {name: texts[place].as_py() for name, texts in self.texts.items()}
        moment = None if self.time is None else int(self.time[place])
        label = None if self.y is None else restored(self.y[place : place + 1], self.columns)[0]
        return {
            "increment": part.source,
            "position" if of_log else "row": row + 1 if of_log else row,
            "prediction" if of_log else "id": known.pop("id"),
            **known,
            "time": None if moment in (None, NO_TIME) else as_text(int(moment or 0)),
            "label": label,
        }

    def among(self, where: Condition) -> Ints:
        """(m,) places of the rows for which a condition on sources and reviewers holds."""
        return np.flatnonzero(where.mask(pa.table(self.texts)))

    # --- conditions ---

    def base(self, members: Ints) -> Predicate:
        """What tells the increment's rows from those of others: their places in its sources."""
        parts = [self.slices[at] for at in np.unique(self.part[members]).tolist()]
        if parts[0].kind == LogSource.kind:
            return _between("position", parts[0].start + 1, parts[-1].stop)
        names = tuple(dict.fromkeys(part.source for part in parts))
        start, stop = min(part.start for part in parts), max(part.stop for part in parts)
        if any("source" in part.names for part in parts):
            return _between("row", start, stop - 1)
        if len(names) > 1:
            return Among("source", names)
        named = Compare("source", "=", names[0])
        return named if start == 0 else And((named, Compare("row", ">=", start)))

    def named(self, name: str, members: Ints) -> str:
        """What conditions call "time" or "key" of these rows."""
        of_log = self.slices[int(self.part[members[0]])].kind == LogSource.kind
        return name if of_log else str(getattr(self.columns, name))

    # --- cuts ---

    def said(self, members: Ints) -> list[Cut]:
        """The ways to cut some of the rows by who answers for them."""
        return [Cut(name, self._by_text(name, members)) for name in SAID]

    def others(self, members: Ints) -> list[Cut]:
        """The other ways to cut them."""
        return [
            Cut("key", self._by_text("key", members)),
            Cut("class", self._by_class(members)),
            Cut("time", self._by_time(members)),
            Cut("row", self._by_row(members)),
        ]

    def _by_text(self, name: str, members: Ints) -> list[Group]:
        coded = self.texts[name].take(pa.array(members)).dictionary_encode()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        values: list[str] = coded.dictionary.to_pylist()
        order = sorted(np.unique(codes).tolist(), key=lambda c: "" if c < 0 else values[c])
        column = name if name != "key" or self.columns.key is None else self.named(name, members)
        if len(order) > GROUPS:
            bundles = [bundle.tolist() for bundle in np.array_split(np.array(order), GROUPS)]
            return [
                _bundle(column, bundle, values, members[np.isin(codes, bundle)])
                for bundle in bundles
            ]
        return [
            Group(str(Missing(column)), members[codes < 0], Missing(column))
            if code < 0
            else Group(values[code], members[codes == code], Compare(column, "=", values[code]))
            for code in order
        ]

    def _by_class(self, members: Ints) -> list[Group]:
        if self.y is None or self.columns.target is None:
            return []
        values, codes = np.unique(self.y[members], return_inverse=True)
        if len(values) > GROUPS:
            return []
        written: list[Any] = restored(values, self.columns)
        return [
            Group(str(where), members[codes == code], where)
            for code, value in enumerate(written)
            for where in [Compare(self.columns.target, "=", value)]
        ]

    def _by_time(self, members: Ints) -> list[Group]:
        """Spans of time, those with rows; rows of one moment are in one span."""
        if self.time is None or (self.time[members] == NO_TIME).any():
            return []
        name, times = self.named("time", members), self.time[members]
        edges = np.unique(np.quantile(times, np.linspace(0, 1, SPANS + 1)).astype(np.int64))[:-1]
        codes = np.searchsorted(edges, times, "right") - 1
        made = []
        for code in np.unique(codes).tolist():
            first = Compare(name, ">=", as_text(int(edges[code])))
            last = code + 1 == len(edges)
            after = int(times.max()) + 1 if last else int(edges[code + 1])
            where = And((first, Compare(name, "<", as_text(after))))
            made.append(Group(f"from {as_text(int(edges[code]))}", members[codes == code], where))
        return made

    def _by_row(self, members: Ints) -> list[Group]:
        """Spans of rows in the order of the source."""
        order = members[np.lexsort((self.row[members], self.part[members]))]
        made = []
        for span in np.array_split(order, min(SPANS, len(order))):
            first, last = int(self.row[span[0]]), int(self.row[span[-1]])
            part = self.slices[int(self.part[span[0]])]
            of_log = part.kind == LogSource.kind
            name, add = ("position", 1) if of_log else ("row", 0)
            alone = len(np.unique(self.part[span])) == 1 and name not in part.names
            where = _between(name, first + add, last + add) if alone else None
            made.append(Group(f"{name}s {first + add} to {last + add}", span, where))
        return made


def _bundle(column: str, codes: Sequence[int], values: Sequence[str], members: Ints) -> Group:
    """Rows with several texts, which are neighbours in their order; missing ones are the first."""
    last = Compare(column, "<=", values[codes[-1]])
    if codes[0] < 0:
        return Group(f"none, and up to {last.value!r}", members, Or((Missing(column), last)))
    where = And((Compare(column, ">=", values[codes[0]]), last))
    return Group(str(where), members, where)


def merged(groups: Sequence[Group]) -> Group:
    """Consecutive groups as one."""
    if len(groups) == 1:
        return groups[0]
    first, last = groups[0].where, groups[-1].where
    where = None
    if isinstance(first, And) and isinstance(last, And):
        where = And((first.parts[0], last.parts[1]))
    members = np.concatenate([group.members for group in groups])
    return Group(f"{groups[0].name} … {groups[-1].name}", members, where)


def batch_of(reader: Reader, rows: Rows, members: Ints) -> Batch:
    """Some of the rows as they were learned, in the order of `members`."""
    wanted = np.zeros(len(rows), bool)
    wanted[members] = True
    found, start = [], 0
    with reader:
        for chunk in reader:
            n = len(chunk)
            found.append(chunk.batch.take(wanted[start : start + n]))
            start += n
    order = np.argsort(np.argsort(members, kind="stable"), kind="stable")
    return Batch.concat(found).take(order)


def _between(name: str, first: int, last: int) -> And:
    return And((Compare(name, ">=", first), Compare(name, "<=", last)))


def _said(part: Slice, columns: Columns, log: FeedbackLog, blobs: BlobStore) -> dict[str, pa.Array]:
    """(rows,) texts of all rows of a slice, by their names."""
    if part.kind == LogSource.kind:
        return _said_in_log(part, log)
    own = {"source": "source", "reviewer": "reviewer", "key": columns.key, "id": columns.id}
    own = {name: column for name, column in own.items() if column in part.names}
    made = {name: pa.nulls(part.rows, pa.string()) for name in TEXTS}
    if "source" not in own:
        made["source"] = pa.array([part.source] * part.rows, pa.string())
    if own:
        read = _columns(part, tuple(dict.fromkeys(str(column) for column in own.values())), blobs)
        made |= {name: read[str(column)] for name, column in own.items()}
    return made


def _columns(part: Slice, names: tuple[str, ...], blobs: BlobStore) -> dict[str, pa.Array]:
    found: dict[str, list[pa.Array]] = {name: [] for name in names}
    reader = open_reader(part, Columns(texts=names), blobs)
    try:
        for piece in reader.pieces(None):
            for name in names:
                texts = plain(to_texts(plain(piece.table.column(name)), name))
                found[name].append(texts.cast(pa.string()))
    finally:
        reader.close()
    return {name: pa.concat_arrays(pieces) for name, pieces in found.items()}


def _said_in_log(part: Slice, log: FeedbackLog) -> dict[str, pa.Array]:
    made: dict[str, list[str | None]] = {name: [None] * part.rows for name in TEXTS}
    for page in log.pages(part.start, part.stop):
        asked = [id_text(number) for number in page.prediction]
        said = {"source": page.source, "reviewer": page.reviewer, "key": page.key, "id": asked}
        for name, values in said.items():
            for position, value in zip(page.position, values, strict=True):
                made[name][position - 1 - part.start] = value
    return {name: pa.array(values, pa.string()) for name, values in made.items()}
