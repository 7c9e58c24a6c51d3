"""Repairs over HTTP: an answer is put right, and rows are withdrawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import everlearn as el
from everlearn.base import Json
from tests.serving.local import LocalClient

URL = "/v1/models/m"


def rows(seed: int, source: str) -> list[Json]:
    x = np.random.default_rng(seed).normal(size=(300, 2)).round(4)
    return [{"a": a, "b": b, "who": source, "y": int(a + b > 0)} for a, b in x.tolist()]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[el.Workspace]:
    with el.open(tmp_path) as made:
        schema = el.Schema(target="y", ignore=("who",))
        handle = made.model(el.Model("m", learner=el.learners.LogisticRegression(), schema=schema))
        handle.train(rows(0, "web"), source="first")
        turned = [row | {"y": 1 - row["y"]} for row in rows(1, "bot")]
        handle.train(rows(2, "web") + turned, source="second")
        yield made


@pytest.fixture
def client(workspace: el.Workspace) -> Iterator[LocalClient]:
    with LocalClient(workspace.app(["m"], learn=False)) as made:
        yield made


def output(client: LocalClient, features: Json) -> Json:
    body = {"instances": [features], "log": False}
    return client.post(f"{URL}/predict", json=body).json()["predictions"][0]["output"]


def test_an_answer_is_put_right_and_taken_back(client: LocalClient) -> None:
    asked = {"a": 1.5, "b": 1.0}
    before = output(client, asked)
    edit = {"features": asked, "output": 1 - before, "reason": "the customer called"}
    tried = client.post(f"{URL}/patches", json={"edits": [edit], "dry_run": True}).json()
    assert (tried["version"], output(client, asked)) == (None, before)
    found = client.post(f"{URL}/patches", json={"edits": [edit]}).json()
    assert (found["version"], found["decision"]["action"]) == (3, "promote")
    assert found["report"]["success"] == 1.0
    assert output(client, asked) == 1 - before
    (listed,) = client.get(f"{URL}/edits").json()["edits"]
    assert (listed["number"], listed["state"]) == (1, "standing")
    taken = client.post(f"{URL}/edits/1/revoke").json()
    assert taken["decision"]["action"] == "promote"
    assert output(client, asked) == before


def test_wrong_edits_are_refused_whole(client: LocalClient) -> None:
    edit = {"features": {"a": 0.1, "b": 0.1}, "output": 0, "reason": "x"}
    for edits, words in (
        ([edit, edit | {"output": 1}], "one answer"),
        ([edit | {"features": {"z": 1.0}}], "z"),
        ([], "edits"),
    ):
        answer = client.post(f"{URL}/patches", json={"edits": edits})
        assert answer.status_code == 422
        assert words in answer.text
    assert client.get(URL).json()["champion"] == 2


def test_rows_are_withdrawn_and_folded_away(client: LocalClient, workspace: el.Workspace) -> None:
    asked = {"where": "who = 'bot'", "reason": "poisoned"}
    tried = client.post(f"{URL}/excisions", json=asked | {"dry_run": True}).json()
    assert (tried["rows"], tried["base"], tried["job"]) == (300, 1, None)
    found = client.post(f"{URL}/excisions", json=asked).json()
    assert found["marked"] == [2]
    assert workspace.run(found["job"]).decision.action == "promote"
    (listed,) = client.get(f"{URL}/excisions").json()["excisions"]
    assert (listed["rows"], listed["reason"]) == (300, "poisoned")
    answer = client.post(f"{URL}/promote", json={"version": 2})
    assert (answer.status_code, "withdrawn" in answer.text) == (409, True)
    for wrong in ({}, {"where": "who =", "key": "x"}, {"where": "who ="}):
        assert client.post(f"{URL}/excisions", json=wrong).status_code == 422
