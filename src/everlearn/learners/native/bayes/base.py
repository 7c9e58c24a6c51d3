"""What the naive Bayes learners share: states that are sums over rows, and so can be added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np

from everlearn.base import Array, Hashes, InputError, Ints, Part, SpecError, State
from everlearn.learners.labels import Labels
from everlearn.learners.native.classifier import Classifier
from everlearn.learners.native.loading import all_like
from everlearn.learners.native.rows import Rows, Shape

EVERY = np.zeros(0, np.int64)
"""The classes of rows that are only predicted."""


class NaiveBayes(Classifier):
    """A classifier that counts: its state is arrays with an axis of classes, or none."""

    class_axes: ClassVar[dict[str, int]]
    """Of each array that has one, the axis of classes."""
    derived: ClassVar[frozenset[str]] = frozenset()
    """Arrays that follow from the others; `_derive` makes them."""

    _state: dict[str, Array]
    """In the order in which the kernel takes them."""

    def merge(self, others: Sequence[Self]) -> Self:
        """A new one that has learned the rows of this one and those of the others.

        Raises:
            InputError: one of them is another learner, or has learned rows of other columns.
        """
        made = self.clone()
        taught = [learner for learner in (self, *others) if learner._shape is not None]
        if not taught:
            return made
        plans = {learner._plan() for learner in (self, *taught)}
        if len(plans) > 1:
            raise InputError(f"what is merged has other parameters: {sorted(plans)}")
        shapes = {learner._shape_with(2) for learner in taught}
        names = {tuple(learner._feature_names or ()) for learner in taught} - {()}
        if len(shapes) > 1 or len(names) > 1:
            raise InputError(
                f"what is merged has learned rows of other columns: {[*shapes, *names]}"
            )
        made._feature_names = [*names.pop()] if names else None
        for learner in taught:
            made._labels.extend(learner._labels.values)
        known = len(made._labels) or max(learner._outputs() for learner in taught)
        made._values = taught[0]._values
        made._index_classes()
        made._start(taught[0]._shape_with(max(2, known)), taught[0]._seed)
        for learner in taught:
            made._add(learner._state_for(made._labels, made._outputs()))
            made._learned += learner._learned
        made._derive()
        return made

    def _plan(self) -> str:
        """All that merged learners must have in common but for the classes that they are told."""
        params = self.get_params() | {"classes": None}
        return f"{type(self).__name__} {params}"

    def _add(self, state: dict[str, Array]) -> None:
        """Add what another has learned, whose classes have the same codes."""
        for name, array in state.items():
            if name not in self.derived:
                self._state[name] += array

    def _derive(self) -> None:
        """Make the arrays that follow from the others."""

    def _grow(self, outputs: int) -> None:
        for name, axis in self.class_axes.items():
            if name in self._state:
                codes = np.arange(self._outputs())
                self._state[name] = _spread(self._state[name], axis, codes, outputs)

    def _save(self) -> dict[str, Part]:
        return {"model": Part({name: array.copy() for name, array in self._state.items()})}

    def _load(self, state: State) -> None:
        self._state |= all_like(self._state, state["model"].arrays)

    def _shape_with(self, outputs: int) -> Shape:
        assert self._shape is not None
        fields = {name: getattr(self._shape, name) for name in Shape.__slots__}
        return Shape(**fields | {"outputs": outputs})

    def _state_for(self, labels: Labels, outputs: int) -> dict[str, Array]:
        """The state, with the codes of other labels for the classes."""
        codes = np.arange(self._outputs())
        if len(labels):
            codes = labels.encode(np.array(self._labels.values, object))
        state = dict(self._state)
        for name, axis in self.class_axes.items():
            if name in state:
                known = np.take(state[name], np.arange(len(codes)), axis)
                state[name] = _spread(known, axis, codes, outputs)
        return state


def _spread(array: Array, axis: int, codes: Ints, outputs: int) -> Array:
    """The array with what it says of its classes at these codes, and 0 of the others."""
    shape = list(array.shape)
    shape[axis] = outputs
    wider = np.zeros(shape, array.dtype)
    np.moveaxis(wider, axis, 0)[codes] = np.moveaxis(array, axis, 0)
    return wider


def kinds_of(tally: Array) -> Array:
    """(q,) buckets in use, of (q, b, k) counts."""
    kinds: Array = (tally.sum(axis=2) > 0.0).sum(axis=1).astype(np.float64)
    return kinds


def begin_buckets(columns: int, buckets: int, classes: int) -> dict[str, Array]:
    """The arrays of `Buckets`, of nothing."""
    return {
        "tally": np.zeros((columns, buckets, classes)),
        "known": np.zeros((columns, classes)),
        "kinds": np.zeros(columns),
    }


def with_calendar(rows: Rows) -> Hashes:
    """(n, q + 3r) categories, behind them the hour, the day of the week and the month (in twelfths
    of a year) of each time."""
    if rows.times.shape[1] == 0:
        return rows.categories
    steps = np.tile([24.0, 7.0, 12.0], rows.times.shape[1] // 3)
    places = np.floor(np.where(np.isnan(rows.times), -1.0, rows.times) * steps) + 1.0
    return np.hstack([rows.categories, np.maximum(places, 0.0).astype(np.uint64)])


def checked_alpha(alpha: float) -> float:
    """Raises `SpecError` for what is no weight to add."""
    return checked_number("alpha", alpha, 1e-10, 1e10)


def checked_number(name: str, value: float, lowest: float, highest: float) -> float:
    """Raises `SpecError` for what is no number in these bounds."""
    if not isinstance(value, int | float | np.number) or not lowest <= value <= highest:
        raise SpecError(f"{name}={value!r}; it takes a number from {lowest:g} to {highest:g}")
    return float(value)


def checked_whole(name: str, value: int, lowest: int, highest: int) -> int:
    """Raises `SpecError` for what is no whole number in these bounds."""
    if not isinstance(value, int | np.integer) or not lowest <= value <= highest:
        raise SpecError(f"{name}={value!r}; it takes a whole number from {lowest} to {highest}")
    return int(value)
