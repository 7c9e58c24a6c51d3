"""Slices as they would be without some of their rows.

A file or a table keeps its rows, and a list of those that are withdrawn. Of the feedback log a
slice is settled again, for a label that is withdrawn may have outranked, replaced or confirmed
another one, in its own slice or in a later one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from everlearn.base import Columns, InputError, IntegrityError, Ints, Json, NotFoundError
from everlearn.data.compiler import column_of
from everlearn.data.history import propensities, said_beside, said_within
from everlearn.data.join import LOG, LogSource, digest_of
from everlearn.data.joined import with_column
from everlearn.data.judgement import Judgement, Unheard, judge
from everlearn.data.log import FeedbackLog
from everlearn.data.policy import (
    CONFIRMED,
    OUTRANKED,
    REPLACED,
    TAKEN_BACK,
    UNDECIDED,
    LabelPolicy,
    Said,
)
from everlearn.data.quality import QUARANTINED
from everlearn.data.quarantine import Quarantine
from everlearn.data.slices import Slice
from everlearn.data.tables import (
    CORRECTS,
    REFUSED,
    BlobStore,
    refused_rows,
    spooled,
    write_table,
)
from everlearn.data.withdrawals import Withdrawals
from everlearn.data.withdrawn import WITHDRAWN, Numbers, without_rows

SETTLED = {REPLACED, OUTRANKED, CONFIRMED, TAKEN_BACK, UNDECIDED, QUARANTINED, WITHDRAWN}
"""Reasons that follow from the labels and their sources; the others stay what they were."""


def withdraw(
    part: Slice,
    rows: Iterable[int] | Ints,
    blobs: BlobStore,
    columns: Columns | None = None,
    source: LogSource | None = None,
) -> Slice:
    """A recorded slice without some rows; the slice itself where that makes no difference.

    Of the log, every slice of a lineage is to be asked for with all positions, those that hold none
    of them too: what a label of an earlier slice confirmed, outranked or corrected may be learned
    here. What was withdrawn before (`Withdrawals.positions`) is taken out as well, and what guards
    and quarantine set aside when the slice was planned stays aside.

    Args:
        rows: numbers of source rows; of the log, positions of labels; in any order.
        blobs: where it is spooled to, and where it is kept which rows these are.
        columns: by which the rows are compiled; needed for a slice of the log.
        source: the log by the schema and the label policy of the version that learned the slice;
            needed for a slice of the log.

    Raises:
        InputError: labels of the slice are in the log no more.
    """
    if part.kind != LogSource.kind:
        return without_rows(part, rows, blobs)
    if source is None or columns is None:
        raise InputError("a slice of the log is settled again by its columns and a LogSource")
    return Resettling(source.log, rows, blobs)(part, columns, source.policy)


class UnreadableError(InputError):
    """Rows of a slice cannot be read any more."""


@contextmanager
def readable(part: Slice) -> Iterator[None]:
    """What hinders the reading of a slice within is told with the rows that it hinders, as an
    `UnreadableError`."""
    try:
        yield
    except (InputError, NotFoundError, IntegrityError) as error:
        start, stop = bounds(part)
        what = "positions" if part.kind == LogSource.kind else "rows"
        raise UnreadableError(
            f"{what} {start} to {stop - 1} of {part.source!r} cannot be read any more: {error}"
        ) from error


def bounds(part: Slice) -> tuple[int, int]:
    """The number of the first row of a slice, and of one past its last; of the log, positions."""
    ahead = part.kind == LogSource.kind
    return part.start + ahead, part.stop + ahead


def consecutive(parts: Sequence[Slice]) -> Slice:
    """Consecutive slices of the log as one; the same definition held for all."""
    start, stop = parts[0].start, parts[-1].stop
    pieces = [piece for part in parts for piece in part.options["pieces"]]
    return Slice(
        source=LOG,
        kind=LogSource.kind,
        location="",
        start=start,
        stop=stop,
        size=sum(part.size for part in parts),
        digest=digest_of(start, stop, pieces),
        names=tuple(dict.fromkeys(name for part in parts for name in part.names)),
        options={
            "pieces": pieces,
            "first": start,
            "holdout": parts[0].options["holdout"],
            "corrects": sum(part.options["corrects"] for part in parts),
        },
    )


def unlearned(log: FeedbackLog, after: int) -> Slice | None:
    """The labels after a position as a slice to look in: those that no version has taken; None if
    there are none."""
    stop = log.head()
    if stop <= after:
        return None
    return Slice(LOG, LogSource.kind, "", after, stop, 0, "", (), {"pieces": [], "first": after})


def recorded(part: Slice, blobs: BlobStore) -> dict[int, str]:
    """Position → why nothing was learned at it, of the labels of a recorded slice of the log."""
    found: dict[int, str] = {}
    for start, _, blob in _pieces(part):
        found |= _reasons(start, spooled(blobs.get(blob)))
    return found


class Resettling:
    """Slices of a log without some of its labels. Only rows of predictions that such a label judges
    are settled again; all others stay as they were spooled.

    Args:
        log: the log.
        positions: of the labels; what was withdrawn before is taken out as well.
        blobs: where slices are spooled to.
    """

    def __init__(self, log: FeedbackLog, positions: Iterable[int] | Ints, blobs: BlobStore) -> None:
        known = Withdrawals(log.database, log.model, blobs).positions()
        given = positions if isinstance(positions, np.ndarray) else list(positions)
        self._gone = Numbers.of([known.values, given])
        self._log, self._blobs = log, blobs
        with log.database.read() as connection:
            self._said = said_beside(log, connection, self._gone.values)
            self._spans = Quarantine(log.database, log.model).spans(connection)
        at = [(one.position, asked) for asked, said in self._said.items() for one in said]
        self._places = sorted(at)

    def __call__(self, part: Slice, columns: Columns, policy: LabelPolicy) -> Slice:
        """A recorded slice without the labels; itself where that makes no difference.

        Args:
            columns: by which its rows are compiled.
            policy: the label policy by which it was settled.

        Raises:
            InputError: labels of the slice are in the log no more.
        """
        with readable(part):
            judged = self._judged(part, policy)
            return part if judged is None else self._spooled(part, judged, columns, policy)

    def differs(self, part: Slice, columns: Columns, policy: LabelPolicy) -> bool:
        """Whether anything else is learned of a recorded slice without the labels. Not so where
        they were set aside and made no difference to others. As a call in all else."""
        made = self(part, columns, policy)
        pairs = zip(_pieces(part), _pieces(made), strict=True)
        return any(
            _learned(spooled(self._blobs.get(old)), columns)
            != _learned(spooled(self._blobs.get(new)), columns)
            for (*_, old), (*_, new) in pairs
            if old != new
        )

    def _among(self, start: int, stop: int) -> list[tuple[int, int]]:
        """(position, prediction) of labels that go and of those beside them, with start < position
        ≤ stop."""
        low, high = (bisect_left(self._places, (at + 1,)) for at in (start, stop))
        return self._places[low:high]

    def _judged(self, part: Slice, policy: LabelPolicy) -> Judgement | None:
        """What becomes of these labels; None where the slice has none of them."""
        goes = len(self._gone.between(part.start + 1, part.stop + 1))
        if not goes and not self._among(part.start, part.stop):
            return None
        self._check_kept(part)
        if "holdout" not in part.options:  # settled as a whole
            reasons = recorded(part, self._blobs)
            unheard = Unheard(self._held(part, reasons), self._gone)
            return self._settled(part.start, part.stop, policy, unheard, reasons)
        whole = Judgement({}, {}, set())
        for start, stop, blob in _pieces(part):  # label by label: each piece by itself
            if self._among(start, stop):
                held = {one.source for one in self._spans if one.holds(start)}
                reasons = _reasons(start, spooled(self._blobs.get(blob)))
                one = self._settled(start, stop, policy, Unheard(held, self._gone), reasons)
                whole = whole.beside(one)
        return whole

    def _settled(
        self,
        start: int,
        stop: int,
        policy: LabelPolicy,
        unheard: Unheard,
        reasons: Mapping[int, str],
    ) -> Judgement:
        new, earlier = dict[int, list[Said]](), dict[int, list[Said]]()
        for prediction in {asked for _, asked in self._among(start, stop)}:
            said = self._said[prediction]
            new[prediction] = [one for one in said if start < one.position <= stop]
            earlier[prediction] = [one for one in said if one.position <= start]
        judged = judge(policy, new, earlier, unheard)
        here = {one.position for said in new.values() for one in said}
        return judged.without(
            {at: why for at, why in reasons.items() if at in here and why not in SETTLED}
        )

    def _check_kept(self, part: Slice) -> None:
        """Raises `NotFoundError` where labels of a slice were deleted."""
        first = self._log.first()
        if part.start < first:
            with self._log.database.read() as connection:
                self._log.archive.labels(connection, part.start, min(first, part.stop))

    def _held(self, part: Slice, reasons: Mapping[int, str]) -> set[str]:
        """The sources that were in quarantine when a slice was settled: those of which a label was
        set aside for it and, of those that said nothing else there, those that were in it when
        the slice was planned."""
        spans = {one.source for one in self._spans if one.holds(part.stop)}
        aside = {at for at, reason in reasons.items() if reason in (QUARANTINED, WITHDRAWN)}
        if not spans and QUARANTINED not in reasons.values():
            return set()
        held, heard = set[str](), set[str]()
        for said in said_within(self._log, part.start, part.stop).values():
            held |= {one.source for one in said if reasons.get(one.position) == QUARANTINED}
            heard |= {one.source for one in said if one.position not in aside}
        return held | (spans - heard)

    # --- what was spooled, changed ---

    def _spooled(
        self, part: Slice, judged: Judgement, columns: Columns, policy: LabelPolicy
    ) -> Slice:
        weights = self._weights(judged, policy) if columns.weight is not None else {}
        pieces, size, corrects = [], part.size, part.options.get("corrects", 0)
        for start, stop, blob in _pieces(part):
            at = [position for position, _ in self._among(start, stop)]
            if at:
                old = self._blobs.get(blob)
                table = spooled(old)
                made = _changed(table, start, at, judged, columns, weights)
                new = write_table(made)
                blob, size = self._blobs.put(new), size + len(new) - len(old)
                corrects += _corrections(made) - _corrections(table)
            pieces.append({"blob": blob, "rows": stop - start})
        if pieces == part.options["pieces"]:
            return part
        digest = digest_of(part.start, part.stop, pieces)
        found = replace(part, size=size, digest=digest)
        return found.with_options(pieces=pieces, corrects=corrects)

    def _weights(self, judged: Judgement, policy: LabelPolicy) -> dict[int, float]:
        """Position → weight of the row that is learned there."""
        chances: Mapping[int, float | None] = {}
        asked = {at: asked for at, asked in self._places if at in judged.verdicts}
        if policy.propensity != "ignore":
            with self._log.database.read() as connection:
                chances = propensities(self._log, connection, set(asked.values()))
        return {
            at: policy.weight(verdict, chances.get(asked[at]))
            for at, verdict in judged.verdicts.items()
        }


def _changed(
    table: pa.RecordBatch,
    start: int,
    positions: Sequence[int],
    judged: Judgement,
    columns: Columns,
    weights: Mapping[int, float],
) -> pa.Table:
    """A spooled piece with what becomes of the labels at some positions now."""
    made = pa.Table.from_batches([table])
    reasons, marks = made.column(REFUSED).to_pylist(), made.column(CORRECTS).to_pylist()
    values = made.column(columns.target).to_pylist()
    heavy = made.column(columns.weight).to_pylist() if weights else []
    for position in positions:
        row, verdict = position - start - 1, judged.verdicts.get(position)
        reasons[row] = judged.refused.get(position)
        marks[row] = position in judged.corrects
        if verdict is not None:
            values[row] = verdict.value
            if heavy:
                heavy[row] = weights[position]
    made = with_column(made, REFUSED, pa.array(reasons, pa.string()))
    made = with_column(made, CORRECTS, pa.array(marks, pa.bool_()))
    made = with_column(made, str(columns.target), column_of(values, str(columns.target)))
    return with_column(made, str(columns.weight), column_of(heavy, "")) if heavy else made


def _learned(table: pa.RecordBatch, columns: Columns) -> list[tuple[Json, ...]]:
    """Of each label of a spooled piece whether it is a correction and, where it is learned, its
    value and weight."""
    names = [str(columns.target), *([] if columns.weight is None else [columns.weight])]
    told = zip(*(table.column(name).to_pylist() for name in names), strict=True)
    marks = table.column(CORRECTS).to_pylist()
    aside = refused_rows(table)
    return [
        (mark, *(() if row in aside else values))
        for row, (mark, values) in enumerate(zip(marks, told, strict=True))
    ]


def _corrections(table: pa.Table | pa.RecordBatch) -> int:
    return int(pc.sum(table.column(CORRECTS)).as_py() or 0)


def _pieces(part: Slice) -> Iterator[tuple[int, int, str]]:
    """(start, stop, blob) of what a slice is spooled to: of the labels with start < position ≤
    stop."""
    start = part.options["first"]
    for piece in part.options["pieces"]:
        yield start, start + piece["rows"], piece["blob"]
        start += piece["rows"]


def _reasons(start: int, table: pa.RecordBatch) -> dict[int, str]:
    return {start + row + 1: reason for row, reason in refused_rows(table).items()}
