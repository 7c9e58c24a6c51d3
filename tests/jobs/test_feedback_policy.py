"""A model's label policy and guards, through the workspace."""

from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

import everlearn as el
from everlearn.base import Decision
from everlearn.storage.schema import predictions
from everlearn.workspace import ModelHandle

HOUR = 3_600_000_000


def opened(folder: Path, **said: Any) -> ModelHandle:
    x = np.random.default_rng(0).normal(size=400)
    rows = [f"{value:.4f},{int(value > 0)},r{place}" for place, value in enumerate(x)]
    (folder / "first.csv").write_text("\n".join(["x,y,id", *rows]) + "\n")
    schema = el.Schema(target="y", id="id")
    model = el.Model("m", learner="logistic", schema=schema, holdout=0.0, **said)
    handle = el.open(folder / "workspace").model(model)
    assert handle.train(str(folder / "first.csv")).version == 1
    return handle


def asked(handle: ModelHandle, count: int, seed: int = 1) -> list[tuple[str, int]]:
    """Ids of predictions, and what is right for each."""
    x = np.random.default_rng(seed).normal(size=count).tolist()
    answers = handle.predict([{"x": value, "id": f"{seed}-{n}"} for n, value in enumerate(x)])
    return [(str(one.id), int(value > 0)) for one, value in zip(answers, x, strict=True)]


def set_aside(handle: ModelHandle) -> dict[str, int]:
    (learned,) = handle.update().increments
    return dict(learned["reasons"]["set_aside"])


def test_windows_that_closed_are_learned_as_negatives(tmp_path: Path) -> None:
    policy = el.LabelPolicy(maturity="2h", unlabelled="negative", negative=0)
    handle = opened(tmp_path, labels=policy, triggers=[el.Volume(3)])
    asked(handle, 5)
    updates = handle.workspace.updates
    assert updates.plan("m", handle.definition) == Decision(
        "nothing", "the feedback log has no labels yet"
    )
    with handle.log.database.write() as connection:
        older = {"arrived_at": predictions.c.arrived_at - 3 * HOUR}
        connection.execute(sa.update(predictions).values(**older))
    assert handle.trigger().action == "learn"
    assert [row.value for row in handle.log.read()] == [0] * 5
    assert updates.mature("m", handle.definition) == 0


def test_an_update_closes_windows_before_it_looks_for_labels(tmp_path: Path) -> None:
    policy = el.LabelPolicy(maturity="2h", unlabelled="negative", negative=0)
    handle = opened(tmp_path, labels=policy)
    asked(handle, 5)
    assert handle.update().decision.action == "nothing"
    with handle.log.database.write() as connection:
        older = {"arrived_at": predictions.c.arrived_at - 3 * HOUR}
        connection.execute(sa.update(predictions).values(**older))
    (learned,) = handle.update().increments
    assert learned["stop"] == 5 and handle.log.head() == 5


def test_a_source_is_quarantined_released_and_its_rows_are_learned_then(tmp_path: Path) -> None:
    handle = opened(tmp_path, guards=el.Guards())
    for place, (answer, right) in enumerate(asked(handle, 500)):
        liar = place % 5 == 0
        handle.feedback(answer, 1 - right if liar else right, source=f"s{place % 5}")
    assert set_aside(handle) == {"its source is in quarantine": 100}
    updates = handle.workspace.updates
    assert updates.quarantine("m").active() == {"s0"}
    job = updates.release("m", handle.definition, "s0")
    assert isinstance(job, int) and updates.quarantine("m").active() == set()
    assert handle.workspace.work(once=True) == 1
    (learned,) = handle.workspace.registry.version("m").increments
    assert (learned.rows, learned.source) == (100, "released:s0:0")
    assert "nothing new" in handle.update().decision.reason
