"""Edits of what a language model writes: a prompt, and the text that is wanted for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from everlearn.base import Array, Batch, InputError, Json
from everlearn.data.answers import restored
from everlearn.jobs.learn import Fold
from everlearn.learners.editable import Rewrite, TextEdit, Writer, writer_of
from everlearn.strategies.patch import Edit, Patch
from everlearn.strategies.patch_exceptions import Mask
from everlearn.strategies.patch_weights import UnsolvableError

SUBJECT = "subject"
"""What an edit may say beside the prompt: the part of it that the text is about."""

UP = 1
"""The class of a thumb up."""

BUDGET = 0.05
"""Share of other prompts known to be answered rightly that a patch may turn to another answer; one
token of it is enough for that."""


def text_of(fold: Fold, edit: Edit) -> TextEdit | None:
    """What an edit wants to be written; None of one that wants another judgement of a completion,
    or of a learner that writes nothing.

    Raises:
        InputError: it cannot be written, or it is not said what is wanted.
    """
    writer = writer_of(fold.learner)
    said = edit.features
    if writer is None or said.get(writer.completion) is not None:
        return None
    names = {writer.prompt, SUBJECT, writer.completion}
    for name in sorted(set(said) - names):
        raise InputError(
            f"no {name!r}: for a text that is wanted, features are {writer.prompt!r} and, if it is"
            f" about a part of that, {SUBJECT!r}"
        )
    prompt, subject = said.get(writer.prompt), said.get(SUBJECT)
    for name, value in ((writer.prompt, prompt), (SUBJECT, subject), ("output", edit.output)):
        if not isinstance(value, str) and not (value is None and name == SUBJECT):
            raise InputError(f"{name}={value!r}; it is a text")
    if edit.output in (classes := restored(fold.classes, fold.columns)):
        raise InputError(
            f"{edit.output!r} is a judgement ({', '.join(map(repr, classes))}): say the"
            f" {writer.completion!r} that it is for; without one, the text that is to be written"
        )
    if edit.way == "memory":
        raise InputError("what is written is changed by weights only, not by way='memory'")
    made = TextEdit(str(prompt), edit.output, subject)
    writer.check(made)
    return made


def row_of(fold: Fold, text: TextEdit) -> dict[str, Any]:
    """The features by which a text that is wanted is judged."""
    writer = _writer(fold)
    return {writer.prompt: text.prompt, writer.completion: text.text}


def written(fold: Fold, texts: Sequence[TextEdit]) -> Mask:
    """(n,) whether a fold, patched as it is, writes these."""
    rewrite = None if fold.patch is None else fold.patch.rewrite
    return _writer(fold).holds(texts, rewrite)


def problem(reference: Batch | None, online: bool) -> str | None:
    """Why nothing that is written can be changed; None where it can.

    Args:
        online: whether the learner moves on under the patch.
    """
    if online:
        return "what is written cannot be patched while the model learns online, label by label"
    if reference is None or not len(reference):
        return "there are no hold-outs and no memory: nothing says which answers are to stay"
    return None


def rewritten(
    fold: Fold, texts: Sequence[TextEdit], reference: Batch | None, online: bool
) -> tuple[Rewrite | None, list[str]]:
    """(the change after which texts are written, None without texts; notes).

    Raises:
        UnsolvableError: nothing can be changed.
    """
    if not texts:
        return None, []
    why = problem(reference, online)
    if why is not None:
        raise UnsolvableError(why)
    assert reference is not None
    found = _writer(fold).solved(texts, reference)
    if found is None:
        raise UnsolvableError(
            "no block of the model has one MLP that ends in a linear layer, which could be changed"
        )
    return found, [f"texts by a change of rank {len(found.ways)} of {found.layer}"]


def effects(
    fold: Fold, patch: Patch, texts: Sequence[TextEdit], reference: Batch | None
) -> dict[str, Json] | None:
    """What a patch does to other prompts; see `LanguageWriter.effects`. None without texts."""
    if not texts or patch.rewrite is None or reference is None:
        return None
    found: dict[str, Json] = _writer(fold).effects(texts, patch.rewrite, reference)
    return found


def merged(report: dict[str, Json], texts: Json, judged: bool) -> dict[str, Json]:
    """A report of a patch, with what it does to other prompts under "texts".

    Args:
        judged: whether it has other edits too.
    """
    if texts is None:
        return report
    known = [one for one in (report["locality"], texts["locality"]) if one is not None]
    made = report | {"texts": texts, "locality": min(known, default=None)}
    if not judged:
        made["generalisation"] = texts["generalisation"] or 0.0
    return made


def too_many_lost(report: Json) -> str | None:
    """Why a patch changes too many answers to other prompts; None where it does not."""
    lost = (report.get("texts") or {}).get("lost") or 0.0
    if lost <= BUDGET:
        return None
    return (
        f"{lost:.1%} of {report['texts']['prompts']} other prompts would not get the right answer"
        f" any more, more than {BUDGET:.1%}: give the texts as feedback, and let a job learn them"
    )


def chosen(texts: Sequence[TextEdit | None], mask: Array) -> tuple[TextEdit | None, ...]:
    """Those that a mask chooses."""
    return tuple(texts[place] for place in np.flatnonzero(mask).tolist()) if texts else ()


def _writer(fold: Fold) -> Writer:
    found = writer_of(fold.learner)
    assert found is not None, "texts are wanted of a learner that writes"
    return found
