"""Chunks: exact, the same from every format, resumable, accounted for."""

import json
import threading

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.base import InputError, Schema, SpecError
from everlearn.data import timesort
from everlearn.data.columns import resolve
from everlearn.data.ids import SeenIds
from everlearn.data.increment import Reader
from everlearn.data.order import Shuffle
from everlearn.data.source import open_sources
from everlearn.data.tables import MemoryBlobs
from everlearn.testing.source import SCHEMA, example_table

ORDERS = ["stream", "time", Shuffle(70, 5), Shuffle(33)]


def columns_of(table, schema=SCHEMA):
    return resolve(schema, table, target_is_class=True)


def plan(data, blobs=None):
    return [source.slice() for source in open_sources(data, blobs=blobs)]


def signature(chunk):
    batch = chunk.batch
    held = b"" if chunk.held is None else chunk.held.ids.tobytes()
    return [batch.ids.tobytes(), batch.y.tobytes(), batch.numbers.tobytes(), held, chunk.number]


def signatures(*args, **options):
    with Reader(*args, **options) as reader:
        found = [signature(chunk) for chunk in reader]
        return found, reader.tallies


def test_formats_and_files_and_threads_change_nothing(tmp_path):
    table, blobs = example_table(400), MemoryBlobs()
    columns = columns_of(table)
    for k, size in enumerate((130, 1, 269)):
        piece = table.slice(sum((130, 1, 269)[:k]), size)
        pacsv.write_csv(piece, str(tmp_path / f"{k}.csv"))
        pq.write_table(piece, tmp_path / f"{k}.parquet", row_group_size=50)
        feather.write_feather(piece, str(tmp_path / f"{k}.arrow"), chunksize=37)
    options = {"chunk": 37, "holdout": 0.2}
    expected, _ = signatures(plan(table, blobs), columns, blobs=blobs, **options)
    assert len(expected) > 7
    for kind in ("csv", "parquet", "arrow"):
        slices = plan(str(tmp_path / f"*.{kind}"))
        for ahead in (True, False):
            found, tallies = signatures(slices, columns, read_ahead=ahead, **options)
            assert found == expected
            assert [tally.stop for tally in tallies] == [130, 1, 269]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@settings(max_examples=12, deadline=None)
