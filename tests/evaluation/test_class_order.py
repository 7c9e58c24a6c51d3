"""Whether classes come one after the other is told from chance; and who cannot help against it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import everlearn as el
from everlearn.evaluation.class_order import cannot_help, class_order, count_classes
from everlearn.strategies import AGEM, EWC, MAS, SI, DarkReplay, LwF, Strategy

SPLIT = np.kron(np.eye(5, dtype=np.int64), np.full((1, 2), 500))
"""Ten classes, two at a time."""


def test_split_classes_are_incremental() -> None:
    order = class_order(SPLIT)
    assert order.incremental
    assert (order.classes, order.late, order.absent) == (10, 8, 1.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(2, 30), st.integers(5, 400), st.integers(0, 2**31))
def test_rows_in_random_order_are_not(classes: int, periods: int, rows: int, seed: int) -> None:
    """However small periods are, and however rare some classes."""
    generator = np.random.default_rng(seed)
    share = generator.dirichlet(np.full(classes, 0.3))
    assert not class_order(generator.multinomial(rows, share, periods)).incremental


def test_a_class_that_is_new_beside_the_old_ones_is_not() -> None:
    counts = np.array([[50, 50, 0], [50, 50, 0], [30, 40, 30], [30, 40, 30]])
    assert class_order(counts).late == 1
    assert not class_order(counts).incremental


def test_tasks_of_the_same_classes_are_not() -> None:
    assert not class_order(np.full((5, 2), 1_000)).incremental
    assert not class_order(np.zeros((0, 0), np.int64)).incremental


def test_classes_are_counted_by_value() -> None:
    counts = count_classes([np.array(["a", "b", "a"], object), np.array(["c"], object)])
    assert counts.tolist() == [[2, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("method", [EWC(10.0), SI(), MAS(), LwF()])
def test_who_cannot_help(method: object) -> None:
    order, name = class_order(SPLIT), type(method).__name__
    said = cannot_help(Strategy(retention=method), order)  # type: ignore[arg-type]
    assert said.startswith(f"{name} alone cannot help")
    assert "memory=Reservoir" in said
    assert "Hsu et al. 2018" in said
    with_memory = Strategy(retention=method, memory=el.Reservoir(100))  # type: ignore[arg-type]
    assert cannot_help(with_memory, order) == ""
    again = class_order(np.full((5, 10), 90))
    assert cannot_help(Strategy(retention=method), again) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [DarkReplay(10), AGEM(10), None])
def test_who_may(method: object) -> None:
    assert cannot_help(Strategy(retention=method), class_order(SPLIT)) == ""  # type: ignore[arg-type]
