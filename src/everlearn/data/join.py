"""Labels joined with their predictions: the feedback log as a source of rows to learn.

Every position of the log is one row of the source, so that a job's account covers all of them: what
is not learned is set aside with its reason, never dropped.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from blake3 import blake3

from everlearn.base import Columns, Hashes, InputError, Json, Schema, SpecError
from everlearn.data.compiler import Compiler, wanted
from everlearn.data.history import said_before, said_within
from everlearn.data.joined import joined
from everlearn.data.judgement import ALL_HEARD, Judgement, Unheard, judge
from everlearn.data.log import FeedbackLog
from everlearn.data.pages import Page
from everlearn.data.policy import REPLACED, TAKEN_BACK, LabelPolicy, Said, Verdict
from everlearn.data.quality import Candidate, Guards
from everlearn.data.quarantine import Quarantine
from everlearn.data.slices import Consumed, Slice
from everlearn.data.tables import (
    CORRECTS,
    REFUSED,
    BlobStore,
    SpoolReader,
    corrections,
    write_table,
)
from everlearn.data.withdrawals import Withdrawals

__all__ = ["LOG", "REPLACED", "TAKEN_BACK", "Judgement", "LogSource", "corrected_ids", "joined"]

LOG = "feedback"
"""Name of the source."""

SAMPLE = 10_000
"""Labels from which the kinds of columns are told."""

PIECE = 20_000
"""Labels in a blob."""


class LogSource:
    """The labels of one model's feedback log, in the order of their positions.

    A row has the features of the prediction and, under the names of the schema, its target (the
    label's value), id, event time (the prediction's, unless the features have it), label time (when
    the label became known), key and weight. Of several labels of one prediction, the policy says
    which counts; it is learned once, at one position of the slice. A label of a prediction whose
    label an earlier slice had is a correction, if it changes what counts: it is marked, so that
    copies of the row in memory and among the hold-outs can be taken out.

    Args:
        log: of the model.
        schema: what the columns are called.
        blobs: where slices are spooled to.
        policy: which labels count, and how much; the last ones without it.
        guards: what is set aside before it is learned; sources that they find go into quarantine.

    Raises:
        InputError: the schema names no target.
        SpecError: the policy gives weights, and the schema names no column for them.
    """

    kind = "log"
    location = ""
    name = LOG

    def __init__(
        self,
        log: FeedbackLog,
        schema: Schema,
        blobs: BlobStore,
        policy: LabelPolicy | None = None,
        guards: Guards | None = None,
    ) -> None:
        if schema.target is None:
            raise InputError("labels are values of a target; name it in Schema(target=…)")
        self._policy = policy or LabelPolicy()
        if self._policy.weighs and schema.weight is None:
            raise SpecError("this LabelPolicy gives rows weights; name them in Schema(weight=…)")
        self._log, self._schema, self._blobs = log, schema, blobs
        self._guards, self._quarantine = guards, Quarantine(log.database, log.model)
        self._withdrawals = Withdrawals(log.database, log.model, blobs)
        self._sample: pa.Table | None = None

    @property
    def log(self) -> FeedbackLog:
        """Whose labels these are."""
        return self._log

    @property
    def policy(self) -> LabelPolicy:
        """Which labels count, and how much."""
        return self._policy

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the first labels."""
        return tuple(self.sample().schema.names)

    def sample(self) -> pa.Table:
        """The first rows."""
        if self._sample is None:
            first, head = self._log.first(), self._log.head()
            page = self._read(first, min(first + SAMPLE, head))
            table = joined(self._ruled(page, {}), self._schema)
            self._sample = table.drop_columns([REFUSED, CORRECTS])  # they are no features
        return self._sample

    def recent(self) -> pa.Table | None:
        """The last rows; None if there are none."""
        head, first = self._log.head(), self._log.first()
        page = self._read(max(first, head - SAMPLE), head)
        if not len(page):
            return None
        return joined(page, self._schema).drop_columns([REFUSED, CORRECTS])

    def slice(
        self, known: Sequence[Consumed] = (), columns: Columns | None = None, again: bool = False
    ) -> Slice | None:
        """The labels after the last one consumed, spooled. See `Source.slice`."""
        mine = [item.stop for item in known if item.kind == self.kind and item.source == LOG]
        start, stop = self._log.first() if again else max(mine, default=0), self._log.head()
        if stop <= start:
            return None
        return self._spooled(start, stop, self._judge(start, stop), columns, self._blobs)

    def part(
        self,
        start: int,
        stop: int,
        columns: Columns,
        blobs: BlobStore,
        page: Page | None = None,
        unheard: Unheard = ALL_HEARD,
        aside: Mapping[int, str] = {},
    ) -> Slice:
        """The labels with start < position ≤ stop by the policy, and by what guards said already.

        Args:
            page: these labels, where they were read already, and none judges the same prediction
                as another one.
            unheard: labels that have no say.
            aside: position → why else a label is set aside.
        """
        judged = self._judged(start, stop, page, unheard).without(aside)
        return self._spooled(start, stop, judged, columns, blobs, page)

    def candidates(self, start: int, stop: int, page: Page, unheard: Unheard) -> list[Candidate]:
        """The rows of a part that count, for guards to judge; arguments as for `part`."""
        return list(self._candidates(start, stop, self._judged(start, stop, page, unheard, False)))

    def _judged(
        self, start: int, stop: int, page: Page | None, unheard: Unheard, quick: bool = True
    ) -> Judgement:
        """Decide by the policy what counts; `quick`: of labels that may not count as they are."""
        before = start > 0 and (page is None or any(page.again))
        earlier = said_before(self._log, start, stop) if before else {}
        if page is None:
            return judge(self._policy, said_within(self._log, start, stop), earlier, unheard)
        said = {}
        plain = self._policy.plain and quick and not unheard.any(start, stop)
        if earlier or not plain or None in page.value:
            said = {  # a first label that is alone counts as it is
                prediction: [page.said(at)]
                for at, prediction in enumerate(page.prediction)
                if not plain or page.value[at] is None or prediction in earlier
            }
        return judge(self._policy, said, earlier, unheard)

    def _spooled(
        self,
        start: int,
        stop: int,
        judged: Judgement,
        columns: Columns | None,
        blobs: BlobStore,
        read: Page | None = None,
    ) -> Slice:
        pieces, size, names = [], 0, dict.fromkeys(self.names)
        if columns is not None:  # what no prediction of the slice was given is missing in all rows
            names |= dict.fromkeys(wanted(columns))
        for page in self._log.pages(start, stop, PIECE) if read is None else [read]:
            ruled = self._ruled(page, judged.verdicts)
            table = joined(ruled, self._schema, judged.refused, judged.corrects)
            written = write_table(table)
            names |= dict.fromkeys(table.schema.names)
            pieces.append({"blob": blobs.put(written), "rows": table.num_rows})
            size += len(written)
        return Slice(
            source=LOG,
            kind=self.kind,
            location="",
            start=start,
            stop=stop,
            size=size,
            digest=digest_of(start, stop, pieces),
            names=tuple(name for name in names if name not in (REFUSED, CORRECTS)),
            options={"pieces": pieces, "first": start, "corrects": len(judged.corrects)},
        )

    def as_known(self, at: int) -> pa.Table:
        """The rows that could have been learned at a moment: labels and predictions that had
        arrived by then, one row for each prediction whose label counted.

        The same table, byte for byte as `write_table` gives it, whenever it is asked: of a moment
        that is over, that is, and as long as the log keeps its rows. Guards have no part in it.

        Args:
            at: microseconds since 1970 UTC.

        Raises:
            InputError: no label had arrived.
        """
        pages = list(self._log.pages(known=at))
        said: dict[int, list[Said]] = {}
        for page in pages:
            for place, prediction in enumerate(page.prediction):
                said.setdefault(prediction, []).append(page.said(place))
        verdicts = judge(self._policy, said, {}).verdicts
        chosen = [_among(page, verdicts.keys()) for page in pages]
        ruled = self._ruled(Page.concat(chosen), verdicts)
        return joined(ruled, self._schema).drop_columns([REFUSED, CORRECTS])

    def released(self, source: str, after: int, upto: int) -> pa.Table | None:
        """The rows of a source that was released: of predictions that it labelled after one
        position and up to another, and for which nothing counted without it."""
        earlier = said_before(self._log, after, upto) if after else {}
        said = said_within(self._log, after, upto)
        others = Unheard(self._quarantine.active() - {source}, self._withdrawals.positions())
        with_it = judge(self._policy, said, earlier, others)
        none = replace(others, sources=others.sources | {source})
        without = judge(self._policy, said, earlier, none)
        page = self._read(after, upto)
        known = set(_among(page, without.verdicts.keys()).prediction)
        chosen = {
            position: verdict
            for position, prediction in zip(page.position, page.prediction, strict=True)
            if (verdict := with_it.verdicts.get(position)) is not None
            and verdict.winner is not None
            and verdict.winner.source == source
            and prediction not in known
            and position not in with_it.corrects
        }
        if not chosen:
            return None
        ruled = self._ruled(_among(page, chosen.keys()), chosen)
        table = joined(ruled, self._schema).drop_columns([REFUSED, CORRECTS])
        for name in self.names:
            if name not in table.schema.names:
                table = table.append_column(name, pa.nulls(table.num_rows))
        return table

    def _judge(self, start: int, stop: int) -> Judgement:
        """Decide what counts and what is set aside. Where a source is found to be in need of
        quarantine, all is decided again without it."""
        earlier = said_before(self._log, start, stop) if start else {}
        said = said_within(self._log, start, stop)
        unheard = Unheard(self._quarantine.active(), self._withdrawals.positions(), learned=True)
        while True:
            judged = judge(self._policy, said, earlier, unheard)
            if self._guards is None:
                return judged
            found = self._guards.inspect(self._candidates(start, stop, judged))
            for source, decision in found.suspects.items():
                self._quarantine.put(source, decision, start)
            if not found.suspects:
                return judged.without(found.aside)
            unheard = replace(unheard, sources=unheard.sources | found.suspects.keys())

    def _candidates(self, start: int, stop: int, judged: Judgement) -> Iterator[Candidate]:
        for row in self._log.read(start, stop):
            verdict = judged.verdicts.get(row.position)
            if verdict is not None and verdict.winner is not None:
                yield Candidate(
                    row.position,
                    row.prediction,
                    verdict.winner.source,
                    verdict.value,
                    self._policy.weight(verdict, row.prediction.propensity),
                    dated=row.prediction.key is not None
                    or self._schema.time in row.prediction.features,
                )

    def _ruled(self, page: Page, verdicts: Mapping[int, Verdict]) -> Page:
        """The page with the values and the weights that count; where there is no verdict, with
        what a label means by itself."""
        if not verdicts and self._policy.plain:
            return page
        values, weights = list(page.value), list(page.weight)
        for place, position in enumerate(page.position):
            verdict = verdicts.get(position)
            if verdict is not None and verdict.winner is not None:
                values[place] = verdict.value
                weights[place] = self._policy.weight(verdict, page.propensity[place])
            elif not self._policy.plain:
                values[place] = self._policy.settle([page.said(place)]).value
        return replace(page, value=values, weight=weights)

    def _read(self, after: int, upto: int) -> Page:
        """The labels with after < position ≤ upto."""
        return Page.concat(list(self._log.pages(after, upto)))


def digest_of(start: int, stop: int, pieces: Sequence[Mapping[str, Json]]) -> str:
    """The digest of a slice of the log, of what it is spooled to."""
    content = "".join(f"{piece['blob']}:{piece['rows']}," for piece in pieces)
    return blake3(f"{start}-{stop}:{content}".encode()).hexdigest()


def corrected_ids(part: Slice, columns: Columns, blobs: BlobStore) -> Hashes:
    """(m,) ids of the rows of a slice of the log that were learned before under another label."""
    found = [np.zeros(0, np.uint64)]
    if part.options.get("corrects"):
        compiler = Compiler(columns)
        for piece in SpoolReader(part, columns, blobs).pieces():
            marked = corrections(piece.table)
            if marked is not None:
                found.append(compiler.compile(piece.table).ids[marked])
    ids: Hashes = np.unique(np.concatenate(found))
    return ids


def _among(page: Page, positions: Container[int]) -> Page:
    """The rows at some positions."""
    return page.take([at for at, position in enumerate(page.position) if position in positions])
