"""Learning online: labels are folded in one by one as they arrive, between two numbered versions.

A tail is a version that goes on: every label after its position is an increment of its own, in the
order of the log. So what a tail knows depends on the version and on the log alone, not on when it
looked: whoever begins again from the version and reads the log ends bit-equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, TypeVar

import numpy as np

from everlearn.base import (
    Batch,
    Decision,
    EverlearnError,
    Model,
    Prediction,
    SpecError,
    State,
    StorageError,
    prefixed,
    under,
)
from everlearn.data.compiler import empty_batch
from everlearn.data.ids import SeenIds
from everlearn.data.increment import Chunk, Reader
from everlearn.data.join import corrected_ids
from everlearn.data.log import FeedbackLog
from everlearn.data.pages import Page
from everlearn.data.policy import LabelPolicy
from everlearn.data.quality import Guards
from everlearn.data.tables import BlobStore
from everlearn.data.tally import Tally
from everlearn.evaluation.gates import parts_not_finite
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.metrics import Metrics
from everlearn.jobs.feed import MOST, Feed, Labels
from everlearn.jobs.increments import increment
from everlearn.jobs.learn import Fold, Step
from everlearn.jobs.triggers import Facts
from everlearn.registry.config import from_config
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Increment, Version
from everlearn.strategies.strategy import Strategy

Done = TypeVar("Done")

KEPT = 32 << 20
"""Bytes of labels, about, that a tail keeps until a version is cut; more are read again."""

OF_PAGE, OF_LABEL = 1000, 400
"""Bytes, about, of a page and of each of its labels beside the features."""


@dataclass(frozen=True, slots=True)
class Online:
    """Learn every label as it arrives.

    Stands among a model's triggers. A numbered version is cut now and then; between two of them, a
    guard compares the live model with the last version on every labelled row before it is learned,
    and returns to that version where the live one is surely worse. Label policy, guards and
    hold-out of a changed definition hold for the labels after it; these figures hold at once. The
    model's gate judges what jobs make beside it; a rollout has nothing to compare, and is refused.

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

    alone: ClassVar[bool] = True
    """It is no part of another trigger."""

    rows: int = 10_000
    seconds: float = 600.0
    margin: float = 0.05
    level: float = 0.99

    def __post_init__(self) -> None:
        if self.rows < 1 or not self.seconds > 0.0 or not self.margin >= 0.0:
            raise SpecError(f"{self} needs rows from 1, seconds above 0 and a margin from 0")
        if not 0.5 <= self.level < 1.0:
            raise SpecError(f"level={self.level!r}; it is from 0.5 to below 1")

    def check(self, model: Model) -> None:
        """Refuse what would do nothing beside it, or could not do what it says.

        Raises:
            SpecError: with what does not go together, and what to do.
        """
        name = f"{model.name!r} learns online (everlearn.Online)"
        if sum(isinstance(trigger, Online) for trigger in model.triggers) > 1:
            raise SpecError(f"{name} twice; name one Online(…) among its triggers")
        if model.schema is None or model.schema.target is None:
            raise SpecError(f"{name}, and labels are values of a target: say Schema(target=…)")
        if model.rollout is not None:
            raise SpecError(
                f"{name}, so rollout={type(model.rollout).__name__}(…) would do nothing: what a "
                "candidate on trial is compared with, the champion, is not what answers. Leave "
                "rollout= out: a job's candidate catches up with the log, and the gate compares it "
                "with the live model"
            )
        policy = model.labels or LabelPolicy()
        if policy.weighs and model.schema.weight is None:
            raise SpecError(f"{name}, and its LabelPolicy gives weights: say Schema(weight=…)")
        if model.guards is not None and not isinstance(model.guards, Guards):
            raise SpecError(f"{name}, with guards=Guards(…) or None, not {model.guards!r}")

    def decide(self, facts: Facts) -> Decision:
        """Never asks for a job."""
        return Decision("wait", "labels are learned as they arrive", {"labels": facts.labels})


def online_of(model: Model) -> Online | None:
    """How a model learns online; None if it does not."""
    found = [trigger for trigger in model.triggers if isinstance(trigger, Online)]
    return found[0] if found else None


