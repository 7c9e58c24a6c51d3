from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from everlearn.base import NO_TIME, Batch, Columns, InputError, Part, SpecError
from everlearn.learners import Encoder
from everlearn.learners.encoder import Encoding, cyclic

NONE = np.zeros((0, 0))


def batch(numbers=NONE, categories=NONE, times=NONE):
    given_ = [np.asarray(a) for a in (numbers, categories, times)]
    rows = max(len(a) for a in given_)
    kinds = (np.float64, np.uint64, np.int64)
    arrays = [a.astype(kind).reshape(rows, -1) for a, kind in zip(given_, kinds, strict=True)]
    ids = np.arange(rows, dtype=np.uint64)
    return Batch(numbers=arrays[0], categories=arrays[1], times=arrays[2], ids=ids)


def columns(numbers=0, categories=0, times=0):
    return Columns(
        numbers=tuple(f"n{i}" for i in range(numbers)),
        categories=tuple(f"c{i}" for i in range(categories)),
        times=tuple(f"t{i}" for i in range(times)),
    )


def dense(matrix):
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def test_standardises_as_the_whole_would():
    values = np.random.default_rng(0).normal(5, 3, size=(100, 4))
    encoding = Encoding(Encoder(missing="mean", clip=100), columns(4), sparse=False)
    for piece in np.array_split(values, 7):
        encoding.learn(batch(piece))
    expected = StandardScaler().fit_transform(values)
    np.testing.assert_allclose(encoding.transform(batch(values)), expected, atol=1e-12)


def test_plain_numbers_are_passed_without_a_copy():
    encoding = Encoding(Encoder("as_is", missing="mean"), columns(2), sparse=True)
    rows = batch([[1.0, 2.0], [3.0, 4.0]])
    encoding.learn(rows)
    assert encoding.transform(rows) is rows.numbers
    with_gap = batch([[np.nan, 9.0]])
    assert encoding.transform(with_gap).tolist() == [[2.0, 9.0]]
    with pytest.raises(InputError, match="infinite"):
        encoding.transform(batch([[np.inf, 9.0]]))


def test_missing_numbers_are_the_mean_and_marked():
    encoding = Encoding(Encoder(), columns(2), sparse=False)
    encoding.learn(batch([[0.0, 1.0], [2.0, np.nan]]))
    row = encoding.transform(batch([[np.nan, 1.0], [2.0, np.nan]]))
    assert row.tolist() == [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]]


@pytest.mark.parametrize("categories", ["hash", "onehot"])
def test_sparse_and_dense_are_the_same_matrix(categories):
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(50, 3))
    numbers[generator.random((50, 3)) < 0.3] = np.nan
    times = generator.integers(0, 10**15, (50, 2))
    times[0, 1] = NO_TIME
    rows = batch(numbers, generator.integers(0, 30, (50, 2)), times)
    made = []
    for sparse in (True, False):
        encoder = Encoder(categories=categories, buckets=100, scales=(0.5, 0.25, 2.0))
        encoding = Encoding(encoder, columns(3, 2, 2), sparse=sparse)
        assert encoding.is_sparse == sparse
        encoding.learn(rows.take(slice(0, 30)))
        made.append(encoding.transform(rows))
    assert made[0].shape == (50, encoding.width) == (50, 6 + 12 + 100)
    assert (made[0].toarray() == made[1]).all()


def test_small_matrices_stay_dense():
    assert not Encoding(Encoder(buckets=4), columns(3, 1), sparse=True).is_sparse
    assert not Encoding(Encoder(), columns(30), sparse=True).is_sparse


def test_hashing_keeps_columns_apart():
    encoding = Encoding(Encoder(buckets=4096), columns(0, 2), sparse=False)
    one = encoding.transform(batch(categories=[[5, 6], [6, 5], [5, 6], [0, 6]]))
    assert one.sum(axis=1).tolist() == [2.0] * 4
    assert (one[0] == one[2]).all()
    assert (one[0] != one[1]).any()
    assert (one[0] != one[3]).any(), "a missing category has its own bucket"


