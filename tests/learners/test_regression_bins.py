"""What a leaf of a regression tree keeps of its columns, and how it is split, against numpy."""

import itertools
import math

import numpy as np
import pytest

from everlearn.learners import HoeffdingTreeRegressor
from everlearn.learners.native.tree.bins import (
    RIDGE,
    add_number,
    best_cut,
    best_mask,
    best_split,
    divide,
)
from everlearn.learners.native.tree.fitting import attempt, observe
from everlearn.learners.native.tree.nodes import BUCKETS, CHILD
from everlearn.learners.native.tree.regression import (
    CENTRE,
    EDGES,
    ERROR,
    MEAN,
    PLACE,
    PRODUCT,
    SQUARE,
    TARGET,
    WEIGHT,
    N,
)

LEAVES = ["mean", "model", "adaptive"]


def begun(**params):
    """The tree of a learner that has seen one row, and its rule."""
    columns = params.pop("columns", 1)
    learner = HoeffdingTreeRegressor(**params)
    learner.predict(np.zeros((1, columns)))
    learner.partial_fit(np.zeros((1, columns)), [0.0], sample_weight=[0.0])
    return learner._tree, learner._rule


def fill(tree, values, z, errors, targets, weights):
    """Let the first block of a tree collect rows of one column of numbers."""
    whole = 0.0
    for value, place, error, target, weight in zip(
        values, z, errors, targets, weights, strict=True
    ):
        whole += weight
        add_number.py_func(tree, 0, 0, value, place, error, target, weight, whole)


def explained(z, errors, weights, leaf, flat=RIDGE):
    """By how much the mean of errors, or a line over z that is kept flat, reduces their sum of
    squares, the penalty included: by solving the normal equations."""
    if leaf == "mean":
        return weights.sum() * np.average(errors, weights=weights) ** 2
    around = np.average(z, weights=weights)
    A = np.column_stack([np.ones(len(z)), z - around])
    normal = (A.T * weights) @ A + np.diag([0.0, flat])
    b = np.linalg.solve(normal, (A.T * weights) @ errors)
    left = (weights * (errors - A @ b) ** 2).sum() + flat * b[1] ** 2
    return (weights * errors**2).sum() - left


def gain_of(right, z, errors, weights, leaf, flat_together):
    """What a division gains over no division."""
    sides = [explained(z[s], errors[s], weights[s], leaf, RIDGE) for s in (right, ~right)]
    return sum(sides) - explained(z, errors, weights, leaf, flat_together)


def sums_of(chosen, z, errors, targets, weights):
    """What `sides` should hold of rows."""
    each = np.ones(len(z)), targets, errors, z, z * z, z * errors
    return [(weights * one)[chosen].sum() for one in each]


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("seed", range(3))
def test_the_best_cut_of_few_values_is_the_best_of_all(seed, leaf):
    random = np.random.default_rng(seed)
    values = random.choice(random.normal(size=EDGES), 300)
    weights = random.choice([0.5, 1.0, 2.0], 300)
    z = 1.7 * values - 0.3
    errors = 2 * np.sin(3 * values) + 2 * values + random.normal(size=300)
    targets = errors + random.normal(size=300)
    tree, rule = begun(leaf=leaf, min_samples_split=20)
    fill(tree, values, z, errors, targets, weights)
    gain, cut = best_cut(tree, rule, 0, 0)
    gains = {
        at: gain_of(values > at, z, errors, weights, leaf, 0.0)
        for at in np.unique(values)
        if min(weights[values <= at].sum(), weights[values > at].sum()) >= 20
    }
    assert cut == max(gains, key=gains.get)
    assert gain == pytest.approx(gains[cut])
    divide(tree, 0, 0, cut, 0)
    rows = z, errors, targets, weights
    expected = [sums_of(values <= cut, *rows), sums_of(values > cut, *rows)]
    np.testing.assert_allclose(tree.desk.sides, expected)


