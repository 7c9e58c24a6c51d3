import numpy as np
import pytest

from everlearn.base import SpecError, state_digest
from everlearn.learners import HoeffdingTreeClassifier
from everlearn.learners.native.tree.nodes import BLOCK, CHILD, COLUMN, DEPTH, MASK, NODES


def stream(n, seed=0, k=2, p=5):
    """Rows of p normal columns, and classes told by two or three of them."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, p))
    told = np.where(X[:, 0] > 0, X[:, 1], X[:, 2]) + X[:, 3] + 0.3 * random.normal(size=n)
    return X, np.digitize(told, [0.0, 1.0, 2.0][: k - 1])


def links(learner):
    """The nodes that are in use."""
    return learner._tree.nodes.links[: learner._tree.nodes.used[NODES]]


def size(learner):
    arrays = [part.arrays.values() for part in learner.save().values()]
    return sum(array.nbytes for of_part in arrays for array in of_part)


# --- River ---------------------------------------------------------------------------------------


def rivers(X, y, **params):
    """What River predicts for each row before it learns it, and how many nodes it has then."""
    tree = pytest.importorskip("river.tree", reason="River is what results are compared with")
    learner = tree.HoeffdingTreeClassifier(**params)
    out = []
    for x, label in zip((dict(enumerate(row)) for row in X.tolist()), y.tolist(), strict=True):
        out.append(learner.predict_one(x))
        learner.learn_one(x, label)
    return np.array([-1 if label is None else label for label in out]), learner.n_nodes


@pytest.mark.parametrize("k, split", [(2, "info_gain"), (4, "info_gain"), (3, "gini")])
def test_its_splits_are_rivers(k, split):
    """With the majority class at leaves, which is the same in both. Rounding and ties are not."""
    X, y = stream(6000, k=k)
    params = {"delta": 1e-2, "grace_period": 100, "tau": 0.1}
    theirs, nodes = rivers(X, y, leaf_prediction="mc", split_criterion=split, **params)
    ours = HoeffdingTreeClassifier(k, leaf="mc", split=split, **params)
    answers = ours.score_then_learn(X, y)
    assert abs(len(links(ours)) - nodes) <= 2
    assert nodes > 10
    assert (answers == theirs).mean() > 0.98


def test_it_is_as_good_as_rivers():
    """Naive Bayes at leaves differs in columns in which a class has no variance."""
    X, y = stream(8000, k=3)
    theirs, _ = rivers(X, y, delta=1e-3)
    answers = HoeffdingTreeClassifier(3, delta=1e-3).score_then_learn(X, y)
    assert (answers == y).mean() > (theirs == y).mean() - 0.003
    assert (answers == theirs).mean() > 0.9


# --- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {"grace_period": 0},
        {"grace_period": 1.5},
        {"delta": -0.1},
        {"delta": 2.0},
        {"tau": "much"},
        {"tau": float("nan")},
        {"leaf": "mean"},
        {"split": "entropy"},
        {"n_splits": 0},
        {"max_depth": -1},
        {"max_bytes": 1000},
        {"max_bytes": 0},
    ],
    ids=str,
)
def test_wrong_parameters_are_named(params):
    with pytest.raises(SpecError, match=next(iter(params))):
        HoeffdingTreeClassifier(**params).fit(*stream(10))


def test_leaves_answer_as_they_are_told():
    X, _ = stream(20_000)
    y = (X @ [1.0, 2.0, 1.0, -2.0, 1.0] > 0).astype(int)
    right = {
        leaf: (HoeffdingTreeClassifier(leaf=leaf).score_then_learn(X, y) == y).mean()
        for leaf in ("mc", "nb", "nba")
    }
    assert right["nb"] > right["mc"] + 0.05
    assert right["nba"] > right["mc"] + 0.05
    shares = HoeffdingTreeClassifier(leaf="mc", max_depth=0).fit(X, y).predict_proba(X[:1])
    np.testing.assert_allclose(shares[0], np.bincount(y) / len(y), atol=1e-12)


def test_no_leaf_is_deeper_than_it_may_be():
    X, y = stream(20_000)
    for depth in (0, 1, 3):
        learner = HoeffdingTreeClassifier(max_depth=depth, delta=1e-3).fit(X, y)
        assert links(learner)[:, DEPTH].max() == depth
        assert len(links(learner)) == 2 ** (depth + 1) - 1
    free = HoeffdingTreeClassifier(delta=1e-3).fit(X, y)
    assert links(free)[:, DEPTH].max() > 3


def test_it_waits_for_what_it_is_told_to_wait_for():
    X, y = stream(20_000)
    nodes = [
        len(links(HoeffdingTreeClassifier(**params).fit(X, y)))
        for params in ({"tau": 0.0}, {}, {"delta": 1e-2}, {"delta": 1e-2, "grace_period": 50})
    ]
    assert nodes == sorted(nodes)
    assert nodes[0] < nodes[1] < nodes[3]


def test_columns_that_say_nothing_are_not_split():
    random = np.random.default_rng(0)
    X = np.column_stack([random.normal(size=5000), np.full(5000, 3.0), np.full(5000, np.nan)])
    y = (X[:, 0] > 0).astype(int)
    learner = HoeffdingTreeClassifier().fit(X, y)
    found = links(learner)
    assert set(found[found[:, CHILD] > 0, COLUMN]) == {0}
    alike = HoeffdingTreeClassifier(tau=1.0).fit(X[:, 1:], y)
    assert len(links(alike)) == 1, "not to split is a candidate, even with a bound below tau"


# --- missing values and categories ---------------------------------------------------------------


def test_it_learns_from_rows_with_holes():
    X, y = stream(20_000)
    holes = np.where(np.random.default_rng(1).random(X.shape) < 0.15, np.nan, X)
    whole = (HoeffdingTreeClassifier(delta=1e-3).score_then_learn(X, y) == y)[5000:].mean()
    some = (HoeffdingTreeClassifier(delta=1e-3).score_then_learn(holes, y) == y)[5000:].mean()
    assert whole - 0.1 < some < whole
    nothing = HoeffdingTreeClassifier().fit(np.full((500, 3), np.nan), y[:500])
    share = np.bincount(y[:500])[None] / 500
    np.testing.assert_allclose(nothing.predict_proba(np.full((1, 3), np.nan)), share, atol=1e-12)


def test_numbers_may_be_infinite():
    X, y = stream(3000)
    X[::5, 0] = np.inf
    X[1::5, 0] = -np.inf
    X[2::5, 3] = 1e300
    learner = HoeffdingTreeClassifier(delta=1e-2)
    proba = learner.score_then_learn(X, y, proba=True)
    assert np.isfinite(proba).all()
    assert (proba.argmax(axis=1) == y).mean() > 0.6


def test_categories_of_any_number_of_values_are_split():
    random = np.random.default_rng(0)
    ids = random.integers(0, 40, 20_000)
    X = np.column_stack([random.normal(size=20_000), ids * 1000.0])
    y = (np.where(np.isin(ids, random.permutation(40)[:20]), 1.5, -1.5) + X[:, 0] > 0).astype(int)
    learner = HoeffdingTreeClassifier(nominal=(1,), delta=1e-3, leaf="mc")
    right = learner.score_then_learn(X, y) == y
    as_number = HoeffdingTreeClassifier(delta=1e-3, leaf="mc").score_then_learn(X, y) == y
    assert right[10_000:].mean() > 0.8
    assert right[10_000:].mean() > as_number[10_000:].mean() + 0.03
    found = links(learner)
    assert (found[:, MASK] != 0).any()
    many = np.column_stack([X[:, 0], np.arange(20_000.0)])
    assert size(HoeffdingTreeClassifier(nominal=(1,)).fit(many, y)) < 200_000


def test_naive_bayes_knows_categories():
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 4000)
    chance = random.dirichlet(np.ones(6), (2, 3))
    X = np.array([[random.choice(6, p=chance[label, j]) for j in range(3)] for label in y], float)
    odds = np.prod([chance[1, j, X[:, j].astype(int)] for j in range(3)], axis=0)
    odds /= np.prod([chance[0, j, X[:, j].astype(int)] for j in range(3)], axis=0)
    learner = HoeffdingTreeClassifier(nominal=(0, 1, 2), leaf="nb", max_depth=0)
    proba = learner.fit(X, y).predict_proba(X)[:, 1]
    assert np.abs(proba - odds / (1 + odds)).mean() < 0.02
    strange = learner.predict_proba(np.array([[99.0, 98.0, np.nan]]))
    np.testing.assert_allclose(strange[0], np.bincount(y) / 4000, atol=0.02)


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_bytes", [8_000, 30_000, 100_000])
def test_its_memory_is_bounded(max_bytes):
    X, y = stream(60_000)
    learner = HoeffdingTreeClassifier(delta=1e-2, grace_period=50, max_bytes=max_bytes)
    right = []
    for start in range(0, len(X), 10_000):
        part = slice(start, start + 10_000)
        right.append((learner.score_then_learn(X[part], y[part]) == y[part]).mean())
        tree = learner._tree
        held = [*tree.nodes, *(array for array in tree[1:-1])]
        assert sum(array.nbytes for array in held) <= max_bytes + 64
        assert size(learner) <= max_bytes + 64
    found = links(learner)
    leaves = found[found[:, CHILD] == 0]
    assert (leaves[:, BLOCK] < 0).any(), "the bound was never reached"
    assert (leaves[:, BLOCK] >= 0).any()
    assert right[-1] > 0.75


def test_memory_is_bounded_when_classes_appear():
    X, y = stream(20_000, k=4)
    learner = HoeffdingTreeClassifier(delta=1e-2, grace_period=50, max_bytes=20_000)
    order = np.argsort(y, kind="stable")
    late = np.concatenate([order[y[order] < known][-6000:] for known in (2, 3, 4)])
    learner.fit(X[y < 2], y[y < 2])
    assert size(learner) > 15_000
    before = learner.predict_proba(X[:500])
    learner.partial_fit(X[late], y[late])
    assert size(learner) <= 20_064
    assert learner.classes_.tolist() == [0, 1, 2, 3]
    assert (learner.predict(X) == y).mean() > 0.45
    assert before.shape == (500, 2)
    blocks = links(learner)[:, BLOCK]
    used = np.sort(blocks[blocks >= 0])
    assert used.tolist() == list(range(len(used)))


def test_a_class_that_appears_changes_nothing_else():
    X, y = stream(5000)
    one, other = (HoeffdingTreeClassifier([0, 1]).fit(X, y) for _ in range(2))
    one.partial_fit(X[:1], [7])
    other.partial_fit(X[:1], [7], sample_weight=[0.0])
    before = HoeffdingTreeClassifier([0, 1]).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(other.predict_proba(X)[:, :2], before)
    assert (other.predict_proba(X)[:, 2] == 0.0).all()
    assert (one.predict_proba(X)[:, 2] > 0.0).any()


# --- rows one at a time --------------------------------------------------------------------------


def test_one_row_at_a_time_is_the_same_tree():
    X, y = stream(3000, k=3)
    X[:, 4] = np.floor(X[:, 4] * 3)
    one, all_of_them = (
        HoeffdingTreeClassifier(3, nominal=(4,), delta=0.1, grace_period=60) for _ in range(2)
    )
    rows = [one.learn_one(x, label) for x, label in zip(X, y, strict=True)]
    assert (all_of_them.score_then_learn(X, y) == rows).all()
    assert state_digest(one.save()) == state_digest(all_of_them.save())
    assert len(links(one)) > 5


def test_a_heavy_row_counts_for_many():
    X, y = stream(4000)
    times = np.random.default_rng(0).integers(0, 4, len(X))
    weighted = HoeffdingTreeClassifier(max_depth=0, leaf="nb").fit(X, y, sample_weight=times)
    repeated = HoeffdingTreeClassifier(max_depth=0, leaf="nb")
    repeated.fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-9)
