import doctest
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from everlearn.base import InputError, Part, SpecError, state_digest
from everlearn.learners import BernoulliNB, GaussianNB, MultinomialNB
from everlearn.learners.native import naive_bayes

K = 3


def numbers(rows=600, seed=0):
    """Rows of three classes whose columns have very different units, and their classes."""
    random = np.random.default_rng(seed)
    y = random.integers(0, K, rows)
    X = random.normal(size=(rows, 4)) * [1.0, 1e4, 0.1, 3.0]
    return X + y[:, None] * [0.5, 6e3, 0.05, 0.0], y


def texts(rows=500, words=800, seed=0):
    """Counts of words, most of them rare, some in most rows; every word comes."""
    random = np.random.default_rng(seed)
    y = random.integers(0, K, rows)
    rank = np.minimum(1.0, 3.0 / np.arange(1, words + 1) ** 0.9)
    chance = np.minimum(rank * random.lognormal(0.0, 0.7, (K, words)), 0.97)
    counts = (random.random((rows, words)) < chance[y]) * random.integers(1, 4, (rows, words))
    return counts[:, counts.any(axis=0)].astype(float), y


def with_holes(X, share=0.2, seed=1):
    return np.where(np.random.default_rng(seed).random(X.shape) < share, np.nan, X)


ALL = {
    "gaussian": (lambda: GaussianNB(nominal=(3,)), lambda: with_holes(np.round(numbers()[0], 1))),
    "bernoulli": (
        lambda: BernoulliNB(nominal=(3,)),
        lambda: with_holes(np.round(numbers()[0], 1)),
    ),
    "multinomial": (lambda: MultinomialNB(), lambda: texts(600, 30)[0]),
    "sparse bernoulli": (lambda: BernoulliNB(), lambda: sparse.csr_matrix(texts(600)[0])),
    "sparse multinomial": (lambda: MultinomialNB(), lambda: sparse.csr_matrix(texts(600)[0])),
    "hashed bernoulli": (lambda: BernoulliNB(bits=6), lambda: sparse.csr_matrix(texts(600)[0])),
    "hashed multinomial": (
        lambda: MultinomialNB(bits=6),
        lambda: sparse.csr_matrix(texts(600)[0]),
    ),
}


@pytest.fixture(params=list(ALL))
def case(request):
    make, rows = ALL[request.param]
    X = rows()
    return SimpleNamespace(make=make, X=X, y=numbers()[1])


# --- what others make of the same rows ----------------------------------------------------------


@pytest.mark.parametrize("smoothing", [1e-9, 0.01])
def test_gaussian_is_scikit_learns_where_columns_are_standardised(smoothing):
    from sklearn.naive_bayes import GaussianNB as Peer

    X, y = numbers()
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    peer = Peer(var_smoothing=smoothing).fit(X, y)
    ours = GaussianNB(var_smoothing=smoothing).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), peer.predict_proba(X), atol=1e-9)
    assert (ours.predict(X) == peer.predict(X)).all()


def test_gaussian_is_scikit_learns_without_smoothing_in_any_units():
    from sklearn.naive_bayes import GaussianNB as Peer

    X, y = numbers()
    peer = Peer(var_smoothing=0.0).fit(X, y)
    ours = GaussianNB(var_smoothing=1e-12).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), peer.predict_proba(X), atol=1e-9)


def test_gaussian_smoothing_is_of_each_columns_own_variance():
    X, y = numbers()
    small = GaussianNB(var_smoothing=0.1).fit(X, y).predict_proba(X)
    scale = np.array([1e6, 1e-8, 1.0, 3.0])
    large = GaussianNB(var_smoothing=0.1).fit(X * scale, y).predict_proba(X * scale)
    np.testing.assert_allclose(large, small, atol=1e-9)


