"""Learning and predicting rows with a linear model: read the row, score it, move the weights."""

from __future__ import annotations

import numpy as np

from everlearn.base import Floats, Hashes, Ints
from everlearn.learners.native.compile import inlined, kernel
from everlearn.learners.native.descent.features import learn_moments, read
from everlearn.learners.native.descent.losses import (
    HEAVIEST,
    LOGISTIC,
    linked,
    probability,
    softmax,
)
from everlearn.learners.native.descent.moves import move, penalise, score_of, settle, settle_all
from everlearn.learners.native.descent.plain import (
    is_plain,
    learn_plain,
    plain_of,
    score_plain,
    write_chance,
)
from everlearn.learners.native.descent.pulls import pull_at_score, pull_at_scores, rate_of
from everlearn.learners.native.descent.state import (
    CLIP,
    LOSS,
    ROWS,
    Data,
    Model,
    Row,
    model_of,
    row_of,
)


@kernel
def learn(
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
) -> None:
    """Learn n rows (the fields of `Rows`), and fill what was predicted before each of the first.

    Args:
        y: (n,) class codes or values.
        weight: (n,), or (0,) where all weigh 1.
        block, table: the state.
        out: (m, k) probabilities, scores or values.
    """
    data = Data(numbers, times, categories, starts, columns, values)
    room = room_of(data)
    learn_rows(data, np.empty(room, np.int64), np.empty(room), y, weight, block, table, out)


@kernel
def predict(
    numbers: Floats,
    times: Floats,
    categories: Hashes,
    starts: Ints,
    columns: Ints,
    values: Floats,
    block: Floats,
    table: Floats,
    out: Floats,
) -> None:
    """Fill (n, k) for n rows; arguments are those of `learn`."""
    data = Data(numbers, times, categories, starts, columns, values)
    room = room_of(data)
    _predict_rows(data, np.empty(room, np.int64), np.empty(room), block, table, out)


@kernel
def learn_one(x: Floats, y: float, block: Floats, table: Floats) -> float:
    """Learn one row of numbers with a model of one score; returns what was predicted before."""
    return _learn_one(x, y, block, table)


@kernel
def catch_up(block: Floats, table: Floats) -> None:
    """Write into every record what penalties have made of its weights."""
    _catch_up(block, table)


@inlined
def room_of(data: Data) -> int:
    """How many records a row can have."""
    room: int = data.numbers.shape[1] + data.categories.shape[1]
    longest = 0
    for i in range(data.starts.shape[0] - 1):
        longest = max(longest, int(data.starts[i + 1] - data.starts[i]))
    return room + longest


@inlined
def _learn_one(x: Floats, y: float, block: Floats, table: Floats) -> float:
    p, none = x.shape[0], block[:0]
    whole, end = none.view(np.int64), block[block.shape[0] - 2 * p :]
    hashes = none.view(np.uint64).reshape(1, 0)
    data = Data(x.reshape(1, p), none.reshape(1, 0), hashes, whole, whole, none)
    model, row = model_of(block, table), row_of(block, end[:p].view(np.int64), end[p:])
    if is_plain(model, data):
        target, out = row.pulls[:1], row.scores[:1].reshape(1, 1)
        target[0] = y
        if learn_plain(model, plain_of(model, block), data, 0, target, none, out) == 1:
            return float(out[0, 0])
    return _learn_single(model, data, row, 0, y, 1.0)


@inlined
def learn_rows(
    data: Data,
    places: Ints,
    amounts: Floats,
    y: Floats,
    weight: Floats,
    block: Floats,
    table: Floats,
    out: Floats,
) -> None:
    model, row = model_of(block, table), row_of(block, places, amounts)
    loss, single, i = int(model.head[LOSS]), row.scores.shape[0] == 1, 0
    while i < y.shape[0]:
        if is_plain(model, data):
            i = learn_plain(model, plain_of(model, block), data, i, y, weight, out)
            if i == y.shape[0]:
                break
        each = min(weight[i], HEAVIEST) if weight.shape[0] > 0 else 1.0
        if single:
            answer = _learn_single(model, data, row, i, y[i], each)
            if i < out.shape[0]:
                _write(loss, answer, out, i)
        else:
            found, squares, ordinary = _score_several(model, data, row, i)
            if i < out.shape[0]:
                _write_all(loss, row, out, i)
            if each > 0.0:
                _learn_several(model, data, row, i, found, squares, ordinary, int(y[i]), each)
        i += 1


