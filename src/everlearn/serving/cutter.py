"""Numbered versions of a model that learns online: one replica cuts them, by a lease."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy.engine import Connection

from everlearn.base import Decision, LeaseLostError, crash_point, state_digest
from everlearn.evaluation.gates import parts_not_finite
from everlearn.jobs.online import Tail, UnlearnableError
from everlearn.jobs.patch.solving import repatched
from everlearn.jobs.processes import worker_name
from everlearn.registry import leases, versions
from everlearn.registry.models import model_id, plain
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Version

LEASE_SECONDS = 5.0


class Cutter:
    """Changes the registry for a model, as long as it holds the model's lease.

    Args:
        name: of the model.
        registry: of the workspace.
    """

    def __init__(self, name: str, registry: Registry) -> None:
        self.name, self.registry = name, registry
        self._holder = f"{worker_name()}/{id(self):x}"
        self._token: int | None = None
        self._renew_at = 0.0

    @property
    def leads(self) -> bool:
        """Whether the lease is held, as far as is known here."""
        return self._token is not None

    def renew(self) -> None:
        """Take or renew the lease, when it is time."""
        if time.monotonic() < self._renew_at:
            return
        with self.registry.database.write() as connection:
            self._token = leases.take(connection, self.name, self._holder, LEASE_SECONDS)
        self._renew_at = time.monotonic() + LEASE_SECONDS / 3.0

    def release(self) -> None:
        """Let others have the lease at once."""
        if self._token is not None:
            with self.registry.database.write() as connection:
                leases.release(connection, self.name, self._token)
            self._token, self._renew_at = None, 0.0

    def commit(self, change: Callable[[Connection], None]) -> bool:
        """Change the registry in one transaction; False, and no change, if the lease is ours no
        more."""
        assert self._token is not None
        try:
            with self.registry.database.write() as connection:
                model_id(connection, self.name, lock=True)
                leases.fence(connection, self.name, self._token)
                change(connection)
        except LeaseLostError:
            self._token = None
            return False
        crash_point("online.committed")
        return True

    def adding(self, base: Version, tail: Tail, decision: Decision) -> Callable[[Connection], int]:
        """Store the parts of a version that goes on from another one, with its edits solved again
        for what was learned since; what adds the version. The tail answers by them, and all copies
        of it have to.

        Raises:
            UnlearnableError: its numbers are not finite; nothing was stored.
        """
        parts = self.registry.parts
        state, told = tail.state(), None
        broken = parts_not_finite(state)
        if broken:
            raise UnlearnableError(f"{', '.join(broken)} are not finite")
        if tail.fold.patch is not None:
            database = self.registry.database
            tail.fold.patch, told = repatched(
                database, self.name, tail.fold, state, tail.holdouts, online=True
            )
            state = tail.fold.save()
        digest = state_digest(state)
        manifest = parts.save(state, known=base.manifest)
        held = parts.save(tail.holdouts.save(), known=base.holdouts)
        increments = tail.increments(parts.blobs)
        metrics = dict(tail.metrics.results(positive=tail.fold.positive))
        metrics |= {} if told is None else {"patch": told}
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
                metrics=plain(metrics),
                decision=decision,
                increments=increments,
                created_at=self.registry.database.clock(),
            )

        return add
