"""Keys and the audit log, on both databases."""

from __future__ import annotations

import pytest

from everlearn.base import ConflictError, InputError, NotFoundError
from everlearn.registry.audit import Audit, entry
from everlearn.registry.keys import ROLES, Keys, digest_of
from everlearn.registry.registry import Registry
from tests.registry.conftest import MODEL


def test_keys_are_made_known_and_revoked(registry: Registry) -> None:
    keys = Keys(registry.database)
    assert keys.known().required is False and keys.listed() == []
    registry.define(MODEL)
    made = [keys.create(role, "delays" if role == "predict" else None, role) for role in ROLES]
    known = keys.known()
    assert known.required
    assert dict(known.valid) == {digest_of(secret): key for key, secret in made}
    assert [key.model for key in keys.listed()] == ["delays", None, None, None, None]
    gone = keys.revoke(made[2][0].id)
    assert gone.revoked_at is not None
    assert set(keys.known().valid) == set(known.valid) - {digest_of(made[2][1])}
    assert keys.listed()[2] == gone
    with pytest.raises(ConflictError, match="was revoked at"):
        keys.revoke(gone.id)
    with pytest.raises(NotFoundError):
        keys.revoke(10**6)


def test_keys_that_cannot_be_made_leave_nothing(registry: Registry) -> None:
    keys, audit = Keys(registry.database), Audit(registry.database)
    with pytest.raises(InputError, match="king"):
        keys.create("king")  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="other"):
        keys.create("admin", "other")
    assert keys.listed() == [] and audit.listed() == []


def test_the_audit_log_is_read_in_pages_newest_first(registry: Registry) -> None:
    audit = Audit(registry.database)
    audit.add([])
    audit.add([entry(f"act {i}", 200, key=i, detail={"i": [i, "\x00"]}) for i in range(5)])
    audit.add([entry("last", 403, model="m")])
    first = audit.listed(2)
    assert [item["action"] for item in first] == ["last", "act 4"]
    assert (first[0]["key"], first[0]["model"], first[0]["status"]) == (None, "m", 403)
    rest = audit.listed(10, before=first[-1]["id"])
    assert [item["detail"]["i"] for item in rest] == [[i, "\x00"] for i in (3, 2, 1, 0)]
