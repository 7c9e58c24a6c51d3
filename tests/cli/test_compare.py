"""`compare`, from a file to a report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from everlearn.cli import ERROR, OK, USAGE, main

pytestmark = pytest.mark.xdist_group("compare")  # in one process, kernels are compiled once

CONTRACT = {
    "strategy",
    "rows",
    "accuracy",
    "log_loss",
    "roc_auc",
    "kappa",
    "cpu_seconds",
    "rows_learned",
    "updates",
    "peak_memory_mb",
}


@pytest.fixture
def bills(tmp_path: Path) -> Path:
    """1,200 hours of two numbers and a category that decide `late`; labels known a day later."""
    rng = np.random.default_rng(0)
    start = np.datetime64("2024-01-01T00:00:00")
    lines = ["at,known,a,b,city,late\n"]
    for hour in range(1200):
        a, b = rng.normal(size=2).round(3)
        city = rng.choice(["Oslo", "Rome"])
        late = int(a + b + (city == "Rome") > 0.5)
        at = start + np.timedelta64(hour, "h")
        lines.append(f"{at},{at + np.timedelta64(1, 'D')},{a},{b},{city},{late}\n")
    file = tmp_path / "bills.csv"
    file.write_text("".join(lines))
    return file


def test_a_comparison_writes_what_scripts_rely_on(
    bills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--target", "late", "--time", "at", "--label-time", "known", "--every", "7d"]
    more = ["--strategies", "never,incremental", "--workers", "1", "--learner", "logistic"]
    more += ["--out", str(out), "--json"]
    assert main(["compare", str(bills), *words, *more]) == OK
    printed = json.loads(capsys.readouterr().out)
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["strategy"] for row in rows] == ["never", "incremental"]
    assert set(rows[0]) >= CONTRACT
    assert all(float(row["accuracy"]) > 0.5 for row in rows)
    assert json.loads((out / "results.json").read_text()) == printed
    assert "<html" in (out / "report.html").read_text()


def test_the_table_is_for_people(
    bills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--target", "late", "--time", "at", "--strategies", "never", "--workers", "1"]
    words += ["--learner", "logistic", "--out", str(tmp_path / "out")]
    assert main(["compare", str(bills), *words]) == OK
    written = capsys.readouterr()
    assert "never" in written.out
    assert "label" in written.out, "that no label time was given is said"
    assert "report.html" in written.err


def test_a_wrong_comparison_is_one_clear_line(
    bills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main(["compare", str(bills), "--target", "latte", "--time", "at", "--out", out]) == ERROR
    assert "latte" in capsys.readouterr().err
    words = ["--target", "late", "--time", "at", "--out", out]
    assert main(["compare", str(bills), *words, "--strategies", "sometimes"]) == ERROR
    assert "sometimes" in capsys.readouterr().err
    assert main(["compare", str(bills), *words, "--price-error", "2"]) == ERROR
    assert "price_cpu_hour" in capsys.readouterr().err
    assert main(["compare", str(bills)]) == USAGE
