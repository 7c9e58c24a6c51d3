"""The fold: state[n] = update(state[n−1], increment[n]). Read `learn` first; it is all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from everlearn.base import (
    Array,
    Batch,
    Columns,
    Erasable,
    Floats,
    Hashes,
    Held,
    InputError,
    Json,
    Learner,
    LearnerKind,
    Memory,
    Part,
    Prediction,
    State,
    crash_point,
    generator_from_json,
    generator_to_json,
    prefixed,
    under,
)
from everlearn.evaluation.loss import losses
from everlearn.learners.adapt import as_learner
from everlearn.learners.labels import Labels
from everlearn.registry.config import from_config, to_config
from everlearn.strategies.patch import Patch, generated
from everlearn.strategies.strategy import Strategy

Mask = npt.NDArray[np.bool_]


class Chunks(Protocol):
    """Where chunks come from: an increment's reader, or arrays in memory."""

    def __iter__(self) -> Iterator[ChunkLike]: ...


class ChunkLike(Protocol):
    """Rows to learn (`batch`), rows to keep out of learning (`held`), where to go on (`mark`), the
    number of the pass over the increment, from 1 (`number`), and which rows they are (`where`)."""

    @property
    def batch(self) -> Batch: ...
    @property
    def held(self) -> Batch | None: ...
    @property
    def mark(self) -> Json: ...
    @property
    def number(self) -> int: ...
    @property
    def where(self) -> str: ...


@dataclass(slots=True)
class Step:
    """What one chunk did.

    Args:
        batch: the rows that were learned, y in codes for a classifier.
        prediction: what was predicted for them before they were learned; None for no rows, and
            where they were learned before.
        refused: (n,) which rows of the chunk were set aside because the learner cannot learn their
            class; None for none.
        counts: whether the prediction says something about the model: not the 0 that a regressor
            answers before it has learned anything.
    """

    batch: Batch
    prediction: Prediction | None
    refused: Mask | None = None
    counts: bool = True


AfterStep = Callable[[ChunkLike, Step], None]


def learn(fold: Fold, chunks: Chunks, after_step: AfterStep) -> None:
    """Fold the chunks of one increment into the state; `after_step` measures and checkpoints."""
    for chunk in chunks:
        with naming(chunk):
            step = fold.step(chunk.batch, again=chunk.number > 1)
        crash_point("learn.step")
        after_step(chunk, step)
    fold.settle()


