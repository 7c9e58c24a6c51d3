"""Every job keeps what was learned and what was forgotten, of whatever learner, and shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import SGDRegressor
from typer.testing import CliRunner

import everlearn as el
from everlearn.base import InputError, NotFoundError
from everlearn.cli.app import app
from everlearn.learners import GaussianNB, LinearRegression, LogisticRegression
from everlearn.workspace import ModelHandle


def rows(seed: int, angle: float, n: int = 1_000, number: bool = False) -> pa.Table:
    """Rows whose boundary (or direction) is turned by an angle."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 2))
    score = np.cos(angle) * x[:, 0] + np.sin(angle) * x[:, 1]
    return pa.table({"a": x[:, 0], "b": x[:, 1], "y": score if number else score > 0})


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[el.Workspace]:
    with el.open(tmp_path / "workspace") as made:
        yield made


def made(workspace: el.Workspace, learner: Any, **more: Any) -> ModelHandle:
    given = {"holdout": 0.2, "strategy": el.Strategy(chunk=100), **more}
    return workspace.model(el.Model("m", learner, el.Schema(target="y"), **given))


@pytest.mark.parametrize(
    ("learner", "number", "metrics"),
    [
        (LogisticRegression(), False, ["log_loss", "accuracy"]),
        (GaussianNB(), False, ["log_loss", "accuracy"]),
        (LinearRegression(), True, ["mse", "mae"]),
        (SGDRegressor(random_state=0), True, ["mse", "mae"]),
    ],
)
def test_every_learner_keeps_it(
    workspace: el.Workspace, learner: Any, number: bool, metrics: list[str]
) -> None:
    model = made(workspace, learner)
    for turn in range(3):
        result = model.train(rows(turn, turn * np.pi / 2, number=number))
    kept = result.metrics["transfer"]
    assert kept["metrics"] == metrics
    for metric in metrics:
        found = kept["figures"][metric]
        assert found["periods"] == 3
        assert found["forgetting"] > 0.05  # the boundary has turned half round
        assert found["backward_transfer"] == pytest.approx(-found["forgetting"], rel=0.5)
        assert found["forward_transfer"] is not None
        assert found["intransigence"] is None
    assert kept["churn"]["rows"] == sum(one["rows"] for one in kept["periods"])
    assert (kept["churn"]["mean_change"] is None) == (not number)
    assert kept["stability"]["rows"] > 0
    assert 1 <= len(kept["stability"]["during"]) <= 10


def test_the_table_is_what_the_versions_answer(workspace: el.Workspace) -> None:
    """Scores are those that each version, asked again, has on each period's rows."""
    model = made(workspace, LogisticRegression())
    for turn in range(3):
        model.train(rows(turn, turn * np.pi / 3))
    table = model.transfer(metric="accuracy")
    periods = el.evaluation.HoldOuts.load(
        workspace.registry.holdouts("m", workspace.registry.version("m", 3))
    ).periods
    for number, scores in zip(table["matrix"]["versions"], table["matrix"]["scores"], strict=True):
        for place, score in enumerate(scores):
            if score is not None:
                asked = el.evaluation.evaluate(model.load(number), periods[place].batch)
                assert score == pytest.approx(asked["accuracy"], abs=1e-12)
    assert [len([s for s in row if s is None]) for row in table["matrix"]["scores"]] == [1, 0, 0]
    best = [one["best"] for one in table["periods"]]
    assert best[0] == max(table["matrix"]["scores"][0][0], table["matrix"]["scores"][1][0])


def test_a_full_retraining_has_intransigence(workspace: el.Workspace) -> None:
    strategy = el.Strategy(start="scratch", memory=el.Everything(), chunk=100)
    model = made(workspace, LogisticRegression(), strategy=strategy)
    for turn in range(3):
        result = model.train(rows(turn, turn * np.pi / 3))
    assert result.metrics["transfer"]["figures"]["accuracy"]["intransigence"] is not None
    assert result.metrics["transfer"]["stability"] is None  # it did not go on from a model


def test_refused_and_rolled_back_periods_are_not_learned(workspace: el.Workspace) -> None:
    model = made(workspace, LogisticRegression(), gate=el.NonInferior("accuracy", margin=0.01))
    model.train(rows(0, 0.0))
    assert model.train(rows(1, np.pi)).decision.action == "refuse"
    result = model.train(rows(2, 0.0))
    assert [one["learned"] for one in result.metrics["transfer"]["periods"]] == [True, False, True]
    model.rollback(1)
    result = model.train(rows(3, 0.0))
    learned = [one["learned"] for one in result.metrics["transfer"]["periods"]]
    assert learned == [True, False, False, True]
    assert model.transfer()["matrix"]["versions"] == [1, 4]


def test_without_rows_to_judge_on_there_is_none(workspace: el.Workspace) -> None:
    model = made(workspace, LogisticRegression(), holdout=0.0)
    assert "transfer" not in model.train(rows(0, 0.0)).metrics
    with pytest.raises(NotFoundError, match="no scores by period"):
        model.transfer()


def test_commands_show_it(workspace: el.Workspace, tmp_path: Path) -> None:
    model = made(workspace, LogisticRegression())
    for turn in range(2):
        model.train(rows(turn, turn * np.pi / 2))
    with pytest.raises(InputError, match="use one of log_loss, accuracy"):
        model.transfer(metric="mae")
    place = ["-w", str(tmp_path / "workspace"), "transfer", "m"]
    shown = CliRunner().invoke(app, [*place, "--matrix"])
    assert shown.exit_code == 0, shown.output
    assert "forgotten" in shown.output
    assert "2 (new)" in shown.output
    assert "right and are wrong now" in shown.output
    assert "stability gap" in shown.output
    told = CliRunner().invoke(app, [*place, "--json", "--metric", "accuracy"])
    assert json.loads(told.output)["figures"]["forgetting"] > 0.1
    wrong = CliRunner().invoke(app, [*place, "--version", "7"])
    assert isinstance(wrong.exception, NotFoundError)
