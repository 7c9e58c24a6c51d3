"""Arrow arrays → numpy arrays by their buffers. Arrow's own `to_numpy` imports pandas."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from everlearn.base import Array, Ints


def bits(buffer: pa.Buffer, offset: int, n: int) -> npt.NDArray[np.bool_]:
    """(n,) the bits of a bitmap from `offset` on."""
    start = offset // 8
    data = np.frombuffer(buffer, np.uint8)[start : (offset + n + 7) // 8]
    unpacked = np.unpackbits(data, bitorder="little")
    return unpacked[offset - start * 8 :][:n].view(np.bool_)


def nulls(array: pa.Array) -> npt.NDArray[np.bool_] | None:
    """(n,) which values are null; None if none is."""
    if not array.null_count:
        return None
    if pa.types.is_null(array.type):
        return np.ones(len(array), bool)
    return ~bits(array.buffers()[0], array.offset, len(array))


def values(array: pa.Array) -> Array:
    """(n,) the values of integers, floats, truth values, or anything kept as 64-bit integers.

    A view without a copy, except for truth values. What stands where a value is null is undefined.
    """
    n, kind = len(array), array.type
    buffer = array.buffers()[1]
    if pa.types.is_boolean(kind):
        return np.zeros(0, bool) if buffer is None else bits(buffer, array.offset, n)
    dtype = _dtype(kind)
    if buffer is None or n == 0:
        return np.zeros(0, dtype)
    return np.frombuffer(buffer, dtype, count=n, offset=array.offset * dtype.itemsize)


@cache
def _dtype(kind: pa.DataType) -> np.dtype[Any]:
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return np.dtype(kind.to_pandas_dtype()) if numeric else np.dtype(np.int64)


def codes(array: pa.DictionaryArray, missing: int) -> Ints:
    """(n,) the indices into the dictionary, `missing` where null."""
    found = values(array.indices).astype(np.int64)
    gone = nulls(array.indices)
    if gone is not None:
        found[gone] = missing
    return found
