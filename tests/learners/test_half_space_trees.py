"""Half-space trees against their definition in plain Python, and against River."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import everlearn as el
from everlearn.base import NO_TIME, Batch, InputError, Part, SpecError, state_digest
from everlearn.learners import HalfSpaceTrees, as_learner
from everlearn.learners.native.random import mix
from everlearn.learners.native.row_window import _beyond
from everlearn.testing.learner import COLUMNS


def stream(rows, seed=0, columns=6, drift=5.0, share=0.02):
    """(rows, columns) numbers that depend on each other, of very different scales, whose centre
    moves; and which of them are anomalies, that do not depend on each other."""
    random = np.random.default_rng(seed)
    odd = random.random(rows) < share
    phase = np.arange(rows)[:, None] / rows + random.random(columns)
    centre = drift * np.sin(2.0 * np.pi * phase)
    usual = random.normal(size=(rows, 3)) @ random.normal(size=(3, columns)) * 0.7
    usual += random.normal(size=(rows, columns)) * 0.3
    strange = random.normal(size=(rows, columns)) * 3.0
    scale = 10.0 ** random.integers(-3, 4, columns)
    return (np.where(odd[:, None], strange, usual) + centre) * scale, odd.astype(int)


# --- the definition ----------------------------------------------------------------------------


def edge(values, weights, cut):
    """The first value up to which there is more weight than `cut`."""
    order = np.argsort(values, kind="stable")
    return values[order][np.argmax(np.cumsum(weights[order]) > cut)]


def range_of(values, weights):
    there = ~np.isnan(values)
    values, weights = values[there], weights[there]
    if not len(values):
        return 0.0, 1.0
    cut = 0.05 * weights.sum()
    low, high = edge(values, weights, cut), -edge(-values, weights, cut)
    if low == high:
        low, high = values.min(), values.max()
    if low == high:
        half = max(abs(low), 1.0) / 2
        low, high = low - half, high + half
    return low - (high - low) / 2, high + (high - low) / 2


def placed(hashes, key, columns):
    """Categories as numbers from 0 to 1."""
    found = np.empty(hashes.shape)
    for (row, column), hash in np.ndenumerate(hashes):
        bits = int(mix(np.uint64(int(hash) ^ ((key + columns + column) % 2**64))))
        found[row, column] = (bits >> 11) / 2.0**53 if hash else np.nan
    return found


def plain_scores(model, numbers, categories, weights, point, hashes):
    """Scores of rows by trees over a window."""
    forest, total, columns = model._forest, weights.sum(), numbers.shape[1]
    ranges = [range_of(numbers[:, column], weights) for column in range(columns)]
    found = np.zeros(len(point))
    for tree in range(model.n_trees):
        key = int(forest.keys[tree])
        box = []
        for (low, high), s in zip(ranges, forest.shifts[tree], strict=True):
            half = 2.0 * max(s, 1.0 - s)
            box.append((low + (s - half) * (high - low), low + (s + half) * (high - low)))
        box += [(0.0, 1.0)] * categories.shape[1]
        rows = np.column_stack([numbers, placed(categories, key, columns)])
        asked = np.column_stack([point, placed(hashes, key, columns)])

        def descend(inside, asking, box, name, depth, rows=rows, asked=asked, key=key):
            mass = weights[inside].sum()
            if mass <= 0.1 * total or depth == model.depth:
                found[asking] += math.log1p(mass * 2.0**depth)
                return
            bits = int(mix(np.uint64(key ^ name))) >> 32
            column = bits * rows.shape[1] >> 32
            low, high = box[column]
            middle = (low + high) / 2
            value = rows[inside, column]
            known = inside[~np.isnan(value)]
            right = rows[known, column] >= middle
            missing_right = weights[known[right]].sum() > weights[known[~right]].sum()
            for side, space in enumerate(((low, middle), (middle, high))):

                def here(which, table, side=side, missing_right=missing_right):
                    at = table[which, column]
                    goes = np.where(np.isnan(at), missing_right, at >= middle)
                    return which[goes == side]

                child = [*box[:column], space, *box[column + 1 :]]
                descend(here(inside, rows), here(asking, asked), child, 2 * name + side, depth + 1)

        descend(np.arange(len(rows)), np.arange(len(asked)), box, 1, 0)
    return 1.0 - found / (model.n_trees * math.log1p(total * 2.0**model.depth))


@pytest.mark.parametrize("depth", [1, 4, 15])
def test_is_what_it_is_defined_as(depth):
    random = np.random.default_rng(0)
    X = random.normal(size=(900, 5)) * [1.0, 1e6, 1e-6, 1.0, 1.0]
    X[:, 2] = np.where(X[:, 2] > 0.0, 1e-6, 0.0)
    X[random.random(X.shape) < 0.1] = np.nan
    X[:, 3] = random.choice([1.0, 2.0, 3.0, 17.0, np.nan], 900, p=[0.5, 0.3, 0.15, 0.02, 0.03])
    model = HalfSpaceTrees(n_trees=7, depth=depth, window=200, nominal=(3,), seed=4)
    found = model.score_then_learn(X)
    assert (found[:200] == 0.0).all()
    numbers = np.delete(X, 3, axis=1)
    hashes = np.where(np.isnan(X[:, 3]), 0, X[:, 3].view(np.uint64) + np.uint64(1))[:, None]
    for start in (200, 400, 600, 800):
        window, rows = slice(start - 200, start), slice(start, min(start + 200, 900))
        expected = plain_scores(
            model, numbers[window], hashes[window], np.ones(200), numbers[rows], hashes[rows]
        )
        np.testing.assert_allclose(found[rows], expected, rtol=1e-9, atol=1e-9)
    assert np.unique(found[200:].round(9)).size > (5 if depth == 1 else 200)


def test_weights_count():
    X = stream(600)[0]
    weight = np.random.default_rng(0).choice([0.0, 0.25, 1.0, 2.0, 7.0], 600)
    model = HalfSpaceTrees(n_trees=7, window=100, seed=4).fit(X, sample_weight=weight)
    window = []
    for row, left in enumerate(weight.tolist()):
        while left:
            if sum(part for _, part in window) == 100.0:
                full, window = window, []
            part = min(left, 100.0 - sum(part for _, part in window))
            window.append((row, part))
            left -= part
    rows = X[[row for row, _ in full]]
    inside = np.array([part for _, part in full])
    none = np.zeros((len(X), 0), np.uint64)
    expected = plain_scores(model, rows, none[: len(rows)], inside, X, none)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-9, atol=1e-9)


VALUES = st.lists(
    st.tuples(st.integers(-5, 5), st.sampled_from([0.5, 1.0, 3.0])), min_size=1, max_size=40
)


@settings(max_examples=200, deadline=None)
@given(VALUES, st.floats(0.0, 0.5))
def test_the_edge_of_a_window_is_found_by_selection(pairs, share):
    values, weights = (np.array(column, np.float64) for column in zip(*pairs, strict=True))
    cut = share * weights.sum()
    expected = edge(values, weights, cut)
    assert _beyond(values.copy(), weights.copy(), float(cut)) == expected


# --- what it finds -----------------------------------------------------------------------------


@pytest.mark.parametrize("drift", [0.0, 5.0])
def test_finds_more_than_river(drift):
    anomaly = pytest.importorskip("river.anomaly", reason="the peer is not installed")
    from river.preprocessing import MinMaxScaler

    X, odd = stream(5000, seed=1, drift=drift)
    scaler = MinMaxScaler()
    peer = anomaly.HalfSpaceTrees(n_trees=25, height=8, window_size=250, seed=1)
    theirs = np.empty(len(X))
    for k, values in enumerate(X.tolist()):
        row = dict(enumerate(values))
        scaler.learn_one(row)
        row = scaler.transform_one(row)
        theirs[k] = peer.score_one(row)
        peer.learn_one(row)
    for settings_ in ({}, {"depth": 8}):
        ours = HalfSpaceTrees(seed=1, **settings_).score_then_learn(X)
        areas = [roc_auc_score(odd[500:], scores[500:]) for scores in (ours, theirs)]
        assert areas[0] > max(areas[1], 0.93)


def test_single_huge_values_do_no_harm():
    X, odd = stream(6000, drift=0.0)
    spoiled = X.copy()
    huge = np.random.default_rng(0).random(X.shape) < 0.003
    spoiled[huge] = 1e300
    usual = ~huge.any(axis=1)
    usual[:500] = False
    scores = [HalfSpaceTrees().score_then_learn(rows)[usual] for rows in (X, spoiled)]
    areas = [roc_auc_score(odd[usual], found) for found in scores]
    assert areas[1] > areas[0] - 0.01 > 0.94


def test_follows_a_shift_after_two_windows():
    X = stream(3000, drift=0.0)[0]
    X[1500:] += 40.0 * X.std(axis=0)
    scores = HalfSpaceTrees().score_then_learn(X)
    before, after, later = scores[1000:1500].mean(), scores[1500:1600].mean(), scores[2000:].mean()
    assert after > before + 0.3
    assert abs(later - before) < 0.05


def test_scores_are_from_0_to_1_and_rise_with_the_distance():
    X = np.random.default_rng(0).normal(size=(2000, 4))
    model = HalfSpaceTrees().fit(X)
    line = np.outer(np.arange(0.0, 9.0, 1.5), np.ones(4))
    scores = model.score_samples(line)
    assert (np.diff(scores) >= -0.02).all() and scores[-1] > scores[0] + 0.4
    everything = model.predict(np.concatenate([X, 1e9 * X, np.full((1, 4), np.inf)]))
    assert everything.min() >= 0.0 and everything.max() <= 1.0
    assert (model.predict(X) == model.score_samples(X)).all()


def test_rare_and_new_categories_are_unusual():
    random = np.random.default_rng(0)
    kind = random.choice([1.0, 2.0, 3.0], 3000, p=[0.49, 0.5, 0.01])
    model = HalfSpaceTrees(nominal=(0,), n_trees=100).fit(
        np.column_stack([kind, random.normal(size=3000)])
    )
    found = model.predict(np.column_stack([[1.0, 2.0, 3.0, 4.0, 5.0], np.zeros(5)]))
    assert found[:2].max() + 0.1 < found[2:].min()


def test_what_is_missing_is_not_unusual():
    X = stream(2000, drift=0.0)[0]
    model = HalfSpaceTrees().fit(X)
    row = X[1000:1400]
    partly = row.copy()
    partly[:, 2] = np.nan
    assert model.predict(np.full((1, 6), np.nan))[0] < np.median(model.predict(row))
    assert abs(model.predict(partly).mean() - model.predict(row).mean()) < 0.05
    missing = HalfSpaceTrees().fit(np.full((600, 2), np.nan))
    assert np.isfinite(missing.predict([[np.nan, np.nan], [1.0, 2.0]])).all()


def test_a_column_that_is_nearly_constant():
    X = np.zeros((1000, 2))
    X[::50, 0] = np.arange(20) * 1e7
    X[:, 1] = 1e20
    model = HalfSpaceTrees().fit(X)
    found = model.predict([[0.0, 1e20], [1e8, 1e20], [0.0, 3e20]])
    assert found[0] < min(found[1:])


def test_times_are_columns_too():
    rows = 1000
    batch = Batch(
        numbers=np.random.default_rng(0).normal(size=(rows, 3)),
        categories=np.ones((rows, 1), np.uint64),
        times=(np.arange(rows, dtype=np.int64) % 6 * 3_600_000_000)[:, None],
        ids=np.arange(rows, dtype=np.uint64),
    )
    learner = as_learner(HalfSpaceTrees(n_trees=100), COLUMNS, seed=1)
    learner.learn(batch)
    hours = np.array([[3], [18]], np.int64) * 3_600_000_000
    asked = replace(batch.take(slice(2)), numbers=np.zeros((2, 3)), times=hours)
    morning, evening = learner.predict(asked).value
    assert morning + 0.02 < evening
    nowhere = replace(asked, times=np.full((2, 1), NO_TIME))
    assert np.isfinite(learner.predict(nowhere).value).all()


# --- windows -----------------------------------------------------------------------------------


def test_a_window_ends_with_its_weight_or_its_rows():
    X = stream(500)[0]
    for weight, rows in ((1.0, 50), (2.0, 25), (0.1, 50), (50.0, 1), (1e300, 1)):
        model = HalfSpaceTrees(window=50)
        scores = model.score_then_learn(X, sample_weight=np.full(500, weight))
        assert (scores[:rows] == 0.0).all() and (scores[rows:] > 0.0).all()


def test_a_row_of_large_weight_is_in_two_windows():
    X = stream(100)[0]
    model = HalfSpaceTrees(window=50).partial_fit(X[:30])
    once = HalfSpaceTrees(window=50).partial_fit(X[:30])
    model.partial_fit(X[30:31], sample_weight=[27.0])
    once.partial_fit(np.repeat(X[30:31], 27, axis=0))
    assert model._latest.filled.tolist() == [1.0, 7.0]
    assert once._latest.filled.tolist() == [7.0, 7.0]
    np.testing.assert_allclose(model.predict(X), once.predict(X), rtol=1e-12)
    model.partial_fit(X[31:32], sample_weight=[1043.0])  # 43 fill the latest, then 20 windows
    assert (model.predict(X[31:32]) < 0.2).all()
    assert model._latest.filled[1] == 0.0


@pytest.mark.parametrize("limits", [(-10.0, 10.0), [(-10.0, 10.0)] * 6])
def test_limits_take_the_place_of_ranges(limits):
    X = stream(1000, drift=0.0)[0]
    X = np.clip(X / X.std(axis=0), -9.0, 9.0)
    model = HalfSpaceTrees(limits=limits, n_trees=10).fit(X)
    assert (model._ranges == [-10.0, 10.0]).all()
    same = HalfSpaceTrees(limits=(-20.0, 20.0), n_trees=10).fit(2.0 * X)
    np.testing.assert_allclose(model.predict(X), same.predict(2.0 * X), rtol=1e-9)
    assert (model.predict(X) != HalfSpaceTrees(n_trees=10).fit(X).predict(X)).any()


def test_ranges_do_not_depend_on_units():
    X = stream(1000)[0]
    scale, shift = 2.0 ** np.array([0, 10, -10, 3, 5, 7]), np.array([0, 4, -8, 0, 0, 0])
    one, other = HalfSpaceTrees().fit(X), HalfSpaceTrees().fit(X * scale)
    np.testing.assert_allclose(one.predict(X), other.predict(X * scale), rtol=1e-9)
    moved = HalfSpaceTrees().fit(X + shift * X.std(axis=0))
    assert np.mean(np.abs(moved.predict(X + shift * X.std(axis=0)) - one.predict(X)) > 1e-6) < 0.02


def test_merged_is_one_window_of_all_rows():
    X = stream(400, drift=0.0)[0]
    parts = [HalfSpaceTrees(window=100, seed=3).fit(X[k : k + 100]) for k in range(0, 400, 100)]
    whole = HalfSpaceTrees(window=400, seed=3).fit(X)
    merged = parts[0].merge(parts[1:])
    np.testing.assert_allclose(merged.predict(X), whole.predict(X), rtol=1e-12)
    assert merged._learned == 400
    half = [HalfSpaceTrees(window=100, seed=3).fit(X[k : k + 50]) for k in (0, 50)]
    assert half[0].predict(X).max() == 0.0
    full = half[0].merge(half[1:])
    np.testing.assert_allclose(full.predict(X), parts[0].predict(X), rtol=1e-12)
    assert full._latest.filled.tolist() == [0.0, 0.0]
    merged.partial_fit(X[:100])
    np.testing.assert_allclose(merged.predict(X), parts[0].predict(X), rtol=1e-12)


def test_merging_what_does_not_go_together():
    X = stream(400)[0]
    one = HalfSpaceTrees(window=100, seed=3).fit(X)
    for params in ({"window": 50}, {"depth": 5}, {"limits": (-9.0, 9.0)}):
        other = one.clone().set_params(**params).fit(X)
        with pytest.raises(InputError, match="what is merged has other parameters"):
            one.merge([other])
        with pytest.raises(InputError, match="what is merged has other parameters"):
            one.clone().merge([other])
    assert one.merge([one.clone().set_params(seed=4).fit(X)])._learned == 800
    with pytest.raises(InputError, match="different columns"):
        one.merge([one.clone().fit(X[:, :2])])
    names = [f"x{place}" for place in range(X.shape[1])]
    named, other = (one.clone().fit(pd.DataFrame(X, columns=of)) for of in (names, names[::-1]))
    with pytest.raises(InputError, match="different columns"):
        named.merge([other])
    assert one.merge([named]).feature_names_in_.tolist() == names


def test_goes_on_from_a_state_in_any_chunks():
    X = stream(1000)[0]
    X[::7, 2] = np.nan
    digests = set()
    for size in (1, 13, 1000):
        model, answers = HalfSpaceTrees(n_trees=5, window=60, seed=9), []
        for start in range(0, 1000, size):
            answers.append(model.score_then_learn(X[start : start + size]))
            model = HalfSpaceTrees(n_trees=5, window=60, seed=9).load(model.save())
        digests.add((state_digest(model.save()), np.concatenate(answers).tobytes()))
    assert len(digests) == 1


def test_states_that_cannot_be_are_refused():
    X = stream(330)[0]
    model = HalfSpaceTrees().fit(X)
    state = model.save()
    narrow = HalfSpaceTrees().fit(X[:, :2]).save()
    for part in ("reference", "latest"):
        with pytest.raises(InputError, match="other columns"):
            HalfSpaceTrees().load(state | {part: narrow[part]})
    with pytest.raises(InputError, match="the latest window is full"):
        HalfSpaceTrees().load(state | {"latest": state["reference"]})
    with pytest.raises(InputError, match="the latest window is full"):
        HalfSpaceTrees(window=80).load(state)
    arrays = state["latest"].arrays
    for name, wrong in (
        ("filled", np.array([79.0, 80.0])),
        ("filled", np.array([80.0, np.nan])),
        ("filled", np.array([80.0, -1.0])),
        ("weights", np.zeros(80)),
        ("weights", np.full(80, np.nan)),
        ("categories", np.zeros((80, 0))),
    ):
        with pytest.raises(InputError, match=r"other columns|a window of 80 rows"):
            HalfSpaceTrees().load(state | {"latest": Part(arrays | {name: wrong})})


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_trees": 0},
        {"depth": 61},
        {"depth": 2.5},
        {"window": 0},
        {"limits": (1.0, 1.0)},
        {"limits": (0.0, math.nan)},
        {"limits": [(0.0, 1.0)] * 3},
    ],
)
def test_wrong_parameters(wrong):
    with pytest.raises(SpecError, match=f"{next(iter(wrong))}="):
        HalfSpaceTrees(**wrong).fit(np.ones((3, 2)))


# --- in a model --------------------------------------------------------------------------------


def test_in_a_workspace_without_a_target(tmp_path):
    X = stream(4000)[0]
    rows = pd.DataFrame(X, columns=list("abcdef")).assign(kind=["x", "y"] * 2000)
    rows[:2000].to_csv(tmp_path / "one.csv", index=False)
    rows[2000:].to_csv(tmp_path / "two.csv", index=False)
    gate = el.NonInferior("reconstruction_error", margin=0.2)
    with el.open(tmp_path / "workspace") as workspace:
        model = workspace.model(el.Model("odd", learner=HalfSpaceTrees(), gate=gate))
        for name in ("one.csv", "two.csv"):
            decision = model.train(tmp_path / name).decision
            assert decision.action == "promote", decision.reason
        usual = rows.iloc[-1].to_dict()
        strange = dict.fromkeys("abcdef", 1e9) | {"kind": "z"}
        answers = [answer.value for answer in model.predict([usual, strange])]
        assert answers[0] + 0.2 < answers[1] <= 1.0


def test_in_a_fold():
    learned = el.learn(HalfSpaceTrees(), stream(1500)[0])
    assert 0.0 < learned.metrics["reconstruction_error"] < 1.0
    assert learned.predict(np.full((1, 6), 1e9))[0] > 0.7


@pytest.mark.parametrize("label", [np.int64, np.bool_])
def test_scores_stay_scores_where_rows_have_labels(label):
    """A target of whole numbers or booleans is not what is predicted, nor its type."""
    X = stream(1500)[0]
    rows = pd.DataFrame(X, columns=list("abcdef")).assign(odd=(X[:, 0] > 9).astype(label))
    labelled = el.learn(
        el.Model("m", learner=HalfSpaceTrees(), schema=el.Schema(target="odd")), rows
    )
    alone = el.learn(HalfSpaceTrees(), X)
    assert labelled.predict(rows.drop(columns="odd")).tolist() == alone.predict(X).tolist()
