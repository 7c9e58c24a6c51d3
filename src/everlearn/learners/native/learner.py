"""A native learner behind the `Learner` protocol: class codes for classes, batches for arrays."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from everlearn.base import (
    Batch,
    Columns,
    Floats,
    InputError,
    Part,
    Prediction,
    SpecError,
    State,
)
from everlearn.learners.editable import Editable
from everlearn.learners.encoder import refuse_texts
from everlearn.learners.native.classifier import Classifier, chosen, wide
from everlearn.learners.native.editable import editable_native
from everlearn.learners.native.estimator import Native
from everlearn.learners.native.regressor import Regressor, finite
from everlearn.learners.native.rows import WIDTH, Rows, Shape, usable

if TYPE_CHECKING:
    from everlearn.learners.native.descent.held import HeldWeights

HELD = "held/weights"
"""The part of a state that says what weights are held to."""


class NativeLearner:
    """A native learner in a model.

    Args:
        definition: what is copied; nothing that it has learned is.
        columns: what batches hold.
        classes: how many class codes are known beforehand.
        seed: in place of `seed=None`.

    Raises:
        SpecError: it cannot learn from these columns.
    """

    def __init__(
        self, definition: Native, columns: Columns, *, classes: int = 0, seed: int = 0
    ) -> None:
        self.kind = definition.kind
        self._columns, self._given = columns, seed
        if columns.categories and not definition.takes_categories:
            name = type(definition).__name__
            raise SpecError(f"{name} takes no categories; put them into Schema(ignore=…)")
        refuse_texts(columns, type(definition).__name__)
        self._held: HeldWeights | None = None
        self._definition = definition.for_columns(columns)
        self._declared, self._classes = classes, classes
        self._estimator: Any = self._fresh()

    @property
    def per_row(self) -> bool:
        """Whether it predicts and learns row by row, so that chunks make no difference."""
        return self.estimator.per_row

    @property
    def estimator(self) -> Native:
        """What learns, as it stands; do not change it."""
        return self._estimator  # type: ignore[no-any-return]

    def predict(self, batch: Batch) -> Prediction:
        """Predict for every row; changes nothing."""
        rows = self._rows(batch)
        if isinstance(self._estimator, Classifier):
            return self._of_codes(self._estimator.predict_codes(rows, self._classes))
        return Prediction(value=self._estimator.predict_values(rows))

    def learn(self, batch: Batch, score: int = 0) -> Prediction | None:
        """Learn row by row; what is returned was predicted just before each row was learned.

        Raises:
            InputError: other columns, class codes that there are not, a target that is not finite.
        """
        rows = self._rows(batch)
        weight = self._estimator._weights(batch.weight, len(batch))
        estimator = self._estimator
        if isinstance(estimator, Classifier):
            if batch.y is None:
                raise InputError("rows to learn have no target; name it in Schema(target=…)")
            if len(batch) and (batch.y.max() >= self._classes or batch.y.min() < 0):
                raise InputError(
                    f"class codes are 0 … {self._classes - 1}, not {batch.y.min()} …"
                    f" {batch.y.max()}; grow first"
                )
            if not self._any(batch, weight):
                return self.predict(batch.take(slice(score))) if score else None
            codes = usable(batch.y, np.int64)
            out = estimator.learn_codes(rows, codes, weight, self._classes, self._declared, score)
            return self._of_codes(out) if score else None
        if not self._any(batch, weight):
            return self.predict(batch.take(slice(score))) if score else None
        y = np.empty(0)
        if isinstance(estimator, Regressor) and estimator.targeted:
            if batch.y is None:
                raise InputError("rows to learn have no target; name it in Schema(target=…)")
            y = finite(batch.y)
        values = estimator.learn_values(rows, y, weight, score)
        return Prediction(value=values) if score else None

    def settle(self) -> None:
        """The increment is over: what it has learned will answer as a version."""
        settle = getattr(self._estimator, "settle", None)
        if settle is not None:
            settle()
        if self._held is not None:
            self._held.settle(self._estimator._settled())

    def editable(self) -> Editable | None:
        """How a patch can change its answers: by its weights or by its leaves."""
        return editable_native(self._estimator, self._rows, self._of_codes, self._classes)

    def hold_weights(self, held: HeldWeights) -> NativeLearner:
        """Hold the weights of a linear model while it learns; returns this learner.

        Raises:
            SpecError: it has no weights that are learned with a rate.
        """
        if not self.has_weights:
            raise SpecError(f"{type(self._definition).__name__} has no weights to be held")
        self._held = held
        self._hold()
        return self

    @property
    def has_weights(self) -> bool:
        """Whether it is a linear model whose weights move at a rate."""
        return hasattr(self._estimator, "held") and hasattr(self._estimator, "learning_rate")

    def _hold(self) -> None:
        """Hold what learns now."""
        if self._held is not None:
            self._held.begin(self._estimator._settled())
            self._estimator.held = self._held

    def grow(self, classes: int) -> bool:
        """Make room for codes 0 … classes−1, which is always there."""
        if not isinstance(self._estimator, Classifier):
            return False
        self._classes = max(self._classes, classes)
        return True

    def save(self) -> State:
        """Everything that further learning and predicting depend on."""
        meta = {"classes": self._classes, "declared": self._declared, "seed": self._given}
        state = {"known": Part(meta=meta), **self._estimator.save()}
        return state if self._held is None else state | {HELD: self._held.save()}

    def load(self, state: State) -> None:
        """Become what `save` saw. Raises `InputError` on a state of another kind of learner."""
        if "known" not in state:
            raise InputError(f"the state has parts {sorted(state)}; it is of no native learner")
        made = self._fresh()
        begun = made._shape
        made.load({name: part for name, part in state.items() if name not in ("known", HELD)})
        if made._shape is None or replace(made._shape, outputs=1) != replace(begun, outputs=1):
            raise InputError(f"the state is of rows with other columns: {made._shape}, not {begun}")
        try:
            known = {
                name: int(state["known"].meta[name]) for name in ("classes", "declared", "seed")
            }
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the state of {type(made).__name__} is broken: {error!r}") from error
        self._classes, self._declared = known["classes"], known["declared"]
        self._given = known["seed"]
        made.seed = self._seed()
        self._estimator = made
        if self._held is not None:
            made.held = self._held
            if HELD in state:
                self._held.load(state[HELD], made._settled())
            else:
                self._held.take_up(made._settled())

    def _fresh(self) -> Any:
        made = self._definition.clone()
        made.seed = self._seed()
        columns = self._columns
        shape = Shape(
            numbers=len(columns.numbers),
            times=len(columns.times) * WIDTH[made.times],
            categories=len(columns.categories),
            outputs=max(2, self._declared) if made.kind == "classifier" else 1,
        )
        made._start(shape, self._seed())
        return made

    def _seed(self) -> int:
        return self._given if self._definition.seed is None else self._definition.seed

    def _any(self, batch: Batch, weight: Floats) -> bool:
        return len(batch) > 0 and (len(weight) == 0 or bool(weight.any()))

    def _rows(self, batch: Batch) -> Rows:
        columns = self._columns
        expected = (len(columns.numbers), len(columns.categories), len(columns.times))
        found = (batch.numbers.shape[1], batch.categories.shape[1], batch.times.shape[1])
        if found != expected:
            raise InputError(
                f"rows have {expected[0]} numbers, {expected[1]} categories and {expected[2]}"
                f" times, but {found[0]}, {found[1]} and {found[2]} were given"
            )
        return self._estimator._rows(batch)  # type: ignore[no-any-return]

    def _of_codes(self, out: Floats) -> Prediction:
        """A prediction of codes below `classes`."""
        known = max(self._classes, 1)
        estimator = self._estimator
        if known == 1:
            proba = np.ones((len(out), 1)) if estimator.probabilistic else None
            return Prediction(value=np.zeros(len(out), np.int64), proba=proba)
        value = chosen(out, estimator.probabilistic)
        if estimator.probabilistic:
            return Prediction(value=value, proba=wide(out, known))
        margin = None
        if known == 2:
            margin = out[:, 0] if out.shape[1] == 1 else out[:, 1] - out[:, 0]
        return Prediction(value=value, margin=margin)
