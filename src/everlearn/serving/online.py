"""A model that learns every label while it answers.

Every replica folds the same log onto the same version, so all of them answer alike. One of them, by
a lease, cuts numbered versions and watches the guard.

Two copies of the model learn the same labels, one after the other: one answers while the other one
learns, then they change places (Ramalhete & Correia 2015, "Left-right: a concurrency control
technique with wait-free population oblivious reads"). So answering waits for nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy.engine import Connection

from everlearn.base import (
    ConflictError,
    Decision,
    EverlearnError,
    LeaseLostError,
    crash_point,
    state_digest,
)
from everlearn.data.log import FeedbackLog
from everlearn.jobs import catchup
from everlearn.jobs.load import load_fold
from everlearn.jobs.online import Guard, Online, Tail
from everlearn.jobs.planner import Planner
from everlearn.jobs.queue import has_open_job, worker_name
from everlearn.registry import aliases, leases, versions
from everlearn.registry.models import model_id, plain
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Version
from everlearn.serving.predictor import Predictor, Served

_log = logging.getLogger("everlearn")

LEASE_SECONDS = 5.0

PART = 500
"""Labels that a candidate catches up with between two looks at the clock."""

TURN_SECONDS = 0.2
"""For which the live model waits while a candidate catches up: far less than a lease."""


class Standing(NamedTuple):
    """What a model's versions are: the champion, the newest one, and the candidate that has to
    catch up."""

    champion: int | None
    newest: int
    behind: int | None


class OnlineLearner:
    """Keeps one model of a server learning. Used by one thread.

    Args:
        name: of the model.
        online: how.
        registry, planner, log: of a workspace that only this thread uses.
        predictor: what answers.
    """

    def __init__(
        self,
        name: str,
        online: Online,
        registry: Registry,
        planner: Planner,
        log: FeedbackLog,
        predictor: Predictor,
    ) -> None:
        self.name, self.online = name, online
        self._registry, self._planner, self._feedback = registry, planner, log
        self._predictor, self._holder = predictor, f"{worker_name()}/{id(self):x}"
        self._version: Version | None = None
        self._newest = 0
        self._stale = True
        self._known: Standing | None = None
        self._rival: tuple[Version, Tail] | None = None
        self._cut_at = time.monotonic()
        self._token: int | None = None
        self._renew_at = 0.0

    def step(self) -> bool:
        """Learn what is new, and do what is due; whether there was anything."""
        standing = self._standing()
        if standing.champion is None:
            return False
        if self._stale or standing != self._known:
            self._follow(standing)
        self._lease()
        moved = self._learn(self._feedback.head())
        if self._token is None:
            self._rival = None
            return moved
        verdict = self._guard.decide() if len(self._back) else None
        if verdict is not None:
            self._cut(verdict)
        elif standing.behind is not None:
            self._catch_up(standing.behind)
        elif len(self._back) and self._is_due():
            self._cut(self._learned())
        return moved

    def close(self) -> None:
        """Let others cut versions at once."""
        if self._token is not None:
            with self._registry.database.write() as connection:
                leases.release(connection, self.name, self._token)

    def _standing(self) -> Standing:
        with self._registry.database.read() as connection:
            return Standing(
                aliases.current(connection, self.name),
                versions.newest(connection, self.name),
                catchup.behind(connection, self.name),
            )

    def _follow(self, standing: Standing) -> None:
        """Begin anew where the champion moved, or the guard refused a version, or something went
        wrong. What a job made and nobody was served leaves the live model as it is."""
        with self._registry.database.read() as connection:
            newest = catchup.newest(connection, self.name)
        mine = None if self._version is None else self._version.number
        if self._stale or (mine, self._newest) != (standing.champion, newest):
            self._load()
        self._known = standing

    def _load(self) -> None:
        """Begin at the champion. Labels that a served version took, or one that the guard refused,
        are not learned again."""
        while True:
            standing = self._standing()
            champion = self._registry.version(self.name)
            position = self._planner.taken(self.name, champion.number)
            with self._registry.database.read() as connection:
                newest = catchup.newest(connection, self.name)
            if self._standing() == standing:
                break
        tails = [
            Tail.load(self._registry, self.name, champion, self._feedback, position)
            for _ in range(2)
        ]
        mine = 0 if self._version is None else self._version.number
        same = (mine, self._newest) == (champion.number, newest)
        followed = 0 < mine < champion.number or same
        self._stale, (self._front, self._back) = True, tails
        self._newest, self._rival = newest, None
        self._begin(champion)
        if followed:  # what answers here has learned what came since already
            head = self._feedback.head()
            read = self._back.read(head)
            self._guard.see(self._back, read)
            for tail in tails:
                tail.fold_in(head, read)
        self._publish(self._front)
        self._stale = False

    def _begin(self, version: Version) -> None:
        self._version, self._cut_at = version, time.monotonic()
        self._guard = Guard(load_fold(self._registry, self.name, version), self.online)

    def _learn(self, head: int) -> bool:
        """Fold what is new into the copy that rests, have it answer, then into the other one."""
        if head <= self._back.position:
            return False
        read = self._back.read(head)
        self._stale = True  # where this breaks off, the copies are not alike
        self._guard.see(self._back, read)
        self._back.fold_in(head, read)
        self._publish(self._back)
        self._front.fold_in(head, read)
        self._front, self._back = self._back, self._front
        self._stale = False
        return True

    def _publish(self, tail: Tail) -> None:
        """Have a copy answer, and wait until the other one does no more."""
        assert self._version is not None
        served = Served(
            self._version.number, self._version.state_digest, tail.fold, position=tail.position
        )
        self._predictor.replace(served)

    def _lease(self) -> None:
        if time.monotonic() < self._renew_at:
            return
        with self._registry.database.write() as connection:
            self._token = leases.take(connection, self.name, self._holder, LEASE_SECONDS)
        self._renew_at = time.monotonic() + LEASE_SECONDS / 3.0

    # --- versions ---

    def _is_due(self) -> bool:
        """Whether a version is to be cut: not while a job learns from the last one."""
        waited = time.monotonic() - self._cut_at
        if len(self._back) < self.online.rows and waited < self.online.seconds:
            return False
        with self._registry.database.read() as connection:
            return not has_open_job(connection, self.name)

    def _learned(self) -> Decision:
        return Decision("pass", f"{len(self._back):,} labels learned online")

    def _catch_up(self, number: int) -> None:
        """Let a job's candidate learn what the live model has learned since, for a while. When both
        stand at the same position, the gate compares them. Whatever goes wrong with a candidate,
        it is refused, and the live model goes on."""
        try:
            candidate, tail, decision = self._compared(number)
        except (OSError, ConflictError):  # not the candidate's
            raise
        except Exception as error:
            self._refuse(number, f"it could not catch up: {type(error).__name__}: {error}")
            return
        if decision is None:
            return
        reason = f"it has caught up: {decision.reason}"
        if decision.action == "pass":
            self._replace(candidate, tail, replace(decision, reason=reason))
        else:
            self._refuse(number, reason)

    def _compared(self, number: int) -> tuple[Version, Tail, Decision | None]:
        """The candidate, its tail, and what the gate says of it, if it has caught up."""
        if self._rival is None or self._rival[0].number != number:
            candidate = self._registry.version(self.name, number)
            position = self._planner.taken(self.name, number)
            tail = Tail.load(self._registry, self.name, candidate, self._feedback, position)
            self._rival = candidate, tail
        candidate, tail = self._rival
        head, until = self._back.position, time.monotonic() + TURN_SECONDS
        while tail.position < head:
            tail.fold_in(min(head, tail.position + PART))
            if time.monotonic() > until:
                break
        if tail.position != head:
            return candidate, tail, None
        gate = self._registry.definition(self.name, candidate.definition).model().gate
        return candidate, tail, catchup.judge(tail, self._back, gate)

    def _refuse(self, number: int, reason: str) -> None:
        """Let a candidate catch up no more, unless that was decided meanwhile."""

        def refuse(connection: Connection) -> None:
            if catchup.behind(connection, self.name) == number:
                name = aliases.CANDIDATE
                aliases.note(connection, self.name, name, action="refuse", reason=reason)

        self._commit(refuse)
        self._rival = None

    def _replace(self, candidate: Version, tail: Tail, decision: Decision) -> None:
        """Make a candidate that has caught up champion."""
        assert self._version is not None
        base, self._rival = self._version.number, None
        add = self._adding(candidate, tail, decision) if len(tail) else None

        def promote(connection: Connection) -> None:
            number = candidate.number if add is None else add(connection)
            crash_point("online.committing")
            why = decision.reason
            aliases.note(connection, self.name, aliases.CANDIDATE, action="promote", reason=why)
            name = aliases.CHAMPION
            aliases.move(connection, self.name, name, number, expected=base, reason=why)

        self._commit(promote)

    def _cut(self, decision: Decision) -> None:
        """Make a numbered version of what was learned: the champion, or, where the guard says so, a
        refused one, whose labels are on hold."""
        assert self._version is not None
        base, passed, made = self._version, decision.action == "pass", list[int]()
        self._stale = True  # until both copies are as what is stored, which is settled
        add = self._adding(base, self._back, decision)

        def cut(connection: Connection) -> None:
            if passed and has_open_job(connection, self.name):
                return  # it was queued meanwhile, and learns from the champion that stands
            made.append(number := add(connection))
            crash_point("online.committing")
            alias = aliases.CHAMPION if passed else aliases.CANDIDATE
            stands = aliases.current(connection, self.name, alias)
            aliases.move(
                connection,
                self.name,
                alias,
                number,
                expected=base.number if passed else stands,
                action="promote" if passed else "refuse",
                reason=decision.reason,
            )

        if not self._commit(cut) or not made:
            return
        if not passed:
            _log.warning("%s: back to version %d: %s", self.name, base.number, decision.reason)
            self._version = None
            return
        for copy in (self._front, self._back):
            copy.cut()
        self._newest = made[0]
        self._begin(self._registry.version(self.name, made[0]))
        self._publish(self._front)
        self._stale = False

    def _adding(self, base: Version, tail: Tail, decision: Decision) -> Callable[[Connection], int]:
        """Store the parts of a version that goes on from another one; what adds the version."""
        parts = self._registry.parts
        digest = state_digest(state := tail.state())
        manifest = parts.save(state, known=base.manifest)
        held = parts.save(tail.holdouts.save(), known=base.holdouts)
        increment = tail.increment(parts.blobs)
        crash_point("online.saved")

        def add(connection: Connection) -> int:
            return versions.add(
                connection,
                self.name,
                parent=base.number,
                definition=base.definition,
                strategy=base.strategy,
                state_digest=digest,
                manifest=manifest,
                holdouts=held,
                metrics=plain(dict(tail.metrics.results(positive=tail.fold.positive))),
                decision=decision,
                increments=[increment],
                created_at=self._registry.database.clock(),
            )

        return add

    def _commit(self, change: Callable[[Connection], None]) -> bool:
        """Change the registry in one transaction, if the lease is ours still; else begin again from
        whatever stands."""
        assert self._token is not None
        try:
            with self._registry.database.write() as connection:
                model_id(connection, self.name, lock=True)
                leases.fence(connection, self.name, self._token)
                change(connection)
        except LeaseLostError:
            self._token, self._stale = None, True
            return False
        return True


class OnlineLearning:
    """A thread that keeps the models of a server that learn online learning.

    Args:
        learners: of the models.
        pause: seconds between looks at the log, unless woken.
    """

    def __init__(self, learners: list[OnlineLearner], pause: float = 0.02) -> None:
        self._learners, self._pause = learners, pause
        self._stop, self._woken = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="everlearn-online", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """There are labels."""
        self._woken.set()

    def stop(self) -> None:
        """End after the labels in hand."""
        self._stop.set()
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._woken.wait(self._pause)
            self._woken.clear()
            for learner in self._learners:
                try:
                    learner.step()
                except Exception as error:  # of any kind: a thread that ended would learn no more
                    said = "%s: online learning goes on after: %s", learner.name, error
                    _log.warning(*said, exc_info=not isinstance(error, EverlearnError))
                    self._stop.wait(1.0)
        for learner in self._learners:
            try:
                learner.close()
            except EverlearnError as error:
                _log.warning("%s: its lease was not released: %s", learner.name, error)
