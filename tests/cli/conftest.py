"""A small workspace to run commands in, and a way to run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everlearn.cli import main

SPEC = """
from sklearn.linear_model import SGDClassifier
import everlearn as el

model = el.Model(
    "bills",
    learner=SGDClassifier(loss="log_loss", random_state=0),
    schema=el.Schema(target="late"),
    strategy=el.Strategy(memory=el.Reservoir(100), chunk=50),
)
"""


def write_rows(path: Path, n: int, seed: int = 0, share: float | None = None) -> Path:
    """A CSV file of n rows: two numbers that decide `late`, or noise with a share of ones."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)).round(4)
    late = (x.sum(axis=1) > 0) if share is None else (rng.random(n) < share)
    lines = [f"{a},{b},{int(y)}\n" for (a, b), y in zip(x.tolist(), late, strict=True)]
    path.write_text("a,b,late\n" + "".join(lines))
    return path


class Shell:
    """Runs commands in one workspace, in this process.

    Args:
        folder: of the spec and of the data; the workspace is below it.
    """

    def __init__(self, folder: Path, captured: pytest.CaptureFixture[str]) -> None:
        self.folder, self.workspace = folder, folder / "workspace"
        self.spec = folder / "bills.py"
        self.spec.write_text(SPEC)
        self.rows = write_rows(folder / "rows.csv", 400)
        self._captured = captured
        self.error = ""

    def __call__(self, *words: object, code: int = 0, workspace: Path | None = None) -> str:
        """Run a command, check its exit code, and return what it printed."""
        self._captured.readouterr()
        where = ["--workspace", str(workspace or self.workspace)]
        got = main([*where, *map(str, words)])
        written = self._captured.readouterr()
        self.error = written.err
        assert got == code, written.err
        assert "Traceback" not in written.err
        return written.out

    def json(self, *words: object, code: int = 0, workspace: Path | None = None) -> Any:
        """The same with --json, parsed."""
        return json.loads(self(*words, "--json", code=code, workspace=workspace))

    def train(self, *words: object, code: int = 0) -> Any:
        """Train on the first file, or on others."""
        return self.json("train", self.spec, *(words or (self.rows,)), code=code)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


@pytest.fixture
def trained(shell: Shell) -> Shell:
    """Two versions: 400 rows, then 200 more of another file."""
    shell.train()
    shell.train(write_rows(shell.folder / "more.csv", 200, seed=1))
    return shell
