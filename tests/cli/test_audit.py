"""Who did what: by the command line, from Python and over HTTP, in the transaction in which it was
done."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

import pytest

import everlearn as el
from everlearn.base import ConflictError, StorageError
from everlearn.registry import audit
from tests.cli.conftest import Shell, write_rows
from tests.serving.local import LocalClient

MODEL = el.Model("m", learner="logistic", schema=el.Schema(target="late"))


def entries(place: Path) -> list[Any]:
    """Oldest first."""
    with el.open(place) as workspace:
        return workspace.audit.listed()[::-1]


@pytest.fixture
def trained(tmp_path: Path) -> el.Workspace:
    """Two versions, the second of which serves."""
    workspace = el.open(tmp_path / "workspace")
    for seed in (0, 1):
        rows = write_rows(tmp_path / f"{seed}.csv", 400, seed=seed)
        workspace.model(MODEL).train(str(rows))
    assert workspace.model("m").champion() == 2
    assert workspace.audit.listed() == []  # what a gate decides is no act of a person
    return workspace


def test_the_command_line_is_in_the_audit_log(shell: Shell) -> None:
    shell("train", shell.spec, shell.rows)
    shell("train", shell.spec, write_rows(shell.folder / "more.csv", 400, seed=1))
    shell("rollback", "bills")
    shell("promote", "bills", 2, "--reason", "it was right")
    shell("promote", "bills", 9, code=1)  # there is none: nothing was done
    shell("export", "bills", 1, shell.folder / "one.zip")
    shell("import", shell.folder / "one.zip", "--name", "other")
    shell("key", "create", "--role", "predict")
    shell("key", "revoke", 1)
    shell("erase", "bills", "--key", "somebody")
    shell("compact", "bills", "--older-than", "1d", "--drop-older-than", "2d")
    found = entries(shell.workspace)
    who = {"user": getpass.getuser(), "where": "command line"}
    assert [(one["action"], one["model"]) for one in found] == [
        ("rollback", "bills"), ("promote", "bills"), ("import version", "other"),
        ("key create", None), ("key revoke", None), ("erase", "bills"),
        ("drop old rows", "bills"),
    ]  # fmt: skip
    assert all(who.items() <= one["detail"].items() and one["key"] is None for one in found)
    assert found[1]["detail"] == who | {"from": 1, "to": 2, "reason": "it was right"}


def test_python_is_in_the_audit_log_in_the_transaction_of_what_it_does(
    trained: el.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = trained.model("m")
    handle.rollback()
    with pytest.raises(ConflictError):
        trained.registry.promote("m", 2, expected=2)
    (entry,) = trained.audit.listed()
    assert (entry["action"], entry["model"], entry["status"]) == ("rollback", "m", 200)
    assert entry["detail"]["where"] == "Python"
    assert (entry["detail"]["from"], entry["detail"]["to"]) == (2, 1)

    def broken(*arguments: Any) -> None:
        raise StorageError("the audit log cannot be written")

    monkeypatch.setattr(audit, "add_entries", broken)
    with pytest.raises(StorageError, match="audit"):
        handle.promote(2)
    with pytest.raises(StorageError, match="audit"):
        trained.keys.create("admin")
    assert (handle.champion(), trained.keys.listed()) == (1, [])
    trained.close()


def test_over_http_it_is_there_once_with_its_key(
    trained: el.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = trained.keys.create("operate")
    with LocalClient(trained.app(["m"], learn=False), "10.1.2.3") as client:
        client.headers["Authorization"] = f"Bearer {secret}"
        assert client.post("/v1/models/m/rollback").status_code == 200
        assert client.post("/v1/models/m/rollback").status_code == 422
        refused, done = trained.audit.listed(2)
        assert [one["status"] for one in (done, refused)] == [200, 422]
        for one in (refused, done):
            assert (one["action"], one["key"]) == ("POST /v1/models/{model}/rollback", key.id)
            assert one["detail"]["address"] == "10.1.2.3"
        assert (done["detail"]["did"], done["detail"]["to"]) == ("rollback", 1)

        def broken(*arguments: Any) -> None:
            raise StorageError("the audit log cannot be written")

        monkeypatch.setattr(audit, "add_entries", broken)
        assert client.post("/v1/models/m/promote", json={"version": 2}).status_code == 503
        assert trained.model("m").champion() == 1
    trained.close()
