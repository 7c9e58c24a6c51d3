"""What all linear models share: how their state begins, grows, is saved, and is read."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np

from everlearn.base import Array, Floats, Hashes, InputError, Ints, Json, Part, SpecError, State
from everlearn.learners.native.classifier import Classifier
from everlearn.learners.native.descent.averaging import average
from everlearn.learners.native.descent.held import HeldWeights
from everlearn.learners.native.descent.kernels import catch_up, learn, learn_one, predict
from everlearn.learners.native.descent.losses import POISSON
from everlearn.learners.native.descent.optimizers import MEMORIES, SGD
from everlearn.learners.native.descent.state import (
    CLIP,
    HEAD,
    LOSS,
    MEMORY,
    OPTIMIZER,
    ROWS,
    STANDARDIZE,
    Model,
    empty_block,
    empty_table,
    views,
)
from everlearn.learners.native.descent.weights import (
    intercepts,
    memories,
    per_class,
    restore,
    slopes,
)
from everlearn.learners.native.estimator import Native
from everlearn.learners.native.regressor import Regressor
from everlearn.learners.native.rows import Rows, Shape

Quick = tuple[tuple[int, ...], dict[str | float, float], list[Any], float]
"""The shape of a row, the code of each class, the class of each code, and the score above which the
second code is the answer."""


class LinearModel(Native):
    """A learner whose scores are sums of weights times columns."""

    times = "waves"
    takes_sparse: ClassVar[bool] = True
    standardize: bool
    clip: float
    bits: int

    _block: Floats
    _table: Floats
    _one: tuple[int, ...] | None = None
    """The shape of an array that is a row, if rows are nothing but numbers and have one score."""
    held: HeldWeights | None = None
    """What its weights are held to while it learns, if anything. It has a state of its own."""
    _quick: Quick | None = None
    """What a classifier's `learn_one` needs; None after anything that it depends on has changed."""

    @abstractmethod
    def _settings(self) -> dict[int, float]:
        """Parameters at their places in the head. Raises `SpecError` for wrong ones."""

    @property
    def coef_(self) -> Floats:
        """Weights in the units of X: (k, n) of a classifier (one row for two classes), (n,) of a
        regressor, where n are the numbers, the sines and cosines of times, or, of sparse rows, the
        slots of the table."""
        model = self._settled()
        if self._shape is not None and self._shape.sparse:
            return self._as_asked(model.table[:, : len(model.weights)].T.copy())
        return self._as_asked(slopes(model))

    @property
    def intercept_(self) -> Floats:
        """(k,) of a classifier, (1,) of a regressor: the score where all of X is 0."""
        model = self._settled()
        return np.atleast_1d(self._as_asked(intercepts(model)))

    def merge(self, others: Sequence[Self]) -> Self:
        """A new one whose scores are the average of this one's and the others', weighted by the
        rows that each has learned.

        Raises:
            InputError: their parameters differ, or the columns of the rows that they have learned.
        """
        made = self.clone()
        taught = [one for one in (self, *others) if one._shape is not None and one._learned]
        if not taught:
            return made
        params = {repr(one) for one in taught}
        shapes = {one._shape_with(1) for one in taught}
        names = {tuple(one._feature_names or ()) for one in taught} - {()}
        if len(params) > 1 or len(shapes) > 1 or len(names) > 1:
            raise InputError(
                f"what is merged differs in parameters or columns: {params} {shapes} {names}"
            )
        made._start(taught[0]._shape_with(made._take_classes(taught)), taught[0]._seed)
        models, codes = [one._settled() for one in taught], [made._codes_of(one) for one in taught]
        average(models, codes, views(made._block, made._table))
        made._learned = sum(one._learned for one in taught)
        made._feature_names = [*names.pop()] if names else None
        return made

    def _take_classes(self, taught: Sequence[Self]) -> int:
        """Know the classes that others know; returns the outputs that there are then."""
        return 1

    def _codes_of(self, other: Self) -> Ints:
        """The codes that another's classes have in this one."""
        return np.empty(0, np.int64)

    def _as_asked(self, scores: Floats) -> Floats:
        """(k, …) of codes as the attribute of an estimator."""
        return scores

    def _shape_with(self, outputs: int) -> Shape:
        assert self._shape is not None
        return replace(self._shape, outputs=outputs)

    def _settled(self) -> Model:
        """The state, with all penalties applied."""
        if self._shape is None:
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(f"{self!r} has learned nothing")
        block, table = self._block.copy(), self._table.copy()
        catch_up(block, table)
        return views(block, table)

    # --- the state ------------------------------------------------------------------------------

    def _begin(self, shape: Shape, seed: int) -> None:
        settings = self._settings() | {STANDARDIZE: float(self.standardize), CLIP: math.inf}
        if self.standardize:
            settings[CLIP] = number(self, "clip", 0.0, 1e6)
        if not isinstance(self.bits, int) or not 1 <= self.bits <= 30:
            raise SpecError(f"bits={self.bits!r}; it takes a whole number from 1 to 30")
        self._block, self._table = self._blank(shape, settings)
        plain = not (shape.times or shape.categories or shape.sparse) and shape.outputs < 3
        self._one = (shape.numbers,) if plain else None

    def _blank(self, shape: Shape, settings: dict[int, float]) -> tuple[Floats, Floats]:
        """Block and table of a model that has learned nothing."""
        scores = 1 if shape.outputs == 2 else shape.outputs
        memory = MEMORIES[int(settings.get(OPTIMIZER, SGD))]
        block = empty_block(shape.numbers, shape.times, scores, memory)
        for place, setting in settings.items():
            block[place] = setting
        hashed = 2**self.bits if shape.sparse or shape.categories else 0
        table = empty_table(shape.numbers + hashed, scores, memory)
        if not self.standardize:
            views(block, table).inverse[:] = 1.0
        return block, table

    def _learn(self, rows: Rows, y: Array, weight: Floats, out: Floats) -> None:
        values = y.astype(np.float64, copy=False)
        if self.held is not None:
            self.held.learn(_arrays(rows), values, weight, self._block, self._table, out)
        else:
            learn(*_arrays(rows), values, weight, self._block, self._table, out)

    def _predict(self, rows: Rows, out: Floats) -> None:
        predict(*_arrays(rows), self._block, self._table, out)

    def _save(self) -> dict[str, Part]:
        model = views(self._block, self._table)
        used = np.flatnonzero(_any(self._table))
        arrays = {name: getattr(model, name).copy() for name in _SAVED}
        arrays |= {"progress": model.head[ROWS:].copy()}
        arrays |= {"places": used, "records": self._table[used]}
        return {"model": Part(arrays, self._form())}

    def _form(self) -> dict[str, Json]:
        """The parameters without which the numbers of a state say nothing."""
        head = self._block
        return {
            "optimizer": int(head[OPTIMIZER]),
            "logarithms": bool(head[LOSS] == POISSON),
            "standardize": bool(head[STANDARDIZE]),
        }

    def _load(self, state: State) -> None:
        if state["model"].meta != self._form():
            raise InputError(f"it is for {state['model'].meta}, not {self._form()}")
        arrays = state["model"].arrays
        model = views(self._block, self._table)
        for name in _SAVED:
            _fill(getattr(model, name), arrays[name], name)
        _fill(model.head[ROWS:], arrays["progress"], "progress")
        places, records = arrays["places"], arrays["records"]
        if len(places) and not 0 <= places.min() <= places.max() < len(self._table):
            raise InputError(f"records at {places.max()}, but bits={self.bits!r}")
        if records.shape != (len(places), self._table.shape[1]):
            raise InputError(f"records have shape {records.shape}")
        self._table[places] = records

    def _grow(self, outputs: int) -> None:
        """One score becomes a score for each class, of which the second is that much above the
        first; scores of new classes are 0."""
        self._one = self._quick = None
        catch_up(self._block, self._table)
        old = views(self._block, self._table)
        settings = {place: float(old.head[place]) for place in range(MEMORY + 1, HEAD)}
        self._block, self._table = self._blank(self._shape_with(outputs), settings)
        new = views(self._block, self._table)
        for name in ("present", "mean", "spread", "inverse"):
            getattr(new, name)[:] = getattr(old, name)
        for mine, theirs in zip(memories(new), memories(old), strict=True):
            known = per_class(theirs, int(old.head[OPTIMIZER]))
            for array, given in zip(mine, known, strict=True):
                array[: len(given)] = given
        restore(new)
        new.table[:, -1] = old.table[:, -1]
        if self.held is not None:
            self.held.grow(new)

    def _is_one(self, x: Any) -> bool:
        """Whether x is a row that the kernel takes as it is."""
        return bool(
            type(x) is np.ndarray
            and x.shape == self._one
            and x.dtype is _FLOAT
            and x.flags.carray
            and self._learned > 0
        )


