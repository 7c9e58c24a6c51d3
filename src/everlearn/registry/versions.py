"""Versions: immutable, numbered without gaps per model, each with its parent and its increments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from everlearn.base import Decision, InputError, Json, NotFoundError
from everlearn.registry.environment import environment
from everlearn.registry.marks import marked_of
from everlearn.registry.models import as_text, model_id, now, plain
from everlearn.storage import schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Increment:
    """What a version learned from one source. rows + held_out + set_aside + duplicates is
    stop − start.

    Args:
        source: name of the source (the file, the table, the topic).
        start, stop: first row of the source, and one past its last.
        rows: learned.
        held_out: kept out of learning for the gate.
        set_aside: could not be learned; `reasons` says why.
        duplicates: had been learned before.
        digest: of the source's content from 0 to `stop`.
        slice: how to read it again.
        reasons: reason → count and examples.
    """

    source: str
    start: int
    stop: int
    rows: int
    held_out: int = 0
    set_aside: int = 0
    duplicates: int = 0
    digest: str
    slice: Json = field(default_factory=dict)
    reasons: Json = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """All but `slice`, which is for machines."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "slice"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One immutable result of learning.

    Args:
        number: 1, 2, … per model, without gaps.
        parent: number of the version that it was folded from, or None.
        definition: number of the definition that it was learned with.
        job_id: the job that made it; None for an imported one.
        strategy: the strategy, as its definition's config has it.
        state_digest: of all that further learning depends on.
        manifest: {part: {"digest", "blob", "size"}}, what it is made of.
        holdouts: the same, for the rows kept out of learning.
        metrics: measured while it was learned.
        environment: what it was learned with.
        decision: of the gate.
        created_at: microseconds.
        dropped_at: when the retention policy removed its state, or None.
        aliases: names that point at it now.
        increments: what it learned, beyond what its parent had.
        withdrawn: numbers of withdrawals of which it had learned rows; it cannot become champion.
    """

    number: int
    parent: int | None
    definition: int
    job_id: int | None
    strategy: Json
    state_digest: str
    manifest: Json
    holdouts: Json
    metrics: Json
    environment: Json
    decision: Decision
    created_at: int
    dropped_at: int | None
    aliases: tuple[str, ...]
    increments: tuple[Increment, ...]
    withdrawn: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """What `everlearn versions --json` prints; times as ISO text, without the manifests."""
        hidden = ("manifest", "holdouts")
        shown: dict[str, Json] = {n: getattr(self, n) for n in self.__slots__ if n not in hidden}
        shown["decision"] = self.decision.to_json()
        shown["created_at"] = as_text(self.created_at)
        shown["dropped_at"] = None if self.dropped_at is None else as_text(self.dropped_at)
        shown["aliases"] = list(self.aliases)
        shown["withdrawn"] = list(self.withdrawn)
        shown["increments"] = [increment.to_json() for increment in self.increments]
        return shown


def add(
    connection: sa.Connection,
    model: str,
    *,
    parent: int | None,
    definition: int,
    strategy: Json,
    state_digest: str,
    manifest: Mapping[str, Json],
    holdouts: Mapping[str, Json],
    metrics: Json,
    decision: Decision,
    increments: Sequence[Increment] = (),
    job_id: int | None = None,
    environment_: Json | None = None,
    created_at: int | None = None,
) -> int:
    """Append a version and its increments; the caller's transaction makes them visible together.

    The blobs of the manifests must be whole before this is called.

    Args:
        connection: a writing transaction; the model stays locked to its end.
        environment_: of a version learned elsewhere; this process's unless given.

    Returns:
        The number of the version: one more than the model's highest.

    Raises:
        NotFoundError: there is no such model, parent or definition.
        InputError: the rows of an increment do not add up.
    """
    key = model_id(connection, model, lock=True)
    _check_counts(increments)
    if parent is not None:
        check_exists(connection, model, parent)
    number = (_highest(connection, key) or 0) + 1
    row = {
        "model_id": key,
        "number": number,
        "parent": parent,
        "definition_id": _definition_id(connection, key, model, definition),
        "job_id": job_id,
        "strategy": plain(strategy),
        "state_digest": state_digest,
        "manifest": plain(manifest),
        "holdouts": plain(holdouts),
        "metrics": plain(metrics),
        "environment": plain(environment() if environment_ is None else environment_),
        "decision": plain(decision.to_json()),
        "created_at": now() if created_at is None else created_at,
    }
    inserted = connection.execute(schema.versions.insert(), row).inserted_primary_key
    _add_increments(connection, int(inserted[0]), increments)  # type: ignore[index]
    return number


def get(connection: sa.Connection, model: str, number: int, *, increments: bool = True) -> Version:
    """One version.

    Args:
        increments: also what it learned and who points at it; without, both are left empty, and
            it costs the same however much it learned.

    Raises:
        NotFoundError: there is no such model or version.
    """
    key = model_id(connection, model)
    rows = connection.execute(_select(key).where(schema.versions.c.number == number)).all()
    if not rows:
        raise NotFoundError(_missing(connection, key, model, number))
    return _with_details(connection, key, rows)[0] if increments else _version(rows[0])


def list_versions(
    connection: sa.Connection, model: str, limit: int | None = None, before: int = 2**31 - 1
) -> list[Version]:
    """Versions of a model, in the order of their numbers: all; or, where there is a limit, the
    newest ones of those with smaller numbers than `before`.

    Raises:
        NotFoundError: there is no such model.
    """
    key, number = model_id(connection, model), schema.versions.c.number
    query = _select(key).where(number < before).order_by(number.desc()).limit(limit)
    return _with_details(connection, key, connection.execute(query).all()[::-1])


def check_exists(
    connection: sa.Connection, model: str, number: int, *, whole: bool = False
) -> None:
    """Raise `NotFoundError` if there is no such version or, with `whole`, no state of it."""
    key = model_id(connection, model)
    table = schema.versions.c
    query = sa.select(table.dropped_at).where(table.model_id == key, table.number == number)
    found = connection.execute(query).first()
    if found is None:
        raise NotFoundError(_missing(connection, key, model, number))
    if whole and found.dropped_at is not None:
        raise NotFoundError(dropped_message(model, number, found.dropped_at))


def dropped_message(model: str, number: int, dropped_at: int) -> str:
    """What is said of a version whose state is gone."""
    return (
        f"the state of version {number} of {model!r} was removed by the retention policy at"
        f" {as_text(dropped_at)}; its record remains, but it cannot be loaded or served"
    )


def _missing(connection: sa.Connection, key: int, model: str, number: int) -> str:
    highest = _highest(connection, key)
    known = f"1 to {highest}" if highest else "none yet"
    return f"model {model!r} has no version {number} (versions: {known})"


def newest(connection: sa.Connection, model: str) -> int:
    """The highest number of a model's versions; 0 without any."""
    return _highest(connection, model_id(connection, model)) or 0


