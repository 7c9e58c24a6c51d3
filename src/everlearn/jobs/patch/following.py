"""Jobs and patches at the same time: which champions a job can go on to, and when a patch waits."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import ConflictError
from everlearn.data.feedback import now
from everlearn.registry import aliases, versions
from everlearn.registry.models import model_id
from everlearn.storage import schema
from everlearn.storage.parts import Manifest


def followed(connection: Connection, model: str, base: int | None) -> int | None:
    """The champion that a job is for, which was planned for another one: the present one, where
    that was made since and differs in nothing but what was patched; else the one of the plan.

    Args:
        base: the champion when the job was planned.
    """
    champion = aliases.current(connection, model)
    if base is None or champion is None or champion <= base:  # a rollback is somebody's decision
        return base
    one, other = (
        _learned(versions.get(connection, model, number, increments=False).manifest)
        for number in (base, champion)
    )
    return champion if one == other else base


def follow(connection: Connection, job: int, champion: int | None) -> None:
    """Write down that a job is for this champion now."""
    table = schema.jobs
    change = sa.update(table).where(table.c.id == job).values(base_version=champion)
    connection.execute(change)


def check_settled(connection: Connection, model: str) -> None:
    """Refuse to patch a champion between a job's version and what becomes of it: the version has
    the edits of the champion as it was.

    Raises:
        ConflictError: a job of the model is at that.
    """
    table = schema.jobs.c
    query = sa.select(table.id).where(
        table.model_id == model_id(connection, model),
        table.state == "committed",
        table.lease_until > now(),  # of one that died, the version is held back if it is patched
    )
    job = connection.execute(query.limit(1)).scalar()
    if job is not None:
        raise ConflictError(
            f"job {job} has made a version of {model!r}, which takes its place now: patch again"
        )


def _learned(manifest: Manifest) -> dict[str, str]:
    """Digests of what was learned: of all parts but those of a patch."""
    return {
        name: entry["digest"] for name, entry in manifest.items() if not name.startswith("patch/")
    }
