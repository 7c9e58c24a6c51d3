"""How results are shown."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import numpy as np
import pytest

from everlearn.base import Decision
from everlearn.cli.output import figure, plain, show_json, show_table, when


@dataclass
class Record:
    name: str
    values: tuple[float, ...]


def test_records_become_json() -> None:
    assert plain(Record("a", (1.0, float("nan")))) == {"name": "a", "values": [1.0, None]}
    assert plain(Decision("pass", "good")) == {"action": "pass", "reason": "good", "evidence": {}}
    assert plain({1: np.int64(3), "x": np.array([1.5])}) == {"1": 3, "x": [1.5]}


def test_json_is_strict_and_readable(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"ä": float("inf")})
    written = capsys.readouterr().out
    assert "ä" in written
    assert json.loads(written) == {"ä": None}


def test_figures_for_people() -> None:
    assert figure(1234567) == "1,234,567"
    assert figure(0.5) == "0.5000"
    assert figure(None) == "–"
    assert figure(float("nan")) == "–"
    assert figure("text") == "text"


def test_moments_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        assert when(1_357_000_000_000_000) == "2013-01-01 00:26:40"
        assert when("2013-01-01T00:26:40.000000+00:00") == "2013-01-01 00:26:40"
        assert when(None) == ""
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_table_is_not_folded_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 150
    show_table(("name", "value#"), [[long, "1"]], "empty")
    written = capsys.readouterr().out
    assert long in written
    assert "#" not in written


def test_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("name",), [], "there are none")
    assert capsys.readouterr().out == "there are none\n"
