"""Rows to predict for, read from a file, and predicted values given back as the target has them."""

from __future__ import annotations

import os

import pyarrow as pa

from everlearn.base import Array, Columns, InputError
from everlearn.data.files import expand, format_of


def read_rows(path: str | os.PathLike[str]) -> pa.Table:
    """All rows of a CSV, Parquet or Arrow IPC file, or of a glob of them.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    return pa.concat_tables([_read(file) for file in expand(path)], promote_options="permissive")


def _read(path: str) -> pa.Table:
    from pyarrow import csv, feather, parquet

    readers = {"csv": csv.read_csv, "parquet": parquet.read_table, "ipc": feather.read_table}
    try:
        table: pa.Table = readers[format_of(path)](path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"cannot read {path!r}: {error}") from error
    return table


def restored(values: Array, columns: Columns) -> list[str | float | int | bool]:
    """Predicted values (n,) of the target in the type in which the target is written.

    >>> import numpy as np
    >>> restored(np.array([0.0, 1.0]), Columns(target="late", target_kind="boolean"))
    [False, True]
    """
    if columns.target_kind == "boolean":
        return [bool(value) for value in values.tolist()]
    if columns.target_kind == "integer":
        return [int(value) for value in values.tolist()]
    return list(values.tolist())
