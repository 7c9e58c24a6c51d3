"""A topic of an MQTT broker as a stream, with quality of service 1: at least once.

The broker keeps a session for us, and delivers again what was not acknowledged; a message is
acknowledged once it is committed. There are no offsets: what comes again is known by its ids or
its bytes. Nothing is read but within `poll`, so that what is not logged yet fills the broker's
queue and not this process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from everlearn.base import InputError, MissingDependencyError, StorageError, digest_bytes
from everlearn.data.streams.address import Address
from everlearn.data.streams.intake import Lost, Message

PORT, TLS_PORT = 1883, 8883

WINDOW = 10_000
"""Messages that the broker may send before the first of them is acknowledged."""

SHORT_SECONDS, SHORT_MOST = 2.0, 5
"""A connection that lasts no longer is short; after so many in a row, the stream gives up."""

_ANSWER_SECONDS = 30.0
_TAKEN_OVER = 0x8E
_FAILURES = 0x80
"""Reason codes from here on say that something failed (MQTT 5.0, section 2.4)."""


class MqttStream:
    """A topic, or several by wildcards.

    Args:
        address: ``mqtt://host:port/topic?group=…``, where ``#`` is written ``%23``; with a user
            and a password, and ``tls=1``, where the broker asks for them. The broker knows its
            session by group and topic: one process reads it at a time, and who reads the same
            topic for something else needs a group of its own. It has to speak MQTT 5.

    Raises:
        MissingDependencyError: paho-mqtt is not there.
        InputError: the address names no topic, or an unknown option.
    """

    def __init__(self, address: Address) -> None:
        try:
            from paho.mqtt import client as paho
            from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties
            from paho.mqtt.subscribeoptions import SubscribeOptions
        except ImportError as error:
            raise MissingDependencyError(
                "mqtt:// needs paho-mqtt: pip install everlearn[mqtt]"
            ) from error
        if not address.parts:
            raise InputError(f"{address.name!r} should name a topic after the host")
        if address.options.keys() - {"tls"}:
            raise InputError(f"mqtt:// has no option {sorted(address.options)}; it has 'tls'")
        tls = address.options.get("tls", "0") != "0"
        self._host, self._port = _place(address.hosts, TLS_PORT if tls else PORT)
        self._topic = "/".join(address.parts)
        self.name, self.source = address.name, address.source
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{address.group}-{digest_bytes(self._topic.encode())[:16]}",
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
        )
        if address.user is not None:
            self._client.username_pw_set(address.user, address.password)
        if tls:
            self._client.tls_set()
        self._client.on_connect = self._connected
        self._client.on_subscribe = self._subscribed
        self._client.on_message = self._received
        self._client.on_disconnect = self._parted
        self._session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        self._session.SessionExpiryInterval = 0xFFFFFFFF  # kept until it is read again
        self._session.ReceiveMaximum = WINDOW
        self._how = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        self._waiting: deque[Message] = deque()
        self._connection = 0  # a number for each, by which what it delivered is acknowledged
        self._since, self._short = 0.0, 0
        self._ready, self._refused = False, ""

    def begin(self, positions: Mapping[int, int]) -> list[Lost]:
        """As `Stream.begin`; the position is the broker's."""
        end = time.monotonic() + _ANSWER_SECONDS
        try:
            self._client.connect(
                self._host, self._port, clean_start=False, properties=self._session
            )
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.name} cannot be reached: {error}") from error
        while not self._ready:
            self._client.loop(0.1)
            self._check()
            if time.monotonic() > end:
                raise StorageError(f"{self.name} cannot be reached: no answer")
        return []

    def poll(self, most: int, seconds: float) -> list[Message]:
        """As `Stream.poll`. A connection that was lost is made again."""
        end = time.monotonic() + seconds
        while len(self._waiting) < most and (left := end - time.monotonic()) > 0.0:
            if self._client.loop(left) != 0:
                self._check()
                self._reconnect(max(end - time.monotonic(), 0.05))
        self._check()
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def done(self, messages: Sequence[Message]) -> None:
        """As `Stream.done`. What another connection delivered will come again, and be known."""
        for message in messages:
            connection, number, quality = message.handle
            if connection == self._connection and self._client.is_connected():
                self._client.ack(number, quality)

    def close(self) -> None:
        """As `Stream.close`; the broker keeps the session."""
        self._client.disconnect()
        self._waiting.clear()

    # --- inside ---

    def _reconnect(self, patience: float) -> None:
        try:
            self._client.reconnect()
        except OSError:
            time.sleep(patience)

    def _check(self) -> None:
        if self._refused:
            raise StorageError(f"{self.name}: {self._refused}")

    def _connected(self, client: Any, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        if code.is_failure:
            self._refused = f"the broker refuses the connection: {code}"
            return
        self._connection += 1
        self._since = time.monotonic()
        client.subscribe(self._topic, options=self._how)

    def _subscribed(self, _client: Any, _data: Any, _id: int, codes: Any, _more: Any) -> None:
        [code] = codes
        if code.value >= _FAILURES:
            self._refused = f"the broker refuses the topic: {code}"
        elif code.value < 1:
            self._refused = "the broker gives no quality of service above 0 to this topic"
        self._ready = True

    def _received(self, _client: Any, _data: Any, message: Any) -> None:
        handle = (self._connection, message.mid, message.qos)
        self._waiting.append(Message(0, None, bytes(message.payload), handle))

    def _parted(self, _client: Any, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        self._waiting.clear()  # not acknowledged: they come again
        short = time.monotonic() - self._since < SHORT_SECONDS
        self._short = self._short + 1 if short else 0
        if code.value == _TAKEN_OVER or self._short > SHORT_MOST:
            self._refused = (
                "the broker ends each connection at once; another process seems to read the "
                "topic under the same group, and only one can"
            )


def _place(hosts: str, usual: int) -> tuple[str, int]:
    """Host and port. Raises `InputError` for another port than a number."""
    host, colon, port = hosts.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = hosts, str(usual)
    if not port.isdecimal():
        raise InputError(f"{port!r} is no port")
    return host.strip("[]"), int(port)
