"""Every scikit-learn estimator with `partial_fit`, behind the `Learner` protocol."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.linear_model._stochastic_gradient import BaseSGD

from everlearn.base import (
    Array,
    Batch,
    Columns,
    Floats,
    InputError,
    LearnerKind,
    Part,
    Prediction,
    State,
)
from everlearn.learners import codec
from everlearn.learners.answers import answer_for, nothing_kept, prior
from everlearn.learners.checks import checked_target, weighing
from everlearn.learners.editable import Editable
from everlearn.learners.encoder import Encoder, Encoding
from everlearn.learners.growth import can_grow, grow_estimator
from everlearn.learners.scikit_editable import EditableLinear, is_linear

FEWEST = 2
"""Classes that an estimator is made with at least; while one is known, the second is empty."""


class SklearnLearner:
    """An encoder, transformers and an estimator as one learner.

    Args:
        encoder: how columns become numbers.
        steps: transformers, then the estimator; unfitted, and this learner's own. Each is a
            function that makes one, so that `load` begins with a fresh one.
        columns: what batches hold.
        kind: what the estimator is.
        classes: how many class codes are known beforehand.
        sparse: whether the first step takes CSR matrices.
        weighs: whether the estimator's `partial_fit` takes `sample_weight`.
        told: whether it takes `classes`.
    """

    def __init__(
        self,
        encoder: Encoder,
        steps: Sequence[Callable[[], Any]],
        columns: Columns,
        *,
        kind: LearnerKind,
        classes: int = 0,
        sparse: bool = False,
        weighs: bool = True,
        told: bool = True,
    ) -> None:
        self.kind = kind
        self._encoder, self._columns, self._sparse = encoder, columns, sparse
        self._make = tuple(steps)
        self._weighs, self._told = weighs, told
        self._classes, self._fresh = 0, True
        self._start(classes)

    @property
    def estimator(self) -> Any:
        """The last step, as it stands; do not change it."""
        return self._estimator

    @property
    def classes(self) -> int:
        """How many class codes are known."""
        return self._classes

    def predict(self, batch: Batch) -> Prediction:
        """Predict for every row; changes nothing.

        Raises:
            InputError: the rows have other columns, or a category that a `CategoricalNB` lacks.
        """
        if not self._fitted and self.kind == "transformer" and len(batch):
            return nothing_kept(self._encoding.transform(batch))
        if not self._fitted or len(batch) == 0:
            return prior(len(batch), self.kind, self._classes, self._has_proba)
        try:
            with self._quiet():
                return self._answer(self._estimator, self._matrix(batch), self._classes)
        except IndexError as error:
            raise InputError(
                f"{type(self._estimator).__name__} has no place for a value in these rows: {error};"
                " of a CategoricalNB, say how many categories there are with min_categories="
            ) from error

    def learn(self, batch: Batch, score: int = 0) -> Prediction | None:
        """Learn the rows as one chunk; what is returned was predicted before it was learned.

        Rows of weight 0 are not learned. Raises `InputError`, and learns nothing, on rows that
        the estimator cannot take.
        """
        answer = None
        if score:
            answer = self.predict(batch if score >= len(batch) else batch.take(slice(score)))
        batch, weight = self._weighted(batch)
        if len(batch):
            self._learn(batch, weight)
        return answer

    def grow(self, classes: int) -> bool:
        """Make room for codes 0 … classes−1: linear models and naive Bayes can at any time,
        others only before the first chunk."""
        if self.kind != "classifier":
            return False
        if self._fitted and classes > max(self._classes, FEWEST):
            if not can_grow(self._estimator):
                return False
            grow_estimator(self._estimator, classes)
        self._classes = max(self._classes, classes)
        return True

    def editable(self) -> Editable | None:
        """How a patch can change its answers: by the weights of a linear model."""
        if not self._fitted or not is_linear(self._estimator, self.kind):
            return None
        return EditableLinear(self._estimator, self.kind, self._matrix, self._classes)

    def _matrix(self, batch: Batch) -> Any:
        """(n, p) columns for the estimator."""
        matrix = self._encoding.transform(batch)
        for step in self._transformers:
            matrix = step.transform(matrix)
        return matrix

    def save(self) -> State:
        """The encoder's statistics and every step's learned attributes."""
        state = {"encoder": self._encoding.save()}
        for index, step in enumerate(self._transformers):
            state[f"step{index}"] = codec.dump(step)
        part = codec.dump(self._estimator)
        known = {"fitted": self._fitted, "classes": self._classes, **part.meta}
        state["estimator"] = Part(part.arrays, known)
        return state

    def load(self, state: State) -> None:
        """Become what `save` saw.

        Raises:
            InputError: the state is of another learner, or broken. This learner is then as new.
        """
        names = {"encoder", "estimator"} | {f"step{i}" for i in range(len(self._transformers))}
        if set(state) != names:
            raise InputError(f"the state has parts {sorted(state)}, expected {sorted(names)}")
        meta = state["estimator"].meta
        if self._fresh:
            self._classes = int(meta.get("classes", 0))
        else:
            self._start(int(meta.get("classes", 0)))
        self._fresh = False
        try:
            self._encoding.load(state["encoder"])
            allowed = [type(step) for step in _inside([*self._transformers, self._estimator])]
            for index, step in enumerate(self._transformers):
                codec.restore(step, state[f"step{index}"], allowed)
            codec.restore(self._estimator, state["estimator"], allowed)
        except InputError:
            self._start(0)
            raise
        self._fitted = bool(meta.get("fitted"))

    def _start(self, classes: int) -> None:
        """Fresh steps that have learned nothing."""
        made = [make() for make in self._make]
        self._encoding = Encoding(self._encoder, self._columns, sparse=self._sparse)
        self._transformers, self._estimator = made[:-1], made[-1]
        self._answer = answer_for(self._estimator, self.kind)
        self._has_proba = hasattr(self._estimator, "predict_proba")
        self._classes = classes
        self._fitted = False
        self._fresh = True
        self._is_sgd = isinstance(self._estimator, BaseSGD) and not self._transformers

    def _learn(self, batch: Batch, weight: Floats | None) -> None:
        y = self._target(batch)
        self._fresh = False
        before = self._encoding.snapshot()
        try:
            with self._quiet():
                self._encoding.learn(batch)
                matrix = self._encoding.transform(batch)
                for step in self._transformers:
                    step.partial_fit(matrix)
                    codec.compact(step)
                    matrix = step.transform(matrix)
                self._partial_fit(matrix, y, weight)
                if not self._is_sgd:
                    codec.compact(self._estimator)
        except ValueError as error:
            self._encoding.restore(before)
            if isinstance(error, InputError):
                raise
            raise InputError(self._explained(error, len(batch))) from error
        self._fitted = True

    def _partial_fit(self, matrix: Any, y: Array | None, weight: Floats | None) -> None:
        options: dict[str, Any] = {}
        if self.kind == "classifier" and self._told and not self._fitted:
            options["classes"] = np.arange(max(self._classes, FEWEST))
        if weight is not None:
            options["sample_weight"] = weight
        if y is None:
            self._estimator.partial_fit(matrix, **options)
        else:
            self._estimator.partial_fit(matrix, y, **options)

    def _target(self, batch: Batch) -> Array | None:
        """(n,) what is to be learned, checked."""
        if self.kind in ("clusterer", "transformer"):
            return None
        return checked_target(batch, self.kind, self._classes)

    def _weighted(self, batch: Batch) -> tuple[Batch, Floats | None]:
        """The rows that weigh anything, and their weights; None where all weigh 1."""
        batch, weight = weighing(batch)
        if weight is None:
            return batch if batch.weight is None else replace(batch, weight=None), None
        if not self._weighs:
            name = type(self._estimator).__name__
            raise InputError(f"{name} takes no sample weights; choose a memory without decay")
        return batch, weight

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Skip checks that were made, and let no warning about convergence or rounding out."""
        with config_context(assume_finite=True, skip_parameter_validation=True):
            if self._is_sgd:
                yield
                return
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                yield

    def _explained(self, error: ValueError, rows: int) -> str:
        name = type(self._estimator).__name__
        if "overflow" in str(error):
            return (
                f"{name} diverged: its parameters are no longer finite. Put an Encoder() before it,"
                " or lower its learning rate (eta0)"
            )
        first = "" if self._fitted else " (its first: a larger Strategy(chunk=) may be needed)"
        steps = [type(step).__name__ for step in (*self._transformers, self._estimator)]
        return f"{' → '.join(steps)} cannot learn a chunk of {rows} rows{first}: {error}"


def _inside(steps: Sequence[Any]) -> Iterator[Any]:
    """The steps and the estimators among their parameters."""
    for step in steps:
        yield step
        if hasattr(step, "get_params"):
            for value in step.get_params(deep=True).values():
                if hasattr(value, "get_params") and not isinstance(value, type):
                    yield value
