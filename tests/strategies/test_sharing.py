"""What a memory costs: versions share its parts, and large ones lie on disk."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from everlearn.base import Batch, Held, Memory, state_digest
from everlearn.storage.parts import PartStore
from everlearn.storage.stores import open_blobs
from everlearn.strategies import Balanced, Everything, Prioritized, Reservoir, Window
from everlearn.strategies.block import BLOCK
from everlearn.testing.memory import losses_of, make_rows, same_rows


def wide_rows(start: int, stop: int) -> Batch:
    index = np.arange(start, stop)
    return Batch(
        numbers=np.repeat(index[:, None].astype(float), 8, axis=1),
        categories=np.empty((len(index), 0), np.uint64),
        times=np.empty((len(index), 0), np.int64),
        y=index.astype(float) % 2,
        ids=index.astype(np.uint64),
    )


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "memory", [Reservoir(4000), Balanced(4000), Prioritized(4000), Window(rows=4000), Everything()]
)
def test_versions_share_what_they_remember(tmp_path: Path, memory: Memory) -> None:
    store, generator = PartStore(open_blobs(tmp_path)), np.random.default_rng(0)
    held = memory.open()

    def version(start: int, stop: int) -> int:
        batch = make_rows(start, stop)
        held.offer(batch, losses_of(batch), generator)
        held.settle()
        state = held.save()
        assert len(state) <= 20
        before = size(tmp_path)
        store.save(state)
        return size(tmp_path) - before

    whole = version(0, 40_000)
    each = [version(at, at + 100) for at in range(40_000, 50_000, 100)]
    assert max(each) <= 1.1 * whole + 10_000
    assert np.mean(each) <= 0.15 * whole


def test_a_large_memory_lies_on_disk(tmp_path: Path) -> None:
    store, generator = PartStore(open_blobs(tmp_path)), np.random.default_rng(0)
    block = BLOCK * (8 + 1 + 1) * 8
    held: Held = Everything().open()
    tracemalloc.start()
    try:
        for at in range(0, 16 * BLOCK, BLOCK):
            held.offer(wide_rows(at, at + BLOCK), np.zeros(BLOCK), generator)
            store.save(held.save())
        held.settle()
        manifest = store.save(held.save())
        tracemalloc.reset_peak()
        for _ in range(20):
            assert held.draw(1000, generator) is not None
        assert sum(map(len, held.rows())) == 16 * BLOCK
        assert tracemalloc.get_traced_memory()[1] < 9 * block
    finally:
        tracemalloc.stop()
    held.settle()
    again = Everything().open(store.load(manifest))
    assert state_digest(again.save()) == state_digest(held.save())
    one, two = np.random.default_rng(5), np.random.default_rng(5)
    assert same_rows(held.draw(3000, one), again.draw(3000, two))


def test_draws_of_a_large_memory_reach_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everlearn.strategies.rows.BLOCK", 64)
    monkeypatch.setattr("everlearn.strategies.held.RESIDENT", 256)
    monkeypatch.setattr("everlearn.strategies.held._LARGE_ROUND", 128)
    held, generator = Everything().open(), np.random.default_rng(0)
    held.offer(wide_rows(0, 1000), np.zeros(1000), generator)
    held.settle()
    drawn = held.draw(200_000, generator)
    assert drawn is not None
    counts = np.bincount(drawn.ids.astype(int), minlength=1000)
    blocks = np.add.reduceat(counts, np.arange(0, 1000, 64)) / np.minimum(
        64, 1000 - np.arange(0, 1000, 64)
    )
    assert counts.min() > 0 and abs(blocks / 200 - 1).max() < 0.15


def test_erasing_needs_a_settled_memory() -> None:
    held = Everything().open()
    held.offer(make_rows(0, 10), np.zeros(10), np.random.default_rng(0))
    with pytest.raises(ValueError, match="settle the memory first"):
        held.erase(ids=np.array([3], np.uint64))  # type: ignore[attr-defined]
    held.settle()
    assert held.erase(ids=np.array([3], np.uint64)) == 1  # type: ignore[attr-defined]
    assert [int(i) for batch in held.rows() for i in batch.ids] == [1, 2, 4, 5, 6, 7, 8, 9, 10]
