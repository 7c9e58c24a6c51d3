"""A rise of the mean loss is proven where there is one, and not where chance made it."""

import numpy as np

from everlearn.evaluation.shifts import alpha_at
from everlearn.evaluation.worse import least_rise, level_of


def test_the_bound_is_below_the_true_rise_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(600):
        a = level_of((generator.random(500) < 0.1).astype(float), shares=True)
        b = level_of((generator.random(500) < 0.2).astype(float), shares=True)
        wrong += least_rise(a, b, 0.05) > 0.1
    assert wrong <= 0.05 * 600 + 3 * np.sqrt(0.05 * 0.95 * 600)


def test_it_is_near_the_true_rise_of_many() -> None:
    generator = np.random.default_rng(1)
    a = level_of(generator.exponential(1.0, 50_000))
    b = level_of(generator.exponential(1.5, 50_000))
    assert 0.42 < least_rise(a, b, 0.001) < 0.5


def test_neighbours_that_are_alike_make_the_error_larger() -> None:
    generator = np.random.default_rng(2)
    alone = generator.normal(size=500)
    alike = np.repeat(generator.normal(size=50), 10)
    assert level_of(alike).error > 2.0 * level_of(alone).error


def test_a_window_without_a_wrong_answer_is_no_proof_that_there_is_none() -> None:
    good, few = level_of(np.zeros(100), shares=True), np.zeros(100)
    few[:2] = 1.0
    assert good.error > 0.005
    assert least_rise(good, level_of(few, shares=True), 0.05) < 0.0
    assert least_rise(good, level_of(np.ones(100), shares=True), 0.05) > 0.9


def test_thirty_windows_of_the_same_raise_no_more_false_alarms_than_alpha() -> None:
    generator = np.random.default_rng(3)
    alarms = {"shares": 0, "skewed": 0}
    for _ in range(100):
        reference = level_of((generator.random(500) < 0.05).astype(float), shares=True)
        alarms["shares"] += any(
            least_rise(
                reference,
                level_of((generator.random(500) < 0.05).astype(float), shares=True),
                alpha_at(0.05, look),
            )
            > 0.0
            for look in range(1, 31)
        )
        reference = level_of(generator.exponential(size=500))
        alarms["skewed"] += any(
            least_rise(reference, level_of(generator.exponential(size=500)), alpha_at(0.05, look))
            > 0.0
            for look in range(1, 31)
        )
    assert max(alarms.values()) <= 9  # 5 of 100 and two standard errors; 400 runs made 3 % of both
