"""What is said about columns, and what is refused, before anything is replayed."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from everlearn.base import InputError, Schema
from everlearn.compare.compare import compare
from everlearn.compare.loader import load_history
from everlearn.compare.report import report, scatter

ROWS = 400


def frame(**more: object) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS)
    made = {"when": pd.date_range("2024-01-01", periods=ROWS, freq="h"), "x": x, "y": x > 0}
    return pd.DataFrame(made | more)


def notes(data: object, **schema: Any) -> str:
    return " ".join(load_history(data, Schema(target="y", **schema)).notes)


def test_a_plain_history_is_not_spoken_of() -> None:
    assert notes(frame(), time="when").startswith("No period was given")


def test_a_history_without_a_time_is_pointed_to_the_column_that_holds_one() -> None:
    assert "'when' holds times: say --time when" in notes(frame())
    assert "If they did not happen in that order" in notes(frame().drop(columns="when"))


def test_a_time_after_the_event_may_be_the_future() -> None:
    data = frame()
    data["paid"] = data["when"] + pd.Timedelta(hours=3)
    said = notes(data, time="when")
    assert "'paid' is later than the event in 100% of the rows" in said
    assert "--label-time paid" in said
    assert "models see the future" not in notes(data, time="when", label_time="paid")


def test_row_numbers_and_names_of_rows_are_useless() -> None:
    said = notes(frame(no=np.arange(ROWS), code=[f"c{i}" for i in range(ROWS)]), time="when")
    assert "--ignore no." in said
    assert "--ignore code." in said


def test_numbers_as_times_are_named() -> None:
    data = frame()
    data["when"] = 20240101 + np.arange(ROWS) // 20
    assert "seconds since 1970" in notes(data, time="when")


def test_thousands_separators_are_named() -> None:
    price = [f"{1 + i % 9},{i % 7}00" for i in range(ROWS)]
    assert "holds texts such as '1,000'" in notes(frame(price=price), time="when")


def test_one_wrong_time_does_not_choose_the_period() -> None:
    data = frame()
    data.loc[0, "when"] = pd.Timestamp("1970-01-01")
    history = load_history(data, Schema(target="y", time="when"))
    assert str(history.timeline.every) == "1d"
    assert any("are the times of the others right" in note for note in history.notes)


def test_a_warm_up_of_one_class_is_named() -> None:
    data = frame(y=(np.arange(ROWS) > 150) & (np.arange(ROWS) % 2 == 0))
    history = load_history(data, Schema(target="y", time="when"), every="1d")
    (said,) = (note for note in history.notes if "the class" in note)
    assert "the class 0 is the only one" in said
    warmup = int(said.split("--warmup ")[1].split()[0])
    enough = load_history(data, Schema(target="y", time="when"), every="1d", warmup=warmup)
    assert not any("only one" in note for note in enough.notes)


def test_too_many_classes_are_no_classes() -> None:
    with pytest.raises(InputError, match=r"400 different values .* too many for classes"):
        notes(frame(y=[f"{i} €" for i in range(ROWS)]), time="when")


def test_times_that_are_no_times_are_told_how_to_be_written(tmp_path: Path) -> None:
    data = frame()
    data["when"] = data["when"].dt.strftime("%m/%d/%Y")
    with pytest.raises(InputError, match="not a time \\(400\\); write times as 2024-01-31"):
        notes(data, time="when")
    data["when"] = "2024-01-31"
    with pytest.raises(InputError, match="all events have the same time"):
        notes(data, time="when")


def test_a_folder_that_cannot_be_made_is_named_before_the_replay(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write results to"):
        compare(frame(), Schema(target="y", time="when"), out=tmp_path / "file", workers=0)


def test_the_gain_is_in_the_metric_that_ranks() -> None:
    schema = Schema(target="y", time="when")
    asked: dict[str, Any] = {"strategies": "never,incremental", "workers": 0, "every": "1d"}
    found = compare(frame(), schema, metric="brier", **asked)
    assert "Brier score gained over never" in report(found)


def test_one_strategy_that_is_far_off_does_not_press_the_others_together() -> None:
    schema = Schema(target="y", time="when")
    found = compare(frame(), schema, every="1d", workers=0)
    metrics = [score.metrics for score in found.ranked]
    for value, item in zip([0.3, 0.31, 0.32, 0.33, 0.34, 0.35, 5.0], metrics, strict=True):
        item["log_loss"] = value
    drawn = {trace.name: trace for trace in scatter(found).data}
    worst = drawn[found.ranked[-1].name]
    assert worst.y[0] < 0.4
    assert "5.0000, further down" in worst.text[0]


def test_a_learner_that_prints_does_not_disturb_the_strategies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chatty.py").write_text(
        "from sklearn.neural_network import MLPClassifier\n"
        "def made():\n    return MLPClassifier((2,), verbose=True, random_state=0)\n"
    )
    monkeypatch.chdir(tmp_path)
    asked: dict[str, Any] = {"every": "8d", "strategies": "never", "workers": 1}
    found = compare(frame(), Schema(target="y", time="when"), learner="chatty.made", **asked)
    assert found["never"].peak_memory_mb is not None
