"""A champion that is patched while a job learns: the job's version has the edits, and serves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import everlearn as el
from everlearn.base import ConflictError, Decision
from everlearn.jobs import run as running
from everlearn.jobs import runner as acting
from everlearn.jobs.patch.following import followed
from everlearn.workspace import ModelHandle, Workspace
from tests.jobs.test_patch import answers, as_rows, points, wrong

Act = Callable[[], object]


def made(place: Path, **more: Any) -> tuple[Workspace, ModelHandle]:
    workspace = el.open(place)
    learner = el.learners.LogisticRegression()
    schema = el.Schema(target="y")
    handle = workspace.model(el.Model("sides", learner=learner, schema=schema, holdout=0.3, **more))
    handle.train(as_rows(*points(600, 0)))
    return workspace, handle


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Act], None]:
    """Has something done once at a step of a job."""

    def do(name: str, act: Act) -> None:
        left = [act]
        for module in (running, acting):
            steps = module.crash_point

            def step(here: str, steps: Callable[[str], None] = steps) -> None:
                if here == name and left:
                    left.pop()()
                steps(here)

            monkeypatch.setattr(module, "crash_point", step)

    return do


@pytest.mark.parametrize("step", ["job.judged", "job.saved"])
@pytest.mark.parametrize("gate", [None, el.NonInferior("accuracy", margin=0.2)])
def test_a_job_goes_on_to_the_champion_as_it_was_patched(
    tmp_path: Path, at: Callable[[str, Act], None], step: str, gate: Any
) -> None:
    workspace, handle = made(tmp_path, gate=gate)
    edits = wrong(handle, 2)
    at(step, lambda: handle.repair.patch(edits[:1], way="memory"))
    found = handle.train(as_rows(*points(20, 9)))
    assert (found.version, found.decision.action, handle.champion()) == (3, "promote", 3)
    patch = found.metrics["patch"]
    assert patch["edits"] + patch["learned"] == [1]
    assert answers(handle, edits[:1]) == [edits[0]["output"]]
    version = workspace.registry.version("sides", 3)
    assert version.parent == 1 and workspace.queue.get(2).base_version == 2
    other, same = made(tmp_path / "other")
    same.train(as_rows(*points(20, 9)))
    learned = [
        {name: one["digest"] for name, one in it.manifest.items() if not name.startswith("patch/")}
        for it in (version, other.registry.version("sides", 2))
    ]
    assert learned[0] == learned[1], "what is learned does not depend on patches"


def test_edits_that_end_while_a_job_learns_are_not_in_its_version(
    tmp_path: Path, at: Callable[[str, Act], None]
) -> None:
    _, handle = made(tmp_path)
    handle.repair.patch(wrong(handle, 2), way="memory")
    at("job.judged", lambda: handle.repair.revoke_edit(1))
    found = handle.train(as_rows(*points(20, 9)))
    assert found.decision.action == "promote", found.decision.reason
    patch = found.metrics["patch"]
    assert patch["edits"] + patch["learned"] == [2]


def test_a_champion_that_learned_or_was_rolled_back_is_none_to_go_on_to(
    tmp_path: Path, at: Callable[[str, Act], None]
) -> None:
    workspace, handle = made(tmp_path)
    handle.train(as_rows(*points(20, 9)))
    patched = handle.repair.patch(wrong(handle, 1), way="memory").version
    assert patched == 3
    with workspace.database.read() as connection:
        assert [followed(connection, "sides", base) for base in (None, 1, 2, 3)] == [None, 1, 3, 3]
    at("job.judged", lambda: handle.rollback(2))
    found = handle.train(as_rows(*points(20, 11)))
    assert (found.decision.action, handle.champion()) == ("hold", 2)


def test_a_patch_waits_until_a_version_that_was_made_has_its_place(
    tmp_path: Path, at: Callable[[str, Act], None]
) -> None:
    _, handle = made(tmp_path)
    edits = wrong(handle, 1)

    def refused() -> None:
        with pytest.raises(ConflictError, match="job 2 has made a version"):
            handle.repair.patch(edits, way="memory")

    at("job.committed", refused)
    assert handle.train(as_rows(*points(20, 9))).decision.action == "promote"
    assert handle.repair.edits() == []
    assert isinstance(handle.workspace.registry.version("sides").decision, Decision)


def test_an_excision_goes_on_to_the_champion_as_it_was_patched(
    tmp_path: Path, at: Callable[[str, Act], None]
) -> None:
    _, handle = made(tmp_path)
    handle.train(as_rows(*points(40, 9)), source="bad")
    edits = wrong(handle, 1)
    at("job.judged", lambda: handle.repair.patch(edits, way="memory"))
    found = handle.repair.excise(rows=["bad:0-9"])
    assert found.result is not None and found.result.decision.action == "promote"
    assert answers(handle, edits) == [edits[0]["output"]]
