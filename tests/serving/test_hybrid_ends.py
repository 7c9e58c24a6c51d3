"""How a candidate's catching up ends, and jobs that are retried late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from everlearn.base import ConflictError, Decision
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.jobs import catchup
from everlearn.jobs import run as runs
from everlearn.jobs.guard import Guard
from everlearn.registry import leases
from everlearn.serving import cutter, rival
from tests.serving.local import LocalClient as TestClient
from tests.serving.test_hybrid import RETRAINED, history, plan
from tests.serving.test_online import URL, Loop, until


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Loop]:
    loop = Loop(tmp_path, strategy=RETRAINED, rows=100_000, margin=10.0)
    yield loop
    loop.workspace.close()


def decision(it: Loop, job: int) -> dict[str, object]:
    found: dict[str, object] = it.workspace.job(job).decision
    return found


def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate never gets to the end."""
    monkeypatch.setattr(rival, "PART", 1)
    monkeypatch.setattr(rival, "TURN_SECONDS", 1e-9)


def test_a_candidate_of_a_live_model_that_the_guard_refuses_is_refused_too(
    it: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly(monkeypatch)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 60)
        job = plan(it)
        last = it.teach(client, 300)
        assert until(lambda: it.position(client) == last)
        it.workspace.run(job)  # and the candidate begins to catch up
        with monkeypatch.context() as patch:
            worse = Decision("refuse", "live, the loss is larger")
            patch.setattr(Guard, "decide", lambda guard: worse)
            assert until(lambda: decision(it, job)["action"] == "refuse")
        assert "version 3" in str(decision(it, job)["reason"])
        last = it.teach(client, 5)
        assert until(lambda: it.position(client) == last)
    assert history(it, "candidate")[:3] == [("catch up", 2), ("refuse", 2), ("refuse", 3)]
    assert it.workspace.registry.champion("m").number == 1  # type: ignore[union-attr]
    assert isinstance(plan(it), int)  # nothing is in its way


def test_an_operator_refuses_a_candidate_that_is_catching_up(it: Loop) -> None:
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 60)
        assert client.post(f"{URL}/refuse").status_code == 409
    job = plan(it)
    it.workspace.run(job)  # no server, which would catch up
    with pytest.raises(ConflictError, match="and not version 7"):
        it.handle.refuse(7)
    assert it.handle.refuse(2, reason="not today")["action"] == "refuse"
    assert decision(it, job)["reason"] == "not today"
    assert history(it, "candidate") == [("catch up", 2), ("refuse", 2)]
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        assert until(lambda: it.position(client) == 60)
        assert client.get(URL).json()["champion"] == 1
        assert client.get(f"{URL}/jobs").json()["jobs"][-1]["decision"]["action"] == "refuse"


def test_one_that_is_refused_over_http_while_it_is_about_to_be_promoted(
    it: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, refused = catchup.judge, []

    with TestClient(it.workspace.app(["m"], learn=False)) as client:

        def refuse_meanwhile(*given: object) -> Decision:
            body = {"version": 2, "reason": "too late?"}
            refused.append(client.post(f"{URL}/refuse", json=body).status_code)
            return judge(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(catchup, "judge", refuse_meanwhile)
        it.teach(client, 60)
        job = plan(it)
        it.workspace.run(job)
        assert until(lambda: decision(it, job)["action"] == "refuse")
        last = it.teach(client, 5)
        assert until(lambda: it.position(client) == last)
        assert client.get(URL).json()["champion"] == 1 and refused[0] == 200
    (entry,) = [one for one in it.workspace.audit.listed(50) if "refuse" in one["action"]][-1:]
    assert entry["model"] == "m" and entry["status"] == 200


@pytest.mark.parametrize(("promoted", "action"), [(2, "promote"), (3, "refuse")])
def test_a_champion_that_was_made_by_hand_ends_the_catching_up(
    it: Loop, promoted: int, action: str
) -> None:
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 60)
    job = plan(it)
    it.workspace.run(job)
    if promoted == 3:  # another one
        path = it.folder / "copy"
        it.handle.export(1, path)
        assert it.workspace.import_version(path)["number"] == 3
    it.workspace.registry.promote("m", promoted, expected=1, reason="by hand")
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        assert until(lambda: decision(it, job)["action"] == action)
        assert client.get(URL).json()["champion"] == promoted


def test_it_ends_by_a_server_that_leads_only_later(
    it: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutter, "LEASE_SECONDS", 0.3)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 60)
    job = plan(it)
    it.workspace.run(job)
    it.workspace.registry.promote("m", 2, expected=1, reason="by hand")
    with it.workspace.database.write() as connection:
        leases.take(connection, "m", "a server that was killed", 1.0)
    with TestClient(it.workspace.app(["m"], learn=False)):
        assert until(lambda: decision(it, job)["action"] == "promote", 10.0)


