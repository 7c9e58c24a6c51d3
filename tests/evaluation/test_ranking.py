"""Bins of scores keep their order, and their bounds hold on the hardest scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from everlearn.evaluation.ranking import (
    Ranking,
    _coarser,
    _harmonic,
    bin_count,
    bin_of,
    binned_areas,
    exact_areas,
    rising,
)

PROBABILITIES = st.one_of(
    st.floats(0, 1), st.floats(0, 1e-6), st.floats(1 - 1e-9, 1), st.sampled_from([0.0, 0.5, 1.0])
)


def place_of(scores, bits):
    """Each score's place among all bins in order of rising score."""
    order = rising(np.arange(2 * bin_count(bits)).reshape(1, 2, -1))[0]
    return np.argsort(order)[bin_of(scores, bits)]


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(1, 40), elements=PROBABILITIES), st.sampled_from([3, 5, 8])
)
def test_bins_rise_with_scores(scores, bits):
    scores = np.sort(scores)
    index = bin_of(scores, bits)
    assert index.min() >= 0
    assert index.max() < 2 * bin_count(bits)
    assert (np.diff(place_of(scores, bits)) >= 0).all()


def test_probabilities_a_little_outside_are_put_into_the_last_bins():
    assert place_of(np.array([-1e-17, 1 + 1e-15]), 8).tolist() == [0, 2 * bin_count(8) - 1]


@pytest.mark.parametrize("to", [3, 5])
def test_coarser_bins_are_those_of_fewer_bits(to):
    scores = np.random.default_rng(0).beta(0.1, 0.2, 5_000)
    fine = np.bincount(bin_of(scores, 8), minlength=2 * bin_count(8)).reshape(2, -1)
    coarse = np.bincount(bin_of(scores, to), minlength=2 * bin_count(to)).reshape(2, -1)
    assert (_coarser(fine, 8, to) == coarse).all()


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(2, 400),
    bins=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
    skew=st.floats(0.05, 0.95),
)
def test_bounds_hold_whatever_the_bins_hide(n, bins, seed, skew):
    rng = np.random.default_rng(seed)
    y = rng.random(n) < skew
    if y.all() or not y.any():
        y[0] = not y[0]
    scores = rng.random(n) ** 3
    place = (scores * bins).astype(int)
    up = np.bincount(place[y], minlength=bins)
    found = binned_areas(up, np.bincount(place, minlength=bins) - up)
    assert abs(found.roc - sk.roc_auc_score(y, scores)) <= found.roc_error + 1e-9
    assert abs(found.pr - sk.average_precision_score(y, scores)) <= found.pr_error + 1e-9


def test_exact_areas_with_ties():
    rng = np.random.default_rng(0)
    y, scores = rng.random(3_000) < 0.1, rng.integers(0, 20, 3_000) / 20
    found = exact_areas(y, scores)
    assert found.roc == pytest.approx(sk.roc_auc_score(y, scores), abs=1e-12)
    assert found.pr == pytest.approx(sk.average_precision_score(y, scores), abs=1e-12)
    assert exact_areas(np.ones(4, bool), scores[:4]).roc is None


def test_rare_class_with_tiny_scores_keeps_its_area():
    """Bins of equal width would put all of these into one."""
    rng = np.random.default_rng(0)
    n = 60_000
    y = (rng.random(n) < 0.01).astype(np.int64)
    score = np.exp(rng.normal(-12 + 2 * y, 1.0))
    ranking = Ranking()
    for part in np.array_split(np.arange(n), 7):
        ranking.add(y[part], np.stack([1 - score[part], score[part]], axis=1))
    found = ranking.areas()
    assert found.roc == pytest.approx(sk.roc_auc_score(y, score), abs=1e-3)
    assert 0 < found.roc_error < 1e-3
    assert abs(found.pr - sk.average_precision_score(y, score)) <= found.pr_error


def test_harmonic_numbers():
    n = np.array([0.0, 1.0, 2.0, 255.0, 256.0, 1e4])
    expected = [sum(1 / i for i in range(1, int(x) + 1)) for x in n]
    assert _harmonic(n) == pytest.approx(expected, abs=1e-12)