@given(chunk=st.integers(1, 150), passes=st.integers(1, 3), share=st.sampled_from([0.0, 0.3]))
def test_a_killed_reader_goes_on_from_any_mark(order, chunk, passes, share):
    blobs, table = MemoryBlobs(), example_table(260)
    slices = plan(table.slice(0, 120), blobs) + plan(table.slice(120), blobs)
    columns = columns_of(table)
    options = {"chunk": chunk, "order": order, "passes": passes, "holdout": share, "blobs": blobs}
    with Reader(slices, columns, **options) as reader:
        steps = [(signature(part), json.dumps(part.mark), reader.tallies) for part in reader]
        final = reader.tallies
    rows = sum(tally.rows for tally in final)
    counts = [len(step[0][0]) // 8 for step in steps]
    assert sum(counts) == passes * rows
    assert sum(count == chunk for count in counts) == passes * (rows // chunk)
    for _, _, tallies in steps:
        for tally in tallies:
            known = tally.rows + tally.held_out + tally.set_aside + tally.duplicates
            assert known == tally.stop - tally.start
    for number in {0, len(steps) // 2, len(steps) - 1}:
        found, tallies = signatures(slices, columns, after=json.loads(steps[number][1]), **options)
        assert found == [step[0] for step in steps[number + 1 :]]
        assert tallies == final


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_every_order_gives_the_same_rows_and_the_same_account(order):
    blobs, table = MemoryBlobs(), example_table(300)
    table = table.take(np.random.default_rng(0).permutation(300))
    slices, columns = plan(table, blobs), columns_of(table)
    plain, expected = signatures(slices, columns, chunk=1000, holdout=0.2, blobs=blobs)
    found, tallies = signatures(slices, columns, chunk=1000, holdout=0.2, order=order, blobs=blobs)
    for kind in (0, 3):
        ids = [np.sort(np.frombuffer(item[0][kind], np.uint64)) for item in (plain, found)]
        assert (ids[0] == ids[1]).all()
    assert (found[0][0] != plain[0][0]) == (order != "stream")
    for mine, theirs in zip(tallies, expected, strict=True):
        assert mine == theirs


@pytest.mark.parametrize("run_bytes", [1 << 26, 4000])
def test_the_order_of_time_is_stable_also_where_it_spills(monkeypatch, run_bytes):
    monkeypatch.setattr(timesort, "RUN_BYTES", run_bytes)
    n = 9000
    generator = np.random.default_rng(1)
    blobs = MemoryBlobs()
    table = pa.table(
        {
            "at": pa.array(generator.integers(0, 40, n), pa.timestamp("s")),
            "place": np.arange(n),
            "y": pa.array(np.where(np.arange(n) % 3, "yes", "no")),
        }
    )
    columns = columns_of(table, Schema(target="y", time="at"))
    slices = [part for k in range(9) for part in plan(table.slice(k * 1000, 1000), blobs)]
    with Reader(slices, columns, chunk=500, order="time", holdout=0.1, blobs=blobs) as reader:
        chunks = list(reader)
    times = np.concatenate([chunk.batch.time for chunk in chunks])
    places = np.concatenate([chunk.batch.numbers[:, 0] for chunk in chunks])
    assert (np.lexsort((places, times)) == np.arange(len(times))).all()
    y = np.concatenate([chunk.batch.y for chunk in chunks])
    assert (y == np.where(places % 3, "yes", "no")).all()
    held = np.concatenate([chunk.held.time for chunk in chunks if chunk.held is not None])
    assert (np.diff(held) >= 0).all() and len(held) + len(times) == n


def test_a_shuffle_stays_within_its_windows_and_depends_on_the_seed():
    blobs, table = MemoryBlobs(), pa.table({"x": np.arange(100.0), "y": np.zeros(100)})
    slices, columns = plan(table, blobs), columns_of(table, Schema(target="y"))

    def order(**options):
        with Reader(slices, columns, chunk=7, blobs=blobs, **options) as reader:
            return [x for chunk in reader for x in chunk.batch.numbers[:, 0].astype(int).tolist()]

    one = order(order=Shuffle(30, 1))
    assert [sorted(one[k : k + 30]) for k in (0, 30, 60)] == [
        list(range(k, k + 30)) for k in (0, 30, 60)
    ]
    assert one != order(order=Shuffle(30, 2)) and one == order(order=Shuffle(30), seed=1)
    assert [x - 30 for x in one[30:60]] != one[:30]


def test_hold_outs_do_not_depend_on_how_rows_come():
    blobs, table = MemoryBlobs(), example_table(500)
    columns = columns_of(table)
    held = []
    for data in (table, table.take(np.arange(499, -1, -1)), table.slice(250)):
        with Reader(plan(data, blobs), columns, holdout=0.3, chunk=9, blobs=blobs) as reader:
            held.append({i for c in reader if c.held is not None for i in c.held.ids.tolist()})
    assert held[0] == held[1] and held[2] < held[0] and 90 < len(held[0]) < 180


IDS = Schema(target="y", id="id")


def table_with_ids(ids):
    n = len(ids)
    return pa.table({"id": ids, "x": np.arange(float(n)), "y": np.arange(n) % 2})


@pytest.mark.parametrize("order", ["stream", Shuffle(8), "time"], ids=str)
@pytest.mark.parametrize("passes", [1, 2])
def test_duplicate_ids_are_counted_once_and_for_all(order, passes):
    blobs = MemoryBlobs()
    first = table_with_ids([1, 2, 3, 2, 4, 5, 1, 6])
    second = table_with_ids([7, 3, 8, 9, 8])
    schema = IDS
    if order == "time":
        schema = Schema(target="y", id="id", time="x")
    columns = columns_of(first, schema)
    slices = plan(first, blobs) + plan(second, blobs)
    options = {"chunk": 2, "order": order, "passes": passes, "holdout": 0.3, "blobs": blobs}
    steps = []
    seen = SeenIds()
    with Reader(slices, columns, seen=seen, **options) as reader:
        for chunk in reader:
            steps.append((signature(chunk), json.dumps(chunk.mark), dict(seen.save())))
        tallies = reader.tallies
    assert [tally.duplicates for tally in tallies] == [2, 2]
    assert len(seen) == 9 and not len(seen.now)
    for number, (_, mark, state) in enumerate(steps):
        with Reader(slices, columns, seen=state, after=json.loads(mark), **options) as rest:
            assert [signature(c) for c in rest] == [step[0] for step in steps[number + 1 :]]
            assert rest.tallies == tallies
            assert {k: p.digest for k, p in rest.seen.save().items()} == {
                k: p.digest for k, p in seen.save().items()
            }
    with Reader(plan(table_with_ids([9, 10, 1]), blobs), columns, seen=seen, blobs=blobs) as later:
        list(later)
        assert later.tallies[0].duplicates == 2


def test_a_missing_id_is_set_aside():
    blobs, table = MemoryBlobs(), table_with_ids(pa.array([1, None, 2, None]))
    with Reader(plan(table, blobs), columns_of(table, IDS), blobs=blobs) as reader:
        list(reader)
        assert reader.tallies[0].reasons["set_aside"] == {"id missing": 2}


def test_rows_that_the_learner_refuses_are_set_aside():
    blobs, table = MemoryBlobs(), example_table(100)
    slices, columns = plan(table, blobs), columns_of(table)
    with Reader(slices, columns, chunk=30, blobs=blobs) as reader:
        chunk = next(reader)
        before = reader.tallies[0]
        reader.refuse(np.isin(np.arange(30), [3, 5]), "class unknown")
        mark = chunk.mark
        after = reader.tallies[0]
        assert (after.rows, after.set_aside) == (before.rows - 2, before.set_aside + 2)
        assert after.reasons["set_aside"]["class unknown"] == 2
        list(reader)
        final = reader.tallies
    _, tallies = signatures(slices, columns, chunk=30, blobs=blobs, after=mark)
    assert tallies == final


def test_rows_out_of_order_are_a_note():
    table, blobs = example_table(50), MemoryBlobs()
    table = table.take([*range(20), 25, 24, 23, *range(30, 40), 22])
    for chunk in (1, 7, 100):
        options = {"chunk": chunk, "blobs": blobs}
        _, tallies = signatures(plan(table, blobs), columns_of(table), **options)
        assert tallies[0].reasons["notes"] == {"times out of order": 3}


def test_no_rows_to_learn_still_give_their_hold_outs_and_their_account():
    blobs, table = MemoryBlobs(), example_table(40)
    with Reader(plan(table, blobs), columns_of(table), holdout=0.999999, blobs=blobs) as reader:
        (chunk,) = list(reader)
    assert len(chunk) == 0 and chunk.batch.numbers.shape == (0, 3)
    assert len(chunk.held) == reader.tallies[0].held_out > 30


def test_an_empty_increment_gives_nothing():
    columns = columns_of(example_table(10))
    with Reader([], columns) as reader:
        assert list(reader) == [] and reader.tallies == []


def test_the_thread_ends_when_the_reader_is_closed_early():
    blobs, table = MemoryBlobs(), example_table(500)
    slices = [part for k in range(50) for part in plan(table.slice(k * 10, 10), blobs)]
    reader = Reader(slices, columns_of(table), chunk=5, blobs=blobs)
    next(reader)
    assert any(thread.name == "read-ahead" for thread in threading.enumerate())
    reader.close()
    reader.close()
    assert not any(thread.name == "read-ahead" for thread in threading.enumerate())
    with pytest.raises(StopIteration):
        list(iter([next(reader)]))


def test_what_fails_in_the_thread_is_raised_after_the_chunks_before_it():
    blobs, table = MemoryBlobs(), example_table(100)
    slices = plan(table.slice(0, 50), blobs) + plan(table.slice(50), blobs)
    blobs._data.pop(slices[1].options["pieces"][0]["blob"])
    with Reader(slices, columns_of(table), chunk=10, blobs=blobs) as reader:
        assert len(next(reader)) == 10
        with pytest.raises(LookupError, match="no blob"):
            list(reader)


def test_arguments_that_cannot_be():
    columns = columns_of(pa.table({"x": [1.0], "y": [1.0]}), Schema(target="y"))
    for options in ({"chunk": 0}, {"passes": 0}, {"order": "time"}, {"order": "random"}):
        with pytest.raises(InputError):
            Reader([], columns, **options)
    for wrong in ((1,), (2.5,), (10, -1)):
        with pytest.raises(SpecError):
            Shuffle(*wrong)