def test_gaussian_leaves_missing_values_out():
    X, y = numbers()
    X = with_holes(X)
    ours = GaussianNB(var_smoothing=0.01).fit(X, y).predict_proba(X)
    logs = np.tile(np.log(np.bincount(y) / len(y)), (len(X), 1))
    for c in range(K):
        mean = np.nanmean(X[y == c], axis=0)
        variance = np.nanvar(X[y == c], axis=0) + 0.01 * np.nanvar(X, axis=0)
        terms = -0.5 * np.log(2 * np.pi * variance) - 0.5 * (X - mean) ** 2 / variance
        logs[:, c] += np.nansum(terms, axis=1)
    expected = np.exp(logs - logs.max(axis=1, keepdims=True))
    np.testing.assert_allclose(ours, expected / expected.sum(axis=1, keepdims=True), atol=1e-9)


def test_gaussian_predicts_before_it_learns_as_rivers():
    river = pytest.importorskip("river.naive_bayes", reason="River is the oracle")
    X, y = numbers(400)
    ours = GaussianNB(var_smoothing=1e-12).score_then_learn(X, y)
    peer, answers = river.GaussianNB(), []
    for row, target in zip(X.tolist(), y.tolist(), strict=True):
        answers.append(peer.predict_one(dict(enumerate(row))))
        peer.learn_one(dict(enumerate(row)), target)
    # River floors densities at 1e-9, which tells only in the first rows
    assert np.mean(ours[50:] == np.array(answers[50:])) > 0.99


def test_categories_are_scikit_learns():
    from sklearn.naive_bayes import CategoricalNB

    random = np.random.default_rng(0)
    y = random.integers(0, K, 400)
    X = (random.integers(0, 5, (400, 3)) + y[:, None]).astype(float) % 6
    for learner in (GaussianNB(alpha=0.5, nominal=(0, 1, 2)), BernoulliNB(0.5)):
        learner.set_params(alpha=0.5, nominal=(0, 1, 2), classes=None)
        ours = learner.fit(X, y).predict_proba(X)
        expected = CategoricalNB(alpha=0.5).fit(X, y).predict_proba(X)
        np.testing.assert_allclose(ours, expected, atol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 0.01])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_multinomial_and_bernoulli_are_scikit_learns(form, alpha, weighted):
    from sklearn import naive_bayes as peers

    X, y = texts()
    weight = np.random.default_rng(2).integers(1, 4, len(y)) / 2.0 if weighted else None
    for ours, peer in (
        (MultinomialNB(alpha=alpha), peers.MultinomialNB(alpha=alpha)),
        (BernoulliNB(alpha=alpha), peers.BernoulliNB(alpha=alpha)),
        (
            BernoulliNB(alpha=alpha, binarize=1.0),
            peers.BernoulliNB(alpha=alpha, binarize=1.0),
        ),
    ):
        X = X[:, (X > 1.0).any(axis=0)]
        ours.partial_fit(form(X), y, sample_weight=weight)
        peer.fit(X, y, sample_weight=weight)
        np.testing.assert_allclose(ours.predict_proba(form(X)), peer.predict_proba(X), atol=1e-9)


def test_sparse_rows_are_predicted_before_they_are_learned_as_rivers():
    river = pytest.importorskip("river.naive_bayes", reason="River is the oracle")
    X, y = texts(120, 60)
    for ours, peer in (
        (BernoulliNB(), river.BernoulliNB()),
        (MultinomialNB(), river.MultinomialNB()),
    ):
        answers = ours.score_then_learn(sparse.csr_matrix(X), y, proba=True)
        for i, target in enumerate(y.tolist()):
            row = {j: float(X[i, j]) for j in np.flatnonzero(X[i]).tolist()}
            if i >= 10:
                expected = peer.predict_proba_one(row)
                found = dict(zip(ours.classes_.tolist(), answers[i].tolist(), strict=True))
                # River adds 1e-9 to every probability of its Bernoulli model
                assert found == pytest.approx(expected, abs=1e-6)
            peer.learn_one(row, target)


# --- what must hold whatever is learned ---------------------------------------------------------