def _any(table: Floats) -> Array:
    """(rows,) whether a row holds any number but 0: `table.any(axis=1)`, which takes ten times as
    long for rows this short."""
    used: Array = table[:, 0] != 0.0
    for column in table.T[1:]:
        used |= column != 0.0
    return used


_FLOAT = np.dtype(np.float64)

_SAVED = ("present", "mean", "spread", "inverse", "weights", "first", "second")


class LinearClassifier(LinearModel, Classifier):
    """A linear model of classes; of two, one score decides."""

    binary_in_one = True

    _places: dict[str | float, float]
    """The code of each class, as the kernel takes it."""

    def learn_one(self, x: Floats, y: Any = None) -> Any:
        """Learn one (n_features,) row of a class; returns the class predicted for it before."""
        quick = self._quick
        if quick is not None and type(x) is np.ndarray and x.dtype is _FLOAT and x.flags.carray:
            shape, places, names, middle = quick
            try:
                code = places.get(y)
            except TypeError:  # not hashable, so it is no class
                code = None
            if code is not None and x.shape == shape:
                answer = learn_one(x, code, self._block, self._table)
                self._learned += 1
                return names[answer > middle]
        found = super().learn_one(x, y)
        self._quick = self._ways()
        return found

    def _ways(self) -> Quick | None:
        """What learning one row of numbers needs to know, once two classes are known."""
        if self._one is None or len(self._places) != 2 or self._learned == 0:
            return None
        middle = 0.5 if self.probabilistic else 0.0
        if self._order is not None:  # of two that are as likely, the second code comes first
            middle = math.nextafter(middle, -math.inf)
        return self._one, self._places, list(self._names), middle

    def _take_classes(self, taught: Sequence[Self]) -> int:
        self._values = taught[0]._values
        for one in taught:
            self._labels.extend(one._labels.values)
        self._index_classes()
        return max(2, len(self._labels) or max(one._outputs() for one in taught))

    def _codes_of(self, other: Self) -> Ints:
        if not len(self._labels):  # the fold knows the classes by their codes
            return np.arange(other._outputs())
        codes = self._labels.encode(_of_values(other._labels.values))
        if len(codes) == 1 and len(self._labels) <= 2:
            return np.append(codes, 1 - codes)
        return codes

    def _index_classes(self) -> None:
        super()._index_classes()
        self._places = {value: float(code) for code, value in enumerate(self._labels.values)}
        self._quick = None

    def _forget(self) -> None:
        super()._forget()
        self._places, self._quick = {}, None

    def _as_asked(self, scores: Floats) -> Floats:
        if self._order is None:
            return scores
        return scores[self._order] if len(scores) > 1 else -scores


