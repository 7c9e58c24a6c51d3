"""Who may call what. Everything is refused that is not declared, by one check around the whole
application, before a route or a body is looked at."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from everlearn.base import EverlearnError, Json
from everlearn.registry.audit import Acting, acting
from everlearn.registry.keys import ROLES, ApiKey, Keys, Known, digest_of
from everlearn.serving.limits import Bodies, Buckets, Limits, Refused, replayed
from everlearn.serving.origin import address_of, check_local, is_own
from everlearn.serving.trail import Trail

_log = logging.getLogger("everlearn")

ADMIN = "admin"
"""The role that may call whatever any other may."""

OPEN = "open"
"""In place of a role: no key is asked for."""

CHANGES = frozenset({"operate", ADMIN})
"""Whoever needs one of these to change something is written down."""

KEY = "everlearn.key"
"""Where in a request's scope its `ApiKey` is; None without keys."""

SOON, STALE, LATEST = 0.25, 1.0, 4.0
"""Seconds after which the keys are read again: for a key that is not known, in the background, and
before anything is answered."""

READING = frozenset({"GET", "HEAD", "OPTIONS"})

COOKIE = "everlearn_key"
"""In which a browser keeps its key. It counts for pages and their forms, and nowhere else."""

EndpointT = TypeVar("EndpointT")
_ROLES_OF, _PAGE_OF = "everlearn_roles", "everlearn_page"


def needs(*roles: str) -> Callable[[EndpointT], EndpointT]:
    """Declare who may call a route: bearers of one of these roles, and of `ADMIN`. Without any,
    whoever has a key. It goes below the line that makes the route."""
    unknown = set(roles) - {*ROLES, OPEN}
    if unknown:
        raise ValueError(f"needs{roles} names no role: {sorted(unknown)}")

    def declare(endpoint: EndpointT) -> EndpointT:
        setattr(endpoint, _ROLES_OF, frozenset(roles or ROLES) | {ADMIN})
        return endpoint

    return declare


def page(refusal: Callable[[Refused], Response]) -> Callable[[EndpointT], EndpointT]:
    """Declare that a route answers a browser, which may show its key in `COOKIE` and is told by a
    page when it is refused. Where it changes something, the browser must say that a page of this
    server asked (`Origin`). It goes below `needs`."""

    def declare(endpoint: EndpointT) -> EndpointT:
        setattr(endpoint, _PAGE_OF, refusal)
        return endpoint

    return declare


@dataclass(frozen=True, slots=True)
class Place:
    """What a request is for.

    Args:
        action: method and path of the route, as it is declared.
        roles: who may; none at all where nothing was declared.
        model: that its path names.
        everybody: whether every role may, so that keys of one model may too.
        changes: whether it is written into the audit log.
        refusal: of a page, what is shown to who is refused.
    """

    action: str
    roles: frozenset[str]
    model: str | None = None
    everybody: bool = False
    changes: bool = False
    refusal: Callable[[Refused], Response] | None = None

    def takes(self, model: str | None) -> bool:
        """Whether a key that is for this model (None: for all) is for this place."""
        if self.model is None:
            return model is None or self.everybody
        return model in (None, self.model)


