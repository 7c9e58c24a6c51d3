"""Edits of models: what was asked for, and what became of it.

A version answers as the edits in its own state say, and always will. What is written here is their
history, and which of them are carried on to new versions: those of the champion's state that have
neither been revoked nor expired. So a rollback brings back the edits that the earlier version has,
and lets go of those that it has not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from everlearn.base import ConflictError, InputError, Json
from everlearn.data.feedback import id_number, id_text
from everlearn.data.imports import moment
from everlearn.registry.models import as_text, model_id, plain
from everlearn.storage import schema
from everlearn.strategies.patch import Edit

REVOKED, EXPIRED, LEARNED, ERASED = "revoked", "expired", "learned", "erased"
"""Why an edit ended: somebody took it back, its time came, a champion that learned answers so by
itself, or it was of a key whose data was erased."""

FIELDS = ("features", "output", "reason", "author", "prediction_id", "expires_at")
"""What an edit may say."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An edit and what became of it.

    Args:
        edit: what is wanted.
        created_at: microseconds.
        ended_at, ended_why: when and why it ended, or None.
    """

    edit: Edit
    created_at: int
    ended_at: int | None
    ended_why: str | None

    def to_json(self) -> dict[str, Json]:
        """What `everlearn edits --json` prints, but for what the champion says of it; times as ISO
        text."""
        shown = _kept(self.edit)
        for name, at in (
            ("expires_at", self.edit.expires_at),
            ("created_at", self.created_at),
            ("ended_at", self.ended_at),
        ):
            shown[name] = None if at is None else as_text(at)
        told = self.edit.prediction_id
        shown["prediction_id"] = None if told is None else id_text(told)
        return shown | {"ended_why": self.ended_why}


def next_number(connection: sa.Connection, model: str) -> int:
    """The number of the next edit of a model."""
    table = schema.edits.c
    query = sa.select(sa.func.max(table.number))
    found = connection.execute(query.where(table.model_id == model_id(connection, model))).scalar()
    return int(found or 0) + 1


def numbered(edits: Iterable[Edit], first: int) -> list[Edit]:
    """The same edits with consecutive numbers."""
    return [replace(edit, number=first + place) for place, edit in enumerate(edits)]


def add(connection: sa.Connection, model: str, edits: Sequence[Edit], at: int) -> None:
    """Write down edits that have numbers.

    Args:
        connection: a writing transaction.
        at: microseconds.
    """
    key = model_id(connection, model, lock=True)
    rows = [
        _kept(edit)
        | {
            "model_id": key,
            "features": json.dumps(edit.features),
            "output": json.dumps(edit.output),
            "created_at": at,
        }
        for edit in edits
    ]
    if rows:
        connection.execute(schema.edits.insert(), rows)


def _kept(edit: Edit) -> dict[str, Json]:
    """What is written down of an edit: its way is in the versions that have it."""
    return {name: value for name, value in edit.to_json().items() if name != "way"}


def adopt(connection: sa.Connection, model: str, edits: Sequence[Edit], at: int) -> None:
    """Write down the edits of a version that was imported, by the numbers that they have in it.

    Args:
        connection: a writing transaction.
        at: microseconds.

    Raises:
        ConflictError: the model has another edit of one of these numbers.
    """
    known = {one.edit.number: one.edit for one in listed(connection, model)}
    new = [edit for edit in edits if edit.number not in known]
    for edit in edits:
        if known.get(edit.number, edit) != edit:
            raise ConflictError(
                f"model {model!r} has another edit {edit.number} than the version; import it under"
                " another name (`everlearn import --name`)"
            )
    add(connection, model, new, at)


def listed(connection: sa.Connection, model: str) -> list[Entry]:
    """All edits of a model, in their order."""
    table = schema.edits.c
    query = sa.select(schema.edits).where(table.model_id == model_id(connection, model))
    return [
        Entry(
            Edit(
                number=row.number,
                features=json.loads(row.features),
                output=json.loads(row.output),
                reason=row.reason,
                author=row.author,
                prediction_id=row.prediction_id,
                expires_at=row.expires_at,
            ),
            row.created_at,
            row.ended_at,
            row.ended_why,
        )
        for row in connection.execute(query.order_by(table.number))
    ]


def carried(
    connection: sa.Connection, model: str, edits: Iterable[Edit], at: int
) -> tuple[list[Edit], list[Edit]]:
    """Of the edits that a version has: (those that are carried on to a new one, those that expired
    and were not ended yet). One that a later champion had learned is carried on: this one has not.

    Args:
        at: what time it is, microseconds.
    """
    ended = {one.edit.number: one.ended_why for one in listed(connection, model) if one.ended_why}
    going: list[Edit] = []
    expired: list[Edit] = []
    for edit in edits:
        why = ended.get(edit.number)
        if edit.expires_at is not None and edit.expires_at <= at:
            expired += [] if why else [edit]
        elif why in (None, LEARNED):
            going.append(edit)
    return going, expired


def due(connection: sa.Connection, model: str, at: int) -> dict[int, bool]:
    """Numbers of the edits whose time has come → whether that was written down."""
    table = schema.edits.c
    query = sa.select(table.number, table.ended_at.is_not(None)).where(
        table.model_id == model_id(connection, model), table.expires_at <= at
    )
    return {number: bool(ended) for number, ended in connection.execute(query)}


def check_lasting(edits: Iterable[Edit], at: int) -> None:
    """Raises `InputError` if the time of an edit has come already.

    Args:
        at: what time it is, microseconds.
    """
    for place, edit in enumerate(edits, start=1):
        if edit.expires_at is not None and edit.expires_at <= at:
            raise InputError(
                f"edit {place}: expires_at={as_text(edit.expires_at)!r} has passed; it would end at"
                " once"
            )


def end(
    connection: sa.Connection, model: str, numbers: Iterable[int], why: str, at: int
) -> list[int]:
    """End edits that have not ended; returns which. One that was learned can be taken back still:
    the versions before, which may be champion again, have not learned it.

    Raises:
        InputError: there is no edit of one of these numbers.
    """
    known = {one.edit.number: one for one in listed(connection, model)}
    asked = sorted(set(numbers))
    missing = [number for number in asked if number not in known]
    if missing:
        there = f"1 to {max(known)}" if known else "none yet"
        raise InputError(f"model {model!r} has no edit {missing[0]} (edits: {there})")
    open_still = (None, LEARNED) if why == REVOKED else (None,)
    ending = [number for number in asked if known[number].ended_why in open_still]
    table = schema.edits
    connection.execute(
        table.update()
        .where(table.c.model_id == model_id(connection, model), table.c.number.in_(ending))
        .values(ended_at=at, ended_why=why)
    )
    return ending


def erase(connection: sa.Connection, model: str, numbers: Iterable[int], at: int) -> None:
    """End edits, and forget what they asked, what they wanted, why, and who did.

    Args:
        connection: a writing transaction.
        at: microseconds.
    """
    table = schema.edits
    mine = (table.c.model_id == model_id(connection, model), table.c.number.in_(sorted(numbers)))
    blank = {"features": "{}", "output": "null", "reason": ERASED, "author": None}
    ended = {"ended_at": sa.func.coalesce(table.c.ended_at, at), "ended_why": ERASED}
    connection.execute(table.update().where(*mine).values(prediction_id=None, **blank, **ended))


def settle(connection: sa.Connection, model: str, version: int, at: int) -> None:
    """A version became champion: the edits that it has learned, as its metrics say, have ended."""
    table = schema.versions.c
    query = sa.select(table.metrics).where(
        table.model_id == model_id(connection, model), table.number == version
    )
    metrics = connection.execute(query).scalar_one()
    learned = (metrics.get("patch") or {}).get(LEARNED)
    if learned:
        known = {one.edit.number for one in listed(connection, model)}
        end(connection, model, known.intersection(learned), LEARNED, at)


def edits_of(records: Iterable[object]) -> list[Edit]:
    """What records say, each as `edit_of` reads it.

    Raises:
        InputError: one of them says something wrong: the how manieth, and what.
    """
    found = []
    for place, record in enumerate(records, start=1):
        try:
            found.append(edit_of(record))
        except InputError as error:
            raise InputError(f"edit {place}: {error}") from error
    return found


def edit_of(record: object) -> Edit:
    """What a record says in the words of the HTTP API; see `FIELDS`.

    Raises:
        InputError: it says something wrong.
    """
    if not isinstance(record, Mapping):
        raise InputError(f"an edit is an object of names and values, not {record!r}")
    unknown = set(record) - set(FIELDS)
    if unknown:
        raise InputError(f"unknown {sorted(map(str, unknown))}; an edit has {', '.join(FIELDS)}")
    missing = [name for name in ("features", "output", "reason") if record.get(name) is None]
    if missing:
        raise InputError(f"it has no {missing[0]!r}: say the input, the answer wanted, and why")
    if not isinstance(record["features"], Mapping):
        raise InputError(f"features are columns and values, not {record['features']!r}")
    for name in ("reason", "author"):
        said = record.get(name)
        if said is not None and (not isinstance(said, str) or not said.strip() or "\0" in said):
            raise InputError(f"{name}={said!r}; it is a text that says something, without NUL")
    told, until = record.get("prediction_id"), record.get("expires_at")
    return Edit(
        features=plain(record["features"]),
        output=plain(record["output"]),
        reason=record["reason"],
        author=record.get("author"),
        prediction_id=None if told is None else id_number(str(told)),
        expires_at=None if until is None else moment(until, "expires_at"),
    )
