"""Errors of a whole region, which a patch does not mend."""

from __future__ import annotations

import numpy as np
import pytest

from everlearn.base import Array, Batch, Prediction
from everlearn.jobs.patch.regions import systematic
from everlearn.strategies.patch_exceptions import Space
from tests.jobs.test_patch import points


def compiled(x: Array, y: Array) -> Batch:
    """A batch of numbers with codes of classes."""
    return Batch(
        numbers=x,
        categories=np.zeros((len(x), 0), np.uint64),
        times=np.zeros((len(x), 0), np.int64),
        ids=np.arange(len(x), dtype=np.uint64),
        y=y.astype(np.int64),
    )


@pytest.mark.parametrize(
    ("share", "edits", "found"),
    [(1.0, 1, True), (0.2, 1, False), (0.2, 6, True), (0.2, 3, False)],
)
def test_an_error_is_systematic_where_rows_near_are_as_wrong_or_edits_are_many(
    share: float, edits: int, found: bool
) -> None:
    x, y = points(300, 0)
    generator = np.random.default_rng(0)
    near = np.full(20, 3.0) + generator.normal(0.0, 0.2, (40 + edits, 20))
    rows = compiled(np.vstack([x, near[:40]]), np.append(y, np.ones(40)))
    said = np.append(y, (np.arange(40) >= 40 * share).astype(int))  # of a share of them, wrongly
    wanted = compiled(near[40:], np.ones(edits))
    assert wanted.y is not None
    told = systematic(
        Space.of(rows), wanted, wanted.y, np.zeros(edits, int), rows, Prediction(value=said)
    )
    assert told["found"] is found
    assert ("incremental job" in (told["advice"] or "")) is found
