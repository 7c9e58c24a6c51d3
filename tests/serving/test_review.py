"""People and machines that watch: review, triggers, quarantine and events over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI

import everlearn as el
from everlearn.base import Decision, InputError
from everlearn.data.feedback import id_text
from everlearn.serving.events import MOST, Cursor, Events
from tests.serving.local import LocalClient
from tests.serving.server import Server
from tests.serving.test_access import bearer
from tests.serving.test_rollouts import Loop

URL = "/v1/models/m"
SCHEMA = el.Schema(target="late", numeric=("x",))
EVERY = el.Review(share=1.0, random=1.0)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[el.Workspace]:
    with el.open(tmp_path / "workspace") as workspace:
        triggers = (el.Volume(4),)
        model = el.Model(
            "m", learner="logistic", schema=SCHEMA, review=EVERY, triggers=triggers, holdout=0.0
        )
        workspace.model(model)
        workspace.model(el.Model("quiet", learner="logistic", schema=SCHEMA))
        yield workspace


@pytest.fixture
def app(workspace: el.Workspace) -> FastAPI:
    made: FastAPI = workspace.app(["m", "quiet"], learn=False)
    return made


@pytest.fixture
def client(app: FastAPI) -> Iterator[LocalClient]:
    with LocalClient(app) as client:
        yield client


def predicted(client: LocalClient, count: int, url: str = URL) -> list[str]:
    rows = {"instances": [{"x": float(place)} for place in range(count)]}
    return [row["id"] for row in client.post(f"{url}/predict", json=rows).json()["predictions"]]


def test_an_item_from_the_prediction_to_the_label(
    client: LocalClient, workspace: el.Workspace
) -> None:
    ids = predicted(client, 3)
    queue = client.get(f"{URL}/review", params={"limit": 2}).json()
    assert queue["reviewer"] == "reviewer" and queue["counts"]["waiting"] == 3
    assert len(queue["items"]) == 2 and {item["prediction"] for item in queue["items"]} < set(ids)
    item = client.post(f"{URL}/review/claim", json={"reviewer": "bo"}).json()["item"]
    assert item == queue["items"][0] | {"state": "claimed", "claims": item["claims"]}
    at = f"{URL}/review/{item['id']}"
    assert client.post(f"{at}/claim", json={"reviewer": "al"}).status_code == 409
    assert client.post(f"{at}/answer", json={"reviewer": "al", "value": 1}).status_code == 409
    assert client.post(f"{at}/answer", json={"reviewer": "bo", "value": None}).status_code == 422
    said = client.post(f"{at}/answer", json={"reviewer": "bo", "value": 1})
    assert said.json() == {"label": 1, "state": "logged", "position": 1}
    other = client.post(f"{URL}/review/claim").json()["item"]
    assert other["id"] == queue["items"][1]["id"]
    skipped = client.post(f"{URL}/review/{other['id']}/skip").json()["item"]
    assert skipped["state"] == "skipped"
    assert client.post(f"{URL}/review/{other['id']}/skip").status_code == 409
    assert client.post(f"{URL}/review/999/skip").status_code == 404
    (row,) = workspace.model("m").log.read()
    assert (row.kind, row.reviewer, row.value, row.selection) == ("human", "bo", 1, 1.0)
    assert id_text(row.prediction.id) == item["prediction"]
    counts = client.get(f"{URL}/review").json()["counts"]
    assert counts == {"waiting": 1, "claimed": 0, "done": 1, "skipped": 1}


def test_a_model_without_review_has_an_empty_queue(client: LocalClient) -> None:
    predicted(client, 2, "/v1/models/quiet")
    found = client.get("/v1/models/quiet/review").json()
    assert found["items"] == [] and set(found["counts"].values()) == {0}
    assert client.post("/v1/models/quiet/review/claim").json() == {"item": None}


def test_a_key_stands_for_one_reviewer(client: LocalClient, workspace: el.Workspace) -> None:
    _, bo = workspace.keys.create("review", "m", "bo")
    key, nameless = workspace.keys.create("review", source="desk")
    _, admin = workspace.keys.create("admin")
    client.post(f"{URL}/predict", json={"instances": [{"x": 1.0}] * 3}, headers=bearer(admin))

    def claim(secret: str, body: Any = None) -> Any:
        return client.post(f"{URL}/review/claim", json=body, headers=bearer(secret))

    first = claim(bo).json()["item"]
    assert list(first["claims"]) == ["bo"]
    assert claim(bo, {"reviewer": "bo"}).json()["item"]["id"] == first["id"]
    assert claim(bo, {"reviewer": "al"}).status_code == 403
    second = claim(nameless).json()["item"]
    assert list(second["claims"]) == [f"key {key.id}"]
    assert list(claim(admin, {"reviewer": "al"}).json()["item"]["claims"]) == ["al"]
    for secret, item in ((bo, first), (nameless, second)):
        url = f"{URL}/review/{item['id']}/answer"
        assert client.post(url, json={"value": 1}, headers=bearer(secret)).status_code == 200
    said = [(row.reviewer, row.source) for row in workspace.model("m").log.read()]
    assert said == [("bo", "review"), (f"key {key.id}", "desk")]


def test_predictions_are_answered_though_the_queue_cannot_be_written(
    app: FastAPI, client: LocalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(rows: Any) -> int:
        raise el.StorageError("full")

    monkeypatch.setattr(app.state.models.predictors["m"].queue, "offer", fail)
    assert len(predicted(client, 2)) == 2


def test_where_a_shadow_disagrees(tmp_path: Path) -> None:
    loop = Loop(tmp_path, el.Shadow())
    review = el.Review(share=1.0, uncertain=0.0, random=0.0)
    loop.workspace.model(loop.workspace.registry.definition("m").model().replace(review=review))
    loop.candidate(right=0.0)  # it learned the opposite
    app = loop.workspace.app(["m"], learn=False)
    predictor = app.state.models.predictors["m"]
    with LocalClient(app) as client:
        given = loop.traffic(client, 100)
        trial = predictor.served.trial
        while not trial.idle:
            pass
        shadows = dict(trial._shadows)
        predictor.store_counts()
        items = client.get(f"{URL}/review", params={"limit": 1000}).json()["items"]
    outputs = {item["id"]: item["output"] for item in given}
    differ = {id_text(n) for n, out in shadows.items() if out["value"] != outputs[id_text(n)]}
    assert {item["prediction"] for item in items} == differ and differ
    assert {item["why"] for item in items} == {"disagreement"}
    loop.workspace.close()


def test_what_triggers_decided(client: LocalClient, workspace: el.Workspace) -> None:
    ids = predicted(client, 8)
    workspace.model("m").trigger()
    labels = [{"prediction_id": name, "value": place % 2} for place, name in enumerate(ids)]
    client.post(f"{URL}/feedback", json={"labels": labels})
    workspace.model("m").trigger()
    found = client.get(f"{URL}/triggers").json()["triggers"]
    assert [one["action"] for one in found] == ["learn", "wait"]
    assert found[0]["job_id"] == workspace.jobs("m")[0].id and "8" in found[0]["reason"]
    one = client.get(f"{URL}/triggers", params={"limit": 1}).json()["triggers"]
    assert one == found[:1]
    assert client.get(f"{URL}/triggers", params={"limit": 0}).status_code == 422


def test_a_source_in_quarantine_is_shown_and_released(
    client: LocalClient, workspace: el.Workspace
) -> None:
    decision = Decision("quarantine", "it lies", {"share": 0.5})
    workspace.updates.quarantine("m").put("shop/a", decision, after=0)
    (one,) = client.get(f"{URL}/quarantine").json()["quarantine"]
    assert (one["source"], one["reason"], one["released_at"]) == ("shop/a", "it lies", None)
    url = f"{URL}/quarantine/release"
    done = client.post(url, json={"source": "shop/a"}).json()
    assert done["job"] is None and done["decision"]["action"] == "nothing"
    assert client.get(f"{URL}/quarantine").json()["quarantine"][0]["released_at"] is not None
    assert client.post(url, json={"source": "shop/a"}).status_code == 409
    assert client.post(url, json={"source": "b"}).status_code == 404


def told(client: LocalClient, since: str | None, **headers: str) -> list[dict[str, Any]]:
    """The events of a stream that ends at once."""
    params = {"seconds": "0"} | ({} if since is None else {"since": since})
    answer = client.get(f"{URL}/events", params=params, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            found.append({**fields, "data": json.loads(fields["data"])})
    return found


def test_events_are_told_once_behind_an_id(client: LocalClient, workspace: el.Workspace) -> None:
    assert told(client, None) == [] and told(client, "0") == []
    rows = [{"x": float(x), "late": int(x > 5)} for x in range(10)]
    handle = workspace.model("m")
    handle.train(rows)
    handle.trigger()
    events = told(client, "0")
    assert [event["event"] for event in events] == ["alias", "job", "trigger"]
    assert events[0]["data"]["version_to"] == 1 and events[1]["data"]["state"] == "done"
    assert [event["event"] for event in told(client, events[0]["id"])] == ["job", "trigger"]
    last = events[-1]["id"]
    assert {event["event"] for event in told(client, last)} <= {"job"}
    handle.train([row | {"x": row["x"] + 0.5} for row in rows])
    new = told(client, None, **{"Last-Event-ID": last})
    assert [event["data"]["version_to"] for event in new if event["event"] == "alias"] == [2]
    assert told(client, new[-1]["id"], **{"Last-Event-ID": "0"})[0]["event"] == "job"
    for wrong in ("1.2", "a.b.c.d", "-1.0.0.0", f"0.0.0.{2**63}", "²"):
        assert client.get(f"{URL}/events", params={"since": wrong}).status_code == 422


class Gone:
    """A request whose client goes away after some looks."""

    def __init__(self, looks: int) -> None:
        self.looks, self.app = looks, SimpleNamespace(state=SimpleNamespace())

    async def is_disconnected(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def test_a_stream_follows_until_the_client_or_the_server_ends(workspace: el.Workspace) -> None:
    events, handle = Events(workspace.database, pause=0.0), workspace.model("m")
    key = handle.log.model
    start = events.begin(key, None)

    async def follow(request: Any) -> list[str]:
        sent = []
        async for text in events.follow(key, start, request, 3600.0):
            sent.append(text)
            if len(sent) == 3:
                await asyncio.to_thread(
                    handle.train, [{"x": float(x), "late": x % 2} for x in range(9)]
                )
            assert events.streams == 1
        return sent

    sent = asyncio.run(follow(Gone(20)))
    assert sent[1] == ":\n\n" and len([text for text in sent if "event: alias" in text]) == 1
    assert "event: job" in "".join(sent) and events.streams == 0
    ending: Any = Gone(10**9)
    ending.app.state.ending = lambda: True
    assert len(asyncio.run(follow(ending))) == 1
    events.streams = MOST
    with pytest.raises(OverflowError):
        events.begin(key, None)


def test_a_server_ends_though_somebody_listens(tmp_path: Path) -> None:
    spec = tmp_path / "m.py"
    spec.write_text(
        "import everlearn as el\n"
        "model = el.Model('m', learner='logistic', schema=el.Schema(target='late'))\n"
    )
    with Server(tmp_path / "workspace", spec) as server:
        with server.client.stream("GET", f"{URL}/events") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "retry: 1000"
            server.process.terminate()
            rest = list(lines)  # to its regular end, or this raises
        assert not any("event" in line for line in rest)
        assert server.process.wait(timeout=30) in (0, -15)


def test_cursors_are_text_and_back() -> None:
    cursor = Cursor(1, 2, 3, 2**62)
    assert Cursor.parse(str(cursor)) == cursor and Cursor.parse("0") == Cursor()
    with pytest.raises(InputError):
        Cursor.parse("1.2.3")
