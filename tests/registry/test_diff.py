from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from everlearn.base import NotFoundError
from everlearn.registry.diff import changed_settings
from everlearn.registry.registry import Registry
from tests.registry.conftest import MODEL, add_version, increment, state_of


@dataclass(frozen=True)
class Gate:
    margin: float = 0.01


def test_a_diff_names_metrics_parts_increments_and_moves(registry: Registry) -> None:
    add_version(
        registry,
        state_of(1),
        increments=[increment("jan.csv")],
        metrics={"auc": 0.6, "recent": {"loss": 0.5, "n": 100}, "note": "text"},
        promote=True,
    )
    add_version(
        registry,
        {**state_of(2), "labels": state_of(3)["learner/weights"]},
        parent=1,
        increments=[increment("feb.csv"), increment("mar.csv")],
        metrics={"auc": 0.7, "recent": {"loss": float("nan")}, "kappa": 0.1},
        promote=True,
    )
    found = registry.diff("delays", 1, 2, churn={"changed": 0.1})
    assert found.ancestor == 1
    assert found.learned_a == ()
    assert [(n, one.source) for n, one in found.learned_b] == [(2, "feb.csv"), (2, "mar.csv")]
    assert found.metrics["auc"] == (0.6, 0.7, pytest.approx(0.1))
    assert found.metrics["recent.loss"] == (0.5, None, None)
    assert found.metrics["recent.n"] == (100, None, None)
    assert found.metrics["kappa"] == (None, 0.1, None)
    assert "note" not in found.metrics
    assert found.parts == {"labels": "added", "learner/weights": "changed"}
    assert registry.diff("delays", 2, 1).parts["labels"] == "removed"
    assert (found.moves[0].version_to, found.churn) == (1, {"changed": 0.1})
    shown = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert shown["a"]["number"] == 1
    assert shown["learned"]["b"][0]["version"] == 2
    assert not shown["same_state"]


def test_a_diff_of_a_version_with_itself_is_empty(registry: Registry) -> None:
    add_version(registry, metrics={"auc": 0.6})
    found = registry.diff("delays", 1, 1)
    assert (found.parts, found.learned_a, found.learned_b, found.definition) == ({}, (), (), ())
    assert found.to_json()["same_state"]
    assert found.metrics["auc"][2] == 0


def test_a_diff_says_which_parts_of_the_definition_changed(registry: Registry) -> None:
    add_version(registry)
    registry.define(MODEL.replace(gate=Gate()))
    with registry.database.write() as connection:
        from everlearn.base import Decision
        from everlearn.registry import versions

        versions.add(
            connection,
            "delays",
            parent=1,
            definition=2,
            strategy=None,
            state_digest="0" * 64,
            manifest={},
            holdouts={},
            metrics={},
            decision=Decision("pass", ""),
        )
    assert registry.diff("delays", 1, 2).definition == ("gate",)
    with pytest.raises(NotFoundError):
        registry.diff("delays", 1, 3)


def test_settings_that_differ_are_named_by_their_paths() -> None:
    def config(learner: Any, triggers: list[Any], alpha: float) -> Any:
        params = {"learner": learner, "triggers": {"tuple": triggers}, "alpha": alpha}
        return {"class": "everlearn:Model", "params": params}

    sgd = {"class": "a.b:SGD", "params": {"rate": 0.1, "loss": "log"}}
    tree = {"class": "a.b:Tree", "params": {"rate": 0.2, "depth": 3}}
    volume = {"class": "c:Volume", "params": {"n": 10}}
    faster = {"class": "a.b:SGD", "params": {"rate": 0.3, "loss": "log"}}
    more = {"class": "c:Volume", "params": {"n": 20}}
    assert changed_settings(config(sgd, [volume], 1.0), config(faster, [more], 1.0)) == [
        {"name": "learner.rate", "before": 0.1, "after": 0.3},
        {"name": "triggers[0].n", "before": 10, "after": 20},
    ]
    assert changed_settings(config(sgd, [], 1.0), config(tree, [volume], 2.0)) == [
        {"name": "learner", "before": "SGD", "after": "Tree"},
        {"name": "alpha", "before": 1.0, "after": 2.0},
        {"name": "triggers[0]", "before": None, "after": "Volume"},
    ]
    assert changed_settings(config(sgd, [volume], 1.0), config(sgd, [volume], 1.0)) == []
