"""A topic of Kafka as a stream: all its partitions, from the offsets that the workspace has.

The offsets are in the same transaction as the events, so that nothing is committed to Kafka: the
consumer is assigned its partitions, and no group is balanced.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from everlearn.base import InputError, MissingDependencyError, StorageError
from everlearn.data.streams.address import Address
from everlearn.data.streams.intake import Lost, Message

LOOK_SECONDS = 60.0
"""After which new partitions are looked for."""

_ANSWER_SECONDS = 30.0


class KafkaStream:
    """A topic.

    Args:
        address: ``kafka://host:port[,host:port]/topic?group=…``; a user and a password are those
            of SASL, and other options are librdkafka's (``security.protocol=SASL_SSL``).

    Raises:
        MissingDependencyError: confluent-kafka is not there.
        InputError: the address names no topic, or has an option that librdkafka does not know.
    """

    def __init__(self, address: Address) -> None:
        try:
            import confluent_kafka
        except ImportError as error:
            raise MissingDependencyError(
                "kafka:// needs confluent-kafka: pip install everlearn[kafka]"
            ) from error
        self._kafka = confluent_kafka
        [self._topic] = address.path("topic")
        self.name, self.source = address.name, address.source
        given = {"sasl.username": address.user, "sasl.password": address.password}
        settings: dict[str, Any] = {
            "log_level": 3,
            **address.options,
            **{name: value for name, value in given.items() if value is not None},
            "bootstrap.servers": address.hosts,
            "group.id": address.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
        try:
            self._consumer = confluent_kafka.Consumer(settings)
        except confluent_kafka.KafkaException as error:
            raise InputError(f"{address.name}: {_said(error)}") from error
        known = confluent_kafka.KafkaError
        self._ends_it = (
            known._AUTO_OFFSET_RESET,
            known._UNKNOWN_TOPIC,
            known.UNKNOWN_TOPIC_OR_PART,
            known.TOPIC_AUTHORIZATION_FAILED,
            known._AUTHENTICATION,
        )
        self._assigned: set[int] = set()
        self._looked = 0.0

    def begin(self, positions: Mapping[int, int]) -> list[Lost]:
        """As `Stream.begin`."""
        lost, starts = [], []
        for partition in self._partitions():
            first, end = self._ends(partition)
            position = positions.get(partition, first)
            if position > end:
                raise InputError(
                    f"partition {partition} of {self.name} ends at {end}, but was read up to "
                    f"{position}: it was made anew; read it under another name (?group=…)"
                )
            if position < first:
                lost.append(Lost(partition, position, first))
            starts.append((partition, max(position, first)))
        self._assign(starts)
        return lost

    def poll(self, most: int, seconds: float) -> list[Message]:
        """As `Stream.poll`."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            new = [partition for partition in self._partitions() if partition not in self._assigned]
            self._assign([(partition, self._ends(partition)[0]) for partition in new])
        try:
            found = self._consumer.consume(most, timeout=seconds)
        except self._kafka.KafkaException as error:
            raise StorageError(f"{self.name}: {_said(error)}") from error
        messages = []
        for one in found:
            problem: Any = one.error()
            if problem is None:
                offset: Any = one.offset()
                messages.append(Message(one.partition() or 0, offset, bytes(one.value() or b"")))
            elif problem.fatal() or problem.code() in self._ends_it:
                raise StorageError(f"{self.name}: {problem.str()}")
        return messages

    def done(self, messages: Sequence[Message]) -> None:
        """Nothing: the offsets are in the workspace."""

    def close(self) -> None:
        """As `Stream.close`."""
        self._consumer.close()

    def _partitions(self) -> list[int]:
        self._looked = time.monotonic()
        try:
            found = self._consumer.list_topics(self._topic, timeout=_ANSWER_SECONDS)
        except self._kafka.KafkaException as error:
            raise StorageError(f"{self.name} cannot be reached: {_said(error)}") from error
        topic = found.topics[self._topic]
        if topic.error is not None:
            raise InputError(f"{self.name}: {topic.error.str()}")
        return sorted(topic.partitions)

    def _ends(self, partition: int) -> tuple[int, int]:
        """The offsets of the first message, and after the last one."""
        place = self._kafka.TopicPartition(self._topic, partition)
        try:
            found = self._consumer.get_watermark_offsets(place, timeout=_ANSWER_SECONDS)
        except self._kafka.KafkaException as error:
            raise StorageError(f"{self.name}: {_said(error)}") from error
        if found is None:
            raise StorageError(f"{self.name} does not answer")
        return int(found[0]), int(found[1])

    def _assign(self, starts: Sequence[tuple[int, int]]) -> None:
        places = [self._kafka.TopicPartition(self._topic, *start) for start in starts]
        if places:
            self._consumer.incremental_assign(places)
        self._assigned.update(partition for partition, _ in starts)


def _said(error: Any) -> str:
    """What librdkafka says."""
    return str(error.args[0].str() or error.args[0].name())
