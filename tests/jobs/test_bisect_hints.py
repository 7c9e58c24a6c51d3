"""Where a bisection looks first: what was recorded, and what surprised."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from everlearn.base import Floats
from everlearn.jobs.bisect.cuts import Cut, Group
from everlearn.jobs.bisect.hints import Surprise, likely


def path(values: list[float | None], rows: list[int], name: str = "log_loss") -> Any:
    """Versions with what was recorded of them; the first is the good one."""
    pairs = zip(values, rows, strict=True)
    return [SimpleNamespace(number=1, metrics={})] + [
        SimpleNamespace(number=at, metrics={} if value is None else {name: value, "rows": count})
        for at, (value, count) in enumerate(pairs, 2)
    ]


@pytest.mark.parametrize(
    ("values", "rows", "name", "found"),
    [
        ([0.3, 0.31, 0.9, 0.33, 0.3], [10] * 5, "log_loss", 4),
        ([0.9, 0.91, 0.2, 0.9, 0.88], [10] * 5, "accuracy", 4),
        ([0.9, 0.91, 0.99, 0.885, 0.88], [10] * 5, "accuracy", None),
        ([0.3, 0.31, 0.9, 0.8, 0.3], [10] * 5, "log_loss", None),
        ([0.3, 0.31, 0.9, 0.8, 0.3], [10, 10, 10, 1, 10], "log_loss", 4),
        ([0.3, None, 0.9, None, 0.3], [10] * 5, "log_loss", 4),
        ([None, None, 0.9, None, 0.3], [10] * 5, "log_loss", None),
        ([0.3, float("nan"), 0.9, 0.3, 0.3], [10] * 5, "log_loss", 4),
        ([0.3] * 5, [10] * 5, "log_loss", None),
    ],
)
def test_the_version_whose_rows_surprised_by_far_the_most(
    values: list[float | None], rows: list[int], name: str, found: int | None
) -> None:
    hint = likely(path(values, rows, name), name)
    assert (None if hint is None else hint["version"]) == found
    assert likely(path(values, rows, name), "brier") is None, "it was not recorded"


def cut(by: str, codes: Any) -> Cut:
    """A cut by codes."""
    groups = [Group(str(code), np.flatnonzero(codes == code), None) for code in np.unique(codes)]
    return Cut(by, groups)


def surprise(above: Floats) -> Surprise:
    """Surprise with no classes."""
    return Surprise(above + 0.5, above, above)


def test_the_cut_whose_group_surprised_most_is_first() -> None:
    rows = np.arange(80)
    reviewer, source = rows % 4, rows % 4 // 2
    found = surprise(np.where(reviewer == 1, 2.0, 0.01 * (rows % 3)))
    cuts = [cut("source", source), cut("reviewer", reviewer)]
    assert [one.by for one in found.ordered(cuts)] == ["reviewer", "source"]
    same = [cut("source", reviewer), cut("reviewer", reviewer)]
    assert [one.by for one in found.ordered(same)] == ["source", "reviewer"]
    alone = [cut("source", np.zeros(80)), cut("reviewer", reviewer)]
    assert [one.by for one in found.ordered(alone)] == ["reviewer", "source"]


def test_a_part_stands_out_where_the_rest_is_quiet() -> None:
    rows = np.arange(80)
    spans = cut("row", rows // 10)
    run = surprise(np.where((rows >= 25) & (rows < 45), 2.0, 0.01))
    assert run.stands_out(spans, False), "a run of spans"
    assert not run.stands_out(cut("class", rows % 2), False)
    even = surprise(np.full(80, 1.0))
    assert not even.stands_out(spans, False) and not even.stands_out(cut("class", rows % 2), True)
    none = surprise(np.full(80, -1.0))
    assert none.stands_out(spans, True) and not none.stands_out(spans, False)
