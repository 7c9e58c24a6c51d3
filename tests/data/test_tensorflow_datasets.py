"""Datasets of TensorFlow as sources: rows by content, whatever their elements are."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow", reason="TensorFlow is needed")

from everlearn.base import ChangedError, Columns, InputError  # noqa: E402
from everlearn.data.increment import Reader  # noqa: E402
from everlearn.data.slices import Consumed  # noqa: E402
from everlearn.data.source import Source, open_sources  # noqa: E402
from everlearn.data.tables import MemoryBlobs  # noqa: E402
from everlearn.data.tensorflow_datasets import is_dataset, rows_of  # noqa: E402

X = np.arange(30.0, dtype=np.float32).reshape(10, 3)
Y = np.arange(10)
MATRIX = {"x0": X[:, 0].tolist(), "x1": X[:, 1].tolist(), "x2": X[:, 2].tolist()}


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (X, MATRIX),
        ((X,), MATRIX),
        ((X, Y), {**MATRIX, "y": Y.tolist()}),
        ((X, Y[:, None], np.ones(10)), {**MATRIX, "y": Y.tolist(), "weight": [1.0] * 10}),
        (({"a": X[:, 0], "b": ["ä"] * 10}, Y), {"a": MATRIX["x0"], "b": ["ä"] * 10, "y": [*Y]}),
        ({"a": X[:, 0], "late": Y}, {"a": MATRIX["x0"], "late": Y.tolist()}),
    ],
)
def test_rows_are_those_of_the_dataset(content: Any, expected: Any, batched: bool) -> None:
    dataset = tf.data.Dataset.from_tensor_slices(content)
    dataset = dataset.batch(4) if batched else dataset
    assert is_dataset(dataset)
    assert rows_of(dataset).read_all().to_pydict() == expected


def test_pieces_do_not_depend_on_how_the_dataset_is_batched() -> None:
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    names = {
        source.name
        for some in (dataset, dataset.batch(3), dataset.batch(10), dataset.batch(4).prefetch(2))
        for source in open_sources(some)
    }
    assert len(names) == 1


def test_a_longer_dataset_goes_on_where_a_shorter_one_ended() -> None:
    blobs = MemoryBlobs()
    columns = Columns(numbers=("x0", "x1", "x2"), target="y", target_kind="integer")

    def opened(rows: int, first: float = 0.0) -> Source:
        x = X[:rows].copy()
        x[0, 0] = first
        dataset = tf.data.Dataset.from_tensor_slices((x, Y[:rows])).batch(4)
        [source] = open_sources(dataset, blobs=blobs, name="rows")
        return source

    part = opened(6).slice()
    assert part is not None
    with Reader([part], columns, blobs=blobs) as reader:
        assert sum(len(chunk.batch) for chunk in reader) == 6
        known = [Consumed.of(part, reader.tallies[0].reasons["row_digest"])]
    assert opened(6).slice(known, columns) is None
    tail = opened(10).slice(known, columns)
    assert tail is not None and (tail.start, tail.stop) == (6, 10)
    with pytest.raises(ChangedError, match="again"):
        opened(10, first=9.0).slice(known, columns)


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (lambda: tf.data.Dataset.from_tensor_slices((X, Y)).repeat(), "has no end; take"),
        (lambda: tf.data.Dataset.from_tensor_slices((X, Y)).take(0), "has no rows"),
        (lambda: tf.data.Dataset.from_tensor_slices((X, np.eye(10))), "one-hot"),
        (lambda: tf.data.Dataset.from_tensor_slices((X, np.eye(10))).batch(5), "one-hot"),
        (lambda: tf.data.Dataset.from_tensor_slices((X, np.eye(10, 3))), r"\(3,\), \(3,\): rows"),
        (lambda: tf.data.Dataset.from_tensor_slices({"a": [b"\xff"]}), "'a' .* no text in UTF-8"),
        (
            lambda: tf.data.Dataset.from_tensor_slices({"a": tf.zeros(3, tf.bfloat16)}),
            "'a' .* bfloat16; map it",
        ),
        (lambda: tf.data.Dataset.from_tensor_slices((X.reshape(10, 3, 1), Y)), "reshape it"),
        (lambda: tf.data.Dataset.from_tensor_slices((X, Y, Y, Y)), "4 parts"),
        (lambda: tf.data.Dataset.from_tensor_slices(({"y": Y}, Y)), "both in x and beside it"),
        (
            lambda: tf.data.Dataset.from_tensor_slices({"a": tf.ragged.constant([[1.0], []])}),
            "known rank",
        ),
    ],
)
def test_other_datasets_are_refused(dataset: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_sources(dataset())
