"""SIGKILL anywhere: the workspace is as before or after a commit, and the job ends bit-equal."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import everlearn as el
from tests.jobs.checks import check_any_moment, check_ended, summary
from tests.jobs.conftest import Uninterrupted
from tests.jobs.driver import ROOT, Driver
from tests.jobs.scenarios import CHECKPOINT_ROWS, ROWS, models, write_files

MODELS = list(models())
LENGTHS = [ROWS, ROWS // 2]

PASSAGES = [
    "learn.step:1",
    "learn.step:30",
    "checkpoint.saved:1",
    "checkpoint.saved:4",
    "checkpoint.committed:1",
    "checkpoint.committed:5",
    *(
        f"job.{step}:{number}"
        for step in ("judged", "saved", "committing", "committed", "done")
        for number in (1, 2)
    ),
]
"""Crash points, and at which passage; of "job.…" the second is in the second job."""

AT_POINTS = [
    (MODELS[(3 * k + shift) % len(MODELS)], passage)
    for k, passage in enumerate(PASSAGES)
    for shift in (0, 5)
] + [("scratch", "learn.relive:1"), ("scratch", "learn.relive:17")]

KILLS_EACH = 3
AT_RANDOM = [(model, seed) for model in MODELS for seed in range(KILLS_EACH)]


def test_every_crash_point_has_its_test() -> None:
    source = ROOT / "src" / "everlearn"
    found = {
        name
        for path in source.rglob("*.py")
        for name in re.findall(r'crash_point\("([^"]+)"\)', path.read_text())
    }
    here = {passage.partition(":")[0] for _, passage in AT_POINTS}
    assert here <= found
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    assert not [name for name in found - here if name not in tests]


@pytest.mark.parametrize(("model", "passage"), AT_POINTS)
def test_killed_at_a_crash_point(
    model: str,
    passage: str,
    driver: Driver,
    files: list[str],
    uninterrupted: Uninterrupted,
    tmp_path: Path,
) -> None:
    expected, _ = uninterrupted(model)
    workspace = tmp_path / "workspace"
    run = {"workspace": str(workspace), "model": model, "files": files}
    assert driver.run(**run, crash=passage).killed
    before = check_any_moment(workspace, model, expected)
    ended = driver.run(**run)
    assert ended.error is None
    check_ended(workspace, model, expected, LENGTHS)
    if passage == "checkpoint.committed:1":
        assert before == 0
        assert ended.results[0]["resumed_from"] >= CHECKPOINT_ROWS
    if passage == "job.committed:2":
        assert before == 2
        assert ended.results[0]["version"] == 2
        assert ended.results[0]["decision"]["action"] == "promote"


@pytest.mark.parametrize(("model", "seed"), AT_RANDOM)
def test_killed_at_random_moments(
    model: str,
    seed: int,
    driver: Driver,
    files: list[str],
    uninterrupted: Uninterrupted,
    tmp_path: Path,
) -> None:
    """By the number of a function call, or, for the last seed, by time and twice in a row."""
    expected, whole = uninterrupted(model)
    workspace = tmp_path / "workspace"
    run = {"workspace": str(workspace), "model": model, "files": files}
    moments = np.random.default_rng([seed, MODELS.index(model)]).uniform(size=2)
    if seed < KILLS_EACH - 1:
        driver.run(**run, kill_at_call=int(moments[0] * whole.calls))
        check_any_moment(workspace, model, expected)
    else:
        for moment in moments:
            driver.run(**run, kill_after=float(moment * whole.seconds / 2))
            check_any_moment(workspace, model, expected)
    assert driver.run(**run).error is None
    check_ended(workspace, model, expected, LENGTHS)


def test_a_file_that_is_gone_when_the_job_goes_on(
    driver: Driver, files: list[str], tmp_path: Path
) -> None:
    """The unfinished job fails with the file's name; after that, all else can be learned."""
    lost = str(shutil.copy(files[0], tmp_path / "lost.parquet"))
    run = {"workspace": str(tmp_path / "workspace"), "model": "plain"}
    assert driver.run(**run, files=[lost], crash="checkpoint.committed:2").killed
    os.remove(lost)
    failed = driver.run(**run, files=files[1:])
    assert failed.error is not None and failed.error.startswith("ChangedError")
    assert "lost.parquet" in failed.error
    again = driver.run(**run, files=files)
    assert again.error is None
    assert [result["version"] for result in again.results] == [1, 2]


def test_a_spec_that_changed_while_a_job_was_unfinished(
    driver: Driver, files: list[str], uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    """The job is finished by the definition that it was planned with; the next one has the new."""
    expected, _ = uninterrupted("plain")
    workspace = tmp_path / "workspace"
    run = {"workspace": str(workspace), "model": "plain", "files": files[:1]}
    assert driver.run(**run, crash="checkpoint.committed:2").killed
    changed = models()["plain"].replace(strategy=el.Strategy(memory=el.Reservoir(9), chunk=10))
    with el.open(workspace) as ws:
        handle = ws.model(changed)
        assert handle.train(files[0]).resumed_from > 0
        assert handle.train(files[1]).version == 2
        first, second = handle.versions()
    assert first["state_digest"] == expected[0]["state_digest"]
    assert second["strategy"]["params"]["chunk"] == 10


@pytest.mark.parametrize("model", ["ids", "scratch"])
def test_killed_when_there_are_blocks_that_versions_share(
    model: str, driver: Driver, tmp_path: Path
) -> None:
    """Enough rows for whole runs of ids and whole blocks of remembered and held-out rows."""
    rows = 70_000
    files = write_files(tmp_path, rows=rows)
    run = {"model": model, "files": files, "checkpoint_rows": 12_000, "chunk": 2000}
    assert driver.run(workspace=str(tmp_path / "whole"), **run).error is None
    expected = summary(tmp_path / "whole", model)
    killed = {"workspace": str(tmp_path / "killed"), **run}
    for passage in ("checkpoint.committed:4", "checkpoint.saved:1", "learn.step:15"):
        assert driver.run(**killed, crash=passage).killed
        check_any_moment(tmp_path / "killed", model, expected)
    assert driver.run(**killed).error is None
    check_ended(tmp_path / "killed", model, expected, [rows, rows // 2])
