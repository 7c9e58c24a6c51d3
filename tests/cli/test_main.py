"""The program: help, usage, and what it must not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from everlearn import __version__
from everlearn.cli import ERROR, OK, USAGE, main

COMMANDS = [
    "compare",
    "train",
    "worker",
    "predict",
    "versions",
    "history",
    "diff",
    "promote",
    "rollback",
    "refuse",
    "export",
    "import",
    "copy",
    "backup",
    "gc",
    "job",
]

SLOW = ("sklearn", "scipy", "pandas", "polars", "plotly", "sqlalchemy", "pyarrow", "alembic")


def modules_after(code: str) -> set[str]:
    """Names of the top-level modules that a fresh process has loaded after running the code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules, sep='\\n')"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stdout.splitlines()}


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == OK
    written = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  {command} " in written


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == OK
    assert command in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == OK
    assert capsys.readouterr().out == f"everlearn {__version__}\n"


def test_wrong_calls_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-command"]) == USAGE
    assert main(["train"]) == USAGE
    assert main(["versions", "m", "--no-such-option"]) == USAGE
    assert main(["rollback", "m", "--to", "three"]) == USAGE
    assert "--to" in capsys.readouterr().err


def test_a_workspace_that_is_not_there_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "ws"
    assert main(["--workspace", str(missing), "versions", "bills"]) == ERROR
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("error: ")
    assert str(missing) in written.err
    assert not missing.exists()


def test_the_environment_names_the_workspace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERLEARN_WORKSPACE", str(tmp_path / "from-environment"))
    assert main(["versions", "bills"]) == ERROR
    assert "from-environment" in capsys.readouterr().err


def test_help_and_import_load_nothing_slow() -> None:
    assert not modules_after("import everlearn") & {*SLOW, "typer", "rich", "numpy"}
    loaded = modules_after("from everlearn.cli import main\nmain(['--help'])")
    assert not loaded & set(SLOW)
    learning = modules_after("import everlearn.workspace")
    assert not learning & {"sklearn", "scipy", "pandas", "polars", "plotly", "numba", "fastapi"}
