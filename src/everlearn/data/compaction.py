"""Moves old rows of the feedback log from its tables into Parquet blobs, and drops the oldest.

A segment is written whole to the blobs first; then one transaction adds the row that points at it
and deletes what is in it. Whoever is killed in between leaves a blob that nothing refers to.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import IntegrityError, Json, NotFoundError, crash_point
from everlearn.data.feedback import now
from everlearn.data.log import FeedbackLog
from everlearn.data.segments import NAMES, TABLES, File, Kind, hashed, names_in, write_rows
from everlearn.storage.blobs import Blobs
from everlearn.storage.bulk import insert_many
from everlearn.storage.schema import (
    archive_names,
    archives,
    erasures,
    labels,
    predictions,
    review_items,
)

SEGMENT = 20_000
"""Rows in a segment, and in a transaction."""

MOST_REFUSED = 5
"""Times in a row that a segment is read anew because its rows were changed meanwhile."""

BUSY = "others changed the rows meanwhile"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be moved.

    Args:
        before: what arrived before this moment, in microseconds since 1970 UTC.
        upto: labels up to this position.
        held: why `before` or `upto` are not what was asked for; "" if they are.
    """

    before: int
    upto: int
    held: str = ""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was moved, or with a dry run would be.

    Args:
        predictions, labels: rows.
        segments: files that were written.
        bytes: their size.
        dropped: rows that were deleted for good.
        held: why younger rows were left.
    """

    predictions: int = 0
    labels: int = 0
    segments: int = 0
    bytes: int = 0
    dropped: int = 0
    held: str = ""

    def to_json(self) -> dict[str, Json]:
        """What `everlearn compact --json` prints of a model."""
        return asdict(self)


def compact(
    log: FeedbackLog, blobs: Blobs, bounds: Bounds, *, dry_run: bool = False, rows: int = SEGMENT
) -> Compacted:
    """Move the rows within the bounds into blobs.

    A prediction whose review is open stays, and its labels with it; so does the newest label, from
    which numbers and positions go on. Labels are moved in the order of their positions, without a
    gap. Safe while others append, compact and erase.

    Args:
        rows: in a segment.
    """
    upto = _last_label(log, bounds)
    old = _old_predictions(log, bounds)
    mine = _old_labels(log, upto)
    if dry_run:
        with log.database.read() as connection:
            counts = [
                int(connection.execute(sa.select(sa.func.count()).where(which)).scalar() or 0)
                for which in (old, mine)
            ]
        return Compacted(counts[0], counts[1], held=bounds.held)
    _name_older(log, blobs)
    done = Compacted(held=bounds.held)
    done = _move(log, blobs, "predictions", old, rows, done)
    return _move(log, blobs, "labels", mine, rows, done)


def drop(log: FeedbackLog, blobs: Blobs, before: int, *, dry_run: bool = False) -> int:
    """Delete the segments whose rows all arrived before a moment, and the labels that have waited
    for a prediction since, for good; returns how many rows.

    Labels go first, so that none is left without its prediction: predictions are deleted once no
    label that is kept judges one of their segment.

    Args:
        before: microseconds since 1970 UTC.
    """
    names: dict[str, list[int]] = {}
    while True:
        with log.database.write() as connection:
            log.database.in_commit_order(connection, f"labels/{log.model}")
            chosen = _droppable(connection, log, before)
            known = all(row.blob in names for row in chosen)
            waited = sa.select(sa.func.count()).where(_waited(log, before))
            count = sum(int(row.rows) for row in chosen) + connection.execute(waited).scalar_one()
            if known and not dry_run:
                _forget(connection, chosen, names)
                connection.execute(sa.delete(labels).where(_waited(log, before)))
                crash_point("archive.dropped")
        if known or dry_run:
            break
        names = {row.blob: _names_of(row, blobs) for row in chosen}
    if not dry_run:
        for row in chosen:
            blobs.delete(row.blob)
    return count


def _names_of(row: Any, blobs: Blobs) -> list[int]:
    """The names in a segment; none of a file that cannot be read, which is deleted all the same."""
    with suppress(NotFoundError, IntegrityError):
        return names_in(File(blobs.get(row.blob)), row.kind)
    return []


def _waited(log: FeedbackLog, before: int) -> sa.ColumnElement[bool]:
    """The labels that wait for a prediction and may be deleted: not the newest, from which numbers
    go on."""
    table = labels.c
    newest = sa.select(sa.func.max(table.id)).scalar_subquery()
    return sa.and_(
        table.model_id == log.model,
        table.position.is_(None),
        table.arrived_at < before,
        table.id != newest,
    )


def _droppable(connection: Connection, log: FeedbackLog, before: int) -> list[Any]:
    """The rows of the segments that may be deleted."""
    table, chosen = archives.c, list[Any]()
    mine = sa.select(archives).where(table.model_id == log.model, table.blob.is_not(None))
    found = list(connection.execute(mine.order_by(table.kind, table.first)))
    for row in (row for row in found if row.kind == "labels"):
        if row.arrived_at >= before:
            break  # positions are deleted from the start on
        chosen.append(row)
    kept = [row for row in found if row.kind == "labels" and row not in chosen]
    for row in (row for row in found if row.kind == "predictions"):
        judged = any(one.lowest <= row.last and one.highest >= row.first for one in kept)
        hot = sa.select(labels.c.id).where(
            labels.c.model_id == log.model,
            labels.c.prediction_id >= row.first,
            labels.c.prediction_id <= row.last,
        )
        if row.arrived_at < before and not judged and not connection.execute(hot.limit(1)).first():
            chosen.append(row)
    return chosen


def _forget(connection: Connection, chosen: list[Any], names: dict[str, list[int]]) -> None:
    """Let segments point at no file; nobody finds rows there by a name any more."""
    table, index = archives.c, archive_names.c
    if not chosen:
        return
    change = sa.update(archives).where(table.id.in_([row.id for row in chosen]))
    connection.execute(change.values(blob=None, dropped_at=now()))
    gone = [{"at": row.id, "called": name} for row in chosen for name in names[row.blob]]
    here = sa.and_(index.name == sa.bindparam("called"), index.archive_id == sa.bindparam("at"))
    if gone:
        connection.execute(sa.delete(archive_names).where(here), gone)


# --- which rows ---


def _old_predictions(log: FeedbackLog, bounds: Bounds) -> sa.ColumnElement[bool]:
    table = predictions.c
    return sa.and_(
        table.model_id == log.model, table.arrived_at < bounds.before, ~_in_review(table.id)
    )


def _old_labels(log: FeedbackLog, upto: int) -> sa.ColumnElement[bool]:
    return sa.and_(labels.c.model_id == log.model, labels.c.position <= upto)


def _in_review(prediction: Any) -> sa.ColumnElement[bool]:
    item = review_items.c
    return sa.exists().where(
        item.prediction_id == prediction, item.state.in_(("waiting", "claimed"))
    )


def _last_label(log: FeedbackLog, bounds: Bounds) -> int:
    """The last position of those that may all be moved; 0 if there is none."""
    table, asked = labels.c, predictions.c
    mine = table.model_id == log.model
    with log.database.read() as connection:
        newest = sa.select(table.position).where(mine).order_by(table.id.desc()).limit(1)
        last = connection.execute(newest).scalar()
        head = log.head(connection)
        end = min(bounds.upto, (head if last is None else min(head, last)) - 1)
        stays = sa.exists().where(
            asked.id == table.prediction_id,
            sa.or_(asked.arrived_at >= bounds.before, _in_review(asked.id)),
        )
        blocked = sa.select(table.position).where(
            mine,
            table.position <= end,
            sa.or_(table.arrived_at >= bounds.before, stays),
        )
        first = connection.execute(blocked.order_by(table.position).limit(1)).scalar()
    return max(end if first is None else first - 1, 0)


# --- moving them ---


def _move(
    log: FeedbackLog,
    blobs: Blobs,
    kind: Kind,
    which: sa.ColumnElement[bool],
    rows: int,
    done: Compacted,
) -> Compacted:
    """Move all such rows, segment by segment."""
    table = TABLES[kind]
    order = table.c.id if kind == "predictions" else table.c.position
    refused = 0
    while refused < MOST_REFUSED:
        with log.database.read() as connection:
            query = sa.select(table).where(which).order_by(order).limit(rows)
            found = [dict(row) for row in connection.execute(query).mappings()]
            erased = _erasures(connection, log.model)
        if not found:
            return done
        data = write_rows(kind, found)
        blob = blobs.put(data)
        crash_point("archive.written")
        first, last = found[0][order.name], found[-1][order.name]
        about = [row["id" if kind == "predictions" else "prediction_id"] for row in found]
        made = {
            "model_id": log.model,
            "kind": kind,
            "blob": blob,
            "rows": len(found),
            "first": first,
            "last": last,
            "lowest": min(about),
            "highest": max(about),
            "arrived_at": max(row["arrived_at"] for row in found),
            "created_at": now(),
        }
        named = [row[NAMES[kind]] for row in found]
        names = sorted(set(hashed([name for name in named if name is not None])))
        here = sa.and_(which, order >= first, order <= last)
        if _swap(log, table, here, made, names, erased):
            crash_point("archive.moved")
            done = replace(
                done,
                **{kind: getattr(done, kind) + len(found)},
                segments=done.segments + 1,
                bytes=done.bytes + len(data),
            )
            refused = 0
        else:  # erased, moved by another, or wanted for review meanwhile
            refused += 1
    return replace(done, held=done.held or BUSY)


def _swap(
    log: FeedbackLog,
    table: sa.Table,
    here: sa.ColumnElement[bool],
    made: dict[str, Any],
    names: list[int],
    erased: int,
) -> bool:
    """Delete the rows of a segment and point at its file, unless they are not what was read.

    Args:
        here: the rows.
        made: the row that points at the file.
        names: hashes by which its rows are found.
        erased: how many erasures there were when they were read.
    """
    with suppress(_ChangedError), log.database.write() as connection:
        log.database.in_commit_order(connection, f"labels/{log.model}")
        stays = sa.exists().where(predictions.c.id == labels.c.prediction_id)
        left = sa.select(labels.c.id).where(here, stays).limit(1)
        alone = table is labels and connection.execute(left).first()
        if alone or _erasures(connection, log.model) != erased:
            raise _ChangedError
        if connection.execute(sa.delete(table).where(here)).rowcount != made["rows"]:
            raise _ChangedError
        crash_point("archive.deleted")
        row = connection.execute(sa.insert(archives).values(**made, named=len(names)))
        assert row.inserted_primary_key is not None
        _add_names(connection, row.inserted_primary_key[0], names)
        return True
    return False


def _add_names(connection: Connection, number: int, names: list[int]) -> None:
    rows = [(name, number) for name in names]
    insert_many(connection, archive_names, ("name", "archive_id"), rows)


def _name_older(log: FeedbackLog, blobs: Blobs) -> None:
    """Index the segments that were made before names were indexed."""
    table = archives.c
    older = sa.select(table.id, table.kind, table.blob).where(
        table.model_id == log.model, table.blob.is_not(None), table.named.is_(None)
    )
    with log.database.read() as connection:
        found = connection.execute(older).all()
    for row in found:
        names = names_in(File(blobs.get(row.blob)), row.kind)
        with log.database.write() as connection:
            mine = sa.update(archives).where(table.id == row.id, table.blob == row.blob)
            mine = mine.where(table.named.is_(None)).values(named=len(names))
            if connection.execute(mine).rowcount:
                _add_names(connection, row.id, names)


class _ChangedError(Exception):
    """The rows of a segment are not what was read."""


def _erasures(connection: Connection, model: int) -> int:
    """Grows with every erasure."""
    query = sa.select(sa.func.count()).where(erasures.c.model_id == model)
    return int(connection.execute(query).scalar() or 0)
