"""The labels of a log as they are learned one by one, and by which definition.

What holds for a label is settled by its position in the log, not by when it is looked at: its label
policy, guards and share of held-out rows are those of the newest definition that was stored before
it, among those with the learner and schema of the version that goes on; its source is in quarantine
where the log's history of it says so. So whoever reads the log again, from any version on, sets
aside, holds out and learns the same. But a label that was withdrawn is not learned again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from everlearn.base import Columns, Model, Schema
from everlearn.data.history import said_before
from everlearn.data.join import LogSource
from everlearn.data.judgement import Unheard
from everlearn.data.log import FeedbackLog
from everlearn.data.pages import Page
from everlearn.data.policy import LabelPolicy
from everlearn.data.quality import Guards
from everlearn.data.quarantine import Quarantine, Span
from everlearn.data.slices import Slice
from everlearn.data.tables import BlobStore, MemoryBlobs
from everlearn.data.watch import WINDOW, Watch
from everlearn.data.withdrawals import Withdrawals
from everlearn.data.withdrawn import NOTHING
from everlearn.registry import definitions
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Version

MOST = 2000
"""Labels that are compiled together."""


@dataclass(frozen=True, slots=True)
class Labels:
    """A part of the log, in which no prediction is judged twice, and one definition holds: as it
    was read, and as it is learned.

    Args:
        page: its labels.
        part: its rows; the option "holdout" is the share of them that is held out.
        blobs: where they are.
        definition: number of the one that holds.
        aside: position → why guards set a label aside.
    """

    page: Page
    part: Slice
    blobs: BlobStore
    definition: int
    aside: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for the labels after a position of the log.

    Args:
        after: that position.
        definition: whose terms they are.
        source: the log, by its label policy.
        guards: what is set aside; None for nothing but rows that cannot be learned.
        holdout: share of rows that is held out.
    """

    after: int
    definition: int
    source: LogSource
    guards: Guards | None
    holdout: float


