"""What a learner is told before its first row: the kinds of its columns and its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from everlearn.base import Array, Columns, InputError, Model
from everlearn.data.columns import resolve
from everlearn.data.increment import Reader
from everlearn.data.slices import Slice
from everlearn.data.source import Source
from everlearn.data.tables import BlobStore
from everlearn.learners.adapt import MANY_CLASSES, as_learner, learner_kind


def resolved_columns(model: Model, sources: Sequence[Source]) -> Columns:
    """The columns of a model that has learned nothing, from samples of the sources.

    Raises:
        InputError: a column of the schema is not there, or the target does not suit the learner.
    """
    classes = len(model.schema.classes)
    first = resolve(model.schema, sources)
    y = None if first.target is None else _target_sample(sources, first.target)
    kind = learner_kind(model.learner, first, classes=classes, y=y)
    if first.target is None:
        return first
    columns = resolve(model.schema, sources, kind == "classifier")
    if kind != "classifier" and columns.target_kind in ("integer", "boolean"):
        return replace(columns, target_kind="number")
    if kind == "classifier" and columns.target_kind == "number" and not classes and y is not None:
        distinct = len(np.unique(y))
        if distinct > MANY_CLASSES:
            raise InputError(
                f"target {first.target!r} is a quantity ({distinct} different values in the first "
                "rows, not all of them whole), and the learner predicts classes; use a regressor, "
                "or name the classes in Schema(classes=…)"
            )
    return columns


def _target_sample(sources: Sequence[Source], target: str) -> Array:
    columns = [source.sample().column(target).drop_null() for source in sources[:8]]
    return np.concatenate([column.to_numpy(zero_copy_only=False) for column in columns])


def classes_beforehand(
    model: Model, columns: Columns, slices: Sequence[Slice], blobs: BlobStore
) -> tuple[Any, ...]:
    """The classes that a new learner is told of: those of the schema or, where the learner cannot
    be told of others later, all that the increment has, for which it is read once more."""
    if model.schema.classes or grows(model.learner, columns):
        return model.schema.classes
    found: set[Any] = set()
    with Reader(slices, columns, chunk=65_536, blobs=blobs) as reader:
        for chunk in reader:
            if chunk.batch.y is not None:
                found.update(set(chunk.batch.y.tolist()))
    return tuple(sorted(found))


def grows(learner: Any, columns: Columns) -> bool:
    """Whether a learner can be told of classes after it has begun; true for one without classes."""
    if learner_kind(learner, columns) != "classifier":
        return True
    made = as_learner(learner, columns)
    estimator = getattr(made, "estimator", None)
    if getattr(made, "per_row", False) or estimator is None:
        return True
    from everlearn.learners.growth import can_grow  # it imports scikit-learn, which takes seconds

    return can_grow(estimator)
