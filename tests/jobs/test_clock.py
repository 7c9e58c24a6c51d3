"""A workspace with a clock of its own: weeks pass in a moment, with all that depends on time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everlearn as el
from everlearn.data.feedback import PredictionIds
from everlearn.data.join import LogSource
from everlearn.workspace import ModelHandle

DAY = 86_400_000_000
START = 1_704_067_200_000_000
"""2024-01-01 UTC."""


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> int:
        return self.at


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., tuple[ModelHandle, Clock]]:
    def make(**said: Any) -> tuple[ModelHandle, Clock]:
        x = np.random.default_rng(0).normal(size=300)
        rows = [f"{value:.4f},{int(value > 0)},1" for value in x]
        (tmp_path / "first.csv").write_text("\n".join(["x,y,weight", *rows]) + "\n")
        clock = Clock()
        workspace = el.open(tmp_path / "workspace", clock=clock)
        schema = el.Schema(target="y", weight="weight")
        handle = workspace.model(
            el.Model("m", learner="logistic", schema=schema, holdout=0.0, **said)
        )
        assert handle.train(str(tmp_path / "first.csv")).version == 1
        return handle, clock

    return make


def asked(handle: ModelHandle, count: int, seed: int = 1) -> list[Any]:
    x = np.random.default_rng(seed).normal(size=count).tolist()
    found = handle.predict([{"x": value} for value in x])
    assert isinstance(found, list)
    return found


def test_windows_close_when_the_clock_says_so(opened: Callable[..., Any]) -> None:
    policy = el.LabelPolicy(maturity="21d", unlabelled="negative", negative=0)
    handle, clock = opened(labels=policy)
    first, *_ = asked(handle, 5)
    clock.at += 20 * DAY
    handle.feedback(first.id, 1)
    (learned,) = handle.update().increments
    assert learned["rows"] == 1
    clock.at += 2 * DAY
    (learned,) = handle.update().increments
    assert learned["rows"] == 4
    said = list(handle.log.read())
    assert [(row.value, (row.at - START) // DAY) for row in said] == [(1, 20)] + [(0, 22)] * 4
    assert all(row.prediction.at == START for row in said)


def test_triggers_look_at_what_the_serving_version_answered(opened: Callable[..., Any]) -> None:
    handle, clock = opened(triggers=[el.Performance(window=100, worse_by=0.05)])

    def live(wrong: int) -> None:
        clock.at += DAY
        for place, answer in enumerate(asked(handle, 100, seed=wrong + 1)):
            handle.feedback(answer.id, 1 - answer.value if place < wrong else answer.value)

    live(5)
    assert handle.trigger().action == "wait"
    live(60)
    assert handle.trigger().action == "learn"


def test_ids_of_a_simulation_are_the_same_each_time() -> None:
    def taken() -> list[int]:
        return PredictionIds(lambda: START, process=3).take(5000)

    assert taken() == taken() and taken()[0] >= PredictionIds.first(START)


def test_propensities_are_logged_and_weigh(opened: Callable[..., Any]) -> None:
    policy = el.LabelPolicy(propensity="inverse")
    handle, _ = opened(labels=policy)
    row = {"x": 1.0}
    answers = handle.predict([row, row | {"x": 2.0}], propensities=[0.25, 1.0])
    for answer in answers:
        handle.feedback(answer.id, 1)
    assert [one.prediction.propensity for one in handle.log.read()] == [0.25, 1.0]
    source = handle.workspace.updates.source("m", handle.definition)
    assert isinstance(source, LogSource)
    assert source.as_known(START + DAY)["weight"].to_pylist() == [4.0, 1.0]
    for wrong in ([0.5], [0.5, 0.0], [0.5, 1.5], [0.5, "a"]):
        with pytest.raises(el.InputError, match=r"chance|2 rows, but 1 propensities"):
            handle.predict([row, row], propensities=wrong)
    for name in ("keys", "ids"):
        for no_text in (5, "a\0b"):
            with pytest.raises(el.InputError, match=f"{name}= takes texts without NUL"):
                handle.predict([row], **{name: [no_text]})
    with pytest.raises(el.InputError, match="external_id is a text without NUL"):
        handle.feedback(None, 1, external_id="a\0b")


def test_answers_in_this_process_are_reviewed_too(opened: Callable[..., Any]) -> None:
    handle, clock = opened(review=el.Review(budget=3, uncertain=0.0, random=1.0))
    answers = asked(handle, 10)
    people = handle.reviewers
    assert people.counts()["waiting"] == 3
    item = people.claim("bo")
    assert item.prediction in {answer.id for answer in answers}
    people.answer("bo", item.id, 1)
    (row,) = handle.log.read()
    assert (row.reviewer, row.selection, row.at) == ("bo", item.selection, START)
    asked(handle, 10, seed=2)
    assert sum(people.counts().values()) == 3
    clock.at += DAY
    asked(handle, 10, seed=3)
    assert sum(people.counts().values()) == 6
