"""From the feedback log to jobs: what no job has taken, and whether a trigger wants it learned."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import sqlalchemy as sa

from everlearn.base import ConflictError, Decision, Json, Model, crash_point
from everlearn.data.history import append_matured
from everlearn.data.join import LogSource
from everlearn.data.log import FeedbackLog
from everlearn.data.quarantine import Quarantine
from everlearn.jobs import released
from everlearn.jobs.ledger import Taken
from everlearn.jobs.online import online_of
from everlearn.jobs.plan import Request
from everlearn.jobs.planner import Planner
from everlearn.jobs.queue import OPEN, Queue
from everlearn.jobs.triggers import Facts, store
from everlearn.jobs.triggers.history import History
from everlearn.registry import aliases
from everlearn.registry.audit import note
from everlearn.registry.models import model_id
from everlearn.registry.registry import Registry
from everlearn.storage import schema
from everlearn.storage.blobs import Blobs
from everlearn.storage.database import Database

ATTEMPTS = 5
"""To release a source that goes on saying things."""

NO_LABELS = Decision("nothing", "the feedback log has no labels yet")


class Updates:
    """The feedback logs of a workspace's models, and jobs for what is new in them.

    Args:
        database, blobs, registry, planner, queue: of the workspace.
        on_trial: whether a candidate of the model of this name is on trial: no trigger fires then.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        registry: Registry,
        planner: Planner,
        queue: Queue,
        on_trial: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._on_trial = on_trial
        self._database, self._blobs, self._registry = database, blobs, registry
        self._planner, self._queue = planner, queue
        self._taken_by = Taken()
        self._logs: dict[str, FeedbackLog] = {}
        self._matured: dict[str, int] = {}  # model → moment up to which windows were closed

    def log(self, name: str) -> FeedbackLog:
        """The feedback log of a model. Raises `NotFoundError`."""
        if name not in self._logs:
            with self._database.read() as connection:
                self._logs[name] = FeedbackLog(
                    self._database, model_id(connection, name), self._blobs
                )
        return self._logs[name]

    def source(self, name: str, definition: int) -> LogSource:
        """The labels of a model as rows to learn. Raises `InputError` if it has no target."""
        self.mature(name, definition)
        model = self._model(name, definition)
        return LogSource(self.log(name), model.schema, self._blobs, model.labels, model.guards)

    def mature(self, name: str, definition: int) -> int:
        """Log the negatives of predictions whose maturity window closed; how many they are."""
        policy = self._model(name, definition).labels
        if policy is None or policy.window is None or policy.unlabelled != "negative":
            return 0
        at = self._database.clock()
        count = append_matured(self.log(name), policy, at, self._matured.get(name))
        self._matured[name] = at - policy.window
        return count

    def quarantine(self, name: str) -> Quarantine:
        """The sources of labels that are set aside. Raises `NotFoundError`."""
        return Quarantine(self._database, self.log(name).model)

    def release(self, name: str, definition: int, source: str) -> int | Decision:
        """Believe a source again. What it says from now on is learned as that of others; its rows
        that jobs have set aside, and for which nobody else spoke, are queued as a job of their own.

        Returns:
            The job's number, or the decision "nothing" where no such row is left.

        Raises:
            NotFoundError: the source was never in quarantine.
            ConflictError: it is released already, or a job of this model has not ended.
        """
        quarantine = self.quarantine(name)
        after = int(quarantine.held(source).evidence["after"])
        online = online_of(self._model(name, definition)) is not None
        for _ in range(ATTEMPTS):
            upto = self.log(name).head() if online else self._taken(name)
            held = [(after, upto)] if upto > after else []
            if online:
                held = released.not_learned(self._database, name, quarantine, source, after, upto)
            kept = self.source(name, definition)
            rows = released.rows(kept, source, held if source in quarantine.active() else [])
            if rows is None:
                self._believe(name, source)
                return Decision("nothing", f"no row of {source!r} waits to be learned")
            request = Request(rows, source=f"released:{source}:{after}")

            def then(connection: sa.Connection, job: int, upto: int = upto) -> None:
                if online and released.came_since(connection, self.log(name), source, upto):
                    raise released.CameSinceError
                self._believe(name, source, connection)

            with suppress(released.CameSinceError):
                planned = self._planner.plan(name, definition, request, then=then)
                if isinstance(planned, Decision):
                    self._believe(name, source)
                return planned
        raise ConflictError(f"labels of {source!r} come while it is released; release it again")

    def _believe(self, name: str, source: str, connection: sa.Connection | None = None) -> None:
        """Release a source, and note it, in one transaction."""
        if connection is None:
            with self._database.write() as connection:
                return self._believe(name, source, connection)
        self.quarantine(name).release(source, connection)
        note(connection, "release source", name, {"source": source})
        return None

    def unlearned(self, name: str) -> int:
        """How many labels of the log no version was learned from, the refused ones included."""
        return self.log(name).head() - self._taken(name)

    def plan(self, name: str, definition: int) -> int | Decision:
        """Queue a job for the labels that are new; its number, or why there is none.

        Raises:
            ConflictError: a job of this model has not ended.
        """
        self.mature(name, definition)
        if self.log(name).head() == 0:
            return NO_LABELS
        return self._planner.plan(name, definition, Request(self.source(name, definition)))

    def trigger(self, name: str, definition: int) -> Decision:
        """Ask the model's triggers, and queue a job if one of them would learn.

        Returns:
            The decision of the first that would learn, with the job's number as evidence; or
            "wait", with what each of them said.
        """
        if self._queue.jobs(name, OPEN):
            return Decision("wait", "a job has not ended")
        if self._on_trial(name):
            return Decision("wait", "a rollout has not ended")
        asked, labels = self._ask(name, definition)
        learn = [one.decision for one in asked if one.decision.action == "learn"]
        try:
            if learn:
                return self._fire(name, definition, asked, learn[0])
            if any(one.changed for one in asked):
                with self._database.write() as connection:
                    self._keep(connection, name, asked)
        except ConflictError as error:
            return Decision("wait", str(error))
        reasons = "; ".join(one.decision.reason for one in asked)
        return Decision("wait", reasons or "there is no trigger", {"labels": labels})

    def decisions(self, name: str, limit: int = 100) -> list[Json]:
        """What the triggers of a model decided, newest first: all that fired, with their jobs, and
        what they wait for, once for each other reason. Raises `NotFoundError`."""
        with self._database.read() as connection:
            return store.decisions(connection, model_id(connection, name), limit)

    def _ask(self, name: str, definition: int) -> tuple[list[store.Asked], int]:
        """What each trigger says, and how many labels are new."""
        self.mature(name, definition)
        model = self._model(name, definition)
        taken, head = self._taken(name), self.log(name).head()
        labels = head - taken
        with self._database.read() as connection:
            key = model_id(connection, name)
            champion = aliases.current(connection, name)
            table = schema.versions.c
            query = sa.select(table.number, table.created_at).where(table.model_id == key)
            newest = connection.execute(query.order_by(table.number.desc()).limit(1)).first()
            serves = connection.execute(query.where(table.number == champion)).first()
            kept = store.read(connection, key)
        since = serves.created_at if serves else 0
        facts = Facts(
            now=self._database.clock(),
            labels=labels,
            champion=champion,
            version=newest.number if newest else None,
            made_at=newest.created_at if newest else None,
            past=History(self._database, key, champion, since, model.schema, taken, head),
        )
        asked: list[store.Asked] = []
        for title, trigger in store.named(model.triggers):
            before = kept.get(title, store.Kept({}))
            memory = store.copied(before.memory)
            decision = store.decided(trigger, facts.of(memory))
            if decision.action == "learn" and not labels:
                reason = f"{decision.reason}; but no label is new"
                decision, memory = replace(decision, action="wait", reason=reason), before.memory
            asked.append(store.Asked(title, before, decision, memory))
        return asked, labels

    def _fire(
        self, name: str, definition: int, asked: list[store.Asked], first: Decision
    ) -> Decision:
        """Queue a job, and keep what was said, in one transaction: a process that ends in between
        leaves neither, so that one event makes one job."""

        def then(connection: sa.Connection, job: int) -> None:
            self._keep(connection, name, asked, job)
            crash_point("trigger.queued")

        crash_point("trigger.decided")
        request = Request(self.source(name, definition))
        planned = self._planner.plan(name, definition, request, then=then)
        crash_point("trigger.fired")
        if isinstance(planned, int):
            return replace(first, evidence=first.evidence | {"job": planned})
        with self._database.write() as connection:
            self._keep(connection, name, asked)
        return planned

    def _keep(
        self, connection: sa.Connection, name: str, asked: list[store.Asked], job: int | None = None
    ) -> None:
        key = model_id(connection, name, lock=True)
        store.keep(connection, key, asked, self._database.clock(), job)

    def _taken(self, name: str) -> int:
        """The position of the last label that a version was learned from."""
        with self._database.read() as connection:
            return self._taken_by.read(connection, name)

    def _model(self, name: str, definition: int) -> Model:
        return self._registry.definition(name, definition).model()
