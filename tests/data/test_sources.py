"""Our sources against the conformance suite, and what is particular to opening them."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from everlearn.base import ChangedError, InputError, Schema
from everlearn.data import csv as csv_module
from everlearn.data import files
from everlearn.data.columns import resolve
from everlearn.data.increment import Reader
from everlearn.data.source import open_sources
from everlearn.data.tables import MemoryBlobs, SpooledSource
from everlearn.testing.source import SCHEMA, SourceSuite, example_table


class TestCsv(SourceSuite):
    @pytest.fixture(autouse=True, params=[4 << 20, 997])
    def place(self, request, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "BLOCK", request.param)
        monkeypatch.setattr(csv_module, "PIECE", request.param // 4)
        self.path = str(tmp_path / "rows.csv")

    def open_source(self, table):
        pacsv.write_csv(table, self.path)
        if csv_module.PIECE < 1000:
            source = csv_module.CsvSource(self.path)
            source._sample = csv_module._infer(
                Path(self.path).read_bytes().split(b"\n", 1)[1], source._header, self.path
            )
            return source
        return open_sources(self.path)[0]


class TestParquet(SourceSuite):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path):
        self.path = str(tmp_path / "rows.parquet")

    def open_source(self, table):
        pq.write_table(table, self.path, row_group_size=120)
        return open_sources(self.path)[0]


class TestIpc(SourceSuite):
    @pytest.fixture(autouse=True, params=["uncompressed", "lz4"])
    def place(self, request, tmp_path):
        self.path, self.compression = str(tmp_path / "rows.arrow"), request.param

    def open_source(self, table):
        feather.write_feather(table, self.path, compression=self.compression, chunksize=120)
        return open_sources(self.path)[0]


class TestTable(SourceSuite):
    blobs = MemoryBlobs()

    def open_source(self, table):
        return SpooledSource(table, self.blobs, "rows")


class TestPandas(TestTable):
    def open_source(self, table):
        frame = table.to_pandas()
        return open_sources(frame, blobs=self.blobs, name="rows")[0]


class TestPolars(TestTable):
    def open_source(self, table):
        return open_sources(pl.from_arrow(table), blobs=self.blobs, name="rows")[0]


class TestDicts(TestTable):
    def open_source(self, table):
        rows = (dict(row) for row in table.to_pylist())
        return open_sources(rows, blobs=self.blobs, name="rows")[0]


def test_a_glob_is_in_natural_order_and_without_repetition(tmp_path):
    for k in (10, 9, 1):
        pq.write_table(example_table(5, k), tmp_path / f"part{k}.parquet")
    sources = open_sources([str(tmp_path / "*.parquet"), str(tmp_path / "part1.parquet")])
    assert [Path(source.name).stem for source in sources] == ["part1", "part9", "part10"]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_cut_file_in_the_middle_of_a_glob_is_named_before_anything_is_read(tmp_path, kind):
    for k in range(3):
        path = tmp_path / f"part{k}.{kind}"
        write = pq.write_table if kind == "parquet" else feather.write_feather
        write(example_table(50), str(path))
    cut = tmp_path / f"part1.{kind}"
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"part1\."):
        open_sources(str(tmp_path / f"*.{kind}"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.csv", b"", "is empty"),
        ("blank.csv", b"\n\n", "not even a header"),
        ("twice.csv", b"a,b,a\n1,2,3\n", "two columns of the name 'a'"),
        ("latin.csv", "a,gr\xf6\xdfe\n1,2\n".encode("latin-1"), "not UTF-8"),
        ("rows.csv.gz", b"\x1f\x8b\x08\x00abcd", "compressed"),
        ("rows.parquet", b"a,b\n1,2\n", "does not begin like"),
        ("rows.bin", b"\x00\x01\x02", "neither CSV nor"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        open_sources(str(tmp_path / name))
    assert name in str(error.value)


def test_what_is_no_data_is_refused(tmp_path):
    for data, message in [
        (str(tmp_path), "is a folder"),
        (str(tmp_path / "none.csv"), "there is no file"),
        (str(tmp_path / "*.none"), "no file matches"),
        (5, "not <class 'int'>"),
        ([], "has no rows"),
        ([1, 2], "table, a data frame or a list of dicts"),
        ((np.zeros((3, 2)), np.zeros(4)), "y must have the shape"),
    ]:
        with pytest.raises(InputError, match=message):
            open_sources(data)


def test_arrays_are_a_source():
    X, y = np.arange(6.0).reshape(3, 2), np.array(["a", "b", "a"])
    (source,) = open_sources((X, y))
    columns = resolve(Schema(target="y"), source)
    with Reader([source.slice()], columns, blobs=source.blobs) as reader:
        (chunk,) = list(reader)
    assert (chunk.batch.numbers == X).all() and chunk.batch.y.tolist() == ["a", "b", "a"]


def test_unnamed_tables_are_told_apart_by_content():
    blobs = MemoryBlobs()
    one, two = (open_sources(example_table(20, k), blobs=blobs)[0] for k in (0, 5))
    assert one.name != two.name
    again = open_sources(example_table(20), blobs=blobs)[0]
    assert again.name == one.name and again.slice().digest == one.slice().digest


def test_an_iterable_is_cut_into_pieces_and_may_lack_columns():
    blobs = MemoryBlobs()
    rows = ({"x": k, "y": k % 2} | ({"late": k} if k > 70_000 else {}) for k in range(80_000))
    (source,) = open_sources(rows, blobs=blobs)
    part = source.slice()
    assert [piece["rows"] for piece in part.options["pieces"]] == [65_536, 14_464]
    columns = resolve(Schema(target="y", numeric=["x"]), [source, source])
    assert columns.numbers == ("x",)
    columns = replace(columns, numbers=("x", "late"))
    with Reader([part], columns, blobs=blobs, chunk=80_000) as reader:
        (chunk,) = list(reader)
    assert np.isnan(chunk.batch.numbers[:70_001, 1]).all()
    assert (chunk.batch.numbers[70_001:, 1] == np.arange(70_001, 80_000)).all()


def _learned(path):
    (source,) = open_sources(path)
    columns = resolve(SCHEMA, source)
    return source.slice(), columns


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_a_file_that_is_written_to_after_planning_is_refused_when_read(tmp_path, kind):
    path = str(tmp_path / f"rows.{kind}")
    table = example_table(300)
    write = {"csv": pacsv.write_csv, "parquet": pq.write_table, "arrow": feather.write_feather}
    write[kind](table, path)
    part, columns = _learned(path)
    data = bytearray(Path(path).read_bytes())
    place = data.rindex(b"word 1") if kind == "csv" else len(data) // 3
    data[place] ^= 1
    Path(path).write_bytes(data)
    with pytest.raises(ChangedError, match="rows"), Reader([part], columns) as reader:
        list(reader)
    os.truncate(path, len(data) // 2)
    with pytest.raises(ChangedError, match="bytes when"), Reader([part], columns) as reader:
        list(reader)
    os.remove(path)
    with pytest.raises(ChangedError, match="was there"), Reader([part], columns) as reader:
        list(reader)


def test_a_file_that_was_only_touched_or_appended_to_is_still_read(tmp_path):
    path = str(tmp_path / "rows.csv")
    pacsv.write_csv(example_table(300), path)
    part, columns = _learned(path)
    with open(path, "ab") as file:
        file.write(b"more,that,is,not,for,this,job\n")
    with Reader([part], columns) as reader:
        assert sum(len(chunk) for chunk in reader) == reader.tallies[0].rows > 200
        assert reader.tallies[0].stop == 300


def test_a_renamed_column_is_named_with_the_nearest(tmp_path):
    path = str(tmp_path / "rows.csv")
    pacsv.write_csv(example_table(30), path)
    part, columns = _learned(path)
    other = example_table(30).rename_columns(
        ["amount", "Count", "open", "word", "moment", "known", "label"]
    )
    pacsv.write_csv(other, path)
    (source,) = open_sources(path)
    with pytest.raises(InputError, match=r"no column 'count' \(did you mean 'Count'\?\)"):
        Reader([source.slice()], columns)
    with pytest.raises(InputError, match=r"no column 'labl' for target .*'label'"):
        resolve(Schema(target="labl"), source)
    assert part.rows == 30


def test_a_frame_with_an_index_and_categoricals():
    frame = pd.DataFrame(
        {"c": pd.Categorical(["a", None, "b"]), "n": [1, 2, 3], "y": [True, False, True]},
        index=[5, 6, 7],
    )
    (source,) = open_sources(frame)
    assert source.names == ("c", "n", "y")
    columns = resolve(Schema(target="y"), source)
    assert columns.categories == ("c",) and columns.target_kind == "boolean"
    with Reader([source.slice()], columns, blobs=source.blobs) as reader:
        (chunk,) = list(reader)
    assert (chunk.batch.categories[:, 0] == 0).tolist() == [False, True, False]


def test_record_batch_readers_and_dicts_of_columns():
    table = example_table(40)
    (one,) = open_sources(table.to_reader())
    (two,) = open_sources({name: table[name].to_pylist() for name in ("count", "label")})
    assert one.slice().rows == two.slice().rows == 40
    assert isinstance(one.sample(), pa.Table)
