"""The queue of jobs: claims with a lease and a fencing token, heartbeats, retries, dead letters.

    queued → running → committed → done          (the version exists, and its alias was moved)
       ↑        ↓
       └─ retry ┴→ failed (its input is wrong)  or  dead (too many attempts)

`committed` is the moment between the two transactions of a job: its version is there, and the
gate's decision still has to be carried out. A worker that finds such a job finishes it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from everlearn.base import ConflictError, Decision, Json, LeaseLostError, NotFoundError
from everlearn.jobs.processes import is_gone
from everlearn.registry.models import model_id as key_of
from everlearn.storage import schema
from everlearn.storage.database import Database

OPEN = ("queued", "running", "committed")
"""States of a job that a worker still has to do something about."""

ENDED = ("done", "failed", "dead", "skipped")
"""States of a job that nobody works on any more."""

LEASE_SECONDS = 30.0
MAX_ATTEMPTS = 5
BACKOFF_SECONDS = 2.0
"""First wait after a failure; doubled with every further attempt, up to 10 minutes."""


def now() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a strategy over an increment.

    Args:
        id: number in the workspace.
        model_id, model: the model it is for.
        state: see the module's picture.
        plan: the frozen input, see `jobs.plan.Plan`.
        base_version: the champion that it starts from; None for the first job.
        attempts: how many workers have claimed it.
        token: fencing token of the last claim.
        checkpoint: a version not yet published, see `jobs.checkpoint`.
        version: the version it ended in.
        decision: of the gate, or of the promotion that followed.
        error: what went wrong last.
    """

    id: int
    model_id: int
    model: str
    state: str
    plan: Json
    base_version: int | None
    attempts: int
    max_attempts: int
    not_before: int
    worker: str | None
    token: int
    lease_until: int | None
    checkpoint: Json
    version: int | None
    decision: Json
    error: str | None
    created_at: int
    started_at: int | None
    finished_at: int | None

    def to_json(self) -> Json:
        """What `job show` prints: everything but the block digests of the input."""
        hidden = ("plan", "checkpoint", "model_id")
        shown = {name: getattr(self, name) for name in self.__slots__ if name not in hidden}
        slices = [
            {key: piece.get(key) for key in ("source", "start", "stop", "digest")}
            for plan in (*self.plan.get("earlier", ()), self.plan)
            for piece in plan.get("slices", ())
        ]
        reached = (self.checkpoint or {}).get("rows")
        return shown | {"increment": slices, "checkpoint_rows": reached}


