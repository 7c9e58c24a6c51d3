"""Edits as a fold sees them: inputs compiled by its columns, answers as its codes or values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from everlearn.base import Array, Batch, Hashes, InputError, Json
from everlearn.data.answers import restored
from everlearn.data.compiler import column_of, compile_rows
from everlearn.data.convert import to_target
from everlearn.data.hashing import hash_exact_texts, hash_rows
from everlearn.jobs.learn import Fold
from everlearn.strategies.patch import Edit
from everlearn.strategies.patch_exceptions import Mask

EXACT = 1e-6
"""A regressor's answer is right if it is off by no more, as a share of the value wanted or of 1."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Edits as a fold sees them.

    Args:
        edits: n of them.
        batch: (n,) their inputs, compiled.
        answers: (n,) class codes or values.
    """

    edits: tuple[Edit, ...]
    batch: Batch
    answers: Array

    def take(self, mask: Array) -> Wanted:
        """Those that a mask chooses."""
        kept = tuple(edit for edit, chosen in zip(self.edits, mask, strict=True) if chosen)
        return Wanted(kept, self.batch.take(mask), self.answers[mask])

    def right(self, answered: Array) -> Mask:
        """(n,) whether these answers are the wanted ones."""
        return _same(answered, self.answers)


def wanted_of(fold: Fold, edits: Sequence[Edit]) -> Wanted:
    """Edits compiled for a fold.

    Raises:
        InputError: an input outside of the schema, or an answer that the model cannot give; the
            message names the edit.
    """
    columns = fold.columns
    if fold.kind not in ("classifier", "regressor") or columns.target is None:
        raise InputError(f"a {fold.kind} has no answers that could be put right")
    batches, answers = [], []
    for place, edit in enumerate(edits, start=1):
        try:
            batches.append(compile_rows([edit.features], columns))
            answers.append(_answer(fold, edit.output))
        except InputError as error:
            name = f"edit {edit.number}" if edit.number else f"edit {place} of {len(edits)}"
            raise InputError(f"{name}: {error}") from error
    return Wanted(tuple(edits), Batch.concat(batches), np.array(answers))


def contradictions(wanted: Wanted, standing: Wanted | None) -> None:
    """Refuse edits of one input with two answers.

    Args:
        standing: edits of the champion, or None.

    Raises:
        InputError: naming them.
    """
    known: dict[int, tuple[str, Any]] = {}
    if standing is not None:
        hashes = contents(standing.batch).tolist()
        for edit, where, answer in zip(standing.edits, hashes, standing.answers, strict=True):
            known[where] = f"edit {edit.number}, which stands (revoke it first),", answer
    for place, (edit, where) in enumerate(
        zip(wanted.edits, contents(wanted.batch).tolist(), strict=True)
    ):
        named, answer = known.setdefault(where, (f"edit {place + 1}", wanted.answers[place]))
        if answer != wanted.answers[place]:
            raise InputError(
                f"edit {place + 1} wants {edit.output!r} for {edit.features!r}, for which {named}"
                " wants another answer; an input has one answer"
            )


def contents(batch: Batch) -> Hashes:
    """(n,) hashes of the rows' features."""
    columns: list[Array] = [*batch.numbers.T, *batch.categories.T, *batch.times.T]
    for texts in () if batch.texts is None else batch.texts.T:
        columns.append(hash_exact_texts(pa.array(texts, pa.large_string())))
    return hash_rows(columns, len(batch))


def _answer(fold: Fold, output: Json) -> Any:
    """The class code or the value of what is wanted."""
    columns = fold.columns
    assert columns.target is not None
    y, missing, bad = to_target(
        column_of([output], columns.target), columns.target_kind, columns.target
    )
    if missing[0] or (bad is not None and bad[0]):
        raise InputError(f"{output!r} is no value of {columns.target!r}")
    if fold.labels is None:
        if not np.isfinite(y[0]):
            raise InputError(f"{output!r} is not finite")
        return float(y[0])
    code = int(fold.encode(y)[0])
    if code < 0:
        known = ", ".join(map(repr, restored(fold.classes, columns)))
        raise InputError(
            f"{output!r} is no class that the model knows ({known}); a patch answers with known"
            " classes only: give such rows as labels, from which a job learns a new one"
        )
    return code


def _same(answers: Array, wanted: Array) -> Mask:
    """(n,) whether answers are what is wanted."""
    if wanted.dtype.kind == "f":
        return np.asarray(np.abs(answers - wanted) <= EXACT * np.maximum(np.abs(wanted), 1.0))
    return np.asarray(answers == wanted)
