"""What kernels are given, whatever form the rows had."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from numba import typeof

from everlearn.base import NO_TIME, Batch, InputError
from everlearn.learners.native.rows import (
    Rows,
    numbers_of,
    rows_of_batch,
    rows_of_matrix,
    usable,
)

NUMBERS = np.array([[1.5, np.nan, -3.0], [np.inf, 0.0, 1e300]])
KINDS = {
    "numbers": typeof(np.zeros((1, 1))),
    "times": typeof(np.zeros((1, 1))),
    "categories": typeof(np.zeros((1, 1), np.uint64)),
    "starts": typeof(np.zeros(1, np.int64)),
    "places": typeof(np.zeros(1, np.int64)),
    "values": typeof(np.zeros(1)),
}
"""What every kernel is compiled for."""


def check_types(rows: Rows) -> Rows:
    """A kernel would be compiled again for anything else."""
    for name, kind in KINDS.items():
        assert typeof(getattr(rows, name)) == kind, name
    return rows


def batch_of(numbers=None, categories=None, times=None, rows=2) -> Batch:
    return Batch(
        numbers=np.zeros((rows, 0)) if numbers is None else numbers,
        categories=np.zeros((rows, 0), np.uint64) if categories is None else categories,
        times=np.zeros((rows, 0), np.int64) if times is None else times,
        ids=np.arange(rows, dtype=np.uint64),
    )


def read_only(array):
    array.flags.writeable = False
    return array


def unaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    moved = memory[1:].view(array.dtype).reshape(array.shape)
    moved[:] = array
    assert not moved.flags.aligned
    return moved


FORMS = {
    "as it is": NUMBERS,
    "read-only": read_only(NUMBERS.copy()),
    "columns in memory": np.asfortranarray(NUMBERS),
    "big-endian": NUMBERS.astype(">f8"),
    "every other": np.repeat(NUMBERS, 2, axis=0)[::2],
    "backwards": NUMBERS[::-1, ::-1].copy()[::-1, ::-1],
    "unaligned": unaligned(NUMBERS),
    "objects": NUMBERS.astype(object),
    "lists": NUMBERS.tolist(),
    "None for NaN": [[1.5, None, -3], [np.inf, 0, 1e300]],
    "pandas": pd.DataFrame(NUMBERS, columns=["a", "b", "c"]),
    "pandas, nullable": pd.DataFrame(NUMBERS, columns=["a", "b", "c"]).convert_dtypes(),
    "polars": pl.DataFrame(NUMBERS, schema=["a", "b", "c"]),
    "long double": NUMBERS.astype(np.longdouble),
    "matrix": np.asmatrix(NUMBERS),
}


@pytest.mark.parametrize("form", FORMS)
def test_numbers_in_any_form(form):
    rows = check_types(rows_of_matrix(FORMS[form], ()))
    np.testing.assert_array_equal(rows.numbers, NUMBERS)
    assert len(rows) == 2
    assert rows.dense() is rows.numbers


@pytest.mark.parametrize("dtype", ["f4", "f2", "i1", "u2", "i8", "u8", "?"])
def test_numbers_of_other_types(dtype):
    matrix = np.array([[0, 1], [1, 1], [1, 0]]).astype(dtype)
    rows = check_types(rows_of_matrix(matrix, ()))
    np.testing.assert_array_equal(rows.numbers, [[0, 1], [1, 1], [1, 0]])


def test_nothing_is_copied_that_can_be_used():
    for matrix in (NUMBERS, read_only(NUMBERS.copy())):
        assert np.shares_memory(rows_of_matrix(matrix, ()).numbers, matrix)


def test_memory_of_a_read_only_array_stays():
    rows = usable(read_only(np.full(1000, 7.0)), np.float64)
    again = [np.full(1000, 3.0) for _ in range(20)]
    assert (rows == 7.0).all() and len(again) == 20


def test_frames_that_mix_types():
    frame = pd.DataFrame(
        {
            "a": pd.array([1, None, 3], dtype="Int64"),
            "b": [True, False, True],
            "c": pd.array([True, None, False], dtype="boolean"),
        }
    )
    expected = [[1, 1, 1], [np.nan, 0, np.nan], [3, 1, 0]]
    np.testing.assert_array_equal(rows_of_matrix(frame, ()).numbers, expected)
    frame = pl.DataFrame({"a": [1, None, 3], "b": [True, False, True], "c": [True, None, False]})
    np.testing.assert_array_equal(rows_of_matrix(frame, ()).numbers, expected)


@pytest.mark.parametrize(
    ("X", "said"),
    [
        ([1.0, 2.0], r"X has shape \(2,\).*Reshape your data: X.reshape\(1, -1\) is one row"),
        (3.0, r"X has shape \(\)"),
        (np.zeros((2, 2, 2)), r"X has shape \(2, 2, 2\)"),
        (np.zeros((3, 0)), r"X has 0 feature"),
        ([[1.0], [2.0, 3.0]], "X holds something else than numbers: .*inhomogeneous"),
        ([["1", "2"]], "X holds something else than numbers: it has the type <U1"),
        ([[1.0, "late"]], "X holds something else than numbers"),
        (np.array([[1.0, "late"]], object), "'late' is a text.*nominal="),
        (pd.DataFrame({"a": [1.0], "b": ["x"]}), "'x' is a text"),
        (pd.DataFrame({"a": pd.Categorical(["x"])}), "'x' is a text"),
        (pl.DataFrame({"a": [1.0], "b": ["x"]}), "'x' is a text"),
        (np.array([[1 + 2j]]), "Complex data not supported"),
        (np.array([[1 + 2j]], object), "X holds something else than numbers"),
        (np.array([["2020-01-01"]], "M8[us]"), "it has the type datetime64"),
        ([[dt.datetime(2020, 1, 1)]], "X holds something else than numbers"),
        ([[{}]], "X holds something else than numbers"),
        (sp.csr_matrix(np.array([[1j]])), "a sparse matrix of complex128"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(X, said):
    with pytest.raises(InputError, match=said):
        rows_of_matrix(X, ())


# --- nominal columns ---------------------------------------------------------------------------


def test_nominal_columns_are_categories():
    matrix = np.array(
        [[7.0, 1.0, -0.0], [np.nan, 2.0, 0.0], [7.0, 3.0, np.inf], [-7.0, 4.0, -np.inf]]
    )
    rows = check_types(rows_of_matrix(matrix, (0, 2)))
    np.testing.assert_array_equal(rows.numbers, matrix[:, 1:2])
    first, second = rows.categories.T.tolist()
    assert first[0] == first[2] and first[1] == 0 and len(set(first)) == 3
    assert second[0] == second[1], "−0.0 is 0.0"
    assert len(set(second)) == 3 and 0 not in second
    swapped = rows_of_matrix(matrix, (2, 0))
    np.testing.assert_array_equal(swapped.categories, rows.categories[:, ::-1])


def test_a_category_has_one_hash_in_any_form_and_any_column():
    whole = rows_of_matrix(np.array([[1, 3], [3, 1]]), (0, 1)).categories
    assert (rows_of_matrix([[1.0, 3.0], [3.0, 1.0]], (0, 1)).categories == whole).all()
    assert (whole == whole.T).all()


@pytest.mark.parametrize("nominal", [(3,), (-1,), (0, 5)])
def test_nominal_columns_that_are_not_there(nominal):
    with pytest.raises(InputError, match=r"nominal=.* names a column that X, \(2, 3\), has not"):
        rows_of_matrix(NUMBERS, nominal)


@pytest.mark.parametrize("nominal", [("colour",), (0.0,), (None,)])
def test_nominal_columns_are_named_by_their_places(nominal):
    with pytest.raises(InputError, match="by their places"):
        rows_of_matrix(NUMBERS, nominal)


def test_advice_on_columns_is_for_columns():
    with pytest.raises(InputError, match=r"the target holds .* 'late' is a text$"):
        numbers_of(np.array(["late", None]), "the target")


def test_a_sparse_matrix_has_no_nominal_columns():
    with pytest.raises(InputError, match="a sparse matrix has no categories"):
        rows_of_matrix(sp.csr_matrix((3, 3)), (0,))


# --- sparse matrices ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_array, sp.coo_array, sp.lil_matrix])
def test_sparse_matrices(form):
    dense = np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, -3.0]])
    rows = check_types(rows_of_matrix(form(dense), ()))
    assert len(rows) == 3
    np.testing.assert_array_equal(rows.starts, [0, 1, 1, 3])
    np.testing.assert_array_equal(rows.places, [1, 0, 2])
    np.testing.assert_array_equal(rows.values, [2.0, 1.0, -3.0])
    part = check_types(rows.part(1, 3))
    assert len(part) == 2
    np.testing.assert_array_equal(part.values[part.starts[1] : part.starts[2]], [1.0, -3.0])


def test_sparse_matrices_of_whole_numbers_that_are_read_only():
    matrix = sp.csr_matrix(np.array([[0, 2], [1, 0]], np.int8))
    for array in (matrix.data, matrix.indices, matrix.indptr):
        read_only(array)
    np.testing.assert_array_equal(check_types(rows_of_matrix(matrix, ())).values, [2.0, 1.0])


def test_what_stands_twice_in_a_sparse_matrix_is_added_up():
    matrix = sp.csr_matrix((np.array([100, 100, 3], np.int8), [1, 1, 0], [0, 3]), (1, 2))
    rows = check_types(rows_of_matrix(matrix, ()))
    assert (rows.places.tolist(), rows.values.tolist()) == ([0, 1], [3.0, 200.0])
    assert matrix.indices.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("indices", "starts"), [([-1, 1], [0, 1, 2]), ([0, 1], [0, 2, 1]), ([0, 1], [0, 1, 9])]
)
def test_broken_sparse_matrices_are_refused(indices, starts):
    matrix = sp.csr_matrix((2, 2))
    matrix.data, matrix.indices, matrix.indptr = np.ones(2), np.array(indices), np.array(starts)
    with pytest.raises(InputError, match="broken indices"):
        rows_of_matrix(matrix, ())


# --- batches -----------------------------------------------------------------------------------


def micros(*parts: int) -> int:
    return int(dt.datetime(*parts, tzinfo=dt.UTC).timestamp()) * 1_000_000


def test_a_batch_in_any_form():
    given = batch_of(read_only(np.asfortranarray(NUMBERS)), read_only(np.ones((2, 1), np.uint64)))
    rows = check_types(rows_of_batch(given, "phases"))
    np.testing.assert_array_equal(rows.numbers, NUMBERS)
    assert rows.categories.tolist() == [[1], [1]] and rows.times.shape == (2, 0)
    assert len(check_types(rows_of_batch(given.take(slice(0, 0)), "phases"))) == 0


def test_the_place_of_a_time_in_day_week_and_year():
    monday, friday = micros(2024, 1, 1), micros(2024, 1, 5, 18)
    times = np.array([[monday, friday], [NO_TIME, monday - 1]])
    rows = check_types(rows_of_batch(batch_of(times=times), "phases"))
    assert rows.times.shape == (2, 6)
    day, week, year = rows.times[0, :3]
    assert (day, week) == (0.0, 0.0)
    # years have 365.2425 days and begin with 1970-01-05, the first Monday
    since = (monday - micros(1970, 1, 5)) / 31_556_952_000_000
    assert year == pytest.approx(since % 1.0, abs=1e-12)
    np.testing.assert_allclose(rows.times[0, 3:5], [0.75, 4.75 / 7])
    assert np.isnan(rows.times[1, :3]).all()
    assert (rows.times[1, 3:] < 1.0).all() and (rows.times[1, 3:5] > 0.9999999).all()
    assert rows.dense().shape == (2, 6)


def test_times_as_waves_are_the_sine_and_cosine_of_their_places():
    times = np.array([[micros(1969, 7, 20, 20, 17)], [micros(2024, 2, 29, 12)], [NO_TIME]])
    waves = check_types(rows_of_batch(batch_of(times=times, rows=3), "waves")).times
    phases = rows_of_batch(batch_of(times=times, rows=3), "phases").times
    assert waves.shape == (3, 6)
    np.testing.assert_allclose(waves[:, 0::2], np.sin(2 * np.pi * phases), atol=1e-12)
    np.testing.assert_allclose(waves[:, 1::2], np.cos(2 * np.pi * phases), atol=1e-12)
    assert np.isnan(waves[2]).all() and not np.isnan(waves[:2]).any()


def test_far_times_have_places_too():
    limits = np.iinfo(np.int64)
    times = np.array([[limits.max], [limits.min + 1], [0]])
    places = rows_of_batch(batch_of(times=times, rows=3), "phases").times
    assert ((places >= 0.0) & (places < 1.0)).all()


def test_dense_puts_times_behind_numbers():
    given = batch_of(np.array([[1.0], [2.0]]), times=np.array([[0], [micros(2000, 1, 1)]]))
    rows = rows_of_batch(given, "phases")
    np.testing.assert_array_equal(rows.dense(), np.hstack([rows.numbers, rows.times]))
    assert typeof(rows.dense()) == KINDS["numbers"]
