from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest

from everlearn.registry.models import as_text, ensure_model, names, plain
from everlearn.registry.registry import Registry


def test_a_model_is_made_once(registry: Registry) -> None:
    with registry.database.write() as connection:
        keys = [ensure_model(connection, name) for name in ("b", "a", "b")]
        assert keys[0] == keys[2] != keys[1]
        assert names(connection) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (float("nan"), None),
        (-np.inf, None),
        ((1, [2.0, None]), [1, [2.0, None]]),
        ({1: {"a": np.array([1.0, np.nan])}}, {"1": {"a": [1.0, None]}}),
        (dt.datetime(2024, 1, 2, 3, 4, 5, 67), "2024-01-02T03:04:05.000067"),
        (pd.Timestamp("2024-01-02 03:04:05.000067891+02:00"), "2024-01-02T03:04:05.000067+02:00"),
        (np.datetime64("1970-02-03T04:05:06", "ns"), "1970-02-03T04:05:06.000000"),
        (np.datetime64("2024-01-02"), "2024-01-02T00:00:00.000000"),
        (dt.date(2024, 1, 2), "2024-01-02"),
        ([pd.NaT, pd.NA, np.datetime64("NaT")], [None, None, None]),
    ],
)
def test_plain_gives_strict_json(value: Any, json: Any) -> None:
    found = plain(value)
    assert found == json
    assert type(found) is type(json)


def test_plain_names_what_is_no_json() -> None:
    with pytest.raises(TypeError, match="set"):
        plain({"a": {1, 2}})


def test_times_are_written_with_microseconds_and_zone() -> None:
    assert as_text(0) == "1970-01-01T00:00:00.000000+00:00"
    assert as_text(-1) == "1969-12-31T23:59:59.999999+00:00"
