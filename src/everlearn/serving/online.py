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

from everlearn.base import Decision, EverlearnError, LeaseLostError, crash_point, state_digest
from everlearn.data.join import LogSource
from everlearn.data.log import FeedbackLog
from everlearn.jobs.load import load_fold
from everlearn.jobs.online import Guard, Online, Tail
from everlearn.jobs.plan import Planner
from everlearn.jobs.queue import worker_name
from everlearn.registry import aliases, leases, versions
from everlearn.registry.models import plain
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Version
from everlearn.serving.predictor import Predictor, Served

_log = logging.getLogger("everlearn")

LEASE_SECONDS = 5.0

LOG = LogSource.kind


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
        self._known: tuple[int | None, int] = (None, 0)
        self._cut_at = time.monotonic()
        self._token: int | None = None
        self._renew_at = 0.0

    def step(self) -> bool:
        """Learn what is new, and do what is due; whether there was anything."""
        standing = self._standing()
        if standing[0] is None:
            return False
        if self._version is None or standing != self._known:
            self._load()
        self._lease()
        moved = self._learn(self._feedback.head())
        if self._token is not None and len(self._back):
            verdict = self._guard.decide()
            waited = time.monotonic() - self._cut_at
            if verdict is not None:
                self._cut(verdict)
            elif len(self._back) >= self.online.rows or waited >= self.online.seconds:
                self._cut(Decision("pass", f"{len(self._back):,} labels learned online"))
        return moved

    def close(self) -> None:
        """Let others cut versions at once."""
        if self._token is not None:
            with self._registry.database.write() as connection:
                leases.release(connection, self.name, self._token)

    def _standing(self) -> tuple[int | None, int]:
        """The champion, and the newest version, which may be one that the guard refused."""
        with self._registry.database.read() as connection:
            champion = aliases.current(connection, self.name)
            return champion, versions.newest(connection, self.name)

    def _load(self) -> None:
        """Begin at the champion. Labels that any version took, a refused one too, are not learned
        again."""
        while True:
            standing = self._standing()
            champion = self._registry.version(self.name)
            taken = [item.stop for item in self._planner.consumed(self.name) if item.kind == LOG]
            if self._standing() == standing:
                break
        position = max(taken, default=0)
        tails = [
            Tail.load(self._registry, self.name, champion, self._feedback, position)
            for _ in range(2)
        ]
        followed = self._version is not None and champion.number > self._version.number
        self._front, self._back = tails
        self._known = standing
        self._begin(champion)
        if followed:  # another's cut: what answers here has learned what came since already
            head = self._feedback.head()
            read = self._back.read(head)
            self._guard.see(self._back, read)
            for tail in tails:
                tail.fold_in(head, read)
        self._publish(self._front)

    def _begin(self, version: Version) -> None:
        self._version, self._cut_at = version, time.monotonic()
        self._guard = Guard(load_fold(self._registry, self.name, version), self.online)

    def _learn(self, head: int) -> bool:
        """Fold what is new into the copy that rests, have it answer, then into the other one."""
        if head <= self._back.position:
            return False
        read = self._back.read(head)
        self._guard.see(self._back, read)
        self._back.fold_in(head, read)
        self._publish(self._back)
        self._front.fold_in(head, read)
        self._front, self._back = self._back, self._front
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

    def _cut(self, decision: Decision) -> None:
        """Make a numbered version of what was learned: the champion, or, where the guard says so, a
        refused one, whose labels are on hold."""
        assert self._version is not None
        assert self._token is not None
        tail, base, parts = self._back, self._version, self._registry.parts
        digest = state_digest(state := tail.state())
        manifest = parts.save(state, known=base.manifest)
        held = parts.save(tail.holdouts.save(), known=base.holdouts)
        increment = tail.increment(parts.blobs)
        crash_point("online.saved")
        passed = decision.action == "pass"
        try:
            with self._registry.database.write() as connection:
                leases.fence(connection, self.name, self._token)
                number = versions.add(
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
        except LeaseLostError:
            self._token, self._version = None, None  # begin again from whatever stands
            return
        if not passed:
            _log.warning("%s: back to version %d: %s", self.name, base.number, decision.reason)
            self._version = None
            return
        for copy in (self._front, self._back):
            copy.cut()
        self._known = (number, number)
        self._begin(self._registry.version(self.name, number))
        self._publish(self._front)


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
                except EverlearnError as error:
                    _log.warning("%s: online learning goes on after: %s", learner.name, error)
                    self._stop.wait(1.0)
        for learner in self._learners:
            try:
                learner.close()
            except EverlearnError as error:
                _log.warning("%s: its lease was not released: %s", learner.name, error)
