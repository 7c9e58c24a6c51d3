"""Keys of the HTTP API: who may call what. Only digests of the secrets are stored."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import sqlalchemy as sa

from everlearn.base import ConflictError, InputError, Json, NotFoundError
from everlearn.registry import audit
from everlearn.registry.models import as_text, model_id, now
from everlearn.storage.database import Database
from everlearn.storage.schema import keys, models

Role = Literal["predict", "feedback", "review", "operate", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

PREFIX = "el_"
"""How every secret begins, so that one is recognised where it should not be."""

HINT = 9
"""Letters of a secret that are stored, to tell keys apart: the prefix and 36 of its 256 bits."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without its secret.

    Args:
        id: by which the audit log names it.
        hint: first letters of the secret.
        role: what its bearer may do.
        model: the only model that it is for; None: all.
        source: the only one that labels under it may come from; None: any. What that source may
            weigh in training, this key cannot exceed.
        note: whose it is.
        created_at, revoked_at: microseconds since 1970 UTC.
    """

    id: int
    hint: str
    role: Role
    model: str | None
    source: str | None
    note: str
    created_at: int
    revoked_at: int | None

    def to_json(self) -> Json:
        """As JSON, times as text."""
        return {
            "id": self.id,
            "hint": self.hint,
            "role": self.role,
            "model": self.model,
            "source": self.source,
            "note": self.note,
            "created_at": as_text(self.created_at),
            "revoked_at": None if self.revoked_at is None else as_text(self.revoked_at),
        }


@dataclass(frozen=True, slots=True)
class Known:
    """The keys of a workspace at one moment.

    Args:
        valid: digest → key, of those that are not revoked.
        required: whether there ever was a key; who revokes the last one opens nothing.
    """

    valid: Mapping[str, ApiKey]
    required: bool


def digest_of(secret: str) -> str:
    """By which a key is stored and looked up: a secret of 256 random bits needs no slow hash, and
    what a look-up by digest takes says nothing of the secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Keys:
    """The keys of a workspace."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(
        self, role: Role, model: str | None = None, note: str = "", source: str | None = None
    ) -> tuple[ApiKey, str]:
        """A new key and its secret, which is shown this once and stored nowhere.

        Raises:
            InputError: there is no such role.
            NotFoundError: there is no such model.
        """
        if role not in ROLES:
            raise InputError(f"there is no role {role!r} (roles: {', '.join(ROLES)})")
        secret = PREFIX + secrets.token_urlsafe(32)
        made, hint = now(), secret[:HINT]
        with self.database.write() as connection:
            row = {
                "digest": digest_of(secret),
                "hint": hint,
                "role": role,
                "model_id": None if model is None else model_id(connection, model),
                "source": source,
                "note": note,
                "created_at": made,
            }
            number = connection.execute(keys.insert().values(row).returning(keys.c.id)).scalar_one()
            detail = {"key": number, "role": role, "source": source, "note": note}
            audit.note(connection, "key create", model, detail)
        return ApiKey(number, hint, role, model, source, note, made, None), secret

    def revoke(self, number: int) -> ApiKey:
        """Make a key worthless, for good. Servers notice within 5 seconds.

        Raises:
            NotFoundError: there is no such key.
            ConflictError: it was revoked before.
        """
        with self.database.write() as connection:
            found = [key for _, key in _all(connection) if key.id == number]
            if not found:
                raise NotFoundError(f"there is no key {number} in this workspace")
            if found[0].revoked_at is not None:
                when = as_text(found[0].revoked_at)
                raise ConflictError(f"key {number} was revoked at {when}")
            change = keys.update().where(keys.c.id == number).values(revoked_at=now())
            connection.execute(change)
            model, detail = found[0].model, {"key": number, "role": found[0].role}
            audit.note(connection, "key revoke", model, detail)
            return next(key for _, key in _all(connection) if key.id == number)

    def listed(self) -> list[ApiKey]:
        """All keys, those that are revoked too, in the order in which they were made."""
        with self.database.read() as connection:
            return [key for _, key in _all(connection)]

    def known(self) -> Known:
        """What a server checks requests against."""
        with self.database.read() as connection:
            found = _all(connection)
        valid = {digest: key for digest, key in found if key.revoked_at is None}
        return Known(valid, bool(found))


def _all(connection: sa.Connection) -> list[tuple[str, ApiKey]]:
    columns = (
        keys.c.digest,
        keys.c.id,
        keys.c.hint,
        keys.c.role,
        models.c.name,
        keys.c.source,
        keys.c.note,
        keys.c.created_at,
        keys.c.revoked_at,
    )
    query = sa.select(*columns).select_from(keys.outerjoin(models)).order_by(keys.c.id)
    return [(digest, ApiKey(*rest)) for digest, *rest in connection.execute(query)]
