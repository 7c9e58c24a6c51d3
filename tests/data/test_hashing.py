"""Hashes: one value, one hash, whatever it was read from."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from everlearn.data.convert import to_categories
from everlearn.data.hashing import RowDigest, combine, hash_rows, hash_texts

texts = st.lists(st.none() | st.text(max_size=30), max_size=30)


@given(values=texts, start=st.integers(0, 5))
def test_a_hash_depends_on_the_text_alone(values, start):
    whole = pa.array(values, pa.string())
    expected = [int(hash_texts(pa.array([value], pa.string()))[0]) for value in values]
    assert hash_texts(whole).tolist() == expected
    assert hash_texts(whole.slice(start)).tolist() == expected[start:]
    for other in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        assert hash_texts(whole.cast(other)).tolist() == expected
    for value, found in zip(values, expected, strict=True):
        assert (found == 0) == (value in (None, ""))


def test_hashes_are_pinned():
    found = hash_texts(pa.array(["a", "UA", "a text of more than eight bytes", "é"]))
    assert [f"{value:016x}" for value in found.tolist()] == PINNED


PINNED = ["2d06a1f939804844", "76aff8ec89b4852d", "1a79984098dfcbad", "6d1ddba9c88fbb64"]


def test_no_collisions_among_many_similar_texts():
    many = pa.array([f"id-{k:07}" for k in range(200_000)] + [str(k) for k in range(200_000)])
    assert len(np.unique(hash_texts(many))) == 400_000


def test_one_value_has_one_hash_in_every_type():
    five = [
        pa.array(["5"]),
        pa.array(["5.0"]),
        pa.array([5], pa.int8()),
        pa.array([5.0]),
        pa.array([5.0], pa.float32()),
        pa.array(["5"]).dictionary_encode(),
        pa.array([5]).dictionary_encode(),
    ]
    assert len({int(to_categories(array, "c")[0]) for array in five}) == 1
    true = [pa.array([True]), pa.array(["true"]), pa.array(["True"])]
    assert len({int(to_categories(array, "c")[0]) for array in true}) == 1
    assert to_categories(pa.array([0.1]), "c")[0] == to_categories(pa.array(["0.1"]), "c")[0]
    assert to_categories(pa.array(["007"]), "c")[0] != to_categories(pa.array(["7"]), "c")[0]
    nothing = [pa.array([None, ""]), pa.array([None, np.nan]), pa.nulls(2)]
    assert all(to_categories(array, "c").tolist() == [0, 0] for array in nothing)
    day = pa.array([18262], pa.date32())
    assert to_categories(day, "c")[0] == to_categories(pa.array(["2020-01-01"]), "c")[0]


@given(st.lists(st.tuples(st.floats(), st.integers(-5, 5)), min_size=1, max_size=40))
def test_rows_hash_alike_exactly_if_their_values_are_equal(rows):
    floats = np.array([row[0] for row in rows])
    integers = np.array([row[1] for row in rows])
    found = hash_rows([floats, integers], len(rows))
    keys = [("nan" if x != x else x + 0.0, k) for x, k in rows]
    assert len(set(found.tolist())) == len(set(keys)) and 0 not in found
    assert (hash_rows([floats[1:], integers[1:]], len(rows) - 1) == found[1:]).all()


def test_columns_are_not_interchangeable_and_grids_do_not_collide():
    a, b = np.array([1.0, 2.0]), np.array([2.0, 1.0])
    assert len({*hash_rows([a, b], 2).tolist(), *hash_rows([b], 2).tolist()}) == 4
    grid = np.stack(np.meshgrid(*[np.arange(30.0)] * 4), axis=-1).reshape(-1, 4)
    assert len(np.unique(hash_rows(list(grid.T), len(grid)))) == 30**4
    assert combine(a, b)[0] != combine(b, a)[0]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.integers(0, 30))
def test_a_row_digest_can_be_continued(values, cut):
    hashes = np.array(values, np.uint64)
    cut = min(cut, len(values))
    whole = RowDigest.sums(hashes, 0)
    tail = RowDigest.sums(hashes[cut:], cut)
    assert (whole[cut] + tail[-1] == whole[-1]).all()
    text = RowDigest.text(whole[-1])
    assert (RowDigest.parse(text) == whole[-1]).all() and len(text) == 32
    if len(values) > 1 and values[0] != values[1]:
        swapped = hashes.copy()
        swapped[:2] = hashes[1::-1][:2] if len(hashes) > 2 else hashes[::-1]
        assert RowDigest.text(RowDigest.sums(swapped, 0)[-1]) != text
