"""Test-then-train metrics of a job, and gates that do not fit a learner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier, SGDRegressor

import everlearn as el


def test_what_a_regressor_answers_before_it_learned_is_not_measured() -> None:
    x = np.random.default_rng(0).normal(size=(3_000, 2))
    learned = el.learn(SGDRegressor(random_state=0), x, 1e6 + x[:, 0])
    assert learned.metrics["rows"] == 2_000
    assert el.learn(learned, x, 1e6 + x[:, 0]).metrics["rows"] == 3_000


def test_the_answers_of_a_classifier_before_it_learned_are_those_of_the_prior() -> None:
    x = np.random.default_rng(0).normal(size=(3_000, 2))
    learned = el.learn(SGDClassifier(loss="log_loss", random_state=0), x, x[:, 0] > 0)
    assert learned.metrics["rows"] == 3_000


@pytest.mark.parametrize("gate", [el.NonInferior("log_loss"), "log_loss"])
def test_a_gate_that_cannot_judge_is_refused_before_anything_is_learned(
    tmp_path: Path, gate: object
) -> None:
    x = np.random.default_rng(0).normal(size=(300, 2))
    with el.open(tmp_path / "workspace") as workspace:
        model = el.Model("m", learner=SGDRegressor(), schema=el.Schema(target="y"), gate=gate)
        handle = workspace.model(model)
        with pytest.raises(el.SpecError, match=r"cannot judge a regressor|is a gate such as"):
            handle.train((x, x[:, 0]))
        assert handle.versions() == []
        assert workspace.jobs() == []
