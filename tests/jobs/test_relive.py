"""What `start="scratch"` begins with: all that the memory holds, in the order of the strategy."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

import everlearn as el
from everlearn.base import Batch
from everlearn.jobs.learn import Fold
from everlearn.jobs.relive import relive

ROWS = 2_500


class Told:
    """A fold of which only what it is given to learn is of interest."""

    alone = False

    def __init__(self) -> None:
        self.seen: list[int] = []

    def remembered(self) -> list[Batch]:
        numbers = np.arange(ROWS, dtype=np.float64)[:, None]
        none = np.zeros((ROWS, 0))
        rows = Batch(
            numbers=numbers,
            categories=none.astype(np.uint64),
            times=none.astype(np.int64),
            ids=np.arange(ROWS, dtype=np.uint64),
        )
        return list(rows.split(700))

    def learn(self, batch: Batch) -> None:
        self.seen += batch.ids.astype(int).tolist()


def relived(strategy: el.Strategy, skip: int = 0) -> list[int]:
    told = Told()
    relive(told, strategy, skip, lambda rows: None)  # type: ignore[arg-type]
    return told.seen


def test_without_a_shuffle_rows_come_as_they_arrived() -> None:
    assert relived(el.Strategy(chunk=100, passes=2)) == [*range(ROWS), *range(ROWS)]


@pytest.mark.parametrize("buffer", [64, 1_000, 10_000])
def test_a_shuffle_permutes_within_its_windows(buffer: int) -> None:
    seen = relived(el.Strategy(chunk=100, order=el.Shuffle(buffer)))
    assert seen != list(range(ROWS))
    for start in range(0, ROWS, buffer):
        window = seen[start : start + buffer]
        assert sorted(window) == list(range(start, min(ROWS, start + buffer)))


def test_passes_and_seeds_have_permutations_of_their_own() -> None:
    twice = relived(el.Strategy(chunk=100, passes=2, order=el.Shuffle(500)))
    assert twice[:ROWS] != twice[ROWS:]
    assert twice[:ROWS] != relived(el.Strategy(chunk=100, seed=1, order=el.Shuffle(500)))


def test_goes_on_after_what_was_relived() -> None:
    strategy = el.Strategy(chunk=100, passes=2, order=el.Shuffle(500))
    assert relived(strategy, skip=3_000) == relived(strategy)[3_000:]


def test_a_shuffled_retraining_forgets_the_order_of_the_classes() -> None:
    """Rows sorted by class are learned well only when they are mixed."""
    x = np.random.default_rng(0).normal(size=(4_000, 3))
    y = x[:, 0] > 0
    order = np.argsort(y, kind="stable")
    definition = SGDClassifier(loss="log_loss", random_state=0, learning_rate="constant", eta0=0.1)
    memory = el.Everything()
    first = el.learn(definition, x[order], y[order], el.Strategy(memory=memory))
    shuffled = el.Strategy(start="scratch", memory=memory, order=el.Shuffle(10_000))
    again = el.learn(first, x[:10], y[:10], shuffled)
    assert np.mean(again.predict(x) == y) > 0.95
    assert isinstance(again._fold, Fold)
