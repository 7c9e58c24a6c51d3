"""Flips between two models: the counts add up, a planted slice is found, and none is in noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from everlearn.base import MISSING_CATEGORY
from everlearn.evaluation.flips import (
    LEVEL,
    Flips,
    Group,
    Grouping,
    _could_be_named,
    _Tail,
    by_bin,
    by_hash,
    by_value,
    counts_by,
    flips,
    groupings,
    search,
    share_interval,
)
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.trial import hold_trial
from tests.evaluation.rows import COLUMNS, Linear, Logistic, rows


def held(*batches):
    holdouts = HoldOuts()
    for batch in batches:
        holdouts.add(batch)
        holdouts.settle()
    return holdouts


def made(lost, won=None):
    lost = np.asarray(lost, bool)
    won = np.zeros(len(lost), bool) if won is None else won
    return Flips(lost | won, lost, won)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.floats(-3, 3)] * 4),
    st.booleans(),
)
def test_counts_add_up_to_what_churn_says(n, seed, weights, text):
    batch = rows(n, seed, text=text)
    values = ("no", "yes") if text else (0.0, 1.0)
    new = Logistic(weights[:2], values, columns=COLUMNS)
    old = Logistic(weights[2:], values[::-1], columns=COLUMNS)
    trial = hold_trial(new, old, held(batch))
    found, churn = flips(trial), trial.churn(slice(None))
    counts = found.counts()
    assert counts["rows"] == n
    assert counts["changed"] == counts["lost"] + counts["won"]  # of two classes one is right
    assert counts["changed"] / n == pytest.approx(churn["churn"])
    assert counts["lost"] / n == pytest.approx(churn["negative_flip_rate"])
    assert counts["won"] / n == pytest.approx(churn["positive_flip_rate"])
    for grouping in groupings(trial.batch, COLUMNS, classes=True):
        parts = counts_by(found, grouping)
        for name, count in counts.items():
            assert sum(part[name] for part in parts) == count


def test_a_class_that_only_the_old_model_knows_was_right():
    batch = rows(40, text=True)
    old = Logistic([2.0, -1.0], ("no", "yes"), columns=COLUMNS)

    class One(Logistic):
        def encode(self, y):
            return np.where(y == "no", 0, -1).astype(np.int64)

    new = One([0.0, 0.0], ("no", "yes"), bias=-9.0, columns=COLUMNS)
    found = flips(hold_trial(new, old, held(batch)))
    said = np.where(batch.numbers @ [2.0, -1.0] > 0, "yes", "no")
    assert found.lost.tolist() == ((said == "yes") & (batch.y == "yes")).tolist()
    assert found.won.tolist() == ((said == "yes") & (batch.y == "no")).tolist()


def test_values_that_err_by_more_than_the_mean_error_count():
    batch = rows(100, key=False)
    target = batch.numbers @ [1.0, 0.0]
    batch = batch.with_y(target + np.where(np.arange(100) % 2, 1.0, -1.0))
    new, old = Linear([1.0, 3.0]), Linear([1.0, 0.0])
    found = flips(hold_trial(new, old, held(batch), COLUMNS))
    assert found.tolerance == pytest.approx(1.0)
    grown = np.abs(batch.numbers @ [1.0, 3.0] - batch.y) - 1.0
    assert found.lost.tolist() == (grown > 1.0).tolist()
    assert found.won.tolist() == (grown < -1.0).tolist()
    assert (found.changed | ~(found.lost | found.won)).all()


def test_without_two_models_or_rows_there_are_none():
    assert flips(hold_trial(Linear([1.0, 0.0]), None, held(rows(9)))) is None
    assert flips(hold_trial(Linear([1.0, 0.0]), Linear([0.0, 1.0]), held())) is None


# --- slices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_slice_is_found_first(seed):
    batch, rng = rows(2000, seed), np.random.default_rng(seed)
    found = made(rng.random(2000) < np.where(batch.categories[:, 0] == 2, 0.2, 0.03))
    told = search(found, list(groupings(batch, COLUMNS, classes=True))).findings
    best = told[0]
    assert (best.kind, best.group) == ("lost", Group("origin", hashed=2))
    chosen = batch.categories[:, 0] == 2
    assert (best.rows, best.flips) == (chosen.sum(), (chosen & found.lost).sum())
    assert best.rest == pytest.approx(found.lost[~chosen].mean())
    assert best.low < best.flips / best.rows < best.high
    assert best.p < 1e-6
    assert found.lost[best.place] and chosen[best.place]
    assert best.p <= told[-1].p


def test_a_span_of_a_number_is_found_and_what_was_won_told_apart():
    batch, rng = rows(2000, 3), np.random.default_rng(3)
    drawn, high = rng.random(2000), batch.numbers[:, 0] > 1.0
    found = made(drawn < 0.05, (drawn > 0.97) | (high & (drawn > 0.7)))
    told = search(found, list(groupings(batch, COLUMNS, classes=True))).findings
    best = told[0]
    assert (best.kind, best.group.column, best.group.upto) == ("won", "a", None)
    assert 0.7 < best.group.above < 1.0
    assert all(one.kind == "won" for one in told)


def test_noise_is_not_named_more_often_than_said():
    """400 draws without any slice: named in at most 5 %, and 3 standard errors."""
    wrong = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        batch = rows(400, seed)
        drawn = rng.random(400)
        noise = made(drawn < 0.08, drawn > 0.9)
        wrong += bool(search(noise, list(groupings(batch, COLUMNS, classes=True))).findings)
    assert wrong / 400 <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / 400)


def test_the_same_rows_are_named_once():
    codes = np.repeat([0, 1], [50, 950]).astype(np.int64)
    lost = np.arange(1000) < 30
    alike = [Grouping([Group(name, equals=n) for n in (0, 1)], codes) for name in ("a", "b")]
    assert [one.group.column for one in search(made(lost), alike).findings] == ["a"]


def test_of_two_slices_with_the_same_flips_the_narrower_one_is_named():
    lost = np.arange(1000) < 40
    wide, narrow = (np.where(np.arange(1000) < n, 0, 1) for n in (400, 100))
    cut = [
        Grouping([Group(name, equals=n) for n in (0, 1)], codes)
        for name, codes in (("wide", wide), ("narrow", narrow))
    ]
    [only] = search(made(lost), cut).findings
    assert (only.group, only.rows, only.flips) == (Group("narrow", equals=0), 100, 40)


def test_all_or_none_flipped_names_nothing():
    batch = rows(50)
    cut = list(groupings(batch, COLUMNS, classes=True))
    for lost in (np.zeros(50, bool), np.ones(50, bool)):
        assert search(made(lost), cut).findings == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_tail_is_the_hypergeometric_one(data):
    n = data.draw(st.integers(2, 400))
    flipped, size = data.draw(st.integers(1, n)), data.draw(st.integers(1, n))
    hits = data.draw(st.integers(max(0, size + flipped - n), min(size, flipped)))
    exact = hypergeom.sf(hits - 1, n, flipped, size)
    assert np.exp(_Tail(n, flipped)(size, hits)) == pytest.approx(exact, rel=1e-6, abs=1e-300)


def test_slices_that_cannot_be_named_cost_nothing():
    assert _could_be_named([0.001, 0.9, 0.8, 0.7], 0.05) == 1
    assert _could_be_named([0.0001] * 7, 0.05) == 7
    assert _could_be_named([0.04, 0.04, 0.001], 0.05) == 2
    assert _could_be_named([], 0.05) == 1


# --- groups -------------------------------------------------------------------------------------


def test_bins_have_about_as_many_rows_each():
    values = np.random.default_rng(0).normal(size=10_007)
    values[::10] = np.nan
    grouping = by_bin("a", values)
    sizes = np.bincount(grouping.codes, minlength=6)
    assert sizes[5] == np.isnan(values).sum()
    assert abs(sizes[:5] / sizes[:5].sum() - 0.2).max() < 0.02
    for group, code in zip(grouping.groups, range(6), strict=True):
        of = values[grouping.codes == code]
        if not group.missing:
            assert group.above is None or (of > group.above).all()
            assert group.upto is None or (of <= group.upto).all()


def test_few_values_are_groups_of_their_own():
    grouping = by_bin("a", np.array([2.0, 1.0, 2.0, np.nan]))
    said = [group.describe() for group in grouping.groups]
    assert said == ["a is 1.0", "a is 2.0", "a is missing"]
    assert grouping.codes.tolist() == [1, 0, 1, 2]
    assert by_bin("a", np.full(3, np.nan)).codes.tolist() == [0, 0, 0]


def test_hashes_are_named_by_their_text_where_it_is_known():
    grouping = by_hash("origin", np.array([7, 7, MISSING_CATEGORY], np.uint64))
    missing, seven = grouping.groups
    assert missing.describe() == "origin is missing"
    assert seven.describe() == "origin is one of the hash 0000000000000007"
    assert seven.describe("JFK") == "origin is 'JFK'"
    assert Group("a", above=1.0, upto=2.5).describe() == "a is above 1 and up to 2.5"


def test_only_the_most_frequent_values_are_groups():
    values = np.array([f"v{n}" for n in range(80)] + ["v7"] * 5, dtype=object)
    grouping = by_value("origin", values)
    assert len(grouping.groups) == 50
    assert "v7" in [group.equals for group in grouping.groups]
    assert (grouping.codes < 0).sum() == 30


@given(st.integers(1, 500), st.data())
def test_an_interval_holds_the_share(rows_, data):
    hits = data.draw(st.integers(0, rows_))
    low, high = share_interval(hits, rows_)
    assert 0.0 <= low <= hits / rows_ + 1e-12
    assert hits / rows_ - 1e-12 <= high <= 1.0
