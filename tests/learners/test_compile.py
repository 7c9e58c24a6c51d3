"""Kernels are compiled once a machine, compiled again when their source changed, and say so."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import everlearn

HEAD = "from everlearn.learners.native.compile import kernel\n"

INNER = HEAD + "@kernel\ndef scaled(x):\n    return x * {factor}\n"

MIDDLE = (
    HEAD
    + "from everlearn.learners.native.inner import scaled\n"
    + "@kernel\ndef squared(x):\n    return scaled(x) * scaled(x)\n"
)

OUTER = (
    HEAD
    + "from everlearn.learners.native.middle import squared\n"
    + "@kernel\ndef total(x):\n    return squared(x) + 1\n"
    + "@kernel\ndef other(x):\n    return squared(x) - 1\n"
)

USE = """
import json
from everlearn.learners.native import outer
values = [outer.total({x}), outer.other({x})]
stats = outer.total.stats
print(json.dumps({{
    "values": values,
    "compiled": sum(stats.cache_misses.values()),
    "loaded": sum(stats.cache_hits.values()),
    "folder": stats.cache_path,
}}))
"""

SAID = "everlearn: compiling kernels for this machine"


class Copy:
    """A copy of the package in a folder of its own, with three modules of kernels."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: dict[str, str] = {}
        self.native = folder / "everlearn" / "learners" / "native"
        source = Path(everlearn.__file__).parent
        shutil.copytree(
            source, folder / "everlearn", ignore=shutil.ignore_patterns("__pycache__", "*.html")
        )
        (self.native / "inner.py").write_text(INNER.format(factor=2))
        (self.native / "middle.py").write_text(MIDDLE)
        (self.native / "outer.py").write_text(OUTER)

    def start(self, x: str = "3", stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        known = {name: text for name, text in os.environ.items() if "CACHE" not in name}
        return subprocess.Popen(
            [sys.executable, "-c", USE.format(x=x)],
            env={
                **known,
                "PYTHONPATH": str(self.folder),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HOME": str(self.folder / "home"),
                **self.environment,
            },
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def use(self, x: str = "3") -> dict[str, Any]:
        """What a new process computed, and whether it compiled; it says nothing off a terminal."""
        out, err = self.start(x).communicate(timeout=120)
        assert err == ""
        return json.loads(out)  # type: ignore[no-any-return]

    def use_on_terminal(self) -> str:
        """What a new process says where its standard error is a terminal."""
        ours, theirs = pty.openpty()
        process = self.start(stderr=theirs)
        os.close(theirs)
        said = b""
        while piece := _read(ours):
            said += piece
        os.close(ours)
        assert process.stdout is not None
        with process.stdout:
            assert json.loads(process.stdout.read())["values"] == [37, 35]
        assert process.wait(60) == 0
        return said.decode()

    def block(self) -> None:
        """Let nobody write beside the source (root may write into any folder, but not a file)."""
        shutil.rmtree(self.native / "__pycache__", ignore_errors=True)
        (self.native / "__pycache__").write_text("in the way")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # what Linux says at the end
        return b""


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_a_second_process_compiles_nothing(copy: Copy) -> None:
    first, second = copy.use(), copy.use()
    assert first["values"] == second["values"] == [37, 35]
    assert (first["compiled"], first["loaded"]) == (1, 0)
    assert (second["compiled"], second["loaded"]) == (0, 1)
    assert first["folder"] == second["folder"] == str(copy.native / "__pycache__")


def test_a_module_that_changed_anywhere_below_is_compiled_again(copy: Copy) -> None:
    copy.use()
    (copy.native / "inner.py").write_text(INNER.format(factor=5))
    changed = copy.use()
    assert (changed["compiled"], changed["values"]) == (1, [226, 224])
    (copy.native / "aside.py").write_text("UNRELATED = 1\n")
    assert copy.use()["compiled"] == 0
    flags = copy.native / "compile.py"
    flags.write_text(flags.read_text() + "\n# other flags\n")
    assert copy.use()["compiled"] == 1


def test_a_terminal_is_told_once_and_only_if_there_is_a_wait(copy: Copy) -> None:
    cold = copy.use_on_terminal()
    assert cold.count(SAID) == cold.count("\n") == 1
    assert "kept on disk" in cold
    assert copy.use_on_terminal() == ""


def test_kernels_are_kept_for_the_user_where_the_source_cannot_be_written_to(copy: Copy) -> None:
    copy.block()
    first, second = copy.use(), copy.use()
    assert first["values"] == second["values"] == [37, 35]
    assert first["folder"].startswith(str(copy.folder / "home"))
    assert (first["compiled"], second["compiled"]) == (1, 0)


def test_kernels_are_kept_where_the_environment_says(copy: Copy) -> None:
    copy.environment = {"NUMBA_CACHE_DIR": str(copy.folder / "named")}
    assert copy.use()["folder"].startswith(str(copy.folder / "named"))
    assert copy.use()["compiled"] == 0


def test_nothing_can_be_written_anywhere(copy: Copy) -> None:
    copy.block()
    (copy.folder / "home").write_text("in the way")
    assert copy.use()["values"] == [37, 35]
    said = copy.use_on_terminal()
    assert said.count(SAID) == 1
    assert "NUMBA_CACHE_DIR" in said


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_files_that_were_cut_off_are_replaced(copy: Copy, ending: str) -> None:
    copy.use()
    files = list(copy.native.glob(f"__pycache__/*.{ending}"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = copy.use()
    assert (again["values"], again["compiled"]) == ([37, 35], 1)
    assert copy.use()["compiled"] == 0


def test_processes_that_compile_at_once_for_other_types(copy: Copy) -> None:
    """Neither loses, or mistakes for its own, what another kept meanwhile."""
    running = [copy.start(x) for x in ("3", "3.0", "True")]
    for process in running:
        process.communicate(timeout=120)
        assert process.returncode == 0
    for x, expected in (("3", [37, 35]), ("3.0", [37.0, 35.0]), ("True", [5, 3])):
        found = copy.use(x)
        assert (found["compiled"], found["values"]) == (0, expected)


def test_what_only_others_may_read_is_not_thrown_away(copy: Copy) -> None:
    """A folder may be shared by users whose files are closed to each other (here, to all)."""
    copy.use()
    lock = copy.native / "__pycache__" / "everlearn.lock"
    lock.unlink()
    lock.mkdir()
    kept = copy.use()
    assert (kept["values"], kept["compiled"]) == ([37, 35], 1)
    lock.rmdir()
    assert copy.use()["compiled"] == 0
