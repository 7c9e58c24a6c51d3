"""The feedback log: what was predicted, and what was said of it later. Append-only.

A label names its prediction by the id that the prediction was answered with, or by the caller's own
(`external_id`). Labels get positions 1, 2, … per model in the order of their commits: a job learns
a range of positions, so nothing is learned twice or missed. A label whose prediction is not there
yet waits without a position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import ConflictError
from everlearn.data.archive import Archive
from everlearn.data.feedback import (
    Judged,
    Label,
    LoggedPrediction,
    Receipt,
    check_all,
    text_of,
    values_of,
)
from everlearn.data.pages import Page, archived_row, read_page
from everlearn.data.recall import Judging, Memory, find
from everlearn.data.segments import Row
from everlearn.data.tables import BlobStore
from everlearn.storage.bulk import fetch_among, insert_many, rows_among, take_numbers
from everlearn.storage.database import Database
from everlearn.storage.schema import archives, erasures, labels, predictions

PREDICTION = (
    "id",
    "model_id",
    "external_id",
    "version",
    "arm",
    "key",
    "features",
    "output",
    "propensity",
    "at",
    "arrived_at",
)
"""Columns of a prediction that is logged."""

LABEL = (
    "id",
    "model_id",
    "position",
    "prediction_id",
    "external_id",
    "kind",
    "value",
    "weight",
    "source",
    "reviewer",
    "selection",
    "at",
    "arrived_at",
    "idempotency_key",
    "digest",
)
"""Columns of a label that is logged."""


class FeedbackLog:
    """The log of one model.

    Args:
        database: of the workspace.
        model: row id of the model.
        blobs: where old rows may have been moved to; see `data.compaction`.
    """

    def __init__(self, database: Database, model: int, blobs: BlobStore | None = None) -> None:
        self._database, self.model = database, model
        self.archive = Archive(model, blobs)

    @property
    def database(self) -> Database:
        """In which it is."""
        return self._database

    def append_predictions(
        self, rows: Sequence[LoggedPrediction], connection: Connection | None = None
    ) -> None:
        """Log answers, durably when it returns.

        Args:
            rows: in any number; one transaction for all.
            connection: of a writing transaction to take part in.

        Raises:
            ConflictError: an id or an external id is there already; nothing was logged.
        """
        if not rows:
            return
        if connection is None:
            with self._database.write() as writing:
                self.append_predictions(rows, writing)
            return
        arrived = self._database.clock()
        made = []
        for number, features, output, version, arm, key, name, propensity, at in rows:
            who = (number, self.model, name, version, arm, key)
            what = (text_of(features), text_of(output), propensity)
            made.append((*who, *what, arrived if at is None else at, arrived))
        named = {row.external_id: row.id for row in rows if row.external_id is not None}
        if named:  # labels of them may be on their way: one of the two has to see the other
            self._database.in_commit_order(connection, f"labels/{self.model}")
        try:
            insert_many(connection, predictions, PREDICTION, made)
        except sa.exc.IntegrityError as error:
            raise ConflictError("a prediction of this id is logged already") from error
        if named:
            self._wake(connection, named)

    def append_labels(
        self, said: Sequence[Label], connection: Connection | None = None
    ) -> list[Receipt]:
        """Log labels, durably when it returns; what was said before is not logged again.

        Raises:
            InputError: a label that names no prediction or two, an unknown kind, a weight or a
                chance that is none.
            ConflictError: an idempotency key that said something else before. Nothing was logged.
        """
        check_all(said)
        if not said:
            return []
        if connection is None:
            with self._database.write() as writing:
                return self.append_labels(said, writing)
        self._database.in_commit_order(connection, f"labels/{self.model}")
        last = sa.select(sa.func.max(labels.c.position)).where(labels.c.model_id == self.model)
        both = sa.select(last.scalar_subquery(), self._archived().scalar_subquery())
        head, archived = connection.execute(both).one()
        archive = None if archived is None else self.archive
        judging = find(connection, self.model, said, archive)
        keys = {label.idempotency_key for label in said if label.idempotency_key is not None}
        memory = Memory.of(connection, self.model, keys, judging, archive)
        numbers, head = take_numbers(connection, labels, len(said)), head or 0
        rows, receipts = self._rows(said, judging, memory, numbers, head)
        insert_many(connection, labels, LABEL, rows)
        return receipts

    def _rows(
        self,
        said: Sequence[Label],
        judging: Judging,
        memory: Memory,
        numbers: Sequence[int],
        head: int,
    ) -> tuple[list[tuple[Any, ...]], list[Receipt]]:
        """The rows of labels that are logged after a position, and the receipts of all."""
        position, arrived = head, self._database.clock()
        rows: list[tuple[Any, ...]] = []
        receipts: list[Receipt] = []
        last, erased = memory.last, judging.erased
        for label, prediction in zip(said, judging.found, strict=True):
            value, _, name, kind, source, reviewer, weight, selection, at, key = label
            text = None if prediction in erased else text_of(value)
            speaker = None if prediction is None else (prediction, kind, source, reviewer)
            if key is not None or speaker in last:
                before = memory.recall(label, speaker, text)
                if before is not None:
                    receipts.append(before)
                    continue
            number, here = numbers[len(rows)], None
            digest = "" if key is None or prediction in erased else label.digest
            if speaker is not None:
                position = here = position + 1
                last[speaker] = (text, number, here)
            if key is not None:
                memory.keys[key] = (digest, number, here)
            where = (number, self.model, here, prediction, name)
            what = (kind, text, weight, source, reviewer, selection)
            rows.append((*where, *what, arrived if at is None else at, arrived, key, digest))
            receipts.append(_receipt((number, "waiting" if here is None else "logged", here)))
        return rows, receipts

    def head(self, connection: Connection | None = None) -> int:
        """The position of the last label; 0 if there is none."""
        if connection is None:
            with self._database.read() as reading:
                return self.head(reading)
        query = sa.select(sa.func.max(labels.c.position)).where(labels.c.model_id == self.model)
        return int(connection.execute(query).scalar() or 0)

    def first(self) -> int:
        """The position after which all labels are kept: 0 unless old ones were deleted."""
        with self._database.read() as connection:
            return self.archive.kept_after(connection)

    def erased(self) -> int:
        """A number that grows whenever data is erased; see `data.erasure`."""
        query = sa.select(sa.func.max(erasures.c.id)).where(erasures.c.model_id == self.model)
        with self._database.read() as connection:
            return int(connection.execute(query).scalar() or 0)

    def judged(self, upto: int, again: tuple[int, int]) -> set[int]:
        """The predictions with a label at a position up to `upto` and another one within `again`
        (after its first, up to its second position)."""
        table = labels.c
        recent = sa.select(table.prediction_id).where(
            table.model_id == self.model, table.position > again[0], table.position <= again[1]
        )
        with self._database.read() as connection:
            about = set(connection.execute(recent).scalars())
            names = ("prediction_id", "model_id", "position")
            rows = rows_among(connection, labels, names, "prediction_id", about, None)
        return {
            prediction
            for prediction, model, position in rows
            if model == self.model and position is not None and position <= upto
        }

    def read(
        self, after: int = 0, upto: int | None = None, page: int = 5000, known: int | None = None
    ) -> Iterator[Judged]:
        """Labels with after < position ≤ upto beside their predictions, in the log's order.

        Pages are read one by one: no snapshot is held while the caller works.

        Args:
            known: only what had arrived by this moment, label and prediction.
        """
        upto = self.head() if upto is None else upto
        while after < upto:
            rows = self._page(after, min(upto, after + page), known)
            yield from rows
            after = min(upto, after + page)

    def pages(
        self, after: int = 0, upto: int | None = None, size: int = 5000, known: int | None = None
    ) -> Iterator[Page]:
        """The same labels column by column, without the answers; none of the pages is empty."""
        upto = self.head() if upto is None else upto
        while after < upto:
            stop = min(upto, after + size)
            with self._database.read() as connection:
                rows = read_page(connection, self.model, after, stop, known)
                if len(rows) < stop - after:
                    older = self.archive.judged(connection, after, stop, known)
                    rows += [archived_row(label, asked) for label, asked in older]
                    rows.sort(key=_first)
            if rows:
                yield Page.of(rows)
            after = stop

    # --- inside ---

    def _archived(self) -> sa.Select[tuple[int]]:
        """NULL where nothing was ever archived."""
        return sa.select(sa.func.max(archives.c.id)).where(archives.c.model_id == self.model)

    def _wake(self, connection: Connection, named: dict[str, int]) -> None:
        """Give positions to labels that waited for these predictions. The log is locked.

        Raises:
            ConflictError: an archived prediction has one of the names.
        """
        archived = connection.execute(self._archived()).scalar() is not None
        if archived and self.archive.named(connection, named):
            raise ConflictError("a prediction of this id is logged already")
        asked, names = ("t.id", "t.external_id"), named.keys()
        waiting = fetch_among(
            connection, labels, asked, "external_id", names, self.model, "t.position IS NULL"
        )
        if not waiting:
            return
        position = self.head(connection)
        for offset, (number, name) in enumerate(sorted(waiting), start=1):
            values = {"position": position + offset, "prediction_id": named[name]}
            connection.execute(sa.update(labels).where(labels.c.id == number).values(values))

    def _page(self, after: int, upto: int, known: int | None = None) -> list[Judged]:
        table = labels.c
        query = (
            sa.select(*_JUDGED)
            .join(predictions, predictions.c.id == table.prediction_id)
            .where(table.model_id == self.model, table.position > after, table.position <= upto)
            .order_by(table.position)
        )
        if known is not None:
            query = query.where(labels.c.arrived_at <= known, predictions.c.arrived_at <= known)
        with self._database.read() as connection:
            rows: list[Any] = list(connection.execute(query).all())
            if len(rows) < upto - after:
                older = self.archive.judged(connection, after, upto, known)
                rows += [_archived_row(label, asked) for label, asked in older]
                rows.sort(key=_first)
        return _judged(rows)


def _first(row: Any) -> Any:
    return row[0]


_ASKED = ("features", "output", "version", "arm", "key", "external_id", "propensity", "at")
_SAID = ("kind", "source", "reviewer", "weight", "selection", "at", "arrived_at")
_JUDGED = [labels.c.position, labels.c.id, labels.c.value, predictions.c.id.label("prediction")]
_JUDGED += [predictions.c[name].label(f"asked_{name}") for name in _ASKED]
_JUDGED += [labels.c[name] for name in _SAID]


def _archived_row(label: Row, asked: Row) -> tuple[Any, ...]:
    """The columns of `_JUDGED`."""
    first = (label["position"], label["id"], label["value"], asked["id"])
    return (*first, *(asked[name] for name in _ASKED), *(label[name] for name in _SAID))


_prediction: Any = partial(tuple.__new__, LoggedPrediction)
_label: Any = partial(tuple.__new__, Judged)
_receipt: Any = partial(tuple.__new__, Receipt)


def _judged(rows: Sequence[Any]) -> list[Judged]:
    """Rows of `_JUDGED` as labels; column by column, for there may be many."""
    columns = list(zip(*rows, strict=True)) or [()] * len(_JUDGED)
    values, features, outputs = (values_of(columns[at]) for at in (2, 4, 5))
    _, _, _, number, _, _, *others = columns[:12]
    asked = map(_prediction, zip(number, features, outputs, *others, strict=True))
    kind, *others = columns[12:]
    said = zip(columns[0], columns[1], asked, kind, values, *others, strict=True)
    return list(map(_label, said))
