"""The same on PostgreSQL, where writers run side by side."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import everlearn as el
from everlearn.base import StorageError
from everlearn.testing.database import temporary_schema
from tests.jobs.checks import check_any_moment, check_ended, summary
from tests.jobs.conftest import Uninterrupted
from tests.jobs.driver import Driver
from tests.jobs.scenarios import ROWS

MODEL = "reservoir"
LENGTHS = [ROWS, ROWS // 2]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[str]:
    try:
        with temporary_schema() as url:
            yield f"{url}&blobs={tmp_path / 'blobs'}"
    except StorageError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    "passages",
    [
        ("checkpoint.saved:2", "checkpoint.committed:2"),
        ("job.committing:1", "job.committed:1", "job.done:1"),
        ("job.saved:2",),
    ],
)
def test_killed_at_crash_points(
    passages: tuple[str, ...],
    workspace: str,
    driver: Driver,
    files: list[str],
    uninterrupted: Uninterrupted,
) -> None:
    expected, _ = uninterrupted(MODEL)
    run = {"workspace": workspace, "model": MODEL, "files": files}
    for passage in passages:
        assert driver.run(**run, crash=passage).killed
        check_any_moment(workspace, MODEL, expected)
    ended = driver.run(**run)
    assert ended.error is None, ended.error
    check_ended(workspace, MODEL, expected, LENGTHS)


def test_a_worker_stopped_past_its_lease_cannot_commit(
    workspace: str, driver: Driver, files: list[str], uninterrupted: Uninterrupted
) -> None:
    expected, _ = uninterrupted(MODEL)
    run = {"workspace": workspace, "model": MODEL, "files": files[:1]}
    stopped = driver.start(**run, lease_seconds=0.8, stop_at="job.saved")
    driver.wait_until_stopped(stopped)
    try:
        time.sleep(0.9)
        [told] = driver.run(**run, task="worker").results
        assert told["error"] is None
    finally:
        os.kill(stopped, signal.SIGCONT)
    late = driver.wait(stopped)
    assert late.error is not None and late.error.startswith("LeaseLostError")
    found = [item["state_digest"] for item in summary(workspace, MODEL)]
    assert found == [expected[0]["state_digest"]]


def test_processes_with_the_same_files_learn_them_once(
    workspace: str, driver: Driver, files: list[str], uninterrupted: Uninterrupted
) -> None:
    run = {"workspace": workspace, "model": MODEL, "files": files}
    runs = [driver.start(**run) for _ in range(3)]
    assert [driver.wait(pid).error for pid in runs] == [None] * 3
    check_ended(workspace, MODEL, uninterrupted(MODEL)[0], LENGTHS)


def test_models_learn_at_once(
    workspace: str, driver: Driver, files: list[str], uninterrupted: Uninterrupted
) -> None:
    some = ("plain", "ids", "gate")
    runs = [driver.start(workspace=workspace, model=model, files=files) for model in some]
    assert [driver.wait(pid).error for pid in runs] == [None] * 3
    for model in some:
        check_ended(workspace, model, uninterrupted(model)[0], LENGTHS)
    with el.open(workspace) as ws:
        assert ws.registry.models() == sorted(some)
