"""What serves follows the champion, whoever moves it and whatever else the process does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from everlearn.base import EverlearnError

_log = logging.getLogger("everlearn")

PAUSE = 0.5
"""Seconds between looks."""


class Following:
    """A thread that has predictors look whether their champions moved.

    A rollback by the command line, or by another replica, is followed while a job is carried out
    here for an hour, and where nothing is learned at all.

    Args:
        look: has them look.
        pause: seconds between looks.
    """

    def __init__(self, look: Callable[[], object], pause: float = PAUSE) -> None:
        self._look, self._pause = look, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="everlearn-following", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the look in hand."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            try:
                self._look()
            except Exception as error:  # of any kind: a thread that ended would follow no more
                trace = not isinstance(error, EverlearnError)
                _log.warning("following goes on after an error: %s", error, exc_info=trace)
