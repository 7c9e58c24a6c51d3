"""Looks while a model learns: few, where most is lost, and the same after a kill."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.base import Batch, Floats, Prediction
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.looks import MOST, SHARE, Looks, look_at


class Answering:
    """A regressor that answers all rows alike, and counts those that it was asked."""

    kind = "regressor"

    def __init__(self) -> None:
        self.answer, self.asked = 0.0, 0

    def predict(self, batch: Batch) -> Prediction:
        self.asked += len(batch)
        return Prediction(value=np.full(len(batch), self.answer))

    def encode(self, y: Any) -> Any:
        return y

    def decode(self, value: Any) -> Any:
        return value


def held(rows: int = 400) -> HoldOuts:
    generator, made = np.random.default_rng(1), HoldOuts()
    y: Floats = np.ones(rows)
    made.add(
        Batch(
            numbers=generator.normal(size=(rows, 1)),
            categories=np.zeros((rows, 0), np.uint64),
            times=np.zeros((rows, 0), np.int64),
            y=y,
            ids=generator.integers(0, 2**62, rows).astype(np.uint64),
        )
    )
    made.settle()
    return made


@given(st.integers(0, 3_000_000), st.integers(1, 5_000))
def test_looks_are_few_and_within_the_job(rows: int, chunk: int) -> None:
    moments = look_at(rows, chunk)
    assert len(moments) <= MOST
    assert moments == sorted(set(moments))
    assert all(0 < moment < rows and moment % chunk == 0 for moment in moments)
    assert bool(moments) == (rows > chunk)


@settings(deadline=None, max_examples=30)
@given(st.integers(2_001, 300_000), st.integers(100, 2_000))
def test_they_cost_a_twentieth_of_the_rows_at_most(rows: int, chunk: int) -> None:
    scorer = Answering()
    looks = Looks.plan(held().periods, scorer, rows, chunk)
    each = scorer.asked
    for start in range(0, rows, chunk):
        looks.after(min(chunk, rows - start), scorer)
    assert scorer.asked - each <= max(64, SHARE * rows)
    assert len(looks.figures()["during"]) == len(look_at(rows, chunk))


def test_the_gap_is_to_the_worst_in_between() -> None:
    scorer = Answering()
    scorer.answer = 1.0
    looks = Looks.plan(held().periods, scorer, 10_000, 1_000)
    for answer in (0.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0):
        scorer.answer = answer
        looks.after(1_000, scorer)
    found = looks.figures()
    assert found["before"] == {"mae": 0.0, "mse": 0.0}
    assert found["gap"] == pytest.approx({"mae": 2.0, "mse": 4.0})
    assert found["during"][0] == {"learned": 1_000, "mae": 1.0, "mse": 1.0}


@pytest.mark.parametrize("stop", [0, 1, 4, 9])
def test_one_that_goes_on_has_seen_the_same(stop: int) -> None:
    def run(stop: int | None) -> Any:
        scorer, holdouts = Answering(), held()
        looks = Looks.plan(holdouts.settled, scorer, 10_000, 1_000)
        for number in range(10):
            if number == stop:
                looks = Looks.load(holdouts.settled, looks.save())
            scorer.answer = float(number)
            looks.after(1_000, scorer)
        return looks.figures()

    assert run(stop) == run(None)


def test_nothing_to_look_at() -> None:
    looks = Looks.plan([], Answering(), 10_000, 100)
    looks.after(10_000, Answering())
    assert looks.figures() is None
    assert Looks.load([], looks.save()).figures() is None
