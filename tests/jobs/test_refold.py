"""Recorded increments, folded again, end in the states that they ended in."""

from __future__ import annotations

from pathlib import Path

import pytest

import everlearn as el
from everlearn.base import state_digest
from everlearn.jobs.refold import recorded, refold
from tests.jobs.scenarios import models


@pytest.mark.parametrize("name", list(models()))
def test_the_same_increments_end_in_the_same_states(
    name: str, files: list[str], tmp_path: Path
) -> None:
    with el.open(tmp_path / "workspace") as workspace:
        handle = workspace.model(models()[name])
        for file in files:
            handle.train(file)
        registry = workspace.registry
        path = registry.lineage(name, len(handle.versions()))
        parts = recorded(registry, name, path)
        wanted = parts[-1].version.state_digest
        plans = [plan for one in parts for plan in one.plans]
        assert state_digest(refold(registry, name, {}, plans).save()) == wanted
        if len(path) > 1:
            base = registry.state(name, parts[-2].version)
            last = refold(registry, name, base, parts[-1].plans)
            assert state_digest(last.save()) == wanted
