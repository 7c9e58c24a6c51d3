"""Losses against finite differences, and steps against the equations that define them."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from everlearn.learners.native.descent.losses import (
    HEAVIEST,
    HINGE,
    HUBER,
    INSENSITIVE,
    LOGISTIC,
    POISSON,
    QUANTILE,
    SQUARED,
    explicit_pull,
    gradient,
    hinge_pulls,
    invariant_pull,
    linked,
    probability,
    softmax,
    softmax_pulls,
    squared_slack_pull,
    value,
)
from everlearn.learners.native.descent.state import EXPLICIT, INVARIANT, SQUARED_SLACK

LOSSES = (SQUARED, HUBER, QUANTILE, POISSON, LOGISTIC, HINGE, INSENSITIVE)
CLASSES = (LOGISTIC, HINGE)

losses = st.sampled_from(LOSSES)
scores = st.floats(-6.0, 6.0)
bends = st.floats(0.05, 0.95)
weights = st.floats(1e-3, 30.0)
lengths = st.floats(1e-3, 30.0)


def target(loss, number):
    """A target that the loss takes."""
    if loss in CLASSES:
        return float(number > 0.0)
    return abs(number) if loss == POISSON else number


def kinks(loss, y, bend):
    """Scores at which the gradient jumps or bends."""
    return {
        HUBER: (y - bend, y + bend),
        QUANTILE: (y,),
        HINGE: (2.0 * y - 1.0,),
        INSENSITIVE: (y - bend, y + bend),
    }.get(loss, ())


def slope_at(loss, score, y, bend):
    return gradient(loss, linked(loss, score), y, bend)


@given(losses, scores, scores, bends)
@settings(max_examples=500, deadline=None)
def test_gradients_are_those_of_the_values(loss, score, number, bend):
    y, step = target(loss, number), 1e-6
    assume(all(abs(score - kink) > 2 * step for kink in kinks(loss, y, bend)))
    rise = value(loss, score + step, y, bend) - value(loss, score - step, y, bend)
    slope = slope_at(loss, score, y, bend)
    assert slope == pytest.approx(rise / (2 * step), rel=1e-6, abs=1e-6)


def test_values_by_hand():
    assert value(SQUARED, 3.0, 1.0, 0.0) == 2.0
    assert value(HUBER, 3.0, 1.0, 0.5) == 0.5 * (2.0 - 0.25)
    assert value(HUBER, 1.25, 1.0, 0.5) == 0.5 * 0.25**2
    assert value(QUANTILE, 3.0, 1.0, 0.75) == 0.5
    assert value(QUANTILE, 1.0, 3.0, 0.75) == 1.5
    assert value(POISSON, 2.0, 3.0, 0.0) == math.exp(2.0) - 6.0
    assert value(LOGISTIC, 2.0, 0.0, 0.0) == pytest.approx(math.log(1 + math.exp(2.0)))
    assert value(LOGISTIC, 800.0, 0.0, 0.0) == 800.0
    assert value(HINGE, 0.25, 1.0, 0.0) == 0.75
    assert value(HINGE, 0.25, 0.0, 0.0) == 1.25
    assert value(INSENSITIVE, 3.0, 1.0, 0.5) == 1.5


def driven(loss, score, y, bend, time):
    """Where the flow score' = −gradient takes a score: Runge and Kutta's method, fine steps."""
    steps = 4000
    h = time / steps
    for _ in range(steps):
        a = slope_at(loss, score, y, bend)
        b = slope_at(loss, score - 0.5 * h * a, y, bend)
        c = slope_at(loss, score - 0.5 * h * b, y, bend)
        d = slope_at(loss, score - h * c, y, bend)
        score -= h * (a + 2 * b + 2 * c + d) / 6
    return score


@pytest.mark.parametrize("loss", LOSSES)
def test_the_invariant_step_is_the_flow(loss):
    generator = np.random.default_rng(loss)
    for time in (1e-6, 0.05, 0.8, 3.0):
        score, number, bend = generator.uniform(-2, 2), generator.uniform(-2, 2), 0.3
        y, length = target(loss, number), 2.5
        moved = score - length * invariant_pull(loss, score, y, bend, time / length, length)
        assert moved == pytest.approx(driven(loss, score, y, bend, time), rel=1e-3, abs=1e-3 * time)


@given(losses, scores, scores, bends, weights, weights, lengths)
@settings(max_examples=500, deadline=None)
def test_a_weight_may_be_split(loss, score, number, bend, one, other, length):
    y = target(loss, number)
    once = score - length * invariant_pull(loss, score, y, bend, one + other, length)
    between = score - length * invariant_pull(loss, score, y, bend, one, length)
    twice = between - length * invariant_pull(loss, between, y, bend, other, length)
    assert once == pytest.approx(twice, rel=1e-9, abs=1e-9)


@given(losses, scores, scores, bends, st.floats(0.0, HEAVIEST), lengths)
@settings(max_examples=500, deadline=None)
def test_an_invariant_step_never_costs(loss, score, number, bend, weight, length):
    y = target(loss, number)
    moved = score - length * invariant_pull(loss, score, y, bend, weight, length)
    before, after = value(loss, score, y, bend), value(loss, moved, y, bend)
    assert after <= before + 1e-9 * (1.0 + abs(before))


@given(
    st.sampled_from((SQUARED, HUBER, LOGISTIC, POISSON)), scores, scores, bends, weights, lengths
)
@settings(max_examples=300, deadline=None)
def test_no_explicit_step_diverges(loss, score, number, bend, weight, length):
    """The same row again and again, at any rate: its loss ends where it is least, or nearly so."""
    y, start = target(loss, number), score
    for _ in range(200):
        score -= length * explicit_pull(loss, linked(loss, score), y, bend, weight, length)
        assert abs(score) < 1e3
    assert value(loss, score, y, bend) <= value(loss, start, y, bend) + 1e-9


def test_an_explicit_step_is_plain_where_it_may_be():
    assert explicit_pull(SQUARED, 3.0, 1.0, 0.0, 0.5, 2.0) == 0.5 * 2.0
    assert explicit_pull(SQUARED, 3.0, 1.0, 0.0, 0.5, 20.0) == 2.0 / 20.0
    assert explicit_pull(LOGISTIC, 0.5, 1.0, 0.0, 2.0, 1.0) == -1.0
    assert explicit_pull(HINGE, 0.0, 1.0, 0.0, 2.0, 100.0) == -2.0


@given(losses, st.floats(-1e200, 1e200), st.floats(-1e100, 1e100), bends)
@settings(max_examples=500, deadline=None)
def test_steps_are_finite(loss, score, number, bend):
    y = target(loss, number)
    for weight in (0.0, 1e-300, 1.0, HEAVIEST):
        for length in (1e-300, 1.0, 1e30, 1e200):
            assert math.isfinite(invariant_pull(loss, score, y, bend, weight, length))
            assert math.isfinite(explicit_pull(loss, linked(loss, score), y, bend, weight, length))


@pytest.mark.parametrize("loss", [HINGE, INSENSITIVE])
def test_the_step_of_squared_slack_is_the_best(loss):
    """½ (change of the weights)² / rate + weight · loss², over all changes along the row."""
    rate, squares, weight, bend = 0.7, 3.0, 1.3, 0.2
    for score, y in ((0.3, 1.0), (-2.0, 1.0), (0.3, 0.0), (5.0, 1.0), (0.9, 1.0)):
        pull = squared_slack_pull(loss, score, y, bend, weight, rate * squares)

        def cost(pull, score=score, y=y):
            change = 0.5 * rate * pull**2 * squares
            return change + weight * value(loss, score - rate * squares * pull, y, bend) ** 2

        assert all(cost(pull) <= cost(pull + apart) for apart in (-0.1, -1e-4, 1e-4, 0.1))


def test_probabilities():
    assert probability(0.0) == 0.5
    assert probability(1e300) == 1.0
    assert probability(-1e300) == 0.0
    assert probability(2.0) + probability(-2.0) == pytest.approx(1.0, abs=1e-15)


# --- several scores -----------------------------------------------------------------------------

vectors = st.lists(st.floats(-20.0, 20.0), min_size=2, max_size=6).map(np.array)


@given(vectors)
@settings(deadline=None)
def test_softmax(given_scores):
    out = np.empty(len(given_scores))
    softmax(given_scores, out)
    powers = np.exp(given_scores)
    np.testing.assert_allclose(out, powers / powers.sum(), rtol=1e-12)
    softmax(given_scores + 1e5, out)
    np.testing.assert_allclose(out, powers / powers.sum(), rtol=1e-9)


@given(vectors, st.integers(0, 5), weights)
@settings(deadline=None)
def test_pulls_of_softmax_are_the_gradient(given_scores, label, weight):
    y = label % len(given_scores)
    out, pulls = np.empty(len(given_scores)), np.empty(len(given_scores))
    softmax(given_scores, out)
    softmax_pulls(given_scores, y, weight, 0.0, False, pulls)
    np.testing.assert_allclose(
        pulls, weight * (out - (np.arange(len(out)) == y)), rtol=1e-9, atol=1e-12
    )
    softmax_pulls(given_scores, y, weight, 50.0 / weight, False, pulls)
    np.testing.assert_allclose(
        pulls, weight / 25.0 * (out - (np.arange(len(out)) == y)), rtol=1e-9, atol=1e-12
    )


@given(scores, scores, st.integers(0, 1), weights, lengths)
@settings(deadline=None)
def test_of_two_classes_softmax_is_logistic(first, second, y, weight, length):
    """The difference of the two scores moves as the one score does, at twice the rate."""
    pulls = np.empty(2)
    softmax_pulls(np.array([first, second]), y, weight, length, True, pulls)
    pull = invariant_pull(LOGISTIC, second - first, float(y), 0.0, weight, 2.0 * length)
    np.testing.assert_allclose(pulls, [-pull, pull], rtol=1e-9, atol=1e-15)


@given(vectors, st.integers(0, 5), st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_an_invariant_step_of_softmax_never_costs(given_scores, label, length):
    y, pulls = label % len(given_scores), np.empty(len(given_scores))
    softmax_pulls(given_scores, y, 1.0, length, True, pulls)
    assert pulls.sum() == pytest.approx(0.0, abs=1e-12)
    before, after = np.empty(len(pulls)), np.empty(len(pulls))
    softmax(given_scores, before)
    softmax(given_scores - length * pulls, after)
    assert after[y] >= before[y] - 1e-12


@pytest.mark.parametrize(
    ("update", "strength"),
    [(EXPLICIT, 2.0), (INVARIANT, 0.3 / 0.5), (SQUARED_SLACK, 0.3 / (0.5 + 0.25))],
)
def test_hinge_of_several_classes(update, strength):
    pulls, given_scores = np.empty(3), np.array([1.0, -0.5, 0.3])
    hinge_pulls(given_scores, 0, 2.0, 0.25, update, pulls)
    np.testing.assert_allclose(pulls, [-strength, 0.0, strength])
    hinge_pulls(given_scores - np.array([0.0, 9.0, 9.0]), 0, 2.0, 0.25, update, pulls)
    assert (pulls == 0.0).all()
