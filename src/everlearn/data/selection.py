"""Which rows of recorded slices are asked for: by a condition, as rows, by a key, by a version.

The columns on which a condition is evaluated are those of `data.row_tables`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from everlearn.base import Columns, InputError, Ints, Json, Schema
from everlearn.data.condition import Condition
from everlearn.data.log import FeedbackLog
from everlearn.data.predicates import And, Compare, Missing, Or, Predicate
from everlearn.data.resettle import bounds, readable, recorded
from everlearn.data.row_tables import known_of, names_of, tables_of_labels, tables_of_rows
from everlearn.data.slices import Slice, nearest
from everlearn.data.tables import BlobStore
from everlearn.data.withdrawals import OF_LOG, Withdrawals
from everlearn.data.withdrawn import NOTHING, WITHDRAWN, Numbers, withdrawn_rows

_AT_ONCE = 65_536  # rows of which is asked at a time whether they may be meant
_RANGE = re.compile(r"(?P<first>[0-9]{1,18})(?:-(?P<last>[0-9]{1,18}))?")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows are asked for; made by one of its four class methods. JSON.

    Args:
        condition: that holds for them.
        rows: (source, first, last) of consecutive rows; of the log ("feedback") positions.
        key: that they are of.
        version: that answered the predictions that they are labels of.
        after: the position of the log after which such labels are; not in JSON.
    """

    condition: Condition | None = None
    rows: tuple[tuple[str, int, int], ...] = ()
    key: str | None = None
    version: int | None = None
    after: int = 0

    @classmethod
    def where(cls, text: str) -> Selection:
        """Rows for which a condition holds. Raises `InputError` if the text is none."""
        return cls(condition=Condition.parse(text))

    @classmethod
    def of_rows(cls, texts: Sequence[str]) -> Selection:
        """Rows by their numbers: "SOURCE:FROM-TO" (both included) or "SOURCE:ROW" each.

        Raises:
            InputError: a text that says no rows.
        """
        found = []
        for text in texts:
            source, _, numbers = text.rpartition(":")
            match = _RANGE.fullmatch(numbers)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if not source or last < first:
                raise InputError(f"rows are SOURCE:FROM-TO, such as feedback:120-140, not {text!r}")
            found.append((source, first, last))
        if not found:
            raise InputError("no rows were named")
        return cls(rows=tuple(found))

    @classmethod
    def of_key(cls, key: str) -> Selection:
        """All rows of one key."""
        return cls(key=key)

    @classmethod
    def induced_by(cls, version: int) -> Selection:
        """The labels of predictions that a version answered."""
        return cls(version=version)

    @classmethod
    def of(
        cls,
        *,
        where: str | None = None,
        rows: Sequence[str] | None = None,
        key: str | None = None,
        induced_by: int | None = None,
    ) -> Selection:
        """What one of these asks for, as the four other class methods take it.

        Raises:
            InputError: none was given, or more than one.
        """
        asked = {"where": where, "rows": rows or None, "key": key, "induced_by": induced_by}
        given = [name for name, value in asked.items() if value is not None]
        if len(given) != 1:
            told = " and ".join(given) or "none"
            raise InputError(f"say one of where, rows, key and induced_by; there is {told}")
        if where is not None:
            return cls.where(where)
        if rows:
            return cls.of_rows(rows)
        return cls(key=key, version=induced_by)

    def to_json(self) -> Json:
        """{"where" | "rows" | "key" | "induced_by": …}."""
        if self.condition is not None:
            return {"where": str(self.condition)}
        if self.rows:
            return {"rows": [list(item) for item in self.rows]}
        return {"induced_by": self.version} if self.key is None else {"key": self.key}

    @classmethod
    def from_json(cls, value: Json) -> Selection:
        """The inverse of `to_json`."""
        if "where" in value:
            return cls.where(value["where"])
        rows = tuple((item[0], item[1], item[2]) for item in value.get("rows", ()))
        return cls(rows=rows, key=value.get("key"), version=value.get("induced_by"))

    def __str__(self) -> str:
        """What is asked for, in words."""
        if self.condition is not None:
            return str(self.condition)
        if self.key is not None:
            return f"the key {self.key!r}"
        if self.version is not None:
            return f"labels of predictions that version {self.version} answered"
        return ", ".join(f"{source}:{first}-{last}" for source, first, last in self.rows)

    def _within(self, part: Slice, columns: Columns) -> Condition | None:
        """The condition to be evaluated on the rows of a slice; None where none can be meant."""
        of_log = part.kind == OF_LOG
        if self.key is not None:
            name = "key" if of_log else columns.key
            return None if name is None else Condition(Compare(name, "=", self.key))
        if self.version is not None:
            late = Compare("position", ">", self.after)
            answered = Compare("version", "=", self.version)
            return Condition(And((late, answered))) if of_log else None
        return self.condition

    def others(self, part: Slice, after: int) -> Condition:
        """The same of all rows but those of a slice: of a file or table by its name, of the log by
        the position after which labels are looked for."""
        elsewhere: Predicate = Compare("source", "!=", part.source)
        if part.kind == OF_LOG:
            elsewhere = Or((Compare("position", ">", after), Missing("position")))
        asked: Predicate = Compare("key", "=", self.key or "")
        if self.version is not None:
            asked = Compare("version", "=", self.version)
        elif self.condition is not None:
            asked = self.condition.root
        return Condition(And((elsewhere, asked)))

    def check(self, parts: Sequence[tuple[Slice, Columns]]) -> None:
        """Refuse what can be meant in none of these slices (with how their rows are compiled).

        Raises:
            InputError: a column that none of them has, a source that is none of theirs, or keys
                where none has any; the nearest name is told.
        """
        sources = dict.fromkeys(part.source for part, _ in parts)
        for source, _, _ in self.rows:
            if source not in sources:
                raise InputError(f"nothing was learned of {source!r}: {nearest(source, sources)}")
        if self.condition is not None:
            known = dict.fromkeys(
                name for part, columns in parts for name in names_of(part, columns)
            )
            for name in self.condition.columns:
                if name not in known:
                    raise InputError(f"the rows have no column {name!r}: {nearest(name, known)}")
        elif not self.rows and all(self._within(*item) is None for item in parts):
            if self.version is not None:
                raise InputError(f"there are no {self}: no label was learned, or waits to be")
            told = ", ".join(sources) or "what was learned"
            raise InputError(f"nothing of {told} can be meant: the schema names no column of keys")


