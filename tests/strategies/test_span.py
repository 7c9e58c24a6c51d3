"""Spans of time."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.base import SpecError
from everlearn.strategies.span import microseconds, written


@pytest.mark.parametrize(
    ("span", "length"),
    [
        ("1us", 1),
        ("5 ms", 5_000),
        ("1s", 1_000_000),
        ("1.5min", 90_000_000),
        ("2h", 7_200_000_000),
        ("7d", 604_800_000_000),
        ("1w", 604_800_000_000),
        (timedelta(days=1), 86_400_000_000),
    ],
)
def test_lengths(span: str | timedelta, length: int) -> None:
    assert microseconds(span) == length


@pytest.mark.parametrize(
    "span", ["", "7", "d", "7 days", "-1d", "0h", "1e3s", 5, None, timedelta(0)]
)
def test_what_is_no_span(span: Any) -> None:
    with pytest.raises(SpecError, match="span of time"):
        microseconds(span)


@given(st.integers(1, 10**15))
def test_written_means_the_same(length: int) -> None:
    assert microseconds(written(timedelta(microseconds=length))) == length
