"""What the console's pages ask of the database: a fixed number of queries a page, whatever the
workspace holds, and never more rows than a page shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import Json
from everlearn.data.review import CLAIMED, WAITING
from everlearn.registry.aliases import CHAMPION
from everlearn.registry.marks import marked
from everlearn.registry.models import model_id
from everlearn.rollout.store import RUNNING
from everlearn.storage import schema

PAGE = 25
"""Rows of a list."""

COUNTED = ("rows", "held_out", "set_aside", "duplicates")
"""What is counted of increments."""

MOST = 1 << 62
"""Above all numbers."""


def overview(connection: Connection, names: Iterable[str]) -> list[Json]:
    """Each of these models: its champion and why, how many versions and labels it has, what is
    open. Seven queries."""
    models = connection.execute(
        sa.select(schema.models.c.id, schema.models.c.name)
        .where(schema.models.c.name.in_(list(names)))
        .order_by(schema.models.c.name)
    ).all()
    ids = [row.id for row in models]
    moves = _last_moves(connection, ids)
    versions = _per_model(connection, schema.versions.c.number, schema.versions, ids)
    labels = _per_model(connection, schema.labels.c.position, schema.labels, ids)
    rollout = schema.rollouts.c
    running = _first_by_model(
        connection, sa.select(rollout.model_id, rollout.id, rollout.candidate, rollout.stage)
        .where(rollout.model_id.in_(ids), rollout.state == RUNNING)
    )  # fmt: skip
    item = schema.review_items.c
    waiting = sa.select(item.model_id, sa.func.count().label("n")).where(
        item.model_id.in_(ids), item.state.in_((WAITING, CLAIMED))
    )
    review = _first_by_model(connection, waiting.group_by(item.model_id))
    held = schema.quarantined_sources.c
    sources = sa.select(held.model_id, sa.func.count().label("n")).where(
        held.model_id.in_(ids), held.released_at.is_(None)
    )
    quarantined = _first_by_model(connection, sources.group_by(held.model_id))
    return [
        {
            "name": row.name,
            "move": moves.get(row.id),
            "versions": versions.get(row.id, 0),
            "labels": labels.get(row.id, 0),
            "rollout": running.get(row.id),
            "review": review[row.id]["n"] if row.id in review else 0,
            "quarantined": quarantined[row.id]["n"] if row.id in quarantined else 0,
        }
        for row in models
    ]


def last_move(connection: Connection, model: str) -> Json:
    """The move that made the champion what it is; None without one."""
    key = model_id(connection, model)
    return _last_moves(connection, [key]).get(key)


def moves(connection: Connection, model: str, before: int = MOST, limit: int = PAGE) -> list[Json]:
    """Moves of all aliases, and decisions not to move them, newest first."""
    table = schema.alias_history
    return _newest(connection, sa.select(table), table, model, before, limit)


def versions(
    connection: Connection, model: str, before: int = MOST, limit: int = PAGE
) -> list[Json]:
    """Versions, newest first, without their parts, and which withdrawals each is marked with. Four
    queries."""
    table = schema.versions.c
    names = ("id", "number", "parent", "job_id", "metrics", "decision", "created_at", "dropped_at")
    key = model_id(connection, model)
    query = sa.select(*(table[name] for name in names)).where(
        table.model_id == key, table.number < min(before, 2**31 - 1)
    )
    query = query.order_by(table.number.desc()).limit(limit)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    counted = schema.increments.c
    learned = sa.select(counted.version_id, *(sa.func.sum(counted[n]).label(n) for n in COUNTED))
    learned = learned.where(counted.version_id.in_([row["id"] for row in rows]))
    sums = {row.version_id: row for row in connection.execute(learned.group_by(counted.version_id))}
    alias = schema.aliases.c
    query = sa.select(alias.name, alias.version).where(alias.model_id == key).order_by(alias.name)
    pointing: dict[int, list[str]] = {}
    for one in connection.execute(query):
        pointing.setdefault(one.version, []).append(one.name)
    marks = marked(connection, model)
    for row in rows:
        sum_ = sums.get(row["id"])
        row |= {name: int(getattr(sum_, name)) if sum_ else 0 for name in COUNTED}
        row["aliases"] = pointing.get(row["number"], [])
        row["withdrawn"] = marks.get(row["number"], [])
    return rows


def jobs(connection: Connection, model: str, before: int = MOST, limit: int = PAGE) -> list[Json]:
    """Jobs, newest first, without their plans."""
    table = schema.jobs
    names = (
        "id", "state", "base_version", "attempts", "max_attempts", "worker", "version", "decision",
        "error", "created_at", "started_at", "finished_at",
    )  # fmt: skip
    query = sa.select(*(table.c[name] for name in names))
    return _newest(connection, query, table, model, before, limit)


def job(connection: Connection, model: str, number: int) -> Json | None:
    """One job with its plan, and the decisions of triggers that asked for it. Two queries."""
    table, said = schema.jobs, schema.trigger_decisions
    key = model_id(connection, model)
    query = sa.select(table).where(table.c.model_id == key, table.c.id == number)
    found = connection.execute(query).mappings().first()
    if found is None:
        return None
    asked = sa.select(said).where(said.c.model_id == key, said.c.job_id == number)
    triggers = connection.execute(asked.order_by(said.c.id).limit(PAGE)).mappings()
    return dict(found) | {"triggers": [dict(row) for row in triggers]}


def quarantine(
    connection: Connection, model: str, before: int = MOST, limit: int = PAGE
) -> list[Json]:
    """Sources that are or were set aside, by when that was, newest first."""
    table = schema.quarantined_sources
    query = sa.select(table).where(
        table.c.model_id == model_id(connection, model), table.c.at < before
    )
    query = query.order_by(table.c.at.desc(), table.c.source).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def set_aside(
    connection: Connection, model: str, before: int = MOST, limit: int = PAGE
) -> list[Json]:
    """Messages of streams that could not be logged, newest first."""
    table = schema.stream_set_aside
    names = ("id", "stream", "partition", "offset", "reason", "body", "count", "at")
    query = sa.select(*(table.c[name] for name in names))
    return _newest(connection, query, table, model, before, limit)


def aside_count(connection: Connection, model: str) -> int:
    """How many messages of streams are set aside."""
    table = schema.stream_set_aside.c
    query = sa.select(sa.func.count()).where(table.model_id == model_id(connection, model))
    return int(connection.execute(query).scalar_one())


def repairs(connection: Connection, model: str) -> dict[str, int]:
    """How many edits have not ended, and how many withdrawals and bisections there are."""
    key, edit = model_id(connection, model), schema.edits.c
    counts = {
        "edits": (schema.edits, edit.ended_at.is_(None)),
        "withdrawals": (schema.withdrawals, sa.true()),
        "bisections": (schema.bisections, sa.true()),
    }
    found = {}
    for name, (table, which) in counts.items():
        query = sa.select(sa.func.count()).select_from(table).where(table.c.model_id == key, which)
        found[name] = int(connection.execute(query).scalar_one())
    return found


def reviewing(connection: Connection, model: str) -> dict[str, int]:
    """How many predictions of the review queue are in each state."""
    item = schema.review_items.c
    query = sa.select(item.state, sa.func.count()).where(
        item.model_id == model_id(connection, model)
    )
    return {state: int(count) for state, count in connection.execute(query.group_by(item.state))}


def triggers(
    connection: Connection, model: str, before: int = MOST, limit: int = PAGE
) -> list[Json]:
    """Decisions of the triggers, newest first."""
    table = schema.trigger_decisions
    return _newest(connection, sa.select(table), table, model, before, limit)


def fired(connection: Connection, model: str, since: int, limit: int = 100) -> list[Json]:
    """Decisions of triggers that asked for a job since a moment (microseconds), newest first."""
    table = schema.trigger_decisions
    query = sa.select(table).where(table.c.action == "learn", table.c.at >= since)
    return _newest(connection, query, table, model, MOST, limit)


def rollouts(
    connection: Connection, model: str, before: int = MOST, limit: int = PAGE
) -> list[Json]:
    """Rollouts, newest first, each with its last decision. Two queries."""
    table = schema.rollouts
    names = ("id", "candidate", "champion", "state", "stage", "created_at", "ended_at")
    query = sa.select(*(table.c[name] for name in names))
    found = _newest(connection, query, table, model, before, limit)
    said = schema.rollout_decisions
    ids = [row["id"] for row in found]
    last = sa.select(sa.func.max(said.c.id)).where(said.c.rollout_id.in_(ids))
    query = sa.select(said.c.rollout_id, said.c.action, said.c.reason).where(
        said.c.id.in_(last.group_by(said.c.rollout_id))
    )
    reasons = {row["rollout_id"]: dict(row) for row in connection.execute(query).mappings()}
    return [row | {"decision": reasons.get(row["id"])} for row in found]


def _newest(
    connection: Connection,
    query: sa.Select[Any],
    table: sa.Table,
    model: str,
    before: int,
    limit: int,
) -> list[Json]:
    query = query.where(table.c.model_id == model_id(connection, model), table.c.id < before)
    query = query.order_by(table.c.id.desc()).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def _last_moves(connection: Connection, ids: list[int]) -> dict[int, Json]:
    """Model → the last move of its champion."""
    table = schema.alias_history.c
    last = (
        sa.select(sa.func.max(table.id))
        .where(table.model_id.in_(ids), table.name == CHAMPION)
        .where(table.version_from.is_distinct_from(table.version_to))
        .group_by(table.model_id)
    )
    query = sa.select(schema.alias_history).where(table.id.in_(last))
    return _first_by_model(connection, query)


def _per_model(
    connection: Connection, column: sa.Column[Any], table: sa.Table, ids: list[int]
) -> dict[int, int]:
    """Model → the largest value of a column, by one look into the index for each model."""
    key = schema.models.c.id
    largest = sa.select(sa.func.max(column)).where(table.c.model_id == key).scalar_subquery()
    query = sa.select(key, largest.label("largest")).where(key.in_(ids))
    return {row.id: int(row.largest or 0) for row in connection.execute(query)}


def _first_by_model(connection: Connection, query: sa.Select[Any]) -> dict[int, Json]:
    return {row["model_id"]: dict(row) for row in connection.execute(query).mappings()}
