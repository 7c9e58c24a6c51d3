"""Patches of a workspace's models: checked, judged, numbered, carried on, taken back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everlearn as el
from everlearn import base
from everlearn.base import Array, InputError, NotFoundError
from everlearn.data.compiler import compile_rows
from everlearn.jobs.patch import report
from everlearn.jobs.patch.patches import PatchResult
from everlearn.strategies.patch_weights import UnsolvableError
from everlearn.workspace import ModelHandle, Workspace

SECOND = 1_000_000


NAMES = tuple(f"x{place}" for place in range(20))


def points(n: int, seed: int) -> tuple[Array, Array]:
    """Rows of numbers, and the class that they say: which side of a plane they are on."""
    x = np.random.default_rng(seed).normal(size=(n, len(NAMES))).round(3)
    return x, (x[:, 0] + x[:, 1] > 0).astype(int)


def as_rows(x: Array, y: Array) -> list[dict[str, Any]]:
    rows = zip(x.tolist(), y.tolist(), strict=True)
    return [dict(zip((*NAMES, "y"), (*row, label), strict=True)) for row, label in rows]


def asked(row: Array, output: Any, **more: Any) -> dict[str, Any]:
    """An edit."""
    return {"features": dict(zip(NAMES, row.tolist(), strict=True)), "output": output} | {
        "reason": "seen by a clerk",
        **more,
    }


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000 * SECOND

    def __call__(self) -> int:
        return self.now


Made = tuple[Workspace, ModelHandle, Clock]
Make = Callable[..., Made]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a workspace with a model that was trained once."""

    def made(learner: Any = None, place: str = "workspace", **more: Any) -> Made:
        clock = Clock()
        workspace = el.open(tmp_path / place, clock=clock)
        strategy = el.Strategy(memory=el.Reservoir(100))
        learner = el.learners.LogisticRegression() if learner is None else learner
        model = el.Model(
            "sides",
            learner=learner,
            schema=el.Schema(target="y"),
            strategy=strategy,
            holdout=0.3,
            **more,
        )
        handle = workspace.model(model)
        handle.train(as_rows(*points(600, 0)))
        return workspace, handle, clock

    return made


def answers(handle: ModelHandle, edits: list[dict[str, Any]]) -> list[Any]:
    said = handle.predict([edit["features"] for edit in edits], log=False)
    assert isinstance(said, list)
    return [one.value for one in said]


def opposed(count: int, seed: int = 5) -> list[dict[str, Any]]:
    """Edits to the other answer than the plane says, of rows that are not near to it."""
    x, y = points(400, seed)
    far = np.flatnonzero(np.abs(x[:, 0] + x[:, 1]) > 0.5)[:count]
    return [asked(x[row], 1 - int(y[row])) for row in far]


