"""The benchmark of learning row by row: its scores, its streams, and a small run of the whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score

from benchmarks import streams
from benchmarks.online_table import Check, first_rows, rate, share, short_table
from benchmarks.prequential import majority, no_change, result, scores, timed

ROOT = Path(__file__).parent.parent


def test_scores_are_those_of_scikit_learn_and_of_the_definition() -> None:
    generator = np.random.default_rng(0)
    y = (generator.random(500) < 0.3).astype(np.int64)
    predicted = np.where(generator.random(500) < 0.8, y, 1 - y)
    found = scores(y, predicted)
    assert found["accuracy"] == pytest.approx(accuracy_score(y, predicted))
    assert found["kappa"] == pytest.approx(cohen_kappa_score(y, predicted))
    last = accuracy_score(y, [0, *y[:-1]])
    assert found["kappa_temporal"] == pytest.approx((found["accuracy"] - last) / (1 - last))
    assert scores(y, no_change(y))["kappa_temporal"] == 0.0


def test_baselines_use_labels_before_only() -> None:
    y = np.array([1, 1, 0, 0, 0, 1])
    assert no_change(y).tolist() == [0, 1, 1, 0, 0, 0]
    assert majority(y).tolist() == [0, 1, 1, 1, 0, 0]


def test_what_is_short_is_repeated_and_runs_are_averaged() -> None:
    calls: list[int] = []
    seconds, last = timed(lambda: calls.append(0) or len(calls), enough=0.001)
    assert last == len(calls) == len(seconds) > 1
    assert len(timed(lambda: None, enough=0.0)[0]) == 1
    found = result([2.0, 1.0, 4.0], np.array([0, 1]), np.array([0, 1]), np.array([1, 1]))
    assert (found["rate"], found["accuracy"], found["rows"]) == (1.0, 0.75, 2)


def test_the_made_up_stream_changes_in_the_middle() -> None:
    X, y = streams.synthetic(20_000)
    weights = np.random.default_rng(1).normal(size=20)
    right = (X @ weights > 0) == y
    assert right[:10_000].mean() == pytest.approx(0.897, abs=0.01)
    assert right[10_000:].mean() < 0.6
    again = streams.synthetic(20_000)
    assert (again[0] == X).all() and (again[1] == y).all()


def test_losses_have_the_means_that_they_say() -> None:
    values, errors = streams.losses(40_000)
    assert values.min() >= 0.0 and values.max() <= 1.0
    for part, mean in enumerate([0.2, 0.35, 0.1, 0.3]):
        rows = slice(10_000 * part, 10_000 * (part + 1))
        assert values[rows].mean() == pytest.approx(mean, abs=0.01)
        assert errors[rows].mean() == pytest.approx(mean, abs=0.02)


def test_flights_are_those_that_the_package_has() -> None:
    X, y = streams.flights()
    assert X.shape == (327_346, 10) and np.isfinite(X).all()
    assert 1 - y.mean() == pytest.approx(0.7629, abs=1e-4)
    month, day, departure = X[:, 0], X[:, 1], X[:, 3]
    assert (np.diff((month * 31 + day) * 1440 + departure) >= 0).all()


def test_a_stream_that_is_absent_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(streams.Absent, match=f"{streams.FOLDER}"):
        streams.elec2(tmp_path)


def test_elec2_is_read_from_its_folder(tmp_path: Path) -> None:
    header = "period,nswprice,nswdemand,vicprice,vicdemand,transfer,class\n"
    (tmp_path / "electricity.csv").write_text(header + "0.0,0.1,0.2,0.3,0.4,0.5,1\n" * 2)
    X, y = streams.elec2(tmp_path)
    assert X.tolist() == [[0.0, 0.1, 0.2, 0.3, 0.4, 0.5]] * 2
    assert y.tolist() == [1, 1]


def test_numbers_as_the_tables_write_them() -> None:
    assert [rate(v) for v in (33_812_345.0, 89_876.0, 812.4)] == ["33.8M", "89.9k", "812"]
    assert [share(v) for v in (0.8165, -0.1251, 1.0)] == [".8165", "-.1251", "1.0000"]
    assert [first_rows(*v) for v in ((5, 5), (20_000, 45_312), (1_234, 5_000))] == [
        "",
        " @20k",
        " @1234",
    ]


def test_a_goal_that_was_missed_is_shown_as_missed() -> None:
    def check(column: str, met: bool | None) -> Check:
        return Check("streams", "River", column, "9×", "9", "1", "9×", "10×", met)

    table = short_table([check("a", False), check("b", True)], "against", {"a": "A", "b": "B"})
    assert table.splitlines()[-1] == "| River | 9× **missed** | 9× | 10× |"


def test_a_small_run(tmp_path: Path) -> None:
    """Two sections on one stream; what is not installed is named and left out."""
    command = [sys.executable, ROOT / "benchmarks" / "online.py", "--quick", "--out", tmp_path]
    command += ["--streams", "synthetic", "--only", "linear", "trees"]
    environment = {name: value for name, value in os.environ.items() if "CAPYMOA" not in name}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "online.json").read_text())
    tasks = {side["task"] for side in found["measured"]}
    assert {"logistic", "one", "file", "memory", "tree", "capymoa tree"} <= tasks
    for side in found["measured"]:
        for measured in side["results"]:
            assert "absent" in measured or measured["rate"] > 0
            assert 0.5 < measured.get("accuracy", 1.0) <= 1.0, side
    for check in found["checks"]:
        assert check["column"] == "synthetic"
    text = (tmp_path / "online.md").read_text()
    (missing,) = [line for line in text.splitlines() if line.startswith("Not measured: ")]
    assert "CapyMOA" in missing
    assert text.strip() == done.stdout.strip()
    assert "| synthetic@3000 | no-change |" in text


@pytest.mark.parametrize(
    ("setting", "scenario", "name"),
    [
        ("hsu", "class", "replay 1,100"),
        ("gdumb", "class", "GDumb 500"),
        ("hsu", "task", "LwF"),
        ("hsu", "domain", "EWC"),
        ("mammoth", "class", "joint"),
    ],
)
def test_a_small_run_of_continual_learning(
    setting: str, scenario: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="PyTorch is needed")
    from benchmarks import continual, continual_methods, continual_tasks

    monkeypatch.setattr(continual_methods, "GDUMB_PASSES", 8)  # three whole cosines
    generator = np.random.default_rng(0)
    digits = np.arange(400) % 10
    marks = generator.normal(size=(10, 784)) * 2  # each digit has a picture of its own
    x = (marks[digits] + generator.normal(size=(400, 784))).astype(np.float32) / 10
    monkeypatch.setattr(continual_tasks, "mnist", lambda: (x, digits, x[:100], digits[:100]))
    methods = {
        (one, two, method.name): method
        for one, two, several in continual.settings()
        for method in several
    }
    found = continual.run(setting, scenario, methods[setting, scenario, name], seed=0)
    assert len(found["after"]) == (1 if name == "joint" else 5)
    assert found["accuracy"] > (30 if scenario == "class" else 55)


@pytest.mark.parametrize("way", ["weights", "memory"])
def test_a_small_run_of_repair(way: str) -> None:
    pytest.importorskip("torch", reason="PyTorch is needed")
    from benchmarks import repair

    one = repair.case("breast_cancer", "LR", seed=0)
    wanted = one.wrong(repair.EDITS)
    patch, _ = repair.solved(one, wanted, way)  # type: ignore[arg-type]
    found = repair.figures(one, patch, wanted)
    assert found["success"] == 1.0
    assert found["locality"] > 0.9
    assert (found["exceptions"] > 0) is (way == "memory")
