"""Churn and flips by their definitions."""

import numpy as np
import pytest

from everlearn.base import InputError
from everlearn.evaluation.churn import Churn, churn, value_churn


def test_flips_in_both_directions():
    old = np.array(["a", "b", "b", "a", "c"], dtype=object)
    new = np.array(["a", "a", "b", "b", "a"], dtype=object)
    y = np.array(["a", "b", "b", "b", "b"], dtype=object)
    assert churn(old, new, y) == Churn(5, 3 / 5, 1 / 5, 1 / 5)
    assert churn(old, new).negative_flip_rate is None


def test_no_rows():
    none = np.zeros(0, np.int64)
    assert churn(none, none, none) == Churn(0)
    assert value_churn(none, none) == Churn(0)


def test_regressors_answers():
    found = value_churn(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.5, 5.0]), tolerance=0.5)
    assert found.churn == pytest.approx(1 / 3)
    assert found.mean_change == pytest.approx(2.5 / 3)
    broken = value_churn(np.array([1.0]), np.array([np.nan]))
    assert broken.churn == 1.0
    assert broken.to_json()["mean_change"] is None


def test_rows_must_be_the_same():
    with pytest.raises(InputError, match="same rows"):
        churn(np.zeros(3), np.zeros(2))
