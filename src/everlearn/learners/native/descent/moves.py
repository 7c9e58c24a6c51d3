"""How one row moves the weights of a linear model, and how penalties do."""

from __future__ import annotations

import math

from everlearn.learners.native.compile import inlined
from everlearn.learners.native.descent.optimizers import (
    ADAGRAD,
    ADAM,
    BETA_1,
    BETA_2,
    EPSILON,
    FTRL,
    SGD,
    adagrad,
    adam,
    ftrl,
    shrinkage,
    shrunk,
)
from everlearn.learners.native.descent.pulls import unit_of
from everlearn.learners.native.descent.state import (
    CLOCK,
    L1,
    L2,
    OFFSET,
    OPTIMIZER,
    ROWS,
    Model,
    Row,
)


@inlined
def score_of(model: Model, row: Row, found: int, o: int) -> float:
    """Σ w·x of a row that was read. Penalties that records still owe are counted, not written."""
    total = float(model.head[OFFSET])
    for j in range(row.z.shape[0]):
        total += model.weights[o, j] * row.z[j]
    owing = found > 0 and penalised(model)
    for f in range(found):
        place = row.places[f]
        weight = model.table[place, o]
        if owing:
            factor, fall = owed(model, place, o)
            weight = shrunk(weight, factor, fall)
        total += weight * row.amounts[f]
    return total


@inlined
def move(model: Model, row: Row, found: int, o: int, pull: float, rate: float, unit: float) -> None:
    """Move the weights of a score that is pulled at, in units of the target."""
    optimizer = int(model.head[OPTIMIZER])
    if optimizer == SGD:
        _descend(model, row, found, o, rate * unit * pull)
    elif optimizer == ADAGRAD:
        _adagrad(model, row, found, o, pull, rate * unit)
    elif optimizer == ADAM:
        t = model.head[ROWS] + 1.0
        corrected = rate * math.sqrt(1.0 - BETA_2**t) / (1.0 - BETA_1**t)
        _adam(model, row, found, o, pull, corrected * unit)
    else:
        _ftrl(model, row, found, o, pull, rate, unit)


@inlined
def penalised(model: Model) -> bool:
    """Whether penalties are applied to weights after a step (FTRL has them in its formula)."""
    head = model.head
    return bool((head[L1] > 0.0 or head[L2] > 0.0) and head[OPTIMIZER] != FTRL)


@inlined
def owed(model: Model, place: int, o: int) -> tuple[float, float]:
    """The shrinkage of a record's weight since it was last written."""
    head, record = model.head, model.table
    time = head[CLOCK] - record[place, record.shape[1] - 1]
    if head[OPTIMIZER] == ADAGRAD:
        time /= math.sqrt(record[place, model.weights.shape[0] + o] + EPSILON)
    factor, fall = shrinkage(time, head[L1], head[L2])
    return factor, fall * unit_of(head)


@inlined
def _descend(model: Model, row: Row, found: int, o: int, step: float) -> None:
    """A step against the gradient (Robbins & Monro 1951, "A stochastic approximation method")."""
    for j in range(row.z.shape[0]):
        model.weights[o, j] -= step * row.z[j]
    for f in range(found):
        model.table[row.places[f], o] -= step * row.amounts[f]


@inlined
def _adagrad(model: Model, row: Row, found: int, o: int, pull: float, rate: float) -> None:
    k, table = model.weights.shape[0], model.table
    for j in range(row.z.shape[0]):
        model.weights[o, j], model.first[o, j] = adagrad(
            model.weights[o, j], model.first[o, j], pull * row.z[j], rate
        )
    for f in range(found):
        place = row.places[f]
        table[place, o], table[place, k + o] = adagrad(
            table[place, o], table[place, k + o], pull * row.amounts[f], rate
        )


@inlined
def _adam(model: Model, row: Row, found: int, o: int, pull: float, rate: float) -> None:
    k, table = model.weights.shape[0], model.table
    for j in range(row.z.shape[0]):
        model.weights[o, j], model.first[o, j], model.second[o, j] = adam(
            model.weights[o, j], model.first[o, j], model.second[o, j], pull * row.z[j], rate
        )
    for f in range(found):
        place = row.places[f]
        table[place, o], table[place, k + o], table[place, 2 * k + o] = adam(
            table[place, o],
            table[place, k + o],
            table[place, 2 * k + o],
            pull * row.amounts[f],
            rate,
        )


@inlined
def _ftrl(
    model: Model, row: Row, found: int, o: int, pull: float, rate: float, unit: float
) -> None:
    k, table = model.weights.shape[0], model.table
    l1, l2 = model.head[L1], model.head[L2]
    last = row.z.shape[0] - 1
    for j in range(last + 1):
        model.weights[o, j], model.first[o, j], model.second[o, j] = ftrl(
            model.weights[o, j],
            model.first[o, j],
            model.second[o, j],
            pull * row.z[j],
            rate,
            unit,
            l1 if j < last else 0.0,
            l2 if j < last else 0.0,
        )
    for f in range(found):
        place = row.places[f]
        table[place, o], table[place, k + o], table[place, 2 * k + o] = ftrl(
            table[place, o],
            table[place, k + o],
            table[place, 2 * k + o],
            pull * row.amounts[f],
            rate,
            unit,
            l1,
            l2,
        )


@inlined
def penalise(model: Model, time: float, unit: float) -> None:
    """Shrink the dense weights, but for the intercept; the table's are left until they are needed:
    the clock goes on."""
    if not penalised(model):
        return
    head = model.head
    factor, fall = shrinkage(time, head[L1], head[L2])
    adaptive = head[OPTIMIZER] == ADAGRAD
    for o in range(model.weights.shape[0]):
        for j in range(model.weights.shape[1] - 1):
            if adaptive:
                own = time / math.sqrt(model.first[o, j] + EPSILON)
                factor, fall = shrinkage(own, head[L1], head[L2])
            model.weights[o, j] = shrunk(model.weights[o, j], factor, fall * unit)
    head[CLOCK] += time


@inlined
def settle(model: Model, row: Row, found: int) -> None:
    """Write what the penalties of the rows since have made of the records of this row."""
    if not penalised(model):
        return
    for f in range(found):
        _settle_record(model, row.places[f])


@inlined
def settle_all(model: Model) -> None:
    """The same for all records."""
    if penalised(model):
        for place in range(model.table.shape[0]):
            _settle_record(model, place)


@inlined
def _settle_record(model: Model, place: int) -> None:
    table = model.table
    for o in range(model.weights.shape[0]):
        factor, fall = owed(model, place, o)
        table[place, o] = shrunk(table[place, o], factor, fall)
    table[place, table.shape[1] - 1] = model.head[CLOCK]
