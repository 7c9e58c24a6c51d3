"""Rollouts in the database: each a row that changes by compare-and-set, with a history of decisions
that only grows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from secrets import token_hex
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from everlearn.base import ConflictError, Decision, Json, NotFoundError
from everlearn.data.feedback import now
from everlearn.evaluation.sequences import Moments
from everlearn.registry.models import as_text, model_id
from everlearn.storage.schema import (
    rollout_decisions,
    rollout_keys,
    rollout_traffic,
    rollouts,
    shadow_answers,
)

RUNNING, PROMOTING, PROMOTED = "running", "promoting", "promoted"
ROLLED_BACK, STOPPED = "rolled back", "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One trial of a candidate on traffic.

    Args:
        id: of the row.
        plan: as a definition has it.
        candidate, champion: versions.
        salt: by which keys are assigned.
        state: "running", "promoting" (its candidate is champion, and no server has said yet that it
            answers with it), "promoted", "rolled back" or "stopped".
        stage: from 0.
        since: the first prediction of the stage has this id or a later one.
        position: of the last label that was looked at.
        seen: of labels in the stage.
        revision: grows by 1 with every change.
        created_at, ended_at: microseconds.
    """

    id: int
    plan: Json
    candidate: int
    champion: int
    salt: str
    state: str
    stage: int
    since: int
    position: int
    seen: Json
    revision: int
    created_at: int
    ended_at: int | None

    def to_json(self) -> Json:
        """What people ask for."""
        ended = None if self.ended_at is None else as_text(self.ended_at)
        return {
            "rollout": self.id,
            "candidate": self.candidate,
            "champion": self.champion,
            "state": self.state,
            "stage": self.stage,
            "began": as_text(self.created_at),
            "ended": ended,
        }


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one arm was asked in a stage.

    Args:
        requests, errors: rows, and those of them without an answer.
        seconds: that requests took.
    """

    requests: int = 0
    errors: int = 0
    seconds: Moments = field(default_factory=Moments)

    def plus(self, other: Traffic) -> Traffic:
        """Both together."""
        return Traffic(
            self.requests + other.requests,
            self.errors + other.errors,
            self.seconds.plus(other.seconds),
        )


def begin(
    connection: Connection,
    model: str,
    *,
    plan: Json,
    candidate: int,
    champion: int,
    since: int,
    position: int,
    reason: str,
) -> int:
    """A new rollout; its number.

    Raises:
        ConflictError: one of this model is running.
    """
    key = model_id(connection, model, lock=True)
    if running(connection, model) is not None:
        raise ConflictError(f"a rollout of {model!r} is running")
    made = rollouts.insert().values(
        model_id=key,
        plan=plan,
        candidate=candidate,
        champion=champion,
        salt=token_hex(8),
        state=RUNNING,
        stage=0,
        since=since,
        position=position,
        seen={},
        revision=1,
        created_at=now(),
    )
    number = int(connection.execute(made).inserted_primary_key[0])  # type: ignore[index]
    note(connection, number, 0, Decision("begin", reason))
    return number


def running(connection: Connection, model: str) -> Rollout | None:
    """The rollout of a model that is going on."""
    query = _of(connection, model).where(rollouts.c.state == RUNNING)
    row = connection.execute(query).mappings().first()
    return None if row is None else _rollout(row)


def is_running(connection: Connection, number: int) -> bool:
    """Whether a rollout has not ended."""
    query = sa.select(rollouts.c.state).where(rollouts.c.id == number)
    return connection.execute(query).scalar() == RUNNING


def listed(connection: Connection, model: str) -> list[Rollout]:
    """All rollouts of a model, in their order."""
    query = _of(connection, model).order_by(rollouts.c.id)
    return [_rollout(row) for row in connection.execute(query).mappings()]


def get(connection: Connection, model: str, number: int) -> Rollout:
    """One rollout of a model. Raises `NotFoundError`."""
    row = (
        connection.execute(_of(connection, model).where(rollouts.c.id == number)).mappings().first()
    )
    if row is None:
        raise NotFoundError(f"model {model!r} has no rollout {number}")
    return _rollout(row)


def change(connection: Connection, rollout: Rollout, **values: Any) -> Rollout:
    """Write new values of a running rollout, if nobody else did since it was read.

    Raises:
        ConflictError: it was changed, or has ended.
    """
    values["revision"] = rollout.revision + 1
    table = rollouts.c
    done = connection.execute(
        sa.update(rollouts)
        .where(table.id == rollout.id, table.revision == rollout.revision, table.state == RUNNING)
        .values(values)
    )
    if done.rowcount != 1:
        raise ConflictError(f"rollout {rollout.id} was changed in the meantime")
    return replace(rollout, **values)


def promoting(connection: Connection, model: str, version: int) -> Rollout | None:
    """The rollout that made a version champion, while no server has said that it answers with
    it."""
    table = rollouts.c
    query = _of(connection, model).where(table.state == PROMOTING, table.candidate == version)
    row = connection.execute(query.order_by(table.id.desc())).mappings().first()
    return None if row is None else _rollout(row)


def promoted(connection: Connection, rollout: Rollout) -> bool:
    """Say that it is; False where somebody else did."""
    table = rollouts.c
    done = connection.execute(
        sa.update(rollouts)
        .where(table.id == rollout.id, table.state == PROMOTING)
        .values(state=PROMOTED, revision=table.revision + 1)
    )
    return bool(done.rowcount)


def note(connection: Connection, number: int, stage: int, decision: Decision) -> None:
    """Keep a decision about a rollout."""
    connection.execute(
        rollout_decisions.insert().values(
            rollout_id=number,
            stage=stage,
            action=decision.action,
            reason=decision.reason,
            evidence=decision.evidence,
            at=now(),
        )
    )


def decisions(connection: Connection, number: int) -> list[Json]:
    """All decisions about a rollout, in their order."""
    table = rollout_decisions.c
    query = sa.select(table.stage, table.action, table.reason, table.evidence, table.at)
    found = connection.execute(query.where(table.rollout_id == number).order_by(table.id))
    return [{**row._mapping, "at": as_text(row.at)} for row in found]


def add_traffic(
    connection: Connection, number: int, stage: int, arms: Mapping[str, Traffic]
) -> None:
    """Add what a server counted. The caller sees to it that nobody else does meanwhile."""
    known, table = traffic(connection, number, stage), rollout_traffic.c
    for arm, more in arms.items():
        total = known.get(arm, Traffic()).plus(more)
        here = {"rollout_id": number, "stage": stage, "arm": arm}
        values = {
            "requests": total.requests,
            "errors": total.errors,
            "times": total.seconds.n,
            "mean": total.seconds.mean,
            "spread": total.seconds.spread,
        }
        if arm not in known:
            connection.execute(rollout_traffic.insert().values(here | values))
        else:
            matches = [table[name] == value for name, value in here.items()]
            connection.execute(sa.update(rollout_traffic).where(*matches).values(values))


def traffic(connection: Connection, number: int, stage: int) -> dict[str, Traffic]:
    """What each arm was asked in a stage."""
    table = rollout_traffic.c
    query = sa.select(rollout_traffic).where(table.rollout_id == number, table.stage == stage)
    return {
        row.arm: Traffic(row.requests, row.errors, Moments(row.times, row.mean, row.spread))
        for row in connection.execute(query)
    }


def add_keys(connection: Connection, number: int, stage: int, met: Mapping[int, str]) -> None:
    """Keep which keys were met, by digest, and the arm of each; those that are known stay."""
    made = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    here = {"rollout_id": number, "stage": stage}
    rows = [{**here, "digest": digest, "arm": arm} for digest, arm in met.items()]
    if rows:
        connection.execute(made(rollout_keys).on_conflict_do_nothing(), rows)


def keys(connection: Connection, number: int, stage: int) -> dict[str, int]:
    """How many keys were met in a stage, by arm."""
    table = rollout_keys.c
    query = sa.select(table.arm, sa.func.count()).where(
        table.rollout_id == number, table.stage == stage
    )
    return {arm: int(count) for arm, count in connection.execute(query.group_by(table.arm))}


def forget_keys(connection: Connection, number: int) -> None:
    """The rollout is over: nobody asks for its keys any more."""
    connection.execute(sa.delete(rollout_keys).where(rollout_keys.c.rollout_id == number))


def add_shadows(connection: Connection, number: int, answers: Mapping[int, Json]) -> None:
    """Keep what a candidate would have answered; by id of the prediction; None where it failed."""
    rows = [
        {"prediction_id": prediction, "rollout_id": number, "output": _text(output)}
        for prediction, output in answers.items()
    ]
    if rows:
        connection.execute(sa.insert(shadow_answers), rows)


def shadows(connection: Connection, number: int, ids: Iterable[int]) -> dict[int, Json]:
    """What the candidate would have answered, of those of these predictions that it was asked."""
    table, found = shadow_answers.c, {}
    listed = list(ids)
    for start in range(0, len(listed), 500):
        query = sa.select(table.prediction_id, table.output).where(
            table.rollout_id == number, table.prediction_id.in_(listed[start : start + 500])
        )
        for row in connection.execute(query):
            found[row.prediction_id] = None if row.output is None else json.loads(row.output)
    return found


def _of(connection: Connection, model: str) -> sa.Select[Any]:
    return sa.select(rollouts).where(rollouts.c.model_id == model_id(connection, model))


def _rollout(row: Any) -> Rollout:
    return Rollout(**{name: row[name] for name in Rollout.__slots__})


def _text(output: Json) -> str | None:
    return None if output is None else json.dumps(output, allow_nan=False, separators=(",", ":"))
