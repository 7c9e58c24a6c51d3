"""Rows learned while every weight is drawn back to an anchor, by how much it matters.

Under ½ · strength · importance · (w − anchor)² alone, a weight follows dw/dt = −strength ·
importance · (w − anchor), which is solved exactly for the time of each row (its weight times the
rate): however stiff, a weight comes nearer to its anchor and never past it, so that nothing
diverges. It is done after each row, so that nothing depends on how rows are cut into chunks.

What is hashed is drawn back in the rows in which it occurs, since it moves in no others; its
importance is a mean over these rows, so that it is drawn back as much as if it were in all of them.
"""

from __future__ import annotations

import math

import numpy as np

from everlearn.base import Floats, Hashes, Ints
from everlearn.learners.native.compile import inlined, kernel
from everlearn.learners.native.descent.features import read
from everlearn.learners.native.descent.kernels import learn_rows, room_of
from everlearn.learners.native.descent.losses import (
    HEAVIEST,
    LOGISTIC,
    POISSON,
    exponential,
    probability,
    softmax,
)
from everlearn.learners.native.descent.moves import score_of
from everlearn.learners.native.descent.optimizers import (
    ADAGRAD,
    BETA,
    EPSILON,
    FTRL,
)
from everlearn.learners.native.descent.pulls import rate_of
from everlearn.learners.native.descent.state import (
    L1,
    L2,
    LOSS,
    OPTIMIZER,
    RATE,
    Data,
    Model,
    Row,
    model_of,
    row_of,
)


@kernel
def learn_held(
    numbers: Floats,
    times: Floats,
    categories: Hashes,
    starts: Ints,
    columns: Ints,
    values: Floats,
    y: Floats,
    weight: Floats,
    block: Floats,
    table: Floats,
    out: Floats,
    dense: Floats,
    records: Floats,
    strength: float,
    counts: bool,
) -> None:
    """Learn n rows as `kernels.learn` does, each with a step back to the anchors.

    Args:
        dense: (3 · k + 1, D) importances, anchors, and the information that was found since; at the
            beginning of the last row, the weight of the rows since.
        records: (slots, 3 · k + 1) the same of the table's records, and the weight of the rows in
            which each occurred since.
        strength: of the penalty.
        counts: whether information is to be found (EWC), or only rows are (an anchor).
    """
    data = Data(numbers, times, categories, starts, columns, values)
    room = room_of(data)
    places, amounts = np.empty(room, np.int64), np.empty(room)
    _learn_all(
        data, places, amounts, y, weight, block, table, out, dense, records, strength, counts
    )


@inlined
def _learn_all(
    data: Data,
    places: Ints,
    amounts: Floats,
    y: Floats,
    weight: Floats,
    block: Floats,
    table: Floats,
    out: Floats,
    dense: Floats,
    records: Floats,
    strength: float,
    counts: bool,
) -> None:
    model, row = model_of(block, table), row_of(block, places, amounts)
    sparse = data.starts.shape[0] > 0
    for i in range(y.shape[0]):
        one = Data(
            data.numbers[i : i + 1],
            data.times[i : i + 1],
            data.categories[i : i + 1],
            data.starts[i : i + 2] if sparse else data.starts,
            data.columns,
            data.values,
        )
        each = min(weight[i], HEAVIEST) if weight.shape[0] > 0 else 1.0
        rate, found = rate_of(model.head), 0
        if each > 0.0:
            found, _, _ = read(model, one, 0, row)
            dense[3 * row.scores.shape[0], 0] += each
            if counts:
                _find(model, row, found, each, dense, records)
        some = weight[i : i + 1] if weight.shape[0] > 0 else weight
        learn_rows(one, places, amounts, y[i : i + 1], some, block, table, out[i : i + 1])
        if each > 0.0 and strength > 0.0:
            _draw_back(model, row, found, strength * rate * each, dense, records)


@inlined
def _find(model: Model, row: Row, found: int, each: float, dense: Floats, records: Floats) -> None:
    """Add a row's diagonal of the Fisher information, of a class drawn from the model's own answer,
    or of a quantity with an error of variance 1: in closed form, before it is learned."""
    k, loss = row.scores.shape[0], int(model.head[LOSS])
    for o in range(k):
        row.scores[o] = score_of(model, row, found, o)
    if loss == LOGISTIC and k > 1:
        softmax(row.scores, row.pulls)
    for o in range(k):
        bend = each
        if loss == LOGISTIC:
            p = row.pulls[o] if k > 1 else probability(row.scores[o])
            bend = each * p * (1.0 - p)
        elif loss == POISSON:
            bend = each * exponential(row.scores[o])
        for j in range(row.z.shape[0]):
            dense[2 * k + o, j] += bend * row.z[j] * row.z[j]
        for f in range(found):
            records[row.places[f], 2 * k + o] += bend * row.amounts[f] * row.amounts[f]
    for f in range(found):
        records[row.places[f], 3 * k] += each


@inlined
def _draw_back(
    model: Model, row: Row, found: int, time: float, dense: Floats, records: Floats
) -> None:
    """Draw the dense weights, and those of the row's records, to their anchors."""
    k, last = row.scores.shape[0], model.weights.shape[1] - 1
    head, table = model.head, model.table
    optimizer = int(head[OPTIMIZER])
    for o in range(k):
        for j in range(last + 1):
            held, anchor = dense[o, j], dense[k + o, j]
            if held > 0.0 and model.weights[o, j] != anchor:
                own = time
                if optimizer == ADAGRAD:
                    own = time / math.sqrt(model.first[o, j] + EPSILON)
                elif optimizer == FTRL:
                    own = time / (BETA + math.sqrt(model.second[o, j]))
                apart = model.weights[o, j] - anchor
                model.weights[o, j] = anchor + apart * math.exp(-held * own)
                if optimizer == FTRL:
                    l1 = head[L1] if j < last else 0.0
                    l2 = head[L2] if j < last else 0.0
                    model.first[o, j] = _stands_for(
                        model.weights[o, j], model.second[o, j], head[RATE], l1, l2
                    )
        for f in range(found):
            place = row.places[f]
            held, anchor = records[place, o], records[place, k + o]
            if held > 0.0 and table[place, o] != anchor:
                own = time
                if optimizer == ADAGRAD:
                    own = time / math.sqrt(table[place, k + o] + EPSILON)
                elif optimizer == FTRL:
                    own = time / (BETA + math.sqrt(table[place, 2 * k + o]))
                table[place, o] = anchor + (table[place, o] - anchor) * math.exp(-held * own)
                if optimizer == FTRL:
                    table[place, k + o] = _stands_for(
                        table[place, o], table[place, 2 * k + o], head[RATE], head[L1], head[L2]
                    )


@inlined
def _stands_for(weight: float, second: float, rate: float, l1: float, l2: float) -> float:
    """FTRL's z for a weight: `optimizers.ftrl_first` of one."""
    if weight == 0.0:
        return 0.0
    size = abs(weight) * ((BETA + math.sqrt(second)) / rate + l2) + l1
    return -math.copysign(size, weight)
