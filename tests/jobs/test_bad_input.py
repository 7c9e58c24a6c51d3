"""Bad input: a clear error, or set aside and counted. Nothing is lost, nothing is learned twice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier

import everlearn as el
from everlearn.cli import main
from tests.jobs.checks import COUNTS
from tests.jobs.scenarios import table, write

ROWS = 200
SCHEMA = el.Schema(target="late", time="at", id="id")
MODEL = el.Model(
    "m", learner=SGDClassifier(loss="log_loss"), schema=SCHEMA, strategy=el.Strategy(chunk=20)
)
NO_ID = MODEL.replace(schema=el.Schema(target="late", ignore=("id", "at")))


def clean(rows: int = ROWS, seed: int = 3, first_id: int = 0) -> pa.Table:
    """Rows with nothing wrong, without duplicates."""
    data = table(rows, seed, first_id)
    return data.set_column(0, "id", pa.array(range(first_id, first_id + rows)))


def replaced(data: pa.Table, name: str, **cells: Any) -> list[dict[str, Any]]:
    """The rows as dicts, with some cells of a column replaced: `r5=…` is that of row 5."""
    rows: list[dict[str, Any]] = data.to_pylist()
    for key, value in cells.items():
        rows[int(key[1:])][name] = value
    return rows


def write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    """A CSV file of dicts, written by hand, so that any text can be in it."""
    lines = [",".join(rows[0])]
    lines += [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[el.Workspace]:
    with el.open(tmp_path / "workspace") as opened:
        yield opened


def counted(result: Any, rows: int) -> dict[str, Any]:
    """The one increment of a job, which accounts for all rows of its source."""
    [increment] = result.increments
    assert increment["stop"] - increment["start"] == rows
    assert sum(increment[name] for name in COUNTS) == rows
    return dict(increment)


def reasons(increment: dict[str, Any]) -> dict[str, int]:
    """Reason → number of rows set aside for it."""
    return dict(increment["reasons"]["set_aside"])


def nothing_was_learned(ws: el.Workspace) -> bool:
    """No version, and no job that would make one."""
    return not ws.model("m").versions() and not ws.jobs()


# --- cells and rows ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("late", None, "target"),
        ("x1", "inf", "infinite"),
        ("x1", "-inf", "infinite"),
        ("x2", "oops", "x2"),
        ("at", "not a date", "at"),
    ],
)
def test_a_bad_cell_costs_its_row(
    column: str, value: Any, reason: str, ws: el.Workspace, tmp_path: Path
) -> None:
    rows = replaced(clean(), column, r150=value, r160=value)
    increment = counted(ws.model(MODEL).train(write_lines(tmp_path / "rows.csv", rows)), ROWS)
    assert increment["set_aside"] == 2
    [(said, count)] = reasons(increment).items()
    assert count == 2 and reason in said
    assert [item["row"] for item in increment["reasons"]["examples"]] == [150, 160]


def test_a_missing_target_in_typed_data(ws: el.Workspace) -> None:
    late = clean().column("late").cast(pa.float64()).to_pylist()
    late[4], late[9] = None, float("nan")
    data = clean().set_column(7, "late", pa.array(late))
    assert counted(ws.model(MODEL).train(data), ROWS)["set_aside"] == 2


def test_ragged_lines(ws: el.Workspace, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", clean())
    lines = path.read_text().splitlines()
    lines[51] += ",1,2"
    lines[61] = lines[61].rpartition(",")[0]
    path.write_text("\n".join(lines) + "\n")
    increment = counted(ws.model(MODEL).train(str(path)), ROWS)
    assert increment["set_aside"] == 2
    assert sorted(item["row"] for item in increment["reasons"]["examples"]) == [50, 60]


def test_a_label_that_was_known_before_the_event(ws: el.Workspace) -> None:
    data = clean()
    at = data.column("at").to_pylist()
    known = [*at[:100], *[time.replace(year=2000) for time in at[100:103]], *at[103:]]
    data = data.append_column("known", pa.array(known, pa.timestamp("us")))
    model = MODEL.replace(schema=el.Schema(target="late", time="at", label_time="known", id="id"))
    increment = counted(ws.model(model).train(data), ROWS)
    assert increment["set_aside"] == 3
    assert "known" in next(iter(reasons(increment)))


def test_times_out_of_order_are_learned_and_noted(ws: el.Workspace) -> None:
    data = clean().take(list(range(100, 200)) + list(range(100)))
    increment = counted(ws.model(MODEL).train(data), ROWS)
    assert increment["set_aside"] == 0
    assert increment["reasons"]["notes"]["times out of order"] > 0


def test_duplicate_ids_are_learned_once_also_across_files(ws: el.Workspace) -> None:
    data = clean()
    twice = pa.concat_tables([data.slice(0, 50), data.slice(20, 30), data.slice(50, 50)])
    increment = counted(ws.model(MODEL).train(twice), 130)
    assert increment["duplicates"] == 30
    more = counted(ws.model(MODEL).train(data.slice(90, 60)), 60)
    assert more["duplicates"] == 10
    ids = ws.model(MODEL).load().others
    assert ids and increment["rows"] + increment["held_out"] == 100


def test_a_type_that_changes_in_a_later_file(ws: el.Workspace, tmp_path: Path) -> None:
    first = write(tmp_path / "1.parquet", clean())
    later = clean(first_id=ROWS, seed=4)
    text = [str(value) for value in later.column("x1").to_pylist()]
    text[7] = "n/k"
    second = write(tmp_path / "2.parquet", later.set_column(3, "x1", pa.array(text)))
    handle = ws.model(MODEL)
    assert counted(handle.train(str(first)), ROWS)["set_aside"] == 0
    assert counted(handle.train(str(second)), ROWS)["set_aside"] == 1


def test_a_category_that_nobody_saw(ws: el.Workspace) -> None:
    handle = ws.model(MODEL.replace(learner=None))
    handle.train(clean())
    strange = replaced(clean(first_id=ROWS), "kind", r3="never seen", r4="")
    assert counted(handle.train(strange), ROWS)["set_aside"] == 0
    handle.predict({"x0": 1.0, "x1": 0.0, "x2": 0.0, "x3": 0.0, "kind": "another", "at": None})


# --- classes -----------------------------------------------------------------------------------


def with_third_class(first_id: int) -> list[dict[str, Any]]:
    return replaced(clean(first_id=first_id, seed=9), "late", r100=2, r101=2, r140=2)


def test_a_class_that_appears_late_is_learned_by_a_learner_that_grows(ws: el.Workspace) -> None:
    handle = ws.model(MODEL)
    handle.train(clean())
    assert len(handle.load().classes) == 2
    increment = counted(handle.train(with_third_class(ROWS)), ROWS)
    assert increment["set_aside"] == 0
    assert sorted(handle.load().classes.tolist()) == [0, 1, 2]
    row = {"x0": 1.0, "x1": 0.0, "x2": 0.0, "x3": 0.0, "kind": "a", "at": None}
    answer = handle.predict(row)
    assert isinstance(answer, el.workspace.Answer)
    assert answer.probabilities is not None and set(answer.probabilities) == {0, 1, 2}


def test_a_class_that_appears_late_is_set_aside_by_one_that_cannot(ws: el.Workspace) -> None:
    handle = ws.model(MODEL.replace(learner=MLPClassifier((3,)), holdout=0.0))
    handle.train(clean())
    increment = counted(handle.train(with_third_class(ROWS)), ROWS)
    assert increment["set_aside"] == 3
    assert next(iter(reasons(increment))).startswith("a class")
    assert [item["row"] for item in increment["reasons"]["examples"]] == [100, 101, 140]


def test_a_class_that_is_late_in_the_first_increment_is_known_to_all(ws: el.Workspace) -> None:
    handle = ws.model(MODEL.replace(learner=MLPClassifier((3,)), holdout=0.0))
    assert counted(handle.train(with_third_class(0)), ROWS)["set_aside"] == 0
    assert sorted(handle.load().classes.tolist()) == [0, 1, 2]


# --- files -------------------------------------------------------------------------------------


def test_a_missing_column_is_named_with_its_neighbour(ws: el.Workspace) -> None:
    handle = ws.model(MODEL)
    with pytest.raises(el.InputError, match=r"late.*latte"):
        handle.train(clean().rename_columns([*clean().column_names[:-1], "latte"]))
    assert nothing_was_learned(ws)
    handle.train(clean())
    names = ["X_1" if name == "x1" else name for name in clean().column_names]
    with pytest.raises(el.InputError, match="x1"):
        handle.train(clean(first_id=ROWS).rename_columns(names))
    assert len(handle.versions()) == 1


def test_a_truncated_file_in_the_middle_of_a_glob(ws: el.Workspace, tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.parquet", clean(first_id=ROWS * number, seed=number))
    broken = tmp_path / "1.parquet"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    handle = ws.model(MODEL)
    with pytest.raises(el.InputError, match=r"1\.parquet"):
        handle.train(str(tmp_path / "*.parquet"))
    assert nothing_was_learned(ws)
    broken.write_bytes(whole)
    result = handle.train(str(tmp_path / "*.parquet"))
    assert [item["stop"] for item in result.increments] == [ROWS] * 3


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_an_empty_file(name: str, ws: el.Workspace, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(el.InputError, match=f"{name}.*empty"):
        ws.model(MODEL).train(str(path))
    assert nothing_was_learned(ws)


def test_a_file_of_a_header_alone(ws: el.Workspace, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", clean().slice(0, 0))
    handle = ws.model(MODEL)
    with pytest.raises(el.InputError, match=r"no rows in .*rows\.csv"):
        handle.train(str(path))
    assert nothing_was_learned(ws)
    handle.train(clean())
    assert handle.train(str(path)).decision.action == "nothing"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_that_grew(suffix: str, ws: el.Workspace, tmp_path: Path) -> None:
    path = write(tmp_path / f"rows{suffix}", clean())
    handle = ws.model(MODEL)
    handle.train(str(path))
    write(path, pa.concat_tables([clean(), clean(60, seed=8, first_id=ROWS)]))
    increment = counted(handle.train(str(path)), 60)
    assert increment["start"] == ROWS and increment["duplicates"] == 0
    assert handle.train(str(path)).decision.action == "nothing"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("change", ["shrank", "changed"])
def test_a_file_that_shrank_or_changed(
    suffix: str, change: str, ws: el.Workspace, tmp_path: Path
) -> None:
    path = write(tmp_path / f"rows{suffix}", clean())
    handle = ws.model(MODEL)
    handle.train(str(path))
    write(path, clean().slice(0, 120) if change == "shrank" else clean(240, seed=99))
    with pytest.raises(el.ChangedError, match=f"rows{suffix}"):
        handle.train(str(path))
    assert len(handle.versions()) == 1
    assert handle.train(str(path), again=True).version == 2


def test_a_file_that_was_renamed_or_given_twice_is_nothing_new(
    ws: el.Workspace, tmp_path: Path
) -> None:
    path = write(tmp_path / "rows.parquet", clean())
    handle = ws.model(MODEL)
    assert len(handle.train([str(path), str(path)]).increments) == 1
    assert handle.train(str(path)).decision.action == "nothing"
    renamed = tmp_path / "renamed.parquet"
    os.rename(path, renamed)
    assert handle.train(str(renamed)).decision.action == "nothing"


def test_two_files_of_one_content_in_one_job(ws: el.Workspace, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", clean())
    shutil.copy(path, tmp_path / "rows-copy.parquet")
    handle = ws.model(NO_ID.replace(holdout=0.0))
    result = handle.train(str(tmp_path / "*.parquet"))
    assert sum(item["rows"] for item in result.increments) == ROWS


def test_a_file_that_changes_between_plan_and_job(ws: el.Workspace, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", clean())
    handle = ws.model(MODEL)
    job = handle.plan(str(path))
    assert isinstance(job, int)
    write(path, clean(seed=77))
    with pytest.raises(el.ChangedError, match=r"rows\.csv"):
        ws.run(job)
    assert ws.job(job).state == "failed"
    assert handle.versions() == []
    assert handle.train(str(path)).version == 1  # as it is now


# --- definitions and workspaces ----------------------------------------------------------------


def test_a_spec_that_raises_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "spec.py"
    spec.write_text("import everlearn\nmodel = everlearn.Model('m', learner=nothing)\n")
    rows = write(tmp_path / "rows.csv", clean())
    assert main(["--workspace", str(tmp_path / "w"), "train", str(spec), str(rows)]) == 1
    told = capsys.readouterr().err
    assert "spec.py, line 2: NameError" in told and "Traceback" not in told


def test_another_learner_needs_a_new_start(ws: el.Workspace) -> None:
    ws.model(MODEL).train(clean())
    other = MODEL.replace(learner=SGDClassifier(loss="hinge"))
    with pytest.raises(el.SpecError, match="scratch"):
        ws.model(other).train(clean(first_id=ROWS))
    assert len(ws.model("m").versions()) == 1
    anew = other.replace(strategy=el.Strategy(chunk=20, start="scratch"))
    assert ws.model(anew).train(clean(first_id=ROWS, seed=5)).version == 2


def test_another_strategy_or_gate_applies_at_once(ws: el.Workspace) -> None:
    ws.model(MODEL).train(clean())
    changed = MODEL.replace(
        strategy=el.Strategy(memory=el.Reservoir(30), chunk=10),
        gate=el.NonInferior("log_loss", margin=10.0),
    )
    assert ws.model(changed).train(clean(first_id=ROWS, seed=5)).version == 2


def test_a_workspace_of_a_newer_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "workspace"
    with el.open(place) as ws:
        ws.model(MODEL).train(clean())
        with ws.database.write() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(el.StorageError, match="newer"):
        el.open(place)
    assert main(["--workspace", str(place), "versions", "m"]) == 1
    assert "newer" in capsys.readouterr().err


def net() -> Any:
    from torch import nn

    return nn.Sequential(nn.LazyLinear(1))


@pytest.mark.parametrize("passes", [1, 2])
def test_a_loss_that_is_not_finite_names_its_rows_and_leaves_the_champion(
    ws: el.Workspace, passes: int
) -> None:
    pytest.importorskip("torch", reason="PyTorch is needed")
    learner = el.learners.TorchLearner(net, "mse", batch=10)
    strategy = el.Strategy(chunk=20, passes=passes)
    schema = el.Schema(target="y")
    handle = ws.model(el.Model("m", learner=learner, schema=schema, strategy=strategy, holdout=0.0))
    x = [float(i % 7) for i in range(100)]
    handle.train(pa.table({"x": x, "y": x}))
    before = handle.versions()
    wild = [value * (1e30 if row >= 50 else 1.0) for row, value in enumerate(x)]
    with pytest.raises(el.InputError, match=r"rows 40 to 59 of .*: the loss is inf in step"):
        handle.train(pa.table({"x": x, "y": wild}))
    assert handle.versions() == before
