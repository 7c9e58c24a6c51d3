"""Rows to predict for are read from files as they are for learning."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from everlearn.base import InputError, Schema
from everlearn.data.answers import compile_file
from everlearn.data.columns import resolve
from everlearn.data.increment import Reader
from everlearn.data.source import open_sources

LEARNED = "code;x;place;y\r\n007;1,5;NA;1\r\nA1;2,5;Rome;0\r\n09;NA;;1\r\n"


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    path = tmp_path / "learned.csv"
    path.write_bytes(b"\xef\xbb\xbf" + LEARNED.encode())
    return path


def test_a_file_is_read_as_for_learning(learned: Path, tmp_path: Path) -> None:
    (source,) = open_sources(str(learned))
    columns = resolve(Schema(target="y"), source)
    assert columns.numbers == ("x",)
    part = source.slice()
    assert part is not None
    with Reader([part], columns) as reader:
        (chunk,) = reader
    # alone, "007" and "09" would be numbers, and the target may be absent
    rows = tmp_path / "rows.csv"
    rows.write_text("x,place,code\n1.5,NA,007\n,,09\n")
    batch = compile_file(rows, columns)
    np.testing.assert_array_equal(batch.numbers, chunk.batch.numbers[[0, 2]])
    np.testing.assert_array_equal(batch.categories, chunk.batch.categories[[0, 2]])
    frame = pd.DataFrame({"x": [1.5, None], "place": [None, None], "code": ["007", "09"]})
    frame.to_parquet(tmp_path / "rows.parquet")
    both = compile_file(str(tmp_path / "rows.*"), columns)
    np.testing.assert_array_equal(both.categories, np.vstack([batch.categories] * 2))
    assert both.y is None


def test_what_cannot_be_predicted_for_is_named(learned: Path, tmp_path: Path) -> None:
    columns = resolve(Schema(target="y"), open_sources(str(learned)))
    rows = tmp_path / "rows.csv"
    rows.write_text("x,place,code\n1,a,b\nwhat,a,b\n")
    with pytest.raises(InputError, match="row 1: column 'x': not a number"):
        compile_file(rows, columns)
    rows.write_text("x,place,code\n1,a\n2,b,c\n")
    with pytest.raises(InputError, match="row 0: ragged line"):
        compile_file(rows, columns)
    rows.write_text("x,plaze,code\n1,a,b\n")
    with pytest.raises(InputError, match=r"no column 'place' \(did you mean 'plaze'"):
        compile_file(rows, columns)
    rows.write_text("x,place,code\n")
    assert len(compile_file(rows, columns)) == 0
