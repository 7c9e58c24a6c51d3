"""Folding in what a memory holds: before new rows, or, where it alone is learned, after them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from everlearn.base import Batch, crash_point
from everlearn.data.order import Shuffle
from everlearn.jobs.learn import Fold
from everlearn.strategies.strategy import Strategy


def relive(fold: Fold, strategy: Strategy, skip: int, after_chunk: Callable[[int], None]) -> None:
    """Fold in all that the memory holds: what `start="scratch"` begins with.

    Args:
        strategy: its chunk, passes and order: rows are shuffled where it shuffles, and come in the
            order of their arrival otherwise.
        skip: remembered rows that were folded in before a checkpoint.
        after_chunk: called with the number of remembered rows folded in so far.
    """
    if fold.alone:  # what it begins with is to be joined by new rows first
        return
    done = 0
    for number in range(strategy.passes):
        for rows in _arranged(fold.remembered(), strategy, number):
            for piece in rows.split(strategy.chunk):
                done += len(piece)
                if done > skip:
                    fold.learn(piece)
                    crash_point("learn.relive")
                    after_chunk(done)


def learn_memory(fold: Fold, strategy: Strategy, after_chunk: Callable[[int], None]) -> None:
    """The end of a fold that learns from its memory alone (`GDumb`): all that it holds, in random
    order, as often as the memory says. Of other folds nothing.

    Args:
        strategy: its chunk and its seed.
        after_chunk: called with the number of rows that each chunk had.
    """
    if not fold.alone:
        return
    memory: Any = strategy.memory
    order = Shuffle(max(2, memory.n), strategy.seed)
    shuffled = replace(strategy, order=order)
    for number in range(memory.epochs):
        for rows in _arranged(fold.remembered(), shuffled, number):
            for piece in rows.split(strategy.chunk):
                fold.learn(piece)
                after_chunk(len(piece))


def _arranged(batches: Iterator[Batch], strategy: Strategy, number: int) -> Iterator[Batch]:
    """The rows in windows of the strategy's shuffle, each permuted; as they are without one.

    The permutation of a window depends only on the seed, the pass and the window, so that a job
    goes on in the middle.
    """
    order = strategy.order
    if isinstance(order, str):
        yield from batches
        return
    seed = strategy.seed if order.seed is None else order.seed
    for window, rows in enumerate(_windows(batches, order.buffer)):
        generator = np.random.default_rng([seed, number, window])
        yield rows.take(generator.permutation(len(rows)))


def _windows(batches: Iterator[Batch], rows: int) -> Iterator[Batch]:
    """The same rows in batches of `rows` rows; the last one may have fewer."""
    kept: list[Batch] = []
    count = 0
    for batch in batches:
        while count + len(batch) >= rows:
            room = rows - count
            yield Batch.concat([*kept, batch.take(slice(0, room))])
            batch, kept, count = batch.take(slice(room, None)), [], 0
        kept.append(batch)
        count += len(batch)
    if count:
        yield Batch.concat(kept)
