"""What an increment is cut into: spans of time, keys among many, and that conditions say the same
as the groups that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import everlearn as el
from everlearn.base import Array, Columns
from everlearn.jobs.bisect.cuts import Cut, Rows
from everlearn.jobs.bisect.hints import Surprise
from tests.jobs.poisoned import model, table

ROWS = 600
START = np.datetime64("2024-03-01", "us")


def write(path: Path, seed: int, rows: int, wrong: Callable[[Any], Array] | None) -> str:
    """Rows with times that are in no order, and keys; some have the wrong labels."""
    rng = np.random.default_rng(seed)
    made = table(seed, rows)
    hours = rng.permutation(rows)
    made["at"] = START + hours * np.timedelta64(3_600_000_000, "us")
    made["who"] = np.array([f"user-{k:03d}" for k in rng.integers(0, 200, rows)], object)
    if wrong is not None:
        made["late"] = np.where(wrong({**made, "hours": hours}), 1 - made["late"], made["late"])
    del made["source"]
    pa.parquet.write_table(pa.table(made), path)
    return str(path)


def lied_at(rows: Any) -> Array:
    """In a week of the 25 days."""
    return np.asarray((rows["hours"] >= 230) & (rows["hours"] < 420))


def lied_about(rows: Any) -> Array:
    """One user of 200, who sent a third of the rows."""
    rows["who"][::3] = "user-123"
    return np.asarray(rows["who"] == "user-123")


@pytest.mark.parametrize(
    ("wrong", "by", "start"),
    [(lied_at, "time", "at >= '2024-03-1"), (lied_about, "key", "who = 'user-123'")],
)
def test_what_is_found_is_what_its_condition_says(
    tmp_path: Path, wrong: Callable[[Any], Array], by: str, start: str
) -> None:
    schema = el.Schema(target="late", id="id", time="at", key="who", ignore=("at",))
    with el.open(tmp_path / "workspace") as workspace:
        handle = workspace.model(model(schema=schema, holdout=0.0))
        handle.train(write(tmp_path / "first.parquet", 1, 300, None))
        file = write(tmp_path / "second.parquet", 2, ROWS, wrong)
        handle.train(file)
        on = write(tmp_path / "fresh.parquet", 3, 500, None)
        report = handle.repair.bisect(good=1, bad=2, metric="log_loss", on=on)
        found = report["blame"]["found"]
        assert by in [level["by"] for level in report["blame"]["levels"] if level["found"]]
        assert start in found["where"] and f"source = '{file}'" in found["where"]
        would = handle.repair.excise(where=found["where"], dry_run=True).report
        assert would["learned_from_it"][0]["version"] == 2
        assert would["rows"] == found["rows"]


def cuts(times: list[int], sources: list[str | None]) -> dict[str, Cut]:
    """The ways to cut rows of a table, with times and with who said them."""
    n, made = len(times), Rows.__new__(Rows)
    made.slices = [SimpleNamespace(kind="table", names=("source",), source="a", start=0, stop=n)]
    made.columns = Columns(time="at", target="y")
    made.part, made.row = np.zeros(n, np.int64), np.arange(n)
    made.y, made.time = np.zeros(n), np.array(times)
    none = pa.nulls(n, pa.string())
    made.texts = {"source": pa.array(sources), "reviewer": none, "key": none, "id": none}
    every = np.arange(n)
    return {cut.by: cut for cut in [*made.said(every), *made.others(every)]}


def test_times_that_are_far_apart_leave_no_span_without_rows() -> None:
    times = cuts([0, 500, 1000], ["a", "b", "c"])["time"]
    assert [group.members.tolist() for group in times.groups] == [[0], [1], [2]]
    alike = np.full(3, 0.1)
    assert Surprise(alike, alike, alike).ordered([times]) == [times]


def test_rows_of_nobody_are_not_those_of_one_who_is_called_none() -> None:
    groups = cuts([0, 1, 2], [None, "none", "c"])["source"].groups
    assert [group.name for group in groups] == ["source is null", "c", "none"]
