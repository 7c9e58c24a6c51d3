"""Queries over the feedback log: what was said before a slice, and what nobody has labelled."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import Ints
from everlearn.data.feedback import ERASED, Label, PredictionIds, id_text, values_of
from everlearn.data.log import FeedbackLog
from everlearn.data.policy import MATURITY, LabelPolicy, Said
from everlearn.storage.bulk import rows_among
from everlearn.storage.schema import labels, predictions

PAGE = 5000
"""Labels that are logged in one transaction."""

_SAID_NAMES = (
    "prediction_id", "position", "kind", "source", "reviewer", "value", "weight", "selection",
)  # fmt: skip

LATE = 3_600_000_000
"""Microseconds by which a prediction may arrive after its id was made, by the clocks of servers."""


def said_before(log: FeedbackLog, start: int, stop: int) -> dict[int, list[Said]]:
    """Prediction → its labels up to position `start`, of the predictions that have labels after it
    and up to `stop`; in the log's order."""
    table, again = labels.c, labels.alias("again")
    judged_again = sa.select(again.c.prediction_id).where(
        again.c.model_id == log.model, again.c.position > start, again.c.position <= stop
    )
    # + 0: by the index of the predictions, not over all that was said before
    of_model, before = table.model_id + 0 == log.model, table.position + 0 <= start
    query = _said(of_model).where(before, table.prediction_id.in_(judged_again))
    with log.database.read() as connection:
        rows = list(connection.execute(query))
        if log.archive.segments(connection, "labels"):
            about = set(connection.execute(judged_again).scalars())
            about |= {row["prediction_id"] for row in log.archive.labels(connection, start, stop)}
            rows = _archived(log.archive.judging(connection, about, start)) + rows
    return _by_prediction(rows)


def said_within(log: FeedbackLog, start: int, stop: int) -> dict[int, list[Said]]:
    """Prediction → its labels after position `start` and up to `stop`, in the log's order."""
    mine = labels.c.model_id == log.model
    query = _said(mine).where(labels.c.position > start, labels.c.position <= stop)
    with log.database.read() as connection:
        rows = list(connection.execute(query))
        if len(rows) < stop - start:
            rows = _archived(log.archive.labels(connection, start, stop)) + rows
    return _by_prediction(rows)


def said_beside(log: FeedbackLog, connection: Connection, positions: Ints) -> dict[int, list[Said]]:
    """Prediction → all its labels in the log's order, of the predictions that are judged by labels
    at these positions (ascending). Labels that were deleted are passed over.
    """
    sought = positions.tolist()
    names = ("prediction_id", "position")
    rows = rows_among(connection, labels, names, "position", sought, log.model)
    about = {row.prediction_id for row in rows}
    if len(rows) < len(sought):
        about |= _archived_at(log, connection, positions)
    asked = (*_SAID_NAMES, "model_id")
    found = rows_among(connection, labels, asked, "prediction_id", about, None)
    mine = [tuple(row[:-1]) for row in found if row.model_id == log.model]
    mine += _archived(log.archive.judging(connection, about))
    return _by_prediction(sorted(mine, key=lambda row: row[1]))


def _archived_at(log: FeedbackLog, connection: Connection, positions: Ints) -> set[int]:
    """The predictions that are judged by archived labels at these positions."""
    about = set[int]()
    for segment in log.archive.segments(connection, "labels"):
        low, high = positions.searchsorted((segment.first, segment.last + 1)).tolist()
        if low < high and segment.blob is not None:
            asked = log.archive.table(segment).column("prediction_id").to_numpy()
            about |= set(asked[positions[low:high] - segment.first].tolist())
    return about


def propensities(
    log: FeedbackLog, connection: Connection, ids: Collection[int]
) -> dict[int, float | None]:
    """Prediction → the chance with which its output was chosen."""
    names = ("id", "propensity")
    found = {
        row.id: row.propensity
        for row in rows_among(connection, predictions, names, "id", ids, None)
    }
    missing = set(ids) - found.keys()
    archived = log.archive.predictions(connection, missing)
    return found | {number: row["propensity"] for number, row in archived.items()}


def _said(of_model: sa.ColumnElement[bool]) -> sa.Select[Any]:
    table = labels.c
    columns = [table[name] for name in _SAID_NAMES]
    return sa.select(*columns).where(of_model).order_by(table.position)


def _archived(rows: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Archived labels, with the columns of `_said`."""
    return [tuple(row[name] for name in _SAID_NAMES) for row in rows]


def _by_prediction(rows: Iterable[Any]) -> dict[int, list[Said]]:
    found: dict[int, list[Said]] = {}
    said = list(rows)
    for row, value in zip(said, values_of([row[5] for row in said]), strict=True):
        prediction, position, kind, source, reviewer, _, weight, selection = row
        one = Said(position, kind, source, reviewer, value, weight, selection)
        found.setdefault(prediction, []).append(one)
    return found


def append_matured(
    log: FeedbackLog, policy: LabelPolicy, at: int | None = None, since: int | None = None
) -> int:
    """Log a negative for each prediction whose maturity window closed with no label.

    The window begins when the prediction arrived, whatever its event time is. A prediction that was
    labelled once, also if the label was taken back, gets none, and a shadow's answer neither. The
    idempotency key is made from the prediction's id, so that a second call adds nothing.

    Args:
        log: of the model.
        policy: with `unlabelled="negative"`; nothing happens with another.
        at: microseconds since 1970 UTC; now unless said.
        since: what arrived up to this moment was looked at before; all is looked at unless said.

    Returns:
        How many were logged.
    """
    if policy.unlabelled != "negative" or policy.window is None:
        return 0
    closed = (log.database.clock() if at is None else at) - policy.window
    table, count = predictions.c, 0
    after = -1 if since is None else PredictionIds.first(since - LATE) - 1
    judged = sa.exists().where(labels.c.prediction_id == table.id)  # of the same model, then
    while True:
        query = (
            sa.select(table.id)
            .where(
                table.model_id + 0 == log.model,  # in the order of the ids, from `after` on
                table.id > after,
                table.arrived_at <= closed,
                table.arm.not_in(("shadow", ERASED)),
                ~judged,
            )
            .order_by(table.id)
            .limit(PAGE)
        )
        with log.database.read() as connection:
            found = list(connection.execute(query).scalars())
        if not found:
            return count
        with log.database.write() as connection:  # look again: a label may have come since
            log.database.in_commit_order(connection, f"labels/{log.model}")
            still = sa.select(table.id).where(table.id.in_(found), ~judged).order_by(table.id)
            silent = list(connection.execute(still).scalars())
            log.append_labels([_negative(number, policy) for number in silent], connection)
        after, count = found[-1], count + len(silent)


def _negative(number: int, policy: LabelPolicy) -> Label:
    return Label(
        policy.negative,
        id_text(number),
        kind="system",
        source=MATURITY,
        idempotency_key=f"{MATURITY}:{id_text(number)}",
    )
