"""From predictions and labels to versions, through the workspace."""

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import everlearn as el
from everlearn.base import InputError, under
from everlearn.data.compiler import Compiler, compile_rows, one_batch
from everlearn.data.join import joined
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.workspace import ModelHandle

START = dt.datetime(2024, 1, 1)


def moment(minutes: int) -> str:
    return (START + dt.timedelta(minutes=minutes)).isoformat()


@pytest.fixture
def handle(tmp_path: Path) -> ModelHandle:
    x = np.random.default_rng(0).normal(size=600)
    rows = [
        f"{value:.4f},{moment(i)},{moment(i + 60)},{int(value > 0)}" for i, value in enumerate(x)
    ]
    (tmp_path / "first.csv").write_text("\n".join(["x,seen,known,late", *rows]) + "\n")
    schema = el.Schema(target="late", time="seen", label_time="known")
    handle = el.open(tmp_path / "workspace").model(el.Model("m", learner="logistic", schema=schema))
    assert handle.train(str(tmp_path / "first.csv")).version == 1
    return handle


def test_many_labels_are_logged_together_or_none(handle: ModelHandle) -> None:
    ids = [answer.id for answer in handle.predict([{"x": i / 10} for i in range(4)])]
    said = [{"prediction_id": one, "value": np.int64(place % 2)} for place, one in enumerate(ids)]
    said[1] |= {"selection": 0.25, "at": "2024-03-01T10:00:00", "source": "audit"}
    with pytest.raises(el.InputError, match=r"label 5: .*verdict"):
        handle.feedback_many([*said, {"prediction_id": ids[0], "verdict": 1}])
    with pytest.raises(el.InputError, match="finite"):
        handle.feedback(ids[0], float("nan"))
    assert handle.log.head() == 0
    assert [one.position for one in handle.feedback_many(said)] == [1, 2, 3, 4]
    assert [one.state for one in handle.feedback_many(iter(said))] == ["known"] * 4
    handle.feedback(ids[0], np.bool_(True), selection=0.5, at="2024-03-02", source="audit")
    judged = list(handle.log.read())
    assert [(one.value, one.selection) for one in judged[::4]] == [(0, None), (True, 0.5)]
    assert (judged[1].source, judged[1].at) == ("audit", 1_709_287_200_000_000)


def test_rows_are_asked_about_by_their_own_ids_and_keys(handle: ModelHandle) -> None:
    rows = [{"x": 1.0}, {"x": 2.0}]
    handle.predict(
        rows, keys=["ann", None], ids=pd.Series(["o-1", "o-2"]), propensities=np.array([0.5, 1.0])
    )
    handle.feedback_many({"external_id": name, "value": 1} for name in ("o-1", "o-2"))
    asked = [one.prediction for one in handle.log.read()]
    assert [(one.key, one.external_id, one.propensity) for one in asked] == [
        ("ann", "o-1", 0.5),
        (None, "o-2", 1.0),
    ]
    with pytest.raises(el.InputError, match="2 rows, but 1 keys"):
        handle.predict(rows, keys=["ann"])
    with pytest.raises(el.ConflictError, match="logged already"):
        handle.predict(rows, ids=["o-3", "o-1"])


def test_labels_of_answers_become_a_version(handle: ModelHandle) -> None:
    assert "no labels" in handle.update().decision.reason
    answers = [handle.predict({"x": i / 10 - 2, "seen": moment(1000 + i)}) for i in range(40)]
    assert len({answer.id for answer in answers}) == 40
    for answer in answers[:30]:
        assert handle.feedback(answer.id, answer.value).state == "logged"
    handle.feedback(answers[3].id, 1 - answers[3].value)
    handle.feedback(answers[4].id, None)
    done = handle.update()
    (learned,) = done.increments
    assert done.version == 2 and (learned["source"], learned["start"]) == ("feedback", 0)
    assert learned["rows"] + learned["held_out"] == 29
    assert learned["reasons"]["set_aside"] == {
        "a later label took its place": 1,
        "the label was taken back": 2,
    }
    again = handle.update()
    assert again.version is None and "nothing new" in again.decision.reason


