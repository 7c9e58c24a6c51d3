"""Native learners in the fold: chunks make no difference to them, and kills none either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import everlearn as el
from everlearn.base import Part, State, state_digest, under
from everlearn.registry import versions
from tests.jobs.scenarios import table, write
from tests.learners.natives import TABLE

CHUNKS = (1, 7, 1000)
ROWS = 1500
NAMES = [
    "majority",
    "gaussian naive bayes",
    "logistic",
    "hoeffding tree",
    "adaptive random forest",
    "linear",
    "hoeffding tree regressor",
    "auto",
]


def digests(state: State) -> dict[str, str]:
    """Of the learner's own parts."""
    return {name: part.digest for name, part in under("learner", state).items()}


def target(rows: Any, name: str) -> Any:
    late = np.asarray(rows["late"])
    return late if TABLE[name].make().kind == "classifier" else late + np.asarray(rows["x0"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("memory", [None, el.Reservoir(100)], ids=["plain", "memory"])
def test_chunks_make_no_difference_to_the_fold(name: str, memory: Any) -> None:
    rows = table(ROWS, seed=4).drop_columns(["late", "id"])
    y = target(table(ROWS, seed=4), name)
    learned = [
        el.learn(TABLE[name].make(), rows, y, el.Strategy(chunk=chunk, memory=memory))
        for chunk in (CHUNKS if memory is None else (50, 50))
    ]
    found = [digests(one.state) for one in learned]
    assert found[0] and all(one == found[0] for one in found)
    again = [el.learn(one, rows, y) for one in learned]
    assert digests(again[0].state) == digests(again[1].state) != found[0]
    answers = [one.predict(rows) for one in learned]
    assert all((one == answers[0]).all() for one in answers)


def test_chunks_make_no_difference_to_metrics() -> None:
    """Where classes are known beforehand: others are told of with the chunk that they come in."""
    rows = table(ROWS, seed=4).drop_columns(["id"])
    schema = el.Schema(target="late", classes=(0, 1))
    model = el.Model("m", learner=TABLE["gaussian naive bayes"].make(), schema=schema)
    found = [el.learn(model, rows, strategy=el.Strategy(chunk=n)).metrics for n in CHUNKS]
    assert found[0]["accuracy"] > 0.7
    for name, value in found[0].items():
        for other in found:
            if isinstance(value, float):
                assert other[name] == pytest.approx(value, abs=1e-9), name
            else:
                assert other[name] == value or isinstance(value, dict)


def test_is_what_the_estimator_learns_alone() -> None:
    """A model of numbers learns the bits that `partial_fit` learns."""
    generator = np.random.default_rng(2)
    X = generator.normal(size=(800, 3))
    y = np.digitize(X[:, 0], [-0.5, 0.5])
    alone = TABLE["gaussian naive bayes"].make(classes=3).fit(X, y)
    model = el.Model("m", learner=alone.clone(), schema=el.Schema(target="y", classes=(0, 1, 2)))
    learned = el.learn(model, pa.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": y}))
    kept = {name: part for name, part in under("learner", learned.state).items() if name != "known"}
    kept.pop("native")
    expected = {name: part for name, part in alone.save().items() if name != "native"}
    assert state_digest(kept) == state_digest(expected)
    assert (
        learned.predict_proba(pa.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2]}))
        == alone.predict_proba(X)
    ).all()


@pytest.mark.parametrize("name", NAMES)
def test_versions_have_the_same_learner_at_any_chunk(name: str, tmp_path: Path) -> None:
    if TABLE[name].make().kind != "classifier":
        return
    files = [
        str(write(tmp_path / "first.csv", table(ROWS, seed=1))),
        str(write(tmp_path / "second.csv", table(ROWS // 2, seed=2, first_id=ROWS))),
    ]
    found = []
    for chunk in CHUNKS:
        model = el.Model(
            "flights",
            learner=TABLE[name].make(),
            schema=el.Schema(target="late", time="at", id="id"),
            strategy=el.Strategy(chunk=chunk),
            holdout=0.1,
        )
        with el.open(tmp_path / str(chunk)) as ws:
            for file in files:
                assert ws.model(model).train(file).decision.action == "promote"
            with ws.database.read() as connection:
                manifests = [versions.get(connection, "flights", n).manifest for n in (1, 2)]
            states: list[dict[str, Part]] = [ws.parts.load(manifest) for manifest in manifests]
            found.append([digests(state) for state in states])
    assert found[0][0] and found[0][0] != found[0][1]
    assert found[0] == found[1] == found[2]
