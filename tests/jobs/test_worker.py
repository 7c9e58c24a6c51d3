"""Leases: a living worker keeps its job, a dead one's is taken at once, a stopped one's in time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import everlearn as el
from everlearn.base import ConflictError, StorageError
from everlearn.jobs.queue import Job
from tests.jobs.checks import check_any_moment, summary
from tests.jobs.conftest import Uninterrupted
from tests.jobs.driver import Driver
from tests.jobs.scenarios import CHECKPOINT_ROWS

MODEL = "reservoir"


@pytest.fixture
def run(tmp_path: Path, files: list[str]) -> dict[str, Any]:
    """Options of a run: one job."""
    return {"workspace": str(tmp_path / "workspace"), "model": MODEL, "files": files[:1]}


def resumed(results: list[dict[str, Any]]) -> int:
    """From where the one job of a worker went on."""
    [told] = results
    assert told["error"] is None
    return int(told["result"]["resumed_from"])


@pytest.mark.parametrize(
    "moment",
    ["learn.step:3", "checkpoint.saved:2", "checkpoint.committed:2", "job.saved", "job.committed"],
)
def test_a_worker_stopped_past_its_lease_cannot_commit(
    moment: str, driver: Driver, run: dict[str, Any], uninterrupted: Uninterrupted
) -> None:
    workspace = Path(run["workspace"])
    expected, _ = uninterrupted(MODEL)
    stopped = driver.start(**run, lease_seconds=0.8, stop_at=moment)
    driver.wait_until_stopped(stopped)
    try:
        time.sleep(0.9)
        other = driver.run(**run, task="worker")
        resumed_from = resumed(other.results)
        assert (resumed_from > 0) == moment.startswith(("checkpoint", "job.saved"))
        before = summary(workspace, MODEL)
    finally:
        os.kill(stopped, signal.SIGCONT)
    late = driver.wait(stopped)
    assert late.error is not None and late.error.startswith("LeaseLostError"), late.error
    assert "taken over" in late.error
    after = summary(workspace, MODEL)
    assert after == before
    assert [item["state_digest"] for item in after] == [expected[0]["state_digest"]]
    check_any_moment(workspace, MODEL, expected)
    with el.open(workspace) as ws:
        [job] = ws.jobs()
        assert (job.state, job.version) == ("done", 1)
        assert ws.model(MODEL).champion() == 1


def test_a_late_worker_spoils_no_checkpoint_of_its_successor(
    driver: Driver, run: dict[str, Any], uninterrupted: Uninterrupted
) -> None:
    stopped = driver.start(**run, lease_seconds=0.8, stop_at="checkpoint.committed:1")
    driver.wait_until_stopped(stopped)
    time.sleep(0.9)
    assert driver.run(**run, task="worker", crash="checkpoint.committed:3").killed
    os.kill(stopped, signal.SIGCONT)  # it is about to delete what its checkpoint replaced
    late = driver.wait(stopped)
    assert late.error is not None and late.error.startswith("LeaseLostError")
    third = driver.run(**run, task="worker")
    assert resumed(third.results) >= 4 * CHECKPOINT_ROWS
    [version] = summary(Path(run["workspace"]), MODEL)
    assert version["state_digest"] == uninterrupted(MODEL)[0][0]["state_digest"]


def test_a_living_worker_keeps_its_job_beyond_the_lease(
    driver: Driver, run: dict[str, Any]
) -> None:
    with el.open(run["workspace"]) as ws:
        slow = driver.start(**run, lease_seconds=1.0, seconds_a_step=0.09)
        while not ws.jobs() or ws.jobs()[0].state == "queued":
            time.sleep(0.02)
        began, asked = time.monotonic(), 0
        while ws.jobs()[0].state != "done":
            assert ws.queue.claim("somebody else") is None
            asked += 1
            time.sleep(0.05)
        assert time.monotonic() - began > 1.5
        assert asked > 5
        assert driver.wait(slow).error is None
        assert ws.jobs()[0].attempts == 1


def test_the_job_of_a_dead_process_is_taken_at_once(driver: Driver, run: dict[str, Any]) -> None:
    assert driver.run(**run, lease_seconds=3600.0, crash="checkpoint.committed:2").killed
    with el.open(run["workspace"]) as ws:
        [job] = ws.jobs()
        assert job.state == "running" and job.lease_until is not None
        assert job.lease_until > time.time() * 1e6
    assert resumed(driver.run(**run, task="worker").results) >= 2 * CHECKPOINT_ROWS


def test_the_lease_of_another_machine_is_waited_for(
    driver: Driver, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert driver.run(**run, crash="checkpoint.committed:2", lease_seconds=2.0).killed
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    with el.open(run["workspace"]) as ws:
        until = ws.jobs()[0].lease_until
        assert until is not None
        monkeypatch.setattr("everlearn.jobs.queue.now", lambda: until - 1)
        assert ws.queue.claim("other") is None
        monkeypatch.setattr("everlearn.jobs.queue.now", lambda: until + 1)
        assert ws.queue.claim("other") is not None


def test_a_job_whose_workers_die_again_and_again_is_put_aside(
    driver: Driver, run: dict[str, Any], uninterrupted: Uninterrupted
) -> None:
    driver.run(**run, task="plan")
    for _ in range(5):
        assert driver.run(**run, task="worker", crash="learn.step:2").killed
    assert driver.run(**run, task="worker").results == []
    with el.open(run["workspace"]) as ws:
        [job] = ws.jobs()
        assert (job.state, job.attempts) == ("dead", 5)
        assert job.error == "its workers died again and again without an error"
        ws.retry(job.id)
    assert resumed(driver.run(**run, task="worker").results) == 0
    [version] = summary(Path(run["workspace"]), MODEL)
    assert version["state_digest"] == uninterrupted(MODEL)[0][0]["state_digest"]


def test_a_job_that_gets_on_between_deaths_is_not_put_aside(
    driver: Driver, run: dict[str, Any]
) -> None:
    driver.run(**run, task="plan")
    for _ in range(6):
        assert driver.run(**run, task="worker", crash="checkpoint.committed:1").killed
    assert resumed(driver.run(**run, task="worker").results) >= 6 * CHECKPOINT_ROWS


def test_a_worker_waits_for_a_database_that_fails_for_a_while(tmp_path: Path) -> None:
    with el.open(tmp_path / "workspace") as workspace:
        queue = workspace.queue
        claim, failures = queue.claim, iter([StorageError("gone"), ConflictError("deadlock")])

        def failing(worker: str, job_id: int | None = None) -> Job | None:
            for error in failures:
                raise error
            return claim(worker, job_id)

        queue.claim = failing  # type: ignore[method-assign]
        assert workspace.work(once=True) == 0
        assert next(failures, None) is None