def test_chunks_make_no_difference(case):
    whole = case.make()
    answers = whole.score_then_learn(case.X, case.y, proba=True)
    parts, scored, start = case.make().set_params(classes=K), [], 0
    whole = case.make().set_params(classes=K)
    answers = whole.score_then_learn(case.X, case.y, proba=True)
    for stop in (1, 2, 3, 10, 11, 64, 65, 300, 599, 600):
        scored.append(parts.score_then_learn(case.X[start:stop], case.y[start:stop], proba=True))
        start = stop
    assert np.array_equal(np.concatenate(scored), answers)
    assert state_digest(parts.save()) == state_digest(whole.save())


def test_goes_on_bit_equal_after_save_and_load(case):
    first = case.make().partial_fit(case.X[:300], case.y[:300])
    second = case.make().load(first.save())
    assert state_digest(second.save()) == state_digest(first.save())
    for learner in (first, second):
        learner.partial_fit(case.X[300:], case.y[300:])
    assert np.array_equal(first.predict_proba(case.X), second.predict_proba(case.X))
    assert state_digest(second.save()) == state_digest(first.save())


def test_nothing_that_is_over_is_saved():
    """Words that were frequent once left their places in the state, but not in one that was loaded
    in between."""
    X, y = texts(200, 300)
    X = sparse.csr_matrix(X)
    whole, other = BernoulliNB(bits=8).partial_fit(X, y), BernoulliNB(bits=8)
    for start in range(0, 200, 20):
        other.partial_fit(X[start : start + 20], y[start : start + 20])
        other = BernoulliNB(bits=8).load(other.save())
        assert other._state["frequents"].max() > 0
    assert state_digest(other.save()) == state_digest(whole.save())


def test_a_row_of_weight_two_is_that_row_twice(case):
    weight = np.tile([0.0, 1.0, 2.0], 200)
    weighted = case.make().partial_fit(case.X, case.y, sample_weight=weight)
    rows = np.repeat(np.arange(600), weight.astype(int))
    repeated = case.make().partial_fit(case.X[rows], case.y[rows])
    np.testing.assert_allclose(
        weighted.predict_proba(case.X), repeated.predict_proba(case.X), atol=1e-9
    )


def test_what_is_merged_has_learned_the_rows_of_all(case):
    whole = case.make().partial_fit(case.X, case.y)
    parts = [case.make() for _ in range(4)]
    parts[1].partial_fit(case.X[:200], case.y[:200])
    parts[2].partial_fit(case.X[200:201], case.y[200:201])
    parts[3].partial_fit(case.X[201:], case.y[201:])
    merged = parts[0].merge(parts[1:])
    assert (merged.classes_ == whole.classes_).all()
    np.testing.assert_allclose(merged.predict_proba(case.X), whole.predict_proba(case.X), atol=1e-9)
    for learner in (whole, merged):
        learner.partial_fit(case.X, case.y)
    np.testing.assert_allclose(merged.predict_proba(case.X), whole.predict_proba(case.X), atol=1e-9)


def test_classes_meet_by_name_when_merged():
    X, y = numbers()
    names = np.array(["a", "b", "c"])[y]
    first = GaussianNB().partial_fit(X[names != "a"], names[names != "a"])
    second = GaussianNB().partial_fit(X[names == "a"], names[names == "a"])
    merged, whole = second.merge([first]), GaussianNB().partial_fit(X, names)
    assert merged.classes_.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(merged.predict_proba(X), whole.predict_proba(X), atol=1e-9)
    with pytest.raises(InputError, match="other columns"):
        first.merge([GaussianNB().partial_fit(X[:, :2], names)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (GaussianNB(), BernoulliNB()),
        (BernoulliNB(), GaussianNB()),
        (GaussianNB(buckets=8), GaussianNB(buckets=16)),
        (BernoulliNB(), BernoulliNB(binarize=1.0)),
        (GaussianNB(nominal=(0,)), GaussianNB(nominal=(1,))),
        (MultinomialNB(bits=4, nominal=(0,)), MultinomialNB(bits=5, nominal=(0,))),
    ],
)
def test_other_learners_are_not_merged(one, other):
    X, y = numbers(100)
    other.fit(np.abs(X), y)
    for learner in (one.clone(), one.fit(np.abs(X), y)):
        with pytest.raises(InputError, match="other parameters"):
            learner.merge([other])