class LinearRegressor(LinearModel, Regressor):
    """A linear model of a quantity."""

    def learn_one(self, x: Floats, y: Any = None) -> Any:
        """Learn one (n_features,) row; returns the value predicted for it before."""
        if type(y) is not float or not self._is_one(x) or not self._takes(y):
            return super().learn_one(x, y)
        answer = learn_one(x, y, self._block, self._table)
        self._learned += 1
        return answer

    def _takes(self, y: float) -> bool:
        """Whether y can be a target."""
        return math.isfinite(y)

    def _as_asked(self, scores: Floats) -> Floats:
        return np.asarray(scores[0])


def _of_values(values: Sequence[str | float]) -> Array:
    """Values of classes as an array that `Labels` takes."""
    return np.array(values, object if isinstance(values[0], str) else np.float64)


def _arrays(rows: Rows) -> tuple[Floats, Floats, Hashes, Ints, Ints, Floats]:
    return rows.numbers, rows.times, rows.categories, rows.starts, rows.places, rows.values


def _fill(mine: Floats, given: Array, name: str) -> None:
    if given.shape != mine.shape:
        raise InputError(f"{name} has shape {given.shape}, not {mine.shape}")
    mine[:] = given


# --- parameters ---------------------------------------------------------------------------------


def number(owner: Any, name: str, above: float, most: float, *, least: bool = False) -> float:
    """A parameter that is a number above a bound, or, with `least`, from it on, up to `most`."""
    value = getattr(owner, name)
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if is_number and (above <= value if least else above < value) and value <= most:
        return float(value)
    bound = "from" if least else "above"
    raise SpecError(f"{name}={value!r}; it takes a number {bound} {above:g} up to {most:g}")


def choice(owner: Any, name: str, allowed: dict[str, int]) -> int:
    """The code of a parameter that is one of some words."""
    value = getattr(owner, name)
    if not isinstance(value, str) or value not in allowed:
        raise SpecError(f"{name}={value!r}; it is one of {', '.join(allowed)}")
    return allowed[value]