@contextmanager
def naming(chunk: ChunkLike) -> Iterator[None]:
    """Let an error say in which rows it arose."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{chunk.where}: {error}") from error


def memory_definition(memory: Memory) -> Json:
    """What makes two memories hold the same rows: everything but the ratio of their draws."""
    config = to_config(memory)
    config["params"].pop("ratio", None)
    return config


@dataclass(slots=True)
class Fold:
    """A state that can learn: what a version stores, alive.

    Args:
        columns: kinds and order of the columns.
        learner: what learns; it sees class codes.
        labels: class codes ↔ values of the target; None for a learner that is no classifier.
        memory: what is seen again, or None.
        generator: all randomness of the fold (the draws from memory).
        definition: of the memory, as JSON, so that a changed one can take over its rows.
        replays: whether rows are drawn from memory for each chunk; a fold that began with all that
            the memory holds (`relive`) does not see it again.
        begun: whether the learner has learned anything.
        alone: whether new rows are only offered to the memory, and it alone is learned.
        others: parts of the state that belong to the increment's reader (ids seen so far).
        patch: answers that are given instead of the learner's, which learns on without it; or None.
    """

    columns: Columns
    learner: Learner
    labels: Labels | None
    memory: Held | None
    generator: np.random.Generator
    definition: Json = None
    replays: bool = True
    begun: bool = False
    alone: bool = False
    others: dict[str, Part] = field(default_factory=dict)
    patch: Patch | None = None

    @classmethod
    def new(
        cls,
        learner: Any,
        columns: Columns,
        strategy: Strategy,
        *,
        classes: tuple[Any, ...] = (),
        remembered: State | None = None,
        frozen: bool = True,
    ) -> Fold:
        """A fold that has learned nothing.

        Args:
            learner: an estimator, a chain, a learner's name, or None for the default learner.
            strategy: its memory, retention, adaptation and seed.
            classes: classes of the target that are known beforehand. Where there are any, those of
                remembered rows are too, which may be of classes that the increment lacks.
            remembered: a state whose memory (and whose ids seen) the fold begins with.
            frozen: whether its state will answer as a version, until the next job; False for
                one that answers while it learns.

        Raises:
            SpecError: the learner cannot learn in increments, or not from these columns.
        """
        kept = under("memory", remembered or {})
        if classes and kept and strategy.memory is not None:
            classes = tuple({*classes, *_classes_of(kept)})
        seed, labels = strategy.seed, Labels(sorted(classes))
        frozen = frozen and isinstance(strategy.order, str)  # shuffled, no row is like the last
        made = as_learner(
            learner, columns, classes=len(labels), seed=seed, labels=labels, frozen=frozen
        )
        made = strategy.wrap(made)
        generator = np.random.Generator(np.random.PCG64(seed))
        fold = cls(columns, made, labels if made.kind == "classifier" else None, None, generator)
        fold._open_memory(strategy.memory, kept)
        fold.others = prefixed("ids", under("ids", remembered or {}))
        return fold

    @classmethod
    def load(
        cls,
        state: State,
        learner: Any,
        strategy: Strategy,
        *,
        remembered: State | None = None,
        frozen: bool = True,
    ) -> Fold:
        """The fold that `save` saw. The learner's definition must be the one it was made with;
        the memory may be another one, which is then offered what the saved one held.

        Args:
            remembered: a state whose memory and ids seen are taken instead of this one's.
            frozen: as for `new`.

        Raises:
            InputError: the state is of another kind of learner.
        """
        columns = Columns.from_json(state["columns"].meta)
        labels = Labels.load(state["labels"]) if "labels" in state else None
        count, seed = len(labels or ()), strategy.seed
        frozen = frozen and isinstance(strategy.order, str)
        made = as_learner(learner, columns, classes=count, seed=seed, labels=labels, frozen=frozen)
        made = strategy.wrap(made)
        made.load(under("learner", state))
        fold = cls(columns, made, labels, None, generator_from_json(state["generator"].meta))
        fold.begun = True
        kept = state if remembered is None else remembered
        fold._open_memory(strategy.memory, under("memory", kept))
        fold.others = prefixed("ids", under("ids", kept))
        fold.patch = Patch.load(under("patch", state))
        if fold.patch is not None:
            fold.patch.check(made, columns, None if fold.labels is None else count)
        return fold

    def save(self) -> dict[str, Part]:
        """Everything that further learning depends on; parts that did not change are shared."""
        state = prefixed("learner", self.learner.save())
        state["columns"] = Part(meta=self.columns.to_json())
        state["generator"] = Part(meta=generator_to_json(self.generator))
        if self.labels is not None:
            state["labels"] = self.labels.save()
        if self.memory is not None:
            state["memory/definition"] = Part(meta=self.definition)
            state |= prefixed("memory/held", self.memory.save())
        if self.patch is not None:
            state |= prefixed("patch", self.patch.save())
        return state | self.others

    def predict(self, batch: Batch) -> Prediction:
        """Predict for every row, class codes for a classifier; changes nothing."""
        if self.patch is not None:
            return self.patch.answer(self.learner, batch)
        return self.learner.predict(batch)

    def generate(self, prompt: str, **how: Any) -> str:
        """What a language model writes to a prompt, patched as it is; see `generated`."""
        return generated(self.learner, self.patch, prompt, **how)

    def step(self, batch: Batch, again: bool = False, test: bool = True) -> Step:
        """Test, then train: predict the rows, learn them with rows drawn from memory, offer them.

        Args:
            batch: rows with y in the target's own values.
            again: they were learned before, in an earlier pass: they are neither predicted nor
                offered once more.
            test: whether the answers before learning are wanted; without, they are only computed
                for a memory that ranks by loss.
        """
        known, coded, refused = self._coded_known(batch)
        if not len(known):
            return Step(known, None, refused)
        if self.alone:
            if not again and self.memory is not None:
                self.memory.offer(known, np.zeros(len(known)), self.generator)
            return Step(coded, None, refused)
        drawn = self._draw(len(known))
        mixed = coded if drawn is None else Batch.concat([coded, drawn])
        ranks = self.memory is not None and self.memory.ranks_by_loss
        score = len(coded) if (test or ranks) and not again else 0
        prediction = self.learner.learn(mixed, score=score)
        counts, self.begun = self.begun or self.kind != "regressor", True
        if self.memory is not None and not again:
            loss = self._losses(coded, prediction if ranks else None)
            self.memory.offer(known, loss, self.generator)
        return Step(coded, prediction, refused, counts)

    def learn(self, batch: Batch) -> None:
        """Learn rows without testing on them and without offering them to the memory."""
        _, coded, _ = self._coded_known(batch)
        if len(coded):
            self.learner.learn(coded)
            self.begun = True

    def forget(self, ids: Hashes) -> None:
        """Take the rows with these ids out of the memory: they are about to be learned again."""
        memory: object = self.memory
        if isinstance(memory, Erasable):
            memory.erase(ids=ids)

    def settle(self) -> None:
        """The increment is over: what was offered to the memory can be drawn from now on, and a
        learner that tells its versions apart is told."""
        if self.memory is not None:
            self.memory.settle()
        settle = getattr(self.learner, "settle", None)
        if settle is not None:
            settle()

    def remembered(self) -> Iterator[Batch]:
        """All rows that the memory holds, in order of arrival."""
        return iter(()) if self.memory is None else self.memory.rows()

    def encode(self, y: Array) -> Array:
        """Values of the target as the learner sees them: class codes (−1 if unknown) or numbers."""
        return y if self.labels is None else self.labels.encode(y)

    def decode(self, value: Array) -> Array:
        """Predicted values as the target has them: the inverse of `encode`."""
        return value if self.labels is None else self.labels.decode(value)

    @property
    def by_rows(self) -> bool:
        """Whether it makes no difference how rows are cut into chunks."""
        return self.memory is None and getattr(self.learner, "per_row", False)

    @property
    def kind(self) -> LearnerKind:
        """What kind of learner it has."""
        return self.learner.kind

    @property
    def classes(self) -> Array:
        """(k,) classes of the target, in the order of the columns of `Prediction.proba`."""
        return self.decode(np.arange(len(self.labels or ())))

    @property
    def positive(self) -> int:
        """The code of the positive class of two: the last in natural order."""
        return 1 if self.labels is None or len(self.labels) != 2 else int(self.labels.order[-1])

    def _open_memory(self, memory: Memory | None, saved: State) -> None:
        """Open the memory on what was saved; a memory of another kind is offered those rows."""
        if memory is None:
            return
        self.definition = memory_definition(memory)
        self.alone = getattr(memory, "alone", False)
        if not saved:
            self.memory = memory.open()
        elif saved["definition"].meta == self.definition:
            self.memory = memory.open(under("held", saved))
        else:
            self.memory = memory.open()
            for rows in _saved_rows(saved):
                loss = self._losses(self._coded(rows), self.learner.predict(rows))
                self.memory.offer(rows, loss, self.generator)
            self.memory.settle()

    def _draw(self, n: int) -> Batch | None:
        """Rows seen again with n new ones, with class codes. Of classes that the learner does not
        know there are only some where it began from a state of other rows; they are left out."""
        if self.memory is None or not self.replays:
            return None
        drawn = self.memory.draw(n, self.generator)
        if drawn is None or self.labels is None or drawn.y is None:
            return drawn
        codes = self.labels.encode(drawn.y)
        coded = drawn.with_y(codes)
        return coded if (codes >= 0).all() else coded.take(codes >= 0)

    def _coded(self, batch: Batch) -> Batch:
        if self.labels is None or batch.y is None:
            return batch
        return batch.with_y(self.labels.encode(batch.y))

    def _coded_known(self, batch: Batch) -> tuple[Batch, Batch, Mask | None]:
        """(rows that can be learned, the same with class codes, which rows cannot be: those of a
        class that is new, and that the learner has no room for)."""
        if self.labels is None or not len(batch):
            return batch, batch, None
        if batch.y is None:
            target = "a target" if self.columns.target is None else repr(self.columns.target)
            raise InputError(f"{target} is needed to learn, and these rows have none")
        codes = self.labels.encode(batch.y)
        unknown = codes < 0
        if unknown.any():
            new = dict.fromkeys(batch.y[unknown].tolist())
            # as rows come where chunks make no difference; otherwise in natural order, as in `fit`
            for value in new if getattr(self.learner, "per_row", False) else sorted(new):
                if self.learner.grow(len(self.labels) + 1):
                    self.labels.extend([value])
            codes = self.labels.encode(batch.y)
            unknown = codes < 0
        if not unknown.any():
            return batch, batch.with_y(codes), None
        known = batch.take(~unknown)
        return known, known.with_y(codes[~unknown]), unknown

    def _losses(self, batch: Batch, prediction: Prediction | None) -> Floats:
        if batch.y is None or prediction is None:
            return np.zeros(len(batch))
        return losses(self.learner.kind, batch.y, prediction)


def _saved_rows(saved: State) -> Iterator[Batch]:
    """All rows that a saved memory holds, whatever its kind."""
    memory: Memory = from_config(saved["definition"].meta)
    return memory.open(under("held", saved)).rows()


def _classes_of(saved: State) -> set[Any]:
    """The classes of the rows that a saved memory holds."""
    return {y for rows in _saved_rows(saved) if rows.y is not None for y in rows.y.tolist()}
