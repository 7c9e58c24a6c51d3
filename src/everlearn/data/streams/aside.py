"""Messages of a stream that were set aside: kept with their reason, counted, never in the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import Json, NotFoundError, digest_bytes
from everlearn.data.feedback import now
from everlearn.data.log import FeedbackLog
from everlearn.storage.schema import stream_set_aside

PAGE = 500
"""Names that are looked up in one query."""


@dataclass(frozen=True, slots=True)
class Aside:
    """A message that is set aside.

    Args:
        partition, offset: of the first such message; no offset in a stream that has none.
        reason: why, for people.
        body: as text; bytes that are no UTF-8 are escaped.
        count: messages with this body. A stream without offsets cannot tell another message from
            the same one again: there it is 1.
        at: microseconds since 1970 UTC.
    """

    partition: int
    offset: int | None
    reason: str
    body: str
    count: int
    at: int

    def to_json(self) -> dict[str, Json]:
        """The same as JSON."""
        return asdict(self)


class SetAside:
    """What is set aside of one stream, for one model.

    Args:
        log: of the model.
        stream: its name.
    """

    def __init__(self, log: FeedbackLog, stream: str) -> None:
        self._log, self._stream = log, stream

    def all(self) -> list[Aside]:
        """In the order in which it came."""
        table = stream_set_aside.c
        query = (
            sa.select(
                table.partition, table.offset, table.reason, table.body, table.count, table.at
            )
            .where(table.model_id == self._log.model, table.stream == self._stream)
            .order_by(table.id)
        )
        with self._log.database.read() as connection:
            return [Aside(*row) for row in connection.execute(query)]

    def put(
        self,
        connection: Connection,
        partition: int,
        offset: int | None,
        body: bytes,
        reason: str,
        prediction: int | None = None,
    ) -> bool:
        """Set a message aside.

        Args:
            connection: of a writing transaction.
            prediction: of a label, with which it may be logged later.

        Returns:
            Whether it is another message than those that are there.
        """
        table, digest = stream_set_aside.c, digest_bytes(body)
        here = (
            (table.model_id == self._log.model)
            & (table.stream == self._stream)
            & (table.digest == digest)
        )
        if connection.execute(sa.select(table.id).where(here)).first() is not None:
            if offset is None:
                return False
            connection.execute(
                sa.update(stream_set_aside).where(here).values(count=table.count + 1)
            )
            return True
        row = {
            "model_id": self._log.model,
            "stream": self._stream,
            "partition": partition,
            "offset": offset,
            "digest": digest,
            "reason": reason,
            "body": body.decode(errors="backslashreplace").replace("\x00", "\\x00"),
            "prediction_id": prediction,
            "count": 1,
            "at": now(),
        }
        connection.execute(sa.insert(stream_set_aside).values(row))
        return True

    def take_out(self, connection: Connection, number: int) -> tuple[int, int | None, bytes]:
        """Take out one message: (partition, offset, body). Raises `NotFoundError`."""
        mine = _numbered(self._log, number) & (stream_set_aside.c.stream == self._stream)
        row = connection.execute(sa.select(stream_set_aside).where(mine)).first()
        if row is None:
            raise NotFoundError(f"no message {number} is set aside")
        connection.execute(sa.delete(stream_set_aside).where(mine))
        return row.partition, row.offset, row.body.encode()

    def last_reason(self, connection: Connection) -> str:
        """Why the message was set aside that was last."""
        table = stream_set_aside.c
        query = sa.select(table.reason).where(
            table.model_id == self._log.model, table.stream == self._stream
        )
        return str(connection.execute(query.order_by(table.id.desc()).limit(1)).scalar_one())

    def waiting_for(
        self, connection: Connection, predictions: Iterable[int]
    ) -> list[tuple[int, int | None, bytes]]:
        """Take out the labels of these predictions: (partition, offset, body) of each, in the
        order in which they came."""
        table, found = stream_set_aside.c, []
        for part in pages(predictions):
            mine = (
                (table.model_id == self._log.model)
                & (table.stream == self._stream)
                & table.prediction_id.in_(part)
            )
            found += list(connection.execute(sa.select(stream_set_aside).where(mine)))
            connection.execute(sa.delete(stream_set_aside).where(mine))
        found.sort(key=lambda row: row.id)
        return [(row.partition, row.offset, row.body.encode()) for row in found]


def listed(log: FeedbackLog, limit: int, before: int | None = None) -> list[Json]:
    """Messages of all streams of a model, newest first, each with its number and stream.

    Args:
        before: those with a smaller number only.
    """
    table = stream_set_aside
    names = ("id", "stream", "partition", "offset", "reason", "body", "count", "at")
    query = sa.select(*(table.c[name] for name in names)).where(table.c.model_id == log.model)
    if before is not None:
        query = query.where(table.c.id < before)
    with log.database.read() as connection:
        rows = connection.execute(query.order_by(table.c.id.desc()).limit(limit)).mappings()
        return [dict(row) for row in rows]


def stream_of(log: FeedbackLog, number: int) -> str:
    """The stream that a message came from. Raises `NotFoundError`."""
    query = sa.select(stream_set_aside.c.stream).where(_numbered(log, number))
    with log.database.read() as connection:
        found = connection.execute(query).scalar()
    if found is None:
        raise NotFoundError(f"no message {number} is set aside")
    return str(found)


def _numbered(log: FeedbackLog, number: int) -> sa.ColumnElement[bool]:
    table = stream_set_aside.c
    return sa.and_(table.model_id == log.model, table.id == number)


def pages(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Lists of at most `PAGE` values each."""
    listed = list(values)
    for start in range(0, len(listed), PAGE):
        yield listed[start : start + PAGE]
