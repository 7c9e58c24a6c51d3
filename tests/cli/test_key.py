"""`key create|list|revoke`."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from everlearn.cli import ERROR
from everlearn.registry.keys import ROLES, digest_of
from tests.cli.conftest import Shell


def stored(shell: Shell) -> bytes:
    """All that is on disk."""
    return b"".join(path.read_bytes() for path in shell.workspace.rglob("*") if path.is_file())


def test_a_secret_is_shown_once_and_stored_as_its_digest(shell: Shell) -> None:
    secret = shell("key", "create", "--role", "predict", "--note", "shop").strip()
    assert secret.startswith("el_") and len(secret) == 3 + 43
    assert secret not in shell.error
    (listed,) = shell.json("key", "list")
    assert (listed["role"], listed["model"], listed["note"]) == ("predict", None, "shop")
    assert secret.startswith(listed["hint"]) and secret not in str(listed)
    assert secret.encode() not in stored(shell)
    with closing(sqlite3.connect(shell.workspace / "everlearn.db")) as database:
        assert database.execute("select digest from keys").fetchall() == [(digest_of(secret),)]


@pytest.mark.parametrize("role", ROLES)
def test_every_role_has_keys_that_differ(shell: Shell, role: str) -> None:
    made = [shell.json("key", "create", "--role", role) for _ in range(3)]
    assert {item["role"] for item in made} == {role}
    assert len({item["secret"] for item in made}) == 3


def test_a_key_for_one_model(trained: Shell) -> None:
    made = trained.json("key", "create", "--role", "operate", "--model", "bills")
    assert made["model"] == "bills"
    trained("key", "create", "--role", "operate", "--model", "balls", code=ERROR)
    assert "'balls'" in trained.error and "bills" in trained.error
    trained("key", "create", "--role", "king", code=ERROR)
    assert "'king'" in trained.error and "predict" in trained.error
    assert len(trained.json("key", "list")) == 1


def test_a_key_is_revoked_once(shell: Shell) -> None:
    number = shell.json("key", "create", "--role", "admin")["id"]
    assert shell.json("key", "list")[0]["revoked_at"] is None
    assert "revoked" in shell("key", "revoke", number)
    assert shell.json("key", "list")[0]["revoked_at"] is not None
    shell("key", "revoke", number, code=ERROR)
    shell("key", "revoke", 9, code=ERROR)
    assert "no key 9" in shell.error


def test_an_empty_workspace_says_what_that_means(shell: Shell) -> None:
    number = shell.json("key", "create", "--role", "admin")["id"]
    assert "admin" in shell("key", "list")
    shell("key", "revoke", number)
    assert str(number) in shell("key", "list")


def test_serving_others_is_refused_until_there_is_a_key(shell: Shell) -> None:
    shell("serve", shell.spec, "--host", "0.0.0.0", code=ERROR)
    assert "everlearn key create" in shell.error and "0.0.0.0" in shell.error
