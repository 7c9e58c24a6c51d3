"""Edits that come to their end: whoever answers then does not answer by them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import everlearn as el
from everlearn.base import ConflictError, IntegrityError
from everlearn.jobs.patch.patches import Patches
from everlearn.strategies.patch_weights import UnsolvableError
from everlearn.workspace import ModelHandle, Workspace
from tests.jobs.test_patch import SECOND, Clock, answers, as_rows, opposed, points, states, wrong
from tests.serving.local import LocalClient

MINUTE = "2023-11-14T22:14:00"
"""Less than a minute after the clock's beginning."""


def made(place: Path) -> tuple[Workspace, ModelHandle, Clock]:
    clock = Clock()
    workspace = el.open(place, clock=clock)
    learner = el.learners.LogisticRegression()
    schema = el.Schema(target="y")
    handle = workspace.model(el.Model("sides", learner=learner, schema=schema, holdout=0.3))
    handle.train(as_rows(*points(600, 0)))
    return workspace, handle, clock


def other(edit: dict[str, Any]) -> Any:
    return 1 - edit["output"]


@pytest.mark.parametrize("way", ["memory", "weights"])
def test_a_handle_does_not_answer_by_an_edit_that_has_ended(tmp_path: Path, way: Any) -> None:
    workspace, handle, clock = made(tmp_path)
    first, second = wrong(handle, 2)
    handle.repair.patch([{**first, "expires_at": MINUTE}], way=way)
    handle.repair.patch([second], way="memory")
    again = workspace.model("sides")
    assert answers(again, [first, second]) == [first["output"], second["output"]]
    clock.now += 60 * SECOND
    assert answers(handle, [first, second]) == [other(first), second["output"]]
    assert answers(again, [first, second]) == [other(first), second["output"]]
    assert handle.champion() == 4 and states(handle) == ["expired", "standing"]
    assert handle.predict(first["features"], version=3, log=False).value == first["output"]  # type: ignore[union-attr]
    assert handle.champion() == 4, "what a version that is named answers is what it answered"


def test_an_edit_that_a_rollback_brings_back_after_its_end_is_not_answered_by(
    tmp_path: Path,
) -> None:
    _, handle, clock = made(tmp_path)
    first, second = opposed(2)
    handle.repair.patch([{**first, "expires_at": MINUTE}, second], way="memory")
    clock.now += 60 * SECOND
    assert answers(handle, [first]) == [other(first)]
    handle.rollback(2)
    assert answers(handle, [first, second]) == [other(first), second["output"]]
    assert handle.champion() == 4 and states(handle) == ["expired", "standing"]


def test_an_edit_that_ended_while_a_job_learned_is_not_answered_by(tmp_path: Path) -> None:
    _, handle, clock = made(tmp_path)
    first, second = opposed(2)
    handle.repair.patch([{**first, "expires_at": MINUTE}, second], way="memory")
    clock.now += 60 * SECOND
    found = handle.train(as_rows(*points(20, 9)))
    assert found.metrics["patch"]["edits"] == [2]
    assert answers(handle, [second]) == [second["output"]]
    handle.repair.expire_edits()
    assert handle.champion() == 3 and states(handle) == ["expired", "standing"]


def test_two_who_end_an_edit_at_once_make_one_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, handle, clock = made(tmp_path)
    (edit,) = opposed(1)
    handle.repair.patch([{**edit, "expires_at": MINUTE}])
    clock.now += 60 * SECOND
    expire: Callable[[Patches, str], object] = Patches.expire
    beside = Patches(workspace.registry)

    def late(patches: Patches, model: str) -> object:
        if patches is not beside and handle.champion() == 2:
            expire(beside, model)
            raise ConflictError("moved meanwhile")
        return expire(patches, model)

    monkeypatch.setattr(Patches, "expire", late)
    assert answers(handle, [edit]) == [other(edit)]
    assert handle.champion() == 3


def test_an_edit_ends_later_where_a_job_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, handle, clock = made(tmp_path)
    (edit,) = opposed(1)
    handle.repair.patch([{**edit, "expires_at": MINUTE}])
    clock.now += 60 * SECOND

    def busy(patches: Patches, model: str) -> object:
        raise ConflictError("a job is at work")

    with monkeypatch.context() as at_work:
        at_work.setattr(Patches, "expire", busy)
        assert answers(handle, [edit]) == [edit["output"]]
    assert answers(handle, [edit]) == [other(edit)]


def test_a_server_that_does_not_learn_ends_them_too(tmp_path: Path) -> None:
    workspace, handle, clock = made(tmp_path)
    (edit,) = opposed(1)
    handle.repair.patch([{**edit, "expires_at": MINUTE}])
    app = workspace.app(["sides"], learn=False)
    with LocalClient(app) as client:

        def output() -> Any:
            body = {"instances": [edit["features"]]}
            told = client.post("/v1/models/sides/predict", json=body).json()
            return told["predictions"][0]["output"]

        assert output() == edit["output"]
        clock.now += 60 * SECOND
        for predictor in app.state.models.predictors.values():
            predictor.follow()
        assert output() == other(edit)
    assert states(handle) == ["expired"]


def test_edits_that_asked_for_weights_end_under_a_learner_that_has_none(tmp_path: Path) -> None:
    workspace, handle, clock = made(tmp_path)
    first, *others = wrong(handle, 3)
    handle.repair.patch([{**first, "expires_at": MINUTE}, *others], way="weights")
    learner = el.learners.GaussianNB()
    strategy = el.Strategy(start="scratch")
    model = el.Model("sides", learner=learner, schema=el.Schema(target="y"), strategy=strategy)
    handle = workspace.model(model.replace(holdout=0.3))
    handle.train(as_rows(*points(600, 1)))
    assert handle.champion() == 3 and states(handle) == ["standing", "learned", "standing"]
    clock.now += 60 * SECOND
    wanted = [edit["output"] for edit in others]
    assert answers(handle, [first, *others]) == [other(first), *wanted]
    assert states(handle) == ["expired", "learned", "standing"]
    more = opposed(2)
    assert handle.repair.patch([more[0]], way="memory").version == 5
    with pytest.raises(UnsolvableError, match="no linear layer"):
        handle.repair.patch([more[1]], way="weights")
    assert handle.repair.revoke_edit(4).version == 6


def test_a_server_follows_the_champion_though_an_edit_cannot_be_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, handle, clock = made(tmp_path)
    (edit,) = opposed(1)
    handle.repair.patch([{**edit, "expires_at": MINUTE}])

    def damaged(patches: Patches, model: str) -> object:
        raise IntegrityError("the patch is malformed")

    monkeypatch.setattr(Patches, "expire", damaged)
    app = workspace.app(["sides"], learn=False)
    with LocalClient(app):
        predictor = app.state.models.predictors["sides"]
        assert predictor.served.version == 2
        clock.now += 60 * SECOND
        handle.rollback(1)
        predictor.follow()
        assert predictor.served.version == 1
