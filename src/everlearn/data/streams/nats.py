"""A stream of NATS JetStream: one subject of it, from the sequence number that the workspace has.

Messages are acknowledged once they are committed. A consumer that resumes after a kill would
deliver what was not acknowledged late, behind newer messages; so each run makes a consumer of its
own that begins where the workspace is, and makes another one if a delivery went astray. A work
queue takes one consumer at a time, which begins with all that is not acknowledged.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from everlearn.base import InputError, MissingDependencyError, StorageError
from everlearn.data.streams.address import Address
from everlearn.data.streams.intake import Lost, Message

INACTIVE_SECONDS = 60.0
"""After which the server forgets a consumer whose process is gone."""

LOOK_SECONDS = 5.0
"""After which it is asked whether the consumer is still there, while nothing comes."""

_ANSWER_SECONDS = 30.0
_OPTIONS = {"token": "token", "creds": "user_credentials"}


class NatsStream:
    """One subject of a stream.

    Args:
        address: ``nats://host:port/stream/subject?group=…``, with a user and a password, or with
            ``token=…`` or ``creds=FILE``, where the server asks for them.

    Raises:
        MissingDependencyError: nats-py is not there.
        InputError: the address names no stream and subject, or an unknown option.
    """

    def __init__(self, address: Address) -> None:
        try:
            import nats.errors
            import nats.js.api
            import nats.js.errors
        except ImportError as error:
            raise MissingDependencyError(
                "nats:// needs nats-py: pip install everlearn[nats]"
            ) from error
        self._nats, self._address = nats, address
        self._stream, self._subject = address.path("stream", "subject")
        self.name, self.source = address.name, address.source
        unknown = address.options.keys() - _OPTIONS.keys()
        if unknown:
            raise InputError(f"nats:// has no option {sorted(unknown)}; it has {sorted(_OPTIONS)}")
        self._runner = asyncio.Runner()
        self._client: Any = None
        self._pull: Any = None
        self._queue = False
        self._position, self._delivered, self._consumer = 0, 0, ""
        self._looked = time.monotonic()

    def begin(self, positions: Mapping[int, int]) -> list[Lost]:
        """As `Stream.begin`."""
        lost: list[Lost] = self._run(self._begin(positions.get(0)))
        return lost

    def poll(self, most: int, seconds: float) -> list[Message]:
        """As `Stream.poll`."""
        found: list[Message] = self._run(self._fetch(most, seconds))
        return found

    def done(self, messages: Sequence[Message]) -> None:
        """As `Stream.done`."""
        self._run(self._acknowledge([message.handle for message in messages]))

    def close(self) -> None:
        """As `Stream.close`."""
        try:
            if self._client is not None:
                self._runner.run(self._leave())
        finally:
            self._runner.close()

    # --- inside ---

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Let the client work until something is done."""
        try:
            return self._runner.run(work)
        except (self._nats.errors.Error, OSError, TimeoutError) as error:
            if isinstance(error, StorageError):
                raise
            said = str(error) or type(error).__name__
            raise StorageError(f"{self.name} failed: {said}") from error

    async def _begin(self, position: int | None) -> list[Lost]:
        await self._connect()
        context = self._client.jetstream(timeout=_ANSWER_SECONDS)
        try:
            info = await context.stream_info(self._stream)
        except self._nats.js.errors.NotFoundError as error:
            raise InputError(f"{self.name}: there is no such stream") from error
        policy = self._nats.js.api.RetentionPolicy
        if info.config.retention == policy.INTEREST:
            raise InputError(
                f"{self.name} drops what comes while nobody reads (its retention is 'interest'); "
                f"give it the retention 'limits' or 'workqueue'"
            )
        self._queue = info.config.retention == policy.WORK_QUEUE
        first, last = info.state.first_seq, info.state.last_seq
        if position is not None and position > last + 1:
            raise InputError(
                f"{self.name} ends at {last}, but was read up to {position - 1}: it was made "
                f"anew; read it under another name (?group=…)"
            )
        whole = self._subject == ">" or info.config.subjects == [self._subject]
        self._position = position or 1
        lost = []
        if position is not None and position < first and whole and not self._queue:
            lost = [Lost(0, position, first)]
            self._position = first
        await self._consume()
        return lost

    async def _connect(self) -> None:
        async def ignore(error: Exception) -> None:
            """The client goes on by itself, and what it cannot do is raised."""

        given = {_OPTIONS[name]: value for name, value in self._address.options.items()}
        try:
            self._client = await asyncio.wait_for(
                self._nats.connect(
                    [f"nats://{host}" for host in self._address.hosts.split(",")],
                    user=self._address.user,
                    password=self._address.password,
                    error_cb=ignore,
                    max_reconnect_attempts=-1,
                    **given,
                ),
                _ANSWER_SECONDS,
            )
        except TimeoutError as error:
            raise StorageError(f"{self.name} cannot be reached") from error

    async def _consume(self) -> None:
        """Make a consumer that begins at our position."""
        api = self._nats.js.api
        context = self._client.jetstream(timeout=_ANSWER_SECONDS)
        how: dict[str, Any] = {
            "filter_subject": self._subject,
            "ack_policy": api.AckPolicy.EXPLICIT,
            "max_ack_pending": -1,
        }
        if self._queue:
            how["durable_name"] = re.sub(r"[^A-Za-z0-9_-]", "_", self._address.group)
            with suppress(self._nats.js.errors.NotFoundError):
                await context.delete_consumer(self._stream, how["durable_name"])
        else:
            how |= {
                "deliver_policy": api.DeliverPolicy.BY_START_SEQUENCE,
                "opt_start_seq": self._position,
                "inactive_threshold": INACTIVE_SECONDS,
            }
        if self._pull is not None:
            await self._pull.unsubscribe()
        made = await context.add_consumer(self._stream, api.ConsumerConfig(**how))
        self._pull = await context.pull_subscribe_bind(consumer=made.name, stream=self._stream)
        self._consumer, self._delivered = made.name, 0

    async def _fetch(self, most: int, seconds: float) -> list[Message]:
        try:
            found = await self._pull.fetch(most, timeout=seconds)
        except TimeoutError:
            if time.monotonic() - self._looked > LOOK_SECONDS and self._client.is_connected:
                await self._look()
            return []
        except self._nats.js.errors.APIError:
            await self._look()
            return []
        messages: list[Message] = []
        for one in found:
            sequence = one.metadata.sequence
            if sequence.consumer != self._delivered + 1:  # a delivery went astray
                await self._consume()
                break
            self._delivered += 1
            if sequence.stream < self._position:
                await one.ack()
                continue
            self._position = sequence.stream + 1
            messages.append(Message(0, sequence.stream, one.data, one))
        return messages

    async def _look(self) -> None:
        """Make the consumer again, if the server forgot it."""
        self._looked = time.monotonic()
        context = self._client.jetstream(timeout=_ANSWER_SECONDS)
        try:
            await context.consumer_info(self._stream, self._consumer)
        except self._nats.js.errors.NotFoundError as error:
            if self._queue:
                raise StorageError(
                    f"{self.name}: the consumer is gone; a work queue has one reader at a time"
                ) from error
            await self._consume()

    async def _acknowledge(self, given: Sequence[Any]) -> None:
        for one in given:
            await one.ack()

    async def _leave(self) -> None:
        with suppress(self._nats.errors.Error, OSError, TimeoutError):
            if self._pull is not None and not self._queue:
                context = self._client.jetstream(timeout=1.0)
                await context.delete_consumer(self._stream, self._consumer)
            await self._client.flush(timeout=5)
        await self._client.close()
