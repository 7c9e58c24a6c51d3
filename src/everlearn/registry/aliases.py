"""Aliases: movable names for versions, moved by compare-and-set, with a history that only grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from everlearn.base import ConflictError, InputError, Json, NotFoundError
from everlearn.registry import edits
from everlearn.registry.marks import check_unmarked, marked
from everlearn.registry.models import as_text, model_id, now
from everlearn.registry.versions import check_exists
from everlearn.storage import schema

CHAMPION = "champion"
CANDIDATE = "candidate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One entry of the history.

    Args:
        name: the alias.
        version_from, version_to: where it pointed before and after; None for nowhere.
        action: "promote", "rollback", "refuse", "remove", ….
        reason: one sentence for people.
        at: microseconds; never earlier than that of the move before.
    """

    name: str
    version_from: int | None
    version_to: int | None
    action: str
    reason: str
    at: int

    def to_json(self) -> dict[str, Json]:
        return {name: getattr(self, name) for name in self.__slots__} | {"at": as_text(self.at)}


def current(connection: sa.Connection, model: str, alias: str = CHAMPION) -> int | None:
    """The version that an alias points at, or None.

    Raises:
        NotFoundError: there is no such model.
    """
    table = schema.aliases.c
    query = sa.select(table.version).where(
        table.model_id == model_id(connection, model), table.name == alias
    )
    found = connection.execute(query).scalar()
    return None if found is None else int(found)


def all_aliases(connection: sa.Connection, model: str) -> dict[str, int]:
    """Alias → version, of one model."""
    table = schema.aliases.c
    query = sa.select(table.name, table.version).where(
        table.model_id == model_id(connection, model)
    )
    return {row.name: row.version for row in connection.execute(query.order_by(table.name))}


def move(
    connection: sa.Connection,
    model: str,
    alias: str,
    to: int,
    *,
    expected: int | None,
    action: str = "promote",
    reason: str,
) -> Move:
    """Point an alias at a version, if it still points where the caller thinks.

    Args:
        connection: a writing transaction; the model stays locked to its end.
        expected: the version that it must point at now; None: there must be no such alias.

    Raises:
        ConflictError: it points elsewhere by now, or the version learned rows that were withdrawn
            and cannot become champion; nothing was changed.
        NotFoundError: there is no such version, or its state was removed.
    """
    key = model_id(connection, model, lock=True)
    check_exists(connection, model, to, whole=True)
    if alias == CHAMPION:
        check_unmarked(connection, model, to)
    _check_expected(connection, model, alias, expected)
    table = schema.aliases
    if expected is None:
        connection.execute(table.insert().values(model_id=key, name=alias, version=to, revision=1))
    else:
        connection.execute(
            table.update()
            .where(table.c.model_id == key, table.c.name == alias)
            .values(version=to, revision=table.c.revision + 1)
        )
    if alias == CHAMPION:
        edits.settle(connection, model, to, now())
    return _record(connection, key, alias, expected, to, action, reason)


def remove(
    connection: sa.Connection, model: str, alias: str, *, expected: int, reason: str
) -> Move:
    """Remove an alias, if it still points where the caller thinks.

    Raises:
        ConflictError: it points elsewhere by now, or is gone; nothing was changed.
    """
    key = model_id(connection, model, lock=True)
    _check_expected(connection, model, alias, expected)
    table = schema.aliases
    connection.execute(table.delete().where(table.c.model_id == key, table.c.name == alias))
    return _record(connection, key, alias, expected, None, "remove", reason)


def note(connection: sa.Connection, model: str, alias: str, *, action: str, reason: str) -> Move:
    """Write into an alias's history that it stays where it is, and why ("refuse", "hold")."""
    key = model_id(connection, model, lock=True)
    stays = current(connection, model, alias)
    return _record(connection, key, alias, stays, stays, action, reason)


def history(connection: sa.Connection, model: str, alias: str | None = None) -> list[Move]:
    """All moves of one alias, or of all aliases, in their order."""
    table = schema.alias_history
    columns = [table.c[name] for name in Move.__slots__]
    query = sa.select(*columns).where(table.c.model_id == model_id(connection, model))
    if alias is not None:
        query = query.where(table.c.name == alias)
    return [Move(**row._mapping) for row in connection.execute(query.order_by(table.c.id))]


