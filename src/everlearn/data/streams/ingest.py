"""Read a stream into a feedback log until told to stop."""

from __future__ import annotations

import time
from collections.abc import Callable

from everlearn.base import InputError
from everlearn.data.feedback import PredictionIds
from everlearn.data.log import FeedbackLog
from everlearn.data.streams.address import FORMS, Address
from everlearn.data.streams.aside import stream_of
from everlearn.data.streams.intake import Counts, Intake, Stream

Progress = Callable[[Counts], None]
"""Told of all counts after each batch."""


def open_stream(url: str) -> Stream:
    """The stream at a URL, not yet connected.

    Raises:
        InputError: the URL is of no known kind.
        MissingDependencyError: the library for this kind is not there.
    """
    address = Address.of(url)
    if address.scheme == "kafka":
        from everlearn.data.streams.kafka import KafkaStream

        return KafkaStream(address)
    if address.scheme == "nats":
        from everlearn.data.streams.nats import NatsStream

        return NatsStream(address)
    if address.scheme == "mqtt":
        from everlearn.data.streams.mqtt import MqttStream

        return MqttStream(address)
    raise InputError(f"there are no streams of the kind {address.scheme!r}; {FORMS}")


def intake_of(url: str, log: FeedbackLog, ids: PredictionIds) -> Intake:
    """What was taken from the stream at a URL, without a connection to it."""
    address = Address.of(url)
    return Intake(log, ids, address.name, address.source)


def take_again(log: FeedbackLog, ids: PredictionIds, number: int) -> str | None:
    """Try to log a message that was set aside.

    Returns:
        Why it stays there; None once it is logged.

    Raises:
        NotFoundError: there is no such message.
    """
    return intake_of(stream_of(log, number), log, ids).again(number)


def ingest(
    stream: Stream,
    log: FeedbackLog,
    ids: PredictionIds,
    *,
    batch: int = 1000,
    linger: float = 0.1,
    idle: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
    progress: Progress = lambda counts: None,
) -> Counts:
    """Log the events of a stream, batch by batch, and acknowledge each batch once it is durable.
    No more is read than one batch ahead of what is logged. Closes the stream.

    Args:
        stream: from `open_stream`.
        log: of the model.
        ids: of the workspace.
        batch: messages in one transaction, at most.
        linger: seconds after which a batch is logged that is not full.
        idle: seconds without a message after which to stop; None goes on.
        stopped: asked after each batch, and at least every `linger` seconds.
        progress: told after each batch.

    Returns:
        What became of the messages.
    """
    if batch < 1 or not 0.0 < linger < float("inf"):
        raise InputError("a batch has at least 1 message, and waits for more than 0 seconds")
    intake, counts = Intake(log, ids, stream.name, stream.source), Counts()
    try:
        lost = stream.begin(intake.positions())
        if lost:
            counts.add(intake.lost(lost))
        quiet = time.monotonic()
        while not stopped():
            messages = stream.poll(batch, linger)
            if messages:
                counts.add(intake.take(messages))
                stream.done(messages)
                progress(counts)
                quiet = time.monotonic()
            elif idle is not None and time.monotonic() - quiet >= idle:
                break
    finally:
        stream.close()
    return counts
