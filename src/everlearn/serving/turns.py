"""Requests that wait together are served together: one pass, one commit, one fsync for all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Given = TypeVar("Given")


class Turns(Generic[Asked, Given]):
    """Hands what waits to a function in a thread, turn by turn; a turn takes all that waits.

    While a turn is at work, others arrive and wait for the next one: the busier, the larger a turn,
    and the cheaper each request (group commit: DeWitt et al. 1984, section 5.2).

    Args:
        work: answers all that is asked in a turn, in order; an exception in place of an answer is
            raised to the one who asked. If it raises itself, all of the turn fail with that.
        most: how many are taken in a turn.
        waiting: how many may wait; who comes then is refused.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Asked]], Sequence[Given | Exception]],
        *,
        most: int = 512,
        waiting: int = 10_000,
    ) -> None:
        self._work, self._most, self._room = work, most, waiting
        self._queue: list[tuple[Asked, asyncio.Future[Given]]] = []
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="everlearn-turns")

    async def ask(self, what: Asked) -> Given:
        """The answer, once its turn is over.

        Raises:
            OverflowError: too many are waiting already.
        """
        if len(self._queue) >= self._room:
            raise OverflowError(f"{self._room} requests are waiting")
        future: asyncio.Future[Given] = asyncio.get_running_loop().create_future()
        self._queue.append((what, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await future

    async def close(self) -> None:
        """Wait for the turns that were begun."""
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                taken, self._queue = self._queue[: self._most], self._queue[self._most :]
                try:
                    asked = [what for what, _ in taken]
                    answers = await loop.run_in_executor(self._thread, self._work, asked)
                except Exception as error:
                    answers = [error] * len(taken)
                for (_, future), answer in zip(taken, answers, strict=True):
                    if future.done():  # who asked is gone
                        continue
                    if isinstance(answer, Exception):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
        finally:
            self._task = None
