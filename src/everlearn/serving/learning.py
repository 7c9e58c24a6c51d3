"""Learning beside the answers: triggers decide, jobs learn, and what serves is replaced."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from everlearn.base import EverlearnError
from everlearn.jobs.patch.patches import Patches
from everlearn.jobs.queue import Queue
from everlearn.jobs.runner import Runner
from everlearn.jobs.update import Updates
from everlearn.jobs.worker import work
from everlearn.registry.registry import Registry
from everlearn.rollout.rollouts import Rollouts

_log = logging.getLogger("everlearn")


class Learning:
    """A thread that asks the triggers, carries out the jobs of its workspace, and has what serves
    looked at after each.

    Args:
        names: of the models.
        registry, queue, runner, updates, rollouts: of a workspace that only this thread uses.
        after: called when something may have moved a champion.
        pause: seconds between looks.
    """

    def __init__(
        self,
        names: Sequence[str],
        registry: Registry,
        queue: Queue,
        runner: Runner,
        updates: Updates,
        rollouts: Rollouts,
        after: Callable[[], object],
        pause: float = 0.5,
    ) -> None:
        self._names, self._after, self._pause = names, after, pause
        self._registry, self._queue = registry, queue
        self._runner, self._updates, self._rollouts = runner, updates, rollouts
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="everlearn-learning", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the job in hand."""
        self._stop.set()
        self._thread.join()

    def look(self) -> None:
        """Look at the rollouts, ask the triggers once, end edits whose time has come, and carry out
        what is queued."""
        for name in self._names:
            try:
                self._rollouts.look(name)
                self._updates.trigger(name, self._registry.definition(name).number)
                Patches(self._registry).expire(name)
            except EverlearnError as error:
                _log.warning("%s: rollout, triggers and edits: %s", name, error)
        work(self._queue, self._runner, once=True, stop=self._stop)
        self._after()

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                self.look()
            except Exception as error:  # of any kind: a thread that ended would learn no more
                trace = not isinstance(error, EverlearnError)
                _log.warning("learning goes on after an error: %s", error, exc_info=trace)
