"""The feedback log: what was predicted, and what was said of it later. Append-only.

A label names its prediction by the id that the prediction was answered with, or by the caller's own
(`external_id`). Labels get positions 1, 2, … per model in the order of their commits: a job learns
a range of positions, so nothing is learned twice or missed. A label whose prediction is not there
yet waits without a position.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import ConflictError, InputError
from everlearn.data.archive import Archive
from everlearn.data.feedback import (
    ERASED,
    Judged,
    Label,
    LoggedPrediction,
    Receipt,
    check,
    id_number,
    text_of,
    values_of,
)
from everlearn.data.pages import Page, archived_row, read_page
from everlearn.data.segments import Row
from everlearn.data.tables import BlobStore
from everlearn.storage.bulk import insert_many, rows_among, take_numbers
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

SPEAKER = ("prediction_id", "kind", "source", "reviewer")
"""Columns that say who speaks of which prediction."""

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
        for label in said:
            check(label)
        if not said:
            return []
        if connection is None:
            with self._database.write() as writing:
                return self.append_labels(said, writing)
        self._database.in_commit_order(connection, f"labels/{self.model}")
        last = sa.select(sa.func.max(labels.c.position)).where(labels.c.model_id == self.model)
        both = sa.select(last.scalar_subquery(), self._archived().scalar_subquery())
        head, archived = connection.execute(both).one()
        found, erased = self._find(connection, said, archived is not None)
        memory = self._memory(connection, said, found, archived is not None)
        position, arrived = head or 0, self._database.clock()
        numbers = take_numbers(connection, labels, len(said))
        rows: list[tuple[Any, ...]] = []
        receipts: list[Receipt] = []
        for label, prediction in zip(said, found, strict=True):
            _, _, name, kind, source, reviewer, weight, selection, at, key = label
            text = None if prediction in erased else text_of(label.value)
            speaker = None if prediction is None else (prediction, kind, source, reviewer)
            before = memory.recall(label, speaker, text)
            if before is not None:
                receipts.append(before)
                continue
            number, here = numbers[len(rows)], None
            digest = "" if key is None or prediction in erased else label.digest
            if speaker is not None:
                position = here = position + 1
                memory.last[speaker] = (text, number, here)
            if key is not None:
                memory.keys[key] = (digest, number, here)
            where = (number, self.model, here, prediction, name)
            what = (kind, text, weight, source, reviewer, selection)
            rows.append((*where, *what, arrived if at is None else at, arrived, key, digest))
            receipts.append(Receipt(number, "waiting" if here is None else "logged", here))
        insert_many(connection, labels, LABEL, rows)
        return receipts

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

    def _find(
        self, connection: Connection, said: Sequence[Label], archived: bool
    ) -> tuple[list[int | None], set[int | None]]:
        """The prediction of each label, or None where it is not known yet; and those of them that
        were erased.

        Raises:
            InputError: an id of ours that was never given out.
        """
        numbers = [
            None if label.prediction is None else id_number(label.prediction) for label in said
        ]
        ids = {number for number in numbers if number is not None}
        names = {label.external_id for label in said if label.external_id is not None}
        asked = ("id", "model_id", "arm", "external_id")
        rows = rows_among(connection, predictions, asked, "id", ids, None)
        there = {number: arm for number, model, arm, _ in rows if model == self.model}
        rows = rows_among(connection, predictions, asked, "external_id", names, self.model)
        by_name = {name: number for number, _, _, name in rows}
        arms = there | {number: arm for number, _, arm, _ in rows}
        if archived:
            away = self.archive.predictions(connection, ids - there.keys())
            older = self.archive.named(connection, names - by_name.keys())
            there |= {number: row["arm"] for number, row in away.items()}
            by_name |= {name: row["id"] for name, row in older.items()}
            arms |= there | {row["id"]: row["arm"] for row in older.values()}
        erased: set[int | None] = {number for number, arm in arms.items() if arm == ERASED}
        if len(there) < len(ids):
            wrong = next(label for label in said if _is_missing(label, there))
            raise InputError(f"there is no prediction {wrong.prediction!r} of this model")
        found = [
            by_name.get(label.external_id) if number is None else number
            for label, number in zip(said, numbers, strict=True)
        ]
        return found, erased

    def _memory(
        self,
        connection: Connection,
        said: Sequence[Label],
        found: Sequence[int | None],
        archived: bool,
    ) -> _Memory:
        """What was said before under the same keys, and of the same predictions."""
        memory = _Memory()
        keys = {label.idempotency_key for label in said if label.idempotency_key is not None}
        of_key = ("idempotency_key", "digest", "id", "position")
        for key, digest, number, position in rows_among(
            connection, labels, of_key, "idempotency_key", keys, self.model
        ):
            memory.keys[key] = (digest, number, position)
        judged = {number for number in found if number is not None}
        if archived:
            for row in self.archive.keys(connection, keys):
                memory.keys[row["idempotency_key"]] = (row["digest"], row["id"], row["position"])
            for row in self.archive.judging(connection, judged):
                speaker = [row[name] for name in SPEAKER]
                memory.last[tuple(speaker)] = (row["value"], row["id"], row["position"])
        of_prediction = ("position", "id", "model_id", "value", *SPEAKER)
        rows = rows_among(connection, labels, of_prediction, "prediction_id", judged, None)
        for position, number, model, value, *speaker in sorted(rows, key=_first):
            if model == self.model:
                memory.last[tuple(speaker)] = (value, number, position)
        return memory

    def _wake(self, connection: Connection, named: dict[str, int]) -> None:
        """Give positions to labels that waited for these predictions. The log is locked.

        Raises:
            ConflictError: an archived prediction has one of the names.
        """
        archived = connection.execute(self._archived()).scalar() is not None
        if archived and self.archive.named(connection, named):
            raise ConflictError("a prediction of this id is logged already")
        table, asked = labels.c, ("id", "external_id", "position")
        found = rows_among(connection, labels, asked, "external_id", named, self.model)
        waiting = [row for row in found if row.position is None]
        if not waiting:
            return
        position = self.head(connection)
        for offset, row in enumerate(sorted(waiting, key=lambda row: row.id), start=1):
            values = {"position": position + offset, "prediction_id": named[row.external_id]}
            connection.execute(sa.update(labels).where(table.id == row.id).values(values))

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


class _Memory:
    """What was said before: by idempotency key (digest, number, position), and last by each speaker
    of each prediction (value, number, position). What is new in the same call is added.
    """

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, int, int | None]] = {}
        self.last: dict[tuple[Any, ...], tuple[str | None, int, int | None]] = {}

    def recall(
        self, label: Label, speaker: tuple[Any, ...] | None, text: str | None
    ) -> Receipt | None:
        """Where the same was said before; by its key, or by what the speaker said last.

        Raises:
            ConflictError: the key came with something else.
        """
        key = label.idempotency_key
        if key is not None:
            if key not in self.keys:
                return None
            digest, number, position = self.keys[key]
            if digest and digest != label.digest:  # else it was erased
                raise ConflictError(f"the idempotency key {key!r} came with another label before")
            return Receipt(number, "known", position)
        if speaker is None or speaker not in self.last:
            return None
        value, number, position = self.last[speaker]
        return Receipt(number, "known", position) if value == text else None


def _is_missing(label: Label, there: Container[int]) -> bool:
    return label.prediction is not None and id_number(label.prediction) not in there


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


def _judged(rows: Sequence[Any]) -> list[Judged]:
    """Rows of `_JUDGED` as labels; column by column, for there may be many."""
    columns = list(zip(*rows, strict=True)) or [()] * len(_JUDGED)
    values, features, outputs = (values_of(columns[at]) for at in (2, 4, 5))
    _, _, _, number, _, _, *others = columns[:12]
    asked = map(_prediction, zip(number, features, outputs, *others, strict=True))
    kind, *others = columns[12:]
    said = zip(columns[0], columns[1], asked, kind, values, *others, strict=True)
    return list(map(_label, said))
