"""Columns that come later, and columns that change their kind, while a model serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everlearn as el
from everlearn.data.feedback import Label, LoggedPrediction, id_text
from tests.serving.local import LocalClient

URL = "/v1/models/m"


def until(what: Callable[[], Any]) -> Any:
    end = time.monotonic() + 30
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def made(workspace: el.Workspace, folder: Path, **more: Any) -> Any:
    """A model that has learned that y is x > 0."""
    x = np.random.default_rng(0).normal(size=300)
    lines = ["x,c,y", *(f"{value:.4f},a,{int(value > 0)}" for value in x)]
    (folder / "first.csv").write_text("\n".join(lines) + "\n")
    learner = el.learners.LogisticRegression(learning_rate=0.3)
    model = el.Model("m", learner=learner, schema=el.Schema(target="y"), **more)
    handle = workspace.model(model)
    handle.train(str(folder / "first.csv"))
    return handle


def ask(client: Any, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.post(f"{URL}/predict", json={"instances": rows})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


def say(client: Any, rows: list[dict[str, Any]], value: Any = 1) -> None:
    labels = [{"prediction_id": row["id"], "value": value} for row in rows]
    assert client.post(f"{URL}/feedback", json={"labels": labels}).status_code == 200


def test_a_new_column_is_served_and_logged_at_once(tmp_path: Path) -> None:
    with el.open(tmp_path / "w") as workspace:
        handle = made(workspace, tmp_path)
        apps = [LocalClient(workspace.app(["m"], learn=False)) for _ in range(2)]
        with apps[0] as client, apps[1] as replica:
            plain = ask(client, {"x": 2.0, "c": "a"}, {"x": -2.0, "c": "a"})
            rows = [{"x": 2.0, "c": "a", "device": "phone"}, {"x": -2.0, "c": "a"}]
            for one in (client, replica):
                found = ask(one, *rows)
                assert [row["probabilities"] for row in found] == [
                    row["probabilities"] for row in plain
                ]
            assert client.get(URL).json()["ignored_columns"] == {"device": 1}
            say(client, found)
            wrong = client.post(f"{URL}/predict", json={"instances": [{"device": "phone"}]})
            assert wrong.status_code == 422 and "device" in wrong.text, "a row without any column"
        logged = [row.prediction.features for row in handle.log.read()]
        assert logged == rows
        assert handle.update().version == 2
        (part,) = workspace.registry.version("m", 2).increments
        assert (part.rows, part.set_aside) == (2, 0), "the increment goes on with what it knows"
        assert "device" in part.slice["names"], "and keeps the column for those that come later"


def test_online_learning_goes_on_with_a_new_column(tmp_path: Path) -> None:
    with el.open(tmp_path / "w") as workspace:
        made(workspace, tmp_path, triggers=(el.Online(rows=20),))
        with LocalClient(workspace.app(["m"])) as client:
            until(lambda: ask(client, {"x": 1.0})[0].get("position") == 0)
            say(
                client, ask(client, *({"x": float(i), "c": "a", "device": "tv"} for i in range(30)))
            )
            until(lambda: ask(client, {"x": 1.0, "device": "tv"})[0].get("position") == 30)
            until(lambda: client.get(URL).json()["champion"] > 1)
            assert client.get(URL).json()["ignored_columns"]["device"] >= 30


@pytest.mark.parametrize("first", [True, False])
def test_a_column_that_changes_its_kind_is_set_aside_with_a_reason(
    tmp_path: Path, first: bool
) -> None:
    with el.open(tmp_path / "w") as workspace:
        handle = made(workspace, tmp_path)
        with LocalClient(workspace.app(["m"], learn=False)) as client:
            refused = client.post(f"{URL}/predict", json={"instances": [{"x": "much"}]})
            assert refused.status_code == 422 and "x" in refused.text
            texts: list[dict[str, Any]] = [{"x": "1.5", "c": "a"}, {"x": 1.0, "c": 7}]
            say(client, ask(client, *(texts if first else texts[::-1])))
        # what was logged by a stream, or before the version knew its kinds
        numbers = workspace.ids.take(3)
        rows: list[Any] = [{"x": 2.0, "c": "a"}, {"x": "much", "c": "a"}, {"x": True, "c": [1]}]
        handle.log.append_predictions(
            [
                LoggedPrediction(number, row, {"value": 0})
                for number, row in zip(numbers, rows, strict=True)
            ]
        )
        handle.log.append_labels([Label(1, id_text(number)) for number in numbers])
        assert handle.update().version == 2
        (part,) = workspace.registry.version("m", 2).increments
        assert (part.rows, part.set_aside) == (4, 1)
        assert part.reasons["set_aside"] == {"column 'x': not a number": 1}


def test_before_a_first_version_all_columns_are_logged_and_taken(tmp_path: Path) -> None:
    with el.open(tmp_path / "w") as workspace:
        learner = el.learners.LogisticRegression()
        model = el.Model("m", learner=learner, schema=el.Schema(target="y"))
        handle = workspace.model(model)
        with LocalClient(workspace.app(["m"], learn=False)) as client:
            say(client, ask(client, *({"x": float(i)} for i in range(20))), 0)
            say(client, ask(client, *({"x": float(i), "device": "tv"} for i in range(20))), 1)
        assert handle.update().version == 1
        columns = handle.load().columns
        assert (columns.numbers, columns.categories) == (("x",), ("device",))


def test_a_version_from_scratch_takes_a_new_column_up(tmp_path: Path) -> None:
    with el.open(tmp_path / "w") as workspace:
        strategy = el.Strategy(start="scratch", memory=el.Reservoir(1000))
        handle = made(workspace, tmp_path, strategy=strategy, holdout=0.2)
        with LocalClient(workspace.app(["m"], learn=False)) as client:
            for value, device in ((0, "tv"), (1, "phone")):
                new = {"c": "a", "device": device, "age": float(value)}
                say(client, ask(client, *({"x": i / 1000, **new} for i in range(-30, 30))), value)
        assert handle.update().version == 2
        version = workspace.registry.version("m", 2)
        assert version.parent == 1, "what is remembered was taken over"
        assert version.increments[0].rows + version.increments[0].held_out == 120
        columns = [handle.load(number).columns for number in (1, 2)]
        assert [one.numbers for one in columns] == [("x",), ("x", "age")]
        assert [one.categories for one in columns] == [("c",), ("c", "device")]
        if handle.champion() == 1:
            handle.promote(2)
        with LocalClient(workspace.app(["m"], learn=False)) as client:
            found = ask(
                client,
                {"x": 0.0, "c": "a", "device": "tv", "age": 0.0},
                {"x": 0.0, "c": "a", "device": "phone", "age": 1.0},
                {"x": 3.0, "c": "a"},
                {"x": -3.0, "c": "a"},
            )
            assert {row["version"] for row in found} == {2}
            assert [row["output"] for row in found] == [0, 1, 1, 0]
            assert client.get(URL).json()["ignored_columns"] == {}
