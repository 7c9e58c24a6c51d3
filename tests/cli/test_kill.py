"""A command that is killed, and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.cli.conftest import Shell


def run(shell: Shell, crash: str = "") -> subprocess.CompletedProcess[str]:
    """Train in a process of its own, which kills itself where `crash` says."""
    words = ["--workspace", str(shell.workspace), "train"]
    words += [str(shell.spec), str(shell.rows), "--json"]
    return subprocess.run(
        [sys.executable, "-m", "everlearn.cli", *words],
        env={**os.environ, "EVERLEARN_CRASH": crash, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("crash", ["learn.step:3", "job.judged", "job.committed"])
def test_a_killed_command_run_again_ends_in_the_same_state(shell: Shell, crash: str) -> None:
    killed = run(shell, crash)
    assert killed.returncode == -signal.SIGKILL
    again = run(shell)
    assert again.returncode == 0, again.stderr
    done = json.loads(again.stdout)
    assert (done["version"], done["decision"]["action"]) == (1, "promote")
    whole = shell.folder / "whole"
    shell.json("train", shell.spec, shell.rows, workspace=whole)
    [there] = shell.json("versions", "bills", workspace=whole)
    [here] = shell.json("versions", "bills")
    assert here["state_digest"] == there["state_digest"]
    assert here["increments"][0]["rows"] == there["increments"][0]["rows"]


def test_ctrl_c_says_how_to_go_on(shell: Shell) -> None:
    words = ["--workspace", str(shell.workspace), "train", str(shell.spec), str(shell.rows)]
    interrupt = (
        "import os, signal, everlearn.jobs.learn as learn\n"
        "learn.crash_point = lambda name: os.kill(os.getpid(), signal.SIGINT)\n"
        "from everlearn.cli import main\n"
        f"raise SystemExit(main({words!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", interrupt], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130, done.stderr
    assert "run the same command again" in done.stderr
    assert shell.train()["version"] == 1