def test_times_are_learned_as_the_times_that_were_asked_about(tmp_path: Path) -> None:
    minutes = range(0, 600 * 97, 97)
    columns = {name: [moment(n + more) for n in minutes] for name, more in (("due", 9), ("at", 0))}
    schema = el.Schema(target="late", time="at")
    handle = el.open(tmp_path).model(el.Model("m", learner="logistic", schema=schema))
    handle.train(pa.table(columns | {"late": [n % 2 for n in minutes]}))
    east = dt.timezone(dt.timedelta(hours=5, minutes=30))
    times: list[Any] = [
        START,
        dt.datetime(2024, 5, 6, 7, 8, 9, 123_456, east),
        dt.datetime(2024, 5, 6, tzinfo=dt.UTC),
        dt.datetime(2024, 5, 6, 1, tzinfo=ZoneInfo("Europe/Vienna")),
        dt.datetime(1890, 5, 6, 1, tzinfo=ZoneInfo("Europe/Vienna")),  # 65 minutes, 21 seconds
        dt.date(2024, 5, 7),
        pd.Timestamp("2024-05-06 07:08:09.123456789"),
        pd.Timestamp("1971-05-06", tz="America/Lima"),
        np.datetime64("1970-05-06T07:08:09", "ns"),
        np.datetime64("2024-05-06T07", "h"),
        np.datetime64("1960-05-06"),
        pd.NaT,
        np.datetime64("NaT"),
        None,
    ]
    rows = [{"due": time, "at": START + dt.timedelta(days=n)} for n, time in enumerate(times)]
    answers = [handle.predict(row) for row in rows]
    assert [one.value for one in handle.predict(rows, log=False)] == [one.value for one in answers]
    for answer in answers:
        handle.feedback(answer.id, 1)
    (learned,) = handle.update().increments
    assert learned["rows"] + learned["held_out"] == len(rows)
    columns = handle.load().columns
    (page,) = handle.log.pages(0, len(rows))
    table = one_batch(joined(page, schema))
    found = Compiler(columns).compile(table)
    assert not found.refused
    for row, time in zip(rows, found.batch.times, strict=True):
        assert np.array_equal(compile_rows(row, columns).times[0], time), row


def test_each_label_is_learned_once(handle: ModelHandle) -> None:
    answers = handle.predict([{"x": float(i), "seen": moment(2000 + i)} for i in range(25)])
    learned = []
    for count in (10, 15):
        for answer in answers[:count]:
            handle.feedback(answer.id, 1, source=f"of {count}")
        done = handle.update()
        learned.append([(item["start"], item["stop"]) for item in done.increments])
    assert learned == [[(0, 10)], [(10, 25)]]


def test_a_label_that_waits_is_learned_when_its_prediction_is_there(
    handle: ModelHandle,
) -> None:
    receipt = handle.feedback(None, 1, external_id="order-1")
    assert receipt.state == "waiting" and "no labels" in handle.update().decision.reason


def test_only_dicts_are_logged(handle: ModelHandle, tmp_path: Path) -> None:
    row = {"x": 1.0, "seen": moment(3000)}
    assert handle.predict(row, log=False).id is None
    (tmp_path / "ask.csv").write_text(f"x,seen\n1.0,{moment(3000)}\n")
    assert handle.predict(tmp_path / "ask.csv")[0].id is None
    with pytest.raises(InputError, match="dicts"):
        handle.predict(tmp_path / "ask.csv", log=True)
    with pytest.raises(InputError, match="no prediction"):
        handle.feedback("0" * 16, 1)


def test_a_correction_is_learned_anew_and_takes_the_old_label_out_of_memory_and_hold_outs(
    tmp_path: Path,
) -> None:
    schema = el.Schema(target="late", id="order")
    model = el.Model(
        "m", learner="logistic", schema=schema, strategy=el.Strategy(memory=el.Reservoir(1000))
    )
    workspace = el.open(tmp_path / "workspace")
    handle = workspace.model(model)
    rows = "".join(f"{i / 10:.1f},{i % 2},first{i}\n" for i in range(100))
    (tmp_path / "first.csv").write_text("x,late,order\n" + rows)
    handle.train(str(tmp_path / "first.csv"))
    answers = handle.predict([{"x": float(i), "order": f"o{i}"} for i in range(80)])
    for answer in answers:
        handle.feedback(answer.id, 1)
    handle.update()
    assert remembered(handle) == {0: 50, 1: 50 + 80}
    for answer in answers[:30]:
        handle.feedback(answer.id, 0)
    for answer in answers[30:40]:
        handle.feedback(answer.id, None)
    done = handle.update()
    (learned,) = done.increments
    assert (learned["start"], learned["stop"], learned["duplicates"]) == (80, 120, 0)
    assert learned["rows"] + learned["held_out"] == 30
    assert remembered(handle) == {0: 50 + 30, 1: 50 + 40}


def remembered(handle: ModelHandle) -> dict[int, int]:
    """How many rows of each class memory and hold-outs have together."""
    workspace = handle.workspace
    version = workspace.registry.version("m")
    state = workspace.registry.state("m", version)
    batches = list(el.Reservoir(1000).open(under("memory/held", state)).rows())
    held = HoldOuts.load(workspace.registry.holdouts("m", version))
    batches += [period.batch for period in held.periods]
    y = np.concatenate([batch.y for batch in batches if batch.y is not None])
    return dict(Counter(y.astype(int).tolist()))
