"""Rows held out, or remembered, over several jobs: none is lost, and none is there twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import SGDClassifier

import everlearn as el
from everlearn.workspace import ModelHandle

KEPT = ("rows", "held_out")
"""What becomes of rows that are neither duplicates nor set aside."""


def rows(seed: int, n: int = 2_000, flipped: bool = False) -> pa.Table:
    """Rows of one increment; where they are flipped, their labels say the opposite."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 3))
    y = (x[:, 0] > 0) != flipped
    return pa.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": y})


@pytest.fixture
def model(tmp_path: Path) -> Iterator[ModelHandle]:
    workspace = el.open(tmp_path / "workspace")
    definition = el.Model(
        "m",
        learner=SGDClassifier(loss="log_loss", random_state=1),
        schema=el.Schema(target="y"),
        gate=el.NonInferior("accuracy", margin=0.01),
        holdout=0.2,
    )
    yield workspace.model(definition)
    workspace.close()


def test_rows_of_a_refused_candidate_judge_the_next_one(model: ModelHandle) -> None:
    assert model.train(rows(1)).decision.action == "promote"
    refused = model.train(rows(2, flipped=True))
    assert refused.decision.action == "refuse"
    third = model.train(rows(3))
    held = sum(item["held_out"] for v in model.versions() for item in v["increments"])
    judged = third.decision.evidence
    assert judged["recent"]["rows"] + judged.get("historical", {"rows": 0})["rows"] == held
    assert len(judged["periods"]) == 3


def test_rows_learned_again_are_remembered_once(tmp_path: Path) -> None:
    strategy = el.Strategy(start="scratch", memory=el.Everything())
    learner = SGDClassifier(loss="log_loss", random_state=1)
    definition = el.Model("m", learner, el.Schema(target="y"), strategy)
    with el.open(tmp_path / "workspace") as workspace:
        handle = workspace.model(definition)
        handle.train(rows(1), source="table")
        handle.train(rows(2), source="other")
        last = handle.train(rows(1), source="table", again=True)
        assert last.version is not None
        parts = workspace.registry.state("m", workspace.registry.version("m", last.version))
        ids = [part.arrays["ids"] for name, part in parts.items() if "held/held/" in name]
        remembered = np.concatenate(ids)
    learned = sum(item["rows"] for item in handle.versions()[0]["increments"])
    learned += sum(item["rows"] for item in handle.versions()[1]["increments"])
    assert len(remembered) == len(np.unique(remembered)) == learned


def test_rows_learned_again_are_held_out_once(model: ModelHandle) -> None:
    model.train(rows(1), source="table")
    again = model.train(rows(1), source="table", again=True)
    assert len(again.decision.evidence["periods"]) == 1
    assert again.decision.evidence["recent"]["rows"] == again.increments[0]["held_out"]


def test_what_judges_is_neither_learned_nor_remembered(tmp_path: Path) -> None:
    """By id, over increments that overlap."""
    with el.open(tmp_path / "workspace") as workspace:
        learner = SGDClassifier(loss="log_loss", random_state=1)
        definition = el.Model(
            "m",
            learner,
            schema=el.Schema(target="y", id="id"),
            strategy=el.Strategy(memory=el.Everything()),
            holdout=0.2,
        )
        model = workspace.model(definition)
        for seed in range(3):
            ids = [f"row {n}" for n in range(seed * 600, seed * 600 + 800)]
            model.train(rows(seed, 800).append_column("id", pa.array(ids)), source=f"{seed}")
        fates = [
            workspace.accounts.increment(one["id"])["ids"]
            for one in workspace.accounts.increments("m")
        ]
        learned, held = ({one for fate in fates for one in fate[name]} for name in KEPT)
        assert len(learned) + len(held) == 2000 and not learned & held
        version = workspace.registry.version("m", 3)
        state = workspace.registry.state("m", version)
        holdouts = workspace.registry.holdouts("m", version)
        judging = [part.arrays["ids"] for name, part in holdouts.items() if "block" in name]
        memory = [part.arrays["ids"] for name, part in state.items() if "held/held/" in name]
        assert sum(map(len, judging)) == len(held) and sum(map(len, memory)) == len(learned)
        assert not np.intersect1d(np.concatenate(judging), np.concatenate(memory)).size
