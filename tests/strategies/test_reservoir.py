"""The reservoir is a uniform sample, however its rows come."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from everlearn.base import Held, state_digest
from everlearn.strategies import Reservoir
from everlearn.testing.memory import make_rows

N, ROWS = 20, 200


def offer(held: Held, generator: np.random.Generator, cuts: list[int]) -> None:
    """Offer 200 rows, split at `cuts`."""
    edges = [0, *sorted(cuts), ROWS]
    for start, stop in pairwise(edges):
        held.offer(make_rows(start, stop), np.zeros(stop - start), generator)


def numbers(held: Held) -> list[int]:
    return [int(i) for batch in held.rows() for i in batch.numbers[:, 0]]


def test_every_row_is_as_likely_as_any() -> None:
    generator, counts = np.random.default_rng(3), np.zeros(ROWS)
    for run in range(600):
        held = Reservoir(N).open()
        for start in range(0, ROWS, 40):
            held.offer(make_rows(start, start + 40), np.zeros(40), generator)
            if run % 2:
                held.settle()
        held.settle()
        assert len(numbers(held)) == N
        counts[numbers(held)] += 1
    assert stats.chisquare(counts).pvalue > 0.01


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, ROWS), max_size=8), st.integers(0, 5))
def test_how_rows_are_split_into_offers_changes_nothing(cuts: list[int], seed: int) -> None:
    states = []
    for splits in (cuts, []):
        held, generator = Reservoir(N).open(), np.random.default_rng(seed)
        offer(held, generator, splits)
        held.settle()
        states.append((state_digest(held.save()), generator.bit_generator.state))
    assert states[0] == states[1]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 60), max_size=12), st.integers(1, 40))
def test_never_more_than_n_rows(sizes: list[int], n: int) -> None:
    held, generator, offered = Reservoir(n).open(), np.random.default_rng(0), 0
    for size in sizes:
        held.offer(make_rows(offered, offered + size), np.zeros(size), generator)
        offered += size
        held.settle()
        assert len(numbers(held)) == min(n, offered)


def test_after_an_erasure_the_other_rows_are_still_uniform() -> None:
    generator, counts = np.random.default_rng(5), np.zeros(ROWS)
    for _ in range(600):
        held = Reservoir(N).open()
        held.offer(make_rows(0, 100), np.zeros(100), generator)
        held.settle()
        held.erase(keys=np.array([1], np.uint64))  # type: ignore[attr-defined]
        held.offer(make_rows(100, ROWS), np.zeros(100), generator)
        held.settle()
        assert len(numbers(held)) <= N
        counts[numbers(held)] += 1
    erased = np.arange(ROWS) < 100
    erased &= np.arange(ROWS) % 5 == 0
    assert not counts[erased].any()
    assert stats.chisquare(counts[~erased]).pvalue > 0.01


def test_a_long_increment_keeps_few_rows_aside(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("everlearn.strategies.reservoir.BLOCK", 0)
    held, generator = Reservoir(50).open(), np.random.default_rng(0)
    plain, again = Reservoir(50).open(), np.random.default_rng(0)
    for at in range(0, 20_000, 100):
        held.offer(make_rows(at, at + 100), np.zeros(100), generator)
        assert len(held._aside) <= 150  # type: ignore[attr-defined]
    monkeypatch.undo()
    plain.offer(make_rows(0, 20_000), np.zeros(20_000), again)
    for memory in (held, plain):
        memory.settle()
    assert state_digest(held.save()) == state_digest(plain.save())


def test_every_remembered_row_is_drawn_once_before_any_again() -> None:
    held, generator = Reservoir(100).open(), np.random.default_rng(0)
    held.offer(make_rows(0, 100), np.zeros(100), generator)
    held.settle()
    for _ in range(3):
        drawn = [held.draw(25, generator) for _ in range(4)]
        found = sorted(int(i) for batch in drawn if batch is not None for i in batch.ids)
        assert found == list(range(1, 101))


def test_more_rows_can_be_drawn_than_are_held() -> None:
    held, generator = Reservoir(10).open(), np.random.default_rng(0)
    held.offer(make_rows(0, 10), np.zeros(10), generator)
    held.settle()
    drawn = held.draw(35, generator)
    assert drawn is not None and len(drawn) == 35
    assert np.bincount(drawn.ids.astype(int)).max() == 4


def test_the_same_rows_are_drawn_however_many_at_once() -> None:
    def drawn(cuts: list[int]) -> list[int]:
        held, generator = Reservoir(100).open(), np.random.default_rng(0)
        held.offer(make_rows(0, 100), np.zeros(100), generator)
        held.settle()
        batches = [held.draw(rows, generator) for rows in cuts]
        return [int(i) for batch in batches if batch is not None for i in batch.ids]

    assert drawn([30, 20_000, 70]) == drawn([100] * 201)
