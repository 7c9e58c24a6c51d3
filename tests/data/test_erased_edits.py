"""Erasure of one key's data from edits of answers: in their table, and in versions' patches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everlearn as el
from everlearn.base import NotFoundError
from everlearn.workspace import ModelHandle, Workspace
from tests.data.test_erasure import NUMBER, SECRET, TOLD, leftovers


def row(x: float, c: str = "a", **more: Any) -> dict[str, Any]:
    return {"x": x, "c": c, **more}


def edit(features: dict[str, Any], output: Any, **more: Any) -> dict[str, Any]:
    return {"features": features, "output": output, "reason": "seen by a clerk", **more}


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[ModelHandle]:
    """A model that was trained on rows of others, and that nobody predicted for yet."""
    with el.open(tmp_path / "workspace") as workspace:
        model = el.Model(
            "m",
            learner=el.learners.LogisticRegression(),
            schema=el.Schema(target="y", id="id", key="person"),
            strategy=el.Strategy(memory=el.Reservoir(100)),
            holdout=0.3,
        )
        made = workspace.model(model)
        x = np.random.default_rng(0).normal(size=300).round(3).tolist()
        made.train(
            [
                row(one, "ab"[at % 2], id=f"r{at}", person=f"p{at}", y=int(one > 0))
                for at, one in enumerate(x)
            ]
        )
        yield made


def erased(handle: ModelHandle) -> Any:
    workspace: Workspace = handle.workspace
    return workspace.erase("m", SECRET, refold=False)


def value(handle: ModelHandle, features: dict[str, Any]) -> Any:
    (answer,) = handle.predict([features], log=False)  # type: ignore[misc]
    return answer.value


def test_edits_of_the_key_go_from_their_table_and_from_all_versions(handle: ModelHandle) -> None:
    other = edit(row(-2.5), 1)
    asked = handle.predict([row(NUMBER, TOLD)], keys=[SECRET])
    (told,) = asked  # type: ignore[misc]
    handle.repair.patch([other])
    corrected = edit(row(NUMBER, TOLD), 0, prediction_id=told.id, author="clerk")
    handle.repair.patch([corrected])
    handle.repair.patch([edit(row(2.25, person=SECRET), 0)])
    assert leftovers(handle.workspace)
    report = erased(handle)
    assert leftovers(handle.workspace) == []
    assert (report["edits"], report["no_longer_loadable"]) == ([2, 3], [3, 4])
    assert (report["version"], handle.champion()) == (5, 5)
    for number in (3, 4):
        with pytest.raises(NotFoundError):
            handle.load(number)
    shown = handle.repair.edits()
    assert [one["state"] for one in shown] == ["standing", "erased", "erased"]
    assert [one["features"] for one in shown[1:]] == [{}, {}]
    assert value(handle, other["features"]) == 1
    assert value(handle, row(2.25)) == 1, "as the model answers by itself"
    patch = handle.workspace.registry.version("m", 5).metrics["patch"]
    assert (patch["edits"], patch["success"]) == ([1], 1.0)
    assert erased(handle)["edits"] == []


@pytest.mark.parametrize(
    "named",
    [
        edit(row(2.0), 0, author=SECRET),
        edit(row(2.0), 0) | {"reason": f"asked for by {SECRET}."},
    ],
)
def test_an_edit_that_names_the_key_is_of_it(handle: ModelHandle, named: Any) -> None:
    handle.repair.patch([named])
    assert erased(handle)["edits"] == [1]
    assert leftovers(handle.workspace) == []
    assert handle.load().patch is None


def test_an_edit_that_asks_what_the_key_asked_is_of_it_unless_another_one_did(
    handle: ModelHandle,
) -> None:
    handle.predict([row(NUMBER, TOLD)], keys=[SECRET])
    handle.predict([row(-2.5)], keys=[SECRET])
    (another,) = handle.predict([row(-2.5)], keys=["bo"])  # type: ignore[misc]
    handle.repair.patch([edit(row(NUMBER, TOLD), 0), edit(row(-2.5), 1, prediction_id=another.id)])
    assert erased(handle)["edits"] == [1]
    assert leftovers(handle.workspace) == []
    assert value(handle, row(-2.5)) == 1


def test_an_edit_that_was_taken_back_is_erased_too(handle: ModelHandle) -> None:
    handle.repair.patch([edit(row(NUMBER, TOLD, person=SECRET), 0)])
    handle.repair.revoke_edit(1)
    report = erased(handle)
    assert (report["edits"], report["no_longer_loadable"], report["version"]) == ([1], [2], None)
    assert leftovers(handle.workspace) == []
    assert handle.champion() == 3, "it never had the edit"


def test_what_a_version_told_of_an_edit_that_it_lost_is_erased(handle: ModelHandle) -> None:
    mine, other = edit(row(NUMBER, TOLD, person=SECRET), 0), edit(row(2.5), 0)
    handle.repair.patch([mine, other])
    workspace = handle.workspace
    model = workspace.registry.definition("m").model()
    again = workspace.model(replace(model, strategy=el.Strategy(start="scratch")))
    rows = [row(at / 10, id=f"s{at}", person="bo", y=1 + int(at > 0)) for at in range(-50, 50)]
    made = again.train(rows).version
    assert made is not None
    lost = workspace.registry.version("m", made).metrics["patch"]["lost"]
    assert [one["edit"] for one in lost] == [1, 2]
    erased(handle)
    told = workspace.registry.version("m", made).metrics["patch"]["lost"]
    assert told == [{"edit": 1, "reason": "erased"}, lost[1]]


def test_an_edit_whose_texts_name_the_key_goes(handle: ModelHandle) -> None:
    handle.repair.patch(
        [edit(row(2.25, f"of {SECRET}'s"), 0), edit(row(2.5, "b"), 0)], way="memory"
    )
    assert leftovers(handle.workspace)
    assert erased(handle)["edits"] == [1]
    assert leftovers(handle.workspace) == []
    assert value(handle, row(2.5, "b")) == 0
    handle.workspace.erase("m", "b", refold=False)
    assert value(handle, row(2.5, "b")) == 0, "a category that is called so is not the key"
