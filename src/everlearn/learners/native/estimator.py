"""What every native learner is: an estimator by scikit-learn's conventions, over a kernel's state.

A learner says how its arrays begin, how rows are learned and predicted, and what its state is (the
methods of `Native` that begin with an underscore and do nothing here). All else is in this file:
parameters, classes, checks, blocks of rows, states.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np

from everlearn.base import (
    Array,
    Batch,
    Columns,
    Floats,
    InputError,
    LearnerKind,
    Part,
    SpecError,
    State,
)
from everlearn.learners.labels import Labels
from everlearn.learners.native.loading import shape_from
from everlearn.learners.native.parameters import Parameters
from everlearn.learners.native.rows import (
    Rows,
    Shape,
    Times,
    numbers_of,
    rows_of_batch,
    rows_of_matrix,
)

BLOCK = 65_536
"""Rows that are handed to a kernel at a time: what it writes for them stays in the cache."""

HEAVIEST = 1e50
"""Weights of rows are limited to this, so that their sums are finite."""

LIGHTEST = 1e-290
"""Weights above 0 are at least this, so that what is divided by their sums is finite."""

_EVERY_ROW = np.empty(0)

_BROKEN = (
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)
"""What comes of a state that was not saved by this learner."""

_NUMBER = (bool, int, float, np.number, np.bool_)


class Native(Parameters):
    """A learner of this package: state in arrays, learned row by row, the same in any chunks.

    Deterministic; not safe for use by two threads at once. `seed=None` is 0, or the strategy's seed
    inside a model. Everything learned is in `save()`.
    """

    per_row: bool = True
    """Predicts and learns row by row, so that chunks make no difference."""
    kind: ClassVar[LearnerKind]
    times: ClassVar[Times] = "phases"
    """How it wants times."""
    takes_sparse: ClassVar[bool] = False
    """Whether it takes sparse matrices."""
    takes_categories: ClassVar[bool] = True
    """Whether it takes categories (`nominal` columns)."""

    nominal: tuple[int, ...] = ()
    seed: int | None = None
    _feature_names: list[str] | None

    # --- what a learner says of itself ---------------------------------------------------------

    @abstractmethod
    def _begin(self, shape: Shape, seed: int) -> None:
        """Make the state of having learned nothing. Raises `SpecError` for wrong parameters."""

    @abstractmethod
    def _learn(self, rows: Rows, y: Array, weight: Floats, out: Floats) -> None:
        """Learn rows in their order.

        Args:
            rows: n rows.
            y: (n,) int64 codes of a classifier, float64 values of a regressor; (0,) without target.
            weight: (n,) float64 above or equal to 0, where 0 is not to be learned; (0,) where all
                weigh 1.
            out: (m, k) to fill, m ≤ n: what is predicted for each of the first m rows just before
                it is learned, as `_predict` does. The first `outputs` columns are written.
        """

    @abstractmethod
    def _predict(self, rows: Rows, out: Floats) -> None:
        """Fill (n, k) with one probability (or score) a class, or with the value in column 0."""

    @abstractmethod
    def _save(self) -> dict[str, Part]:
        """The state. Its arrays must not change when learning goes on: copies."""

    @abstractmethod
    def _load(self, state: State) -> None:
        """Take over a state after `_begin`. Raises `InputError` or `KeyError` on another's, and on
        one that would lead a kernel out of its arrays."""

    def _grow(self, outputs: int) -> None:
        """Make room for more classes, of which nothing was learned."""
        raise NotImplementedError

    def for_columns(self, columns: Columns) -> Self:
        """The definition for a model of these columns: this one, or one with places for names.

        Raises:
            SpecError: it names a column that there is not.
        """
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

        kind = self.kind if self.kind in ("classifier", "regressor") else None
        return Tags(
            estimator_type=kind,
            target_tags=TargetTags(required=kind is not None),
            classifier_tags=ClassifierTags() if kind == "classifier" else None,
            regressor_tags=RegressorTags() if kind == "regressor" else None,
            input_tags=InputTags(sparse=self.takes_sparse, allow_nan=True),
            requires_fit=False,
        )

    def __sklearn_is_fitted__(self) -> bool:
        return self._shape is not None

    @property
    def n_features_in_(self) -> int:
        """How many columns the rows have that were learned."""
        if self._shape is None or self._shape.sparse:
            raise AttributeError("there is no number of columns")
        return self._shape.numbers + self._shape.times + self._shape.categories

    @property
    def feature_names_in_(self) -> Array:
        """(n_features,) names of the columns, if a data frame was learned."""
        if self._feature_names is None:
            raise AttributeError("the columns have no names")
        return np.array(self._feature_names, object)

    # --- learning ------------------------------------------------------------------------------

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> Self:
        """Learn rows, one after the other.

        Args:
            X: (n_samples, n_features) numbers, NaN where missing; or a `Batch`.
            y: (n_samples,) targets; None for a batch, and where there is no target.
            classes: taken as the constructor's, before anything was learned.
            sample_weight: (n_samples,) numbers from 0; 0 is not learned, and others are taken as
                from 1e-290 to 1e50.

        Raises:
            InputError: shapes that do not fit, targets that are missing or not finite.
        """
        if classes is not None and self._shape is None:
            self._declare(classes)
        self._taught(X, y, sample_weight, score=False)
        return self

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Forget all, then `partial_fit`. Raises `InputError` if there is no row to learn, too."""
        self._forget()
        self.partial_fit(X, y, sample_weight=sample_weight)
        if self._learned == 0:
            raise InputError("there is no row to learn, or sample_weight is zero in every row")
        return self

    def learn_one(self, x: Floats, y: Any = None) -> Any:
        """Learn one (n_features,) row; returns what was predicted for it before."""
        return self._taught(np.asarray(x)[None], None if y is None else [y], None, score=True)[0]

    def save(self) -> State:
        """All that was learned, generators and classes included, as named parts."""
        if self._shape is None:
            return {"native": Part(meta={"learner": type(self).__name__, "begun": False})}
        shape = {name: getattr(self._shape, name) for name in Shape.__slots__}
        meta = {"learner": type(self).__name__, "begun": True, "shape": shape}
        meta |= {"learned": self._learned, "seed": self._seed}
        meta |= {"classes": list(self._labels.values), "values": self._values}
        meta |= {"names": self._feature_names}
        return {"native": Part(meta=meta), **self._save()}

    def load(self, state: State) -> Self:
        """Become what `save` saw; the parameters stay those of this one.

        Raises:
            InputError: the state is of another learner, or broken. This one is then as new.
        """
        meta = state["native"].meta if "native" in state else {}
        head = meta if isinstance(meta, dict) else {}
        if head.get("learner") != type(self).__name__:
            raise InputError(f"the state is of {head.get('learner')}, not {type(self).__name__}")
        self._forget()
        try:
            if head["begun"]:
                self._start_again(head["shape"], int(head["seed"]))
                self._load({name: part for name, part in state.items() if name != "native"})
                self._learned, self._values = int(head["learned"]), str(head["values"])
                self._labels, self._feature_names = Labels(head["classes"]), head["names"]
        except _BROKEN as error:
            self._forget()
            raise InputError(f"the state of {type(self).__name__} is broken: {error!r}") from error
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"params": self.get_params(deep=False), "state": dict(self.save())}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """A copy, of this process or another, has arrays of its own that can be written to."""
        made = type(self)(**saved["params"]).load(saved["state"])
        vars(self).update(vars(made))

    # --- inside --------------------------------------------------------------------------------

    def _forget(self) -> None:
        """Become one that has learned nothing."""
        self._shape: Shape | None = None
        self._learned = 0  # rows of some weight
        self._seed = 0
        self._labels = Labels()
        self._values = ""  # numpy's letter for how the classes were written
        self._feature_names = None

    def _start(self, shape: Shape, seed: int) -> None:
        self._begin(shape, seed)
        self._shape, self._seed = shape, seed

    def _start_again(self, said: Any, seed: int) -> None:
        """Become what a state's shape says. Its classes may have come late: so they do here, for
        where memory is bounded, fewer can be begun with than may come."""
        classifies = self.kind == "classifier"
        shape = shape_from(said, 2 if classifies else 1)
        self._start(replace(shape, outputs=2) if classifies else shape, seed)
        if classifies and shape.outputs > 2:
            self._grow(shape.outputs)
            self._shape = shape

    def _declare(self, classes: Any) -> None:
        """Take classes as known, before anything was learned."""
        raise InputError(f"{type(self).__name__} has no classes")

    def _outputs(self) -> int:
        return self._shape.outputs if self._shape is not None else 1

    def _taught(self, X: Any, y: Any, sample_weight: Any, score: bool) -> Any:
        """Learn; with `score`, what was predicted for each row before, as `_answers` gives it."""
        raise NotImplementedError

    def _rows(self, X: Any) -> Rows:
        """What the kernel gets, checked against what it was begun with."""
        if isinstance(X, Batch):
            rows = rows_of_batch(X, self.times)
        else:
            rows = rows_of_matrix(X, self._nominal())
        self._check(rows)
        return rows

    def _nominal(self) -> tuple[int, ...]:
        """The columns of a matrix that are categories. Raises `SpecError` for what lists none."""
        try:
            return tuple(self.nominal)
        except TypeError:
            raise SpecError(
                f"nominal={self.nominal!r}; it takes a list of columns by their places, such as"
                " nominal=(2,), and () for none"
            ) from None

    def _check_names(self, X: Any, learned: bool) -> None:
        """Refuse a data frame whose columns have other names, or another order, than one that was
        learned; with `learned`, its names are those of frames to come."""
        names = list(getattr(X, "columns", ()))
        if not names or not all(isinstance(name, str) for name in names):
            return
        if learned and self._learned == 0:
            self._feature_names = names
        if self._feature_names is not None and names != self._feature_names:
            raise InputError(
                f"the columns are {names}, and {type(self).__name__} has learned"
                f" {self._feature_names}; hand them over in that order"
            )

    def _check(self, rows: Rows) -> None:
        sparse = len(rows.starts) > 0
        if sparse and not self.takes_sparse:
            raise InputError(f"{type(self).__name__} takes no sparse matrix")
        if rows.categories.shape[1] and not self.takes_categories:
            raise InputError(f"{type(self).__name__} takes no categories; leave such columns out")
        shape = self._shape
        if shape is None:
            return
        name = type(self).__name__
        if sparse != shape.sparse:
            learned, given = ("sparse", "dense") if shape.sparse else ("dense", "sparse")
            raise InputError(f"{name} has learned {learned} rows; these are {given}")
        found = (rows.numbers.shape[1], rows.times.shape[1], rows.categories.shape[1])
        expected = (shape.numbers, shape.times, shape.categories)
        if found != expected:
            kinds = "numbers, columns made of times, and categories"
            raise InputError(
                f"X has {sum(found)} features, but {name} is expecting {sum(expected)} features as"
                f" input ({kinds}: {found}, not {expected})"
            )

    def _shape_of(self, rows: Rows, outputs: int) -> Shape:
        return Shape(
            numbers=rows.numbers.shape[1],
            times=rows.times.shape[1],
            categories=rows.categories.shape[1],
            sparse=len(rows.starts) > 0,
            outputs=outputs,
        )

    def _weights(self, weight: Any, rows: int) -> Floats:
        """(n,) weights, or (0,) where all weigh 1."""
        if weight is None or rows == 0:
            return _EVERY_ROW
        weight = np.ascontiguousarray(numbers_of(weight, "sample_weight"))
        if weight.shape != (rows,):
            raise InputError(f"sample_weight has shape {weight.shape}, expected ({rows},)")
        if not (np.isfinite(weight).all() and (weight >= 0).all()):
            wrong = weight[~(np.isfinite(weight) & (weight >= 0))][0]
            raise InputError(f"a row's weight is a finite number from 0, not {wrong}")
        if (weight == 1.0).all():
            return _EVERY_ROW
        return np.where(weight > 0.0, np.clip(weight, LIGHTEST, HEAVIEST), 0.0)

    def _run(self, rows: Rows, y: Array, weight: Floats, out: Floats) -> None:
        """Learn all rows in blocks, and count them."""
        for start, stop in blocks(len(rows)):
            target = y[start:stop] if len(y) else y
            self._learn(
                rows.part(start, stop),
                target.astype(np.int64) if target.dtype == np.int8 else target,
                weight[start:stop] if len(weight) else weight,
                out[start:stop],
            )
        self._learned += len(rows) if len(weight) == 0 else int(np.count_nonzero(weight))


def blocks(rows: int) -> Iterator[tuple[int, int]]:
    """Begin and end of consecutive blocks."""
    for start in range(0, rows, BLOCK):
        yield start, min(rows, start + BLOCK)


def first_learned(weight: Floats, rows: int) -> int:
    """How many rows there are up to the first one that weighs anything, that one included."""
    if len(weight) == 0:
        return min(1, rows)
    learned = np.flatnonzero(weight)
    return min(int(learned[0]) + 1 if len(learned) else rows, rows)


def target_of(y: Any, rows: int) -> Array:
    if y is None:
        raise InputError("learning requires y to be passed, but the target y is None")
    targets: Array = np.asarray(y)
    if targets.dtype.kind == "O" and all(isinstance(item, _NUMBER) for item in targets.flat):
        targets = np.array(targets.tolist())
    if targets.shape != (rows,):
        raise InputError(f"y has shape {targets.shape}, expected ({rows},)")
    return targets
