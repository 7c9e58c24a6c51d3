"""From a stream into the feedback log: events and offsets in one transaction, batch by batch.

A message that was read before (its offset says so) is passed over, and an event that was logged
before (its ids say so) is not logged again: a redelivery, a kill and a second reader change
nothing. What cannot be logged is set aside with its reason, and the stream goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import ConflictError, InputError, Json, crash_point, digest_bytes
from everlearn.data.feedback import ERASED, Label, LoggedPrediction, PredictionIds, id_number, now
from everlearn.data.log import FeedbackLog
from everlearn.data.streams.aside import Aside, SetAside, pages
from everlearn.data.streams.events import UNNUMBERED, read_event
from everlearn.storage.schema import predictions, stream_offsets

ATTEMPTS = 5
"""How often a batch is tried that another process was in the way of."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a stream delivers.

    Args:
        partition: in which it is; 0 in a stream that has none.
        offset: its place in the partition, growing; None in a stream without.
        body: its bytes.
        handle: what the stream needs to acknowledge it.
    """

    partition: int
    offset: int | None
    body: bytes
    handle: Any = None


@dataclass(frozen=True, slots=True)
class Lost:
    """Messages that the stream removed before they were read: start ≤ offset < stop."""

    partition: int
    start: int
    stop: int


class Stream(Protocol):
    """Something that delivers messages, each partition in the order of its offsets."""

    name: str
    """By which the workspace knows it: its URL, without secrets."""

    source: str
    """Of labels that name none."""

    def begin(self, positions: Mapping[int, int]) -> list[Lost]:
        """Connect, and deliver from here on.

        Args:
            positions: partition → offset of the next message; a partition that is not named, from
                its first message that there is.

        Returns:
            What should have been delivered and is there no more.

        Raises:
            InputError: there is no such stream, or it is another one than that of the positions.
            StorageError: it cannot be reached; so do `poll` and `done`.
        """
        ...

    def poll(self, most: int, seconds: float) -> list[Message]:
        """What is delivered within some seconds; earlier, if it is the most."""
        ...

    def done(self, messages: Sequence[Message]) -> None:
        """Messages are committed, and need not be delivered again."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


@dataclass(slots=True)
class Counts:
    """What became of messages.

    Args:
        predictions, labels: events that were logged.
        known: events that were there already, and messages that were read before.
        set_aside: messages that could not be logged, or not yet.
    """

    predictions: int = 0
    labels: int = 0
    known: int = 0
    set_aside: int = 0

    def add(self, other: Counts) -> None:
        """Count another batch."""
        self.predictions += other.predictions
        self.labels += other.labels
        self.known += other.known
        self.set_aside += other.set_aside

    def to_json(self) -> dict[str, Json]:
        """The same as JSON."""
        return asdict(self)


@dataclass(slots=True)
class _Batch:
    """The events of a batch, each with the message it came in."""

    predictions: list[tuple[Message, LoggedPrediction]] = field(default_factory=list)
    labels: list[tuple[Message, Label]] = field(default_factory=list)


