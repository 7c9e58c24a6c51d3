"""Rows with a high loss are kept, and drawn, more often."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.base import Floats, Held, state_digest
from everlearn.strategies import Prioritized
from everlearn.testing.memory import make_rows


def held_numbers(held: Held) -> list[int]:
    return [int(i) for batch in held.rows() for i in batch.numbers[:, 0]]


def offer(held: Held, loss: Floats, chunk: int, generator: np.random.Generator) -> None:
    for at in range(0, len(loss), chunk):
        part = loss[at : at + chunk]
        held.offer(make_rows(at, at + len(part)), part, generator)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 200), st.booleans())
def test_it_is_algorithm_a_res(n: int, chunk: int, total: int, settle: bool) -> None:
    loss = np.random.default_rng(total).random(total) * 3
    held, generator = Prioritized(n).open(), np.random.default_rng(1)
    offer(held, loss[: total // 2], chunk, generator)
    if settle:
        held.settle()
    for at in range(total // 2, total, chunk):
        stop = min(at + chunk, total)
        held.offer(make_rows(at, stop), loss[at:stop], generator)
    held.settle()
    uniform = 1.0 - np.random.default_rng(1).random(total)
    keys = np.log(uniform) / np.maximum(loss, 1e-6)
    assert held_numbers(held) == sorted(np.argsort(-keys)[:n].tolist())


def test_a_loss_twice_as_high_is_drawn_twice_as_often() -> None:
    held, generator = Prioritized(100).open(), np.random.default_rng(0)
    loss = np.where(np.arange(100) < 50, 0.4, 0.8)
    offer(held, loss, 100, generator)
    held.settle()
    drawn = held.draw(60_000, generator)
    assert drawn is not None
    high = (drawn.numbers[:, 0] >= 50).mean()
    assert abs(high - 2 / 3) < 0.01


def test_rows_with_a_high_loss_are_kept() -> None:
    held, generator = Prioritized(200).open(), np.random.default_rng(0)
    loss = np.where(np.arange(4000) % 10 == 0, 2.0, 0.05)
    offer(held, loss, 250, generator)
    held.settle()
    assert np.mean(np.array(held_numbers(held)) % 10 == 0) > 0.7


@pytest.mark.parametrize("loss", [np.nan, np.inf, -1.0, 0.0])
def test_a_loss_that_is_no_weight_does_no_harm(loss: float) -> None:
    held, generator = Prioritized(10).open(), np.random.default_rng(0)
    offer(held, np.full(30, loss), 7, generator)
    held.settle()
    assert len(held_numbers(held)) == 10
    drawn = held.draw(20, generator)
    assert drawn is not None and len(drawn) == 20


def test_a_long_increment_keeps_few_rows_aside() -> None:
    states, loss = [], np.random.default_rng(4).random(30_000)
    for chunk in (100, 30_000):
        held: Any = Prioritized(50).open()
        generator = np.random.default_rng(0)
        for at in range(0, 30_000, chunk):
            held.offer(make_rows(at, at + chunk), loss[at : at + chunk], generator)
            assert len(held._aside) <= 1224
        held.settle()
        states.append(state_digest(held.save()))
    assert states[0] == states[1]