class Queue:
    """The jobs of a workspace."""

    def __init__(self, database: Database, lease_seconds: float = LEASE_SECONDS) -> None:
        self._database = database
        self.lease_seconds = lease_seconds

    def add(
        self,
        connection: sa.Connection,
        model_id: int,
        plan: Json,
        fingerprint: str,
        base: int | None,
    ) -> int:
        """Append a job; the caller's transaction makes it visible. Returns its id."""
        row = {
            "model_id": model_id,
            "state": "queued",
            "plan": plan,
            "fingerprint": fingerprint,
            "base_version": base,
            "attempts": 0,
            "max_attempts": MAX_ATTEMPTS,
            "not_before": 0,
            "token": 0,
            "created_at": now(),
        }
        result = connection.execute(schema.jobs.insert(), row)
        return int(result.inserted_primary_key[0])  # type: ignore[index]

    def jobs(
        self,
        model: str | None = None,
        states: Iterable[str] | None = None,
        limit: int | None = None,
        before: int = 1 << 62,
    ) -> list[Job]:
        """Jobs in the order of their ids; with a limit, the newest of those before one."""
        query = _select().where(schema.jobs.c.id < before).order_by(schema.jobs.c.id.desc())
        if model is not None:
            query = query.where(schema.models.c.name == model)
        if states is not None:
            query = query.where(schema.jobs.c.state.in_(tuple(states)))
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(query.limit(limit))][::-1]

    def get(self, job_id: int) -> Job:
        """One job. Raises `NotFoundError`."""
        with self._database.read() as connection:
            row = connection.execute(_select().where(schema.jobs.c.id == job_id)).first()
        if row is None:
            raise NotFoundError(f"there is no job {job_id}; `everlearn job list` shows them")
        return _job(row)

    def claim(self, worker: str, job_id: int | None = None) -> Job | None:
        """Take the oldest job that is due (or the given one, due or not) of a model that no other
        worker is busy with. None if there is none. Its attempts and its token grow by one."""
        with self._database.write() as connection:
            query = _select().where(schema.jobs.c.state.in_(OPEN)).order_by(schema.jobs.c.id)
            rows = [_job(row) for row in connection.execute(self._locked(query))]
            busy = {job.model_id for job in rows if _is_held(job)}
            for job in rows:
                due = job.not_before <= now() or job_id == job.id
                if not due or job.model_id in busy:
                    continue
                if job_id is None and job.attempts >= job.max_attempts and job.state == "running":
                    error = job.error or "its workers died again and again without an error"
                    self._set(connection, job.id, state="dead", error=error, finished_at=now())
                elif job_id is None or job.id == job_id:
                    return self._take(connection, job, worker)
                else:
                    busy.add(job.model_id)
        return None

    def _take(self, connection: sa.Connection, job: Job, worker: str) -> Job:
        changes: dict[str, Any] = {
            "state": job.state if job.state == "committed" else "running",
            "worker": worker,
            "token": job.token + 1,
            "attempts": job.attempts + 1,
            "lease_until": now() + int(self.lease_seconds * 1e6),
            "started_at": job.started_at or now(),
        }
        self._set(connection, job.id, **changes)
        return replace(job, **changes)

    def heartbeat(self, job: Job) -> None:
        """Renew the lease. Raises `LeaseLostError` if the job was taken over."""
        with self._database.write() as connection:
            self.fence(connection, job)
            until = now() + int(self.lease_seconds * 1e6)
            self._set(connection, job.id, lease_until=until)

    def fence(self, connection: sa.Connection, job: Job) -> None:
        """Raise `LeaseLostError` unless the job's token is still the newest: called inside every
        transaction that writes for a job."""
        query = sa.select(schema.jobs.c.token, schema.jobs.c.state)
        query = query.where(schema.jobs.c.id == job.id)
        row = connection.execute(self._locked(query)).one()
        if row.token != job.token or row.state not in ("running", "committed"):
            raise LeaseLostError(
                f"job {job.id} was taken over by another worker (token {row.token}, ours "
                f"{job.token}, state {row.state!r}); nothing of this run was committed"
            )

    def checkpoint(self, job: Job, checkpoint: Json) -> None:
        """Replace the job's checkpoint, if it is still ours. The attempts begin anew: a job that
        gets on is not one that always fails."""
        with self._database.write() as connection:
            self.fence(connection, job)
            until = now() + int(self.lease_seconds * 1e6)
            self._set(
                connection, job.id, checkpoint=checkpoint, attempts=1, lease_until=until, error=None
            )

    def commit(self, connection: sa.Connection, job: Job, version: int, decision: Decision) -> None:
        """The job's version exists, in this same transaction; what is left is to act on it."""
        self.fence(connection, job)
        self._set(
            connection,
            job.id,
            state="committed",
            version=version,
            decision=decision.to_json(),
            checkpoint=None,
        )

    def finish(self, connection: sa.Connection, job: Job, decision: Decision) -> None:
        """The job is done, its decision carried out in this same transaction."""
        self.fence(connection, job)
        self._set(
            connection,
            job.id,
            state="done",
            decision=decision.to_json(),
            worker=None,
            lease_until=None,
            error=None,
            finished_at=now(),
        )

    def fail(self, job: Job, error: str, *, retry: bool) -> str:
        """Say that a run failed. Returns the new state: queued (after a pause), failed or dead."""
        with self._database.write() as connection:
            self.fence(connection, job)
            current = self._current(connection, job.id)
            if not retry:
                state = "failed"
            else:
                state = "dead" if current.attempts >= current.max_attempts else "queued"
            if current.state == "committed" and state == "queued":
                state = "committed"
            pause = min(BACKOFF_SECONDS * 2 ** (current.attempts - 1), 600.0)
            ended = state in ("failed", "dead")
            self._set(
                connection,
                job.id,
                state=state,
                error=error,
                worker=None,
                lease_until=None,
                not_before=now() + int(pause * 1e6),
                finished_at=now() if ended else None,
            )
        return state

    def release(self, job: Job) -> None:
        """Give a job back unfinished (the user interrupted it): due at once, no attempt counted."""
        with self._database.write() as connection:
            self.fence(connection, job)
            current = self._current(connection, job.id)
            state = "committed" if current.state == "committed" else "queued"
            self._set(
                connection,
                job.id,
                state=state,
                worker=None,
                lease_until=None,
                attempts=max(0, current.attempts - 1),
                not_before=0,
            )

    def retry(self, connection: sa.Connection, job_id: int) -> None:
        """Queue a failed or dead job again, from its last checkpoint; one that has its version
        already, to act on its decision.

        Raises:
            ConflictError: another job of its model has not ended.
        """
        job = self._current(connection, job_id)
        table = schema.jobs.c
        models = sa.select(schema.models.c.id).where(schema.models.c.id == job.model_id)
        connection.execute(models.with_for_update())  # so that none is planned meanwhile
        query = sa.select(sa.func.min(table.id))
        query = query.where(table.model_id == job.model_id, table.state.in_(OPEN))
        other = connection.execute(query).scalar()
        if other is not None:
            raise ConflictError(
                f"job {job_id} cannot be retried before job {other} of {job.model!r} has ended"
            )
        state = "queued" if job.version is None else "committed"
        changes: dict[str, Any] = {"not_before": 0, "finished_at": None, "error": None}
        self._set(connection, job_id, state=state, attempts=0, **changes)

    def skip(self, connection: sa.Connection, job_id: int, reason: str) -> None:
        """Give up a job that is not running: it will not be run any more."""
        self._set(
            connection, job_id, state="skipped", error=reason, finished_at=now(), checkpoint=None
        )

    def _locked(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """The query, locking the rows of jobs that it finds. Every transaction of a job locks its
        job before it locks its model, so that none waits for another in a circle."""
        if self._database.dialect == "sqlite":
            return query
        return query.with_for_update(of=schema.jobs)

    def locked_state(self, connection: sa.Connection, job_id: int) -> str:
        """The state of a job, which no other transaction changes until this one ends."""
        query = sa.select(schema.jobs.c.state).where(schema.jobs.c.id == job_id)
        return str(connection.execute(self._locked(query)).scalar_one())

    def _current(self, connection: sa.Connection, job_id: int) -> Job:
        return _job(connection.execute(_select().where(schema.jobs.c.id == job_id)).one())

    @staticmethod
    def _set(connection: sa.Connection, job_id: int, **changes: Any) -> None:
        connection.execute(_UPDATE, {"job_id": job_id, **changes})


def has_open_job(connection: sa.Connection, model: str) -> bool:
    """Whether a job of a model has not ended. Raises `NotFoundError`: there is no such model."""
    table = schema.jobs.c
    query = sa.select(table.id).where(
        table.model_id == key_of(connection, model), table.state.in_(OPEN)
    )
    return connection.execute(query.limit(1)).first() is not None


def _is_held(job: Job) -> bool:
    """Whether a living worker holds the job: its lease runs, and its process is not known dead."""
    if job.worker is None or job.lease_until is None or job.state not in ("running", "committed"):
        return False
    return job.lease_until > now() and not is_gone(job.worker)


_UPDATE = schema.jobs.update().where(schema.jobs.c.id == sa.bindparam("job_id"))


def _select() -> sa.Select[Any]:
    columns = [schema.jobs.c[name] for name in Job.__slots__ if name != "model"]
    return sa.select(schema.models.c.name.label("model"), *columns).join_from(
        schema.jobs, schema.models
    )


def _job(row: sa.Row[Any]) -> Job:
    return Job(**row._mapping)
