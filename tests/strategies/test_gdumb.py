"""Experience replay by name, and the baseline that learns from its memory alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import SGDClassifier

import everlearn as el
from everlearn.base import SpecError
from everlearn.strategies import Balanced, GDumb, Prioritized, Replay, Reservoir

ROWS = 400


def rows(classes: list[int], seed: int) -> tuple[Any, Any]:
    """Rows around a corner of a square for each class, classes one after the other."""
    generator = np.random.default_rng(seed)
    y = np.repeat(classes, ROWS)
    corners = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])
    return corners[y] + generator.normal(size=(len(y), 2)) * 0.5, y


def learner() -> SGDClassifier:
    return SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.05)


@pytest.mark.parametrize(
    ("buffer", "expected"),
    [("reservoir", Reservoir), ("balanced", Balanced), ("prioritized", Prioritized)],
)
def test_replay_is_the_memory_of_that_name(buffer: Any, expected: Any) -> None:
    assert Replay(30, buffer, ratio=2.0) == expected(30, ratio=2.0)


def test_replay_names_the_buffers_that_there_are() -> None:
    with pytest.raises(SpecError, match="reservoir, balanced, prioritized, not 'all'"):
        Replay(30, "all")  # type: ignore[arg-type]


def test_gdumb_is_refused_where_learning_would_go_on() -> None:
    with pytest.raises(SpecError, match="start='scratch'"):
        el.Strategy(memory=GDumb(10))


def test_only_the_memory_is_learned_in_random_order() -> None:
    strategy = el.Strategy(start="scratch", memory=GDumb(30, epochs=4), chunk=8, seed=3)
    model = el.Model(
        "squares", learner=learner(), schema=el.Schema(target="y", classes=(0, 1, 2, 3))
    )
    learned = el.learn(model, *rows([0, 1], seed=0), strategy=strategy)
    learned = el.learn(learned, *rows([2, 3], seed=1))
    held = next(iter(learned._fold.remembered()))
    assert sorted(np.bincount(held.y.astype(int)).tolist()) == [7, 7, 8, 8]  # type: ignore[union-attr]
    by_hand = learner().set_params(
        random_state=np.random.RandomState(np.random.MT19937(np.random.SeedSequence([3, 0, 0])))
    )
    for epoch in range(4):
        order = np.random.default_rng([3, epoch, 0]).permutation(30)
        for piece in np.split(order, [8, 16, 24]):
            taken = held.take(piece)
            by_hand.partial_fit(taken.numbers, taken.y.astype(int), classes=[0, 1, 2, 3])  # type: ignore[union-attr]
    X, y = rows([0, 1, 2, 3], seed=2)
    assert np.allclose(learned.predict_proba(X), by_hand.predict_proba(X))
    assert (learned.predict(X) == y).mean() > 0.9  # all four, though two came last


def test_jobs_learn_it_and_their_hold_outs_judge_it(tmp_path: Path) -> None:
    model = el.Model(
        "squares",
        learner=learner(),
        schema=el.Schema(target="y", classes=(0, 1, 2, 3)),
        strategy=el.Strategy(start="scratch", memory=GDumb(60, epochs=5), chunk=16),
    )
    with el.open(tmp_path) as workspace:
        squares = workspace.model(model)
        for number, classes in enumerate(([0, 1], [2, 3])):
            X, y = rows(classes, seed=number)
            made = squares.train({"a": X[:, 0], "b": X[:, 1], "y": y})
            assert made.decision.action == "promote"
        X, y = rows([0, 1, 2, 3], seed=5)
        answers = [p.value for p in squares.predict(pa.table({"a": X[:, 0], "b": X[:, 1]}))]
        assert (np.array(answers) == y).mean() > 0.9
