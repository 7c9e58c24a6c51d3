"""What triggers remember and decided, in the workspace's database."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from everlearn.base import ConflictError, Decision, EverlearnError, Json
from everlearn.jobs.triggers.facts import Facts, Trigger
from everlearn.storage.schema import trigger_decisions, trigger_states

_FIGURES = re.compile(r"[-+\d.,%]+")
"""A reason to wait is kept once, not for every new figure in it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is stored of a trigger between two looks.

    Args:
        memory: its state.
        said: what it said last, without figures.
        updated_at: when that was stored; None if it never was.
    """

    memory: dict[str, Json]
    said: str = ""
    updated_at: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What one trigger said in one look.

    Args:
        name: of the trigger.
        kept: what was stored of it before.
        memory: its state afterwards.
    """

    name: str
    kept: Kept
    decision: Decision
    memory: dict[str, Json]

    @property
    def said(self) -> str:
        """The decision without figures."""
        return f"{self.decision.action}: {_FIGURES.sub('#', self.decision.reason)}"

    @property
    def changed(self) -> bool:
        """Whether there is anything new to store."""
        return self.said != self.kept.said or self.memory != self.kept.memory


def named(triggers: Sequence[Any]) -> list[tuple[str, Any]]:
    """(name, trigger): what it was made from, so that a trigger with other figures is another."""
    counts: dict[str, int] = {}
    found: list[tuple[str, Any]] = []
    for trigger in triggers:
        name = repr(trigger) if dataclasses.is_dataclass(trigger) else type(trigger).__name__
        counts[name] = counts.get(name, 0) + 1
        found.append((name if counts[name] == 1 else f"{name} #{counts[name]}", trigger))
    return found


def decided(trigger: Trigger, facts: Facts) -> Decision:
    """What a trigger says; that it failed, if it did: the others are to be asked all the same."""
    try:
        return trigger.decide(facts)
    except EverlearnError:
        raise
    except Exception as error:  # of a trigger that somebody else wrote
        return Decision("wait", f"it failed with {type(error).__name__}: {error}")


def read(connection: sa.Connection, model: int) -> dict[str, Kept]:
    """What is stored of the triggers of a model, by name."""
    table = trigger_states
    rows = connection.execute(sa.select(table).where(table.c.model_id == model))
    return {row.name: Kept(row.state["memory"], row.state["said"], row.updated_at) for row in rows}


def keep(
    connection: sa.Connection, model: int, asked: Sequence[Asked], at: int, job: int | None = None
) -> None:
    """Store what is new: states, and the decisions that fired or say something else than before.

    Args:
        connection: of a writing transaction that has locked the model.
        job: what was queued for those that fired.

    Raises:
        ConflictError: another process stored a decision meanwhile; nothing may be committed.
    """
    for one in asked:
        fired = job if one.decision.action == "learn" else None
        if fired is None and not one.changed:
            continue
        _store(connection, model, one, at)
        if fired is not None or one.said != one.kept.said:
            row = {
                "model_id": model,
                "name": one.name,
                "action": one.decision.action,
                "reason": one.decision.reason,
                "evidence": one.decision.evidence,
                "job_id": fired,
                "at": at,
            }
            connection.execute(sa.insert(trigger_decisions).values(row))


def decisions(connection: sa.Connection, model: int, limit: int) -> list[Json]:
    """The newest decisions, newest first, as JSON."""
    table = trigger_decisions.c
    query = sa.select(trigger_decisions).where(table.model_id == model)
    rows = connection.execute(query.order_by(table.id.desc()).limit(limit)).mappings()
    return [{name: row[name] for name in row if name != "model_id"} for row in rows]


def _store(connection: sa.Connection, model: int, one: Asked, at: int) -> None:
    table, before = trigger_states, one.kept.updated_at
    values = {
        "state": {"memory": one.memory, "said": one.said},
        "updated_at": at if before is None else max(at, before + 1),
    }
    if before is None:
        found = connection.execute(
            sa.select(table.c.name).where(table.c.model_id == model, table.c.name == one.name)
        ).first()
        if found is None:
            row = {"model_id": model, "name": one.name} | values
            connection.execute(sa.insert(table).values(row))
            return
    else:
        done = connection.execute(
            sa.update(table)
            .where(
                table.c.model_id == model,
                table.c.name == one.name,
                table.c.updated_at == before,
            )
            .values(values)
        )
        if done.rowcount == 1:
            return
    raise ConflictError("another process asked the triggers at the same time")


def copied(memory: dict[str, Json]) -> dict[str, Json]:
    """A state that may be changed without changing the original."""
    made: dict[str, Json] = json.loads(json.dumps(memory))
    return made