@pytest.mark.parametrize("lives", [True, False])
def test_it_ends_where_nothing_is_learned_online_any_more(
    it: Loop, monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
    slowly(monkeypatch)
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 60)
        job = plan(it)
        last = it.teach(client, 300)
        assert until(lambda: it.position(client) == last)
        it.workspace.run(job)
        if lives:
            it.handle = it.workspace.model(it.model.replace(triggers=[]))
            assert until(lambda: decision(it, job)["action"] == "promote")
    it.handle = it.workspace.model(it.model.replace(triggers=[]))
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        assert until(lambda: decision(it, job)["action"] == "promote")
        assert until(lambda: it.ask(client, 0.3)[0]["version"] == 2)
    assert it.workspace.run(plan(it)).decision.action == "promote"
    assert [taken(it, number) for number in (2, 3)] == [[(0, 60)], [(0, 60), (60, 360)]]


# --- jobs that are retried after others have learned ---


def dies(it: Loop, monkeypatch: pytest.MonkeyPatch) -> int:
    """A job that is dead."""
    job = plan(it)
    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "carry_out", lambda run: 1 / 0)
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                it.workspace.run(job)
    assert it.workspace.job(job).state == "dead"
    return job


def held_out(it: Loop, number: int) -> set[int]:
    version = it.workspace.registry.version("m", number)
    held = HoldOuts.load(it.workspace.registry.holdouts("m", version))
    return {int(one) for period in held.periods for one in period.batch.ids}


def taken(it: Loop, number: int) -> list[tuple[int, int]]:
    learned = it.workspace.registry.learned("m", number)
    return [(one.start, one.stop) for _, one in learned if one.source == "feedback"]


def batch_model(it: Loop) -> None:
    """Labels are learned by jobs alone."""
    it.handle = it.workspace.model(it.model.replace(triggers=[], strategy=None, holdout=0.3))


def log(it: Loop, rows: int) -> None:
    x = it.random.normal(size=rows)
    given = it.handle.predict([{"x": float(value)} for value in x])
    for one, value in zip(given, x, strict=True):
        it.handle.feedback(one.id, int(value > 0))


def test_a_job_whose_rows_were_learned_since_is_not_retried(
    it: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_model(it)
    log(it, 30)
    job = dies(it, monkeypatch)
    log(it, 20)
    assert it.handle.update().decision.action == "promote"
    with pytest.raises(ConflictError, match=f"job skip {job}"):
        it.workspace.retry(job)
    it.workspace.skip(job)
    log(it, 10)
    assert it.handle.update().version == 3
    assert taken(it, 3) == [(0, 50), (50, 60)]


def test_a_job_that_is_retried_after_a_refused_one_learns_its_rows_once_and_loses_no_held_out_row(
    it: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_model(it)
    log(it, 30)
    job = dies(it, monkeypatch)
    log(it, 60)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "try_candidate", lambda *given, **more: Decision("refuse", "worse"))
        assert it.handle.update().decision.action == "refuse"  # version 2, of 90 labels
    it.workspace.retry(job)
    assert it.workspace.run(job).decision.action == "promote"  # version 3, of the first 30
    log(it, 20)
    assert it.handle.update().version == 4
    assert taken(it, 4) == [(0, 30), (90, 110)]  # what version 2 alone learned is on hold
    assert held_out(it, 4) >= held_out(it, 2) > held_out(it, 3)


def test_a_hybrid_job_that_is_retried_learns_online_what_came_since(
    it: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        it.teach(client, 60)
        job = dies(it, monkeypatch)
        last = it.teach(client, 40)
        assert until(lambda: it.position(client) == last)
    it.workspace.run(plan(it))  # version 2, of 100 labels, is to catch up
    with pytest.raises(ConflictError, match="catching up"):
        it.workspace.retry(job)
    it.handle.refuse()
    assert it.workspace.audit.listed(1)[0]["detail"]["version"] == 2
    it.workspace.retry(job)
    it.workspace.run(job)  # version 3
    with TestClient(it.workspace.app(["m"], learn=False)) as client:
        assert until(lambda: client.get(URL).json()["champion"] == 4)
        assert it.position(client) == last
    assert taken(it, 4) == [(0, 60), (60, 100)]
