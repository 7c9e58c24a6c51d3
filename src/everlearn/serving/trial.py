"""A candidate on trial in this process: which rows it answers, what it would have answered unseen,
and what is counted of both arms until the database takes it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from everlearn.base import InputError, Json
from everlearn.evaluation.sequences import Moments
from everlearn.rollout.assignment import digest_of, is_candidates
from everlearn.rollout.rollouts import CANDIDATE, CHAMPION, stage_of
from everlearn.rollout.store import Rollout, Traffic

_log = logging.getLogger("everlearn")

Ask = Callable[[Sequence[Mapping[str, Any]]], list[Json]]
"""What a version says of rows."""

KEYS = 20_000
"""Keys of which a process keeps the arm: enough to see whether arms get their shares."""

WAITING = 10_000
"""Rows that may wait to be mirrored; those that come then are not."""


class Trial:
    """One stage of a rollout, in one process.

    Args:
        rollout: in its stage.
        ask: what the candidate says of rows.
    """

    def __init__(self, rollout: Rollout, ask: Ask) -> None:
        self.rollout, self.ask = rollout, ask
        _, self.stage = stage_of(rollout)
        self._lock = threading.Lock()
        self._arms: dict[str, Traffic] = {}
        self._shadows: dict[int, Json] = {}
        self._known: set[int] = set()
        self._met: dict[int, str] = {}
        self._mirrored: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._waiting = 0
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def answers(self) -> bool:
        """Whether the candidate answers for any key."""
        return self.stage.share > 0.0

    def is_candidates(self, key: str) -> bool:
        """Whether the candidate answers for a key, which is met."""
        digest = digest_of(self.rollout.salt, key)
        tried = is_candidates(digest, self.stage.share)
        if 0.0 < self.stage.share < 1.0 and len(self._known) < KEYS:
            with self._lock:
                if digest not in self._known:
                    self._known.add(digest)
                    self._met[digest] = CANDIDATE if tried else CHAMPION
        return tried

    def attempt(self, rows: Sequence[Mapping[str, Any]]) -> list[Json]:
        """What the candidate says of rows; None for all of them where it fails."""
        began = time.perf_counter()
        answers: list[Json]
        try:
            answers = self.ask(rows)
        except InputError:  # they are asked of the champion, who says what is wrong with them
            return [None] * len(rows)
        except Exception as error:  # whatever a candidate does, only it is judged by that
            _log.warning("rollout %s: the candidate failed: %s", self.rollout.id, error)
            answers = [None] * len(rows)
        failed = sum(answer is None for answer in answers)
        self.count(CANDIDATE, len(rows), failed, time.perf_counter() - began)
        return answers

    def count(self, arm: str, rows: int, errors: int, seconds: float) -> None:
        """One pass of an arm over rows."""
        if rows == 0:
            return
        timed = Moments(1, seconds / rows)
        with self._lock:
            before = self._arms.get(arm, Traffic())
            self._arms[arm] = before.plus(Traffic(rows, errors, timed))

    def mirror(self, ids: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> None:
        """Ask the candidate too, later and in another thread; where it lags behind, not at all."""
        if not self.stage.mirrored or self._waiting >= WAITING:
            return
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._shadow, name="everlearn-shadow", daemon=True
            )
            self._thread.start()
        with self._lock:
            self._waiting += len(rows)
        self._mirrored.put((ids, rows))

    def collect(self) -> tuple[dict[str, Traffic], dict[int, Json], dict[int, str]]:
        """What was counted since the last time, what the candidate would have answered, and the
        arms of keys that were not met before."""
        with self._lock:
            arms, self._arms = self._arms, {}
            shadows, self._shadows = self._shadows, {}
            met, self._met = self._met, {}
        return arms, shadows, met

    def restore(
        self, arms: Mapping[str, Traffic], shadows: Mapping[int, Json], met: Mapping[int, str]
    ) -> None:
        """Take back what could not be stored."""
        with self._lock:
            for arm, traffic in arms.items():
                self._arms[arm] = traffic.plus(self._arms.get(arm, Traffic()))
            self._shadows = dict(shadows) | self._shadows
            self._met = dict(met) | self._met

    @property
    def idle(self) -> bool:
        """Whether all that was to be mirrored is."""
        return self._waiting == 0

    def close(self) -> None:
        """Mirror no more. Does not wait, whatever the candidate is at."""
        self._closed = True
        self._mirrored.put(None)

    def _shadow(self) -> None:
        while (item := self._mirrored.get()) is not None and not self._closed:
            ids, rows = item
            answers = self.attempt(rows)
            with self._lock:
                self._shadows |= dict(zip(ids, answers, strict=True))
                self._waiting -= len(rows)
