"""River's estimators as learners, row by row."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from everlearn.base import (
    MISSING_CATEGORY,
    NO_TIME,
    Batch,
    Columns,
    Floats,
    InputError,
    LearnerKind,
    MissingDependencyError,
    Part,
    Prediction,
    SpecError,
    State,
)
from everlearn.learners.checks import check_weight, checked_target
from everlearn.learners.encoder import MONDAY, PERIODS
from everlearn.learners.objects import Given, Library, dump
from everlearn.learners.objects_made import restore

try:
    from river import base
except ImportError as error:  # pragma: no cover
    raise MissingDependencyError("River needs river: pip install everlearn[river]") from error

LIBRARY = Library(
    "river",
    without=(
        *("api", "bandit.datasets", "checks", "datasets", "drift.datasets", "evaluate", "sketch"),
        "stream",
    ),
    called=("river._river_rust.vectordict:VectorDict",),
    idle=("proba",),
)
SEEDS = ("seed", "random_state")
PLACES = ("day", "week", "year")


@dataclass(frozen=True, eq=False)
class River:
    """Any classifier, regressor, clusterer or anomaly detector of River (Montiel et al. 2021,
    "River: machine learning for streaming data in Python"), or a pipeline of its parts.

    Rows are learned one after the other, each predicted just before, so that chunks make no
    difference. A row is a dict: numbers by the name of their column; a category as the text of its
    hash, so that it is neither a number nor the value itself; of a time, its place in the day, the
    week and the year, from 0 to 1, as "name:day", "name:week" and "name:year". What is missing is
    not in the dict. A classifier sees class codes, 0, 1, …; what an anomaly detector predicts is
    its score.

    Args:
        estimator: its parameters count, not what it has learned. Where a seed is None, also deep
            inside of it, the strategy's takes its place.

    Raises:
        SpecError: it is no estimator of River.
        MissingDependencyError: River is not installed.

    Example:
        >>> from river import linear_model, preprocessing
        >>> River(preprocessing.StandardScaler() | linear_model.LogisticRegression()).kind_for(
        ...     Columns(numbers=("x",))
        ... )
        'classifier'
    """

    estimator: Any

    def __post_init__(self) -> None:
        if not isinstance(self.estimator, base.Estimator):
            raise SpecError(f"River(estimator=) is one of River's, not {self.estimator!r}")
        _kind(self.estimator)

    def kind_for(self, columns: Columns, classes: int = 0) -> LearnerKind:
        """What it predicts."""
        return _kind(self.estimator)

    def make_learner(self, columns: Columns, *, classes: int = 0, seed: int = 0) -> RiverLearner:
        """A learner that has learned nothing.

        Raises:
            SpecError: it cannot learn rows of these columns, or cannot be saved.
        """
        learner = RiverLearner(self, columns, classes=classes, seed=seed)
        RiverLearner(self, columns, classes=2, seed=seed).try_out()
        return learner


def definition_of(estimator: Any) -> River:
    """What stands for an estimator of River where no definition does."""
    return River(estimator)


class RiverLearner:
    """An estimator of River in a model.

    Args:
        definition: what is copied; nothing that it has learned is.
        columns: what batches hold.
        classes: how many class codes are known beforehand.
        seed: in place of every seed that is None.
    """

    per_row = True

    def __init__(
        self, definition: River, columns: Columns, *, classes: int = 0, seed: int = 0
    ) -> None:
        self.kind = definition.kind_for(columns, classes)
        self._definition, self._columns, self._seed = definition, columns, seed
        self._rows = self._classes = 0
        self._begin()
        self.grow(classes)

    @property
    def estimator(self) -> Any:
        """What learns, as it stands; do not change it."""
        return self._estimator

    def predict(self, batch: Batch) -> Prediction:
        """Predict for every row; changes nothing.

        Raises:
            InputError: the rows have other columns, or values that the estimator does not take.
        """
        if not self._rows:
            self._check(batch)
            return self._answered([None] * len(batch))
        return self._answered([self._told(x) for x in self._dicts(batch)])

    def learn(self, batch: Batch, score: int = 0) -> Prediction | None:
        """Learn row by row; what is returned was predicted just before each row was learned.

        Rows of weight 0 are not learned.

        Raises:
            InputError: other columns, class codes that there are not, a target that is not finite,
                weights where the estimator takes none. Where a value is one that the estimator does
                not take, the rows before it were learned; this learner is then not to be used.
        """
        targets, weights = self._targets(batch), self._weights(batch)
        told: list[Any] = []
        for number, x in enumerate(self._dicts(batch)):
            if number < score:
                told.append(self._told(x) if self._rows else None)
            weight = 1.0 if weights is None else weights[number]
            if weight > 0:
                self._learn(x, targets[number] if targets else None, weight)
                self._rows += 1
        return self._answered(told) if score else None

    def grow(self, classes: int) -> bool:
        """Make room for codes 0 … classes−1; an estimator for two classes has no more."""
        if self.kind != "classifier" or (classes > 2 and not self._many):
            return False
        self._classes = max(self._classes, classes)
        return True

    def save(self) -> State:
        """The whole estimator, generators included, and what it was made from."""
        return {
            "estimator": dump(self._estimator, LIBRARY, self._given),
            "known": Part(
                meta={
                    "classes": self._classes,
                    "columns": self._named(),
                    "made of": described(self._definition.estimator),
                    "rows": self._rows,
                    "seed": self._seed,
                }
            ),
        }

    def load(self, state: State) -> None:
        """Become what `save` saw.

        Raises:
            InputError: the state is of another estimator or of other columns, saying which, or is
                broken.
        """
        if set(state) != {"estimator", "known"} or "made of" not in state["known"].meta:
            raise InputError(f"the state has parts {sorted(state)[:5]}; it is of none of River's")
        known = state["known"].meta
        ours = {"made of": described(self._definition.estimator), "columns": self._named()}
        for name, value in ours.items():
            if known.get(name) != value:
                raise InputError(f"the state is of {_apart(known.get(name), value)}")
        try:
            counts = [int(known[name]) for name in ("classes", "rows", "seed")]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the state is broken: {error!r}") from error
        self._estimator = restore(
            state["estimator"], type(self._definition.estimator), LIBRARY, self._given
        )
        self._classes, self._rows, self._seed = counts

    def try_out(self) -> None:
        """Learn two rows and save, so that what would fail later is refused beforehand.

        Raises:
            SpecError: it fails.
        """
        columns = self._columns
        rows = Batch(
            numbers=np.array([[0.25], [0.75]]) * np.ones(len(columns.numbers)),
            categories=np.array([[1], [2]], np.uint64)
            * np.ones(len(columns.categories), np.uint64),
            times=np.array([[0], [1]]) * np.ones(len(columns.times), np.int64),
            y=np.array([0, 1]) if self.kind == "classifier" else np.array([1.0, 2.0]),
            ids=np.arange(2).astype(np.uint64),
        )
        name = type(self._definition.estimator).__name__
        try:
            self.learn(rows)
            self.predict(rows)
        except InputError as error:
            if isinstance(error.__cause__, TypeError | AttributeError):
                hint = ""
                if columns.categories:
                    hint = (
                        "; categories are texts: begin with compose.SelectType(float), or encode"
                        " compose.SelectType(str) beside it"
                    )
                raise SpecError(f"{name} cannot learn such rows: {error}{hint}") from error
        try:
            self.save()
        except SpecError as error:
            raise SpecError(f"{name}: {error}") from error

    # --- the estimator ---

    def _begin(self) -> None:
        """A fresh estimator, and how it learns and answers."""
        fresh = seeded(self._definition.estimator, np.random.SeedSequence(self._seed))
        self._given = Given(fresh, LIBRARY)
        self._estimator = fresh
        last = _last(fresh)
        self._many = self.kind == "classifier" and bool(last._multiclass)
        self._supervised = bool(getattr(last, "_supervised", True))
        self._weighs = _takes_weight(last)
        self._has_proba = self.kind == "classifier" and _has_proba(fresh)

    def _learn(self, x: dict[str, Any], y: Any, weight: float) -> None:
        more = {"w": weight} if weight != 1.0 else {}
        try:
            if self._supervised:
                self._estimator.learn_one(x, y, **more)
            else:
                self._estimator.learn_one(x, **more)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of Rust is no Exception
            raise InputError(self._explained("learn", x, error)) from error

    def _told(self, x: dict[str, Any]) -> Any:
        """What the estimator says of a row."""
        try:
            if self._has_proba:
                return self._estimator.predict_proba_one(x)
            if self.kind == "transformer":
                return self._estimator.score_one(x)
            return self._estimator.predict_one(x)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of Rust is no Exception
            raise InputError(self._explained("predict", x, error)) from error

    def _explained(self, doing: str, x: dict[str, Any], error: BaseException) -> str:
        name = type(self._estimator).__name__
        return f"{name} cannot {doing} {str(x)[:200]}: {type(error).__name__}: {error}"

    def _answered(self, told: list[Any]) -> Prediction:
        """What it said of each row, as one prediction; None for nothing learned."""
        rows = len(told)
        if self.kind in ("regressor", "transformer"):
            values = np.array([0.0 if value is None else value for value in told], np.float64)
            return Prediction(value=np.where(np.isfinite(values), values, 0.0))
        if self.kind == "clusterer" or not self._has_proba:
            limit = self._classes if self.kind == "classifier" else 2**62
            chosen = np.array([0 if value is None else int(value) for value in told], np.int64)
            value = np.where((chosen >= 0) & (chosen < limit), chosen, 0)
            return Prediction(value=value)
        codes = range(self._classes)
        table = [[(said or {}).get(code) or 0.0 for code in codes] for said in told]
        proba = np.array(table, np.float64).reshape(rows, self._classes)
        proba = np.where(np.isfinite(proba), np.maximum(proba, 0.0), 0.0)
        total = proba.sum(axis=1, keepdims=True)
        proba = np.where(total > 0, proba, 1.0)
        proba /= np.where(total > 0, total, max(self._classes, 1))
        value = proba.argmax(axis=1) if self._classes else np.zeros(rows, np.int64)
        return Prediction(value=value, proba=proba if self._classes else None)

    # --- rows ---

    def _dicts(self, batch: Batch) -> Iterator[dict[str, Any]]:
        """A dict for each row."""
        self._check(batch)
        columns = self._columns
        names = [*columns.numbers]
        numbers = batch.numbers
        if columns.times:
            places: list[Floats] = [numbers]
            for place, name in enumerate(columns.times):
                time = batch.times[:, place]
                names += [f"{name}:{period}" for period in PLACES]
                parts = [np.mod(time - MONDAY, int(period)) / period for period in PERIODS]
                places.append(np.where(time[:, None] == NO_TIME, np.nan, np.stack(parts, axis=1)))
            numbers = np.hstack(places)
        whole = not np.isnan(numbers).any()
        for row, categories in zip(numbers.tolist(), batch.categories.tolist(), strict=True):
            x: dict[str, Any] = dict(zip(names, row, strict=True))
            if not whole:
                x = {name: value for name, value in x.items() if value == value}
            for name, value in zip(columns.categories, categories, strict=True):
                if value != MISSING_CATEGORY:
                    x[name] = str(value)
            yield x

    def _targets(self, batch: Batch) -> list[Any] | None:
        """The target as Python's numbers, checked; None where there is none to learn."""
        self._check(batch)
        if not self._supervised:
            return None
        y = checked_target(batch, self.kind, self._classes)
        kind = np.int64 if self.kind == "classifier" else np.float64
        told: list[Any] = np.asarray(y, kind).tolist()
        return told

    def _weights(self, batch: Batch) -> list[float] | None:
        weight = batch.weight
        if weight is None:
            return None
        check_weight(weight)
        if not self._weighs and not np.isin(weight, (0.0, 1.0)).all():
            name = type(_last(self._estimator)).__name__
            raise InputError(f"{name} takes no sample weights; choose a memory without decay")
        told: list[float] = weight.tolist()
        return told

    def _named(self) -> list[list[str]]:
        return [list(getattr(self._columns, name)) for name in ("numbers", "categories", "times")]

    def _check(self, batch: Batch) -> None:
        columns = self._columns
        expected = [len(columns.numbers), len(columns.categories), len(columns.times)]
        found = [a.shape[1] for a in (batch.numbers, batch.categories, batch.times)]
        if found != expected:
            raise InputError(
                f"rows have {expected[0]} numbers, {expected[1]} categories and {expected[2]}"
                f" times, but {found} were given"
            )


