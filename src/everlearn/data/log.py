"""The feedback log: what was predicted, and what was said of it later. Append-only.

A label names its prediction by the id that the prediction was answered with, or by the caller's own
(`external_id`). Labels get positions 1, 2, … per model in the order of their commits: a job learns
a range of positions, so nothing is learned twice or missed. A label whose prediction is not there
yet waits without a position.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import ConflictError, InputError, Json
from everlearn.data.feedback import (
    Judged,
    Label,
    LoggedPrediction,
    Receipt,
    check,
    id_number,
    now,
)
from everlearn.storage.database import Database
from everlearn.storage.schema import labels, predictions

PAGE = 500
"""Names that are looked up in one query."""


class FeedbackLog:
    """The log of one model.

    Args:
        database: of the workspace.
        model: row id of the model.
    """

    def __init__(self, database: Database, model: int) -> None:
        self._database, self.model = database, model

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
        arrived = now()
        try:
            connection.execute(sa.insert(predictions), [self._row(row, arrived) for row in rows])
        except sa.exc.IntegrityError as error:
            raise ConflictError("a prediction of this id is logged already") from error
        named = {row.external_id: row.id for row in rows if row.external_id is not None}
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
        found = self._find(connection, said)
        memory = self._memory(connection, said, found)
        position, arrived = self.head(connection), now()
        rows: list[dict[str, Any]] = []
        became: list[Receipt | int] = []  # said before, or the place among the new rows
        for label, prediction in zip(said, found, strict=True):
            before = memory.recall(label, prediction)
            if before is None:
                here = None if prediction is None else position + 1
                position = here or position
                before = len(rows)
                rows.append(self._label_row(label, prediction, here, arrived))
                memory.remember(label, prediction, before)
            became.append(before)
        return _receipts(became, rows, self._insert(connection, rows))

    def head(self, connection: Connection | None = None) -> int:
        """The position of the last label; 0 if there is none."""
        if connection is None:
            with self._database.read() as reading:
                return self.head(reading)
        query = sa.select(sa.func.max(labels.c.position)).where(labels.c.model_id == self.model)
        return int(connection.execute(query).scalar() or 0)

    def judged(self, upto: int, again: tuple[int, int]) -> set[int]:
        """The predictions with a label at a position up to `upto` and another one within `again`
        (after its first, up to its second position)."""
        old, new = labels.alias("old"), labels.alias("new")
        query = (
            sa.select(old.c.prediction_id)
            .join(
                new, (new.c.prediction_id == old.c.prediction_id) & (new.c.model_id == self.model)
            )
            .where(
                old.c.model_id == self.model,
                old.c.position <= upto,
                new.c.position > again[0],
                new.c.position <= again[1],
            )
            .distinct()
        )
        with self._database.read() as connection:
            return set(connection.execute(query).scalars())

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

    def judges(self, after: int, upto: int) -> list[tuple[int, int]]:
        """(position, id of the prediction) of the labels with after < position ≤ upto."""
        table = labels.c
        query = sa.select(table.position, table.prediction_id).where(
            table.model_id == self.model, table.position > after, table.position <= upto
        )
        with self._database.read() as connection:
            found = connection.execute(query.order_by(table.position))
            return [(row.position, row.prediction_id) for row in found]

    # --- inside ---

    def _row(self, row: LoggedPrediction, arrived: int) -> dict[str, Any]:
        return {
            "id": row.id,
            "model_id": self.model,
            "external_id": row.external_id,
            "version": row.version,
            "arm": row.arm,
            "key": row.key,
            "features": _text(row.features),
            "output": _text(row.output),
            "propensity": row.propensity,
            "at": arrived if row.at is None else row.at,
            "arrived_at": arrived,
        }

    def _label_row(
        self, label: Label, prediction: int | None, position: int | None, arrived: int
    ) -> dict[str, Any]:
        return {
            "model_id": self.model,
            "position": position,
            "prediction_id": prediction,
            "external_id": label.external_id,
            "kind": label.kind,
            "value": _text(label.value),
            "weight": label.weight,
            "source": label.source,
            "reviewer": label.reviewer,
            "selection": label.selection,
            "at": arrived if label.at is None else label.at,
            "arrived_at": arrived,
            "idempotency_key": label.idempotency_key,
            "digest": label.digest,
        }

    def _find(self, connection: Connection, said: Sequence[Label]) -> list[int | None]:
        """The prediction of each label, or None where it is not known yet.

        Raises:
            InputError: an id of ours that was never given out.
        """
        ids = {id_number(label.prediction) for label in said if label.prediction is not None}
        there: set[int] = set()
        by_name: dict[str, int] = {}
        table = predictions.c
        mine = sa.select(table.id, table.external_id).where(table.model_id == self.model)
        for part in _pages(ids):
            there |= set(connection.execute(mine.where(table.id.in_(part))).scalars())
        names = {label.external_id for label in said if label.external_id is not None}
        for part in _pages(names):
            for row in connection.execute(mine.where(table.external_id.in_(part))):
                by_name[row.external_id] = row.id
        found: list[int | None] = []
        for label in said:
            if label.prediction is None:
                found.append(by_name.get(str(label.external_id)))
                continue
            number = id_number(label.prediction)
            if number not in there:
                raise InputError(f"there is no prediction {label.prediction!r} of this model")
            found.append(number)
        return found

    def _memory(
        self, connection: Connection, said: Sequence[Label], found: Sequence[int | None]
    ) -> _Memory:
        """What was said before under the same keys, and of the same predictions."""
        memory, table = _Memory(), labels.c
        mine = sa.select(labels).where(table.model_id == self.model)
        keys = {label.idempotency_key for label in said if label.idempotency_key is not None}
        for part in _pages(keys):
            for row in connection.execute(mine.where(table.idempotency_key.in_(part))):
                receipt = Receipt(row.id, "known", row.position)
                memory.keys[row.idempotency_key] = (row.digest, receipt)
        for part in _pages({number for number in found if number is not None}):
            judging = mine.where(table.prediction_id.in_(part)).order_by(table.position)
            for row in connection.execute(judging):
                speaker = (row.prediction_id, row.kind, row.source, row.reviewer)
                memory.last[speaker] = (row.value, Receipt(row.id, "known", row.position))
        return memory

    def _insert(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> list[int]:
        """Insert labels; their numbers, in the same order."""
        if not rows:
            return []
        insert = sa.insert(labels).returning(labels.c.id, sort_by_parameter_order=True)
        return list(connection.execute(insert, rows).scalars())

    def _wake(self, connection: Connection, named: dict[str, int]) -> None:
        """Give positions to labels that waited for these predictions."""
        table = labels.c
        waiting: list[Any] = []
        for part in _pages(named):
            query = sa.select(table.id, table.external_id).where(
                table.model_id == self.model, table.position.is_(None), table.external_id.in_(part)
            )
            waiting += connection.execute(query)
        if not waiting:
            return
        self._database.in_commit_order(connection, f"labels/{self.model}")
        position = self.head(connection)
        for offset, row in enumerate(sorted(waiting, key=lambda row: row.id), start=1):
            values = {"position": position + offset, "prediction_id": named[row.external_id]}
            connection.execute(sa.update(labels).where(table.id == row.id).values(values))

    def _page(self, after: int, upto: int, known: int | None = None) -> list[Judged]:
        query = (
            sa.select(labels, predictions)
            .join(predictions, predictions.c.id == labels.c.prediction_id)
            .where(
                labels.c.model_id == self.model,
                labels.c.position > after,
                labels.c.position <= upto,
            )
            .order_by(labels.c.position)
            .set_label_style(sa.LABEL_STYLE_TABLENAME_PLUS_COL)
        )
        if known is not None:
            query = query.where(labels.c.arrived_at <= known, predictions.c.arrived_at <= known)
        with self._database.read() as connection:
            return [_judged(row) for row in connection.execute(query).mappings()]


class _Memory:
    """What was said before: by idempotency key, and last by each speaker of each prediction. What
    is new in the same call is remembered by its place among the new rows.
    """

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, Receipt | int]] = {}
        self.last: dict[tuple[Any, ...], tuple[str | None, Receipt | int]] = {}

    def recall(self, label: Label, prediction: int | None) -> Receipt | int | None:
        """Where the same was said before; by its key, or by what the speaker said last.

        Raises:
            ConflictError: the key came with something else.
        """
        if label.idempotency_key is not None:
            digest, before = self.keys.get(label.idempotency_key, (label.digest, None))
            if digest != label.digest:
                raise ConflictError(
                    f"the idempotency key {label.idempotency_key!r} came with another label before"
                )
            return before
        if prediction is None or _speaker(prediction, label) not in self.last:
            return None
        value, receipt = self.last[_speaker(prediction, label)]
        return receipt if value == _text(label.value) else None

    def remember(self, label: Label, prediction: int | None, place: int) -> None:
        """A new label, the `place`-th new row."""
        if label.idempotency_key is not None:
            self.keys[label.idempotency_key] = (label.digest, place)
        if prediction is not None:
            self.last[_speaker(prediction, label)] = (_text(label.value), place)


def _receipts(
    became: Sequence[Receipt | int], rows: Sequence[dict[str, Any]], numbers: Sequence[int]
) -> list[Receipt]:
    """The receipt of each label: of one said before, of a new row, or of one said twice here."""
    receipts: list[Receipt] = []
    given: set[int] = set()
    for what in became:
        if isinstance(what, Receipt):
            receipts.append(what)
            continue
        position = rows[what]["position"]
        state: Any = "waiting" if position is None else "logged"
        receipts.append(Receipt(numbers[what], "known" if what in given else state, position))
        given.add(what)
    return receipts


def _speaker(prediction: int, label: Label) -> tuple[Any, ...]:
    return (prediction, label.kind, label.source, label.reviewer)


def _text(value: Json) -> str | None:
    return None if value is None else json.dumps(value, allow_nan=False, separators=(",", ":"))


def _value(text: str | None) -> Json:
    return None if text is None else json.loads(text)


def _pages(values: Iterable[Any]) -> Iterator[list[Any]]:
    listed = list(values)
    for start in range(0, len(listed), PAGE):
        yield listed[start : start + PAGE]


def _judged(row: Any) -> Judged:
    def of(name: str) -> Any:
        return row[f"predictions_{name}"]

    return Judged(
        position=row["labels_position"],
        label=row["labels_id"],
        prediction=LoggedPrediction(
            id=of("id"),
            features=_value(of("features")),
            output=_value(of("output")),
            version=of("version"),
            arm=of("arm"),
            key=of("key"),
            external_id=of("external_id"),
            propensity=of("propensity"),
            at=of("at"),
        ),
        kind=row["labels_kind"],
        value=_value(row["labels_value"]),
        source=row["labels_source"],
        reviewer=row["labels_reviewer"],
        weight=row["labels_weight"],
        selection=row["labels_selection"],
        at=row["labels_at"],
        arrived_at=row["labels_arrived_at"],
    )
