"""What a request may cost: size, depth, rate and time; and JSON that is JSON."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, fields
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.types import Message, Receive, Scope, Send

from everlearn.base import InputError


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes.

    Args:
        body: bytes of one request.
        bodies: bytes of all requests that are being answered.
        head: bytes of a request's line and headers; the server's, not the application's.
        rows: predictions or labels of one request.
        depth: of the JSON, in objects and lists; 200 at most, which is the parser's.
        seconds: that a head may take to arrive, and then a body.
        rate: requests a second of one key, or of one address where there are no keys.
        burst: requests that may come at once.

    Raises:
        InputError: a figure that cannot be.
    """

    body: int = 16 << 20
    bodies: int = 256 << 20
    head: int = 64 << 10
    rows: int = 10_000
    depth: int = 32
    seconds: float = 30.0
    rate: float = 10_000.0
    burst: int = 20_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < math.inf:
                raise InputError(f"{field.name}={value!r}; it is above 0")
        if self.body > self.bodies:
            raise InputError(f"body={self.body} is more than the {self.bodies} of all bodies")


class Refused(Exception):
    """A request that goes no further.

    Args:
        status, text: why.
        key: number of its key, if it has a valid one.
        headers: of the answer.
    """

    def __init__(self, status: int, text: str, *, key: int | None = None, **headers: str) -> None:
        super().__init__(text)
        self.status, self.text, self.key, self.headers = status, text, key, headers

    async def answer(self, send: Send) -> None:
        """Say so."""
        body = json.dumps({"error": self.text}).encode()
        headers = [(b"content-type", b"application/json")]
        headers.append((b"content-length", str(len(body)).encode()))
        for name, value in self.headers.items():
            headers.append((name.replace("_", "-").encode(), value.encode()))
        start = {"type": "http.response.start", "status": self.status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": body})


class Buckets:
    """A token bucket for each who asks; of the most recent ones.

    Args:
        rate: tokens a second.
        burst: what a bucket holds.
        most: buckets; past it, who was away for longest begins with a full one again.
        clock: seconds.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        most: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rate, self.burst, self.most, self._clock = rate, burst, most, clock
        self._full_at: OrderedDict[object, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, who: object) -> float:
        """Take a token: 0, or the seconds until there is one.

        A bucket is the moment at which it is full again (the generic cell rate algorithm).
        """
        now = self._clock()
        full_at = max(now, self._full_at.get(who, now)) + 1 / self.rate
        missing = full_at - now - self.burst / self.rate
        if missing > 1e-9:
            return missing
        self._full_at[who] = full_at
        self._full_at.move_to_end(who)
        if len(self._full_at) > self.most:
            self._full_at.popitem(last=False)
        return 0.0


class Bodies:
    """Reads bodies before anything else sees them, within limits, however they are sent."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held = limits, 0

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body; who calls gives its bytes back with `release`.

        Raises:
            Refused: too large (413), too slow (408), compressed (415), too much at once (429).
        """
        length = 0
        for name, value in scope["headers"]:
            if name == b"content-encoding" and value.strip().lower() != b"identity":
                raise Refused(415, "compressed bodies are not read: send the JSON itself")
            if name == b"content-length":
                length = int(value) if value.isdigit() and len(value) < 19 else self.limits.body + 1
        self._check(length)
        try:
            async with asyncio.timeout(self.limits.seconds):
                message = await receive()
                if not message.get("more_body"):
                    return self._hold(message.get("body", b""), 0)
                return await self._rest(message, receive)
        except TimeoutError:
            text = f"the body took more than {self.limits.seconds:g} seconds"
            raise Refused(408, text, connection="close") from None

    def release(self, body: bytes) -> None:
        """A request is over."""
        self.held -= len(body)

    async def _rest(self, message: Message, receive: Receive) -> bytes:
        parts, size = [], 0
        try:
            while True:
                part = message.get("body", b"")
                self._hold(part, size)
                parts.append(part)
                size += len(part)
                if not message.get("more_body"):
                    return b"".join(parts)
                message = await receive()
        except BaseException:
            self.held -= size
            raise

    def _hold(self, part: bytes, before: int) -> bytes:
        self._check(before + len(part))
        if self.held + len(part) > self.limits.bodies:
            raise Refused(429, "too much is being read at once", retry_after="1")
        self.held += len(part)
        return part

    def _check(self, size: int) -> None:
        if size > self.limits.body:
            text = f"the body is larger than {self.limits.body} bytes: send fewer rows at a time"
            raise Refused(413, text, connection="close")


def replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read, for the one who reads it next."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


class TooMuch(HTTPException):
    """A body that says more than a request may."""

    def __init__(self, text: str) -> None:
        super().__init__(413, text)


class StrictRequest(Request):
    """A request whose JSON has neither NaN nor infinity, no half characters, and is within the
    limits of the application. (The parser itself ends at a depth of 200.)"""

    async def json(self) -> Any:
        """The body. Raises `json.JSONDecodeError`, `TooMuch`."""
        body = await self.body()
        limits: Limits = self.app.state.limits
        try:
            found = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None
        _check_rows(found, limits.rows)
        if body.count(b"[") + body.count(b"{") > limits.depth:  # it may be deep
            _check_depth(found, limits.depth)
        return found


def _check_rows(found: Any, most: int) -> None:
    """Raise `TooMuch` if a field is a list of more."""
    for name, value in found.items() if isinstance(found, dict) else ():
        if isinstance(value, list) and len(value) > most:
            raise TooMuch(f"{len(value)} {name[:100]!r} in one request: {most} are taken at a time")


def _check_depth(found: Any, most: int) -> None:
    """Raise `TooMuch` if it is nested deeper; level by level, not by recursion."""
    level = [found]
    for _ in range(most):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [value for one in inner for value in one if isinstance(value, list | dict)]
        if not level:
            return
    raise TooMuch(f"the JSON is nested deeper than {most}")


class StrictRoute(APIRoute):
    """A route of the API; its requests are read strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The same, for strict requests."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict
