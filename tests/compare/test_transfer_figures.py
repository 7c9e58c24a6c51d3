"""What is drawn from the scores of strategies on past periods."""

from __future__ import annotations

import numpy as np
import pytest

from everlearn.compare.scores import transfer_figures


def test_figures_are_those_of_the_groups_that_all_were_tested_on() -> None:
    r = np.array([[0.9, 0.5, np.nan], [0.7, 0.8, np.nan], [0.6, 0.7, np.nan]])
    joint = np.array([[0.9, 0.0, 0.0], [0.0, 0.85, 0.0], [0.0, 0.0, np.nan]])
    found = transfer_figures(r, joint)
    assert found["average_score"] == pytest.approx(0.75)  # the two groups, at the second's end
    assert found["backward_transfer"] == pytest.approx(-0.2)
    assert found["forgetting"] == pytest.approx(0.2)
    assert found["intransigence"] == pytest.approx((0.0 + 0.05) / 2)
    assert transfer_figures(r, None)["intransigence"] is None


def test_the_full_retraining_lacks_nothing() -> None:
    r = np.random.default_rng(0).random((4, 4))
    assert transfer_figures(r, r)["intransigence"] == 0.0


def test_nothing_was_tested() -> None:
    assert set(transfer_figures(np.full((2, 2), np.nan), None).values()) == {None}