class UnlearnableError(EverlearnError):
    """A learner fails on a label, or is not finite after it."""


class _SeenSince(SeenIds):
    """Ids of which those since a version are kept apart until the next one is cut: how they are
    stored does not depend on the parts in which the log was read."""

    def settle(self) -> None:
        """A part is over, and the increment goes on."""

    def cut(self) -> None:
        """The increment is over."""
        super().settle()


class Tail:
    """A version, and what was learned of the log since.

    Args:
        fold: of the version, with its memory.
        again: makes a fold of a state of it.
        holdouts: that the version was made with.
        feed: of labels, for all tails that stand where this one does.
        log: of the model.
        position: of the last label that the version's lineage took.

    Attributes:
        careful: whether a label that the learner fails on is set aside, which takes a copy of the
            state for each part of the log; else it is an `UnlearnableError`, and the tail has to be
            loaded anew.
        failed: position → why the label there was set aside since the version.
    """

    def __init__(
        self,
        fold: Fold,
        again: Callable[[State], Fold],
        holdouts: HoldOuts,
        feed: Feed,
        log: FeedbackLog,
        position: int,
    ) -> None:
        self.fold, self.holdouts, self.feed = fold, holdouts, feed
        self.position = self.began = position
        self.careful, self.failed = False, dict[int, str]()
        self.metrics = Metrics(fold.kind)
        self._again, self._log = again, log
        self._seen = _SeenSince(under("ids", fold.others))
        self._tallies: list[tuple[int, Tally]] = []
        self._aside: dict[int, str] = {}
        self._erased = log.erased()
        self._kept: list[Page] | None = []
        self._size = 0
        self._chunk = MOST if fold.by_rows else 1

    @classmethod
    def load(
        cls,
        registry: Registry,
        name: str,
        version: Version,
        log: FeedbackLog,
        position: int,
        feed: Feed | None = None,
    ) -> Tail:
        """The tail of a version. Raises as `Registry.state`."""
        made = registry.definition(name, version.definition)
        strategy: Strategy = from_config(version.strategy, made.source)

        def again(state: State) -> Fold:
            return Fold.load(state, made.section("learner"), strategy, frozen=False)

        fold = again(registry.state(name, version))
        holdouts = HoldOuts.load(registry.holdouts(name, version))
        feed = Feed(registry, name, version, log) if feed is None else feed
        return cls(fold, again, holdouts, feed, log, position)

    def cut(self) -> None:
        """A version has all that was learned so far; what comes is counted anew."""
        self.fold.settle()
        self.holdouts.settle()
        self._seen.cut()
        self.began, self._tallies, self.metrics = self.position, [], Metrics(self.fold.kind)
        self.failed, self._aside = {}, {}
        self._kept, self._size, self._erased = [], 0, self._log.erased()

    def __len__(self) -> int:
        """Labels since the version."""
        return self.position - self.began

    def read(self, upto: int) -> list[Labels]:
        """The labels up to a position, for this tail and for others that stand where it does."""
        remembers = self.fold.memory is not None
        columns = self.fold.columns
        return list(self.feed.read(self.position, upto, columns, corrected=remembers))

    def fold_in(self, upto: int, read: Sequence[Labels] | None = None) -> None:
        """Learn the labels up to a position.

        Args:
            read: what `read` gave, where it was asked already.

        Raises:
            UnlearnableError: the learner failed on a label, and this tail is not `careful`.
        """
        for labels in self.read(upto) if read is None else read:
            self._fold(labels)
            self.position = labels.part.stop
            self._keep(labels.page)
            self._aside |= labels.aside

    def state(self) -> State:
        """All that further learning depends on, of a numbered version. It is as if the version was
        cut: `cut` has to follow, of all copies of this tail."""
        self.fold.settle()
        self.holdouts.settle()
        if self.fold.columns.id is not None:
            self._seen.cut()
            self.fold.others = prefixed("ids", self._seen.save())
        return self.fold.save()

    def increments(self, blobs: BlobStore) -> list[Increment]:
        """What was learned since the version, spooled to be read again: one for each definition
        that held meanwhile.

        Args:
            blobs: of the workspace.
        """
        columns, pages = self.fold.columns, self._pages()
        read = self.feed.read(
            self.began,
            self.position,
            columns,
            pages=pages,
            blobs=blobs,
            aside=self._aside | self.failed,
        )
        return [
            increment([one.part for one in labels], self._tallied(definition))
            for definition, labels in groupby(read, lambda one: one.definition)
        ]

    def _tallied(self, definition: int) -> list[Tally]:
        """What became of the labels for which a definition held."""
        return [tally for number, tally in self._tallies if number == definition]

    def _keep(self, page: Page) -> None:
        """Keep labels for the version that is cut next, unless they are too many."""
        if self._kept is not None:
            self._kept.append(page)
            self._size += OF_PAGE + sum(OF_LABEL + len(text) for text in page.features)
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
            seen=self._seen,
            blobs=labels.blobs,
            read_ahead=False,
        )
        last = empty_batch(columns)
        with reader:
            for chunk in reader:
                for start, step in self._steps(chunk.batch):
                    self._account(reader, chunk, start, step)
                self.holdouts.add(chunk.held)
                last = chunk.batch if len(chunk.batch) else last
            if not self.careful:
                self._check_answers(last)
            self._tallies += [(labels.definition, tally) for tally in reader.tallies]

    def _account(self, reader: Reader, chunk: Chunk, start: int, step: Step | str) -> None:
        """Count what became of the rows of a chunk from `start` on."""
        mask = np.zeros(len(chunk.batch), bool)
        if isinstance(step, str):
            mask[start] = True
            reader.refuse(mask, step)
            self.failed[int(chunk.origins()[1][start]) + 1] = step
            return
        if step.prediction is not None and step.counts:
            self.metrics.add(step.batch.y, step.prediction)
        if step.refused is not None:
            mask[start : start + len(step.refused)] = step.refused
            reader.refuse(mask, "a class that the learner cannot be told of")

    def _steps(self, batch: Batch) -> list[tuple[int, Step | str]]:
        """Learn rows: the first row of each step, and the step; of a row that the learner fails on,
        the reason. Failing on one of many, it learns the halves, from where it was before."""
        if not self.careful:
            return [(0, self._step(batch))]
        before = self.fold.save()
        try:
            step = self._step(batch)
            broken = parts_not_finite(_tried(self.fold.save))  # a module that diverged says so
            if broken:
                raise UnlearnableError(f"after it {', '.join(broken)} would not be finite")
            self._check_answers(batch)
            return [(0, step)]
        except UnlearnableError as error:
            self.fold, reason = self._again(before), str(error)
        if len(batch) == 1:
            return [(0, f"the learner failed on it: {reason}")]
        half = len(batch) // 2
        first = self._steps(batch.take(slice(0, half)))
        rest = self._steps(batch.take(slice(half, len(batch))))
        return first + [(half + start, step) for start, step in rest]

    def _step(self, batch: Batch) -> Step:
        """Learn rows; see whether the learner still answers.

        Raises:
            UnlearnableError: it failed, or does not.
        """
        step = _tried(lambda: self.fold.step(batch))
        if not _is_finite(step.prediction):
            raise UnlearnableError("its answers are not finite")
        return step

    def _check_answers(self, batch: Batch) -> None:
        """See whether the learner still answers, by the last of the rows that it learned."""
        row = batch.take(slice(-1, None))
        if len(row) and not _is_finite(_tried(lambda: self.fold.predict(row))):
            raise UnlearnableError("its answers are not finite any more")


def _tried(does: Callable[[], Done]) -> Done:
    """What a learner does. Raises `UnlearnableError` where it fails."""
    try:
        return does()
    except (OSError, MemoryError, StorageError):  # not the rows'
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise UnlearnableError(text[:200]) from error


def _is_finite(said: Prediction | None) -> bool:
    """Whether all answers are numbers."""
    if said is None:
        return True
    numbers = [said.value, said.proba]
    return all(
        array is None or array.dtype.kind != "f" or bool(np.isfinite(array).all())
        for array in numbers
    )
