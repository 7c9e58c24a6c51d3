"""Edits as a fold sees them: inputs compiled by its columns, answers as its codes or values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from everlearn.jobs.patch.texts import UP, row_of, text_of, written
from everlearn.jobs.patch.texts import chosen as chosen_texts
from everlearn.learners.editable import TextEdit
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
        texts: what is to be written, of each edit that wants that, whose row is then a prompt with
            this completion; () where none does.
    """

    edits: tuple[Edit, ...]
    batch: Batch
    answers: Array
    texts: tuple[TextEdit | None, ...] = ()

    @property
    def written(self) -> Mask:
        """(n,) which edits want a text."""
        texts = self.texts or (None,) * len(self.edits)
        return np.array([text is not None for text in texts], bool)

    def take(self, mask: Array) -> Wanted:
        """Those that a mask chooses."""
        kept = tuple(edit for edit, chosen in zip(self.edits, mask, strict=True) if chosen)
        texts = chosen_texts(self.texts, mask)
        return Wanted(kept, self.batch.take(mask), self.answers[mask], texts)

    def held(self, fold: Fold) -> Mask:
        """(n,) whether a fold, patched as it is, answers as wanted."""
        found = self.right(fold.predict(self.batch).value)
        texts = [text for text in self.texts if text is not None]
        if texts:
            found[self.written] = written(fold, texts)
        return found

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
    batches, answers, texts = [], [], []
    for place, edit in enumerate(edits, start=1):
        try:
            text = text_of(fold, edit)
            row = edit.features if text is None else row_of(fold, text)
            batches.append(compile_rows([row], columns))
            answers.append(_answer(fold, edit.output) if text is None else UP)
            texts.append(text)
        except InputError as error:
            name = f"edit {edit.number}" if edit.number else f"edit {place} of {len(edits)}"
            raise InputError(f"{name}: {error}") from error
    told = tuple(texts) if any(texts) else ()
    return Wanted(tuple(edits), Batch.concat(batches), np.array(answers), told)


def contradictions(wanted: Wanted, standing: Wanted | None) -> None:
    """Refuse edits of one input with two answers.

    Args:
        standing: edits of the champion, or None.

    Raises:
        InputError: naming them.
    """
    known: dict[int | str, tuple[str, Any]] = {}
    if standing is not None:
        for place, where, answer in _said(standing):
            number = standing.edits[place].number
            known[where] = f"edit {number}, which stands (revoke it first),", answer
    for place, where, answer in _said(wanted):
        edit = wanted.edits[place]
        named, other = known.setdefault(where, (f"edit {place + 1}", answer))
        if other != answer:
            raise InputError(
                f"edit {place + 1} wants {edit.output!r} for {edit.features!r}, for which {named}"
                " wants another answer; an input has one answer"
            )


def _said(wanted: Wanted) -> Iterator[tuple[int, int | str, Any]]:
    """(place, input, answer) of each edit: of one that wants a text, as a judgement and as that."""
    hashes = contents(wanted.batch).tolist()
    for place, (where, answer) in enumerate(zip(hashes, wanted.answers.tolist(), strict=True)):
        yield place, where, answer
    for place, text in enumerate(wanted.texts):
        if text is not None:
            yield place, text.prompt, text.text


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
