"""What a version answers for rows, and how that is logged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from everlearn.base import InputError
from everlearn.data.answers import compile_file, restored
from everlearn.data.compiler import compile_rows
from everlearn.data.feedback import LoggedPrediction
from everlearn.jobs.learn import Fold
from everlearn.registry.models import plain


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


def to_log(
    numbers: Sequence[int],
    rows: Sequence[Mapping[str, Any]],
    answers: Sequence[Answer],
    propensities: Sequence[float] | None,
) -> list[LoggedPrediction]:
    """Answers as the feedback log keeps them.

    Args:
        numbers: their ids.
        propensities: as for `ModelHandle.predict`.

    Raises:
        InputError: propensities that are no chances, or not one for each row.
    """
    chances = [None] * len(rows) if propensities is None else [float(p) for p in propensities]
    if len(chances) != len(rows) or not all(p is None or 0.0 < p <= 1.0 for p in chances):
        raise InputError("propensities= takes one chance for each row, above 0 and at most 1")
    return [
        LoggedPrediction(
            number,
            plain(row),
            plain({"value": answer.value, "probabilities": answer.probabilities}),
            version=answer.version,
            propensity=chance,
        )
        for number, row, answer, chance in zip(numbers, rows, answers, chances, strict=True)
    ]
