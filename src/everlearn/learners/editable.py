"""Learners whose answers a patch can change by more than exceptions."""

from __future__ import annotations

from typing import Any, Protocol

from everlearn.base import Batch, Floats, Learner, Prediction


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