class Places:
    """Finds what requests are for, with the routes of the application itself."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = routes
        self._found: dict[tuple[str, str], Place] = {}

    def find(self, scope: Scope) -> Place:
        """The place of a request; of paths that were asked for before, one look-up."""
        at = scope["method"], scope["path"]
        found = self._found.get(at)
        if found is None:
            found, exact = self._match(scope)
            if exact and len(scope["path"]) < 200:
                if len(self._found) >= 4096:
                    self._found.clear()
                self._found[at] = found
        return found

    def _match(self, scope: Scope) -> tuple[Place, bool]:
        for route in self._routes:
            match, child = route.matches(scope)
            if match is Match.FULL:
                target = getattr(route, "endpoint", None) or getattr(route, "app", None)
                roles: frozenset[str] = getattr(target, _ROLES_OF, frozenset())
                method = scope["method"]
                place = Place(
                    f"{method} {getattr(route, 'path', '?')}",
                    roles,
                    child.get("path_params", {}).get("model"),
                    everybody=roles.issuperset(ROLES),
                    changes=method not in READING and bool(roles) and roles <= CHANGES,
                    refusal=getattr(target, _PAGE_OF, None),
                )
                return place, True
        # nothing answers: whoever has a key is told 404 or 405
        return Place("none", frozenset(ROLES), everybody=True), False


class Checked:
    """The keys as they were a moment ago.

    Args:
        keys: of the workspace.
        clock: seconds.
    """

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys, self._clock = keys, clock
        self._known = Known({}, True)
        self._read_at = -1e9
        self._task: asyncio.Task[None] | None = None

    async def look(self, secret: str | None) -> tuple[bool, ApiKey | None]:
        """Whether keys are asked for, and the one of this secret, if it is valid."""
        digest = None if secret is None else digest_of(secret)
        age = self._clock() - self._read_at
        if age > LATEST or (age > SOON and digest and digest not in self._known.valid):
            await asyncio.shield(self._reading())
            if self._clock() - self._read_at > LATEST:
                raise Refused(503, "the keys cannot be read")
        elif age > STALE:
            self._reading()
        return self._known.required, self._known.valid.get(digest or "")

    def _reading(self) -> asyncio.Task[None]:
        """One read for all who wait for it."""
        task = self._task
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._task = asyncio.create_task(self._read())
        return task

    async def _read(self) -> None:
        began = self._clock()
        try:
            self._known = await run_in_threadpool(self._keys.known)
        except EverlearnError as error:
            _log.error("the keys cannot be read: %s", error)
        else:
            self._read_at = began


class Access:
    """ASGI middleware: lets through what is allowed, within limits, and writes down what changed
    something and what was refused.

    Args:
        app: behind it.
        routes: of the application.
        keys, trail: of the workspace.
        models: names that may be written into the audit log.
        limits: of size and rate.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[BaseRoute],
        keys: Keys,
        trail: Trail,
        models: Collection[str],
        limits: Limits,
    ) -> None:
        self._app, self._trail, self._models = app, trail, models
        self._places, self._checked = Places(routes), Checked(keys)
        self._bodies, self._buckets = Bodies(limits), Buckets(limits.rate, limits.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            await self._trail.close()
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = self._places.find(scope)
        key, body = None, b""
        try:
            if OPEN not in place.roles:
                key = await self._admitted(scope, place)
            scope[KEY] = key
            if scope["method"] not in READING:
                body = await self._bodies.read(scope, receive)
                receive = replayed(body, receive)
            if place.changes:
                await self._written(scope, receive, send, place, body)
            else:
                await self._app(scope, receive, send)
        except Refused as refused:
            if refused.status in (401, 403):
                model = place.model if place.model in self._models else None
                what = (place.action, refused.status, refused.key, model, address_of(scope))
                self._trail.refused(what)
            if place.refusal is None:
                await refused.answer(send)
            else:
                await place.refusal(refused)(scope, receive, send)
        finally:
            self._bodies.release(body)

    async def _admitted(self, scope: Scope, place: Place) -> ApiKey | None:
        """The key of a request that may go on. Raises `Refused`."""
        secret, in_cookie = _secret(scope), False
        if secret is None and place.refusal is not None:
            secret, in_cookie = _from_cookie(scope), True
        required, key = await self._checked.look(secret)
        if not required:
            check_local(scope)
        elif key is None:
            text = "no key" if secret is None else "no valid key"
            text = f"{text}: send Authorization: Bearer and a key (everlearn key create)"
            raise Refused(401, text, www_authenticate="Bearer")
        elif key.role not in place.roles:
            who = ", ".join(sorted(place.roles)) or "nobody: no role is declared"
            raise Refused(403, f"the role {key.role} may not do this (may: {who})", key=key.id)
        elif not place.takes(key.model):
            raise Refused(403, f"this key is for the model {key.model!r} only", key=key.id)
        elif in_cookie and scope["method"] not in READING and not is_own(scope):
            raise Refused(403, "this was not sent from a page of this server", key=key.id)
        if not place.roles:
            raise Refused(403, "nobody may do this: no role is declared")
        wait = self._buckets.take(address_of(scope) if key is None else key.id)
        if wait:
            raise Refused(429, f"too many requests: try in {wait:.2f} s", retry_after="1")
        return key

    async def _written(
        self, scope: Scope, receive: Receive, send: Send, place: Place, body: bytes
    ) -> None:
        """Answer a request once it is in the audit log."""
        key: ApiKey | None = scope[KEY]
        model = place.model if place.model in self._models else None
        detail: Json = {"address": address_of(scope), "body": _shown(scope, body)}
        if place.action.endswith("/erase"):  # it has an entry of its own, with the key's digest
            detail["body"] = None

        by = Acting(detail, place.action, None if key is None else key.id)

        async def note(status: int) -> None:
            if not by.noted or status >= 400:  # else it is there since it was done
                await self._trail.done(place.action, status, by.key, model, detail)

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                await note(message["status"])
            await send(message)

        try:
            with acting(by):
                await self._app(scope, receive, send_noted)
        except Refused:
            raise
        except Exception:
            await note(500)
            raise


def _secret(scope: Scope) -> str | None:
    """The secret that a request shows in its header; "", which is none, where that is malformed."""
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    if not found:
        return None
    if len(found) != 1:
        return ""
    scheme, _, secret = found[0].partition(b" ")
    if scheme.lower() != b"bearer" or not secret:
        return ""
    return str(secret.strip().decode("latin-1"))


def _from_cookie(scope: Scope) -> str | None:
    sent = b";".join(value for name, value in scope["headers"] if name == b"cookie")
    pairs = (part.strip().partition(b"=") for part in sent.split(b";"))
    found = [value for name, _, value in pairs if name == COOKIE.encode()]
    return found[0].decode("latin-1") if len(found) == 1 and found[0] else None


def _shown(scope: Scope, body: bytes) -> Any:
    """A body as it is kept in the audit log: JSON or the fields of a form, where it is short."""
    if not body or len(body) > 1000:
        return None
    if (b"content-type", b"application/x-www-form-urlencoded") in scope["headers"]:
        return dict(parse_qsl(body.decode(errors="replace").replace("\0", "")))
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        return None
