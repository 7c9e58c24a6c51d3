"""Connections whose requests do not begin in time, or begin with too much, are closed.

The body of a request is bounded in `limits.py`. What comes before it reaches no application, so it
is bounded here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from everlearn.serving.limits import Limits


class BoundedHeads(HttpToolsProtocol):
    """A connection of uvicorn's, whose requests have bounded heads (line and headers).

    Attributes:
        most: bytes of a head.
        seconds: that it may take to arrive, and a connection to begin with it.
    """

    most = 64 << 10
    seconds = 20.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head, self._size = False, 0
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Go on with what came, unless it is part of a head that is too large."""
        super().data_received(data)
        if self._in_head:
            self._size += len(data)
            if self._size > self.most and not self.transport.is_closing():
                self.send_400_response("the head of the request is too large")

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head, self._size = True, 0
        self._wait()

    def on_headers_complete(self) -> None:
        """A head is there. Raises `ValueError`, which is answered by 400, if it is too large: it
        may have come in one piece."""
        self._arrived()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.most:
            raise ValueError("the head of the request is too large")
        super().on_headers_complete()

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(self.seconds, self.transport.close)

    def _arrived(self) -> None:
        self._in_head = False
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def within(limits: Limits) -> type[BoundedHeads]:
    """Connections whose heads keep to these limits."""
    bounds = {"most": limits.head, "seconds": limits.seconds}
    return type("BoundedHeads", (BoundedHeads,), bounds)
