"""Rows to predict for, read from a file, and predicted values given back as the target has them."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from everlearn.base import Array, Batch, Columns, InputError
from everlearn.data.compiler import Compiler, empty_batch, wanted
from everlearn.data.files import expand
from everlearn.data.slices import require
from everlearn.data.source import open_path, open_reader


def compile_file(path: str | os.PathLike[str], columns: Columns) -> Batch:
    """All rows of a CSV, Parquet or Arrow IPC file, or of a glob of them, to predict for.

    They are read as they are for learning, so that a value is the same value here and there. The
    target need not be among the columns.

    Raises:
        InputError: there is no such file, it cannot be read, a column is not there, or a row
            cannot be predicted for; the message names it.
    """
    asked = replace(columns, target=None, target_kind="none", label_time=None)
    compiler = Compiler(asked, label=False)
    batches = [empty_batch(asked)]
    for file in expand(path):
        source = open_path(file)
        require(wanted(asked, features_only=True), source.names, repr(file))
        part = source.slice()
        if part is None:
            continue
        reader = open_reader(part, asked)
        try:
            for piece in reader.pieces(None):
                compiled = compiler.compile(piece.table, piece.bad)
                if compiled.refused:
                    row, reason = min(compiled.refused.items())
                    raise InputError(f"{file!r}, row {piece.place.row + row}: {reason}")
                batches.append(compiled.batch)
        finally:
            reader.close()
    return Batch.concat(batches[1:] or batches)


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


def class_name(value: Any) -> str:
    """A class as the names of probabilities have it: 1 and 1.0 are one class, True is "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def as_answered(value: Any, said: Any) -> Any:
    """A label as an answer has it: learning takes 1 and True for one class, so what judges answers
    has to."""
    if isinstance(said, bool) and isinstance(value, int | float):
        return bool(value)
    if isinstance(value, bool) and isinstance(said, int | float):
        return int(value)
    return value
