"""Shifts are found where there are some, and hardly ever where there are none."""

import numpy as np
import pytest
from scipy.stats import chi2_contingency, ks_2samp

from everlearn.base import InputError
from everlearn.evaluation.shifts import (
    Shift,
    alpha_at,
    category_shift,
    ks_shift,
    shifts,
    surely,
)

NUMBERS, COUNTS, WORDS = 14, 3, 3


def window(generator: np.random.Generator, rows: int = 300) -> list[np.ndarray | list[str]]:
    """20 stationary features: numbers, small counts, and words."""
    columns: list[np.ndarray | list[str]] = [generator.normal(size=rows) for _ in range(NUMBERS)]
    columns += [generator.poisson(1.0, rows).astype(float) for _ in range(COUNTS)]
    shares = [0.5, 0.3, 0.15, 0.04, 0.01]
    columns += [generator.choice(list("abcde"), rows, p=shares).tolist() for _ in range(WORDS)]
    return columns


def compared(reference: list, recent: list) -> list[Shift]:
    return [
        category_shift(str(n), a, b) if isinstance(a, list) else ks_shift(str(n), a, b)
        for n, (a, b) in enumerate(zip(reference, recent, strict=True))
    ]


def test_twenty_features_in_thirty_windows_raise_no_more_false_alarms_than_alpha() -> None:
    generator = np.random.default_rng(0)
    runs, alarms, naive = 100, 0, 0
    for _ in range(runs):
        reference, alarm, any_p = window(generator), False, False
        for look in range(1, 31):
            found = compared(reference, window(generator))
            alarm |= bool(surely(found, alpha_at(0.05, look), effect=0.0))
            any_p |= any(one.p < 0.05 for one in found)
        alarms, naive = alarms + alarm, naive + any_p
    assert alarms <= 5  # 95 % interval of 5 of 100: 1.6 % to 11.3 %; of 0 of 100: 0 to 3.6 %
    assert naive >= 95


def test_one_feature_of_twenty_that_moves_by_three_deviations_is_found() -> None:
    generator = np.random.default_rng(1)
    reference, recent = window(generator), window(generator)
    recent[4] = recent[4] + 3.0
    (moved,) = surely(compared(reference, recent), alpha_at(0.05, 30), effect=0.1)
    assert moved.column == "4" and moved.effect > 0.8


def test_a_trivial_shift_of_very_many_is_sure_and_does_not_matter() -> None:
    generator = np.random.default_rng(2)
    a, b = generator.normal(size=1_000_000), generator.normal(0.01, size=1_000_000)
    found = ks_shift("x", a, b)
    assert found.p < 1e-5 and found.effect < 0.01
    assert surely([found], 0.05, effect=0.1) == []
    assert surely([found], 0.05, effect=0.0) == [found]


def test_statistics_are_those_of_scipy_and_p_is_a_bound() -> None:
    generator = np.random.default_rng(3)
    for shift in (0.0, 0.1, 0.3):
        a, b = generator.normal(size=400), generator.normal(shift, size=400)
        mine, other = ks_shift("x", a, b), ks_2samp(a, b, method="asymp")
        assert mine.effect == pytest.approx(other.statistic)
        assert mine.p >= other.pvalue
    a, b = ["x"] * 60 + ["y"] * 40, ["x"] * 45 + ["y"] * 55
    table = [[60, 45], [40, 55]]
    other = chi2_contingency(table, correction=False)
    mine = category_shift("c", a, b)
    assert mine.p == pytest.approx(other.pvalue) and mine.effect == pytest.approx(0.15)


def test_missing_values_are_a_shift_too() -> None:
    values = np.random.default_rng(4).normal(size=300)
    holes = values.copy()
    holes[::2] = np.nan
    assert ks_shift("x", values, holes).effect == pytest.approx(0.5, abs=0.02)
    given = {"x": values.tolist(), "color": ["red", "blue"] * 150, "new": [None] * 300}
    gone = {"color": ["red", "blue"] * 150, "new": [1.0] * 300}
    found = {one.column: one for one in shifts(given, gone)}
    assert found["x"].effect == 1.0 and found["x"].p < 1e-9
    assert found["color"].effect == 0.0
    assert "new" not in found


def test_rare_categories_are_one() -> None:
    names = [f"order {n}" for n in range(400)]
    assert category_shift("id", names[:200], names[200:]).p == 1.0
    some = ["a"] * 150 + names[:50]
    assert category_shift("c", some, ["a"] * 60 + names[60:200]).effect == pytest.approx(0.45)
    assert category_shift("c", ["a"] * 200, ["b"] * 200).effect == pytest.approx(1.0)


def test_texts_numbers_and_booleans_are_told_apart() -> None:
    found = shifts(
        {"n": [1, 2.5, None] * 30, "b": [True, False, None] * 30, "t": ["1", 1, None] * 30},
        {"n": [1, 2.5, None] * 30, "b": [True, True, True] * 30, "t": ["1", "1", None] * 30},
    )
    assert [(one.column, one.test) for one in found] == [("b", "chi2"), ("n", "ks"), ("t", "chi2")]
    assert [one.effect for one in found] == pytest.approx([2 / 3, 0.0, 1 / 3])


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        ks_shift("x", np.zeros(0), np.zeros(3))
    with pytest.raises(InputError, match="empty"):
        category_shift("x", ["a"], [])