def test_a_line_is_no_reason_to_cut_and_a_bend_is():
    random = np.random.default_rng(0)
    values = random.choice(np.linspace(-1.0, 1.0, EDGES), 400)
    for shape, cuts in (("line", False), ("bend", True), ("jump", True)):
        errors = {"line": 3 * values, "bend": 3 * np.abs(values), "jump": 3.0 * (values > 0)}[shape]
        for leaf in LEAVES:
            tree, rule = begun(leaf=leaf)
            fill(tree, values, values / values.std(), errors, errors, np.ones(400))
            gain, cut = best_cut(tree, rule, 0, 0)
            assert (gain > 1.0) == (cuts or leaf == "mean"), (shape, leaf)
            if shape == "jump":
                assert abs(cut) < 0.1


@pytest.mark.parametrize("leaf", ["mean", "model"])
@pytest.mark.parametrize("shape", ["normal", "cauchy", "whole", "drifting", "jumping"])
def test_edges_follow_the_values(shape, leaf):
    random = np.random.default_rng(1)
    values = {
        "normal": random.normal(size=6000),
        "cauchy": random.standard_cauchy(6000),
        "whole": np.floor(random.exponential(30, 6000)),
        "drifting": random.normal(size=6000) + np.arange(6000) / 1000,
        "jumping": random.normal(size=6000) + 100.0 * (np.arange(6000) > 1000),
    }[shape]
    z = np.clip((values - values.mean()) / values.std(), -10, 10)
    errors = (values > np.median(values)) + random.normal(size=6000)
    targets, weights = 2.0 * errors, np.ones(6000)
    tree, rule = begun(leaf=leaf)
    fill(tree, values, z, errors, targets, weights)
    gain, _ = best_cut(tree, rule, 0, 0)
    cuts = np.unique(np.quantile(values, np.arange(1, 100) / 100))[:-1]
    best = max(gain_of(values > at, z, errors, weights, leaf, 0.0) for at in cuts)
    assert (0.85 if leaf == "mean" else 0.65) * best < gain < 1.15 * best
    size = tree.sizes[0, 0]
    assert (np.diff(tree.edges[0, 0, :size]) > 0).all()
    held = tree.bins[0, 0]
    expected = sums_of(np.ones(6000, bool), z, errors, targets, weights)
    np.testing.assert_allclose(held.sum(axis=0), expected, rtol=1e-9, atol=1e-6)
    assert (held[size + 1 :] == 0).all()


def categories(seed, leaf, n=120, buckets=7):
    """A tree that has collected rows of one nominal column; and where each row fell, with what it
    collected of it."""
    random = np.random.default_rng(seed)
    learner = HoeffdingTreeRegressor(leaf=leaf, nominal=(0,), min_samples_split=6)
    learner.partial_fit(np.zeros((1, 1)), [0.0], sample_weight=[0.0])
    tree, rule = learner._tree, learner._rule
    fell = random.choice(random.choice(BUCKETS, buckets, replace=False), n)
    weights = random.choice([0.5, 1.0, 2.0], n)
    errors = random.normal(size=BUCKETS)[fell] + random.normal(size=n)
    said = 5.0 * random.normal(size=n) * (leaf != "mean")
    errors += random.normal(size=BUCKETS)[fell] * said
    targets = said + errors
    for b, error, target, weight in zip(fell, errors, targets, weights, strict=True):
        observe.py_func(tree, 0, 0, np.array([b]), np.empty(0), error, target, weight)
    return tree, rule, fell, (said, errors, targets, weights)


