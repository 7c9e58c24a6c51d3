"""The conformance suite of memories: what a fold relies on, for ours and for third parties'.

Subclass it in a test module, and say which memory is tested::

    class TestMyMemory(MemorySuite):
        def memory(self, ratio=1.0):
            return MyMemory(100, ratio=ratio)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from everlearn.base import Array, Batch, Floats, Held, Memory, Part, State, state_digest

MINUTE = 60_000_000
"""Microseconds between the rows that `make_rows` makes."""


def make_rows(start: int, stop: int, *, texts: bool = False) -> Batch:
    """The rows numbered start … stop−1 of an endless stream: number i has id i+1, number i in its
    first column, comes i minutes after the epoch, and has class i mod 3.

    Args:
        texts: whether the target is texts ("a", "b", "c") instead of numbers.
    """
    index = np.arange(start, stop)
    numbers = np.column_stack([index, np.sin(index)]).astype(np.float64)
    y: Array = (index % 3).astype(np.float64)
    if texts:
        y = np.array(["a", "b", "c"], dtype=object)[index % 3]
    return Batch(
        numbers=numbers,
        categories=(index[:, None] % 7 + 1).astype(np.uint64),
        times=(index * MINUTE)[:, None],
        y=y,
        ids=(index + 1).astype(np.uint64),
        time=index * MINUTE,
        key=(index % 5 + 1).astype(np.uint64),
    )


def losses_of(batch: Batch) -> Floats:
    """A loss for each row of `make_rows`, from 0 to 1, that depends on nothing but its number."""
    loss: Floats = (batch.numbers[:, 0] * 0.618) % 1.0
    return loss


def same_rows(left: Batch | None, right: Batch | None) -> bool:
    """Whether two batches hold the same rows in the same order, bit by bit."""
    if left is None or right is None:
        return left is right
    for name in Batch.__slots__:
        ours, theirs = getattr(left, name), getattr(right, name)
        if (ours is None) != (theirs is None):
            return False
        if ours is not None and not np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f"):
            return False
    return True


class MemorySuite(ABC):
    """Tests that every `Memory` must pass. `increment` rows are offered at a time, in chunks."""

    increment = 300
    chunk = 70
    texts = False

    @abstractmethod
    def memory(self, ratio: float = 1.0) -> Memory:
        """The memory under test; it must hold some of the last 300 rows that it was offered."""

    def filled(self, increments: int = 2) -> tuple[Held, np.random.Generator]:
        """A memory that has been through so many increments, and its generator."""
        held, generator = self.memory().open(), np.random.default_rng(7)
        for number in range(increments):
            self.learn(held, generator, number)
        return held, generator

    def learn(self, held: Held, generator: np.random.Generator, number: int) -> list[Batch | None]:
        """One increment as a fold does it; what was drawn for each chunk."""
        start, drawn = number * self.increment, []
        for at in range(start, start + self.increment, self.chunk):
            batch = self.rows(at, min(at + self.chunk, start + self.increment))
            drawn.append(held.draw(len(batch), generator))
            held.offer(batch, losses_of(batch), generator)
        held.settle()
        return drawn

    def rows(self, start: int, stop: int) -> Batch:
        return make_rows(start, stop, texts=self.texts)

    def test_definitions_compare(self) -> None:
        memory = self.memory()
        assert isinstance(memory, Memory)
        assert memory == self.memory() and memory != self.memory(ratio=0.5)
        assert memory.ratio == 1.0 and self.memory(ratio=0.5).ratio == 0.5

    def test_nothing_is_drawn_from_an_empty_memory(self) -> None:
        held, generator = self.memory().open(), np.random.default_rng(0)
        assert held.draw(10, generator) is None
        assert list(held.rows()) == []

    def test_no_row_of_the_increment_is_drawn(self) -> None:
        held, generator = self.filled(1)
        before = _numbers(held)
        for drawn in self.learn(held, generator, 1):
            assert drawn is not None and set(drawn.ids.tolist()) <= before
        held.settle()
        assert max(_numbers(held)) > self.increment

    def test_the_ratio_is_kept_over_chunks(self) -> None:
        for ratio in (0.25, 1.0, 2.5):
            held, generator = self.memory(ratio).open(), np.random.default_rng(1)
            self.learn(held, generator, 0)
            drawn = [held.draw(3, generator) for _ in range(101)]
            assert abs(sum(map(_length, drawn)) - ratio * 303) <= 1

    def test_a_ratio_of_nothing_draws_nothing(self) -> None:
        held, generator = self.memory(0.0).open(), np.random.default_rng(1)
        self.learn(held, generator, 0)
        before = generator.bit_generator.state
        assert held.draw(100, generator) is None and generator.bit_generator.state == before

    def test_what_was_offered_is_given_back_unchanged(self) -> None:
        held, generator = self.filled()
        drawn = held.draw(500, generator)
        assert drawn is not None
        for batch in (drawn, *held.rows()):
            index = batch.ids.astype(np.int64) - 1
            for row, number in enumerate(index.tolist()):
                expected = self.rows(number, number + 1)
                found = batch.take(slice(row, row + 1))
                assert same_rows(_unweighted(found), expected)

    def test_rows_come_in_order_of_arrival(self) -> None:
        held, _ = self.filled(5)
        numbers = np.concatenate([batch.ids for batch in held.rows()])
        assert (np.diff(numbers.astype(np.int64)) > 0).all()

    def test_an_empty_increment_is_the_identity(self) -> None:
        held, generator = self.filled()
        before = state_digest(held.save())
        held.settle()
        assert held.draw(0, generator) is None
        held.offer(self.rows(0, 0), np.zeros(0), generator)
        held.settle()
        assert state_digest(held.save()) == before

    def test_saving_changes_nothing(self) -> None:
        one, first = self.filled(1)
        two, second = self.filled(1)
        for number in range(1, 4):
            for at in range(number * 300, number * 300 + 300, 50):
                batch = self.rows(at, at + 50)
                for held, generator in ((one, first), (two, second)):
                    held.draw(50, generator)
                    held.offer(batch, losses_of(batch), generator)
                two.save()
            one.settle()
            two.settle()
        assert state_digest(one.save()) == state_digest(two.save())

    def test_a_saved_memory_goes_on_where_it_was(self) -> None:
        for stop in range(1, 9):
            held, generator = self.filled(1)
            resumed, again = self.filled(1)
            for step in range(10):
                at = 300 + step * 40
                batch = self.rows(at, at + 40)
                assert same_rows(held.draw(40, generator), resumed.draw(40, again))
                held.offer(batch, losses_of(batch), generator)
                resumed.offer(batch, losses_of(batch), again)
                if step == stop:
                    resumed = self.memory().open(reload(resumed.save()))
            for one in (held, resumed):
                one.settle()
            assert state_digest(held.save()) == state_digest(resumed.save())
            assert same_rows(held.draw(99, generator), resumed.draw(99, again))

    def test_unchanged_parts_are_the_same_objects(self) -> None:
        held, _ = self.filled()
        first, second = held.save(), held.save()
        shared = [name for name, part in first.items() if second[name] is part]
        rows = [name for name, part in first.items() if len(part.arrays) > 2]
        assert set(rows) <= set(shared)

    def test_the_same_seed_gives_the_same_memory(self) -> None:
        assert state_digest(self.filled(3)[0].save()) == state_digest(self.filled(3)[0].save())


def reload(state: State) -> dict[str, Part]:
    """The state as if read from a store: new parts, loaded when they are first read."""

    def copy(part: Part) -> Part:
        return Part({name: array.copy() for name, array in part.arrays.items()}, part.meta)

    def lazy(part: Part) -> Part:
        return Part.lazy(part.digest, lambda: copy(part))

    return {name: lazy(part) for name, part in state.items()}


def _numbers(held: Held) -> set[int]:
    return {number for batch in held.rows() for number in batch.ids.tolist()}


def _length(batch: Batch | None) -> int:
    return 0 if batch is None else len(batch)


def _unweighted(batch: Batch) -> Batch:
    """The batch as it was offered: memories that decay give weights to their rows."""
    fields: dict[str, Any] = {name: getattr(batch, name) for name in Batch.__slots__}
    return Batch(**{**fields, "weight": None})
