"""How wrong an answer was."""

from __future__ import annotations

import math
from typing import Any

import pytest

from everlearn.evaluation.outcomes import loss_of, metric_for


@pytest.mark.parametrize(
    ("said", "chances", "value"),
    [
        (1, {"0": 0.25, "1": 0.75}, True),
        (1, {"0": 0.25, "1": 0.75}, 1.0),
        (True, {"false": 0.25, "true": 0.75}, 1),
        ("a", {"a": 0.75, "b": 0.25}, "a"),
    ],
)
def test_a_label_is_the_class_that_it_is_learned_as(
    said: Any, chances: dict[str, float], value: Any
) -> None:
    output = {"value": said, "probabilities": chances}
    assert metric_for(output, value) == "log_loss"
    assert loss_of("log_loss", output, value) == pytest.approx(-math.log(0.75))
    assert loss_of("brier", output, value) == pytest.approx(0.25**2)
    assert loss_of("accuracy", output, value) == 0.0


def test_a_class_that_was_not_thought_of_is_surely_wrong_and_no_answer_is_no_loss() -> None:
    output = {"value": 1, "probabilities": {"0": 0.25, "1": 0.75}}
    assert loss_of("accuracy", output, 2) == 1.0
    assert loss_of("log_loss", output, 2) == pytest.approx(-math.log(1e-15), rel=0.1)
    assert loss_of("log_loss", {"value": None, "probabilities": None}, 1) is None
    assert loss_of("log_loss", {"value": 1, "probabilities": None}, 1) is None
    assert loss_of("mse", {"value": 2.0, "probabilities": None}, 5) == 9.0
    assert loss_of("mae", {"value": 2.0, "probabilities": None}, "five") is None
