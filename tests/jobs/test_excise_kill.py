"""An excision that is killed is done whole or not at all, and its job goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import everlearn as el
from tests.jobs.scenarios import models, write_files

NAME = "reservoir"
WHERE = "x0 >= 0.7"
SCRIPT = """
import sys
import everlearn as el
from everlearn.jobs.checkpoint import Pace

with el.open(sys.argv[1]) as workspace:
    workspace.runner.pace = lambda: Pace(seconds=0.0, rows=100)
    workspace.model(sys.argv[2]).repair.excise(where=sys.argv[3])
"""


def excised(folder: Path, crash: str = "") -> int:
    """Excise in a process of its own; how it ended."""
    environment = os.environ | {"EVERLEARN_CRASH": crash}
    command = [sys.executable, "-c", SCRIPT, str(folder / "workspace"), NAME, WHERE]
    return subprocess.run(command, env=environment, check=False, cwd=folder).returncode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace in which two files were learned."""
    with el.open(tmp_path / "workspace") as workspace:
        handle = workspace.model(models()[NAME])
        for file in write_files(tmp_path / "files", rows=300):
            handle.train(file)
    return tmp_path


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The state in which an excision ends that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with el.open(folder / "workspace") as workspace:
        handle = workspace.model(models()[NAME])
        for file in write_files(folder / "files", rows=300):
            handle.train(file)
        handle.repair.excise(where=WHERE)
        return str(handle.versions()[-1]["state_digest"])


@pytest.mark.parametrize(
    ("crash", "withdrawn"),
    [
        ("excise.prepared", 0),
        ("excise.committing", 0),
        ("excise.committed", 1),
        ("learn.step:13", 1),  # in the second of the increments that are folded again
        ("job.committing", 1),
    ],
)
def test_killed_it_ends_as_if_nothing_had_been(
    folder: Path, wanted: str, crash: str, withdrawn: int
) -> None:
    assert excised(folder, crash) == -signal.SIGKILL
    with el.open(folder / "workspace") as workspace:
        handle = workspace.model(models()[NAME])
        assert len(handle.repair.withdrawals()) == withdrawn
        assert len(handle.versions()) == 2
        if withdrawn:
            (job,) = workspace.queue.jobs(NAME, ("queued", "running", "committed"))
            assert job.id == 3
            workspace.run(job.id)
        else:
            handle.repair.excise(where=WHERE)
        assert handle.versions()[-1]["state_digest"] == wanted
        assert handle.champion() == 3
        assert len(handle.repair.withdrawals()) == 1