def find(
    part: Slice,
    columns: Columns,
    schema: Schema,
    selection: Selection,
    blobs: BlobStore,
    log: FeedbackLog | None = None,
) -> Ints:
    """The rows of a recorded slice that are asked for, ascending: numbers of source rows; of the
    log, positions of labels. Rows that the slice is without already are not found again. Read in
    pieces of bounded size.

    A column that the slice lacks is missing in all its rows; `Selection.check` says whether any
    slice has it.

    Args:
        columns: by which its rows are compiled.
        schema: by which the log's are named.
        log: needed for a slice of the log.

    Rows that cannot be meant, whatever they are (`position > 120`, `source = 'a.csv'`), are not
    read.

    Raises:
        InputError: a literal that a column cannot be compared with.
        UnreadableError: the rows can no longer be read, with the source, the rows and why (the file
            is gone or was changed, labels were deleted).
    """
    if part.kind == OF_LOG and log is None:
        raise InputError("labels are looked for in the log that they are in: give log=")
    condition = selection._within(part, columns)
    if selection.rows:
        found = _ranges(part, selection)
    elif condition is None or (meant := _possible(part, condition)) is None:
        found = NOTHING
    else:
        if log is not None and part.kind == OF_LOG:
            tables = tables_of_labels(meant, columns, schema, condition.columns, log)
        else:
            tables = tables_of_rows(part, columns, condition.columns, blobs)
        read = _read(meant, tables)
        found = Numbers.of(first + np.flatnonzero(condition.mask(table)) for first, table in read)
    gone = _gone(part, blobs, log) if len(found) else NOTHING
    return np.setdiff1d(found.values, gone.values, assume_unique=True)


def _possible(part: Slice, condition: Condition) -> Slice | None:
    """What of a slice may be meant: of the log from the first such label to the last one, of others
    the whole slice; None for nothing."""
    if not known_of(part, 0, 0).schema.names:
        return part
    (start, stop), found = bounds(part), []
    for first in range(start, stop, _AT_ONCE):
        known = known_of(part, first, min(first + _AT_ONCE, stop))
        where = np.flatnonzero(condition.possible(known))
        found += [] if not len(where) else [first + int(where[0]), first + int(where[-1])]
    if not found or part.kind != OF_LOG:
        return part if found else None
    return replace(part, start=found[0] - 1, stop=found[-1])  # labels after one, up to the other


def _ranges(part: Slice, selection: Selection) -> Numbers:
    """The rows that are named, and in the slice."""
    start, stop = bounds(part)
    return Numbers.of(
        np.arange(max(first, start), min(last + 1, stop))
        for source, first, last in selection.rows
        if source == part.source
    )


def _gone(part: Slice, blobs: BlobStore, log: FeedbackLog | None) -> Numbers:
    """The rows that a slice is without already."""
    if part.kind != OF_LOG:
        return withdrawn_rows(part, blobs)
    assert log is not None
    if not len(Withdrawals(log.database, log.model, blobs).positions()):
        return NOTHING
    reasons = recorded(part, blobs)
    return Numbers.of([[at for at, reason in reasons.items() if reason == WITHDRAWN]])


def _read(part: Slice, tables: Iterator[tuple[int, pa.Table]]) -> Iterator[tuple[int, pa.Table]]:
    """The tables; what hinders their reading is told with the rows that it hinders."""
    with readable(part):
        yield from tables
