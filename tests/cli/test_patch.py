"""`patch`, `edits`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from everlearn.cli import ERROR, USAGE
from tests.cli.conftest import Shell


def write_edits(folder: Path, *edits: dict[str, Any]) -> Path:
    """A file of edits, one a line."""
    path = folder / "edits.jsonl"
    path.write_text("".join(json.dumps(edit) + "\n" for edit in edits))
    return path


def edit(a: float, b: float, late: int) -> dict[str, Any]:
    return {"features": {"a": a, "b": b}, "output": late, "reason": "the customer called"}


def answer(shell: Shell, a: float, b: float) -> Any:
    return json.loads(shell("predict", "bills", json.dumps({"a": a, "b": b})))["value"]


def test_a_patch_puts_answers_right_and_a_revoked_edit_is_gone(trained: Shell) -> None:
    edits = write_edits(trained.folder, edit(3.0, 3.0, 0), edit(-3.0, -3.0, 1))
    tried = trained.json("patch", "bills", "--edits", edits, "--dry-run")
    assert (tried["version"], tried["decision"]["action"]) == (None, "pass")
    found = trained.json("patch", "bills", "--edits", edits)
    assert (found["version"], found["edits"], found["decision"]["action"]) == (3, [1, 2], "promote")
    assert found["report"]["success"] == 1.0
    assert (answer(trained, 3.0, 3.0), answer(trained, -3.0, -3.0)) == (0, 1)
    listed = trained.json("edits", "bills", "list")
    assert [(one["number"], one["state"]) for one in listed] == [(1, "standing"), (2, "standing")]
    assert trained.json("edits", "bills", "revoke", "1")["version"] == 4
    assert (answer(trained, 3.0, 3.0), answer(trained, -3.0, -3.0)) == (1, 1)


def test_people_are_told_what_a_patch_does(trained: Shell) -> None:
    assert "has no edits" in trained("edits", "bills")
    edits = write_edits(trained.folder, edit(3.0, 3.0, 0), edit(2.0, 2.0, 1))
    told = trained("patch", "bills", "--edits", edits)
    for said in ("100% of 1 edits hold", "1 by exceptions", "1 more were answered", "stay what"):
        assert said in told
    assert "version 3: promote: 1 edit" in told
    assert "the customer called" in trained("edits", "bills")
    assert "version 4: promote: edits revoked: 1" in trained("edits", "bills", "revoke", "1")


def test_wrong_calls_are_refused(trained: Shell) -> None:
    edits = write_edits(trained.folder, edit(3.0, 3.0, 0), edit(3.0, 3.0, 1))
    trained("patch", "bills", "--edits", edits, code=ERROR)
    assert "edit 2 wants 1" in trained.error
    trained("patch", "bills", "--edits", trained.folder / "none.jsonl", code=ERROR)
    assert "there is no file" in trained.error
    trained("edits", "bills", "revoke", code=USAGE)
    trained("edits", "bills", "list", "1", code=USAGE)
