"""What a server writes into the audit log."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from starlette.concurrency import run_in_threadpool

from everlearn.base import EverlearnError, Json
from everlearn.registry.audit import Audit, entry

_log = logging.getLogger("everlearn")

MOST = 50
"""Entries of refused requests that are written at a time; the rest are one entry, counted."""

Refusal = tuple[str, int, int | None, str | None, str | None]
"""Action, status, number of the key, model, address."""


class Trail:
    """Writes what was done at once, and who was refused a little later, counted: a flood of
    requests without a key is a few rows a second.

    Args:
        audit: of the workspace.
        pause: seconds in which refusals gather.
    """

    def __init__(self, audit: Audit, pause: float = 1.0) -> None:
        self._audit, self._pause = audit, pause
        self._refused: Counter[Refusal] = Counter()
        self._task: asyncio.Task[None] | None = None

    async def done(
        self, action: str, status: int, key: int | None, model: str | None, detail: Json
    ) -> None:
        """Something that was done; it is in the log before it is answered."""
        await self._write([entry(action, status, key=key, model=model, detail=detail)])

    def refused(self, refusal: Refusal) -> None:
        """A request that was refused."""
        if len(self._refused) >= MOST and refusal not in self._refused:
            refusal = ("others", refusal[1], None, None, None)
        self._refused[refusal] += 1
        task = self._task
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            self._task = asyncio.create_task(self._later())

    async def close(self) -> None:
        """Write what is left."""
        if self._task is not None:
            self._task.cancel()
        await self._flush()

    async def _later(self) -> None:
        while self._refused:
            await asyncio.sleep(self._pause)
            await self._flush()

    async def _flush(self) -> None:
        gathered, self._refused = self._refused, Counter()
        rows = []
        for (action, status, key, model, address), times in gathered.items():
            detail = {"address": address, "times": times}
            rows.append(entry(action, status, key=key, model=model, detail=detail))
        if rows:
            await self._write(rows)

    async def _write(self, rows: list[dict[str, Json]]) -> None:
        try:
            await run_in_threadpool(self._audit.add, rows)
        except EverlearnError as error:  # what was done is done; aliases and jobs have histories
            _log.error("the audit log could not be written: %s: %s", error, rows)