def at(connection: sa.Connection, model: str, time: int, alias: str = CHAMPION) -> int | None:
    """The version that an alias pointed at at a time (microseconds): what served then."""
    table = schema.alias_history
    query = (
        sa.select(table.c.version_to)
        .where(table.c.model_id == model_id(connection, model))
        .where(table.c.name == alias, table.c.at <= time)
        .order_by(table.c.id.desc())
        .limit(1)
    )
    found = connection.execute(query).scalar()
    return None if found is None else int(found)


def rollback(
    connection: sa.Connection, model: str, to: int | None = None, *, reason: str | None = None
) -> Move:
    """Make an earlier champion champion again, with its memory and its positions in the sources.

    Rolled back twice, it goes back two champions: undone ones are not returned to, unless named.

    Args:
        connection: a writing transaction; the model stays locked to its end.
        to: a version that was champion before; the champion before the present one unless given,
            or the one before that, where that one learned rows that were withdrawn.

    Raises:
        InputError: there is nothing to go back to, or `to` is champion or never was.
        NotFoundError: there is no such version, or its state was removed.
    """
    model_id(connection, model, lock=True)
    champion = current(connection, model)
    if champion is None:
        raise InputError(f"model {model!r} has no champion to roll back from")
    marks = marked(connection, model)
    former = [number for number in former_champions(connection, model) if number not in marks]
    target = to if to is not None else (former[-1] if former else None)
    if target is None:
        raise InputError(
            f"version {champion} is the first champion of {model!r}; there is none to go back to"
        )
    check_exists(connection, model, target, whole=True)
    if target == champion:
        raise InputError(f"version {target} is the champion of {model!r} already")
    ever = {entry.version_to for entry in history(connection, model, CHAMPION)}
    if target not in ever:
        raise InputError(
            f"version {target} of {model!r} was never champion; `everlearn promote` makes it so"
        )
    said = reason or f"rolled back from version {champion} to version {target}"
    return move(
        connection, model, CHAMPION, target, expected=champion, action="rollback", reason=said
    )


def former_champions(connection: sa.Connection, model: str) -> list[int]:
    """The champions before the present one, oldest first, without those that were rolled back."""
    stack: list[int] = []
    for entry in history(connection, model, CHAMPION):
        if entry.version_to is None:
            continue
        if entry.action == "rollback" and entry.version_to in stack:
            while stack[-1] != entry.version_to:
                stack.pop()
        elif not stack or stack[-1] != entry.version_to:
            stack.append(entry.version_to)
    return stack[:-1]


def _check_expected(
    connection: sa.Connection, model: str, alias: str, expected: int | None
) -> None:
    found = current(connection, model, alias)
    if found == expected:
        return
    stands = "is not set" if found is None else f"points at version {found}"
    wanted = "not to be set" if expected is None else f"to point at version {expected}"
    raise ConflictError(
        f"{alias} of {model!r} {stands}, but was expected {wanted}: it was moved in the meantime;"
        " look at `everlearn history` and decide again"
    )


def _record(
    connection: sa.Connection,
    key: int,
    alias: str,
    before: int | None,
    after: int | None,
    action: str,
    reason: str,
) -> Move:
    table = schema.alias_history
    latest = sa.select(sa.func.max(table.c.at)).where(table.c.model_id == key)
    moment = max(now(), int(connection.execute(latest).scalar() or 0))
    made = Move(
        name=alias, version_from=before, version_to=after, action=action, reason=reason, at=moment
    )
    values: dict[str, Any] = {name: getattr(made, name) for name in Move.__slots__}
    connection.execute(table.insert(), {"model_id": key, **values})
    return made


def require_champion(connection: sa.Connection, model: str) -> int:
    """The champion's number.

    Raises:
        NotFoundError: there is none yet.
    """
    found = current(connection, model)
    if found is None:
        raise NotFoundError(f"model {model!r} has no champion yet; train it first")
    return found
