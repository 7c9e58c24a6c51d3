"""Learners of classes or of quantities, whichever the target turns out to be."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np

from everlearn.base import Array, Batch, Floats, InputError, LearnerKind, Part, State
from everlearn.learners.native.estimator import Native, target_of
from everlearn.learners.native.parameters import Parameters

MANY_CLASSES = 20
"""Whole numbers with more distinct values than this are a quantity."""


class Either(Parameters):
    """An estimator that becomes a native classifier or regressor with the first rows it learns.

    A target of texts or booleans is one of classes; so is one of whole numbers with at most 20
    distinct values among the first rows, and one of 0.0 and 1.0. Inside a model the columns decide.
    """

    _made: Native | None
    classes: Any = None
    task: LearnerKind | None = None

    @abstractmethod
    def of_kind(self, kind: LearnerKind, frozen: bool = False) -> Native:
        """A native learner of this kind with these parameters, that has learned nothing.

        Args:
            kind: "classifier" or "regressor".
            frozen: whether it will answer for long before it learns on, as the version of a job
                does.
        """

    @property
    def kind(self) -> LearnerKind | None:
        """What it is; None where the target decides, and none was seen."""
        if self._made is not None:
            return self._made.kind
        return self.task if self.classes is None else "classifier"

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> Self:
        """Learn rows, one after the other; as `Native.partial_fit`."""
        made = self._for(X, y, classes)
        made.partial_fit(X, y, classes, sample_weight)
        self._keep(made)
        return self

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Forget all, then `partial_fit`; as `Native.fit`."""
        self._forget()
        made = self._for(X, y, None)
        made.fit(X, y, sample_weight)
        self._keep(made)
        return self

    def learn_one(self, x: Floats, y: Any) -> Any:
        """Learn one (n_features,) row; returns what was predicted for it before."""
        made = self._for(x, [y], None)
        answer = made.learn_one(x, y)
        self._keep(made)
        return answer

    def score_then_learn(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, proba: bool = False
    ) -> Array:
        """Predict each row, then learn it, before the next is predicted (prequentially).

        Returns:
            (n_samples,) classes or values; with `proba`, (n_samples, n_classes) probabilities.
        """
        made: Any = self._for(X, y, None)
        answers: Array = made.score_then_learn(X, y, sample_weight, proba=proba)
        self._keep(made)
        return answers

    def __getattr__(self, name: str) -> Any:
        """All else is that of the native learner: `predict`, `predict_proba`, `classes_`, …"""
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self._ready(), name)

    def save(self) -> State:
        """All that was learned."""
        if self._made is None:
            return {"native": Part(meta={"learner": type(self).__name__, "begun": False})}
        return self._made.save()

    def load(self, state: State) -> Self:
        """Become what `save` saw. Raises `InputError` on a state of another learner."""
        meta = state["native"].meta if "native" in state else {}
        found = meta.get("learner") if isinstance(meta, dict) else None
        self._forget()
        kinds: tuple[LearnerKind, ...] = ("classifier", "regressor")
        for kind in kinds if self.kind is None else (self.kind,):
            made = self.of_kind(kind)
            if type(made).__name__ == found:
                self._made = made.load(state)
                return self
        if found != type(self).__name__:
            raise InputError(f"the state is of {found}, not {type(self).__name__}")
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"params": self.get_params(deep=False), "state": dict(self.save())}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """A copy, of this process or another, has arrays of its own that can be written to."""
        for name, value in saved["params"].items():
            setattr(self, name, value)
        self.load(saved["state"])

    def __sklearn_tags__(self) -> Any:
        return self.of_kind(self.kind or "classifier").__sklearn_tags__()

    def __sklearn_is_fitted__(self) -> bool:
        return self._made is not None

    def _forget(self) -> None:
        self._made = None

    def _for(self, X: Any, y: Any, classes: Any) -> Native:
        """The learner that there is, or the one that this target calls for."""
        if self._made is not None:
            return self._made
        kind = self.kind if classes is None else "classifier"
        return self.of_kind(kind or kind_of_target(X.y if isinstance(X, Batch) else y))

    def _keep(self, made: Native) -> None:
        """From now on it is this one, if it has learned anything: no row decides nothing."""
        if made._learned or len(made._labels):
            self._made = made

    def _ready(self) -> Any:
        if self._made is None and self.kind is not None:
            self._made = self.of_kind(self.kind)
        if self._made is None:
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(f"{self!r} has learned nothing, and does not know of what target")
        return self._made


def kind_of_target(y: Any) -> LearnerKind:
    """Whether values are classes or quantities."""
    if y is None:
        raise InputError("rows to learn have no target")
    values = np.asarray(y)
    values = target_of(values, len(values)) if values.ndim == 1 else values
    if values.dtype.kind not in "iuf":
        return "classifier"
    distinct = np.unique(values)
    if values.dtype.kind == "f":
        return "classifier" if set(distinct.tolist()) <= {0.0, 1.0} else "regressor"
    return "regressor" if len(distinct) > MANY_CLASSES else "classifier"
