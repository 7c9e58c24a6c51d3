"""Figures of a transfer matrix, worked out by hand."""

import numpy as np
import pytest

from everlearn.base import InputError
from everlearn.evaluation.transfer import (
    TransferMatrix,
    average_score,
    backward_transfer,
    forgetting,
    forward_transfer,
    intransigence,
    stability_gap,
)

R = np.array([[0.9, 0.4, 0.3], [0.95, 0.8, 0.5], [0.7, 0.75, 0.85]])
B = np.array([0.1, 0.2, 0.3])


def test_by_hand():
    assert average_score(R) == pytest.approx((0.7 + 0.75 + 0.85) / 3)
    assert backward_transfer(R) == pytest.approx(((0.7 - 0.9) + (0.75 - 0.8)) / 2)
    assert forward_transfer(R, B) == pytest.approx(((0.4 - 0.2) + (0.5 - 0.3)) / 2)
    assert forgetting(R) == pytest.approx(((0.95 - 0.7) + (0.8 - 0.75)) / 2)
    joint = np.array([0.9, 0.9, 0.9])
    assert intransigence(R, joint) == pytest.approx((0.0 + 0.1 + 0.05) / 3)


def test_forgetting_is_the_maximum_not_the_first_and_leaves_out_the_last_row():
    better_and_better = np.array([[0.5, 0.0], [0.8, 0.9]])
    assert forgetting(better_and_better) == pytest.approx(-0.3)
    assert forgetting(R) > -backward_transfer(R)


def test_what_was_not_measured_is_absent():
    r = R.copy()
    r[2, 0] = np.nan
    assert average_score(r) is None
    assert forgetting(r) is None
    assert forward_transfer(r, B) == pytest.approx(0.2)
    one = np.array([[0.9]])
    assert average_score(one) == 0.9
    assert backward_transfer(one) is None
    assert forgetting(one) is None


def test_matrix_as_it_is_measured():
    scores = TransferMatrix()
    assert scores.figures().average_score is None
    for i, row in enumerate(R):
        for j, score in enumerate(row):
            scores.put(i, j, score)
    for j, score in enumerate(B):
        scores.put_untrained(j, score)
    assert (scores.matrix == R).all()
    figures = scores.figures()
    assert figures.forward_transfer == pytest.approx(forward_transfer(R, B))
    assert figures.intransigence is None
    assert scores.to_json()["matrix"][1] == [0.95, 0.8, 0.5]


def test_losses_have_their_signs_turned():
    loss, score = TransferMatrix(greater_is_better=False), TransferMatrix()
    for i, row in enumerate(R):
        for j, value in enumerate(row):
            loss.put(i, j, 1 - value)
            score.put(i, j, value)
    for j, value in enumerate(B):
        loss.put_untrained(j, 1 - value)
        score.put_untrained(j, value)
        loss.put_joint(j, 0.1)
        score.put_joint(j, 0.9)
    a, b = loss.figures(), score.figures()
    assert a.average_score == pytest.approx(1 - b.average_score)
    for name in ("backward_transfer", "forward_transfer", "forgetting", "intransigence"):
        assert getattr(a, name) == pytest.approx(getattr(b, name))


def test_stability_gap():
    assert stability_gap(0.9, [0.85, 0.4, 0.88]) == pytest.approx(0.5)
    assert stability_gap(0.9, []) is None
    assert stability_gap(0.9, [np.nan]) is None


def test_wrong_shapes():
    with pytest.raises(InputError, match="square"):
        average_score(R[:2])
    with pytest.raises(InputError, match="3 untrained"):
        forward_transfer(R, B[:2])
    with pytest.raises(InputError, match="3 joint"):
        intransigence(R, B[:2])
    with pytest.raises(InputError, match="from 0, not from -1"):
        TransferMatrix().put(-1, 0, 0.5)
