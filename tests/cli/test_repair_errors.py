"""Wrong input to the commands of repair: what was wrong is said, and nothing is changed."""

from __future__ import annotations

import json
from typing import Any

from everlearn.cli import ERROR
from tests.cli.conftest import Shell

EDIT: dict[str, Any] = {"features": {"a": 3.0, "b": 3.0}, "output": 0, "reason": "called"}


def said(shell: Shell, *words: Any) -> str:
    """What a command says that is refused."""
    shell(*words, code=ERROR)
    assert shell.error.startswith("error: ") and "Traceback" not in shell.error
    return shell.error.removeprefix("error: ").strip()


def line(**changes: Any) -> str:
    return json.dumps(EDIT | changes)


EDITS = {
    "": "there is no edit; give at least one input",
    "\n \n": "there is no edit; give at least one input",
    f"{line()}\n{{broken": "edits.jsonl, line 2: no JSON",
    "[1, 2]": "edit 1: an edit is an object of names and values, not [1, 2]",
    f"{line()}\n{line(features=[3.0])}": "edit 2: features are columns and values, not [3.0]",
    line(output=None): "edit 1: it has no 'output'",
    line(features={"a": "x"}): "edit 1 of 1: row 0: column 'a': not a number",
    line(features={"c": 1.0}): "no column 'c'",
    line(output="late"): "'late' is no value of 'late'",
    line(expires_at="tomorrow"): "edit 1: expires_at='tomorrow' is no ISO 8601 time",
    line(prediction_id="zzz"): "edit 1: 'zzz' is no id of a prediction",
    line(output=1): "are answered as wanted already by version 2",
}


def test_edits_that_are_none(trained: Shell) -> None:
    path = trained.folder / "edits.jsonl"
    for text, told in EDITS.items():
        path.write_text(text + "\n" * bool(text))
        assert told in said(trained, "patch", "bills", "--edits", path)
    path.write_bytes(b"\xff\xfe")
    assert "edits.jsonl is not UTF-8" in said(trained, "patch", "bills", "--edits", path)
    assert "no file" in said(trained, "patch", "bills", "--edits", trained.folder / "none")
    assert "no model 'nosuch'" in said(trained, "patch", "nosuch", "--edits", path)
    assert "has no edit 7" in said(trained, "edits", "bills", "revoke", "7")
    assert trained.json("edits", "bills") == []
    assert len(trained.json("versions", "bills")) == 2


EXCISIONS = {
    ("--where", "sorce = 'x'"): "the rows have no column 'sorce': did you mean 'source'?",
    ("--where", "source = "): "the condition cannot be read at letter 10: expected a value",
    ("--where", ""): "the condition cannot be read at letter 1",
    ("--where", "a > 'x'"): "column 'a' holds numbers, which cannot be compared with 'x'",
    ("--where", "a > 100"): "no such row: a > 100",
    ("--rows", "nosuch.csv:1-2"): "nothing was learned of 'nosuch.csv'",
    ("--rows", "5-3"): "rows are SOURCE:FROM-TO",
    ("--key", "ann"): "the schema names no column of keys",
    ("--induced-by", "1"): "there are no labels of predictions that version 1 answered",
    ("--induced-by", "9"): "has no version 9 (versions: 1 to 2)",
    (): "say one of where, rows, key and induced_by; there is none",
    ("--key", "x", "--where", "a > 1"): "there is where and key",
}


def test_rows_that_are_none(trained: Shell) -> None:
    for words, told in EXCISIONS.items():
        assert told in said(trained, "excise", "bills", *words)
    assert trained.json("withdrawals", "bills") == []


def test_versions_that_are_none(trained: Shell) -> None:
    ask = ("bisect", "bills", "--metric", "log_loss")
    assert "has no version 9 (versions: 1 to 2)" in said(trained, "show", "bills", 9)
    assert "has no version 9" in said(trained, *ask, "--good", 1, "--bad", 9)
    assert "has no version 0" in said(trained, *ask, "--good", 0, "--bad", 2)
    assert "swap them" in said(trained, *ask, "--good", 2, "--bad", 1)
    on = trained.folder / "none.csv"
    assert "none.csv" in said(trained, *ask, "--good", 1, "--bad", 2, "--on", on)
    wrong = ("bisect", "bills", "--metric", "nope", "--good", 1, "--bad", 2)
    assert "'nope' cannot judge a classifier: use one of" in said(trained, *wrong)
