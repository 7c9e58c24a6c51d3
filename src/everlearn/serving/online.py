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
from typing import NamedTuple

from sqlalchemy.engine import Connection

from everlearn.base import Decision, EverlearnError, crash_point
from everlearn.data.log import FeedbackLog
from everlearn.jobs import catchup
from everlearn.jobs.feed import Feed
from everlearn.jobs.guard import Guard
from everlearn.jobs.load import load_fold
from everlearn.jobs.online import Online, Tail, UnlearnableError, online_of
from everlearn.jobs.planner import Planner
from everlearn.jobs.queue import has_open_job
from everlearn.registry import aliases, definitions, versions
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Version
from everlearn.serving.cutter import Cutter
from everlearn.serving.predictor import Predictor, Served
from everlearn.serving.rival import Rival

_log = logging.getLogger("everlearn")

MANY = 5000
"""Labels that are learned between two looks at the guard and at what else is due."""

CAREFUL = 1000
"""Labels that are learned with a copy of the state at hand, after the learner failed on one."""

LOOK_SECONDS = 1.0
"""Between looks whether a model that does not learn online is to."""


BEGIN_SECONDS = 60.0
"""A server answers after so long at the latest, with the versions alone."""

REST_SECONDS = 1.0
"""For which a model is left alone after an error, while others go on learning."""


class Standing(NamedTuple):
    """What a model's versions are: the champion, the newest one, and the candidate that has to
    catch up; and the number of its newest definition."""

    champion: int | None
    newest: int
    behind: int | None
    definition: int


class OnlineLearner:
    """Keeps one model of a server learning, as long as its newest definition says so. Used by one
    thread.

    Args:
        name: of the model.
        registry, planner, log: of a workspace that only this thread uses.
        predictor: what answers.
    """

    def __init__(
        self,
        name: str,
        registry: Registry,
        planner: Planner,
        log: FeedbackLog,
        predictor: Predictor,
    ) -> None:
        self.name = name
        self._registry, self._planner, self._feedback = registry, planner, log
        self._predictor = predictor
        self._cutter = Cutter(name, registry)
        self._rival = Rival(self._cutter, planner, log)
        self._online: Online | None = None
        self._version: Version | None = None
        self._newest = self._careful = 0
        self._stale, self._rests, self._moved = True, False, True
        self._known: Standing | None = None
        self._cut_at = self._look_at = 0.0

    def step(self) -> bool:
        """Learn what is new, and do what is due; whether there was anything."""
        if self._online is None and time.monotonic() < self._look_at:
            return False
        standing = self._standing()
        changed = standing != self._known
        if changed:
            self._moved = True
            self._define(standing.definition)
        if self._online is None:
            self._rest(standing)
            self._known = standing
            return False
        if standing.champion is None:
            return False
        if self._stale or changed:
            self._follow(standing)
        self._cutter.renew()
        try:
            head = self._feedback.head()
            moved = self._learn(min(head, self._back.position + MANY))
            self._lead(standing)
        except UnlearnableError as error:
            said = "%s: labels are learned one by one, for the learner failed: %s"
            _log.warning(said, self.name, error)
            self._careful, self._stale = CAREFUL, True
            return True
        return moved

    def close(self) -> None:
        """Let others cut versions at once."""
        self._cutter.release()

    def _standing(self) -> Standing:
        with self._registry.database.read() as connection:
            return Standing(
                aliases.current(connection, self.name),
                versions.newest(connection, self.name),
                catchup.behind(connection, self.name),
                definitions.newest(connection, self.name),
            )

    def _define(self, number: int) -> None:
        """Go by the newest definition: how often versions are cut, and how far the guard lets the
        live model go, and whether it learns online at all."""
        if self._known is not None and self._known.definition == number:
            return
        self._online = online_of(self._registry.definition(self.name, number).model())
        if self._online is not None and self._version is not None:
            self._guard.online = self._online

    def _rest(self, standing: Standing) -> None:
        """The model learns online no more: keep what it learned as a version, which then answers
        like any other one; or the candidate that would have caught up with it."""
        self._look_at = time.monotonic() + LOOK_SECONDS
        if standing.behind is not None:
            why = "the live model, with which it was to catch up, learns online no more"
            with self._registry.database.write() as connection:
                catchup.promote(connection, self.name, reason=why)
            self._stale = True  # another version is champion
        if self._version is None:
            served = self._predictor.served.version
            if self._rests and standing.champion not in (None, served):
                self._predictor.refresh()
            return
        self._cutter.renew()
        if self._cutter.leads and not self._stale and len(self._back):
            self._cut(Decision("pass", f"{self._learned()}; it learns online no more"))
        self._cutter.release()
        found = self._registry.version(self.name)
        fold = load_fold(self._registry, self.name, found)
        self._predictor.replace(Served(found.number, found.state_digest, fold))
        self._version, self._stale, self._rests = None, True, True

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
        feed = Feed(self._registry, self.name, champion, self._feedback)
        tails = [
            Tail.load(self._registry, self.name, champion, self._feedback, position, feed)
            for _ in range(2)
        ]
        mine = 0 if self._version is None else self._version.number
        same = (mine, self._newest) == (champion.number, newest)
        followed = 0 < mine < champion.number or same
        self._stale, (self._front, self._back) = True, tails
        self._newest = newest
        self._rival.forget()
        self._begin(champion)
        if followed:  # what answers here has learned what came since already
            self._fold(self._feedback.head())
        self._publish(self._front)
        self._stale = False

    def _begin(self, version: Version) -> None:
        assert self._online is not None
        self._version, self._cut_at = version, time.monotonic()
        self._guard = Guard(load_fold(self._registry, self.name, version), self._online)

    def _learn(self, head: int) -> bool:
        """Fold what is new into the copy that rests, have it answer, then into the other one."""
        if head <= self._back.position:
            return False
        self._stale = True  # where this breaks off, the copies are not alike
        self._fold(head, between=lambda: self._publish(self._back))
        self._front, self._back = self._back, self._front
        self._stale = False
        return True

    def _fold(self, head: int, between: Callable[[], object] = lambda: None) -> None:
        """Fold what is new into both copies, one after the other. After the learner failed on a
        label, those that it fails on are looked for and set aside, for a while."""
        careful = self._careful > 0
        self._back.careful = self._front.careful = careful
        before, failed = self._back.position, len(self._back.failed)
        read = self._back.read(head)
        self._guard.see(self._back, read)
        self._back.fold_in(head, read)
        between()
        self._front.fold_in(head, read)
        if careful:
            lost = len(self._back.failed) - failed
            self._careful = CAREFUL if lost else max(0, self._careful - (head - before))
            if lost:
                said = "%s: %d labels were set aside, for the learner fails on them"
                _log.warning(said, self.name, lost)

    def _publish(self, tail: Tail) -> None:
        """Have a copy answer, and wait until the other one does no more."""
        assert self._version is not None
        served = Served(
            self._version.number, self._version.state_digest, tail.fold, position=tail.position
        )
        self._predictor.replace(served)

    # --- versions ---

    def _lead(self, standing: Standing) -> None:
        """What the one replica with the lease does for all: of what moved before, too."""
        if not self._cutter.leads:
            self._rival.forget()
            return
        if self._moved:
            self._rival.give_up()
            self._moved = not self._cutter.leads
        verdict = self._guard.decide() if len(self._back) else None
        if verdict is not None:
            self._cut(verdict)
        elif standing.behind is not None:
            assert self._version is not None
            self._rival.step(standing.behind, self._version, self._back)
            self._stale = self._stale or not self._cutter.leads
        elif len(self._back) and self._is_due():
            self._cut(Decision("pass", self._learned()))

    def _is_due(self) -> bool:
        """Whether a version is to be cut: not while a job learns from the last one."""
        assert self._online is not None
        waited = time.monotonic() - self._cut_at
        if len(self._back) < self._online.rows and waited < self._online.seconds:
            return False
        with self._registry.database.read() as connection:
            return not has_open_job(connection, self.name)

    def _learned(self) -> str:
        lost = len(self._back.failed)
        aside = f"; on {lost:,} of them the learner fails: they were set aside" if lost else ""
        return f"{len(self._back):,} labels learned online{aside}"

    def _cut(self, decision: Decision) -> None:
        """Make a numbered version of what was learned: the champion, or, where the guard says so, a
        refused one, whose labels are on hold."""
        assert self._version is not None
        base, passed, made = self._version, decision.action == "pass", list[int]()
        self._stale = True  # until both copies are as what is stored, which is settled
        add = self._cutter.adding(base, self._back, decision)

        def cut(connection: Connection) -> None:
            if passed and has_open_job(connection, self.name):
                return  # it was queued meanwhile, and learns from the champion that stands
            behind = catchup.behind(connection, self.name)
            if passed and behind is not None:
                return
            made.append(number := add(connection))
            crash_point("online.committing")
            if behind is not None:
                why = (
                    f"the live model, which it was catching up with, was refused: version {number}"
                )
                catchup.end(connection, self.name, behind, Decision("refuse", why))
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

        if not self._cutter.commit(cut) or not made:
            return
        if not passed:
            _log.warning("%s: back to version %d: %s", self.name, base.number, decision.reason)
            self._version = None
            return
        self._newest = made[0]
        self._begin(self._registry.version(self.name, made[0]))
        self._back.cut()
        self._publish(self._back)
        self._front.fold.patch = self._back.fold.patch  # solved again
        self._front.cut()  # which answers no more
        self._front, self._back = self._back, self._front
        self._stale = False


