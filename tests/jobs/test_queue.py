"""Claims, failures, pauses between attempts, dead letters, retry and skip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import everlearn as el
from everlearn.base import ConflictError, InputError, LeaseLostError, NotFoundError, StorageError
from everlearn.cli import main
from everlearn.jobs import queue as module
from everlearn.jobs.queue import MAX_ATTEMPTS, Job
from everlearn.jobs.worker import work
from tests.jobs.scenarios import models

MODEL = "plain"


class Clock:
    """The time that the queue sees, in seconds from now."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offset, real = 0.0, module.now
        monkeypatch.setattr(module, "now", lambda: real() + int(self.offset * 1e6))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[el.Workspace]:
    with el.open(tmp_path / "workspace") as opened:
        yield opened


@pytest.fixture
def job(ws: el.Workspace, files: list[str]) -> int:
    """A job that is queued."""
    planned = ws.model(models()[MODEL]).plan(files[0])
    assert isinstance(planned, int)
    return planned


def failing(error: Exception) -> Callable[..., None]:
    """A runner that cannot do it."""

    def run(job: Job, check: Callable[[], None]) -> None:
        check()
        raise error

    return run


def attempt(ws: el.Workspace, error: Exception) -> list[str | None]:
    """Let a worker try what is due; returns the errors that it reports."""
    errors: list[str | None] = []
    work(ws.queue, failing(error), once=True, report=lambda job, _, told: errors.append(told))
    return errors


def test_pauses_between_attempts_double_until_the_job_is_dead(
    ws: el.Workspace, job: int, clock: Clock
) -> None:
    for number in range(1, MAX_ATTEMPTS + 1):
        assert attempt(ws, StorageError("the network is away")) == ["the network is away"]
        found = ws.job(job)
        assert found.attempts == number
        assert found.error == "the network is away"
        if number == MAX_ATTEMPTS:
            break
        assert found.state == "queued"
        pause = 2.0**number
        assert pause - 1 < (found.not_before - module.now()) / 1e6 <= pause
        assert attempt(ws, StorageError("not due")) == []
        clock.offset += pause
    assert ws.job(job).state == "dead"
    assert ws.job(job).finished_at is not None
    clock.offset += 1e6
    assert attempt(ws, StorageError("is dead")) == []


def test_an_error_that_nobody_foresaw_is_written_down_with_its_place(
    ws: el.Workspace, job: int
) -> None:
    attempt(ws, ZeroDivisionError("by zero"))
    found = ws.job(job)
    assert found.state == "queued" and found.error is not None
    assert "ZeroDivisionError: by zero" in found.error and "test_queue.py" in found.error


def test_wrong_input_fails_at_once(ws: el.Workspace, job: int) -> None:
    attempt(ws, InputError("column 'x' is gone"))
    assert (ws.job(job).state, ws.job(job).error) == ("failed", "column 'x' is gone")


def test_a_dead_job_is_retried_by_hand_and_learns_all(
    ws: el.Workspace, job: int, clock: Clock
) -> None:
    for _ in range(MAX_ATTEMPTS):
        attempt(ws, StorageError("away"))
        clock.offset += 1000
    ws.retry(job)
    assert (ws.job(job).state, ws.job(job).attempts) == ("queued", 0)
    with pytest.raises(ConflictError, match="queued and cannot be retried"):
        ws.retry(job)
    assert ws.work(once=True) == 1
    assert (ws.job(job).state, ws.job(job).version) == ("done", 1)
    for change in (ws.retry, ws.skip):
        with pytest.raises(ConflictError, match="done"):
            change(job)


def test_a_skipped_job_leaves_its_rows_unlearned(
    ws: el.Workspace, job: int, files: list[str]
) -> None:
    handle = ws.model(MODEL)
    ws.skip(job, "not these")
    assert (ws.job(job).state, ws.job(job).error) == ("skipped", "not these")
    assert ws.work(once=True) == 0
    assert handle.versions() == []
    result = handle.train(files[0])  # nothing of it was learned, so all of it is new
    assert result.version == 1 and result.job != job


def test_a_job_that_runs_can_be_neither_retried_nor_skipped(ws: el.Workspace, job: int) -> None:
    assert ws.queue.claim("somebody") is not None
    for change in (ws.retry, ws.skip):
        with pytest.raises(ConflictError, match="running"):
            change(job)
    with pytest.raises(NotFoundError, match="job 99"):
        ws.retry(99)


def test_retry_and_skip_as_commands(
    ws: el.Workspace, job: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*words: str) -> int:
        return int(main(["--workspace", str(tmp_path / "workspace"), "job", *words]))

    attempt(ws, InputError("bad"))
    assert command("retry", str(job)) == 0
    assert ws.job(job).state == "queued"
    assert command("skip", str(job)) == 0
    assert ws.job(job).state == "skipped"
    assert command("retry", "77") == 1
    assert "job 77" in capsys.readouterr().err


def test_a_token_is_good_for_one_claim(ws: el.Workspace, job: int, clock: Clock) -> None:
    first = ws.queue.claim("a:1:2")
    assert first is not None
    clock.offset += 31
    second = ws.queue.claim("b:1:2")
    assert second is not None and second.token == first.token + 1
    acts: list[Callable[[], Any]] = [
        lambda: ws.queue.heartbeat(first),
        lambda: ws.queue.checkpoint(first, {"rows": 1}),
        lambda: ws.queue.fail(first, "late", retry=True),
        lambda: ws.queue.release(first),
    ]
    for act in acts:
        with pytest.raises(LeaseLostError, match="taken over"):
            act()
    assert ws.job(job).checkpoint is None
    ws.queue.heartbeat(second)


def test_one_job_of_a_model_at_a_time_and_others_beside_it(
    ws: el.Workspace, job: int, files: list[str]
) -> None:
    other = ws.model(models()["gate"]).plan(files[0])
    assert [ws.queue.claim("one").id, ws.queue.claim("two").id] == [job, other]  # type: ignore[union-attr]
    assert ws.queue.claim("three") is None


def test_an_interrupted_job_is_due_again_at_once(ws: el.Workspace, job: int) -> None:
    class Interrupt:
        def __call__(self, job: Job, check: Callable[[], None]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(ws.queue, Interrupt(), once=True)
    found = ws.job(job)
    assert (found.state, found.attempts, found.worker) == ("queued", 0, None)
    assert ws.queue.claim("next") is not None
