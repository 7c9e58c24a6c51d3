"""Bisections over HTTP: asked for, carried out beside the server, refused, and gone on with."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everlearn as el
from tests.jobs.poisoned import BAD, GOOD, POISONED, poisoned, table
from tests.serving.local import LocalClient
from tests.serving.test_online import Loop, until

URL = "/v1/models/m/bisections"
QUESTION = {"good": GOOD, "bad": BAD, "metric": "log_loss"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[el.Workspace]:
    with poisoned(tmp_path_factory.mktemp("poisoned")) as workspace:
        yield workspace


@pytest.fixture
def client(workspace: el.Workspace) -> Iterator[LocalClient]:
    with LocalClient(workspace.app(["m"], learn=False)) as client:
        yield client


def ended(client: LocalClient, number: int) -> Any:
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up:
        found = client.get(f"{URL}/{number}").json()
        if found["state"] != "running":
            return found
        time.sleep(0.1)
    raise AssertionError("the bisection did not end")


def test_a_bisection_is_carried_out_beside_the_server(
    client: LocalClient, workspace: el.Workspace
) -> None:
    asked = client.post(URL, json=QUESTION)
    assert asked.status_code == 202 and asked.json()["state"] == "running"
    number = asked.json()["number"]
    again = client.post(URL, json=QUESTION)  # it is at it
    assert (again.status_code, again.json()["number"]) == (202, number)
    other = client.post(URL, json={**QUESTION, "metric": "accuracy"})
    assert other.status_code == 409 and f"bisection {number}" in other.json()["error"]

    found = ended(client, number)
    assert found["state"] == "done" and found["finished_at"] is not None
    assert found["report"]["version"] == POISONED
    assert found["report"]["next"] == "everlearn excise m --where \"source = 'bot-7'\""
    assert {one["version"] for one in found["probes"]} >= {GOOD, POISONED, BAD}
    listed = client.get(URL).json()["bisections"]
    assert [one["number"] for one in listed][-1] == number
    assert client.post(URL, json=QUESTION).json()["report"] == found["report"]
    first = workspace.audit.listed()[-1]
    assert (first["action"], first["status"]) == ("POST /v1/models/{model}/bisections", 200)
    assert first["detail"]["did"] == "bisect" and first["detail"]["bad"] == BAD


def test_rows_to_judge_on_are_sent(client: LocalClient, workspace: el.Workspace) -> None:
    fresh = table(99, 300)
    rows = [{name: fresh[name][at].item() for name in fresh if name != "source"} | {
        "source": str(fresh["source"][at])} for at in range(300)]  # fmt: skip
    asked = client.post(URL, json={**QUESTION, "on": rows})
    assert asked.status_code == 202, asked.text
    found = ended(client, asked.json()["number"])
    assert (found["asked"]["on"], found["asked"]["rows"]) == ("data", 300)
    here = workspace.model("m").repair.bisect(**QUESTION, on=fresh)
    assert found["report"] == json.loads(json.dumps(here)), "the same question"
    assert here["version"] == POISONED


def test_what_cannot_be_asked_is_refused(client: LocalClient) -> None:
    swapped = client.post(URL, json={**QUESTION, "good": BAD, "bad": GOOD})
    assert swapped.status_code == 422 and "swap them" in swapped.json()["error"]
    other = client.post(URL, json={**QUESTION, "metric": "mae"})
    assert other.status_code == 422 and "cannot judge a classifier" in other.json()["error"]
    assert client.post(URL, json={**QUESTION, "bad": 99}).status_code == 404
    assert client.post(URL, json={**QUESTION, "good": 0}).status_code == 422
    assert client.post(URL, json={**QUESTION, "on": "x.csv"}).status_code == 422
    for on, status in (([], 422), (["x.csv"], 422), ([{"x0": [1]}], 422), ([{"x0": 1.0}], 422)):
        assert client.post(URL, json={**QUESTION, "on": on}).status_code == status, on
    assert client.get(f"{URL}/99").status_code == 404


def test_a_bisection_ends_with_the_server_and_is_taken_up_again(workspace: el.Workspace) -> None:
    question = {**QUESTION, "metric": "brier"}
    with LocalClient(workspace.app(["m"], learn=False)) as client:
        number = client.post(URL, json=question).json()["number"]
    with LocalClient(workspace.app(["m"], learn=False)) as client:
        left = client.get(f"{URL}/{number}").json()
        assert (left["state"], left["active"]) == ("running", False)
        assert client.post(URL, json=question).json()["active"]
        assert ended(client, number)["report"]["version"] == POISONED


def test_versions_cut_online_are_traced_to_their_labels(tmp_path: Path) -> None:
    learner = el.learners.LogisticRegression(learning_rate=0.05, horizon=1)
    loop = Loop(tmp_path, learner, rows=40, margin=5.0)
    with loop.workspace, LocalClient(loop.workspace.app(["m"])) as client:
        for number in range(2, 7):
            loop.teach(client, 50, turned=number == 5)
            assert until(lambda wanted=number: loop.handle.champion() == wanted)
        x = np.random.default_rng(3).normal(size=500)
        on = {"x": x, "y": (x > 0).astype(int)}
        found = loop.handle.repair.bisect(good=2, bad=6, metric="log_loss", on=on)
    assert (found["version"], found["blame"]["reproduced"]) == (5, True)
    assert found["blame"]["found"]["where"] == "position >= 151 and position <= 200"
    assert {one["source"] for one in found["blame"]["rows"]} == {"feedback"}
