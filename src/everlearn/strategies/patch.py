"""Patches: single answers put right, without learning.

A patch is an ordered list of edits, each an input and the answer that is wanted for it, and what
was solved for them. It is always solved again from the version that it is for, with all edits at
once: one edit after the other, each solved for the patched model, would undo those before it. The
learner under it stays as it is, and is what learns on.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, Self, get_args

from everlearn.base import (
    Batch,
    Columns,
    InputError,
    IntegrityError,
    Json,
    Learner,
    Part,
    Prediction,
    State,
)
from everlearn.data.compiler import compile_rows
from everlearn.learners.editable import Rewrite, writer_of
from everlearn.strategies.patch_exceptions import Exceptions
from everlearn.strategies.patch_weights import Weights

Way = Literal["auto", "memory", "weights"]
"""How answers are changed: by exceptions within a radius ("memory"), by the least change of a
linear layer or of leaves ("weights"), or by whichever each edit needs ("auto")."""

WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One answer that is to be another.

    Args:
        number: 1, 2, … per model; 0 where it has none yet.
        features: the input, a dict of columns and values, plain JSON.
        output: what is to be answered, as the target has it.
        reason: for people.
        author: who wants it, or None.
        prediction_id: of the logged prediction that was wrong, or None.
        expires_at: when it ends by itself, microseconds, or None.
        way: in which its answer is to be changed; it keeps it, whatever other edits ask for.
    """

    number: int = 0
    features: Json
    output: Json
    reason: str
    author: str | None = None
    prediction_id: int | None = None
    expires_at: int | None = None
    way: Way = field(default="auto", compare=False)

    def to_json(self) -> dict[str, Json]:
        """All fields by name."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Edits of one version, and what was solved for them.

    Args:
        edits: in their order.
        base: number of the version that it was solved for; None: the one that it is a part of.
        weights: a change of scores, or None.
        rewrite: a change inside of a language model, or None.
        exceptions: balls in which answers are given, whatever the scores say; or None.
    """

    edits: tuple[Edit, ...]
    base: int | None = None
    weights: Weights | None = None
    rewrite: Rewrite | None = None
    exceptions: Exceptions | None = None

    def changing(self, learner: Learner) -> AbstractContextManager[None]:
        """Within it, what a language model writes is changed. How it judges what is written is not:
        that is of its likelihoods, of which each would move a little."""
        writer = None if self.rewrite is None else writer_of(learner)
        if self.rewrite is None or writer is None:
            return nullcontext()
        return writer.changed(self.rewrite)

    @cached_property
    def ends(self) -> int | None:
        """When the first of its edits ends by itself, microseconds, or None. It answers by it after
        that too, for a version always answers alike: another one has to take its place."""
        return min((edit.expires_at for edit in self.edits if edit.expires_at), default=None)

    def answer(self, learner: Learner, batch: Batch) -> Prediction:
        """What is answered for every row by the patched learner."""
        if self.weights is None:
            prediction = learner.predict(batch)
        else:
            prediction = self.weights.answer(learner, batch)
        if self.exceptions is None:
            return prediction
        return self.exceptions.answer(batch, prediction)

    def save(self) -> dict[str, Part]:
        """The parts of a state."""
        told = {"base": self.base, "edits": [edit.to_json() for edit in self.edits]}
        state = {"edits": Part(meta=told)}
        if self.weights is not None:
            state["weights"] = self.weights.save()
        if self.rewrite is not None:
            state["rewrite"] = self.rewrite.save()
        if self.exceptions is not None:
            state["exceptions"] = self.exceptions.save()
        return state

    @classmethod
    def load(cls, state: State) -> Self | None:
        """The inverse of `save`; None of a state without a patch.

        Raises:
            IntegrityError: it is malformed.
        """
        if not state:
            return None
        weights, exceptions = state.get("weights"), state.get("exceptions")
        rewrite = state.get("rewrite")
        try:
            made = cls(
                edits=edits_in(state["edits"]),
                base=state["edits"].meta["base"],
                weights=None if weights is None else Weights.load(weights),
                rewrite=None if rewrite is None else Rewrite.load(rewrite),
                exceptions=None if exceptions is None else Exceptions.load(exceptions),
            )
        except (KeyError, TypeError, IndexError) as error:
            raise IntegrityError(f"the patch is malformed: {error!r}") from error
        if not _is_number(made.base, none=True):
            raise IntegrityError(f"the patch is malformed: its base is {made.base!r}")
        return made

    def check(self, learner: Learner, columns: Columns, classes: int | None) -> None:
        """Refuse what is not for this learner.

        Args:
            columns: of its rows.
            classes: how many class codes it knows; None of a regressor.

        Raises:
            IntegrityError: it is for another.
        """
        if self.exceptions is not None:
            self.exceptions.check(columns, classes)
        if self.rewrite is not None:
            if writer_of(learner) is None:
                raise IntegrityError("the patch changes a language model, and the learner is none")
            with self.changing(learner):
                pass  # whether it is of this model
        if self.weights is not None:
            said = dict.fromkeys(columns.numbers, 0.0) | dict.fromkeys(columns.texts, "")
            self.weights.check(learner, compile_rows([said], columns))


def generated(learner: Learner, patch: Patch | None, prompt: str, **how: Any) -> str:
    """What a language model writes to a prompt with a patch.

    Args:
        how: see `everlearn.learners.text.language.LanguageModel.generate`.

    Raises:
        InputError: the learner writes nothing.
    """
    write = getattr(learner, "generate", None)
    if write is None:
        raise InputError(f"{type(learner).__name__} writes no texts; a CausalLM does")
    with nullcontext() if patch is None else patch.changing(learner):
        return str(write(prompt, **how))


def edits_in(part: Part) -> tuple[Edit, ...]:
    """The edits in the part "edits" of a patch.

    Raises:
        IntegrityError: it is malformed.
    """
    try:
        way = part.meta.get("way", "auto")  # of all of them, as it was once stored
        found = tuple(Edit(**{"way": way} | edit) for edit in part.meta["edits"])
    except (AttributeError, KeyError, TypeError) as error:
        raise IntegrityError(f"the edits of the patch are malformed: {error!r}") from error
    numbers = [edit.number for edit in found]
    if not all(map(_is_sound, found)) or len(set(numbers)) < len(numbers):
        raise IntegrityError("the edits of the patch are malformed: one of them is none")
    return found


def _is_sound(edit: Edit) -> bool:
    """Whether an edit that was read is one that could have been asked for."""
    texts = (edit.reason, "" if edit.author is None else edit.author)
    return (
        _is_number(edit.number)
        and edit.way in WAYS
        and isinstance(edit.features, dict)
        and all(isinstance(text, str) and "\0" not in text for text in texts)
        and _is_number(edit.prediction_id, none=True)
        and _is_number(edit.expires_at, none=True)
    )


def _is_number(value: object, *, none: bool = False) -> bool:
    """Whether it is a whole number from 0 that a database holds, or None where that may be."""
    if value is None:
        return none
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
