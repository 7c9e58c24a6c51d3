"""A job's candidate that catches up with what is learned online, to take the live model's place."""

from __future__ import annotations

import time
from dataclasses import replace

from sqlalchemy.engine import Connection

from everlearn.base import ConflictError, Decision, StorageError, crash_point
from everlearn.data.log import FeedbackLog
from everlearn.jobs import catchup
from everlearn.jobs.feed import Feed
from everlearn.jobs.online import Tail
from everlearn.jobs.planner import Planner
from everlearn.registry import aliases
from everlearn.registry.versions import Version
from everlearn.serving.cutter import Cutter

PART = 500
"""Labels that a candidate catches up with between two looks at the clock."""

TURN_SECONDS = 0.2
"""For which the live model waits while a candidate catches up: far less than a lease."""


class Rival:
    """The candidate of one model that has to catch up, if there is one.

    Args:
        cutter: by which versions are made.
        planner, log: of the workspace.
    """

    def __init__(self, cutter: Cutter, planner: Planner, log: FeedbackLog) -> None:
        self._cutter, self._planner, self._log = cutter, planner, log
        self._registry, self.name = cutter.registry, cutter.name
        self._at: tuple[Version, Tail] | None = None

    def forget(self) -> None:
        """Begin with it anew, if there is one."""
        self._at = None

    def step(self, number: int, base: Version, live: Tail) -> None:
        """Let a candidate learn what the live model has learned since, for a while. When both
        stand at the same position, the gate compares them. Whatever goes wrong with a candidate,
        it is refused, and the live model goes on.

        Args:
            number: of the candidate.
            base: the champion, from which the live model goes on.
        """
        try:
            candidate, tail, decision = self._compared(number, live)
        except (OSError, StorageError, ConflictError):  # not the candidate's
            raise
        except Exception as error:
            why = f"it could not catch up: {type(error).__name__}: {error}"
            self._end(number, Decision("refuse", why))
            return
        if decision is None:
            return
        decision = replace(decision, reason=f"it has caught up: {decision.reason}")
        if decision.action == "pass":
            self._replace(candidate, base, tail, replace(decision, action="promote"))
        else:
            self._end(number, replace(decision, action="refuse"))

    def give_up(self) -> None:
        """Say what became of a candidate that was to catch up with what is champion no more."""
        with self._registry.database.read() as connection:
            number = catchup.left_behind(connection, self.name)
            champion = aliases.current(connection, self.name)
        if number is not None and number == champion:
            self._end(number, Decision("promote", "it became champion while it caught up"))
        elif number is not None:
            why = f"version {champion} became champion while it caught up with another one"
            self._end(number, Decision("refuse", why))

    def _end(self, number: int, decision: Decision) -> None:
        """Let a candidate catch up no more, unless that was decided meanwhile."""

        def end(connection: Connection) -> None:
            left = catchup.left_behind(connection, self.name)
            if number in (catchup.behind(connection, self.name), left):
                catchup.end(connection, self.name, number, decision)

        self._cutter.commit(end)
        self._at = None

    def _compared(self, number: int, live: Tail) -> tuple[Version, Tail, Decision | None]:
        """The candidate, its tail, and what the gate says of it, if it has caught up."""
        if self._at is None or self._at[0].number != number:
            candidate = self._registry.version(self.name, number)
            position = self._planner.taken(self.name, number)
            feed = Feed(self._registry, self.name, candidate, self._log, live=False)
            tail = Tail.load(self._registry, self.name, candidate, self._log, position, feed)
            tail.careful = True  # what it fails on is set aside, as the live model does
            self._at = candidate, tail
        candidate, tail = self._at
        head, until = live.position, time.monotonic() + TURN_SECONDS
        while tail.position < head:
            tail.fold_in(min(head, tail.position + PART))
            if time.monotonic() > until:
                break
        if tail.position != head:
            return candidate, tail, None
        gate = self._registry.definition(self.name, candidate.definition).model().gate
        return candidate, tail, catchup.judge(tail, live, gate)

    def _replace(self, candidate: Version, base: Version, tail: Tail, decision: Decision) -> None:
        """Make a candidate that has caught up champion, unless something else was decided of it
        meanwhile."""
        self._at = None
        made = replace(decision, action="pass")
        add = self._cutter.adding(candidate, tail, made) if len(tail) else None

        def promote(connection: Connection) -> None:
            if catchup.behind(connection, self.name) != candidate.number:
                return
            number = candidate.number if add is None else add(connection)
            crash_point("online.committing")
            catchup.end(connection, self.name, candidate.number, decision)
            name, why = aliases.CHAMPION, decision.reason
            aliases.move(connection, self.name, name, number, expected=base.number, reason=why)

        self._cutter.commit(promote)
