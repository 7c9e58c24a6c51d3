"""What learners check of rows before they learn them."""

from __future__ import annotations

import numpy as np

from everlearn.base import Array, Batch, Floats, InputError, LearnerKind


def checked_target(batch: Batch, kind: LearnerKind, classes: int) -> Array:
    """(n,) class codes or numbers to learn.

    Args:
        kind: of the learner.
        classes: how many class codes it knows.

    Raises:
        InputError: there is no target, a class code that there is no room for, or a number that is
            not finite.
    """
    y = batch.y
    if y is None:
        raise InputError("rows to learn have no target; name it in Schema(target=…)")
    if kind == "classifier":
        if len(y) and (y.max() >= classes or y.min() < 0):
            raise InputError(
                f"class codes are 0 … {classes - 1}, not {y.min()} … {y.max()}; grow first"
            )
    elif not np.isfinite(y.sum()) and not np.isfinite(y).all():
        raise InputError("the target is NaN or infinite in some row; set such rows aside")
    return y


def check_weight(weight: Floats) -> None:
    """Raises `InputError` where a weight is negative or not finite."""
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise InputError("a row's weight is a finite number from 0")


def weighing(batch: Batch) -> tuple[Batch, Floats | None]:
    """The rows that weigh anything, and their weights; None where all weigh 1.

    Raises:
        InputError: a weight is negative or not finite.
    """
    weight = batch.weight
    if weight is None or not len(batch):
        return batch, None
    check_weight(weight)
    if (weight == 0).any():
        batch, weight = batch.take(weight > 0), weight[weight > 0]
    return batch, None if (weight == 1.0).all() else weight
