"""Each edit keeps the way in which it was asked for, and no change of weights goes too far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everlearn as el
from everlearn.base import Array, Json, Part
from everlearn.jobs.patch import report
from everlearn.strategies.patch import edits_in
from everlearn.workspace import ModelHandle
from tests.jobs.test_patch import answers, as_rows, asked, opposed, points, wrong


def made(place: Path) -> ModelHandle:
    """A classifier that was trained once."""
    learner = el.learners.LogisticRegression()
    model = el.Model("sides", learner=learner, schema=el.Schema(target="y"), holdout=0.3)
    handle = el.open(place).model(model)
    handle.train(as_rows(*points(600, 0)))
    return handle


def values(x: Array) -> Array:
    """Of rows, what a regressor learns."""
    return np.asarray((x[:, 0] * 3.0 + x[:, 1]).round(3))


def linear(place: Path, **more: Any) -> ModelHandle:
    """A regressor that was trained once."""
    handle = el.open(place).model(
        el.Model(
            "sides",
            learner=el.learners.LinearRegression(),
            schema=el.Schema(target="y"),
            strategy=el.Strategy(memory=el.Reservoir(100)),
            **more,
        )
    )
    x, _ = points(600, 0)
    handle.train(as_rows(x, values(x)))
    return handle


def moved(handle: ModelHandle, row: Array, by: float) -> dict[str, Any]:
    """An edit of a row to a value that is so far from what is answered."""
    (said,) = answers(handle, [asked(row, 0)])
    return asked(row, said + by)


def ways(told: Json) -> list[tuple[int, str, str]]:
    return [(one["edit"], one["asked"], one["way"]) for one in told["ways"]]


def test_edits_that_stand_keep_their_way_whatever_others_ask_for(tmp_path: Path) -> None:
    handle = made(tmp_path)
    first, second, third = wrong(handle, 3)
    handle.repair.patch([first], way="memory")
    found = handle.repair.patch([second], way="weights")
    assert ways(found.report) == [(1, "memory", "memory"), (2, "weights", "weights")]
    found = handle.repair.patch([third])
    expected = [(1, "memory", "memory"), (2, "weights", "weights"), (3, "auto", "memory")]
    assert ways(found.report) == expected
    assert [one["way"] for one in handle.repair.edits()] == ["memory", "weights", "auto"]
    assert ways(handle.repair.revoke_edit(3).report) == expected[:2]
    assert [one["way"] for one in handle.repair.edits()] == ["memory", "weights", None]
    assert answers(handle, [first, second]) == [first["output"], second["output"]]


def test_what_a_job_makes_has_each_edit_in_its_own_way(tmp_path: Path) -> None:
    handle = made(tmp_path)
    first, second = wrong(handle, 2)
    handle.repair.patch([first], way="memory")
    handle.repair.patch([second], way="weights")
    x, y = points(20, 9)
    job = handle.train(as_rows(x, y))
    told = job.metrics["patch"]
    kept = [(one["edit"], one["asked"]) for one in told["ways"]]
    asked_for = {1: "memory", 2: "weights"}
    assert kept == [(number, asked_for[number]) for number in told["edits"]]
    assert all(one["asked"] == one["way"] for one in told["ways"])
    assert len(told["edits"]) + len(told["learned"]) == 2


def test_edits_of_a_state_with_one_way_for_all_have_that(tmp_path: Path) -> None:
    handle = made(tmp_path)
    handle.repair.patch(wrong(handle, 1), way="weights")
    meta = handle.workspace.registry.state("sides", handle.workspace.registry.version("sides"))[
        "patch/edits"
    ].meta
    (one,) = meta["edits"]
    del one["way"]
    (edit,) = edits_in(Part(meta=meta | {"edits": [one], "way": "memory"}))
    assert edit.way == "memory"


def test_listing_edits_reads_nothing_else_of_the_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = made(tmp_path)
    handle.repair.patch(wrong(handle, 1))
    again = el.open(tmp_path).model("sides")
    store, read = again.workspace.registry.parts, list[str]()
    loads = store._load

    def load(name: str, entry: Any) -> Part:
        read.append(name)
        return loads(name, entry)

    monkeypatch.setattr(store, "_load", load)
    assert [one["state"] for one in again.repair.edits()] == ["standing"]
    assert read == ["patch/edits"]


@pytest.mark.parametrize("holdout", [0.3, 0.0])
def test_an_absurd_value_does_not_move_all_answers(tmp_path: Path, holdout: float) -> None:
    handle = linear(tmp_path, holdout=holdout)
    x, _ = points(5, 3)
    absurd = moved(handle, x[0], 1e6)
    found = handle.repair.patch([absurd], way="weights")
    assert (found.decision.action, handle.champion()) == ("refuse", 1)
    assert "way='memory'" in found.decision.reason
    assert found.report["moved"] > 1e4
    found = handle.repair.patch([absurd], way="memory")
    assert (found.decision.action, found.report["moved"]) == ("promote", 0.0)
    assert found.report["locality"] == 1.0
    assert answers(handle, [absurd]) == pytest.approx([absurd["output"]])


def test_small_steps_do_not_add_up_to_a_large_one(tmp_path: Path) -> None:
    handle = linear(tmp_path, holdout=0.3)
    row = points(1, 3)[0][0]
    actions = [
        handle.repair.patch([moved(handle, row + step / 1e3, 2.0)], way="weights").decision.action
        for step in range(6)
    ]
    assert actions[0] == "promote" and "refuse" in actions
    patch = handle.workspace.registry.version("sides").metrics["patch"]
    assert patch["moved"] <= 0.25


def test_a_job_after_which_weights_would_go_too_far_answers_by_exceptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = linear(tmp_path, holdout=0.3)
    edit = moved(handle, points(1, 3)[0][0], 2.0)
    handle.repair.patch([edit], way="weights")
    monkeypatch.setattr(report, "MOVED", 1e-3)
    x, _ = points(50, 8)
    job = handle.train(as_rows(x, values(x)))
    assert job.decision.action == "promote"
    assert ways(job.metrics["patch"]) == [(1, "weights", "memory")]
    assert any("by exceptions" in note for note in job.metrics["patch"]["notes"])
    assert answers(handle, [edit]) == pytest.approx([edit["output"]])


def test_a_classifier_without_hold_outs_turns_few_remembered_answers_wrong(
    tmp_path: Path,
) -> None:
    learner, memory = el.learners.LogisticRegression(), el.Reservoir(300)
    model = el.Model("sides", learner=learner, schema=el.Schema(target="y"), holdout=0.0)
    handle = el.open(tmp_path).model(model.replace(strategy=el.Strategy(memory=memory)))
    x, y = points(600, 0)
    handle.train(as_rows(x, y))
    many = opposed(6)
    found = handle.repair.patch(many, way="weights")
    assert (found.decision.action, handle.champion()) == ("refuse", 1)
    assert "way='memory'" in found.decision.reason and found.report["turned_wrong"] > 0.02
    found = handle.repair.patch(wrong(handle, 1), way="weights")
    assert found.decision.action == "promote" and found.report["turned_wrong"] <= 0.02
    assert handle.repair.patch(many, way="memory").report["turned_wrong"] <= 0.02
