"""Learners whose answers a patch can change by more than exceptions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from everlearn.base import Batch, Floats, IntegrityError, Json, Learner, Part, Prediction


class Editable(Protocol):
    """A learner that answers by scores, which are linear in features of its own: the inputs of its
    last or only linear layer, or which leaf of each tree a row reaches.

    A patch adds features @ change to the scores, and the learner stays as it is.
    """

    def activations(self, batch: Batch) -> tuple[Any, Floats]:
        """((n, d) features, dense or a CSR matrix; (n, k) scores) of (n,) rows. A classifier has a
        score for each class, or one for code 1 of two, and answers with the highest (or if it is
        above 0); a regressor answers with its one score."""
        ...

    def answer(self, scores: Floats) -> Prediction:
        """What (n, k) scores say: of unchanged ones, what the learner predicts."""
        ...


def editable_of(learner: Learner) -> Editable | None:
    """How the answers of a learner, as it stands, can be changed; None where they are not given by
    a linear layer or by leaves, or where it has learned nothing."""
    made = getattr(learner, "editable", None)
    return None if made is None else made()


@dataclass(frozen=True, slots=True)
class TextEdit:
    """A text that is to be written.

    Args:
        prompt: what is asked.
        text: what is to be answered, whole.
        subject: a part of the prompt, whose last token the first key is taken at; None for the last
            token before the answer.
    """

    prompt: str
    text: str
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A change of low rank of one linear layer inside of a language model: x → W x + B A x.

    Args:
        layer: its name in the model.
        ways: A, (r, inputs).
        moves: B, (outputs, r).
    """

    layer: str
    ways: Floats
    moves: Floats

    def save(self) -> Part:
        """The change."""
        return Part({"ways": self.ways, "moves": self.moves}, {"layer": self.layer})

    @classmethod
    def load(cls, part: Part) -> Self:
        """The inverse of `save`. Raises `IntegrityError` if its matrices do not fit together."""
        ways, moves, layer = part.arrays["ways"], part.arrays["moves"], part.meta["layer"]
        if ways.ndim != 2 or moves.ndim != 2 or len(ways) != moves.shape[1]:
            raise IntegrityError(f"a change of shapes {moves.shape} and {ways.shape} is none")
        if not isinstance(layer, str) or not all(
            x.dtype.kind == "f" and np.isfinite(x).all() for x in (ways, moves)
        ):
            raise IntegrityError("a change has something else than finite numbers, for a layer")
        return cls(layer, ways, moves)


class Writer(Protocol):
    """A language model, whose answers a patch can change inside of it.

    Attributes:
        prompt, completion: columns of what is asked and of what is answered.
    """

    prompt: str
    completion: str

    def check(self, edit: TextEdit) -> None:
        """Raises `InputError` for a text that cannot be written, or a subject that is not read."""
        ...

    def holds(self, edits: Sequence[TextEdit], rewrite: Rewrite | None) -> npt.NDArray[np.bool_]:
        """(n,) whether the likeliest token is the wanted one at each place, so that the text is
        what is written."""
        ...

    def solved(self, edits: Sequence[TextEdit], reference: Batch) -> Rewrite | None:
        """A change after which the texts are written, if one was found, and answers for rows of
        reference stay as far as they can; None where nothing can be changed."""
        ...

    def effects(self, edits: Sequence[TextEdit], rewrite: Rewrite, reference: Batch) -> Json:
        """What it does to prompts that are near to those of the edits, and to others."""
        ...

    def changed(self, rewrite: Rewrite) -> AbstractContextManager[None]:
        """Within it, what this thread asks of the learner is answered with the change."""
        ...


def writer_of(learner: Learner) -> Writer | None:
    """How what a learner writes can be changed; None where it writes no texts."""
    made = getattr(learner, "writer", None)
    return None if made is None else made()
