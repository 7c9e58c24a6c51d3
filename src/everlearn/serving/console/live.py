"""Tells the pages what changed, as server-sent events: their script then asks for the page again.

The events of the API (`serving/events.py`) say what happened, for programs; here it is enough to
know that labels, answers of reviewers or figures of a rollout are others than a second ago.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import FastAPI, Query, Request
from fastapi.responses import StreamingResponse
from sqlalchemy.engine import Connection
from starlette.concurrency import run_in_threadpool

from everlearn.base import EverlearnError
from everlearn.data.review import CLAIMED, WAITING
from everlearn.registry.keys import ApiKey
from everlearn.registry.models import model_id
from everlearn.serving.access import KEY, needs, page
from everlearn.serving.console.render import HOME, refused
from everlearn.serving.console.views import Source
from everlearn.serving.events import MOST, is_over
from everlearn.storage import schema

PAUSE = 0.5
"""Seconds between looks."""

Stamp = dict[str, Any]
"""What is looked at → a value that is another one when it changed."""

Seconds = Annotated[float, Query(ge=0.0, le=3600.0)]


def stamp(connection: Connection, models: Sequence[int]) -> Stamp:
    """Of some models (row ids): a fixed number of look-ups in indexes for each."""
    found: Stamp = {}
    for key in models:
        for name, query in _queries(key).items():
            found[f"{name} {key}"] = tuple(map(tuple, connection.execute(query)))
    return found


def changed(before: Stamp, after: Stamp) -> list[str]:
    """The names of what is another now.

    >>> changed({"labels 1": 5, "jobs 1": 2}, {"labels 1": 6, "jobs 1": 2})
    ['labels']
    """
    names = {name.split()[0] for name, value in after.items() if before.get(name) != value}
    return sorted(names)


def _queries(model: int) -> dict[str, sa.Select[Any]]:
    def newest(table: sa.Table, *names: str) -> sa.Select[Any]:
        columns = [table.c[name] for name in ("id", *names)]
        query = sa.select(*columns).where(table.c.model_id == model)
        return query.order_by(table.c.id.desc()).limit(1)

    label, item = schema.labels.c, schema.review_items.c
    source, message = schema.quarantined_sources.c, schema.stream_set_aside.c
    traffic, rollout = schema.rollout_traffic.c, schema.rollouts.c
    edit = schema.edits.c
    running = sa.select(sa.func.max(rollout.id)).where(rollout.model_id == model)
    return {
        "moves": newest(schema.alias_history),
        "triggers": newest(schema.trigger_decisions),
        "jobs": newest(schema.jobs, "state", "attempts", "version", "finished_at"),
        "rollouts": newest(schema.rollouts, "revision"),
        "bisections": newest(schema.bisections, "revision"),
        "edits": sa.select(sa.func.count(edit.number), sa.func.count(edit.ended_at)).where(
            edit.model_id == model
        ),
        "withdrawals": newest(schema.withdrawals, "job_id"),
        "traffic": sa.select(sa.func.sum(traffic.requests)).where(
            traffic.rollout_id == running.scalar_subquery()
        ),
        "labels": sa.select(sa.func.max(label.position)).where(label.model_id == model),
        "review": sa.select(item.state, sa.func.count())
        .where(item.model_id == model, item.state.in_((WAITING, CLAIMED)))
        .group_by(item.state),
        "quarantine": sa.select(sa.func.count(), sa.func.count(source.released_at)).where(
            source.model_id == model
        ),
        "set-aside": sa.select(sa.func.count(), sa.func.max(message.id)).where(
            message.model_id == model
        ),
    }


class Live:
    """Streams of what changed.

    Args:
        source: of the pages.
        pause: seconds between looks.
    """

    def __init__(self, source: Source, pause: float = PAUSE) -> None:
        self._database, self._pause, self.streams = source.registry.database, pause, 0

    def keys(self, names: Sequence[str]) -> list[int]:
        """Row ids of models. Raises `NotFoundError`."""
        with self._database.read() as connection:
            return [model_id(connection, name) for name in names]

    def look(self, keys: Sequence[int]) -> Stamp:
        """What is there now."""
        with self._database.read() as connection:
            return stamp(connection, keys)

    async def follow(
        self, keys: Sequence[int], request: Request, seconds: float
    ) -> AsyncIterator[str]:
        """Which parts changed, each time that some did, as text."""
        ends = asyncio.get_running_loop().time() + seconds
        self.streams += 1
        try:
            before = await run_in_threadpool(self.look, keys)
            yield "retry: 1000\nevent: begin\ndata: 1\n\n"
            while not await is_over(request) and asyncio.get_running_loop().time() < ends:
                await asyncio.sleep(self._pause)
                after = await run_in_threadpool(self.look, keys)
                names = changed(before, after)
                # a comment tells a client that is gone from one that is silent
                yield f"event: change\ndata: {' '.join(names)}\n\n" if names else ":\n\n"
                before = after
        except EverlearnError:  # the database is away: so is this stream, for a while
            return
        finally:
            self.streams -= 1

    def answer(self, names: Sequence[str], request: Request, seconds: float) -> StreamingResponse:
        """The stream for some models. Raises `OverflowError` where there are too many."""
        if self.streams >= MOST:
            raise OverflowError(f"{MOST} pages are followed already")
        return StreamingResponse(
            self.follow(self.keys(names), request, seconds),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )


def add_live(app: FastAPI, source: Source) -> None:
    """Add the streams."""
    live = Live(source)

    @app.get(HOME + "/events", include_in_schema=False)
    @needs()
    @page(refused)
    def console_events(request: Request, seconds: Seconds = 3600.0) -> StreamingResponse:
        """What changed of the models that the key is for."""
        key: ApiKey | None = request.scope[KEY]
        names = [name for name in source.names if key is None or key.model in (None, name)]
        return live.answer(names, request, seconds)

    @app.get(HOME + "/models/{model}/events", include_in_schema=False)
    @needs("operate", "review")
    @page(refused)
    def console_model_events(
        model: str, request: Request, seconds: Seconds = 3600.0
    ) -> StreamingResponse:
        """What changed of a model."""
        source.check(model)
        return live.answer([model], request, seconds)