class Intake:
    """Takes the messages of one stream into the log of one model.

    Args:
        log: of the model.
        ids: that number predictions which come without an id.
        name, source: of the stream.
    """

    def __init__(self, log: FeedbackLog, ids: PredictionIds, name: str, source: str) -> None:
        self._log, self._ids, self._name, self._source = log, ids, name, source
        self._aside = SetAside(log, name)

    def positions(self) -> dict[int, int]:
        """Partition → offset of the next message."""
        with self._log.database.read() as connection:
            return self._positions(connection)

    def aside(self) -> list[Aside]:
        """What is set aside."""
        return self._aside.all()

    def take(self, messages: Sequence[Message]) -> Counts:
        """Log the events of a batch, durably when it returns, with the offsets that follow it.

        Raises:
            ConflictError: another process is in the way, again and again. Nothing was logged.
            StorageError: the database failed. Nothing was logged.
        """
        for left in range(ATTEMPTS - 1, -1, -1):
            try:
                with self._log.database.write() as connection:
                    counts = self._take(connection, messages)
                    crash_point("ingest.logged")
                crash_point("ingest.committed")
                return counts
            except ConflictError:
                self._ids.renew()
                if not left:
                    raise
        raise AssertionError

    def _take(self, connection: Connection, messages: Sequence[Message]) -> Counts:
        self._in_order(connection)
        positions, counts = self._positions(connection), Counts()
        reached, batch = dict(positions), _Batch()
        for message in messages:
            if message.offset is not None:
                if message.offset < reached.get(message.partition, 0):
                    counts.known += 1
                    continue
                reached[message.partition] = message.offset + 1
            try:
                self._sort(message, batch)
            except InputError as error:
                self._set_aside(connection, message, str(error), counts)
        self._log_batch(connection, batch, counts)
        self._move(connection, positions, reached)
        return counts

    def _log_batch(self, connection: Connection, batch: _Batch, counts: Counts) -> None:
        logged = self._log_predictions(connection, batch.predictions, counts)
        for said in self._aside.waiting_for(connection, logged):
            self._sort(Message(*said), batch)
        self._log_labels(connection, batch.labels, counts)

    def again(self, number: int) -> str | None:
        """Try to log a message that is set aside: why it stays, or None once it is logged.

        Raises:
            NotFoundError: there is no such message.
        """
        try:
            with self._log.database.write() as connection:
                self._in_order(connection)
                batch, counts = _Batch(), Counts()
                self._sort(Message(*self._aside.take_out(connection, number)), batch)
                self._log_batch(connection, batch, counts)
                if counts.set_aside:  # it is as it was: nothing of this is committed
                    raise InputError(self._aside.last_reason(connection))
        except InputError as error:
            return str(error)
        return None

    def _in_order(self, connection: Connection) -> None:
        self._log.database.in_commit_order(connection, f"stream/{self._log.model}/{self._name}")

    def lost(self, gaps: Sequence[Lost]) -> Counts:
        """Set aside, durably, that messages are gone, and go on behind them."""
        counts = Counts()
        with self._log.database.write() as connection:
            positions = self._positions(connection)
            for gap in gaps:
                reason = f"the stream removed messages up to {gap.stop - 1} before they were read"
                body = f"messages {gap.start} to {gap.stop - 1} of partition {gap.partition}"
                message = Message(gap.partition, gap.start, body.encode())
                self._set_aside(connection, message, reason, counts)
            self._move(connection, positions, {gap.partition: gap.stop for gap in gaps})
        return counts

    # --- inside ---

    def _event(self, message: Message) -> LoggedPrediction | Label:
        """The event of a message. A label without a key of its own, in a stream without offsets,
        gets one: there, two messages with the same bytes are one."""
        event = read_event(message.body, self._source)
        if isinstance(event, Label) and event.idempotency_key is None and message.offset is None:
            return event._replace(idempotency_key=f"message:{digest_bytes(message.body)}")
        return event

    def _sort(self, message: Message, batch: _Batch) -> None:
        event = self._event(message)
        if isinstance(event, Label):
            batch.labels.append((message, event))
        else:
            batch.predictions.append((message, event))

    def _positions(self, connection: Connection) -> dict[int, int]:
        table = stream_offsets.c
        query = sa.select(table.partition, table.next).where(
            table.model_id == self._log.model, table.stream == self._name
        )
        return {row.partition: row.next for row in connection.execute(query)}

    def _move(self, connection: Connection, old: dict[int, int], new: dict[int, int]) -> None:
        table, moment = stream_offsets.c, now()
        for partition, offset in new.items():
            if partition not in old:
                row = {"model_id": self._log.model, "stream": self._name, "partition": partition}
                row |= {"next": offset, "updated_at": moment}
                connection.execute(sa.insert(stream_offsets).values(row))
            elif old[partition] != offset:
                connection.execute(
                    sa.update(stream_offsets)
                    .where(
                        table.model_id == self._log.model,
                        table.stream == self._name,
                        table.partition == partition,
                    )
                    .values(next=offset, updated_at=moment)
                )

    def _set_aside(
        self,
        connection: Connection,
        message: Message,
        reason: str,
        counts: Counts,
        prediction: int | None = None,
    ) -> None:
        new = self._aside.put(
            connection, message.partition, message.offset, message.body, reason, prediction
        )
        counts.set_aside += new
        counts.known += not new

    def _log_predictions(
        self,
        connection: Connection,
        given: Sequence[tuple[Message, LoggedPrediction]],
        counts: Counts,
    ) -> list[int]:
        """Log those that are new; their ids."""
        before = self._before(connection, [row for _, row in given])
        rows: list[LoggedPrediction] = []
        for message, row in given:
            names = [row.id] if row.id != UNNUMBERED else []
            found = [before[name] for name in (*names, row.external_id) if name in before]
            if not found:
                if row.id == UNNUMBERED:
                    row = row._replace(id=self._ids.take(1)[0])
                rows.append(row)
                before[row.id] = row
                if row.external_id is not None:
                    before[row.external_id] = row
            elif all(other is not None and _same(row, other) for other in found):
                counts.known += 1
            else:
                reason = "another prediction of this id was logged before"
                self._set_aside(connection, message, reason, counts)
        self._log.append_predictions(rows, connection)
        counts.predictions += len(rows)
        return [row.id for row in rows]

    def _before(
        self, connection: Connection, given: Sequence[LoggedPrediction]
    ) -> dict[Any, LoggedPrediction | None]:
        """Id or external id → the prediction that has it; None if that is of another model."""
        table = predictions.c
        found: dict[Any, LoggedPrediction | None] = {}
        ids = {row.id for row in given if row.id != UNNUMBERED}
        names = {row.external_id for row in given if row.external_id is not None}
        mine = table.model_id == self._log.model
        queries = [sa.select(predictions).where(table.id.in_(part)) for part in pages(ids)]
        queries += [
            sa.select(predictions).where(mine, table.external_id.in_(part)) for part in pages(names)
        ]
        rows: list[Any] = [row for query in queries for row in connection.execute(query)]
        archive = self._log.archive
        older = archive.predictions(connection, ids - {row.id for row in rows}).values()
        called = archive.named(connection, names - {row.external_id for row in rows}).values()
        rows += [SimpleNamespace(**row) for row in (*older, *called)]
        for row in rows:
            if row.model_id != self._log.model:
                found[row.id] = None
                continue
            found[row.id] = logged = LoggedPrediction(
                row.id,
                json.loads(row.features),
                None if row.output is None else json.loads(row.output),
                row.version,
                row.arm,
                row.key,
                row.external_id,
                row.propensity,
                row.at,
            )
            if row.external_id is not None:
                found[row.external_id] = logged
        return found

    def _log_labels(
        self, connection: Connection, given: Sequence[tuple[Message, Label]], counts: Counts
    ) -> None:
        """Log labels. Where some are refused, the halves are tried, down to the refused ones."""
        if not given:
            return
        try:
            receipts = self._log.append_labels([label for _, label in given], connection)
        except (InputError, ConflictError) as error:
            if len(given) > 1:
                half = len(given) // 2
                self._log_labels(connection, given[:half], counts)
                self._log_labels(connection, given[half:], counts)
                return
            [(message, label)] = given
            unknown = isinstance(error, InputError) and label.prediction is not None
            prediction = id_number(str(label.prediction)) if unknown else None
            self._set_aside(connection, message, str(error), counts, prediction)
            return
        for receipt in receipts:
            counts.labels += receipt.state != "known"
            counts.known += receipt.state == "known"


def _same(given: LoggedPrediction, logged: LoggedPrediction) -> bool:
    """Whether an event says what was logged; what it leaves open was filled in. Of what was erased
    nobody can tell any more: it is not taken again."""
    if logged.arm == ERASED:
        return True
    if given.id == UNNUMBERED:
        given = given._replace(id=logged.id)
    return given._replace(at=logged.at if given.at is None else given.at) == logged