def test_merged_columns_keep_their_names():
    X, y = numbers(100)
    frame = pd.DataFrame(X, columns=list("abcd"))
    one, two = GaussianNB().fit(frame, y), GaussianNB(classes=3).fit(X, y)
    merged = two.merge([one])
    assert merged.feature_names_in_.tolist() == list("abcd")
    turned = frame[list("dcba")]
    with pytest.raises(InputError, match="in that order"):
        merged.predict(turned)
    with pytest.raises(InputError, match="other columns"):
        one.merge([GaussianNB().fit(turned, y)])


def test_a_class_that_comes_late(case):
    order = np.argsort(case.y, kind="stable")
    learner = case.make()
    answers = learner.score_then_learn(case.X[order], case.y[order], proba=True)
    assert answers.shape == (600, K)
    assert (answers[: np.flatnonzero(case.y[order] == 2)[0], 2] == 0).all()
    together = case.make().set_params(classes=K).partial_fit(case.X[order], case.y[order])
    np.testing.assert_array_equal(learner.predict_proba(case.X), together.predict_proba(case.X))


HARD = {
    "huge": lambda x: x * 1e300,
    "tiny": lambda x: x * 1e-300,
    "infinite": lambda x: np.where(x > 1.0, np.inf, x),
    "missing": lambda x: np.full_like(x, np.nan),
    "constant": lambda x: np.full_like(x, 7.3),
    "huge among small ones": lambda x: np.where(np.arange(len(x))[:, None] == 300, 1e300, x),
}


@pytest.mark.parametrize("change", list(HARD))
@pytest.mark.parametrize("make", [GaussianNB, BernoulliNB, MultinomialNB])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_stays_finite(make, form, change):
    if form is sparse.csr_matrix and make is GaussianNB:
        return
    X, y = numbers()
    X = HARD[change](np.abs(X))
    learner = make(classes=K)
    answers = learner.score_then_learn(form(X), y, proba=True)
    for found in (answers, learner.predict_proba(form(np.abs(numbers()[0])))):
        assert (found >= 0.0).all()
        np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)
    for part in learner.save().values():
        for array in part.arrays.values():
            assert np.isfinite(array).all()


def test_a_number_never_known_in_a_class_is_as_in_all_rows():
    X = np.array([[0.0, 1.0], [1.0, np.nan], [2.0, 3.0], [1.0, np.nan], [1.0, 5.0]])
    learner = GaussianNB().partial_fit(X, [0, 1, 0, 1, 0])
    chances = learner.predict_proba([[1.0, 3.0], [1.0, np.nan]])

    def normal(x, mean, variance):
        return math.exp(-0.5 * (x - mean) ** 2 / variance) / math.sqrt(variance)

    of_all = normal(3.0, 3.0, 8 / 3 * (1 + 1e-9))
    odds = (chances[0] / chances[1]) / np.array([of_all, of_all])
    assert odds[0] == pytest.approx(odds[1], rel=1e-6)


def test_columns_beyond_the_places_share_them():
    X, y = texts(200, 100)
    narrow = sparse.csr_matrix(X)
    far = sparse.csr_matrix(
        (narrow.data, narrow.indices + 10**8, narrow.indptr), shape=(200, 10**9)
    )
    for make in (BernoulliNB, MultinomialNB):
        expected = make().fit(narrow, y).predict_proba(narrow)
        np.testing.assert_allclose(make().fit(far, y).predict_proba(far), expected, atol=1e-6)
        tight = make(bits=4).fit(far, y)
        assert tight.save()["model"].arrays["weights"].shape == (16, K)


