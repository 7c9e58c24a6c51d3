"""Rows that are withdrawn: what is read without them is what it would be had they never been."""

import re
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.base import InputError
from everlearn.data import withdrawals
from everlearn.data.columns import resolve
from everlearn.data.increment import Reader
from everlearn.data.log import FeedbackLog
from everlearn.data.order import Shuffle
from everlearn.data.resettle import withdraw
from everlearn.data.selection import Selection, find
from everlearn.data.slices import Slice
from everlearn.data.source import open_sources
from everlearn.data.tables import MemoryBlobs
from everlearn.data.withdrawals import Withdrawals, WithdrawnRows, amend, store
from everlearn.data.withdrawn import WITHDRAWN, Numbers, withdrawn_rows
from everlearn.registry.retention import reachable
from everlearn.storage.database import Database
from everlearn.storage.schema import models
from everlearn.testing.source import SCHEMA, example_table

ORDERS = ["stream", "time", Shuffle(40, 5), Shuffle(33)]
IDS = replace(SCHEMA, id="number", key="word")


def table_of(rows: int, seed: int = 0) -> pa.Table:
    """Rows in no order of time, with ids of which some stand twice."""
    rng = np.random.default_rng(seed)
    table = example_table(rows).take(rng.permutation(rows))
    return table.append_column("number", pa.array(rng.integers(0, rows, rows)))


def written(table: pa.Table, path: Path, kind: str) -> str:
    if kind == "csv":
        pacsv.write_csv(table, str(path))
    elif kind == "parquet":
        pq.write_table(table, path, row_group_size=50)
    else:
        feather.write_feather(table, str(path), chunksize=37)
    return str(path)


def chunks(slices, columns, blobs, **options):
    """The chunks that have rows, and what became of all rows."""
    with Reader(slices, columns, blobs=blobs, **options) as reader:
        found = [
            (chunk.number, content(chunk.batch), chunk.held and content(chunk.held))
            for chunk in reader
            if len(chunk) or chunk.held is not None
        ]
        return found, reader.tallies, {k: p.digest for k, p in reader.seen.save().items()}


def content(batch):
    arrays = (batch.ids, batch.numbers, batch.categories, batch.times, batch.time, batch.label_time)
    key = b"" if batch.key is None else batch.key.tobytes()
    return [None if a is None else a.tobytes() for a in arrays], batch.y.tolist(), key


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow", "table"])
@pytest.mark.parametrize("order", ORDERS, ids=str)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_file_without_rows_is_read_as_one_that_never_had_them(
    tmp_path_factory, kind, order, data
):
    folder, blobs, table = tmp_path_factory.mktemp("files"), MemoryBlobs(), table_of(230)
    schema = data.draw(st.sampled_from([SCHEMA, IDS]))
    rows = data.draw(st.sets(st.integers(0, 229), max_size=60) | st.just(set(range(100, 230))))
    kept = table.take(np.setdiff1d(np.arange(230), list(rows)))
    options = {
        "chunk": data.draw(st.integers(1, 90)),
        "passes": data.draw(st.integers(1, 2)),
        "holdout": data.draw(st.sampled_from([0.0, 0.3])),
        "order": order,
    }
    columns = resolve(schema, table, target_is_class=True)

    def slices_of(tables):
        if kind == "table":
            parts = [open_sources(part, blobs=blobs) for part in tables]
        else:
            paths = [folder / f"{k}{len(t)}.{kind}" for k, t in enumerate(tables)]
            parts = [open_sources(written(*p, kind)) for p in zip(tables, paths, strict=True)]
        return [source.slice() for part in parts for source in part]

    first, second = slices_of([table.slice(0, 130), table.slice(130)])
    mine = [withdraw(first, rows, blobs), withdraw(second, [r - 130 for r in rows], blobs)]
    cut = len([row for row in range(130) if row not in rows])
    both = [part for part in (kept.slice(0, cut), kept.slice(cut)) if len(part)]
    found, tallies, seen = chunks(mine, columns, blobs, **options)
    expected, plain, ids = chunks(slices_of(both), columns, blobs, **options)
    assert found == expected
    assert seen == ids
    for name in ("rows", "held_out", "duplicates"):
        assert sum(getattr(t, name) for t in tallies) == sum(getattr(t, name) for t in plain)
    told = [t.reasons["set_aside"].get(WITHDRAWN, 0) for t in tallies]
    assert told == [len([r for r in rows if r < 130]), len([r for r in rows if r >= 130])]
    notes = [sum(sum(t.reasons["notes"].values()) for t in told) for told in (tallies, plain)]
    assert notes[0] == notes[1]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_a_reader_without_rows_goes_on_from_any_mark(order):
    blobs, table = MemoryBlobs(), table_of(200)
    columns = resolve(SCHEMA, table, target_is_class=True)
    (part,) = [source.slice() for source in open_sources(table, blobs=blobs)]
    mine = withdraw(part, range(30, 150, 3), blobs)
    options = {"chunk": 13, "passes": 2, "holdout": 0.2, "order": order, "blobs": blobs}
    with Reader([mine], columns, **options) as reader:
        steps = [(content(chunk.batch), chunk.mark) for chunk in reader]
        final = reader.tallies
    for number in (0, 5, len(steps) - 2):
        mark = steps[number][1]
        with Reader([mine], columns, after=mark, **options) as reader:
            assert [content(c.batch) for c in reader] == [step for step, _ in steps[number + 1 :]]
            assert reader.tallies == final


