"""Strategies and memories say what is wrong with them, and what they are."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from everlearn.base import Learner, Part, SpecError
from everlearn.data.order import Shuffle
from everlearn.strategies import (
    Balanced,
    Decay,
    Everything,
    Pretrained,
    Prioritized,
    Reservoir,
    Strategy,
    Window,
)


@dataclass(frozen=True)
class Unshuffled:
    buffer: int = 0
    seed: int = 0


class Anchor:
    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def wrap(self, learner: Learner) -> Learner:
        self.log.append(self.name)
        return learner

    def describe(self) -> str:
        return f"an {self.name}"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"start": "scratch", "memory": Everything()},
        {"start": Pretrained("flights.everlearn")},
        {"start": {"learner/0": Part()}},
        {"memory": Reservoir(10, ratio=0.5), "chunk": np.int64(5), "passes": 3},
        {"order": "time"},
        {"order": Shuffle(1000)},
    ],
)
def test_strategies_that_can_be(given: dict[str, Any]) -> None:
    strategy = Strategy(**given)
    assert strategy == Strategy(**given)
    assert strategy.describe().endswith(("rows", "over", "times"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"start": "beginning"}, "'champion', 'scratch'.*not 'beginning'"),
        ({"start": {}}, "a saved state, not {}"),
        ({"start": None}, "not None"),
        ({"memory": 20_000}, "memory=20000.*lacks 'ratio' and 'open'"),
        ({"memory": Reservoir}, "an object, not the class Reservoir"),
        ({"retention": "ewc"}, "retention='ewc'.*lacks 'wrap'"),
        ({"adaptation": object()}, "lacks 'wrap'"),
        ({"chunk": 0}, "chunk=.*at least 1, not 0"),
        ({"chunk": True}, "not True"),
        ({"passes": 1.5}, "passes=.*not 1.5"),
        ({"seed": -1}, "at least 0, not -1"),
        ({"order": "random"}, "not 'random'"),
        ({"order": 5}, "not 5"),
        ({"order": Unshuffled()}, "buffer=.*not 0"),
    ],
)
def test_strategies_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Strategy(**given)


def test_a_strategy_in_words() -> None:
    strategy = Strategy(
        start="scratch",
        memory=Window(time=timedelta(days=7), ratio=0.5),
        passes=2,
        order=Shuffle(10_000),
    )
    assert strategy.describe() == (
        "from scratch, on new rows and 0.5 remembered for each out of the last 7d, "
        "in chunks of 1,000 rows, 2 times over, shuffled within 10,000 rows"
    )
    assert Strategy(start=Pretrained("a.zip"), order="time").describe() == (
        "from the exported version a.zip, on new rows only, in chunks of 1,000 rows, "
        "in the order of event times"
    )
    assert "remembering all rows without replay" in Strategy(memory=Everything(0)).describe()


def test_adaptation_and_retention_wrap_the_learner() -> None:
    log: list[str] = []
    strategy = Strategy(retention=Anchor(log, "anchor"), adaptation=Anchor(log, "adapter"))
    learner: Any = object()
    assert strategy.wrap(learner) is learner and log == ["adapter", "anchor"]
    assert "holding on by an anchor, adapting an adapter" in strategy.describe()
    assert Strategy().wrap(learner) is learner


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (Reservoir(20_000), "a uniform sample of 20,000 of all rows"),
        (Balanced(5), "a sample of 5 rows with classes balanced"),
        (Prioritized(5), "a sample of 5 rows weighted by their loss"),
        (Window(rows=1_000), "the last 1,000 rows"),
        (Decay("2h"), "rows that decay with a half-life of 2h"),
        (Decay(500), "rows that decay with a half-life of 500 rows"),
    ],
)
def test_memories_in_words(memory: Any, words: str) -> None:
    assert memory.describe() == words


@pytest.mark.parametrize("kind", [Reservoir, Balanced, Prioritized])
@pytest.mark.parametrize("n", [0, -1, 1.5, "many", True, None])
def test_sizes_that_cannot_be(kind: Any, n: Any) -> None:
    with pytest.raises(SpecError, match=rf"{kind.__name__}\(n=\) is a whole number"):
        kind(n)


@pytest.mark.parametrize("ratio", [-0.1, float("nan"), float("inf"), "1", None, True])
@pytest.mark.parametrize("make", [Everything, lambda ratio: Reservoir(5, ratio)])
def test_ratios_that_cannot_be(make: Any, ratio: Any) -> None:
    with pytest.raises(SpecError, match=r"ratio=.*at least 0"):
        make(ratio=ratio)


@pytest.mark.parametrize(
    "make",
    [
        Window,
        lambda: Window(rows=5, time="7d"),
        lambda: Window(rows=0),
        lambda: Window(time="7 fortnights"),
        lambda: Decay(0),
        lambda: Decay("0s"),
        lambda: Decay(1.5),
        lambda: Pretrained(""),
    ],
)
def test_other_parts_that_cannot_be(make: Any) -> None:
    with pytest.raises(SpecError):
        make()


def test_spans_that_are_written_otherwise_are_equal() -> None:
    assert Window(time=timedelta(hours=24)) == Window(time="1d") == Window(time="24h")
    assert Decay(timedelta(minutes=30)) == Decay("0.5h")


def test_a_state_of_another_memory_is_refused() -> None:
    from everlearn.base import InputError

    state = Reservoir(5).open().save()
    with pytest.raises(InputError, match="kind 'reservoir', not 'window'"):
        Window(rows=5).open(state)
