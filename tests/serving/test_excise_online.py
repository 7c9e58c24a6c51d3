"""Withdrawn labels of a model that learns online: folded away, and caught up with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import everlearn as el
from everlearn.base import state_digest
from everlearn.jobs.refold import recorded, refold
from tests.serving.local import LocalClient as TestClient
from tests.serving.test_online import URL, Loop, until

MEMORY = el.Strategy(memory=el.Reservoir(30))


@pytest.fixture(params=[None, MEMORY], ids=["plain", "memory"])
def it(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    loop = Loop(tmp_path, strategy=request.param, rows=40, margin=10.0)
    yield loop
    loop.workspace.close()


def say(it: Loop, client: TestClient, count: int, source: str, right: bool) -> int:
    x = it.random.normal(size=count)
    rows = it.ask(client, *x)
    labels = [
        {"prediction_id": row["id"], "value": int((v > 0) == right), "source": source}
        for row, v in zip(rows, x, strict=True)
    ]
    given = client.post(f"{URL}/feedback", json={"labels": labels}).json()["labels"]
    return max(item["position"] for item in given)


def champion(it: Loop) -> int:
    found = it.handle.champion()
    assert found is not None
    return found


def test_versions_that_were_cut_online_can_be_folded_again(it: Loop) -> None:
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        for _ in range(3):
            say(it, client, 50, "web", True)
        assert until(lambda: champion(it) >= 3)
    registry = it.workspace.registry
    path = registry.lineage("m", champion(it))
    parts = recorded(registry, "m", path)
    assert [plan.online for one in parts for plan in one.plans] == [False] + [True] * (
        len(path) - 1
    )
    plans = [plan for one in parts[1:] for plan in one.plans]
    base = registry.state("m", parts[0].version)
    wanted = parts[-1].version.state_digest
    assert state_digest(refold(registry, "m", base, plans).save()) == wanted


def test_a_lying_source_is_folded_away_while_the_model_answers(it: Loop) -> None:
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        for _ in range(3):
            say(it, client, 30, "web", True)
            say(it, client, 30, "bot", False)
        assert until(lambda: champion(it) >= 3)
        last = say(it, client, 10, "bot", False)
        assert until(lambda: it.position(client) == last)
        found = it.handle.repair.excise(where="source = 'bot'")
        assert found.report["base"] == 1 and found.result is not None
        assert found.result.decision.action == "catch up", found.result
        assert until(lambda: champion(it) not in found.report["marked"])
        position = say(it, client, 5, "web", True)
        assert until(lambda: it.position(client) == position)
        answers = it.ask(client, 1.0, -1.0, 2.0, -2.0)
    assert [row["output"] for row in answers] == [1, 0, 1, 0]
