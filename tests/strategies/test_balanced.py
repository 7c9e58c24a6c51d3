"""The class-balancing reservoir against algorithm 1 as the paper writes it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from everlearn.base import Batch, Held, InputError, state_digest
from everlearn.strategies import Balanced
from everlearn.testing.memory import make_rows


def rows(classes: Any, start: int = 0) -> Batch:
    y = np.asarray(classes)
    return make_rows(start, start + len(y)).with_y(y if y.dtype.kind == "O" else y.astype(float))


def held_numbers(held: Held) -> list[int]:
    return [int(i) for batch in held.rows() for i in batch.numbers[:, 0]]


def algorithm_1(classes: list[int], n: int, uniform: Any) -> list[int]:
    """Row by row and unhurried, with the same random numbers."""
    members: dict[int, list[int]] = {}
    offered: dict[int, int] = {}
    full: set[int] = set()

    def mark() -> list[int]:
        most = max(map(len, members.values()))
        largest = [c for c in offered if len(members[c]) == most]
        full.update(largest)
        return largest

    for row, kind in enumerate(classes):
        members.setdefault(kind, [])
        offered[kind] = offered.get(kind, 0) + 1
        u, v = uniform[row]
        if sum(map(len, members.values())) < n:
            members[kind].append(row)
            continue
        largest = mark()
        mine = members[kind]
        if kind not in full:
            theirs = members[largest[int(u * len(largest))]]
            theirs[int(v * len(theirs))] = theirs[-1]
            theirs.pop()
            mine.append(row)
        elif mine and u * offered[kind] <= len(mine):
            mine[int(v * len(mine))] = row
    return sorted(row for found in members.values() for row in found)


@settings(deadline=None, max_examples=100)
@given(
    st.integers(4, 30),
    st.lists(st.sampled_from([0, 0, 0, 0, 0, 1, 1, 2, 3]), max_size=150),
    st.integers(1, 60),
    st.integers(0, 3),
)
def test_it_is_algorithm_1(n: int, classes: list[int], chunk: int, seed: int) -> None:
    held, generator = Balanced(n).open(), np.random.default_rng(seed)
    for at in range(0, len(classes), chunk):
        part = rows(classes[at : at + chunk], at)
        held.offer(part, np.zeros(len(part)), generator)
    held.settle()
    uniform = np.random.default_rng(seed).random((len(classes), 2))
    assert held_numbers(held) == algorithm_1(classes, n, uniform)


def test_rare_classes_are_held_whole_and_the_others_evenly() -> None:
    generator = np.random.default_rng(1)
    names = np.array(["often", "seldom", "rare"], dtype=object)
    classes = names[generator.choice(3, size=20_000, p=[0.9, 0.0985, 0.0015])]
    held = Balanced(300).open()
    for at in range(0, 20_000, 1000):
        held.offer(rows(classes[at : at + 1000], at), np.zeros(1000), generator)
        held.settle()
    found = np.concatenate([batch.y for batch in held.rows()])  # type: ignore[misc]
    counts = {name: int((found == name).sum()) for name in names}
    rare = int((classes == "rare").sum())
    assert counts["rare"] == rare < 100
    assert sum(counts.values()) == 300
    assert abs(counts["often"] - counts["seldom"]) <= 1


def test_rows_of_a_class_are_uniform() -> None:
    generator, counts = np.random.default_rng(2), np.zeros(200)
    classes = np.arange(200) % 4 == 0
    for _ in range(400):
        held = Balanced(40).open()
        for at in range(0, 200, 25):
            held.offer(rows(classes[at : at + 25], at), np.zeros(25), generator)
        held.settle()
        counts[held_numbers(held)] += 1
    assert stats.chisquare(counts[~classes]).pvalue > 0.01
    assert stats.chisquare(counts[classes]).pvalue > 0.01


def test_a_long_increment_keeps_few_rows_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    classes = np.random.default_rng(0).choice(3, size=6000, p=[0.7, 0.2, 0.1])
    for spare in (0, 65_536):
        monkeypatch.setattr("everlearn.strategies.balanced.BLOCK", spare)
        held, generator = Balanced(50).open(), np.random.default_rng(0)
        for at in range(0, 6000, 100):
            held.offer(rows(classes[at : at + 100], at), np.zeros(100), generator)
            assert spare or len(held._aside) <= 200  # type: ignore[attr-defined]
        held.settle()
        states.append(state_digest(held.save()))
    assert states[0] == states[1]


def test_erased_rows_make_room() -> None:
    held: Any = Balanced(30).open()
    generator = np.random.default_rng(0)
    held.offer(rows(np.arange(100) % 2), np.zeros(100), generator)
    held.settle()
    gone = held.erase(keys=np.array([1, 2], np.uint64))
    assert len(held) == 30 - gone
    held.offer(rows(np.arange(50) % 2, 100), np.zeros(50), generator)
    held.settle()
    assert len(held) == 30


def test_rows_without_a_target_are_refused() -> None:
    held = Balanced(5).open()
    with pytest.raises(InputError, match="needs a target"):
        held.offer(make_rows(0, 3).with_y(None), np.zeros(3), np.random.default_rng(0))


def test_a_quantity_is_no_class() -> None:
    held = Balanced(5).open()
    with pytest.raises(InputError, match=r"more classes than the rows.*Reservoir"):
        held.offer(rows(np.arange(10)), np.zeros(10), np.random.default_rng(0))
