"""Online through the day, retrained by jobs that catch up before they are promoted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import everlearn as el
from everlearn.base import ConflictError, Decision, state_digest
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.jobs import catchup
from everlearn.jobs import run as runs
from everlearn.jobs.online import Tail
from everlearn.serving import online, rival
from tests.serving.local import LocalClient as TestClient
from tests.serving.test_online import URL, Loop, until

GATE = el.NonInferior("log_loss", margin=0.05)
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
        assert client.get(URL).json()["champion"] == 1
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        assert until(lambda: it.position(client) == last)
        assert it.ask(client, 0.7)[0]["probabilities"] == before["probabilities"]


@pytest.mark.parametrize("by", ["the job's gate", "the gate after it"])
def test_labels_of_a_refused_candidate_are_in_the_next_one(
    it: Loop, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    where, name = (runs, "try_candidate") if by == "the job's gate" else (catchup, "judge")
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 60)
        with monkeypatch.context() as patch:
            patch.setattr(where, name, lambda *given, **more: Decision("refuse", "worse"))
            it.workspace.run(plan(it))
            assert until(lambda: history(it, "candidate")[-1] == ("refuse", 2))
        last = it.teach(client, 30)
        assert it.workspace.run(plan(it)).decision.action == "catch up"
        assert until(lambda: client.get(URL).json()["champion"] == 3)
        assert until(lambda: it.position(client) == last)
    made = it.workspace.registry.version("m", 3)
    assert [(one.start, one.stop) for one in made.increments] == [(0, 90)]
    held = it.workspace.registry.holdouts("m", made)
    ids = np.concatenate([period.batch.ids for period in HoldOuts.load(held).periods])
    assert len(np.unique(ids)) == len(ids), "no row is held out twice"


def test_a_candidate_with_a_new_column_catches_up(it: Loop) -> None:
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        rows = [{"x": float(x), "z": float(x) / 2} for x in it.random.normal(size=60)]
        answers = client.post(f"{URL}/predict", json={"instances": rows}).json()["predictions"]
        it.say(client, answers, *(int(row["x"] > 0) for row in rows))
        job = plan(it)
        last = it.teach(client, 30)
        it.workspace.run(job)
        assert until(lambda: client.get(URL).json()["champion"] == 3)
        assert until(lambda: it.position(client) == last)
    assert history(it, "candidate") == [("catch up", 2), ("promote", 2)]


def test_a_candidate_that_fails_is_refused_and_the_live_model_goes_on(
    it: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: object) -> Decision:
        raise ValueError("the candidate is broken")

    monkeypatch.setattr(catchup, "judge", fails)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 60)
        it.workspace.run(plan(it))
        assert until(lambda: settled(it))
        last = it.teach(client, 5)
        assert until(lambda: it.position(client) == last)
    moves = [move for move in it.workspace.model("m").history() if move["name"] == "candidate"]
    assert "the candidate is broken" in moves[-1]["reason"]
    assert client.get(URL).json()["champion"] == 1 and isinstance(plan(it), int)


def test_a_long_way_is_caught_up_with_in_turns_that_end_by_the_clock(
    it: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rival, "PART", 7)
    monkeypatch.setattr(rival, "TURN_SECONDS", 1e-9)  # one part a turn
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 60)
        job = plan(it)
        last = it.teach(client, 30)
        it.workspace.run(job)
        assert until(lambda: client.get(URL).json()["champion"] == 3)
        assert until(lambda: it.position(client) == last)
    log = it.workspace.updates.log("m")
    tail = Tail.load(it.workspace.registry, "m", it.workspace.registry.version("m", 2), log, 60)
    tail.fold_in(90)
    assert state_digest(tail.state()) == it.workspace.registry.version("m", 3).state_digest


def test_nothing_is_planned_on_a_candidate_that_is_behind(it: Loop) -> None:
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 60)
    it.workspace.run(plan(it))
    with pytest.raises(ConflictError, match="catching up"):
        plan(it)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:  # a server does what is left
        assert until(lambda: client.get(URL).json()["champion"] == 2)
        assert it.position(client) == 60


def test_what_answers_keeps_what_it_learned_until_its_own_thread_follows_a_champion(
    it: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = it.workspace.app(["m"], learn=False)
    with TestClient(app) as client:
        it.teach(client, 60)
        job = plan(it)
        last = it.teach(client, 30)
        assert until(lambda: it.position(client) == last)
        with monkeypatch.context() as patch:
            patch.setattr(online.OnlineLearner, "step", lambda learner: False)
            it.workspace.run(job)
            it.workspace.registry.promote("m", 2, expected=1, reason="by hand")
            app.state.models.refresh()
            assert it.position(client) == last
        assert until(lambda: app.state.models.predictor("m").served.version == 2)
        assert it.position(client) == last


WITHOUT_EFFECT: list[tuple[dict[str, object], str]] = [
    ({"rollout": el.Canary([50])}, "rollout=Canary"),
    ({"schema": el.Schema()}, "target"),
    ({"triggers": (el.Online(), el.Online())}, "twice"),
    ({"triggers": (el.Cooldown(el.Online(), hours=1),)}, "within Cooldown"),
    ({"labels": el.LabelPolicy(signals={"hide": (0, 0.5)})}, "weight"),
]


@pytest.mark.parametrize(("said", "named"), WITHOUT_EFFECT)
def test_what_does_nothing_beside_online_is_refused(
    tmp_path: Path, said: dict[str, object], named: str
) -> None:
    model = el.Model("m", schema=el.Schema(target="y"), triggers=(el.Online(),), gate=GATE)
    with el.open(tmp_path) as workspace:
        with pytest.raises(el.SpecError, match=named):
            workspace.model(model.replace(**said))
        workspace.model(model)  # a gate judges what jobs make


@pytest.mark.parametrize("memory", [el.Everything(), el.Reservoir(40), el.Window(rows=40)])
@pytest.mark.parametrize("start", ["champion", "scratch"])
def test_labels_are_corrected_in_memory_whenever_a_tail_looks(
    tmp_path: Path, memory: object, start: str
) -> None:
    it = Loop(tmp_path, strategy=el.Strategy(start=start, memory=memory))
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        x = it.random.normal(size=60)
        rows = it.ask(client, *x)
        it.say(client, rows, *(int(value > 0) for value in x))
        it.say(client, rows[:20], *([1, 0, None, 1] * 5))  # corrected, and taken back
        last = it.say(client, rows[10:15], *[0, 1, 0, 1, 0])
        assert until(lambda: it.position(client) == last)
    log, registry = it.workspace.updates.log("m"), it.workspace.registry
    version = registry.version("m", 1)
    digests = set()
    for step in (1, 7, 1000):
        tail = Tail.load(registry, "m", version, log, 0)
        while tail.position < log.head():
            tail.fold_in(min(log.head(), tail.position + step))
        digests.add(state_digest(tail.state()))
    it.workspace.close()
    assert len(digests) == 1