def test_hashing_is_the_same_everywhere():
    encoding = Encoding(Encoder(buckets=1000), columns(0, 2), sparse=False)
    row = encoding.transform(batch(categories=[[1, 2**63 + 11]]))
    assert np.flatnonzero(row[0]).tolist() == [130, 465]


def test_one_hot_grows_by_order_of_appearance_up_to_its_bound():
    encoding = Encoding(Encoder(categories="onehot", buckets=3), columns(0, 1), sparse=False)
    encoding.learn(batch(categories=[[9], [4], [9]]))
    encoding.learn(batch(categories=[[4], [7], [8]]))
    matrix = encoding.transform(batch(categories=[[9], [4], [7], [8], [1]]))
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_cyclic_parts_of_times():
    def micro(*parts):
        return int(datetime(*parts, tzinfo=UTC).timestamp()) * 1_000_000

    monday, friday = micro(2024, 1, 1), micro(2024, 1, 5)
    parts = cyclic(np.array([[monday], [monday + 6 * 3_600_000_000], [friday], [NO_TIME]]))
    np.testing.assert_allclose(parts[0, :4], [0, 1, 0, 1], atol=1e-12)
    np.testing.assert_allclose(parts[1, :2], [1, 0], atol=1e-12)
    angle = 2 * np.pi * 4 / 7
    np.testing.assert_allclose(parts[2, 2:4], [np.sin(angle), np.cos(angle)], atol=1e-12)
    assert (parts[3] == 0).all()


def test_before_1970_too():
    assert np.isfinite(cyclic(np.array([[-(10**17)]]))).all()


@given(
    st.lists(
        st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=3, max_size=3),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 5),
)
def test_standardised_numbers_are_always_finite(rows, chunk):
    encoding = Encoding(Encoder(), columns(3), sparse=False)
    whole = batch(rows)
    for piece in whole.split(chunk):
        before = encoding.transform(piece)
        encoding.learn(piece)
        after = encoding.transform(piece)
        for matrix in (before, after):
            assert np.isfinite(matrix).all()
            assert abs(matrix).max() <= 10.0


@pytest.mark.parametrize("categories", ["hash", "onehot"])
def test_statistics_are_saved_and_restored(categories):
    generator = np.random.default_rng(1)
    rows = batch(generator.normal(size=(60, 2)), generator.integers(0, 50, (60, 1)))
    encoder = Encoder(categories=categories, buckets=30)
    one, other = (Encoding(encoder, columns(2, 1), sparse=True) for _ in range(2))
    one.learn(rows.take(slice(0, 30)))
    saved = one.save()
    other.load(saved)
    assert (dense(one.transform(rows)) == dense(other.transform(rows))).all()
    snapshot = one.snapshot()
    one.learn(rows)
    other.learn(rows)
    assert one.save().digest == other.save().digest != saved.digest
    one.restore(snapshot)
    assert one.save().digest == saved.digest
    one.learn(rows)
    assert one.save().digest == other.save().digest


def test_refuses_statistics_of_another_encoder():
    encoding = Encoding(Encoder(), columns(2), sparse=False)
    for other in (
        Encoding(Encoder(), columns(3), sparse=False).save(),
        Encoding(Encoder("as_is"), columns(2), sparse=False).save(),
        Part({"count": np.zeros(1), "mean": np.zeros(1), "m2": np.zeros(1)}, {"width": 4}),
    ):
        with pytest.raises(InputError):
            encoding.load(other)


def test_refuses_other_columns():
    encoding = Encoding(Encoder(), columns(2), sparse=False)
    with pytest.raises(InputError, match="2 numbers"):
        encoding.transform(batch([[1.0, 2.0, 3.0]]))


def test_refuses_arguments_that_are_none():
    wrong = [
        {"numbers": "scaled"},
        {"categories": "embed"},
        {"times": "raw"},
        {"missing": "drop"},
        {"buckets": 0},
        {"buckets": 2.5},
        {"clip": 0},
        {"scales": (1.0, 0.0, 1.0)},
        {"scales": (1.0,)},
    ]
    for arguments in wrong:
        with pytest.raises(SpecError, match=next(iter(arguments))):
            Encoder(**arguments)
    with pytest.raises(SpecError, match="no feature column"):
        Encoding(Encoder(categories="drop"), columns(0, 2), sparse=False)
