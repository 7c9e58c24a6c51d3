"""Edits of a model that learns online: solved again with each version that is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from everlearn.base import state_digest
from everlearn.registry import edits
from tests.serving.local import LocalClient as TestClient
from tests.serving.test_online import Loop, until


@pytest.fixture
def it(tmp_path: Path) -> Any:
    loop = Loop(tmp_path, rows=40, margin=10.0)
    yield loop
    loop.workspace.close()


def edit(x: float, output: int, **more: Any) -> dict[str, Any]:
    return {"features": {"x": x}, "output": output, "reason": "seen by a clerk", **more}


def champion(it: Loop) -> Any:
    return it.workspace.registry.version("m")


def said(it: Loop, client: TestClient, *x: float) -> list[Any]:
    return [row["output"] for row in it.ask(client, *x)]


def test_a_version_that_is_cut_has_its_edits_solved_again(it: Loop) -> None:
    it.handle.repair.patch([edit(1.5, 0), edit(-1.5, 1)])
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        position = it.teach(client, 50)
        assert until(lambda: champion(it).number == 3)
        assert until(lambda: it.position(client) == position)
        assert said(it, client, 1.5, -1.5, 1.0, -1.0) == [0, 1, 1, 0]
    version = champion(it)
    patch = version.metrics["patch"]
    assert (patch["edits"], patch["success"], patch["learned"]) == ([1, 2], 1.0, [])
    state = it.workspace.registry.state("m", version)
    assert state_digest(state) == version.state_digest
    before = it.workspace.registry.version("m", 2).manifest["patch/edits"]["digest"]
    assert version.manifest["patch/edits"]["digest"] != before, "it is for this version"


def test_what_was_learned_meanwhile_or_has_ended_is_no_edit_of_it(it: Loop) -> None:
    it.handle.repair.patch([edit(1.5, 0), edit(-1.5, 1), edit(2.5, 0)])
    with it.workspace.database.write() as connection:
        edits.end(connection, "m", [3], "revoked", it.workspace.database.clock())
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        for _ in range(3):
            it.teach(client, 50, turned=True)
        assert until(lambda: said(it, client, 1.0, -1.0) == [0, 1])
        number = champion(it).number
        it.teach(client, 50, turned=True)
        assert until(lambda: champion(it).number > number)
        position = it.teach(client, 1, turned=True)
        assert until(lambda: it.position(client) == position)
        assert said(it, client, 1.5, -1.5) == [0, 1]
    assert champion(it).metrics.get("patch") is None or champion(it).metrics["patch"]["edits"] == []
    assert not [name for name in champion(it).manifest if name.startswith("patch/")]
    assert [one["state"] for one in it.handle.repair.edits()] == ["learned", "learned", "revoked"]
    (answer,) = it.handle.predict([{"x": 1.5}], log=False)  # type: ignore[misc]
    assert answer.value == 0
