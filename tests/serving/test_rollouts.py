"""A candidate on trial behind the HTTP API, on both sides of the decision."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

import everlearn as el
from everlearn.base import Decision
from everlearn.data.quarantine import Quarantine
from everlearn.rollout import store
from everlearn.storage.schema import rollout_keys
from tests.serving.local import LocalClient as TestClient

URL = "/v1/models/m"


def history(path: Path, rows: int, seed: int, right: float = 1.0) -> str:
    """A CSV of x and whether it is above 0, as often right as said."""
    random = np.random.default_rng(seed)
    x = random.normal(size=rows)
    y = (x > 0) ^ (random.random(rows) > right)
    lines = ["x,late", *(f"{a:.4f},{int(b)}" for a, b in zip(x, y, strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


class Loop:
    """A served model whose learning is stepped by hand."""

    def __init__(self, folder: Path, rollout: Any, triggers: Any = ()) -> None:
        self.folder = folder
        self.workspace = el.open(folder / "workspace")
        schema = el.Schema(target="late")
        model = el.Model("m", learner="logistic", schema=schema, rollout=rollout, triggers=triggers)
        self.handle = self.workspace.model(model)
        self.handle.train(history(folder / "first.csv", 2000, seed=0))
        self.app = self.workspace.app(["m"], learn=False)
        self.random = np.random.default_rng(5)
        self.asked = 0

    def candidate(self, right: float) -> None:
        """Learn something that is good, or not."""
        result = self.handle.train(history(self.folder / "next.csv", 2000, seed=1, right=right))
        assert result.decision.action == "try", result.decision

    def traffic(
        self, client: TestClient, rows: int, users: int = 10_000, shift: float = 0.0
    ) -> list[dict[str, Any]]:
        """Ask, and say at once what was right."""
        x = self.random.normal(shift, size=rows)
        keys = [f"user {n}" for n in self.random.integers(0, users, rows)]
        body = {"instances": [{"x": float(value)} for value in x], "keys": keys}
        given = client.post(f"{URL}/predict", json=body).json()["predictions"]
        said = [
            {"prediction_id": item["id"], "value": int(value > 0)}
            for item, value in zip(given, x, strict=True)
        ]
        assert client.post(f"{URL}/feedback", json={"labels": said}).status_code == 200
        return [item | {"key": key} for item, key in zip(given, keys, strict=True)]

    def look(self) -> Decision | None:
        """What the learning thread does between jobs."""
        self.app.state.models.refresh()
        decision = self.workspace.rollouts.look("m")
        self.app.state.models.refresh()
        return decision


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Any]:
    made: list[Loop] = []

    def make(rollout: Any) -> Loop:
        made.append(Loop(tmp_path, rollout))
        return made[-1]

    yield make
    for one in made:
        one.workspace.close()


def test_a_good_candidate_is_promoted_step_by_step_and_nobody_goes_back(loop: Any) -> None:
    it = loop(el.Canary([5, 50], margin=0.2, labels=150))
    it.candidate(right=1.0)
    assert it.workspace.registry.champion("m").number == 1
    arms: dict[str, str] = {}
    shares: dict[int, list[bool]] = {}
    with TestClient(it.app) as client:
        it.look()
        for _ in range(40):
            stage = client.get(URL).json()["rollout"]["stage"]
            for item in it.traffic(client, 500):
                shares.setdefault(stage, []).append(item["arm"] == "candidate")
                assert not (arms.get(item["key"]) == "candidate" and item["arm"] == "champion")
                arms[item["key"]] = item["arm"]
                assert item["version"] == (2 if item["arm"] == "candidate" else 1)
            if it.look().action == "promote":
                break
        about = client.get(URL).json()
        assert about["champion"] == about["serving"]["version"] == 2
        assert about["rollout"] is None
        (listed,) = client.get(f"{URL}/rollouts").json()["rollouts"]
        assert listed["state"] == "promoted"
        shown = client.get(f"{URL}/rollouts/{listed['rollout']}").json()
        actions = [item["action"] for item in shown["decisions"]]
        assert actions[0] == "begin"
        assert actions[-2:] == ["promote", "promoted"]
        said = shown["decisions"][-1]["evidence"]
        assert (said["version"], said["digest"]) == (2, about["serving"]["digest"])
        assert "pass" in actions
        assert all(item["reason"] for item in shown["decisions"])
        assert {item["version"] for item in it.traffic(client, 50)} == {2}
    for stage, share in enumerate((0.05, 0.5)):  # keys fall by chance: five standard errors
        error = (share * (1.0 - share) / len(shares[stage])) ** 0.5
        assert np.mean(shares[stage]) == pytest.approx(share, abs=5.0 * error)


def test_a_bad_candidate_is_rolled_back_by_itself(loop: Any) -> None:
    it = loop(el.Canary([20], margin=0.02))
    it.candidate(right=0.1)
    with TestClient(it.app) as client:
        it.look()
        decisions = []
        for _ in range(40):
            it.traffic(client, 500)
            decisions.append(it.look().action)
            if decisions[-1] != "hold":
                break
        assert decisions[-1] == "roll back"
        assert {item["version"] for item in it.traffic(client, 100)} == {1}
        (listed,) = client.get(f"{URL}/rollouts").json()["rollouts"]
        assert listed["state"] == "rolled back"
    assert it.look() is None


def test_a_shadow_is_compared_and_never_seen(loop: Any) -> None:
    it = loop(el.Shadow(margin=0.2))
    it.candidate(right=1.0)
    with TestClient(it.app) as client:
        it.look()
        for _ in range(20):
            assert {item["version"] for item in it.traffic(client, 100)} == {1}
            wait_for_shadows(it)
            if it.look().action == "promote":
                break
        assert client.get(URL).json()["champion"] == 2
    log = it.workspace.updates.log("m")
    assert {row.prediction.arm for row in log.read()} == {"champion"}


def wait_for_shadows(it: Loop) -> None:
    trial = it.app.state.models.predictor("m").served.trial
    deadline = time.monotonic() + 10
    while trial is not None and not trial.idle and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_candidate_that_fails_is_answered_for_and_rolled_back(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = loop(el.Canary([30]))
    it.candidate(right=1.0)
    with TestClient(it.app) as client:
        it.look()

        def broken(rows: object) -> Any:
            raise RuntimeError("no")

        monkeypatch.setattr(it.app.state.models.predictor("m").served.trial, "ask", broken)
        for _ in range(10):
            given = it.traffic(client, 100)
            assert {item["version"] for item in given} == {1}
            if (decision := it.look()).action != "hold":
                break
        assert decision.action == "roll back"
        assert "fails to answer" in decision.reason


def test_while_one_is_running_no_trigger_fires_and_no_other_begins(loop: Any) -> None:
    it = loop(el.Canary([10]))
    it.candidate(right=1.0)
    decision = it.workspace.updates.trigger("m", it.workspace.registry.definition("m").number)
    assert decision.reason == "a rollout has not ended"
    result = it.handle.train(history(it.folder / "third.csv", 500, seed=2))
    assert result.decision.action == "hold"
    assert "rollout" in result.decision.reason
    with TestClient(it.app) as client:
        assert client.post(f"{URL}/rollouts/stop").json()["state"] == "stopped"
        assert client.post(f"{URL}/rollouts/stop").status_code == 422
        assert client.get(f"{URL}/rollouts/99").status_code == 404
    assert it.workspace.registry.champion("m").number == 1


def test_a_champion_that_moved_ends_it(loop: Any) -> None:
    it = loop(el.Canary([10]))
    it.candidate(right=1.0)
    it.workspace.registry.promote("m", 2, expected=1, reason="by hand")
    decision = it.look()
    assert decision is not None
    assert decision.action == "stop"
    assert it.workspace.rollouts.running("m") is None


def test_keys_that_ask_often_are_no_wrong_share(loop: Any) -> None:
    it = loop(el.Canary([30], margin=0.5, labels=200))
    it.candidate(right=1.0)
    with TestClient(it.app) as client:
        it.look()
        for _ in range(30):  # each key asks hundreds of times, always in the same arm
            it.traffic(client, 500, users=40)
            decision = it.look()
            assert "traffic" not in decision.reason
            if decision.action == "promote":
                break
    assert decision.action == "promote"
    with it.workspace.registry.database.read() as connection:
        assert (
            connection.execute(sa.select(sa.func.count()).select_from(rollout_keys)).scalar() == 0
        )


def test_keys_that_are_counted_when_it_is_over_are_not_kept(loop: Any) -> None:
    it = loop(el.Canary([50], margin=0.0, labels=100_000))
    it.candidate(right=1.0)
    rollout = it.workspace.rollouts.running("m")
    it.workspace.rollouts.count(rollout, {}, {}, {1: "champion"})
    it.workspace.rollouts.stop("m", "enough")
    it.workspace.rollouts.count(rollout, {}, {}, {2: "champion"})  # by a server that knew it not
    with it.workspace.registry.database.read() as connection:
        assert store.keys(connection, rollout.id, rollout.stage) == {}


def test_labels_of_a_source_in_quarantine_judge_nobody(loop: Any) -> None:
    it = loop(el.Canary([50], margin=0.0, labels=100_000))
    it.candidate(right=1.0)
    log = it.workspace.updates.log("m")
    Quarantine(log.database, log.model).put("liar", Decision("quarantine", "it lies"), 0)
    with TestClient(it.app) as client:
        it.look()
        rows = [{"x": float(x)} for x in it.random.normal(size=40)]
        given = client.post(f"{URL}/predict", json={"instances": rows}).json()["predictions"]
        said = [
            {"prediction_id": item["id"], "value": 1, "source": "liar" if n < 10 else "honest"}
            for n, item in enumerate(given)
        ]
        client.post(f"{URL}/feedback", json={"labels": said})
        it.look()
    seen = it.workspace.rollouts.running("m").seen
    assert seen["candidate"]["n"] + seen["champion"]["n"] == 30


def test_keys_are_counted_once_whoever_met_them(loop: Any) -> None:
    it = loop(el.Canary([50], margin=0.0, labels=100_000))
    it.candidate(right=1.0)
    other = el.open(it.folder / "workspace").app(["m"], learn=False)
    for app in (it.app, other):
        with TestClient(app) as client:
            app.state.models.refresh()
            it.traffic(client, 400, users=50)
            app.state.models.refresh()
    rollout = it.workspace.rollouts.running("m")
    with it.workspace.registry.database.read() as connection:
        assert sum(store.keys(connection, rollout.id, rollout.stage).values()) == 50


def test_a_look_that_changes_nothing_waits_for_nobody_who_writes(loop: Any) -> None:
    it = loop(el.Shadow())
    it.candidate(right=1.0)
    before = it.workspace.rollouts.look("m")
    found: list[Decision | None] = []
    looking = threading.Thread(target=lambda: found.append(it.workspace.rollouts.look("m")))
    with it.workspace.database.write():
        looking.start()
        looking.join(10.0)
        assert [one.action for one in found if one] == [before.action] == ["hold"]


def test_a_shadow_that_hangs_holds_nothing_up(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    it = loop(el.Shadow())
    it.candidate(right=1.0)
    goes_on = threading.Event()
    with TestClient(it.app) as client:
        it.look()
        trial = it.app.state.models.predictor("m").served.trial
        monkeypatch.setattr(trial, "ask", lambda rows: [None] * len(rows) * goes_on.wait(60))
        monkeypatch.setattr("everlearn.serving.trial.WAITING", 12)
        for _ in range(8):
            assert {item["version"] for item in it.traffic(client, 5)} == {1}
        assert not trial.idle and trial._waiting == 15  # rows: three times 5, and no more
        assert client.post(f"{URL}/rollouts/stop").json()["state"] == "stopped"
        assert it.app.state.models.predictor("m").served.trial is None
    goes_on.set()


def test_promoted_is_said_only_once_a_server_answers_with_it(loop: Any) -> None:
    it = loop(el.Canary([50], margin=0.2, labels=100))
    it.candidate(right=1.0)
    models, rollouts = it.app.state.models, it.workspace.rollouts
    models.refresh()
    client = TestClient(it.app)  # without its threads: nothing follows by itself
    for _ in range(40):
        it.traffic(client, 300)
        models.refresh()
        if (decision := rollouts.look("m")).action == "promote":
            break
    assert decision.action == "promote", decision
    assert it.workspace.registry.champion("m").number == 2
    assert client.get(URL).json()["serving"]["version"] == 1
    (one,) = rollouts.listed("m")
    assert (one.state, one.ended_at is not None) == ("promoting", True)
    models.refresh()
    (one,) = rollouts.listed("m")
    assert one.state == "promoted"
    assert client.get(URL).json()["serving"]["version"] == 2
    models.refresh()
    actions = [item["action"] for item in rollouts.show("m", one.id)["decisions"]]
    assert actions.count("promoted") == 1
