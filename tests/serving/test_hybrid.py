"""Online through the day, retrained by jobs that catch up before they are promoted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import everlearn as el
from everlearn.base import ConflictError, Decision, state_digest
from everlearn.jobs import catchup
from everlearn.jobs.online import Tail
from tests.serving.local import LocalClient as TestClient
from tests.serving.test_online import URL, Loop, until

RETRAINED = el.Strategy(start="scratch", memory=el.Everything())


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Loop]:
    loop = Loop(tmp_path, strategy=RETRAINED, rows=100_000, margin=10.0)
    yield loop
    loop.workspace.close()


def plan(it: Loop) -> int:
    """Freeze a job's input: the labels so far."""
    job = it.workspace.updates.plan("m", it.handle.definition)
    assert isinstance(job, int)
    return job


def history(it: Loop, name: str) -> list[tuple[str, int]]:
    moves = it.workspace.model("m").history()
    return [(move["action"], move["version_to"]) for move in moves if move["name"] == name]


def settled(it: Loop) -> bool:
    with it.workspace.registry.database.read() as connection:
        return catchup.behind(connection, "m") is None


def test_a_retrained_candidate_catches_up_and_nothing_is_lost(it: Loop) -> None:
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 60)
        job = plan(it)
        last = it.teach(client, 30)  # after the job's input was frozen
        assert until(lambda: it.position(client) == last)
        result = it.workspace.run(job)
        assert result.decision.action == "catch up", result.decision
        assert until(lambda: client.get(URL).json()["champion"] == 3)
        assert it.position(client) == last
        last = it.teach(client, 5)
        assert until(lambda: it.position(client) == last)
    versions = it.workspace.registry.versions("m")
    assert [(v.parent, v.increments[0].start, v.increments[0].stop) for v in versions[1:]] == [
        (1, 0, 60),
        (2, 60, 90),
    ]
    assert history(it, "champion") == [("promote", 1), ("promote", 3)]
    assert history(it, "candidate") == [("catch up", 2), ("promote", 2)]
    log = it.workspace.updates.log("m")
    tail = Tail.load(it.workspace.registry, "m", versions[1], log, 60)
    tail.fold_in(90)
    assert state_digest(tail.state()) == versions[2].state_digest


def test_a_refused_candidate_leaves_the_live_model_as_it_is(
    it: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catchup, "judge", lambda *given: Decision("refuse", "worse"))
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 60)
        it.workspace.run(plan(it))
        last = it.teach(client, 30)
        assert until(lambda: settled(it) and it.position(client) == last)
        before = it.ask(client, 0.7)[0]
        assert history(it, "candidate") == [("catch up", 2), ("refuse", 2)]
        assert client.get(URL).json()["champion"] == 3  # the live model's own, with all labels
    taken = it.workspace.registry.version("m", 3).increments[0]
    assert (taken.start, taken.stop) >= (0, 60)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        assert until(lambda: it.position(client) == last)
        assert it.ask(client, 0.7)[0]["probabilities"] == before["probabilities"]


def test_nothing_is_planned_on_a_candidate_that_is_behind(it: Loop) -> None:
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 60)
    it.workspace.run(plan(it))
    with pytest.raises(ConflictError, match="catching up"):
        plan(it)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:  # a server does what is left
        assert until(lambda: client.get(URL).json()["champion"] == 2)
        assert it.position(client) == 60
