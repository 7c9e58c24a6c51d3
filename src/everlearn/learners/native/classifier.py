"""What all native classifiers share: classes that may appear late, codes, probabilities."""

from __future__ import annotations

from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np

from everlearn.base import Array, Batch, Floats, InputError, Ints, SpecError, State
from everlearn.learners.labels import Labels
from everlearn.learners.native.compile import kernel
from everlearn.learners.native.estimator import Native, blocks, first_learned, target_of
from everlearn.learners.native.rows import Rows, Shape, usable

FEW = 8
"""Up to this many classes that are numbers, codes are found by comparing with each."""


class _IfProbabilistic:
    """A method that is there only where `probabilistic` is true: `hasattr` tells."""

    def __init__(self, method: Any) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, instance: Any, kind: Any = None) -> Any:
        if instance is not None and not instance.probabilistic:
            raise AttributeError(f"{instance!r} has no probabilities")
        return self._method.__get__(instance, kind)


_Method = TypeVar("_Method")


def _if_probabilistic(method: _Method) -> _Method:
    return cast(_Method, _IfProbabilistic(method))


class Classifier(Native):
    """A native learner of classes. Before it has learned anything, all classes are as likely.

    Classes that were declared exist from the start; others from the row on at which they appear.
    A parameter `classes` lists them, or says how many there are: the codes 0 … k−1.
    """

    kind = "classifier"
    classes: Any = None
    probabilistic: bool = True
    """Whether what is predicted for a class is its probability; where not, a score."""
    _names: Array
    _order: Ints | None
    binary_in_one: ClassVar[bool] = False
    """Whether, of two classes, only the probability (or score) of code 1 is predicted, in one
    column; a score above 0 then means code 1."""

    @property
    def classes_(self) -> Array:
        """(k,) the classes that are known, sorted."""
        self._declare_once()
        return self._names if self._order is None else self._names[self._order]

    def predict(self, X: Any) -> Array:
        """(n_samples,) the most likely class of each row."""
        return self._named(self._out(X))

    @_if_probabilistic
    def predict_proba(self, X: Any) -> Floats:
        """(n_samples, n_classes) probabilities in the order of `classes_`."""
        return self._ordered(wide(self._out(X), len(self._labels)))

    def decision_function(self, X: Any) -> Floats:
        """(n_samples,) for two classes, positive for the second of `classes_`; for more,
        (n_samples, n_classes). Of a learner of probabilities, their logarithms or log-odds."""
        out = self._out(X)
        if out.shape[1] > 1:
            scores = np.log(np.maximum(out, 1e-300)) if self.probabilistic else out
            if len(self._labels) > 2:
                return self._ordered(scores[:, : len(self._labels)])
            second = scores[:, 1] - scores[:, 0]
        elif self.probabilistic:
            chance = np.clip(out[:, 0], 1e-300, 1.0 - 2.0**-53)
            second = np.log(chance) - np.log1p(-chance)
        else:
            second = out[:, 0]
        return second if self._order is None else -second

    def score_then_learn(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, proba: bool = False
    ) -> Array:
        """Predict each row, then learn it, before the next is predicted (prequentially).

        Args:
            X, y, sample_weight: as for `partial_fit`.
            proba: whether probabilities are wanted instead of classes.

        Returns:
            (n_samples,) classes, or (n_samples, n_classes) probabilities in the order of
            `classes_`; before the row at which a class appears, its probability is 0.
        """
        if proba and not self.probabilistic:
            raise AttributeError(f"{self!r} has no probabilities")
        out = self._taught(X, y, sample_weight, score=True)
        return self._ordered(wide(out, len(self._labels))) if proba else self._named(out)

    def learn_one(self, x: Floats, y: Any = None) -> Any:
        """Learn one (n_features,) row of a class; returns the class predicted for it before."""
        return self._named(self._taught(np.asarray(x)[None], [y], None, score=True))[0]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy."""
        return float(np.average(self.predict(X) == np.asarray(y), weights=sample_weight))

    # --- codes instead of values, for the fold as well -----------------------------------------

    def predict_codes(self, rows: Rows, known: int) -> Floats:
        """(n, max(known, 2)) probabilities or scores of codes, or one column (`binary_in_one`)."""
        if self._shape is None or self._learned == 0:
            return self._prior(len(rows), known)
        out = np.zeros((len(rows), self._columns(max(known, self._outputs()))))
        for start, stop in blocks(len(rows)):
            self._predict(rows.part(start, stop), out[start:stop])
        return out

    def learn_codes(
        self, rows: Rows, codes: Ints, weight: Floats, known: int, declared: int, score: int
    ) -> Floats:
        """Learn rows of class codes; (score, k) what was predicted before each of the first rows.

        Args:
            rows, codes, weight: n rows, (n,) codes below `known`, of any type of whole numbers,
                weights as for `_learn`.
            known: how many codes there are by the end of these rows.
            declared: how many codes there were before them.
            score: of how many rows predictions are wanted.
        """
        if self._shape is None:
            self._start(self._shape_of(rows, max(2, declared)), self._seed_or(0))
        first = self._learned == 0
        highest = int(codes.max(initial=0))
        room = max(known, self._outputs(), highest + 1)
        out = np.zeros((min(score, len(rows)), self._columns(room)))
        start = 0
        while start < len(rows):
            late = np.empty(0, np.int64)
            if highest >= self._outputs():
                late = np.flatnonzero(codes[start:] >= self._outputs())
            stop = start + int(late[0]) if len(late) else len(rows)
            part = weight[start:stop] if len(weight) else weight
            self._run(rows.part(start, stop), codes[start:stop], part, out[start:stop])
            if len(late):
                self._grow_to(int(codes[stop]) + 1)
            start = stop
        if first and len(out):
            unlearned = first_learned(weight, len(out))
            out[:unlearned] = self._prior(unlearned, known)
        return out

    def _prior(self, rows: int, known: int) -> Floats:
        columns = self._columns(max(known, 2))
        if not self.probabilistic:
            return np.zeros((rows, columns))
        if columns == 1:
            return np.full((rows, 1), 0.5)
        out = np.zeros((rows, columns))
        out[:, : max(known, 1)] = 1.0 / max(known, 1)
        return out

    def _columns(self, outputs: int) -> int:
        return 1 if self.binary_in_one and outputs == 2 else outputs

    def _grow_to(self, outputs: int) -> None:
        assert self._shape is not None
        self._grow(outputs)
        fields = {name: getattr(self._shape, name) for name in Shape.__slots__}
        self._shape = Shape(**fields | {"outputs": outputs})

    def _seed_or(self, other: int) -> int:
        return self.seed if self.seed is not None else other

    # --- values ---------------------------------------------------------------------------------

    def _declare(self, classes: Any) -> None:
        listed = _listed(classes)
        self._labels, self._values = Labels(listed.tolist()), _letter(listed)
        self._index_classes()

    def _declare_once(self) -> None:
        """Before the first row: the classes that the constructor was told of."""
        if self._shape is None and self.classes is not None and not len(self._labels):
            self._declare(self.classes)

    def _out(self, X: Any) -> Floats:
        self._check_names(X, learned=False)
        rows = self._rows(X)
        self._declare_once()
        if not len(self._labels):
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(
                f"{self!r} knows no classes: name them (classes=…), or learn first"
            )
        return self.predict_codes(rows, len(self._labels))

    def _taught(self, X: Any, y: Any, sample_weight: Any, score: bool) -> Floats:
        if isinstance(X, Batch):
            y, sample_weight = X.y, X.weight
        self._check_names(X, learned=True)
        rows = self._rows(X)
        y = target_of(y, len(rows))
        weight = self._weights(sample_weight, len(rows))
        self._declare_once()
        if not self._values and len(y):
            self._values = _letter(y)
        declared, first = len(self._labels), self._learned == 0
        codes = self._codes(y)
        known = len(self._labels)
        out = self.learn_codes(rows, codes, weight, known, declared, len(rows) if score else 0)
        if score and known > declared:
            self._hide_later(out, codes, declared, first_learned(weight, len(rows)) if first else 0)
        return out

    def _hide_later(self, out: Floats, codes: Ints, declared: int, unlearned: int) -> None:
        """Predict as if rows came one at a time: a class is unknown before its first row.

        Args:
            out: (n, k) what was predicted for rows of these (n,) codes.
            declared: how many codes were known before them.
            unlearned: of how many of them nothing had been learned.
        """
        newest = int(np.argmax(codes == codes.max()))
        before = codes[: max(newest, unlearned)]
        known = np.maximum(np.maximum.accumulate(before) + 1, declared)
        single = int(np.searchsorted(known, 2)) if len(self._labels) > 1 else len(codes)
        out[:single] = 0.0
        if out.shape[1] > 1:
            out[:single, 0] = 1.0
        elif not self.probabilistic:
            out[:single] = -1.0
        if not self.probabilistic:
            return
        for row in range(single, unlearned):
            count = int(known[row])
            out[row] = 0.0
            out[row, :count] = 1.0 / count

    def _codes(self, y: Array) -> Ints:
        """(n,) codes of values; values that were never seen get the next ones."""
        if y.dtype.kind in "biuf":
            codes = self._codes_of_two(y)
            if codes is None:
                codes = self._codes_of_numbers(y.astype(np.float64, order="C", copy=False))
            if codes is not None:
                return codes
        if y.dtype.kind in "US":
            y = y.astype(object)
        elif y.dtype.kind == "f":
            new = y[self._labels.encode(y) < 0]
            broken = new[np.isfinite(new) & (new % 1 != 0)]
            if len(broken):
                raise InputError(
                    f"Unknown label type: continuous. {broken[0]} is no class unless it is declared"
                    " (classes=…); for a quantity, use a regressor"
                )
        if self._labels.extend(y):
            self._index_classes()
        return self._labels.encode(y)

    def _codes_of_two(self, y: Array) -> Ints | None:
        """The same, a byte each, if two classes are known, numbers, and all values are of them:
        in a long stream, memory costs more than comparing."""
        if len(self._labels) != 2 or self._labels.is_text:
            return None
        first, second = (y == value for value in self._labels.values)
        return second.view(np.int8) if (first | second).all() else None

    def _codes_of_numbers(self, y: Floats) -> Ints | None:
        """The same in one pass, if there are few classes and all is well."""
        known = len(self._labels)
        if known > FEW or (known and self._labels.is_text):
            return None
        values, codes = np.zeros(FEW), np.empty(len(y), np.int64)
        values[:known] = self._labels.values
        found = _find_codes(usable(y, np.float64), values, known, codes)
        if found < 0:
            return None
        if found > known:
            self._labels.extend(values[known:found])
            self._index_classes()
        return codes

    def _named(self, out: Floats) -> Array:
        """(n,) classes of the largest of (n, k) scores, which are overwritten; the first of
        `classes_` among equals."""
        known = len(self._names)
        if known < 2:
            return self._names[np.zeros(len(out), np.int64)]
        if out.shape[1] == 1:
            middle = 0.5 if self.probabilistic else 0.0
            second = out[:, 0] > middle if self._order is None else out[:, 0] >= middle
            return _either(second, self._names, out[:, 0])
        if self._order is None:
            return self._names[chosen(out[:, :known], self.probabilistic)]
        codes: Ints = self._order[out[:, self._order].argmax(axis=1)]
        return self._names[codes]

    def _ordered(self, out: Floats) -> Floats:
        """(n, k) columns of codes in the order of `classes_`."""
        return out if self._order is None else out[:, self._order]

    def _index_classes(self) -> None:
        """Remember the classes in the order of their codes, and their order if it is another."""
        self._names, order = _as_written(self._labels, self._values), self._labels.order
        self._order = None if (order[:-1] < order[1:]).all() else order

    def _forget(self) -> None:
        super()._forget()
        self._names, self._order = np.empty(0), None

    def load(self, state: State) -> Self:
        """Become what `save` saw; the parameters stay those of this one.

        Raises:
            InputError: the state is of another learner, or broken. This one is then as new.
        """
        super().load(state)
        self._index_classes()
        return self


def _either(second: Array, names: Array, room: Floats) -> Array:
    """(n,) the second name where it is so, the first elsewhere; in the room of (n,) numbers that
    are not needed any more, where it fits: in a long stream, new memory costs more than to fill it.
    """
    if names.dtype not in (np.int64, np.float64):
        return np.asarray(np.where(second, names[1], names[0]))
    found: Array = room.view(names.dtype)
    found[:] = names[0]
    np.copyto(found, names[1], where=second)
    return found


def chosen(out: Floats, probabilistic: bool) -> Ints:
    """(n,) the code of the largest of (n, k) probabilities or scores; the lowest among equals."""
    if out.shape[1] == 1:
        return (out[:, 0] > (0.5 if probabilistic else 0.0)).astype(np.int64)
    if out.shape[1] == 2:
        return (out[:, 1] > out[:, 0]).astype(np.int64)
    return np.asarray(out.argmax(axis=1), np.int64)


def wide(out: Floats, known: int) -> Floats:
    """(n, known) probabilities out of (n, k) columns, or of one for code 1."""
    if known == 1:
        return np.ones((len(out), 1))
    if out.shape[1] == 1:
        return np.column_stack([1.0 - out, out])
    return out[:, :known]


@kernel
def _find_codes(y: Floats, values: Floats, known: int, codes: Ints) -> int:
    """Fill (n,) codes of numbers: their places among the known values, to which unseen whole
    numbers are added in order of appearance. Returns how many are known then; −1 for any other
    number, or where there is no room."""
    for i in range(y.shape[0]):
        code = -1
        for place in range(known):
            code = place if values[place] == y[i] else code
        if code < 0:
            if known == values.shape[0] or not np.isfinite(y[i]) or y[i] % 1.0 != 0.0:
                return -1
            values[known] = y[i]
            code = known
            known += 1
        codes[i] = code
    return known


def _listed(classes: Any) -> Array:
    """(k,) the classes that a parameter says.

    Raises:
        SpecError: it is no number of classes, and lists none.
    """
    if isinstance(classes, int | np.integer) and not isinstance(classes, bool) and classes >= 1:
        return np.arange(classes)
    try:
        if not isinstance(classes, str | bytes):
            return np.asarray(list(classes))
    except TypeError:
        pass
    raise SpecError(f"classes={classes!r}; it takes a whole number from 1, or a list of classes")


def _letter(classes: Array) -> str:
    """numpy's letter for how classes are written: of b, i, u and f, or O for texts."""
    return classes.dtype.kind if classes.dtype.kind in "biuf" else "O"


def _as_written(labels: Labels, letter: str) -> Array:
    """(k,) the values of labels; numbers as what the letter says, where they all fit."""
    if labels.is_text:
        return np.array(labels.values)
    numbers = np.array(labels.values, np.float64)
    if letter == "b" and set(labels.values) <= {0.0, 1.0}:
        return numbers.astype(np.bool_)
    whole = letter in "biu" and not (numbers % 1).any()
    return numbers.astype(np.int64) if whole else numbers
