"""`everlearn train`, killed and run again: what outside scripts rely on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.jobs.checks import summary
from tests.jobs.scenarios import table, write

SPEC = """
import time
from sklearn.linear_model import SGDClassifier
import everlearn as el

class Slow(SGDClassifier):
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        time.sleep(0.004)
        return super().partial_fit(X, y, classes, sample_weight)

model = el.Model(
    "flights",
    learner=Slow(loss="log_loss"),
    schema=el.Schema(target="late", time="at", id="id"),
    strategy=el.Strategy(memory=el.Reservoir(500)),
)
"""
ROWS = 3_000


def train(folder: Path, workspace: str, crash: str = "") -> subprocess.CompletedProcess[str]:
    """The command; it takes more than a second, so that it writes a checkpoint."""
    words = ["--workspace", str(folder / workspace), "train", str(folder / "flights.py")]
    words += [str(folder / "rows.csv"), "--chunk", "10", "--json"]
    return subprocess.run(
        [sys.executable, "-m", "everlearn.cli", *words],
        env={**os.environ, "EVERLEARN_CRASH": crash, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_killed_command_goes_on_from_its_checkpoint_and_ends_bit_equal(tmp_path: Path) -> None:
    (tmp_path / "flights.py").write_text(SPEC)
    write(tmp_path / "rows.csv", table(ROWS, seed=5))
    killed = train(tmp_path, "killed", crash="checkpoint.committed:1")
    assert killed.returncode == -signal.SIGKILL
    again = train(tmp_path, "killed")
    assert again.returncode == 0, again.stderr
    done = json.loads(again.stdout)
    assert 0 < done["resumed_from"] < ROWS
    said = [int(rows) for rows in re.findall(r"rows=(\d+)", again.stderr)]
    assert said and said[0] >= done["resumed_from"] and said == sorted(said)
    assert said[-1] == done["rows"]
    whole = train(tmp_path, "whole")
    assert whole.returncode == 0
    assert json.loads(whole.stdout)["resumed_from"] == 0
    assert summary(tmp_path / "killed", "flights") == summary(tmp_path / "whole", "flights")
    nothing = json.loads(train(tmp_path, "killed").stdout)
    assert (nothing["version"], nothing["decision"]["action"]) == (None, "nothing")
