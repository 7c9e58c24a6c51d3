"""Boosted trees behind the `Learner` protocol, whichever library grows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from everlearn.base import (
    Array,
    Batch,
    Columns,
    Floats,
    InputError,
    Part,
    Prediction,
    State,
)
from everlearn.learners.boosting.editable import EditableBoost
from everlearn.learners.boosting.forest import RATE, Block, Forest
from everlearn.learners.boosting.matrix import Matrix
from everlearn.learners.checks import check_weight, checked_target
from everlearn.learners.editable import Editable

if TYPE_CHECKING:
    from everlearn.learners.boosting.definition import Boosted


class BoostedTrees:
    """A forest that grows with every chunk, what it began with, and its codes of categories.

    What is predicted is `base_` plus the sum of all trees: a score for each class (one for two),
    or one number.

    Args:
        definition: what it is made from.
        columns: what batches hold.
        classes: how many class codes are known beforehand.
        seed: of what the library draws.

    Raises:
        SpecError: the library refuses a parameter, or there is no column to learn from.
    """

    def __init__(
        self, definition: Boosted, columns: Columns, *, classes: int = 0, seed: int = 0
    ) -> None:
        self.definition = definition
        self.kind = definition.kind_for(columns, classes)
        self._matrix = Matrix(columns, definition.categories)
        self._library = definition.library_for(
            self.kind, self._matrix.width, self._matrix.categorical
        )
        self._seed, self._classes = seed, 0
        self._forest = Forest()
        self.base_: Floats = np.zeros(1)
        self._seen: Floats = np.zeros(0)
        self._rows = self._chunks = 0
        if self.kind == "classifier":
            self._room(max(classes, definition.room))
            self.grow(classes)

    @property
    def classes(self) -> int:
        """How many class codes are known."""
        return self._classes

    @property
    def rounds(self) -> int:
        """How many rounds of trees there are."""
        return self._forest.rounds

    def predict(self, batch: Batch) -> Prediction:
        """Predict for every row; changes nothing.

        Raises:
            InputError: the rows have other columns.
        """
        return self._answer(self._margins(self._matrix.transform(batch)))

    def learn(self, batch: Batch, score: int = 0) -> Prediction | None:
        """Learn the rows as one chunk; what is returned was predicted before it was learned.

        Rows of weight 0 are not learned.

        Raises:
            InputError: other columns, class codes that there are not, a target that is not finite
                or that the objective does not take. Nothing was learned then.
        """
        x = self._matrix.transform(batch)
        margins = self._margins(x)
        answer = self._answer(margins[:score].copy()) if score else None
        chosen, weight = _weighing(batch)
        if chosen is not None:
            batch, x, margins = batch.take(chosen), x[chosen], margins[chosen]
        if not len(batch):
            return answer
        y = np.asarray(checked_target(batch, self.kind, self._classes), np.float64)
        before = self._matrix.snapshot()
        if self._matrix.learn(batch):
            x = self._matrix.transform(batch)
            margins = self._margins(x)
        try:
            self._grow_trees(x, y, weight, margins)
        except InputError:
            self._matrix.restore(before)
            raise
        return answer

    def grow(self, classes: int) -> bool:
        """Make room for codes 0 … classes−1, which is always there."""
        if self.kind != "classifier":
            return False
        self._room(classes)
        self._classes = max(self._classes, classes)
        return True

    def editable(self) -> Editable | None:
        """How a patch can change its answers: by the leaves of its newest trees."""
        if not self._rows or self.definition.link() == "exponential":
            return None
        return EditableBoost(
            self._forest, self._library, self._matrix.transform, self._known, self._answer
        )

    def save(self) -> State:
        """The trees as the library's text, what they are added to, and the codes of categories."""
        trees, known = self._forest.save()
        meta = {
            "library": self.definition.library,
            "objective": self._objective,
            "classes": self._classes,
            "rows": self._rows,
            "chunks": self._chunks,
            "seed": self._seed,
            **known,
        }
        arrays = {"base": self.base_.copy(), "seen": self._seen.copy()}
        return {**trees, "codes": self._matrix.save(), "known": Part(arrays, meta)}

    def load(self, state: State) -> None:
        """Become what `save` saw.

        Raises:
            InputError: the state is of another library, objective or columns, or broken. This
                learner is then not to be used.
        """
        if "known" not in state or "codes" not in state:
            raise InputError(f"the state has parts {sorted(state)[:5]}; it is of no boosted trees")
        known = state["known"].meta
        for name, ours in (("library", self.definition.library), ("objective", self._objective)):
            if known.get(name) != ours:
                raise InputError(f"the state is of the {name} {known.get(name)!r}, not {ours!r}")
        self._matrix.load(state["codes"])
        try:
            self.base_ = np.array(state["known"].arrays["base"], np.float64)
            self._seen = np.array(state["known"].arrays["seen"], np.float64)
            self._classes, self._rows = int(known["classes"]), int(known["rows"])
            self._chunks, self._seed = int(known["chunks"]), int(known["seed"])
            if self.base_.ndim != 1 or not np.isfinite(self.base_).all() or self._seed < 0:
                raise InputError(f"the state begins at {self.base_}, with the seed {self._seed}")
            self._forest.load(state, known)
            self._margins(np.full((1, self._matrix.width), np.nan))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the state of boosted trees is broken: {error!r}") from error

    # --- learning ---

    @property
    def _objective(self) -> str:
        if self.kind == "classifier":
            return "classes"
        return str(self.definition.settings(self.kind, 1, 0)["objective"])

    @property
    def _outputs(self) -> int:
        return len(self.base_)

    def _grow_trees(self, x: Floats, y: Floats, weight: Floats | None, margins: Floats) -> None:
        """Add trees, or fit the leaves of those that there are."""
        definition, forest = self.definition, self._forest
        base, seen = self._begun(y, weight, margins)
        start = margins + (base - self.base_)
        over = forest.rounds + definition.trees - definition.at_most
        same = all(block.outputs == self._outputs for block in forest.blocks)
        if over > 0 and definition.full == "refit" and same:
            self._refit(x, y, weight, base)
        else:
            start = base + (start - base) * definition.shrinks
            library = self._library(self._outputs)
            seed = int(np.random.SeedSequence([self._seed, self._chunks]).generate_state(1)[0])
            text, rounds = library.boost(x, y, weight, start, definition.trees, seed % 2**31)
            forest.decay(definition.shrinks)
            if rounds:
                forest.append(text, rounds, self._outputs, library)
            else:
                base = base + self._nudge(start, y, weight)
            forest.drop(forest.rounds - definition.at_most)
        self.base_, self._seen = base, seen
        self._rows += len(y)
        self._chunks += 1

    def _refit(self, x: Floats, y: Floats, weight: Floats | None, base: Floats) -> None:
        """Fit the leaves of each block to what the blocks before it leave over."""
        start = np.zeros((len(x), self._outputs)) + base
        made: list[tuple[Block, bytes]] = []
        library = self._library(self._outputs)
        for block in self._forest.blocks:
            booster = self._forest.booster(block, self._library)
            text = library.refit(booster, x, y, weight, start, self.definition.keep)
            made.append((block, text))
            start = start + library.margins(
                library.booster([text], block.rounds, True), x, block.skip
            )
        for block, text in made:
            self._forest.replace(block, text)

    def _begun(self, y: Floats, weight: Floats | None, margins: Floats) -> tuple[Floats, Floats]:
        """(what the trees are added to, weight seen of each class) after these rows: a class that
        is seen for the first time begins with its share of the chunk."""
        if self.kind != "classifier":
            if self._rows:
                return self.base_, self._seen
            mean = np.array([np.average(y, weights=weight)])
            if self.definition.link() == "exponential":
                mean = np.log(np.maximum(mean, 1e-9))
            return mean, self._seen
        room = max(self._outputs, 2)
        here = np.bincount(y.astype(np.int64), weights=weight, minlength=room)
        new = (self._seen == 0) & (here > 0)
        if not new.any():
            return self.base_, self._seen + here
        share = np.log((here + 1.0) / (here.sum() + room))
        if self._outputs == 1:
            return self.base_ + (share[1] - share[0] - margins.mean()), self._seen + here
        if not self._rows:
            return share, self._seen + here
        apart = np.where(new, share - _log_softmax(margins).mean(axis=0), 0.0)
        return self.base_ + apart, self._seen + here

    def _nudge(self, start: Floats, y: Floats, weight: Floats | None) -> Floats:
        """A step of all scores together, for rows that no tree tells apart (a single one, say)."""
        w = np.ones(len(y)) if weight is None else weight
        if self.kind != "classifier":
            value = np.exp(start[:, 0]) if self.definition.link() == "exponential" else start[:, 0]
            apart = w @ (y - value)
            curve = w @ value if self.definition.link() == "exponential" else w.sum()
            return np.array([RATE * apart / (curve + 1.0)])
        proba = self._probabilities(start)[:, -self._outputs :]
        codes = np.arange(proba.shape[1]) + (1 if self._outputs == 1 else 0)
        apart = w @ ((y[:, None] == codes) - proba)
        step: Floats = RATE * apart / (w @ (proba * (1.0 - proba)) + 1.0)
        return step

    def _room(self, classes: int) -> None:
        """As many scores as classes; one for two of them."""
        outputs = 1 if classes <= 2 else classes
        if outputs > self._outputs:
            base = np.zeros(outputs)
            if self._outputs == 1:
                base[1] = self.base_[0]
            else:
                base[: self._outputs] = self.base_
            if self._rows:
                base[max(2, self._outputs) :] = base.min() - np.log(self._rows + 1.0)
            self.base_ = base
        missing = max(classes, 2) - len(self._seen)
        self._seen = np.append(self._seen, np.zeros(max(missing, 0)))

    # --- answering ---

    def _margins(self, x: Floats) -> Floats:
        """(n, outputs) scores."""
        made: Floats = self.base_ + self._forest.margins(self._library, x, self._outputs)
        return made

    def _known(self, x: Floats) -> Floats:
        """(n, k) scores of the classes that are known, or (n, 1)."""
        margins = self._margins(x)
        return margins if margins.shape[1] == 1 else margins[:, : self._classes]

    def _answer(self, margins: Floats) -> Prediction:
        """What the scores say."""
        if self.kind != "classifier":
            value = margins[:, 0]
            exponential = self.definition.link() == "exponential" and self._rows
            return Prediction(value=np.exp(value) if exponential else value)
        if not self._rows:
            proba = np.full((len(margins), self._classes), 1.0 / max(self._classes, 1))
        else:
            proba = self._probabilities(margins)
        if not self._classes:
            return Prediction(value=np.zeros(len(margins), np.int64))
        return Prediction(value=proba.argmax(axis=1), proba=proba)

    def _probabilities(self, margins: Floats) -> Floats:
        """(n, classes) of (n, outputs) scores, of the classes that are known."""
        if self._classes == 1:
            return np.ones((len(margins), 1))
        if self._outputs == 1:
            with np.errstate(over="ignore"):
                upper = 1.0 / (1.0 + np.exp(-margins[:, 0]))
            return np.stack([1.0 - upper, upper], axis=1)
        proba: Floats = np.exp(_log_softmax(margins[:, : self._classes]))
        return proba


def _log_softmax(margins: Floats) -> Floats:
    """(n, k) logarithms of probabilities."""
    apart = margins - margins.max(axis=1, keepdims=True)
    made: Floats = apart - np.log(np.exp(apart).sum(axis=1, keepdims=True))
    return made


def _weighing(batch: Batch) -> tuple[Array | None, Floats | None]:
    """(which rows weigh anything, None for all; their weights, None where all weigh 1).

    Raises:
        InputError: a weight is negative or not finite.
    """
    weight = batch.weight
    if weight is None or not len(batch):
        return None, None
    check_weight(weight)
    chosen = None if (weight > 0).all() else weight > 0
    weight = weight if chosen is None else weight[chosen]
    return chosen, None if (weight == 1.0).all() else weight
