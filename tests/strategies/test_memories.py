"""Every memory passes the conformance suite, with targets that are numbers and that are texts."""

import pytest

from everlearn.base import Memory
from everlearn.strategies import Balanced, Decay, Everything, Prioritized, Reservoir, Window
from everlearn.testing.memory import MemorySuite


class TestReservoir(MemorySuite):
    def memory(self, ratio: float = 1.0) -> Memory:
        return Reservoir(100, ratio=ratio)


class TestLargeReservoir(MemorySuite):
    texts = True

    def memory(self, ratio: float = 1.0) -> Memory:
        return Reservoir(10_000, ratio=ratio)


class TestBalanced(MemorySuite):
    def memory(self, ratio: float = 1.0) -> Memory:
        return Balanced(100, ratio=ratio)


class TestBalancedTexts(MemorySuite):
    texts = True

    def memory(self, ratio: float = 1.0) -> Memory:
        return Balanced(500, ratio=ratio)


class TestPrioritized(MemorySuite):
    def memory(self, ratio: float = 1.0) -> Memory:
        return Prioritized(100, ratio=ratio)


class TestWindowOfRows(MemorySuite):
    def memory(self, ratio: float = 1.0) -> Memory:
        return Window(rows=120, ratio=ratio)


class TestWindowOfTime(MemorySuite):
    def memory(self, ratio: float = 1.0) -> Memory:
        return Window(time="150min", ratio=ratio)


class TestDecayByRows(MemorySuite):
    def memory(self, ratio: float = 1.0) -> Memory:
        return Decay(half_life=40, ratio=ratio)


class TestDecayByTime(MemorySuite):
    texts = True

    def memory(self, ratio: float = 1.0) -> Memory:
        return Decay(half_life="1h", ratio=ratio)


class TestEverything(MemorySuite):
    def memory(self, ratio: float = 1.0) -> Memory:
        return Everything(ratio=ratio)


@pytest.mark.parametrize("rows", [3, 7, 40])
class TestTinyBlocks(MemorySuite):
    """The same with blocks of a few rows, so that sealing, merging and eviction all happen."""

    @pytest.fixture(autouse=True)
    def small(self, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("rows", "held", "reservoir", "balanced"):
            monkeypatch.setattr(f"everlearn.strategies.{module}.BLOCK", rows)
        monkeypatch.setattr("everlearn.strategies.rows.RESIDENT", 4 * rows)
        monkeypatch.setattr("everlearn.strategies.held.RESIDENT", 4 * rows)
        monkeypatch.setattr("everlearn.strategies.held.PERMUTED", rows)

    def memory(self, ratio: float = 1.0) -> Memory:
        return Everything(ratio=ratio)


class TestTinyBlocksReservoir(TestTinyBlocks):
    def memory(self, ratio: float = 1.0) -> Memory:
        return Reservoir(50, ratio=ratio)


class TestTinyBlocksBalanced(TestTinyBlocks):
    def memory(self, ratio: float = 1.0) -> Memory:
        return Balanced(50, ratio=ratio)


class TestTinyBlocksPrioritized(TestTinyBlocks):
    def memory(self, ratio: float = 1.0) -> Memory:
        return Prioritized(50, ratio=ratio)


class TestTinyBlocksWindow(TestTinyBlocks):
    def memory(self, ratio: float = 1.0) -> Memory:
        return Window(time="2h", ratio=ratio)


class TestTinyBlocksDecay(TestTinyBlocks):
    def memory(self, ratio: float = 1.0) -> Memory:
        return Decay(half_life=30, ratio=ratio)
