"""What a version answers for rows, and how that is logged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from everlearn.base import InputError
from everlearn.data.answers import compile_file, restored
from everlearn.data.compiler import compile_rows
from everlearn.data.feedback import LoggedPrediction, PredictionIds, id_text
from everlearn.data.log import FeedbackLog
from everlearn.data.review import ReviewQueue
from everlearn.jobs.learn import Fold
from everlearn.registry.models import plain

Said = TypeVar("Said")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a version answers for one row.

    Args:
        value: the predicted class or value, as the target has it.
        probabilities: class → probability; None where the learner has none.
        version: the number of the version that answered.
        id: under which the answer was logged, for labels; None if it was not.
    """

    value: Any
    probabilities: dict[Any, float] | None
    version: int
    id: str | None = None


def answered(fold: Fold, number: int, rows: Any) -> list[Answer]:
    """What version `number`, whose state is `fold`, answers for rows or a file of rows.

    Raises:
        InputError: a name that is no column, or a value that is not of its kind.
    """
    if isinstance(rows, str | os.PathLike):
        batch = compile_file(rows, fold.columns)
    else:
        batch = compile_rows(rows, fold.columns)
    prediction = fold.predict(batch)
    values = restored(fold.decode(prediction.value), fold.columns)
    classes = restored(fold.classes, fold.columns)
    return [
        Answer(
            value,
            None
            if prediction.proba is None
            else dict(zip(classes, prediction.proba[row].tolist(), strict=True)),
            number,
        )
        for row, value in enumerate(values)
    ]


@dataclass(frozen=True, slots=True)
class Given:
    """Rows that were answered, and what was said of each, or None.

    Args:
        rows: dicts of columns and values.
        keys, ids, propensities: as for `ModelHandle.predict`.

    Raises:
        InputError: not one for each row, a key or an id that is no text (or has a NUL in it, which
            PostgreSQL cannot keep), or a propensity that is no chance.
    """

    rows: Sequence[Mapping[str, Any]]
    keys: Sequence[str | None] | None
    ids: Sequence[str | None] | None
    propensities: Sequence[float | None] | None

    def __post_init__(self) -> None:
        for name in ("keys", "ids", "propensities"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.rows):
                raise InputError(f"{len(self.rows)} rows, but {len(values)} {name}")
        for name, said in (*_each("keys", self.keys), *_each("ids", self.ids)):
            if not isinstance(said, str) or "\0" in said:
                raise InputError(f"{name}= takes texts without NUL, not {said!r}")
        for name, said in _each("propensities", self.propensities):
            if (
                not isinstance(said, float | int | np.floating | np.integer)
                or not 0.0 < said <= 1.0
            ):
                raise InputError(f"{name}= takes chances, above 0 and at most 1, not {said!r}")

    def each(self, values: Sequence[Said | None] | None) -> Sequence[Said | None]:
        """What was said of each row; None of all where nothing was."""
        return [None] * len(self.rows) if values is None else values


def _each(name: str, values: Sequence[Any] | None) -> Iterator[tuple[str, Any]]:
    """What was said, with the name of it."""
    given = () if values is None else values
    return ((name, said) for said in given if said is not None)


def log_answers(
    log: FeedbackLog,
    queue: ReviewQueue,
    ids: PredictionIds,
    given: Given,
    answers: Sequence[Answer],
) -> list[Answer]:
    """Log answers, offer them for review, and return them with their ids.

    Raises:
        ConflictError: one of the caller's ids was logged before; nothing was logged.
    """
    numbers = ids.take(len(answers))
    logged = [
        LoggedPrediction(
            number,
            plain(row),
            plain({"value": answer.value, "probabilities": answer.probabilities}),
            version=answer.version,
            key=key,
            external_id=name,
            propensity=None if chance is None else float(chance),
        )
        for number, row, answer, key, name, chance in zip(
            numbers,
            given.rows,
            answers,
            given.each(given.keys),
            given.each(given.ids),
            given.each(given.propensities),
            strict=True,
        )
    ]
    log.append_predictions(logged)
    queue.offer(logged)
    return [
        replace(answer, id=id_text(number)) for number, answer in zip(numbers, answers, strict=True)
    ]
