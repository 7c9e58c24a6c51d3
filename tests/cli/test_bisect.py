"""`bisect` on the command line: what it prints, and where its progress goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.cli.conftest import Shell
from tests.jobs.poisoned import BAD, BOT, GOOD, POISONED, poisoned, table

WORDS = ("bisect", "m", "--metric", "log_loss", "--good", GOOD, "--bad", BAD, "--jobs", 1)


@pytest.fixture
def bad(shell: Shell) -> Any:
    """A workspace with a poisoned model, and rows to judge on."""
    poisoned(shell.folder).close()
    pyarrow.parquet.write_table(pa.table(table(99, 500)), shell.folder / "fresh.parquet")
    return shell


def test_it_names_the_version_the_source_and_what_to_do(bad: Shell) -> None:
    said = bad(*WORDS, "--on", bad.folder / "fresh.parquet")
    assert f"version {POISONED} made it worse than version {POISONED - 1}" in said
    assert f"next: everlearn excise m --where \"source = '{BOT}'\"" in said
    assert "rows that did most damage alone" in said
    assert "1.00 replays of the increment until the rows were named" in said
    assert "the whole increment by source: each alone, and left out" in said
    lines = bad.error.splitlines()
    assert lines[0].startswith("phase=versions measured=1 last='version 2' value=0.")
    assert {line.split()[0] for line in lines} == {
        f"phase={name}" for name in ("versions", "groups", "rows")
    }
    found = bad.json(*WORDS, "--on", bad.folder / "fresh.parquet")
    assert not bad.error, "the answer is read"
    assert (found["version"], found["decision"]["action"]) == (POISONED, "found")
    assert [one["number"] for one in bad.json("versions", "m")] == list(range(1, BAD + 1))


def test_nothing_to_find_and_wrong_questions(bad: Shell, tmp_path: Path) -> None:
    nothing = ("bisect", "m", "--metric", "log_loss", "--good", 1, "--bad", 4)
    assert "nothing to find" in bad(*nothing, "--on", bad.folder / "fresh.parquet")
    bad("bisect", "m", "--metric", "log_loss", "--good", BAD, "--bad", GOOD, code=1)
    assert "swap them" in bad.error
    bad(*WORDS, "--on", tmp_path / "none.csv", code=1)
    assert "none.csv" in bad.error
