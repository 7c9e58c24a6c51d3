"""The live loop over HTTP: answers, labels, a trigger, a job, and the better version serves."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

import everlearn as el
from everlearn.serving.turns import Turns
from everlearn.storage.schema import predictions
from tests.serving.local import LocalClient as TestClient

URL = "/v1/models/m"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[el.Workspace]:
    x = np.random.default_rng(0).normal(size=500)
    lines = ["x,c,late", *(f"{value:.4f},a,{int(value > 0)}" for value in x)]
    (tmp_path / "first.csv").write_text("\n".join(lines) + "\n")
    schema = el.Schema(target="late")
    with el.open(tmp_path / "workspace") as workspace:
        model = el.Model("m", learner="logistic", schema=schema, triggers=[el.Volume(20)])
        workspace.model(model).train(str(tmp_path / "first.csv"))
        yield workspace


@pytest.fixture
def client(workspace: el.Workspace) -> Iterator[TestClient]:
    with TestClient(workspace.app(["m"])) as client:
        yield client


def predicted(
    client: TestClient, *rows: dict[str, object], **more: object
) -> list[dict[str, object]]:
    answer = client.post(f"{URL}/predict", json={"instances": rows, **more})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, object]] = answer.json()["predictions"]
    return found


def test_labels_that_fire_a_trigger_become_the_version_that_serves(client: TestClient) -> None:
    first = predicted(client, {"x": 2.0, "c": "a"}, {"x": -2.0})
    assert [item["output"] for item in first] == [1, 0]
    assert {item["version"] for item in first} == {1}
    rows = predicted(client, *({"x": i / 10} for i in range(20)))
    said = [{"prediction_id": row["id"], "value": 0} for row in rows]
    receipts = client.post(f"{URL}/feedback", json={"labels": said}).json()["labels"]
    assert [item["position"] for item in receipts] == list(range(1, 21))
    again = client.post(f"{URL}/feedback", json={"labels": said}).json()["labels"]
    assert {item["state"] for item in again} == {"known"}
    deadline = time.monotonic() + 30
    while client.get(URL).json()["serving"]["version"] != 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    about = client.get(URL).json()
    assert about["serving"]["version"] == about["champion"] == 2
    assert (about["labels"], about["unlearned"]) == (20, 0)
    assert predicted(client, {"x": 1.0})[0]["version"] == 2
    assert client.post(f"{URL}/rollback").status_code == 200
    assert predicted(client, {"x": 1.0})[0]["version"] == 1
    moved = client.post(f"{URL}/promote", json={"version": 2, "expected": 2})
    assert moved.status_code == 409
    assert client.post(f"{URL}/promote", json={"version": 2, "expected": 1}).status_code == 200


def test_answers_are_logged_before_they_are_given(
    client: TestClient, workspace: el.Workspace
) -> None:
    (one,) = predicted(client, {"x": 1.0}, keys=["ann"], ids=["order-1"])
    client.post(f"{URL}/feedback", json={"labels": [{"external_id": "order-1", "value": 1}]})
    (judged,) = workspace.updates.log("m").read()
    assert (judged.prediction.key, judged.prediction.external_id) == ("ann", "order-1")
    assert f"{judged.prediction.id:016x}" == one["id"]
    assert judged.prediction.output["value"] == one["output"]


def test_chances_are_logged_and_an_answer_that_is_not_logged_has_no_id(
    client: TestClient, workspace: el.Workspace
) -> None:
    asked = [{"x": 1.0}, {"x": 2.0}]
    answers = predicted(client, *asked, propensities=[0.25, None])
    said = [
        {"prediction_id": answers[0]["id"], "value": 1, "selection": 0.1, "kind": "human"},
        {"prediction_id": answers[1]["id"], "value": 1},
    ]
    client.post(f"{URL}/feedback", json={"labels": said})
    judged = list(workspace.updates.log("m").read())
    assert [one.prediction.propensity for one in judged] == [0.25, None]
    assert [one.selection for one in judged] == [0.1, None]
    unlogged = predicted(client, *asked, log=False, keys=["ann", "bo"])
    assert [one["id"] for one in unlogged] == [None, None]
    assert [one["output"] for one in unlogged] == [one["output"] for one in answers]
    with workspace.database.read() as connection:
        rows = connection.execute(sa.select(sa.func.count()).select_from(predictions)).scalar()
    assert rows == 2
    refused = [
        {"propensities": [0.5]},
        {"propensities": [0.5, 0.0]},
        {"propensities": [0.5, 1.5]},
        {"log": False, "ids": ["a", "b"]},
        {"log": False, "propensities": [0.5, 0.5]},
    ]
    for body in refused:
        answer = client.post(f"{URL}/predict", json={"instances": asked, **body})
        assert answer.status_code == 422, body
    for chance in (0.0, 1.1, "often"):
        wrong = {"labels": [said[0] | {"selection": chance}]}
        assert client.post(f"{URL}/feedback", json=wrong).status_code == 422
    bodies = client.get("/openapi.json").json()["components"]["schemas"]
    for body, name in (("PredictBody", "propensities"), ("PredictBody", "log")):
        assert bodies[body]["properties"][name]["description"]
    assert "audit" in bodies["LabelBody"]["properties"]["selection"]["description"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("predict", {"instances": [{"x": "much"}]}, 422),
        ("predict", {"instances": [{"y": 1.0}]}, 422),
        ("predict", {"instances": [{"x": 1.0}], "keys": []}, 422),
        ("predict", {"instances": [{"x": 1.0}], "more": 1}, 422),
        ("predict", {}, 422),
        ("feedback", {"labels": [{"prediction_id": "0" * 16, "value": 1}]}, 422),
        ("feedback", {"labels": [{"value": 1}]}, 422),
        ("feedback", {"labels": [{"external_id": "a", "value": 1, "at": "yesterday"}]}, 422),
        ("promote", {"version": 9, "expected": 1}, 404),
    ],
)
def test_what_is_wrong_is_named(
    client: TestClient, path: str, body: dict[str, object], status: int
) -> None:
    answer = client.post(f"{URL}/{path}", json=body)
    assert answer.status_code == status, answer.text
    assert client.get("/v1/models/other").status_code == 404
    assert client.get("/healthz").json() == {"status": "ok"}
    assert "everlearn_predictions_total" in client.get("/metrics").text


def test_a_model_without_a_version_answers_nothing_and_logs(tmp_path: Path) -> None:
    with el.open(tmp_path / "workspace") as workspace:
        workspace.model(el.Model("m", learner="logistic", schema=el.Schema(target="late")))
        with TestClient(workspace.app(["m"])) as client:
            (answer,) = predicted(client, {"x": 1.0})
            assert (answer["output"], answer["version"]) == (None, 0)
            said = [{"prediction_id": answer["id"], "value": 1}]
            assert client.post(f"{URL}/feedback", json={"labels": said}).status_code == 200


def test_what_waits_together_is_served_together_and_a_wrong_one_fails_alone() -> None:
    taken: list[list[int]] = []

    def work(asked: list[int]) -> list[int | Exception]:
        taken.append(list(asked))
        time.sleep(0.02)
        return [ValueError(str(one)) if one == 7 else one * 2 for one in asked]

    async def many() -> list[int | BaseException]:
        turns: Turns[int, int] = Turns(work)  # type: ignore[arg-type]
        found = await asyncio.gather(*(turns.ask(i) for i in range(50)), return_exceptions=True)
        await turns.close()
        return list(found)

    found = asyncio.run(many())
    assert isinstance(found[7], ValueError)
    assert [one for i, one in enumerate(found) if i != 7] == [2 * i for i in range(50) if i != 7]
    assert sum(map(len, taken)) == 50 and len(taken) <= 3


def test_more_than_may_wait_are_refused() -> None:
    async def many() -> list[object]:
        turns: Turns[int, int] = Turns(lambda asked: list(asked), waiting=5)
        return list(await asyncio.gather(*(turns.ask(i) for i in range(9)), return_exceptions=True))

    found = asyncio.run(many())
    assert [isinstance(one, OverflowError) for one in found] == [False] * 5 + [True] * 4


def test_a_version_that_cannot_be_loaded_keeps_no_other_model_from_its_own(
    workspace: el.Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, schema = str(tmp_path / "first.csv"), el.Schema(target="late")
    other = workspace.model(el.Model("n", learner="logistic", schema=schema))
    models = workspace.app(["m", "n"], learn=False).state.models

    def fails() -> None:
        raise TypeError("another release of its library")

    monkeypatch.setattr(models.predictor("m"), "refresh", fails)
    other.train(data)
    models.refresh()
    assert [models.predictor(name).served.version for name in "mn"] == [1, 1]
