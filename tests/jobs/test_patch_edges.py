"""Patches at their edges: what was right stays so, and edits move with an exported version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everlearn as el
from everlearn.base import InputError
from everlearn.workspace import ModelHandle, Workspace


def rows(n: int, seed: int) -> list[dict[str, Any]]:
    """Rows of numbers, and the class that they say: which side of a plane they are on."""
    x = np.random.default_rng(seed).normal(size=(n, 4)).round(3)
    return [
        {**dict(zip("abcd", row, strict=True)), "y": int(row[0] + row[1] > 0)} for row in x.tolist()
    ]


def made(place: Path, *, jobs: int = 1) -> tuple[Workspace, ModelHandle]:
    """A workspace with a model that was trained."""
    workspace = el.open(place)
    learner = el.learners.LogisticRegression()
    model = el.Model("sides", learner=learner, schema=el.Schema(target="y"), holdout=0.3)
    handle = workspace.model(model)
    for job in range(jobs):
        handle.train(rows(400, job))
    return workspace, handle


def edit(output: int, **features: float) -> dict[str, Any]:
    """An edit of a row that is far on the side of class 1."""
    far = {"a": 2.0, "b": 2.0, "c": 3.0, "d": 3.0}
    return {"features": far | features, "output": output, "reason": "seen by a clerk"}


def answers(handle: ModelHandle, *edits: dict[str, Any]) -> list[Any]:
    said = handle.predict([one["features"] for one in edits], log=False)
    assert isinstance(said, list)
    return [one.value for one in said]


def test_what_was_right_and_another_edit_would_undo_is_an_edit_too(tmp_path: Path) -> None:
    _, handle = made(tmp_path)
    wrong, right, apart = edit(0), edit(1, a=2.001), edit(1, d=-3.0)
    found = handle.repair.patch([wrong, right, apart])
    assert (found.edits, found.already) == ([1, 2], [2])
    assert answers(handle, wrong, right, apart) == [0, 1, 1]


def test_an_extreme_value_does_not_undo_other_edits(tmp_path: Path) -> None:
    _, handle = made(tmp_path)
    edits = [edit(0), edit(0, a=1e25)]
    for one in edits:
        assert handle.repair.patch([one]).report["success"] == 1.0
    assert answers(handle, *edits) == [0, 0]


def test_an_imported_version_can_be_patched(tmp_path: Path) -> None:
    _, handle = made(tmp_path / "one", jobs=2)
    first, second = edit(0), edit(0, c=-3.0)
    handle.repair.patch([first])
    other = el.open(tmp_path / "two")
    other.import_version(handle.export(3, tmp_path / "version"))
    copy = other.model("sides")
    copy.promote(1)
    assert copy.repair.patch([second]).edits == [2]
    assert [one["state"] for one in copy.repair.edits()] == ["standing", "standing"]
    assert answers(copy, first, second) == [0, 0]
    copy.repair.revoke_edit(1)
    assert answers(copy, first, second) == [1, 0]


def test_an_edit_that_was_learned_can_be_taken_back_for_the_versions_before(tmp_path: Path) -> None:
    _, handle = made(tmp_path)
    first, second = edit(0), edit(0, c=-3.0)
    patched = handle.repair.patch([first]).version
    near = [edit(0, a=2.0 + place / 1000)["features"] | {"y": 0} for place in range(300)]
    assert handle.train(near).decision.action == "promote"
    assert handle.repair.edits()[0]["state"] == "learned"
    handle.repair.revoke_edit(1)
    assert handle.repair.edits()[0]["state"] == "revoked"
    handle.rollback(patched)
    handle.repair.patch([second])
    assert answers(handle, first, second) == [1, 0]


def test_an_edit_whose_time_has_passed_is_refused(tmp_path: Path) -> None:
    _, handle = made(tmp_path)
    with pytest.raises(InputError, match="has passed"):
        handle.repair.patch([edit(0) | {"expires_at": "2020-01-01"}])
    assert handle.repair.edits() == []


def test_an_exception_stays_off_edits_that_are_held_by_weights(tmp_path: Path) -> None:
    workspace = el.open(tmp_path)
    learner = el.learners.HoeffdingTreeClassifier()
    model = el.Model("sides", learner=learner, schema=el.Schema(target="y"), holdout=0.3)
    handle = workspace.model(model)
    handle.train(rows(400, 0))
    edits = [edit(0), edit(0, c=3.01), edit(1, c=3.005)]  # one leaf for all of them
    found = handle.repair.patch(edits, way="weights", dry_run=True)
    assert found.report["success"] == 1.0
