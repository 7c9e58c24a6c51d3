"""Learning online: labels are folded in one by one as they arrive, between two numbered versions.

A tail is a version that goes on: every label after its position is an increment of its own, in the
order of the log. So what a tail knows depends on the version and on the log alone, not on when it
looked: whoever begins again from the version and reads the log ends bit-equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from blake3 import blake3

from everlearn.base import (
    Decision,
    Json,
    Model,
    SpecError,
    State,
    prefixed,
    under,
)
from everlearn.data.history import said_before
from everlearn.data.ids import SeenIds
from everlearn.data.increment import Reader
from everlearn.data.join import LOG, LogSource, corrected_ids
from everlearn.data.log import FeedbackLog
from everlearn.data.pages import Page
from everlearn.data.slices import Slice
from everlearn.data.tables import BlobStore, MemoryBlobs
from everlearn.data.tally import Tally
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.loss import losses
from everlearn.evaluation.metrics import Metrics
from everlearn.evaluation.sequences import Moments, mean_bounds
from everlearn.jobs.learn import Fold
from everlearn.jobs.triggers import Facts
from everlearn.registry.config import from_config
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Increment, Version
from everlearn.strategies.strategy import Strategy

MOST = 2000
"""Labels that are compiled together."""

KEPT = 32 << 20
"""Characters of features that a tail keeps until a version is cut; more are read again."""


@dataclass(frozen=True, slots=True)
class Online:
    """Learn every label as it arrives.

    Stands among a model's triggers. A numbered version is cut now and then; between two of them, a
    guard compares the live model with the last version on every labelled row before it is learned,
    and returns to that version where the live one is surely worse.

    Args:
        rows: labels after which a version is cut.
        seconds: after which one is cut, if there was any label.
        margin: how much larger the live model's mean loss may be than the last version's: nats of
            log loss, share of errors, or squared error.
        level: confidence of the guard, over all its looks between two versions.

    Example:
        >>> Online(rows=1000).decide(Facts(now=0, labels=5)).reason
        'labels are learned as they arrive'

    Raises:
        SpecError: a figure that cannot be.
    """

    rows: int = 10_000
    seconds: float = 600.0
    margin: float = 0.05
    level: float = 0.99

    def __post_init__(self) -> None:
        if self.rows < 1 or not self.seconds > 0.0 or not self.margin >= 0.0:
            raise SpecError(f"{self} needs rows from 1, seconds above 0 and a margin from 0")
        if not 0.5 <= self.level < 1.0:
            raise SpecError(f"level={self.level!r}; it is from 0.5 to below 1")

    def decide(self, facts: Facts) -> Decision:
        """Never asks for a job."""
        return Decision("wait", "labels are learned as they arrive", {"labels": facts.labels})


def online_of(model: Model) -> Online | None:
    """How a model learns online; None if it does not."""
    found = [trigger for trigger in model.triggers if isinstance(trigger, Online)]
    return found[0] if found else None


@dataclass(frozen=True, slots=True)
class Labels:
    """A part of the log in memory, in which no prediction is judged twice: as it was read, and as
    it is learned."""

    page: Page
    part: Slice
    blobs: MemoryBlobs


class Tail:
    """A version, and what was learned of the log since.

    Args:
        fold: of the version, with its memory.
        holdouts: that the version was made with.
        model: whose definition it is.
        log: of the model.
        position: of the last label that the version's lineage took.
    """

    def __init__(
        self, fold: Fold, holdouts: HoldOuts, model: Model, log: FeedbackLog, position: int
    ) -> None:
        self.fold, self.holdouts = fold, holdouts
        self.position = self.began = position
        self.metrics = Metrics(fold.kind)
        self.source = LogSource(log, model.schema, MemoryBlobs(), model.labels)
        self._log, self._holdout = log, model.holdout
        self._seen = SeenIds(under("ids", fold.others))
        self._tallies: list[Tally] = []
        self._erased = log.erased()
        self._kept: list[Page] | None = []
        self._size = 0
        rows = fold.memory is not None or not getattr(fold.learner, "per_row", False)
        self._chunk = 1 if rows else MOST

    @classmethod
    def load(
        cls, registry: Registry, name: str, version: Version, log: FeedbackLog, position: int
    ) -> Tail:
        """The tail of a version. Raises as `Registry.state`."""
        made = registry.definition(name, version.definition)
        strategy: Strategy = from_config(version.strategy, made.source)
        state = registry.state(name, version)
        fold = Fold.load(state, made.section("learner"), strategy, frozen=False)
        holdouts = HoldOuts.load(registry.holdouts(name, version))
        return cls(fold, holdouts, registry.definition(name).model(), log, position)

    def cut(self) -> None:
        """A version has all that was learned so far; what comes is counted anew."""
        self.fold.settle()
        self.holdouts.settle()
        self.began, self._tallies, self.metrics = self.position, [], Metrics(self.fold.kind)
        self._kept, self._size, self._erased = [], 0, self._log.erased()

    def __len__(self) -> int:
        """Labels since the version."""
        return self.position - self.began

    def read(self, upto: int) -> list[Labels]:
        """The labels up to a position, for this tail and for others that stand where it does."""
        found = []
        pages = self._log.pages(self.position, upto)
        for start, stop, page in groups(pages, self.position, upto):
            labels = self._labels(start, stop, page)
            if self.fold.memory is None or not labels.part.options["corrects"]:
                found.append(labels)
                continue
            found += [self._labels(*part) for part in _split(self._log, start, stop, page)]
        return found

    def fold_in(self, upto: int, read: Sequence[Labels] | None = None) -> None:
        """Learn the labels up to a position.

        Args:
            read: what `read` gave, where it was asked already.
        """
        for labels in self.read(upto) if read is None else read:
            self._fold(labels)
            self.position = labels.part.stop
            self._keep(labels.page)

    def state(self) -> State:
        """All that further learning depends on, of a numbered version. It is as if the version was
        cut: `cut` has to follow, of all copies of this tail."""
        self.fold.settle()
        self.holdouts.settle()
        if self.fold.columns.id is not None:
            self.fold.others = prefixed("ids", self._seen.save())
        return self.fold.save()

    def increment(self, blobs: BlobStore) -> Increment:
        """What was learned since the version, spooled to be read again.

        Args:
            blobs: of the workspace.
        """
        parts = [
            self.source.part(start, stop, self.fold.columns, blobs, page)
            for start, stop, page in groups(self._pages(), self.began, self.position)
        ]
        part = _joined(parts, self.began, self.position)
        counts = {
            name: sum(getattr(tally, name) for tally in self._tallies)
            for name in ("rows", "held_out", "set_aside", "duplicates")
        }
        return Increment(
            source=LOG,
            start=part.start,
            stop=part.stop,
            digest=part.digest,
            slice=part.to_json(),
            reasons=_reasons(self._tallies),
            **counts,
        )

    def _labels(self, start: int, stop: int, page: Page) -> Labels:
        blobs = MemoryBlobs()
        return Labels(page, self.source.part(start, stop, self.fold.columns, blobs, page), blobs)

    def _keep(self, page: Page) -> None:
        """Keep labels for the version that is cut next, unless they are too many."""
        if self._kept is not None:
            self._kept.append(page)
            self._size += sum(map(len, page.features))
            if self._size > KEPT:
                self._kept = None

    def _pages(self) -> Iterator[Page]:
        """The labels since the version: those that were kept, unless data was erased since."""
        if self._kept is None or self._log.erased() != self._erased:
            return self._log.pages(self.began, self.position)
        return iter(self._kept)

    def _fold(self, labels: Labels) -> None:
        columns = self.fold.columns
        gone = corrected_ids(labels.part, columns, labels.blobs)
        if len(gone):
            self.holdouts.drop(gone)
            if self.fold.memory is not None:  # what was learned since the version is in it too
                self.fold.memory.settle()
            self.fold.forget(gone)
        reader = Reader(
            [labels.part],
            columns,
            chunk=self._chunk,
            holdout=self._holdout,
            seen=self._seen,
            blobs=labels.blobs,
            read_ahead=False,
        )
        with reader:
            for chunk in reader:
                step = self.fold.step(chunk.batch)
                if step.prediction is not None and step.counts:
                    self.metrics.add(step.batch.y, step.prediction)
                if step.refused is not None:
                    reader.refuse(step.refused, "a class that the learner cannot be told of")
                self.holdouts.add(chunk.held)
            self._tallies += reader.tallies


class Guard:
    """Compares a tail with the version it began from, on rows that neither has learned.

    Args:
        frozen: the version.
        online: its margin and level.
    """

    def __init__(self, frozen: Fold, online: Online) -> None:
        self._frozen, self._online = frozen, online
        self.apart = Moments()

    def see(self, tail: Tail, read: Sequence[Labels]) -> None:
        """Take in labels that the tail is about to learn."""
        columns = self._frozen.columns
        for labels in read:
            with Reader(
                [labels.part], columns, chunk=MOST, blobs=labels.blobs, read_ahead=False
            ) as reader:
                for chunk in reader:
                    if len(chunk.batch):
                        self._compare(tail.fold, chunk.batch)

    def decide(self) -> Decision | None:
        """ "roll back" where the tail is surely worse; None otherwise."""
        low, _ = mean_bounds(self.apart, 1.0 - self._online.level)
        if low <= self._online.margin:
            return None
        reason = f"live, the loss is larger by {low:.4g} at least (margin {self._online.margin:g})"
        return Decision("refuse", reason, {"rows": self.apart.n, "apart": self.apart.mean})

    def _compare(self, live: Fold, batch: Any) -> None:
        found = []
        for fold in (live, self._frozen):
            y = fold.encode(batch.y)
            found.append(losses(fold.kind, y, fold.predict(batch)))
        apart = found[0] - found[1]
        self.apart = self.apart.add(apart[np.isfinite(apart)])


def groups(pages: Iterator[Page], after: int, upto: int) -> Iterator[tuple[int, int, Page]]:
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


def _joined(parts: Sequence[Slice], start: int, stop: int) -> Slice:
    """Consecutive slices of the log as one."""
    pieces = [piece for part in parts for piece in part.options["pieces"]]
    content = "".join(f"{piece['blob']}:{piece['rows']}," for piece in pieces)
    return Slice(
        source=LOG,
        kind=LogSource.kind,
        location="",
        start=start,
        stop=stop,
        size=sum(part.size for part in parts),
        digest=blake3(f"{start}-{stop}:{content}".encode()).hexdigest(),
        names=tuple(dict.fromkeys(name for part in parts for name in part.names)),
        options={
            "pieces": pieces,
            "first": start,
            "corrects": sum(part.options["corrects"] for part in parts),
        },
    )


def _reasons(tallies: Sequence[Tally]) -> Json:
    """The reasons of several accounts as one."""
    counts: dict[str, int] = {}
    examples: list[Json] = []
    for tally in tallies:
        for reason, count in tally.reasons.get("set_aside", {}).items():
            counts[reason] = counts.get(reason, 0) + count
        examples += tally.reasons.get("examples", [])
    return {"set_aside": counts, "examples": examples[:10]}
