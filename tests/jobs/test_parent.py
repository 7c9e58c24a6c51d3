"""What a version came from: its lineage claims only what is in its state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import SGDClassifier

import everlearn as el


def rows(seed: int) -> pa.Table:
    x = np.random.default_rng(seed).normal(size=(500, 2))
    return pa.table({"a": x[:, 0], "b": x[:, 1], "y": x[:, 0] > 0})


@pytest.mark.parametrize(
    ("strategy", "parent"),
    [
        (el.Strategy(), 1),
        (el.Strategy(start="scratch"), None),
        (el.Strategy(start="scratch", memory=el.Everything()), 1),
    ],
)
def test_a_fresh_start_without_memory_has_no_parent(
    tmp_path: Path, strategy: el.Strategy, parent: int | None
) -> None:
    learner = SGDClassifier(loss="log_loss", random_state=0)
    with el.open(tmp_path / "workspace") as workspace:
        model = el.Model("m", learner, el.Schema(target="y"), strategy)
        handle = workspace.model(model)
        handle.train(rows(1))
        handle.train(rows(2))
        made = handle.versions()
        assert [version["parent"] for version in made] == [None, parent]
        learned = workspace.registry.learned("m", 2)
        assert {number for number, _ in learned} == ({1, 2} if parent else {2})
        assert handle.champion() == 2
        assert handle.rollback()["version_to"] == 1
