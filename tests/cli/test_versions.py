"""`versions`, `history`, `diff`, `promote`, `rollback`, `predict`."""

from __future__ import annotations

import io
import json

import pytest

from everlearn.cli import ERROR
from tests.cli.conftest import Shell, write_rows

CONTRACT = {
    "number",
    "parent",
    "aliases",
    "state_digest",
    "strategy",
    "increments",
    "metrics",
    "created_at",
}
INCREMENT = {"source", "start", "stop", "rows", "held_out", "set_aside", "duplicates", "digest"}


def champion(shell: Shell) -> int:
    """Number of the version that the alias points at."""
    [number] = [
        item["number"] for item in shell.json("versions", "bills") if "champion" in item["aliases"]
    ]
    assert isinstance(number, int)
    return number


def test_versions_as_json_hold_the_contract(trained: Shell) -> None:
    first, second = trained.json("versions", "bills")
    assert set(first) >= CONTRACT
    assert (first["number"], first["parent"]) == (1, None)
    assert (second["number"], second["parent"], second["aliases"]) == (2, 1, ["champion"])
    for version in (first, second):
        assert len(version["state_digest"]) == 64
        for increment in version["increments"]:
            assert set(increment) >= INCREMENT


def test_an_unknown_model_is_named_with_those_there_are(trained: Shell) -> None:
    trained("versions", "balls", code=ERROR)
    assert "'balls'" in trained.error
    assert "bills" in trained.error


def test_versions_for_people(trained: Shell) -> None:
    told = trained("versions", "bills")
    assert "champion" in told
    assert "learned" in told


def test_rollback_goes_to_the_champion_before(trained: Shell) -> None:
    assert champion(trained) == 2
    assert "version 1" in trained("rollback", "bills")
    assert champion(trained) == 1
    moves = trained.json("history", "bills")
    assert [(move["action"], move["version_to"]) for move in moves][-1] == ("rollback", 1)


def test_rollback_to_a_version_that_is_not_there(trained: Shell) -> None:
    trained("rollback", "bills", "--to", 9, code=ERROR)
    assert "9" in trained.error
    assert champion(trained) == 2


def test_promote_by_hand(trained: Shell) -> None:
    trained("rollback", "bills", "--to", 1)
    moved = trained.json("promote", "bills", 2, "--reason", "it was right")
    assert moved["version_to"] == 2
    assert champion(trained) == 2
    assert "it was right" in trained("history", "bills")


def test_after_a_rollback_what_was_learned_since_is_on_hold(trained: Shell) -> None:
    trained("rollback", "bills")
    done = trained.train(trained.folder / "more.csv")
    assert done["version"] is None
    assert done["decision"]["action"] == "nothing"


def test_diff_says_what_was_learned_between(trained: Shell) -> None:
    found = trained.json("diff", "bills", 1, 2)
    assert "more.csv" in json.dumps(found)
    assert "more.csv" in trained("diff", "bills", 1, 2)


def test_predict_json_a_file_and_standard_input(
    trained: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"a": 3.0, "b": 3.0}
    [one] = map(json.loads, trained("predict", "bills", json.dumps(row)).splitlines())
    assert one["value"] in (1, 1.0)
    assert one["probabilities"]["1"] > 0.5
    file = write_rows(trained.folder / "new.csv", 30, seed=5)
    assert len(trained("predict", "bills", file).splitlines()) == 30
    monkeypatch.setattr("sys.stdin", io.StringIO('{"a": -3, "b": -3}\n\n{"a": 3, "b": 3}\n\n'))
    low, high = map(json.loads, trained("predict", "bills", "-").splitlines())
    assert (low["value"], high["value"]) == (0, 1)


def test_predict_with_an_earlier_version(trained: Shell) -> None:
    row = '{"a": 0.2, "b": 0.1}'
    new = trained("predict", "bills", row)
    old = trained("predict", "bills", row, "--version", 1)
    assert json.loads(new)["probabilities"] != json.loads(old)["probabilities"]


def test_predict_refuses_what_is_not_json(trained: Shell) -> None:
    trained("predict", "bills", '{"a": ', code=ERROR)
    assert "is not JSON" in trained.error
    trained("predict", "bills", '{"a": 1, "zz": 2}', code=ERROR)
    assert "zz" in trained.error