@inlined
def _predict_rows(
    data: Data, places: Ints, amounts: Floats, block: Floats, table: Floats, out: Floats
) -> None:
    model, row = model_of(block, table), row_of(block, places, amounts)
    loss, single = int(model.head[LOSS]), row.scores.shape[0] == 1
    usual, plain = is_plain(model, data), plain_of(model, block)
    clip, intercept = model.head[CLIP], model.weights[0, model.weights.shape[1] - 1]
    for i in range(out.shape[0]):
        ordinary = False
        if usual:
            score, _, ordinary = score_plain(plain, data, i, clip)
            if ordinary:
                write_chance(probability(intercept + score), out, i)
        if not ordinary and single:
            found, _, _ = read(model, data, i, row)
            _write(loss, linked(loss, score_of(model, row, found, 0)), out, i)
        elif not ordinary:
            _score_several(model, data, row, i)
            _write_all(loss, row, out, i)


@inlined
def _learn_single(model: Model, data: Data, row: Row, i: int, y: float, weight: float) -> float:
    """Learn the i-th row with a model of one score; returns what was predicted before."""
    head = model.head
    found, squares, ordinary = read(model, data, i, row)
    score = score_of(model, row, found, 0)
    answer = linked(int(head[LOSS]), score)
    if weight > 0.0:
        rate = rate_of(head)
        pull, unit = pull_at_score(head, score, answer, y, weight, rate * squares)
        settle(model, row, found)
        move(model, row, found, 0, pull, rate, unit)
        penalise(model, weight * rate, unit)
        learn_moments(model, data, i, weight, ordinary)
        head[ROWS] += 1.0
    return answer


@inlined
def _learn_several(
    model: Model,
    data: Data,
    row: Row,
    i: int,
    found: int,
    squares: float,
    ordinary: bool,
    y: int,
    weight: float,
) -> None:
    """Learn a row that was scored with a model of several scores."""
    rate = rate_of(model.head)
    pull_at_scores(model.head, row, y, weight, rate * squares)
    settle(model, row, found)
    for o in range(row.scores.shape[0]):
        move(model, row, found, o, row.pulls[o], rate, 1.0)
    penalise(model, weight * rate, 1.0)
    learn_moments(model, data, i, weight, ordinary)
    model.head[ROWS] += 1.0


@inlined
def _score_several(model: Model, data: Data, row: Row, i: int) -> tuple[int, float, bool]:
    """(how many records, Σ x², whether its numbers are ordinary) of the i-th row, which is read and
    scored."""
    found, squares, ordinary = read(model, data, i, row)
    for o in range(row.scores.shape[0]):
        row.scores[o] = score_of(model, row, found, o)
    return found, squares, ordinary


@inlined
def _catch_up(block: Floats, table: Floats) -> None:
    settle_all(model_of(block, table))


@inlined
def _write(loss: int, answer: float, out: Floats, i: int) -> None:
    """What is predicted: the value; or, of two classes, the probability or the score of the second,
    and in a column of its own that of the first where there is room for more."""
    if out.shape[1] == 1 or loss == LOGISTIC:
        write_chance(answer, out, i)
    else:
        out[i, 0], out[i, 1] = -0.5 * answer, 0.5 * answer


@inlined
def _write_all(loss: int, row: Row, out: Floats, i: int) -> None:
    """Probabilities, or scores, of which classes that are still unknown have the least."""
    k, least = row.scores.shape[0], row.scores[0]
    if loss == LOGISTIC:
        softmax(row.scores, row.pulls)
    for o in range(k):
        out[i, o] = row.pulls[o] if loss == LOGISTIC else row.scores[o]
        least = min(least, row.scores[o])
    for o in range(k, out.shape[1]):
        out[i, o] = 0.0 if loss == LOGISTIC else least
