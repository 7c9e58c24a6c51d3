"""Windows hold exactly the latest rows, and decay weighs them by age."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.base import NO_TIME, Batch, Held, InputError, state_digest
from everlearn.strategies import Decay, Window
from everlearn.testing.memory import MINUTE, make_rows


def numbers(held: Held) -> list[int]:
    return [int(i) for batch in held.rows() for i in batch.numbers[:, 0]]


def at_minutes(minutes: list[int], start: int = 0) -> Batch:
    time = np.array([NO_TIME if m < 0 else m * MINUTE for m in minutes], np.int64)
    return replace(make_rows(start, start + len(minutes)), time=time)


STEPS = st.lists(st.lists(st.integers(-1, 60), max_size=25), max_size=10)


@settings(deadline=None, max_examples=80)
@given(STEPS, st.integers(1, 30), st.booleans())
def test_the_last_rows(steps: list[list[int]], n: int, settle: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("everlearn.strategies.rows.BLOCK", 4)
        held, generator, offered = Window(rows=n).open(), np.random.default_rng(0), 0
        for minutes in steps:
            held.offer(at_minutes(minutes, offered), np.zeros(len(minutes)), generator)
            offered += len(minutes)
            if settle:
                held.settle()
        held.settle()
        assert numbers(held) == list(range(max(offered - n, 0), offered))


@settings(deadline=None, max_examples=80)
@given(STEPS, st.integers(1, 40), st.booleans())
def test_the_last_span_of_event_time(steps: list[list[int]], span: int, settle: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("everlearn.strategies.rows.BLOCK", 4)
        held, generator, seen = Window(time=f"{span}min").open(), np.random.default_rng(0), []
        for minutes in steps:
            held.offer(at_minutes(minutes, len(seen)), np.zeros(len(minutes)), generator)
            seen += minutes
            if settle:
                held.settle()
        held.settle()
        latest = max(seen, default=-1)
        inside = [i for i, m in enumerate(seen) if m >= 0 and m >= latest - span]
        assert numbers(held) == inside


@pytest.mark.parametrize("memory", [Window(time="1h"), Window(rows=300), Decay("10min"), Decay(9)])
def test_how_rows_are_split_into_offers_changes_nothing(
    memory: Window | Decay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everlearn.strategies.rows.BLOCK", 16)
    minutes = (np.arange(500) // 3 + np.random.default_rng(0).integers(20, size=500)).tolist()
    states = []
    for chunk in (1, 7, 500):
        held = memory.open()
        for at in range(0, 500, chunk):
            part = at_minutes(minutes[at : at + chunk], at)
            held.offer(part, np.zeros(len(part)), np.random.default_rng(0))
        held.settle()
        states.append(state_digest(held.save()))
    assert len(set(states)) == 1


def test_a_long_increment_keeps_few_rows_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everlearn.strategies.rows.BLOCK", 16)
    for memory in (Window(rows=50), Window(time="50min"), Decay(5), Decay("5min")):
        held = memory.open()
        for at in range(0, 2000, 10):
            held.offer(make_rows(at, at + 10), np.zeros(10), np.random.default_rng(0))
            assert len(held._aside) <= 90  # type: ignore[attr-defined]


@pytest.mark.parametrize("memory", [Window(time="1h"), Decay("1h")])
def test_event_times_are_needed(memory: Window | Decay) -> None:
    with pytest.raises(InputError, match=r"needs event times.*Schema\(time=\)"):
        held = memory.open()
        held.offer(replace(make_rows(0, 3), time=None), np.zeros(3), np.random.default_rng(0))


@pytest.mark.parametrize("memory", [Decay(half_life=20), Decay(half_life="20min")])
def test_weights_halve_and_end_after_ten_half_lives(memory: Decay) -> None:
    held, generator = memory.open(), np.random.default_rng(0)
    for at in range(0, 1000, 100):
        weight = np.full(100, 3.0) if at >= 500 else None
        held.offer(replace(make_rows(at, at + 100), weight=weight), np.zeros(100), generator)
        held.settle()
    batch = Batch.concat(list(held.rows()))
    age = 999 - batch.numbers[:, 0]
    assert age.max() in (199, 200) and batch.weight is not None
    np.testing.assert_allclose(batch.weight, 3.0 * 0.5 ** (age / 20))
    drawn = held.draw(40_000, generator)
    assert drawn is not None and drawn.weight is not None and set(drawn.weight) == {3.0}
    young = (999 - drawn.numbers[:, 0] < 20).mean()
    assert abs(young - 0.5) < 0.01


def test_decay_of_rows_that_come_late_is_by_their_own_time() -> None:
    held, generator = Decay("10min").open(), np.random.default_rng(0)
    held.offer(at_minutes([50, 40, 60, 30]), np.zeros(4), generator)
    held.settle()
    (batch,) = held.rows()
    assert batch.weight is not None
    assert batch.weight.tolist() == [0.5, 0.25, 1.0, 0.125]