def _highest(connection: sa.Connection, key: int) -> int | None:
    table = schema.versions.c
    query = sa.select(sa.func.max(table.number)).where(table.model_id == key)
    return connection.execute(query).scalar()


def _check_counts(increments: Iterable[Increment]) -> None:
    for one in increments:
        counts = (one.rows, one.held_out, one.set_aside, one.duplicates)
        if sum(counts) != one.stop - one.start or min(counts) < 0:
            raise InputError(
                f"the increment of {one.source!r} from {one.start} to {one.stop} does not add up:"
                f" rows, held out, set aside, duplicates are {counts}"
            )


def _definition_id(connection: sa.Connection, key: int, model: str, number: int) -> int:
    table = schema.definitions.c
    query = sa.select(table.id).where(table.model_id == key, table.number == number)
    found = connection.execute(query).scalar()
    if found is None:
        raise NotFoundError(f"model {model!r} has no definition {number}")
    return int(found)


def _add_increments(
    connection: sa.Connection, version_id: int, increments: Sequence[Increment]
) -> None:
    rows = [
        {
            "version_id": version_id,
            "ordinal": ordinal,
            **{name: getattr(increment, name) for name in Increment.__slots__},
            "slice": plain(increment.slice),
            "reasons": plain(increment.reasons),
        }
        for ordinal, increment in enumerate(increments)
    ]
    if rows:
        connection.execute(schema.increments.insert(), rows)


_DIRECT = [
    "number", "parent", "job_id", "strategy", "state_digest", "manifest", "holdouts", "metrics",
    "environment", "created_at", "dropped_at",
]  # fmt: skip


def _select(key: int) -> sa.Select[Any]:
    columns = [schema.versions.c[name] for name in _DIRECT]
    return (
        sa.select(
            schema.versions.c.id,
            schema.definitions.c.number.label("definition"),
            schema.versions.c.decision,
            *columns,
        )
        .join(schema.definitions, schema.definitions.c.id == schema.versions.c.definition_id)
        .where(schema.versions.c.model_id == key)
    )


def _with_details(
    connection: sa.Connection, key: int, rows: Sequence[sa.Row[Any]]
) -> list[Version]:
    increments = increments_by_version(connection, [row.id for row in rows])
    pointing, marks = _aliases(connection, key), marked_of(connection, key)
    return [
        _version(
            row,
            pointing.get(row.number, ()),
            increments.get(row.id, ()),
            marks.get(row.number, ()),
        )
        for row in rows
    ]


def _version(
    row: sa.Row[Any],
    pointing: Sequence[str] = (),
    increments: Sequence[Increment] = (),
    marks: Sequence[int] = (),
) -> Version:
    return Version(
        **{name: row._mapping[name] for name in _DIRECT},
        definition=row.definition,
        decision=Decision.from_json(row.decision),
        aliases=tuple(pointing),
        increments=tuple(increments),
        withdrawn=tuple(marks),
    )


def increments_by_version(
    connection: sa.Connection, version_ids: Iterable[int]
) -> dict[int, list[Increment]]:
    """Row id of a version → its increments in their order."""
    table = schema.increments
    columns = [table.c[name] for name in Increment.__slots__]
    found: dict[int, list[Increment]] = {}
    for some in _in_pieces(list(version_ids), 500):
        query = sa.select(table.c.version_id, *columns).where(table.c.version_id.in_(some))
        for row in connection.execute(query.order_by(table.c.version_id, table.c.ordinal)):
            values = {name: row._mapping[name] for name in Increment.__slots__}
            found.setdefault(row.version_id, []).append(Increment(**values))
    return found


def _aliases(connection: sa.Connection, key: int) -> dict[int, list[str]]:
    table = schema.aliases.c
    query = sa.select(table.name, table.version).where(table.model_id == key).order_by(table.name)
    found: dict[int, list[str]] = {}
    for row in connection.execute(query):
        found.setdefault(row.version, []).append(row.name)
    return found


def _in_pieces(values: list[int], size: int) -> Iterable[list[int]]:
    """The values in lists that fit into one statement's parameters."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