def seeded(estimator: Any, seeds: np.random.SeedSequence) -> Any:
    """A clone in which every seed that is None is one of these."""
    for steps in (getattr(estimator, name, None) for name in ("steps", "transformers")):
        if isinstance(steps, Mapping) and isinstance(estimator, base.Estimator):
            return type(estimator)(*((name, _seeded(step, seeds)) for name, step in steps.items()))
    replaced: dict[str, Any] = {}
    for name in inspect.signature(type(estimator).__init__).parameters:
        value = getattr(estimator, name, None)
        if name in SEEDS and value is None:
            replaced[name] = int(seeds.spawn(1)[0].generate_state(1)[0])
        elif isinstance(value, base.Base):
            replaced[name] = seeded(value, seeds)
        elif isinstance(value, list) and any(isinstance(item, base.Base) for item in value):
            replaced[name] = [_seeded(item, seeds) for item in value]
    return estimator.clone(replaced)


def _seeded(value: Any, seeds: np.random.SeedSequence) -> Any:
    return seeded(value, seeds) if isinstance(value, base.Base) else value


def described(estimator: Any) -> str:
    """What an estimator was made with, as text that is the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(estimator))


def _apart(theirs: Any, ours: Any) -> str:
    """Where two descriptions differ first."""
    if isinstance(theirs, str) and isinstance(ours, str):
        pairs = zip(theirs.splitlines(), ours.splitlines(), strict=False)
        first = next(((a, b) for a, b in pairs if a != b), (theirs, ours))
        return f"an estimator with {first[0].strip()!r}, not {first[1].strip()!r}"
    return f"rows with the columns {theirs}, not {ours}"


def _last(estimator: Any) -> Any:
    """The last step of a pipeline; an estimator itself."""
    return _last(estimator._last_step) if hasattr(estimator, "_last_step") else estimator


def _kind(estimator: Any) -> LearnerKind:
    last = _last(estimator)
    if isinstance(last, base.Classifier):
        return "classifier"
    if isinstance(last, base.Regressor):
        return "regressor"
    if isinstance(last, base.Clusterer):
        return "clusterer"
    if hasattr(last, "score_one"):
        return "transformer"
    raise SpecError(
        f"{type(last).__name__} of River neither classifies, nor predicts a number, a cluster or an"
        " anomaly score"
    )


def _takes_weight(last: Any) -> bool:
    return "w" in inspect.signature(last.learn_one).parameters


def _has_proba(estimator: Any) -> bool:
    """Whether it gives probabilities, which a fresh one says by what it does not implement."""
    made = estimator.clone()
    try:
        made.predict_proba_one({})
    except NotImplementedError:
        return False
    except Exception:
        return True
    return True