def divisions(fell):
    """All ways to send some buckets right, as sets."""
    known = np.unique(fell).tolist()
    for n in range(1, len(known)):
        yield from (frozenset(right) for right in itertools.combinations(known, n))


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("seed", range(4))
def test_the_best_division_of_categories(seed, leaf):
    """By means it is the best of all; by lines the best in the order of means or of slopes."""
    tree, rule, fell, rows = categories(seed, leaf)
    said, errors, _, weights = rows
    flat = RIDGE * np.cov(said, aweights=weights, ddof=0) if leaf != "mean" else 1.0
    scaled = said / math.sqrt(flat / RIDGE)  # so that RIDGE is what keeps lines flat
    gains = {}
    for right in divisions(fell):
        to_right = np.isin(fell, list(right))
        if min(weights[to_right].sum(), weights[~to_right].sum()) >= 6:
            gains[right] = gain_of(to_right, scaled, errors, weights, leaf, RIDGE)
    if leaf != "mean":
        known, orders = np.unique(fell), []
        mean = [np.average(errors[fell == b], weights=weights[fell == b]) for b in known]
        slope = [slope_of(*(one[fell == b] for one in (scaled, errors, weights))) for b in known]
        for by in (mean, slope):
            order = known[np.argsort(by)].tolist()
            orders += [frozenset(order[i:]) for i in range(1, len(order))]
        gains = {right: gain for right, gain in gains.items() if right in orders}
    gain, mask = best_mask(tree, rule, 0, 0)
    assert gain == pytest.approx(max(gains.values()))
    right = frozenset(b for b in np.unique(fell).tolist() if (int(mask) >> b) & 1)
    assert gains[right] == pytest.approx(gain)
    divide(tree, 0, tree.sizes.shape[1], 0.0, mask)
    to_right = np.isin(fell, list(right))
    expected = [sums_of(~to_right, *rows), sums_of(to_right, *rows)]
    np.testing.assert_allclose(tree.desk.sides, expected, atol=1e-9)


def slope_of(z, errors, weights):
    """How errors grow with z, by a line that is kept flat."""
    apart = z - np.average(z, weights=weights)
    return (weights * apart * errors).sum() / ((weights * apart * apart).sum() + RIDGE)


@pytest.mark.parametrize("nominal", [False, True])
def test_leaves_of_a_split_begin_with_the_model_and_the_line_over_its_errors(nominal):
    """A column of numbers bends the model along itself, a category what the model said."""
    random = np.random.default_rng(3)
    learner = HoeffdingTreeRegressor(leaf="model", nominal=(2,), grace_period=10**6)
    X = np.column_stack([random.normal(size=(500, 2)), random.integers(0, 2, 500)])
    learner.partial_fit(X, X[:, 0] + np.where(X[:, 2 * nominal] > 0, 2 + X[:, 0], 0.0))
    tree, rule = learner._tree, learner._rule
    model, centre = tree.models[0].copy(), tree.tallies[0, CENTRE]
    gain, _, slot, cut, mask = best_split(tree, rule, 0)
    assert gain > 0 and slot == 2 * nominal
    divide(tree, 0, slot, cut, mask)
    sides = tree.desk.sides.copy()
    together = sides.sum(axis=0) / sides[:, WEIGHT].sum()
    flat = RIDGE * (together[SQUARE] - together[PLACE] ** 2 if nominal else 1.0)
    attempt(tree, rule, 0, 0)
    left = tree.nodes.links[0, CHILD]
    assert left > 0
    for side, held in enumerate(sides / sides[:, [WEIGHT]]):
        spread = held[SQUARE] - held[PLACE] ** 2 + flat / sides[side, WEIGHT]
        steep = (held[PRODUCT] - held[PLACE] * held[ERROR]) / spread
        z = random.normal(size=(5, 2))
        said = z @ model[:2] + model[2]
        along = said - centre if nominal else z[:, 0]
        expected = said + held[ERROR] + steep * (along - held[PLACE])
        child = tree.models[left + side]
        np.testing.assert_allclose(z @ child[:2] + child[2], expected)
        assert tree.values[left + side, MEAN] == pytest.approx(centre + held[TARGET])
        assert tree.values[left + side, N] == sides[side, WEIGHT]
