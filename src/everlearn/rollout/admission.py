"""Why a version was let through, or not: everything that was decided about it, by whom and when."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from everlearn.base import Json
from everlearn.registry import aliases
from everlearn.registry.models import as_text, model_id
from everlearn.registry.versions import Version
from everlearn.rollout import store
from everlearn.storage import schema

LOOKED_AT = 5000
"""Entries of the audit log about a model, since the version was made, that are looked through."""


def admission(connection: sa.Connection, model: str, version: Version) -> dict[str, Json]:
    """What was decided about a version.

    Args:
        version: of the model.

    Returns:
        JSON: "gate", its decision with its figures; "triggers" that asked for its job; "moves" of
        aliases to it and away from it; "rollouts" of it, each with its decisions; "audit", what was
        noted of those who moved it.
    """
    number = version.number
    moves = [one.to_json() for one in aliases.history(connection, model)
             if number in (one.version_from, one.version_to)]  # fmt: skip
    return {
        "gate": version.decision.to_json(),
        "triggers": _triggers(connection, model, version.job_id),
        "moves": moves,
        "rollouts": [
            {**one.to_json(), "decisions": store.decisions(connection, one.id)}
            for one in store.listed(connection, model)
            if one.candidate == number
        ],
        "audit": _audit(connection, model, version),
    }


def _triggers(connection: sa.Connection, model: str, job: int | None) -> list[Json]:
    """The decisions of triggers that asked for a job."""
    table = schema.trigger_decisions.c
    names = (table.name, table.action, table.reason, table.evidence, table.at)
    query = sa.select(*names).where(
        table.model_id == model_id(connection, model), table.job_id == job
    )
    rows = connection.execute(query.order_by(table.id)).mappings()
    return [{**row, "at": as_text(row["at"])} for row in rows]


def _audit(connection: sa.Connection, model: str, version: Version) -> list[Json]:
    """Entries that name the version, oldest first."""
    table, key = schema.audit.c, schema.keys
    query = (
        sa.select(table.action, table.detail, table.at, table.key_id, key.c.note)
        .outerjoin(key, key.c.id == table.key_id)
        .where(table.model == model, table.at >= version.created_at, table.status < 400)
        .order_by(table.id)
        .limit(LOOKED_AT)
    )
    found = []
    for row in connection.execute(query):
        detail = row.detail or {}
        if _names(detail, version.number):
            who = detail.get("user") or row.note or "somebody"
            found.append({
                "action": detail.get("did", row.action),
                "who": who if row.key_id is None else f"{who} (key {row.key_id})",
                "where": detail.get("where"),
                "reason": detail.get("reason"),
                "at": as_text(row.at),
            })  # fmt: skip
    return found


def _names(detail: Any, number: int) -> bool:
    """Whether an entry is about a version."""
    about = (detail.get(name) for name in ("from", "to", "version", "candidate"))
    return number in about or number in (detail.get("versions") or ())
