"""Load for a server: requests over kept-alive connections, each sent when the one before was
answered, and how long each took. Plain sockets: what loads must cost less than what is loaded.

    python benchmarks/live_load.py PORT PATH CONNECTIONS SECONDS < BODIES

Bodies are JSON texts, one a line. Connections take them in turn, round and round until the time is
over; or, with 0 seconds, each once. Prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, cast


def request(path: str, body: bytes) -> bytes:
    """An HTTP/1.1 POST."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Turn:
    """Whose turn it is among requests.

    Args:
        requests: to be sent.
        until: when to stop; None after each was sent once.
    """

    def __init__(self, requests: Sequence[bytes], until: float | None) -> None:
        self._requests, self._until, self._next = requests, until, 0

    def take(self) -> bytes | None:
        """The next request; None where there is to be none."""
        place, self._next = self._next, self._next + 1
        if self._until is None:
            return self._requests[place] if place < len(self._requests) else None
        if time.perf_counter() >= self._until:
            return None
        return self._requests[place % len(self._requests)]


class Connection(asyncio.Protocol):
    """Sends one request after the other."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.seconds: list[float] = []
        self.wrong = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer, self._needed = b"", 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._needed:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            start = head.index(b"content-length:") + 15
            stop = head.find(b"\r\n", start)
            self._needed = end + 4 + int(head[start : stop if stop > 0 else None])
            self.wrong += not head.startswith(b"http/1.1 200")
        if len(self._buffer) >= self._needed:
            self.seconds.append(time.perf_counter() - self._began)
            self._buffer, self._needed = b"", 0
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        assert self._transport is not None
        request = self.turn.take()
        if request is None:
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(request)


async def load(
    port: int, path: str, bodies: Sequence[bytes], connections: int, seconds: float
) -> dict[str, Any]:
    """Requests a second, and the quantiles of how long they took, in seconds."""
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    turn = Turn([request(path, body) for body in bodies], began + seconds if seconds else None)
    made = []
    for _ in range(connections):
        _, one = await loop.create_connection(lambda: Connection(turn), "127.0.0.1", port)
        made.append(one)
    await asyncio.gather(*(one.done for one in made))
    spent = time.perf_counter() - began
    took = sorted(second for one in made for second in one.seconds)
    return {
        "rate": len(took) / spent,
        "requests": len(took),
        "wrong": sum(one.wrong for one in made),
        "median": took[len(took) // 2],
        "p99": took[min(len(took) - 1, int(0.99 * len(took)))],
    }


def main() -> None:
    """The command."""
    import uvloop

    port, path, connections, seconds = sys.argv[1:]
    bodies = [line.strip() for line in sys.stdin.buffer if line.strip()]
    found = uvloop.run(load(int(port), path, bodies, int(connections), float(seconds)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