class Feed:
    """Reads labels for the tails of one version, which stand at the same position.

    Args:
        registry: of the workspace.
        name: of the model.
        version: that goes on.
        log: of the model.
        live: whether it is the champion. A candidate that catches up does not set aside what the
            live model has learned: whom it finds is in quarantine from the log's end on.
    """

    def __init__(
        self,
        registry: Registry,
        name: str,
        version: Version,
        log: FeedbackLog,
        *,
        live: bool = True,
    ) -> None:
        self._registry, self._name, self._log, self._live = registry, name, log, live
        self._made = registry.definition(name, version.definition)
        self._quarantine = Quarantine(log.database, log.model)
        self._withdrawals = Withdrawals(log.database, log.model, registry.parts.blobs)
        self._withdrawn = NOTHING
        self._terms: list[Terms] = []
        self._spans: list[Span] = []
        self._newest = 0
        self._watch: Watch | None = None

    def read(
        self,
        after: int,
        upto: int,
        columns: Columns,
        *,
        pages: Iterable[Page] | None = None,
        blobs: BlobStore | None = None,
        corrected: bool = False,
        aside: Mapping[int, str] | None = None,
    ) -> Iterator[Labels]:
        """The labels with after < position ≤ upto, which the log has.

        Args:
            pages: these labels, where they are at hand.
            blobs: where rows are spooled to; into memory unless given.
            corrected: cut parts where a prediction is judged anew, lest it is remembered twice.
            aside: position → why a label is set aside; guards judge unless it is given.
        """
        self._look()
        given = self._log.pages(after, upto) if pages is None else pages
        for terms, start, stop, part in self._stretches(after, upto, given):
            unheard = self._unheard(start)
            watch = self._watching(terms, start) if aside is None else None
            for first, last, page in groups(part, start, stop):
                refused = aside or {}
                if watch is not None:
                    rows = terms.source.candidates(first, last, page, unheard)
                    refused = watch.judge(terms.guards, rows, last)
                pieces = iter([(first, last, page)])
                if corrected and any(page.again):
                    pieces = _split(self._log, first, last, page)
                for begin, end, some in pieces:
                    to = MemoryBlobs() if blobs is None else blobs
                    found = terms.source.part(begin, end, columns, to, some, unheard, refused)
                    found = found.with_options(holdout=terms.holdout)
                    yield Labels(some, found, to, terms.definition, refused)
            self._quarantine_suspects(terms, watch, stop)

    # --- what holds where ---

    def _look(self) -> None:
        """See what was defined, who was put into quarantine or released, and what was withdrawn,
        before the labels that the log has by now."""
        with self._log.database.read() as connection:
            self._spans = self._quarantine.spans(connection)
            self._withdrawn = self._withdrawals.positions(connection)
            number = definitions.newest(connection, self._name)
            if number == self._newest:
                return
            known = definitions.definitions(connection, self._name)
        self._newest, schema = number, self._made.model().schema
        self._terms = [
            self._of(one, one.model(), schema)
            for one in known
            if one.number == self._made.number or self._goes_on(one, schema)
        ]

    def _goes_on(self, made: definitions.Definition, schema: Schema) -> bool:
        """Whether a definition holds for the labels of this version: one with another learner or
        schema holds for what jobs make of it."""
        if made.number < self._made.number or made.position < self._made.position:
            return False
        if {"learner", "schema"} & set(definitions.changes(self._made, made)):
            return False
        policy = made.section("labels") or LabelPolicy()
        return schema.weight is not None or not policy.weighs

    def _of(self, made: definitions.Definition, model: Model, schema: Schema) -> Terms:
        source = LogSource(self._log, schema, MemoryBlobs(), model.labels)
        after = 0 if made.number == self._made.number else made.position
        return Terms(after, made.number, source, model.guards, model.holdout)

    def _stretches(
        self, after: int, upto: int, pages: Iterable[Page]
    ) -> Iterator[tuple[Terms, int, int, list[Page]]]:
        """(terms, start, stop, labels) of stretches of the log in which the same holds for all."""
        rest = _Rest(pages)
        while after < upto:
            terms = [one for one in self._terms if one.after <= after][-1]
            edges = {one.after for one in self._terms} | {one.after for one in self._spans}
            edges |= {one.until for one in self._spans if one.until is not None}
            stop = min((edge for edge in edges if after < edge < upto), default=upto)
            if terms.guards is not None:
                stop = min(stop, (after // WINDOW + 1) * WINDOW)
            yield terms, after, stop, rest.take(stop)
            after = stop

    def _unheard(self, after: int) -> Unheard:
        """What has no say of the labels of the stretch after a position: the sources in quarantine,
        and what was withdrawn."""
        held = {one.source for one in self._spans if one.holds(after)}
        return Unheard(held, self._withdrawn)

    def _watching(self, terms: Terms, after: int) -> Watch | None:
        """What judges the labels after a position: it has seen the labels before."""
        if terms.guards is None:
            self._watch = None
        elif self._watch is None or self._watch.position != after:
            begin = max(Watch.begin(after), self._log.first())
            watch = Watch(begin)
            pages = self._log.pages(begin, after)
            for earlier, start, stop, part in self._stretches(begin, after, pages):
                unheard = self._unheard(start)
                for first, last, page in groups(part, start, stop):
                    rows = earlier.source.candidates(first, last, page, unheard)
                    watch.judge(earlier.guards, rows, last)
            watch.position = after
            self._watch = watch
        return self._watch

    def _quarantine_suspects(self, terms: Terms, watch: Watch | None, stop: int) -> None:
        """Once in a window, put sources into quarantine that surely contradict more than others.
        What they said so far was learned; what they say from here on is set aside."""
        if watch is None or terms.guards is None or stop % WINDOW:
            return
        found = watch.suspects(terms.guards)
        for source, decision in found.items():
            self._quarantine.put(source, decision, stop, online=self._live)
        if found:
            with self._log.database.read() as connection:
                self._spans = self._quarantine.spans(connection)


class _Rest:
    """Pages that are given out piece by piece."""

    def __init__(self, pages: Iterable[Page]) -> None:
        self._pages = iter(pages)
        self._left: Page | None = None

    def take(self, upto: int) -> list[Page]:
        """What is left of the labels up to a position."""
        found: list[Page] = []
        while True:
            page = next(self._pages, None) if self._left is None else self._left
            if page is None:
                return found
            count = bisect_right(page.position, upto)
            found += [page.part(0, count)] if count else []
            self._left = page.part(count, len(page)) if count < len(page) else None
            if self._left is not None:
                return found


def groups(pages: Iterable[Page], after: int, upto: int) -> Iterator[tuple[int, int, Page]]:
    """(start, stop, labels) of consecutive parts of the log in which no prediction is judged twice:
    folding a part is folding label by label. They do not depend on how the pages were cut.

    Args:
        pages: the labels with after < position ≤ upto.
    """
    rest, start = Page.concat([]), after
    for page in pages:
        rest = Page.concat([rest, page]) if len(rest) else page
        while (end := _end(rest.prediction)) < len(rest):
            stop = rest.position[end] - 1
            yield start, stop, rest.part(0, end)
            rest, start = rest.part(end, len(rest)), stop
    if len(rest):
        yield start, upto, rest


def _end(predictions: Sequence[int]) -> int:
    """How many of them come before the first one that stands there again; `MOST` at most."""
    few = predictions[:MOST]
    if len(set(few)) == len(few):
        return len(few)
    here: set[int] = set()
    for place, one in enumerate(few):
        if one in here:
            return place
        here.add(one)
    return len(few)


def _split(log: FeedbackLog, start: int, stop: int, page: Page) -> Iterator[tuple[int, int, Page]]:
    """The same labels in parts that begin where a prediction is judged anew: what was learned of it
    is forgotten right before, wherever the log was looked at."""
    again = said_before(log, start, stop)
    places = [at for at, one in enumerate(page.prediction) if at and one in again]
    for first, last in pairwise([0, *places, len(page)]):
        end = stop if last == len(page) else page.position[last - 1]
        yield start, end, page.part(first, last)
        start = end