@pytest.mark.parametrize(
    "learner",
    [
        GaussianNB(var_smoothing=0.0),
        GaussianNB(buckets=1),
        BernoulliNB(alpha=0.0),
        BernoulliNB(bits=31),
        BernoulliNB(binarize=float("nan")),
        BernoulliNB(binarize=None),
        GaussianNB(var_smoothing="much"),
        MultinomialNB(alpha=None),
        MultinomialNB(alpha=-1.0),
        MultinomialNB(bits=2.5),
    ],
    ids=repr,
)
def test_refuses_parameters(learner):
    name = next(name for name in learner.get_params() if f"{name}=" in repr(learner))
    with pytest.raises(SpecError, match=name):
        learner.fit(np.ones((2, 2)), [0, 1])


def test_refuses_amounts_below_zero_and_learns_nothing():
    learner = MultinomialNB().partial_fit([[1.0, 2.0], [2.0, 0.0]], [0, 1])
    before = state_digest(learner.save())
    with pytest.raises(InputError, match=r"from 0, not -1\.0"):
        learner.partial_fit([[1.0, 2.0], [-1.0, 0.0]], [0, 1])
    assert state_digest(learner.save()) == before
    with pytest.raises(SpecError, match="binarize"):
        BernoulliNB(binarize=-1.0).fit(sparse.csr_matrix(np.eye(2)), [0, 1])


def test_refuses_a_state_of_another_width():
    X, y = texts(50, 40)
    state = MultinomialNB().fit(sparse.csr_matrix(X), y).save()
    with pytest.raises(InputError, match="bits"):
        MultinomialNB(bits=3).load(state)
    state = GaussianNB(buckets=8, nominal=(0,)).fit(X, y).save()
    with pytest.raises(InputError, match="tally"):
        GaussianNB(buckets=9, nominal=(0,)).load(state)


def test_refuses_a_state_that_names_places_that_there_are_not():
    X, y = texts(50, 40)
    learner = BernoulliNB().fit(sparse.csr_matrix(X), y)
    arrays = learner.save()["model"].arrays
    changes = [
        {"frequent": arrays["frequent"] + 2**40},
        {"frequents": arrays["frequents"] + 1000},
        {"frequents": np.zeros_like(arrays["frequents"])},
        {"scale": arrays["scale"][:1]},
        {"seen": np.zeros_like(arrays["seen"])},
        {"weights": np.zeros_like(arrays["weights"])},
    ]
    for change in changes:
        state = learner.save() | {"model": Part(arrays | change)}
        with pytest.raises(InputError, match="state of BernoulliNB is broken"):
            BernoulliNB().load(state)


@pytest.mark.parametrize(("before", "after"), [(1000.0, 1.0), (1.0, 1000.0), (1e6, 1e-3)])
@pytest.mark.parametrize("make", [BernoulliNB, MultinomialNB])
def test_a_state_goes_on_with_another_alpha(make, before, after):
    """Also where nearly all rows have nearly all words, and these were rare beside alpha."""
    X = sparse.csr_matrix((np.random.default_rng(0).random((60, 20)) < 0.95).astype(float))
    y = np.arange(60) % 2
    expected = make(alpha=after).fit(X, y)
    loaded = make(alpha=after).load(make(alpha=before).fit(X, y).save())
    for _ in range(2):
        np.testing.assert_allclose(loaded.predict_proba(X), expected.predict_proba(X), rtol=1e-9)
        loaded.partial_fit(X, y)
        expected.partial_fit(X, y)


def test_goes_on_where_no_word_is_frequent():
    rows = sparse.csr_matrix(np.eye(40))
    learner = BernoulliNB().fit(rows, np.arange(40) % 2)
    other = BernoulliNB().load(learner.save())
    merged = learner.merge([other])
    for one in (learner, other, merged):
        one.partial_fit(rows, np.arange(40) % 2)
    assert (other.predict_proba(rows) == learner.predict_proba(rows)).all()


def test_words_that_weigh_nothing_are_none():
    rows = sparse.csr_matrix(np.full((50, 1), 5e-324))
    learner = MultinomialNB(bits=1).partial_fit(rows, [0, 1] * 25, sample_weight=np.full(50, 0.1))
    assert learner._state["size"][0] == 0


def test_examples():
    result = doctest.testmod(naive_bayes, extraglobs={"np": np})
    assert (result.attempted > 0, result.failed) == (True, 0)