def close(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """The same of rows near to the plane: a change of weights turns few others with them."""
    x, y = points(2000, seed)
    near = np.flatnonzero(np.abs(x[:, 0] + x[:, 1]) < 0.02)[:count]
    return [asked(x[row], 1 - int(y[row])) for row in near]


def wrong(handle: ModelHandle, count: int) -> list[dict[str, Any]]:
    """Edits of rows near to the plane to what is not answered."""
    edits = close(count)
    said = answers(handle, edits)
    return [{**edit, "output": 1 - value} for edit, value in zip(edits, said, strict=True)]


def states(handle: ModelHandle) -> list[str]:
    return [one["state"] for one in handle.repair.edits()]


def test_a_patch_is_a_version_that_shares_all_parts_of_its_base(make: Make) -> None:
    workspace, handle, _ = make()
    edits = opposed(3)
    found = handle.repair.patch(edits)
    assert (found.version, found.decision.action, found.edits) == (2, "promote", [1, 2, 3])
    assert answers(handle, edits) == [edit["output"] for edit in edits]
    base, patched = (workspace.registry.version("sides", number) for number in (1, 2))
    digests = {name: entry["digest"] for name, entry in patched.manifest.items()}
    own = {name for name in digests if name.startswith("patch/")}
    assert own == {"patch/edits", "patch/exceptions"}
    shared = {name: digest for name, digest in digests.items() if name not in own}
    assert shared == {name: entry["digest"] for name, entry in base.manifest.items()}
    assert (patched.parent, patched.increments) == (1, ())
    report = patched.metrics["patch"]
    assert (report["success"], report["base"], report["edits"]) == (1.0, 1, [1, 2, 3])
    assert report["locality"] > 0.99 and report["negative_flips"]["recent"] == 0.0
    assert states(handle) == ["standing"] * 3


@pytest.mark.parametrize("way", ["memory", "weights", "auto"])
def test_every_way_holds_all_edits(make: Make, way: Any) -> None:
    _, handle, _ = make()
    edits = wrong(handle, 2)
    found = handle.repair.patch(edits, way=way)
    assert answers(handle, edits) == [edit["output"] for edit in edits]
    ways = {one["way"] for one in found.report["ways"]}
    assert ways == {"memory" if way == "auto" else way}
    assert 0.0 <= found.report["generalisation"] <= 1.0 and found.report["seconds"] > 0.0


def test_a_dry_run_says_what_would_be_and_writes_nothing(make: Make) -> None:
    _, handle, _ = make()
    found = handle.repair.patch(opposed(2), dry_run=True)
    assert (found.version, found.decision.action) == (None, "pass")
    assert found.report["success"] == 1.0
    assert (len(handle.versions()), handle.repair.edits()) == (1, [])


def test_bad_edits_are_refused_by_name_and_nothing_is_written(make: Make) -> None:
    _, handle, _ = make()
    [edit] = opposed(1)
    other = {**edit, "output": 1 - edit["output"]}
    right = asked(np.full(20, 1.0), 1)
    for edits, said in (
        ([], "no edit"),
        ([edit, other], "edit 2 wants .* for which edit 1 wants another"),
        ([asked(np.zeros(20), 7)], "edit 1 of 1: 7 is no class that the model knows"),
        ([{**edit, "features": {"z": 1.0}}], "no column 'z'"),
        ([{**edit, "features": {"x0": "much"}}], "not a number"),
        ([{**edit, "output": None}], "has no 'output'"),
        ([{**edit, "reason": " "}], "reason"),
        ([{**edit, "why": "x"}], "unknown"),
        ([right], "all 1 edits are answered as wanted already"),
    ):
        with pytest.raises(InputError, match=said):
            handle.repair.patch(edits)
    with pytest.raises(InputError, match="way="):
        handle.repair.patch([edit], way="luck")  # type: ignore[arg-type]
    assert (len(handle.versions()), handle.repair.edits()) == (1, [])


def test_edits_that_are_right_already_are_told_and_left_out(make: Make) -> None:
    _, handle, _ = make()
    [edit] = opposed(1)
    plain = {**edit, "features": {"x0": 2.0, "x1": 2.0}, "output": 1}
    found = handle.repair.patch([plain, edit])
    assert (found.already, found.edits) == ([0], [1])


def test_a_patch_that_is_killed_leaves_nothing_but_can_be_made_again(
    make: Make, tmp_path: Path
) -> None:
    _, handle, _ = make()
    edits = opposed(2)
    child = os.fork()
    if child == 0:
        base._crash_name = "patch.saved"
        try:
            el.open(tmp_path / "workspace").model("sides").repair.patch(edits)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert (len(handle.versions()), handle.repair.edits()) == (1, [])
    assert handle.repair.patch(edits).version == 2
    assert answers(handle, edits) == [edit["output"] for edit in edits]


def test_without_a_champion_there_is_nothing_to_patch(tmp_path: Path) -> None:
    workspace = el.open(tmp_path / "workspace")
    handle = workspace.model(el.Model("sides", schema=el.Schema(target="y")))
    with pytest.raises(NotFoundError, match="no champion"):
        handle.repair.patch(opposed(1))


def test_edits_add_up_and_a_standing_one_is_not_contradicted(make: Make) -> None:
    workspace, handle, _ = make()
    edits = wrong(handle, 3) + opposed(3)
    for edit in edits:
        handle.repair.patch([edit])
    assert answers(handle, edits) == [edit["output"] for edit in edits]
    assert [version["parent"] for version in handle.versions()] == [None, *[1] * 6]
    again = {**edits[0], "output": 1 - edits[0]["output"]}
    with pytest.raises(InputError, match="edit 1, which stands"):
        handle.repair.patch([again])
    whole = workspace.registry.state("sides", workspace.registry.version("sides"))
    assert [one["number"] for one in whole["patch/edits"].meta["edits"]] == [1, 2, 3, 4, 5, 6]


def test_revoked_edits_are_gone_and_the_last_one_restores_the_base(make: Make) -> None:
    workspace, handle, _ = make()
    edits = wrong(handle, 2)
    rows = compile_rows([edit["features"] for edit in opposed(50, seed=9)], handle.load().columns)
    before = handle.load().predict(rows)
    handle.repair.patch(edits, way="weights")
    found = handle.repair.revoke_edit(1)
    assert (found.version, found.decision.action) == (3, "promote")
    assert answers(handle, edits) == [1 - edits[0]["output"], edits[1]["output"]]
    handle.repair.revoke_edit(2)
    after = handle.load().predict(rows)
    assert before.proba is not None and after.proba is not None
    assert np.array_equal(before.proba, after.proba)
    digests = [workspace.registry.version("sides", number).state_digest for number in (1, 4)]
    assert digests[0] == digests[1]
    assert states(handle) == ["revoked", "revoked"]
    assert handle.repair.revoke_edit(1).decision.action == "nothing"
    with pytest.raises(InputError, match="no edit 9"):
        handle.repair.revoke_edit(9)


def test_an_edit_ends_when_its_time_comes(make: Make) -> None:
    _, handle, clock = make()
    first, second = opposed(2)
    handle.repair.patch([{**first, "expires_at": "2023-11-14T22:14:00"}, second])
    assert handle.repair.expire_edits() is None
    clock.now += 60 * SECOND
    found = handle.repair.expire_edits()
    assert isinstance(found, PatchResult) and found.version == 3
    assert answers(handle, [first, second]) == [1 - first["output"], second["output"]]
    assert states(handle) == ["expired", "standing"]


def test_a_rollback_takes_the_edits_of_the_version_it_goes_to(make: Make) -> None:
    _, handle, _ = make()
    first, second = opposed(2)
    handle.repair.patch([first])
    handle.repair.patch([second])
    handle.rollback(to=2)
    assert states(handle) == ["standing", "waiting"]
    assert answers(handle, [second]) == [1 - second["output"]]
    handle.rollback(to=1)
    assert states(handle) == ["waiting", "waiting"]
    handle.repair.patch([second])
    assert states(handle) == ["waiting", "waiting", "standing"]
    assert answers(handle, [first]) == [1 - first["output"]]


def test_learning_on_is_as_if_there_were_no_patch_and_edits_are_solved_again(make: Make) -> None:
    workspace, handle, _ = make()
    edits = opposed(3)
    handle.repair.patch(edits)
    handle.train(as_rows(*points(300, 2)), source="more")
    patched = workspace.registry.version("sides")
    assert answers(handle, edits) == [edit["output"] for edit in edits]
    assert patched.metrics["patch"]["edits"] == [1, 2, 3]
    other, unpatched, _ = make(place="elsewhere")
    unpatched.train(as_rows(*points(300, 2)), source="more")

    def learned(workspace: Workspace) -> dict[str, str]:
        version = workspace.registry.version("sides")
        state = workspace.registry.state("sides", version)
        return {name: part.digest for name, part in state.items() if "patch/" not in name}

    assert learned(workspace) == learned(other)


def test_what_a_new_champion_has_learned_is_no_edit_any_more(make: Make) -> None:
    _, handle, _ = make()
    x, y = points(400, 11)
    [turned] = answers(handle, [asked(x[0], 0)])
    edits = [asked(x[0], 1 - turned), opposed(1)[0]]
    handle.repair.patch(edits)
    near = np.repeat(x[:1], 400, axis=0)
    near = near + np.random.default_rng(0).normal(0.0, 0.02, near.shape)
    handle.train(as_rows(near, np.full(400, 1 - turned)), source="many of one kind")
    version = handle.versions()[-1]
    assert version["metrics"]["patch"]["learned"] == [1]
    assert states(handle)[0] == "learned"
    assert y is not None and answers(handle, edits) == [edit["output"] for edit in edits]


def test_too_many_negative_flips_refuse_and_the_champion_stays(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, handle, _ = make()
    monkeypatch.setattr(report, "BUDGET", -1.0)
    found = handle.repair.patch(opposed(1))
    assert (found.version, found.decision.action) == (2, "refuse")
    assert "from right to wrong" in found.decision.reason
    assert (handle.champion(), states(handle)) == (1, ["waiting"])


def test_a_change_of_weights_that_may_flip_too_many_falls_back_to_exceptions(make: Make) -> None:
    _, handle, _ = make()
    generator = np.random.default_rng(0)
    near = np.full(20, 0.5) + generator.normal(0.0, 0.1, (4, 20))
    edits = [asked(row.round(3), 0) for row in near]
    found = handle.repair.patch(edits)
    assert {one["way"] for one in found.report["ways"]} == {"memory"}
    assert any("may turn wrong" in one for one in found.report["notes"])
    assert answers(handle, edits) == [0] * 4


def test_the_gate_judges_a_patch_and_a_rollout_tries_it(make: Make) -> None:
    workspace, handle, _ = make(
        gate=el.NonInferior("accuracy", margin=0.05), rollout=el.Canary([10, 50])
    )
    edits = opposed(2)
    found = handle.repair.patch(edits)
    assert found.decision.action == "try"
    assert (handle.champion(), states(handle)) == (1, ["waiting", "waiting"])
    assert workspace.rollouts.running("sides") is not None
    blocked = handle.repair.patch(opposed(1, seed=8))
    assert blocked.decision.action == "hold"


def test_values_of_a_regressor_are_put_right(make: Make) -> None:
    _, handle, _ = make(el.learners.LinearRegression())
    edit = asked(np.full(20, 0.5), 0.9)
    handle.repair.patch([edit], way="weights")
    assert answers(handle, [edit]) == pytest.approx([0.9])
    other = asked(np.full(20, -0.5), -3.0)
    handle.repair.patch([other], way="memory")
    assert answers(handle, [edit, other]) == pytest.approx([0.9, -3.0])


def test_any_learner_takes_exceptions_and_says_that_it_has_no_weights(make: Make) -> None:
    _, handle, _ = make(el.learners.GaussianNB())
    edits = opposed(2)
    with pytest.raises(UnsolvableError, match="no linear layer"):
        handle.repair.patch(edits, way="weights")
    handle.repair.patch(edits)
    assert answers(handle, edits) == [edit["output"] for edit in edits]


def test_an_exported_version_keeps_its_patch(make: Make, tmp_path: Path) -> None:
    _, handle, _ = make()
    edits = opposed(2)
    handle.repair.patch(edits)
    file = handle.export(2, tmp_path / "sides.everlearn")
    with el.open(tmp_path / "elsewhere") as other:
        number = other.import_version(file)["number"]
        copy = other.model("sides")
        copy.promote(number)
        assert answers(copy, edits) == [edit["output"] for edit in edits]
