"""How strongly a row pulls at the scores of a linear model."""

from __future__ import annotations

import math

from everlearn.base import Floats
from everlearn.learners.native.compile import inlined
from everlearn.learners.native.descent.losses import (
    HEAVIEST,
    HINGE,
    LOGISTIC,
    POISSON,
    explicit_pull,
    hinge_pulls,
    invariant_pull,
    linked,
    softmax_pulls,
    squared_slack_pull,
)
from everlearn.learners.native.descent.optimizers import SGD, scheduled
from everlearn.learners.native.descent.state import (
    BEND,
    EXPLICIT,
    HORIZON,
    INVARIANT,
    LARGEST,
    LOSS,
    OFFSET,
    OPTIMIZER,
    POWER,
    RATE,
    ROWS,
    STANDARDIZE,
    TARGET_MEAN,
    TARGET_SPREAD,
    TARGET_WEIGHT,
    UPDATE,
    Row,
)


@inlined
def rate_of(head: Floats) -> float:
    """The rate for the next row."""
    return scheduled(head[RATE], head[POWER], head[HORIZON], head[ROWS])


@inlined
def pull_at_score(
    head: Floats, score: float, answer: float, y: float, weight: float, length: float
) -> tuple[float, float]:
    """(the pull at the one score of a row, the unit that it is in).

    Args:
        head: of the model.
        score, answer: of the row, and what it says.
        y, weight: of the row.
        length: rate · Σ x².
    """
    if head[LOSS] in (LOGISTIC, HINGE):
        return _pull(head, score, answer, y, weight, length), 1.0
    y, unit = min(max(y, -LARGEST), LARGEST), 1.0
    if head[STANDARDIZE] != 0.0:
        if head[TARGET_WEIGHT] == 0.0:
            _set_offset(head, y)
            score += head[OFFSET]
            answer = linked(int(head[LOSS]), score)
        _learn_target(head, y, weight)
        unit = unit_of(head)
    pull = _pull(head, score / unit, answer / unit, y / unit, weight, length)
    return min(max(pull, -HEAVIEST), HEAVIEST), unit


@inlined
def pull_at_scores(head: Floats, row: Row, y: int, weight: float, length: float) -> None:
    """Fill the pulls of a row of one of several classes, whose scores are in it."""
    update = int(head[UPDATE])
    if head[OPTIMIZER] != SGD:
        length = 0.0
    if head[LOSS] == LOGISTIC:
        softmax_pulls(row.scores, y, weight, length, update == INVARIANT, row.pulls)
    else:
        hinge_pulls(row.scores, y, weight, length, update, row.pulls)


@inlined
def _pull(
    head: Floats, score: float, answer: float, y: float, weight: float, length: float
) -> float:
    loss, update = int(head[LOSS]), head[UPDATE]
    if head[OPTIMIZER] != SGD:
        length = 0.0
    if update == EXPLICIT:
        return explicit_pull(loss, answer, y, head[BEND], weight, length)
    if update == INVARIANT:
        return invariant_pull(loss, score, y, head[BEND], weight, length)
    return squared_slack_pull(loss, score, y, head[BEND], weight, length)


@inlined
def unit_of(head: Floats) -> float:
    """What values are learned in units of: their standard deviation. 1 for classes and counts."""
    if head[TARGET_SPREAD] > 0.0 and head[LOSS] != POISSON:
        variance = head[TARGET_SPREAD] / head[TARGET_WEIGHT]
        return math.sqrt(variance) if variance > 0.0 else 1.0  # it may be too small for a number
    return 1.0


@inlined
def _set_offset(head: Floats, y: float) -> None:
    """The first value is what all scores are added to."""
    head[OFFSET] = y
    if head[LOSS] == POISSON:
        head[OFFSET] = math.log(y if y > 0.0 else 0.5)


@inlined
def _learn_target(head: Floats, y: float, weight: float) -> None:
    head[TARGET_WEIGHT] += weight
    share = weight / head[TARGET_WEIGHT]
    apart = y - head[TARGET_MEAN]
    head[TARGET_MEAN] += share * apart
    head[TARGET_SPREAD] += weight * (1.0 - share) * (apart * apart)
