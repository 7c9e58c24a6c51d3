"""Named slices choose rows by value or range, and say what they cannot do."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from everlearn.base import SpecError
from everlearn.data.hashing import hash_texts
from everlearn.evaluation.slices import Slice
from tests.evaluation.rows import COLUMNS, rows

ORIGIN = np.array(["JFK", "EWR", "LGA", "EWR"])
HASHES = hash_texts(pa.array(ORIGIN.tolist()))
BATCH = replace(
    rows(4),
    numbers=np.array([[1.0, 5.0], [2.0, np.nan], [3.0, 7.0], [4.0, 8.0]]),
    categories=HASHES[:, None],
    key=HASHES,
    y=np.array([0.0, 1.0, 1.0, 0.0]),
)


@pytest.mark.parametrize(
    ("condition", "chosen"),
    [
        ({"column": "origin", "equals": "EWR"}, [1, 3]),
        ({"column": "origin", "equals": ("JFK", "LGA")}, [0, 2]),
        ({"column": "tail", "equals": "EWR"}, [1, 3]),
        ({"column": "a", "equals": 3}, [2]),
        ({"column": "a", "above": 1, "below": 4}, [1, 2]),
        ({"column": "b", "below": 7.5}, [0, 2]),
        ({"column": "late", "equals": True}, [1, 2]),
    ],
)
def test_rows_of_a_slice(condition, chosen):
    found = Slice("some", **condition)
    assert np.flatnonzero(found.mask(BATCH, COLUMNS)).tolist() == chosen
    assert found.describe().startswith(condition["column"])


def test_text_target():
    batch = BATCH.with_y(np.array(["no", "yes", "no", "no"], dtype=object))
    found = Slice("late", column="late", equals="yes").mask(batch, COLUMNS)
    assert np.flatnonzero(found).tolist() == [1]
    with pytest.raises(SpecError, match="texts"):
        Slice("late", column="late", above=1).mask(batch, COLUMNS)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"column": "nothing", "equals": 1}, "'nothing'; slices can be made of 'a', 'b', 'origin'"),
        ({"column": "origin", "above": 1}, "categories; use equals="),
        ({"column": "a", "equals": "JFK"}, "holds numbers"),
    ],
)
def test_conditions_that_do_not_fit(condition, message):
    with pytest.raises(SpecError, match=message):
        Slice("some", **condition).mask(BATCH, COLUMNS)


def test_a_slice_needs_one_kind_of_condition():
    for condition in ({}, {"equals": 1, "above": 0}):
        with pytest.raises(SpecError, match="equals="):
            Slice("some", column="a", **condition)
    assert Slice("some", column="a", above=1, below=2).describe() == "a is above 1 and below 2"
