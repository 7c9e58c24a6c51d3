"""A job is run again unless rows of it were withdrawn, or labels by which they were settled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from everlearn.base import ConflictError
from everlearn.data.resettle import unlearned
from everlearn.data.source import open_sources
from tests.jobs.test_withdrawn import SAID, Made


@pytest.fixture
def made(tmp_path: Path) -> Any:
    one = Made(tmp_path / "a")
    yield one
    one.workspace.close()


def withdraw(one: Made, positions: Sequence[int]) -> None:
    part = unlearned(one.log, 0)
    assert part is not None
    one.withdraw(part, list(positions))


def planned(one: Made) -> int:
    """A job of all labels so far, given up."""
    job = one.handle.plan(one.workspace.updates.source("m", one.handle.definition))
    assert isinstance(job, int)
    one.workspace.skip(job)
    return job


def test_labels_that_have_nothing_to_do_with_it_do_not_hinder_it(made: Made) -> None:
    made.hear(SAID[:10])
    job = planned(made)
    made.hear(SAID[10:16], first=10)  # of other predictions
    withdraw(made, range(11, 17))
    made.workspace.retry(job)
    result = made.workspace.run(job)
    assert (result.version, result.increments[0]["stop"]) == (2, 10)


def test_later_labels_of_its_predictions_do_not_hinder_it(made: Made) -> None:
    made.hear(SAID[:17])
    job = planned(made)
    made.hear([(0, "bot", 0)], first=20)
    withdraw(made, [18])
    made.workspace.retry(job)
    assert made.workspace.run(job).version == 2


def test_its_own_labels_hinder_it(made: Made) -> None:
    made.hear(SAID[:10])
    job = planned(made)
    withdraw(made, [3])
    with pytest.raises(ConflictError, match=f"rows of job {job} .*withdrawal 1"):
        made.workspace.retry(job)


def test_an_earlier_label_that_one_of_its_own_corrects_hinders_it(made: Made) -> None:
    made.hear(SAID[:10])
    assert made.handle.update().version == 2
    made.hear([(0, "human", 1), (12, "human", 1)], first=30)
    job = planned(made)
    withdraw(made, [1])
    with pytest.raises(ConflictError, match="were withdrawn"):
        made.workspace.retry(job)


@pytest.mark.parametrize(("rows", "hinders"), [([2], False), ([61], True), ([2, 61], True)])
def test_of_a_file_only_the_rows_that_it_was_to_learn(
    made: Made, rows: list[int], hinders: bool
) -> None:
    with made.path.open("a") as file:
        file.writelines(f"0.{k},{k},{k % 2}\n" for k in range(60, 70))
    job = made.handle.plan(str(made.path))
    assert isinstance(job, int)
    made.workspace.skip(job)
    (part,) = [source.slice(again=True) for source in open_sources(str(made.path))]
    assert part is not None
    made.withdraw(part, rows)
    if hinders:
        with pytest.raises(ConflictError, match="were withdrawn"):
            made.workspace.retry(job)
    else:
        made.workspace.retry(job)
        assert made.workspace.run(job).version == 2
