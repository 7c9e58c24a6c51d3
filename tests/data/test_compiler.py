"""Columns of every type, the resolution of a schema, and rows to predict for."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from everlearn.base import NO_TIME, Columns, InputError, Schema
from everlearn.data.columns import resolve
from everlearn.data.compiler import Compiler, as_table, compile_rows, records_to_table
from everlearn.data.convert import to_numbers, to_target, to_times
from everlearn.data.increment import Reader
from everlearn.data.source import open_path

MOMENT = datetime(2020, 1, 1, 5, 30, tzinfo=UTC)
MICROS = int(MOMENT.timestamp()) * 1_000_000


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, None, 3]),
        pa.array([1, None, 3], pa.uint8()),
        pa.array([1.0, np.nan, 3.0]),
        pa.array([1.0, None, 3.0], pa.float32()),
        pa.array([Decimal("1.00"), None, Decimal("3.00")]),
        pa.array(["1", "NA", " 3.0 "]),
        pa.array(["1e0", None, "+3"], pa.large_string()),
        pa.array(["1", "", "3"]).dictionary_encode(),
    ],
    ids=lambda array: str(array.type),
)
def test_numbers_of_every_type(array):
    values, bad = to_numbers(array, "x")
    assert bad is None and values.dtype == np.float64
    np.testing.assert_array_equal(values, [1.0, np.nan, 3.0])


def test_what_is_no_number_is_said_cell_by_cell():
    values, bad = to_numbers(pa.array(["1_000", "0x10", "True", "false", "-Inf", "x", None]), "x")
    assert bad.tolist() == [True, True, False, False, False, True, False]
    np.testing.assert_array_equal(values, [np.nan, np.nan, 1, 0, -np.inf, np.nan, np.nan])
    with pytest.raises(InputError, match="column 'x' has the type list"):
        to_numbers(pa.array([[1]]), "x")


@pytest.mark.parametrize(
    "value",
    [
        pa.array([MOMENT], pa.timestamp("s", "UTC")),
        pa.array([MOMENT], pa.timestamp("ns", "Europe/Berlin")),
        pa.array(["2020-01-01 05:30"]),
        pa.array(["2020-01-01T05:30:00Z"]),
        pa.array(["2020-01-01T06:30:00+01:00"]),
        pa.array(["2020-01-01 05:30:00.000"]).dictionary_encode(),
        pa.array([MICROS]),
        pa.array([MICROS // 1000]),
        pa.array([MICROS / 1e6]),
        pa.array([MICROS * 1000]),
        pa.array([str(MICROS // 10**6)]),
    ],
    ids=lambda array: f"{array.type} {array[0]}",
)
def test_times_of_every_type(value):
    mixed = pa.concat_arrays([value, pa.nulls(1, value.type)])
    times, bad = to_times(mixed, "at")
    assert bad is None and times.tolist() == [MICROS, NO_TIME]


def test_times_that_are_none_and_mixed_spellings():
    array = pa.array(["2020-01-01", "2020-01-01T01:00:00+01:00", "soon", "NA", "2020-13-01"])
    times, bad = to_times(array, "at")
    assert times[0] == times[1] == int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()) * 10**6
    assert bad.tolist() == [False, False, True, False, True] and times[3] == NO_TIME
    assert to_times(pa.array([date(1970, 1, 2)]), "at")[0].tolist() == [86_400_000_000]
    with pytest.raises(InputError, match="times"):
        to_times(pa.array([b"x"]), "at")


def test_targets_keep_their_values():
    y, missing, bad = to_target(pa.array(["b", None, "a", ""]), "text", "y")
    assert y.tolist() == ["b", None, "a", None] and bad is None
    assert missing.tolist() == [False, True, False, True]
    y, missing, bad = to_target(pa.array([1, None, 2.0]), "text", "y")
    assert y.tolist() == ["1", None, "2"]
    y, missing, bad = to_target(pa.array(["1", "x", None]), "number", "y")
    assert missing.tolist() == [False, False, True] and bad.tolist() == [False, True, False]


TABLE = pa.table(
    {
        "id": [7, 8],
        "n": [1, 2],
        "flag": [True, None],
        "word": ["a", "b"],
        "iso": ["2020-01-01", None],
        "at": pa.array([MOMENT, MOMENT]),
        "known": pa.array([MOMENT, MOMENT]),
        "code": [10, 20],
        "late": [1.5, 2.5],
        "user": ["u", "v"],
        "y": [0, 1],
    }
)


def test_a_schema_is_resolved():
    schema = Schema(
        target="y",
        id="id",
        time="at",
        label_time="known",
        key="user",
        categorical=["code"],
        ignore=["late"],
    )
    columns = resolve(schema, TABLE)
    assert columns == Columns(
        numbers=("n", "flag"),
        categories=("word", "code"),
        times=("iso", "at"),
        target="y",
        target_kind="integer",
        id="id",
        time="at",
        label_time="known",
        key="user",
    )
    assert Columns.from_json(columns.to_json()) == columns
    listed = resolve(replace(schema, categorical=["user", "code"], numeric=["id"]), TABLE)
    assert "user" in listed.categories and "id" in listed.numbers


@pytest.mark.parametrize(
    ("values", "is_class", "classes", "kind"),
    [
        ([0, 1], None, (), "integer"),
        ([True, None], None, (), "boolean"),
        ([0.0, None, 1.0], True, (), "integer"),
        ([0.0, 1.0], False, (), "number"),
        ([0.5, 1.0], True, (), "number"),
        (["a", "b"], True, (), "text"),
        (["0", "1"], True, ("0", "1"), "text"),
        ([0, 1], True, (False, True), "boolean"),
        ([0, 1], True, (0, 1.0), "integer"),
        ([0.5, 1], True, (0.5, 1), "number"),
    ],
)
def test_kinds_of_target(values, is_class, classes, kind):
    table = pa.table({"x": np.zeros(len(values)), "y": values})
    assert resolve(Schema(target="y", classes=classes), table, is_class).target_kind == kind


@pytest.mark.parametrize(
    ("schema", "table", "message"),
    [
        (Schema(target="Y"), TABLE, "no column 'Y' for target .did you mean 'y'"),
        (Schema(target="y", time="when"), TABLE, "no column 'when' for time .there are 'id'"),
        (Schema(target="y", categorical=["cod"]), TABLE, "did you mean 'code'"),
        (Schema(target="y"), pa.table({"y": [1]}), "no feature columns"),
        (Schema(target="y"), pa.table({"x": [1], "y": [None]}), "missing in every row"),
        (Schema(target="y"), pa.table({"x": [[1]], "y": [1]}), r"type list.*ignore="),
        (Schema(target="at"), TABLE, "must be numbers, texts or booleans"),
    ],
)
def test_a_schema_that_does_not_fit_is_explained(schema, table, message):
    with pytest.raises(InputError, match=message):
        resolve(schema, table)


def test_a_text_target_does_not_suit_a_regressor():
    with pytest.raises(InputError, match=r"'a'.*predicts numbers"):
        resolve(Schema(target="word"), TABLE, target_is_class=False)


def test_samples_of_several_files_are_judged_together():
    one = pa.table({"x": pa.nulls(2), "c": [1, 2], "y": [0, 1]})
    two = pa.table({"x": ["a", "b"], "c": ["1", "k"], "y": [0.5, 1]})
    columns = resolve(Schema(target="y"), [one, two])
    assert columns.categories == ("x", "c") and columns.target_kind == "number"


COLUMNS = resolve(Schema(target="y", id="id", time="at", key="user"), TABLE)


def test_rows_to_predict_for_are_the_same_in_every_form():
    table = TABLE.drop_columns(["y", "known"])
    columns = replace(COLUMNS, times=("iso", "at"))
    forms = [
        table.to_pylist(),
        table,
        table.to_pandas(),
        pl.from_arrow(table),
        table.to_batches()[0],
        tuple(table.to_pylist()),
    ]
    batches = [compile_rows(form, columns) for form in forms]
    for batch in batches:
        assert batch.y is None and batch.label_time is None
        np.testing.assert_array_equal(batch.numbers, batches[0].numbers)
        for name in ("categories", "times", "ids", "time", "key"):
            assert (getattr(batch, name) == getattr(batches[0], name)).all()
    one = compile_rows(table.to_pylist()[1], columns)
    assert len(one) == 1 and one.ids[0] == batches[0].ids[1]


def test_in_a_dict_a_column_may_be_left_out():
    batch = compile_rows([{"n": 3}, {"word": "a", "n": np.float32(4)}], COLUMNS)
    assert batch.numbers[:, 0].tolist() == [3.0, 4.0]
    assert batch.categories[0, 0] == 0 != batch.categories[1, 0]
    assert (batch.times == NO_TIME).all()
    for rows in ({}, [{}, {}]):
        nothing = compile_rows(rows, COLUMNS)
        assert len(nothing) == max(len(rows), 1) and np.isnan(nothing.numbers).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"m": 1}, "no column 'm'"),
        ({"flags": True}, "did you mean 'flag'"),
        ({"n": "many"}, "row 0: column 'n': not a number"),
        ([{"n": 1}, {"n": float("inf")}], "row 1: column 'n': infinite"),
        (5, "list of dicts is needed"),
        ([5], "rows are dicts"),
        (pd.DataFrame({"n": [1]}), "no column 'flag'"),
    ],
)
def test_rows_that_cannot_be_predicted_for(rows, message):
    with pytest.raises(InputError, match=message):
        compile_rows(rows, COLUMNS)


def test_dicts_of_mixed_types_become_texts():
    table = records_to_table([{"a": 1, "b": 1}, {"a": "x", "b": 2.5}, {"a": True, "c": None}])
    assert table.column("a").to_pylist() == ["1", "x", "true"]
    assert table.column("b").to_pylist() == [1.0, 2.5, None]


def test_a_batch_is_c_contiguous_and_of_the_stated_types():
    batch = Compiler(COLUMNS).compile(TABLE.to_batches()[0]).batch
    assert batch.numbers.flags.c_contiguous and batch.numbers.dtype == np.float64
    assert batch.categories.dtype == np.uint64 and batch.times.dtype == np.int64
    assert batch.time.tolist() == [MICROS] * 2 and batch.y.tolist() == [0.0, 1.0]


def test_decimals_are_the_floats_that_a_csv_has():
    texts = ["0.345", "-1.005", "123456.789", None]
    exact = pa.array([None if t is None else Decimal(t) for t in texts], pa.decimal128(12, 3))
    numbers, _ = to_numbers(exact, "x")
    assert numbers[:3].tolist() == [0.345, -1.005, 123456.789]
    assert np.isnan(numbers[3])


def test_frames_of_mixed_types_are_text_and_others_are_refused_clearly():
    table = as_table(pd.DataFrame({"x": [1, "a", None, 2.0], "y": [0, 1, 0, 1]}))
    assert table.column("x").to_pylist() == ["1", "a", None, "2"]
    assert table.column("y").to_pylist() == [0, 1, 0, 1]
    with pytest.raises(InputError, match="to_frame"):
        as_table(pd.Series([1, 2]))
    with pytest.raises(InputError, match="stands twice"):
        as_table(pd.DataFrame(np.ones((2, 2)), columns=["a", "a"]))
    assert records_to_table([{"x": 10**30}, {"x": None}]).column("x").to_pylist() == [1e30, None]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow"])
def test_weights_are_read_from_every_format(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"x": [1.0, 2.0, 3.0, 4.0], "y": [0, 1, 0, 1], "w": [0.5, None, -1.0, 2.0]})
    path = tmp_path / f"rows.{suffix}"
    writers = {"csv": pacsv.write_csv, "parquet": pq.write_table, "arrow": feather.write_feather}
    writers[suffix](table, str(path))
    source = open_path(str(path))
    columns = resolve(Schema(target="y", weight="w"), source, True)
    assert columns.numbers == ("x",) and columns.weight == "w"
    part = source.slice()
    assert part is not None
    with Reader([part], columns, chunk=10) as reader:
        (chunk,) = reader
        assert chunk.batch.numbers[:, 0].tolist() == [1.0, 2.0, 4.0]
        assert chunk.batch.weight is not None and chunk.batch.weight.tolist() == [0.5, 1.0, 2.0]
        (tally,) = reader.tallies
    assert tally.set_aside == 1
    assert "weight 'w': not a number from 0" in str(tally.reasons)
    assert compile_rows({"x": 1.0}, columns).weight is None