class OnlineLearning:
    """A thread that keeps the models of a server that learn online learning.

    Args:
        learners: of the models.
        pause: seconds between looks at the log, unless woken.
    """

    def __init__(self, learners: list[OnlineLearner], pause: float = 0.02) -> None:
        self._learners, self._pause = learners, pause
        self._stop, self._woken, self._begun = (threading.Event() for _ in range(3))
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, and return when each model answers with what it learned online, or could not;
        an application may be started again after it was stopped."""
        self._stop.clear()
        self._begun.clear()
        self._thread = threading.Thread(target=self._run, name="everlearn-online", daemon=True)
        self._thread.start()
        self._begun.wait(BEGIN_SECONDS)

    def wake(self) -> None:
        """There are labels."""
        self._woken.set()

    def stop(self) -> None:
        """End after the labels in hand."""
        self._stop.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        rests_until = dict.fromkeys(self._learners, 0.0)
        while not self._stop.is_set():
            self._woken.wait(self._pause)
            self._woken.clear()
            for learner in self._learners:
                if time.monotonic() < rests_until[learner]:
                    continue
                try:
                    if learner.step():
                        self._woken.set()  # there may be more
                except Exception as error:  # of any kind: a thread that ended would learn no more
                    said = "%s: online learning goes on after: %s", learner.name, error
                    _log.warning(*said, exc_info=not isinstance(error, EverlearnError))
                    rests_until[learner] = time.monotonic() + REST_SECONDS
            self._begun.set()
        for learner in self._learners:
            try:
                learner.close()
            except EverlearnError as error:
                _log.warning("%s: its lease was not released: %s", learner.name, error)
