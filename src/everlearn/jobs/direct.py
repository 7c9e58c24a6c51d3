"""`everlearn.learn`: the fold as a function, over data in memory, with no workspace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from everlearn.base import (
    Array,
    Batch,
    Columns,
    Floats,
    InputError,
    Model,
    Part,
    Schema,
    SpecError,
    State,
    prefixed,
    state_digest,
    under,
)
from everlearn.data.answers import restored
from everlearn.data.compiler import as_table, compile_rows, records_to_table, wanted
from everlearn.data.ids import SeenIds
from everlearn.data.increment import Reader
from everlearn.data.slices import Slice
from everlearn.data.source import open_sources
from everlearn.data.tables import MemoryBlobs, arrays_to_table
from everlearn.evaluation.metrics import Metrics
from everlearn.jobs.begin import classes_beforehand, resolved_columns
from everlearn.jobs.folding import UNSEEN_CLASS
from everlearn.jobs.learn import ChunkLike, Fold, Step
from everlearn.jobs.learn import learn as fold_chunks
from everlearn.jobs.relive import learn_memory, relive
from everlearn.registry import bundle
from everlearn.strategies.strategy import Pretrained, Strategy

TARGET = "y"


class Learned:
    """A model that `learn` returned: it predicts, and `learn` goes on from it. Immutable.

    Attributes:
        model: its definition.
        metrics: test-then-train metrics over the rows of the call that made it.
        set_aside: reason → number of rows of that call that could not be learned.
    """

    def __init__(
        self, model: Model, fold: Fold, metrics: dict[str, Any], set_aside: dict[str, int]
    ) -> None:
        self.model, self.metrics, self.set_aside = model, metrics, set_aside
        self._fold = fold
        self._state: dict[str, Part] = fold.save()

    @property
    def state(self) -> State:
        """The named parts of the state, as a version of a workspace would have them."""
        return dict(self._state)

    @property
    def state_digest(self) -> str:
        """SHA-256 over all that further learning depends on."""
        return state_digest(self._state)

    @property
    def classes_(self) -> Array:
        """(k,) classes of the target in their natural order, that of `predict_proba`'s columns.

        Raises:
            AttributeError: the learner is no classifier.
        """
        if self._fold.labels is None:
            raise AttributeError(f"a {self._fold.kind} has no classes")
        known = restored(self._fold.classes, self._fold.columns)
        order = self._fold.labels.order.tolist()
        return np.array([known[code] for code in order])

    def predict(self, X: Any) -> Array:
        """(n,) predicted classes or values of X (n, p), in the target's own type.

        Raises:
            InputError: X lacks a column, or a value is not of its column's kind.
        """
        prediction = self._fold.predict(self._compiled(X))
        return np.array(restored(self._fold.decode(prediction.value), self._fold.columns))

    def predict_proba(self, X: Any) -> Floats:
        """(n, k) probabilities of `classes_` for X (n, p).

        Raises:
            InputError: as `predict`.
            AttributeError: the learner gives no probabilities.
        """
        proba = self._fold.predict(self._compiled(X)).proba
        if proba is None or self._fold.labels is None:
            raise AttributeError(f"{self.model.learner!r} gives no probabilities")
        return proba[:, self._fold.labels.order]

    def _compiled(self, X: Any) -> Batch:
        _check_width(X, self._fold.columns, self.model.schema)
        return compile_rows(_table(X, None, None), self._fold.columns)


def learn(start: Any, X: Any, y: Any = None, strategy: Strategy | None = None) -> Learned:
    """Fold rows into a model: predict each chunk, then learn it. Returns the next model.

    Args:
        start: an estimator with `partial_fit`, a `Chain`, a learner's name, None for the default
            learner, a `Model`, or what an earlier call returned, which stays as it is.
        X: (n, p) features: an array, a data frame, a table; columns of any kind.
        y: (n,) targets. None where X holds the target that the model's schema names, and for
            learners without one.
        strategy: how to learn; by default as before, or in chunks without memory.

    Returns:
        The model after these rows. Its `metrics` are those of test-then-train.

    Raises:
        InputError: X and y do not fit together, or X lacks a column that was learned before.
        SpecError: `start` cannot learn in increments.

    Example:
        >>> import numpy as np
        >>> from sklearn.linear_model import SGDClassifier
        >>> X = np.array([[0.0], [1.0], [0.2], [0.9]] * 50)
        >>> first = learn(SGDClassifier(loss="log_loss"), X, X[:, 0] > 0.5)
        >>> learn(first, X, X[:, 0] > 0.5).predict([[0.95]]).tolist()
        [True]
    """
    model = _model(start, y is not None, strategy)
    strategy = model.strategy
    table = _table(X, y, model.schema.target)
    if isinstance(start, Learned) and strategy.start == "champion" and not table.num_rows:
        return Learned(model, Fold.load(start.state, model.learner, strategy), {"rows": 0}, {})
    blobs = MemoryBlobs()
    sources = open_sources(table, blobs=blobs)
    slices = [piece for source in sources if (piece := source.slice()) is not None]
    former = start.state if isinstance(start, Learned) else None
    given = former if strategy.start == "champion" else _given(strategy)
    origin = given if given is not None else former
    if origin is None:
        columns = resolved_columns(model, sources)
    else:
        columns = Columns.from_json(origin["columns"].meta)
        _check_width(X, columns, model.schema)
    if given is not None:
        fold = Fold.load(given, model.learner, strategy, remembered=former)
    else:
        classes = classes_beforehand(model, columns, slices, blobs)
        fold = Fold.new(model.learner, columns, strategy, classes=classes, remembered=former)
    fold.replays = strategy.start == "champion"
    return _folded(model, fold, slices, blobs)


def _folded(model: Model, fold: Fold, slices: list[Slice], blobs: MemoryBlobs) -> Learned:
    strategy: Strategy = model.strategy
    if not fold.replays:
        relive(fold, strategy, 0, lambda rows: None)
    metrics, seen = Metrics(fold.kind), SeenIds(under("ids", fold.others))
    reader = Reader(
        slices,
        fold.columns,
        chunk=strategy.chunk,
        order=strategy.order,
        passes=strategy.passes,
        seed=strategy.seed,
        seen=seen,
        blobs=blobs,
    )

    def measure(chunk: ChunkLike, step: Step) -> None:
        if chunk.number == 1 and step.prediction is not None and step.counts:
            metrics.add(step.batch.y, step.prediction)
        if step.refused is not None:
            reader.refuse(step.refused, UNSEEN_CLASS)

    with reader:
        fold_chunks(fold, reader, measure)
    learn_memory(fold, strategy, lambda rows: None)
    if fold.columns.id is not None:
        fold.others = prefixed("ids", seen.save())
    aside: dict[str, int] = {}
    for tally in reader.tallies:
        for reason, count in tally.reasons["set_aside"].items():
            aside[reason] = aside.get(reason, 0) + count
    return Learned(model, fold, metrics.results(positive=fold.positive), aside)


def _model(start: Any, has_y: bool, strategy: Strategy | None) -> Model:
    """The definition behind `start`, with the strategy that is asked for."""
    if isinstance(start, Learned):
        model = start.model
    elif isinstance(start, Model):
        model = start
    else:
        model = Model("model", learner=start, schema=Schema(target=TARGET if has_y else None))
    if has_y and model.schema.target is None:
        raise InputError("y was given, but the model's schema names no target")
    if strategy is not None and not isinstance(strategy, Strategy):
        raise SpecError(
            f"learn(strategy=) is an everlearn.Strategy, as Strategy(memory=…), not {strategy!r}"
        )
    return model.replace(strategy=strategy or model.strategy or Strategy())


def _given(strategy: Strategy) -> State | None:
    """The state that a strategy names as its start, if it names one."""
    if isinstance(strategy.start, Pretrained):
        return bundle.read_state(strategy.start.path)
    return None if isinstance(strategy.start, str) else strategy.start


def _table(X: Any, y: Any, target: str | None) -> pa.Table:
    """X and y as one table; the columns of an array are named "x0", "x1", …."""
    if not _is_matrix(X):
        X = as_table(records_to_table(X) if isinstance(X, list | tuple) else X)
    return arrays_to_table(X, y, target=target or TARGET)


def _check_width(X: Any, columns: Columns, schema: Schema) -> None:
    """Refuse an array with more columns than were learned: it has no names to tell them by."""
    if not _is_matrix(X) or np.ndim(X) != 2:
        return
    known = {*wanted(columns), *schema.ignore}
    width = np.shape(X)[1]
    extra = [name for j in range(width) if (name := f"x{j}") not in known]
    if extra and "x0" in known:
        raise InputError(f"X has {width} columns, and {', '.join(extra[:5])} were not learned")


def _is_matrix(X: Any) -> bool:
    """Whether X is an array (n, p), or lists of numbers that make one."""
    if isinstance(X, list | tuple):
        return not (X and isinstance(X[0], Mapping))
    return isinstance(X, np.ndarray)