def test_what_is_withdrawn_adds_up_and_is_part_of_the_fingerprint():
    blobs, table = MemoryBlobs(), example_table(50)
    (part,) = [source.slice() for source in open_sources(table, blobs=blobs)]
    one = withdraw(part, [3, 1, 99, 3], blobs)
    both = withdraw(one, np.array([7, 3]), blobs)
    assert withdrawn_rows(part, blobs).values.tolist() == []
    assert withdrawn_rows(one, blobs).values.tolist() == [1, 3]
    assert withdrawn_rows(both, blobs).values.tolist() == [1, 3, 7]
    assert withdraw(both, [1, 7], blobs) is both
    assert withdraw(part, [50, 99], blobs) is part
    assert len({part.fingerprint, one.fingerprint, both.fingerprint}) == 3
    assert Slice.from_json(both.to_json()) == both
    with pytest.raises(InputError, match="is in blobs"):
        withdrawn_rows(one, None)
    numbers = Numbers.of([[5, -2], np.array([5, 2**40])])
    assert numbers.values.tolist() == [-2, 5, 2**40]
    assert Numbers.load(numbers.save()).values.tolist() == numbers.values.tolist()
    assert [5 in numbers, 4 in numbers, 2**50 in numbers] == [True, False, False]


# --- which rows: of files and tables -------------------------------------------------------------

ASKED = [
    ("amount > 100 and open = true", lambda r: (r["amount"] or 0) > 100 and r["open"]),
    ("count in (1, 2, 3)", lambda r: r["count"] in (1, 2, 3)),
    ("word like 'word 2_,%'", lambda r: re.match("word 2.,", r["word"] or "")),
    ("key is null", lambda r: r["word"] is None),
    ("time >= '2020-01-01T01:00'", lambda r: r["moment"] >= datetime(2020, 1, 1, 1)),
    ("label_time < '2020-01-01T00:10'", lambda r: r["known"] < datetime(2020, 1, 1, 0, 10)),
    ("id = '17' or number = '18'", lambda r: r["number"] in (17, 18)),
    ("extra = 3 and note != 'x'", lambda r: r["extra"] == 3 and r["note"] == "y"),
    ("row >= 20 and row < 25 and source like '%rows%'", None),
    ("label = 1", lambda r: r["label"] == 1),
    ("missing is null and count = 0", lambda r: r["count"] == 0),
]


@pytest.fixture(params=["csv", "parquet", "arrow", "table"])
def kept(request, tmp_path):
    """(slice, columns, schema, blobs, rows) of data of which some columns are not learned."""
    table, blobs = table_of(150), MemoryBlobs()
    n = np.arange(150)
    table = table.append_column("extra", pa.array(n % 5))
    table = table.append_column("note", pa.array(["x", "y", None] * 50))
    schema = replace(IDS, ignore=("extra", "note"))
    columns = resolve(schema, table, target_is_class=True)
    data = (
        table
        if request.param == "table"
        else written(table, tmp_path / f"rows.{request.param}", request.param)
    )
    (source,) = open_sources(data, blobs=blobs, name="rows" if request.param == "table" else None)
    return source.slice(), columns, schema, blobs, table.to_pylist()


def test_rows_are_found_by_conditions_whatever_format_they_are_in(kept):
    part, columns, schema, blobs, rows = kept
    for text, holds in ASKED:
        expected = range(20, 25) if holds is None else [k for k, r in enumerate(rows) if holds(r)]
        found = find(part, columns, schema, Selection.where(text), blobs)
        assert found.tolist() == list(expected), text
    one = withdraw(part, found[:3], blobs)
    again = find(one, columns, schema, Selection.where(text), blobs)
    assert again.tolist() == found[3:].tolist(), "what it is without already is not found again"


def test_rows_are_found_by_key_and_number(kept):
    part, columns, schema, blobs, rows = kept
    key = rows[5]["word"]
    found = find(part, columns, schema, Selection.of_key(key), blobs)
    assert found.tolist() == [k for k, row in enumerate(rows) if row["word"] == key]
    named = Selection.of_rows([f"{part.source}:140-160", f"{part.source}:3"])
    assert find(part, columns, schema, named, blobs).tolist() == [3, *range(140, 150)]
    assert not len(find(part, columns, schema, Selection.induced_by(1), blobs))
    assert Selection.from_json(named.to_json()) == named
    named.check([(part, columns)])
    Selection.where("extra = 1 and key = 'a'").check([(part, columns)])
    for wrong, message in [
        (Selection.where("extr = 1"), "no column 'extr': did you mean 'extra'"),
        (Selection.of_rows(["row:1"]), "nothing was learned of 'row'"),
        (Selection.induced_by(3), "no labels"),
    ]:
        with pytest.raises(InputError, match=message):
            wrong.check([(part, columns)])
    with pytest.raises(InputError, match="names no column of keys"):
        Selection.of_key("a").check([(part, replace(columns, key=None))])


