"""Labels joined with their predictions: the feedback log as a source of rows to learn.

Every position of the log is one row of the source, so that a job's account covers all of them: what
is not learned is set aside with its reason, never dropped.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from blake3 import blake3

from everlearn.base import Columns, Hashes, InputError, Schema, SpecError
from everlearn.data.compiler import Compiler, wanted
from everlearn.data.history import said_before, said_within
from everlearn.data.joined import joined
from everlearn.data.log import FeedbackLog
from everlearn.data.pages import Page
from everlearn.data.policy import (
    CONFIRMED,
    OUTRANKED,
    REPLACED,
    TAKEN_BACK,
    LabelPolicy,
    Said,
    Verdict,
)
from everlearn.data.quality import QUARANTINED, Candidate, Guards
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

__all__ = ["LOG", "REPLACED", "TAKEN_BACK", "Judgement", "LogSource", "corrected_ids", "joined"]

LOG = "feedback"
"""Name of the source."""

SAMPLE = 10_000
"""Labels from which the kinds of columns are told."""

PIECE = 20_000
"""Labels in a blob."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of the labels of a slice.

    Args:
        verdicts: position → the label that counts for its prediction, learned as the row there.
        refused: position → why nothing is learned at it.
        corrects: positions of rows that judge anew what was learned before.
    """

    verdicts: Mapping[int, Verdict]
    refused: Mapping[int, str]
    corrects: Set[int]


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
        self._sample: pa.Table | None = None

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
        held: Set[str] = frozenset(),
        aside: Mapping[int, str] = {},
    ) -> Slice:
        """The labels with start < position ≤ stop by the policy, and by what guards said already.

        Args:
            page: these labels, where they were read already, and none judges the same prediction
                as another one.
            held: sources in quarantine.
            aside: position → why else a label is set aside.
        """
        judged = _without(self._judged(start, stop, page, held), aside)
        return self._spooled(start, stop, judged, columns, blobs, page)

    def candidates(self, start: int, stop: int, page: Page, held: Set[str]) -> list[Candidate]:
        """The rows of a part that count, for guards to judge; arguments as for `part`."""
        return list(self._candidates(start, stop, self._judged(start, stop, page, held, False)))

    def _judged(
        self, start: int, stop: int, page: Page | None, held: Set[str], quick: bool = True
    ) -> Judgement:
        """Decide by the policy what counts; `quick`: of labels that may not count as they are."""
        before = start > 0 and (page is None or any(page.again))
        earlier = said_before(self._log, start, stop) if before else {}
        if page is None:
            return self._settle(said_within(self._log, start, stop), earlier, held)
        said = {}
        plain = self._policy.plain and quick and not held
        if earlier or not plain or None in page.value:
            said = {  # a first label that is alone counts as it is
                prediction: [page.said(at)]
                for at, prediction in enumerate(page.prediction)
                if not plain or page.value[at] is None or prediction in earlier
            }
        return self._settle(said, earlier, held)

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
        content = "".join(f"{piece['blob']}:{piece['rows']}," for piece in pieces)
        return Slice(
            source=LOG,
            kind=self.kind,
            location="",
            start=start,
            stop=stop,
            size=size,
            digest=blake3(f"{start}-{stop}:{content}".encode()).hexdigest(),
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
        verdicts = self._settle(said, {}).verdicts
        chosen = [_among(page, verdicts.keys()) for page in pages]
        ruled = self._ruled(Page.concat(chosen), verdicts)
        return joined(ruled, self._schema).drop_columns([REFUSED, CORRECTS])

    def released(self, source: str, after: int, upto: int) -> pa.Table | None:
        """The rows of a source that was released: of predictions that it labelled after one
        position and up to another, and for which nothing counted without it."""
        earlier = said_before(self._log, after, upto) if after else {}
        held = self._quarantine.active() - {source}
        said = said_within(self._log, after, upto)
        with_it = self._settle(said, earlier, held)
        without = self._settle(said, earlier, held | {source})
        page = self._read(after, upto)
        others = set(_among(page, without.verdicts.keys()).prediction)
        chosen = {
            position: verdict
            for position, prediction in zip(page.position, page.prediction, strict=True)
            if (verdict := with_it.verdicts.get(position)) is not None
            and verdict.winner is not None
            and verdict.winner.source == source
            and prediction not in others
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
        held = self._quarantine.active()
        while True:
            judged = self._settle(said, earlier, held)
            if self._guards is None:
                return judged
            found = self._guards.inspect(self._candidates(start, stop, judged))
            for source, decision in found.suspects.items():
                self._quarantine.put(source, decision, start)
            if not found.suspects:
                return _without(judged, found.aside)
            held |= found.suspects.keys()

    def _candidates(self, start: int, stop: int, judged: Judgement) -> Iterator[Candidate]:
        for row in self._log.read(start, stop):
            verdict = judged.verdicts.get(row.position)
            if verdict is not None and verdict.winner is not None:
                yield Candidate(
                    row.position,
                    row.prediction,
                    verdict.winner.source,
                    verdict.value,
                    self._weight(verdict, row.prediction.propensity),
                    dated=row.prediction.key is not None
                    or self._schema.time in row.prediction.features,
                )

    def _settle(
        self,
        new: Mapping[int, list[Said]],
        earlier: Mapping[int, list[Said]],
        held: Set[str] = frozenset(),
    ) -> Judgement:
        """Decide what counts, given what was said of the same predictions before, and the sources
        that have no say."""
        verdicts: dict[int, Verdict] = {}
        refused: dict[int, str] = {}
        corrects: set[int] = set()
        for prediction, spoken in new.items():
            said = [one for one in spoken if one.source not in held]
            refused |= {one.position: QUARANTINED for one in spoken if one.source in held}
            if not said:
                continue
            learned = earlier.get(prediction, [])
            before = [one for one in learned if one.source not in held]
            verdict = self._policy.settle([*before, *said])
            place = _place(verdict, said)
            for one in said:
                refused[one.position] = REPLACED if one.position < place else OUTRANKED
            if verdict.winner is None:
                for one in said:
                    refused[one.position] = verdict.reason
            elif before == learned and self._known(before, verdict):
                refused[place] = CONFIRMED
                continue
            else:
                del refused[place]
                verdicts[place] = verdict
            if learned:
                corrects.add(place)
        return Judgement(verdicts, refused, corrects)

    def _known(self, before: Sequence[Said], verdict: Verdict) -> bool:
        """Whether what counted before is the same."""
        return bool(before) and self._policy.settle(before)[1:] == verdict[1:]

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
                weights[place] = self._weight(verdict, page.propensity[place])
            elif not self._policy.plain:
                values[place] = self._policy.settle([page.said(place)]).value
        return replace(page, value=values, weight=weights)

    def _weight(self, verdict: Verdict, propensity: float | None) -> float:
        assert verdict.winner is not None
        return verdict.weight * self._policy.factor(propensity, verdict.winner.selection)

    def _read(self, after: int, upto: int) -> Page:
        """The labels with after < position ≤ upto."""
        return Page.concat(list(self._log.pages(after, upto)))


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


def _without(judged: Judgement, aside: Mapping[int, str]) -> Judgement:
    """What becomes of labels where guards set some of them aside."""
    if not aside:
        return judged
    return Judgement(
        {at: one for at, one in judged.verdicts.items() if at not in aside},
        {**judged.refused, **aside},
        judged.corrects - aside.keys(),
    )


def _place(verdict: Verdict, said: Sequence[Said]) -> int:
    """The position of the slice at which the prediction is learned: of the label that counts or,
    where that one is older, of the last one."""
    mine = {one.position for one in said}
    if verdict.winner is not None and verdict.winner.position in mine:
        return verdict.winner.position
    return said[-1].position


def _among(page: Page, positions: Container[int]) -> Page:
    """The rows at some positions."""
    return page.take([at for at, position in enumerate(page.position) if position in positions])
