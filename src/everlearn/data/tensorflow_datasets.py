"""Datasets of TensorFlow (`tf.data`) as rows. TensorFlow is not imported: who has one has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from everlearn.base import Array, InputError
from everlearn.data.parquet import piece_rows

TARGET, WEIGHT = "y", "weight"
"""Columns of what stands second and third in an element."""

INFINITE = -1
"""The cardinality of a dataset that does not end."""


def is_dataset(data: Any) -> bool:
    """Whether it is a `tf.data.Dataset`."""
    kinds = type(data).__mro__
    return any(
        kind.__module__.startswith("tensorflow.") and kind.__name__ == "DatasetV2" for kind in kinds
    )


def rows_of(dataset: Any) -> pa.RecordBatchReader:
    """The rows of a dataset, piece by piece, as they are read.

    Args:
        dataset: of x, (x, y), (x, y, weight), or of dicts of columns; in batches or row by row. x
            is a dict of columns or a vector a row, whose numbers become the columns "x0", "x1", …;
            y is one value a row and becomes "y", the weights become "weight".

    Raises:
        InputError: it has no end, no rows, or elements of another form.
    """
    if int(dataset.cardinality()) == INFINITE:
        raise InputError("the dataset has no end; take(…) some of it, or leave out repeat()")
    spec = _columns(dataset.element_spec)
    for name, leaf in spec.items():
        if type(leaf).__name__ != "TensorSpec" or leaf.shape.rank is None:
            raise InputError(
                f"{name!r} of the dataset is {leaf}; it has to be a dense tensor of known rank"
            )
    ranks = {name: leaf.shape.rank for name, leaf in spec.items()}
    if "x" in ranks and len(spec) > 1 and all(_is_long(leaf) for leaf in spec.values()):
        raise InputError(
            f"elements of the dataset are {', '.join(str(leaf.shape) for leaf in spec.values())}:"
            " rows whose y is a vector, or batches of single numbers; of one-hot classes, map y to"
            " tf.argmax(y, -1); of batches, let x be (rows, 1)"
        )
    flat = ranks.get("x", 2) == 1 if set(ranks) == {"x"} else 0 in ranks.values()
    width = sum(max(1, leaf.shape[-1] or 1) if leaf.shape.rank else 1 for leaf in spec.values())
    rows = piece_rows(width)
    try:
        pieces = dataset.batch(rows) if flat else dataset.rebatch(rows)
    except ValueError as error:
        raise InputError(
            f"elements of the dataset are neither rows nor batches of rows: {error}; of one-hot"
            " classes, map y to tf.argmax(y, -1)"
        ) from error
    batches = (_record_batch(element) for element in pieces.as_numpy_iterator())
    first = next(batches, None)
    if first is None:
        raise InputError("the dataset has no rows")
    return pa.RecordBatchReader.from_batches(first.schema, _alike(first, batches))


def _is_long(leaf: Any) -> bool:
    """Whether it is always a vector of the same length."""
    return leaf.shape.rank == 1 and (leaf.shape[0] or 0) > 1


def _alike(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in chain([first], rest):
        yield batch if batch.schema == first.schema else batch.cast(first.schema)


def _columns(element: Any) -> dict[str, Any]:
    """Column → what an element, or its description, has for it; "x" for a matrix."""
    if isinstance(element, Mapping):
        return {str(name): value for name, value in element.items()}
    parts = element if isinstance(element, tuple) else (element,)
    if not 1 <= len(parts) <= 3:
        raise InputError(
            f"an element of the dataset has {len(parts)} parts; give x, (x, y), (x, y, weight) or"
            " a dict of columns"
        )
    x = parts[0]
    found = {str(k): v for k, v in x.items()} if isinstance(x, Mapping) else {"x": x}
    for name, value in zip((TARGET, WEIGHT), parts[1:], strict=False):
        if name in found:
            raise InputError(f"the dataset has a column {name!r} both in x and beside it")
        found[name] = value
    return found


def _record_batch(element: Any) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {}
    for name, value in _columns(element).items():
        array = np.asarray(value)
        if array.ndim == 2 and array.shape[1] == 1 and name != "x":
            array = array[:, 0]
        if name == "x" and array.ndim == 2:
            for place in range(array.shape[1]):
                columns[f"x{place}"] = _arrow(array[:, place], name)
        elif array.ndim == 1:
            columns["x0" if name == "x" else name] = _arrow(array, name)
        else:
            raise InputError(_misshapen(name, array))
    return pa.RecordBatch.from_pydict(columns)


def _misshapen(name: str, array: Array) -> str:
    shape = tuple(array.shape[1:])
    if name == TARGET:
        return (
            f"y of the dataset has the shape {shape} a row, where one value is wanted; of one-hot"
            " classes, map y to tf.argmax(y, -1)"
        )
    wanted = "a vector" if name == "x" else "one value"
    return (
        f"{name!r} of the dataset has the shape {shape} a row, where {wanted} is wanted; reshape it"
        " with map(…), and back in the model"
    )


def _arrow(array: Array, name: str) -> pa.Array:
    if array.dtype.kind in "OS":
        try:
            texts = [i.decode() if isinstance(i, bytes) else i for i in array.tolist()]
        except UnicodeDecodeError as error:
            raise InputError(f"{name!r} of the dataset is no text in UTF-8: {error}") from error
        return pa.array(texts)
    try:
        return pa.array(np.ascontiguousarray(array))
    except pa.ArrowNotImplementedError as error:
        raise InputError(
            f"{name!r} of the dataset is of {array.dtype}; map it to tf.float32"
        ) from error