@pytest.mark.parametrize("text", ["17", "a:", "a:5-3", ":3", "a:b", "a:1-2-3", "a:-1"])
def test_rows_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="rows are SOURCE:FROM-TO"):
        Selection.of_rows([text])


def test_what_can_no_longer_be_read_is_told_with_its_rows(tmp_path):
    table, blobs = example_table(50), MemoryBlobs()
    columns = resolve(SCHEMA, table, target_is_class=True)
    path = tmp_path / "rows.csv"
    (part,) = [s.slice() for s in open_sources(written(table, path, "csv"))]
    asked = Selection.where("count = 1")
    path.write_text(path.read_text().replace("word 1", "word 7"))
    with pytest.raises(InputError, match=r"rows 0 to 49 of '.*rows.csv' cannot be .* was changed"):
        find(part, columns, SCHEMA, asked, blobs)
    path.unlink()
    with pytest.raises(InputError, match=r"rows 0 to 49 of '.*rows.csv' cannot be read any more"):
        find(part, columns, SCHEMA, asked, blobs)
    (spooled,) = [s.slice() for s in open_sources(table, blobs=blobs)]
    with pytest.raises(InputError, match=r"rows 0 to 49 of .* cannot be read any more: no blob"):
        find(spooled, columns, SCHEMA, asked, MemoryBlobs())


# --- planned anew --------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path):
    with closing(Database.open(f"sqlite:///{tmp_path}/workspace.db")) as database:
        with database.write() as connection:
            made = connection.execute(sa.insert(models).values(name="m", created_at=0))
        yield FeedbackLog(database, made.inserted_primary_key[0])


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow", "table"])
def test_a_file_is_planned_without_the_rows_that_were_withdrawn_of_it(log, tmp_path, kind):
    blobs, table = MemoryBlobs(), table_of(90)
    columns = resolve(IDS, table, target_is_class=True)

    def planned(rows, name):
        data = table.slice(0, rows)
        if kind != "table":
            data = written(data, tmp_path / f"{name}.{kind}", kind)
        (source,) = open_sources(data, blobs=blobs, name=name if kind == "table" else None)
        return source.slice(again=True)

    first = planned(60, "first")
    with Reader([first], columns, blobs=blobs) as reader:
        assert sum(len(chunk) for chunk in reader)
        digest = reader.tallies[0].reasons["row_digest"]
    place = WithdrawnRows.of(first, [50, 5, 7], blobs, digest)
    with log.database.write() as connection:
        store(connection, log.model, {}, "poisoned", [place], rows=3)
    known = Withdrawals(log.database, log.model, blobs)
    for rows, name in [(60, "first"), (60, "copy"), (90, "grown")]:
        found = known.applied(planned(rows, name), columns)
        assert withdrawn_rows(found, blobs).values.tolist() == [5, 7, 50], (rows, name)
    table = table.take(np.arange(89, -1, -1))
    other = planned(90, "other")
    assert known.applied(other, columns) is other
    assert WithdrawnRows.from_json(place.to_json()) == place


def test_a_file_is_read_once_however_much_was_withdrawn(log, tmp_path, monkeypatch):
    blobs, table = MemoryBlobs(), table_of(90)
    for rows in (20, 30, 40):
        path = written(table.slice(0, rows), tmp_path / f"{rows}.csv", "csv")
        (part,) = [s.slice() for s in open_sources(path)]
        place = WithdrawnRows.of(part, [rows - 1], blobs)
        with log.database.write() as connection:
            store(connection, log.model, {}, "poisoned", [place], rows=1)
    (part,) = [s.slice() for s in open_sources(written(table, tmp_path / "90.csv", "csv"))]
    columns, passes = resolve(IDS, table, target_is_class=True), []
    scan = withdrawals.scan
    monkeypatch.setattr(withdrawals, "scan", lambda *args: passes.append(args) or scan(*args))
    found = Withdrawals(log.database, log.model, blobs).applied(part, columns)
    assert withdrawn_rows(found, blobs).values.tolist() == [19, 29, 39]
    assert len(passes) == 1


def test_blobs_that_say_what_was_withdrawn_are_kept(log):
    blobs = MemoryBlobs()
    (part,) = [s.slice() for s in open_sources(example_table(9), blobs=blobs)]
    place = WithdrawnRows.of(part, [1], blobs)
    with log.database.write() as connection:
        number = store(connection, log.model, {"where": "row = 1"}, "it is", [place], rows=1)
        amend(connection, number, report={"folded": [2]}, job_id=None)
        assert place.blob in reachable(connection)
    (one,) = Withdrawals(log.database, log.model, blobs).all()
    assert (one.report, one.rows, one.places) == ({"folded": [2]}, 1, (place,))
