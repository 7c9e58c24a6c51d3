"""Linear models against the algorithms spelled out in Python, and against River's."""

import doctest
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from everlearn.base import Batch, Columns, InputError, SpecError, state_digest
from everlearn.learners import as_learner
from everlearn.learners.native import linear
from everlearn.learners.native.linear import LinearRegression, LinearSVM, LogisticRegression

ELECTRICITY = Path(__file__).resolve().parents[3] / "shared" / "data" / "electricity.csv"


def test_examples():
    result = doctest.testmod(linear, extraglobs={"np": np})
    assert result.attempted > 0 and result.failed == 0


def stream(n=600, p=4, seed=0, noise=1.0):
    """(n, p) numbers of different offsets and scales, and (n,) scores that follow from them."""
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(n, p))
    score = z @ np.linspace(-1.5, 1.5, p) + noise * generator.normal(size=n)
    return z * 10.0 ** np.arange(-1, p - 1) + np.arange(p) * 3.0, score


def with_gaps(X, share=0.1, seed=0):
    X = X.copy()
    X[np.random.default_rng(seed).random(X.shape) < share] = np.nan
    return X


class Spelled:
    """One score, learned as the docstrings say, number by number: columns, then one for each number
    that is 1 where it is missing, then the intercept. Penalties shrink all weights in every row."""

    def __init__(self, p, loss="logistic", optimizer="sgd", rate=0.05, power=0.0, **options):
        self.p, self.loss, self.optimizer, self.rate, self.power = p, loss, optimizer, rate, power
        self.l1, self.l2 = options.get("l1", 0.0), options.get("l2", 0.0)
        self.standardize, self.clip = options.get("standardize", True), options.get("clip", 10.0)
        self.seen, self.mean, self.spread = [0.0] * p, [0.0] * p, [0.0] * p
        self.w, self.a, self.b = ([0.0] * (2 * p + 1) for _ in range(3))
        self.rows, self.moments, self.offset = 0, (0.0, 0.0, 0.0), 0.0

    def columns(self, x):
        """(2 p + 1) values: 0 for a number that is missing."""
        z, missing = [], []
        for j, value in enumerate(x):
            gap = math.isnan(value)
            missing.append(float(gap))
            if gap:
                z.append(0.0)
            elif not self.standardize:
                z.append(value)
            else:
                variance = self.spread[j] / self.seen[j] if self.seen[j] else 0.0
                scaled = (value - self.mean[j]) / math.sqrt(variance) if variance > 0 else 0.0
                z.append(max(-self.clip, min(self.clip, scaled)))
        return [*z, *missing, 1.0]

    def score(self, x):
        return self.offset + sum(w * z for w, z in zip(self.w, self.columns(x), strict=True))

    def learn(self, x, y, weight=1.0):
        """Learn a row; returns the score before."""
        z, before, unit = self.columns(x), self.score(x), 1.0
        score = before
        if self.loss == "squared":
            if self.rows == 0:
                self.offset = y
                score += y
            total, mean, spread = self.moments
            apart = y - mean
            mean += weight / (total + weight) * apart
            spread += weight * apart * (y - mean)
            self.moments = (total + weight, mean, spread)
            unit = math.sqrt(spread / (total + weight)) if spread > 0.0 else 1.0
        self.rows += 1
        rate = self.rate / self.rows**self.power
        pull = self.pull(score, y, weight, unit, rate * sum(value * value for value in z))
        if self.optimizer == "adam":
            rate *= math.sqrt(1 - 0.999**self.rows) / (1 - 0.9**self.rows)
        for j, value in enumerate(z):
            if not self.p <= j < 2 * self.p or value:
                self.step(j, pull * value, rate, unit)
        if self.optimizer != "ftrl":
            for j in range(2 * self.p):
                self.shrink(j, weight * self.rate / self.rows**self.power, unit)
        if self.standardize:
            self.update_moments(x, weight)
        return before

    def pull(self, score, y, weight, unit, length):
        if self.optimizer != "sgd":
            length = 0.0
        if self.loss == "hinge":
            sign = 2 * y - 1
            return -sign * weight if sign * score < 1 else 0.0
        bend = 0.25 if self.loss == "logistic" else 1.0
        slope = 1 / (1 + math.exp(-score)) - y if self.loss == "logistic" else (score - y) / unit
        return min(weight, 1 / (bend * length) if length else math.inf) * slope

    def step(self, j, g, rate, unit):
        if self.optimizer == "sgd":
            self.w[j] -= rate * unit * g
        elif self.optimizer == "adagrad":
            self.a[j] += g * g
            self.w[j] -= rate * unit * g / math.sqrt(self.a[j] + 1e-8)
        elif self.optimizer == "adam":
            self.a[j] = 0.9 * self.a[j] + 0.1 * g
            self.b[j] = 0.999 * self.b[j] + 0.001 * g * g
            self.w[j] -= rate * unit * self.a[j] / (math.sqrt(self.b[j]) + 1e-8)
        else:
            total = self.b[j] + g * g
            self.a[j] += unit * g - (math.sqrt(total) - math.sqrt(self.b[j])) / rate * self.w[j]
            self.b[j] = total
            l1, l2 = (0.0, 0.0) if j == 2 * self.p else (unit * self.l1, self.l2)
            excess = max(0.0, abs(self.a[j]) - l1)
            self.w[j] = -math.copysign(excess, self.a[j]) / ((1 + math.sqrt(total)) / rate + l2)

    def shrink(self, j, time, unit):
        if self.optimizer == "adagrad":
            time /= math.sqrt(self.a[j] + 1e-8)
        decay = math.exp(-self.l2 * time)
        fall = self.l1 * unit * (time if self.l2 == 0.0 else (1 - decay) / self.l2)
        self.w[j] = math.copysign(max(0.0, abs(self.w[j]) * decay - fall), self.w[j])

    def update_moments(self, x, weight):
        for j, value in enumerate(x):
            if math.isnan(value):
                continue
            self.seen[j] += weight
            apart = value - self.mean[j]
            self.mean[j] += weight / self.seen[j] * apart
            self.spread[j] += weight * apart * (value - self.mean[j])


SETTINGS = [
    {"optimizer": "sgd", "learning_rate": 0.05},
    {"optimizer": "sgd", "learning_rate": 0.3, "power": 0.5},
    {"optimizer": "sgd", "learning_rate": 0.2, "power": 0.25, "l2": 0.05},
    {"optimizer": "sgd", "learning_rate": 0.05, "l1": 0.05},
    {"optimizer": "sgd", "learning_rate": 0.05, "l1": 0.02, "l2": 0.1, "clip": 1.5},
    {"optimizer": "adagrad", "learning_rate": 0.3},
    {"optimizer": "adagrad", "learning_rate": 0.3, "l1": 0.01, "l2": 0.1},
    {"optimizer": "adam", "learning_rate": 0.02},
    {"optimizer": "adam", "learning_rate": 0.02, "l2": 0.1},
    {"optimizer": "ftrl", "learning_rate": 0.3},
    {"optimizer": "ftrl", "learning_rate": 0.3, "l1": 0.5, "l2": 1.0},
]


def spelled(p, loss, params):
    """The same model, spelled out."""
    names = {"learning_rate": "rate"}
    return Spelled(p, loss, **{names.get(key, key): value for key, value in params.items()})


@pytest.mark.parametrize("params", SETTINGS, ids=str)
@pytest.mark.parametrize("gaps", [False, True])
def test_logistic_regression_is_what_it_says(params, gaps):
    X, score = stream()
    X = with_gaps(X) if gaps else X
    y, weight = (score > 0.0).astype(int), np.random.default_rng(1).choice([0.5, 1.0, 3.0], len(X))
    model, other = LogisticRegression(2, **params), spelled(4, "logistic", params)
    expected = [other.learn(x, c, w) for x, c, w in zip(X.tolist(), y, weight, strict=True)]
    answer = model.score_then_learn(X, y, weight, proba=True)[:, 1]
    np.testing.assert_allclose(answer, 1 / (1 + np.exp(-np.array(expected))), rtol=1e-8, atol=1e-10)
    late = [other.score(x) for x in X[:50].tolist()]
    np.testing.assert_allclose(model.decision_function(X[:50]), late, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("params", SETTINGS, ids=str)
def test_linear_regression_is_what_it_says(params):
    X, score = stream()
    X = X if "l1" in params else with_gaps(X)
    y = 1e4 * score + 5e5
    model = LinearRegression(invariant=False, **params)
    other = spelled(4, "squared", params)
    expected = [other.learn(x, value) for x, value in zip(X.tolist(), y, strict=True)]
    np.testing.assert_allclose(model.score_then_learn(X, y), expected, rtol=1e-8, atol=1e-3)


def test_a_support_vector_machine_is_what_it_says():
    X, score = stream()
    params = {"learning_rate": 0.05, "l2": 0.01}
    model, other = LinearSVM(2, invariant=False, **params), spelled(4, "hinge", params)
    y = (score > 0.0).astype(int)
    for x, c in zip(X.tolist(), y, strict=True):
        other.learn(x, c)
    expected = [other.score(x) for x in X[:50].tolist()]
    np.testing.assert_allclose(model.fit(X, y).decision_function(X[:50]), expected, rtol=1e-8)


# --- River --------------------------------------------------------------------------------------


def river_scores(optimizer, rows, labels, **params):
    """What River's logistic regression answers before each row; the intercept is a column."""
    linear_model = pytest.importorskip("river.linear_model", reason="River is the oracle")
    model = linear_model.LogisticRegression(optimizer, intercept_lr=0.0, **params)
    answers = []
    for row, label in zip(rows.tolist(), labels, strict=True):
        x = dict(enumerate([*row, 1.0]))
        answers.append(model.predict_proba_one(x)[True])
        model.learn_one(x, bool(label))
    return answers


@pytest.mark.parametrize(("name", "rate"), [("SGD", 0.01), ("AdaGrad", 0.1), ("Adam", 0.01)])
def test_optimizers_are_rivers(name, rate):
    optim = pytest.importorskip("river.optim", reason="River is the oracle")
    X, score = stream()
    X, y = X / X.std(axis=0), (score > 0.0).astype(int)
    model = LogisticRegression(2, optimizer=name.lower(), learning_rate=rate, standardize=False)
    answers = model.score_then_learn(X, y, proba=True)[:, 1]
    expected = river_scores(getattr(optim, name)(rate), X, y)
    np.testing.assert_allclose(answers, expected, rtol=1e-9, atol=1e-12)


def test_accuracy_on_elec2_is_rivers():
    if not ELECTRICITY.exists():
        pytest.skip(f"{ELECTRICITY} is absent")
    pytest.importorskip("river", reason="River is the oracle")
    from river import linear_model, optim, preprocessing

    table = np.loadtxt(ELECTRICITY, delimiter=",", skiprows=1, max_rows=20_000)
    X, y = np.ascontiguousarray(table[:, :-1]), table[:, -1].astype(int)
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.01))
    right = 0
    for row, label in zip(X.tolist(), y.tolist(), strict=True):
        x = dict(enumerate(row))
        right += model.predict_one(x) == bool(label)
        model.learn_one(x, bool(label))
    ours = LogisticRegression(learning_rate=0.01).score_then_learn(X, y)
    assert (ours == y).mean() == pytest.approx(right / len(y), abs=0.001)


# --- sparse rows --------------------------------------------------------------------------------


def sparse_stream(n=500, p=32, seed=0):
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(n, p)) * (generator.random((n, p)) < 0.15)
    score = X @ generator.normal(size=p) * 2
    return X, (score > 0.0).astype(int), score


@pytest.mark.parametrize("params", [one for one in SETTINGS if one["optimizer"] != "adam"], ids=str)
def test_sparse_rows_are_dense_rows(params):
    """Penalties of hashed columns are caught up with: nothing of them is lost or gained."""
    X, y, _ = sparse_stream()
    params = params | {"standardize": False, "bits": 5}
    dense, sparse = LogisticRegression(2, **params), LogisticRegression(2, **params)
    answers = dense.score_then_learn(X, y, proba=True)
    np.testing.assert_allclose(
        sparse.score_then_learn(csr_matrix(X), y, proba=True), answers, rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(sparse.coef_, dense.coef_, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(sparse.intercept_, dense.intercept_, rtol=1e-8)
    assert sparse.coef_.shape == (1, 32)


def test_penalties_make_zeros():
    X, _, _ = sparse_stream(4000)
    y = (X[:, :6] @ [3.0, -3.0, 3.0, -3.0, 3.0, -3.0] + 0.3 * X[:, 6] > 0.0).astype(int)
    for optimizer, l1 in (("sgd", 0.02), ("adagrad", 0.02), ("ftrl", 10.0)):
        plain = LogisticRegression(bits=5, optimizer=optimizer).fit(csr_matrix(X), y)
        held = LogisticRegression(bits=5, optimizer=optimizer, l1=l1).fit(csr_matrix(X), y)
        assert (plain.coef_ == 0.0).sum() == 0
        assert (held.coef_ == 0.0).sum() >= 4
        assert np.abs(held.coef_[0, 7:]).sum() < 0.7 * np.abs(plain.coef_[0, 7:]).sum()
        assert (held.coef_[0, :6] != 0.0).all()
        shrunk = LogisticRegression(bits=5, optimizer=optimizer, l2=1.0).fit(csr_matrix(X), y)
        assert 0.0 < np.abs(shrunk.coef_).sum() < np.abs(plain.coef_).sum()


def test_millions_of_columns():
    generator = np.random.default_rng(0)
    told = generator.integers(0, 5_000_000, 40)
    n = 3000
    which = generator.integers(0, 40, n)
    places = np.column_stack([told[which], generator.integers(0, 5_000_000, (n, 10))])
    X = csr_matrix((np.ones(places.size), places.ravel(), np.arange(n + 1) * 11), (n, 5_000_000))
    y = which % 2
    model = LogisticRegression(bits=16, optimizer="adagrad")
    answers = model.score_then_learn(X, y)
    assert (answers == y)[2000:].mean() > 0.95
    assert model.coef_.shape == (1, 2**16)
    assert sum(array.nbytes for array in model.save()["model"].arrays.values()) < 32 * 2**16


def test_missing_entries_of_sparse_rows_are_left_out():
    X, y, _ = sparse_stream()
    model, other = LogisticRegression(bits=5), LogisticRegression(bits=5)
    gaps = csr_matrix(X)
    gone = np.random.default_rng(0).random(gaps.nnz) < 0.3
    gaps.data[gone] = np.nan
    kept = csr_matrix(X)
    kept.data[gone] = 0.0
    kept.eliminate_zeros()
    assert state_digest(model.fit(gaps, y).save()) == state_digest(other.fit(kept, y).save())


def test_categories_are_told_apart_by_column():
    generator = np.random.default_rng(0)
    X = generator.integers(0, 3, (4000, 2)).astype(float)
    y = np.where(X[:, 0] == 1, "a", np.where(X[:, 1] == 1, "b", "a"))
    model = LogisticRegression(nominal=(0, 1), bits=10).fit(X, y)
    cases = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [2.0, 1.0], [0.0, 0.0]])
    assert model.predict(cases).tolist() == ["a", "a", "b", "b", "a"]


# --- what rows do -------------------------------------------------------------------------------


def test_of_weights_only_the_sum_counts():
    """With the invariant step, and nothing else that moves."""
    X, score = stream()
    X = X / X.std(axis=0)
    y = (score > 0.0).astype(int)
    parts = np.random.default_rng(0).dirichlet(np.ones(3), len(X)) * 2.0
    params = {"learning_rate": 0.1, "standardize": False, "invariant": True}
    for make, target in (
        (lambda: LogisticRegression(2, **params), y),
        (lambda: LinearSVM(2, **params), y),
        (lambda: LinearRegression(**params), score),
        (lambda: LinearRegression("poisson", **params), np.round(np.exp(0.5 * score))),
    ):
        once = make().partial_fit(X, target, sample_weight=np.full(len(X), 2.0))
        split = make().partial_fit(
            np.repeat(X, 3, axis=0), np.repeat(target, 3), sample_weight=parts.ravel()
        )
        np.testing.assert_allclose(once.coef_, split.coef_, rtol=1e-8)
        np.testing.assert_allclose(once.intercept_, split.intercept_, rtol=1e-8)


MODELS = {
    "logistic": lambda: LogisticRegression(),
    "invariant": lambda: LogisticRegression(invariant=True),
    "adagrad": lambda: LogisticRegression(optimizer="adagrad", l1=0.01),
    "svm": lambda: LinearSVM(),
    "squared": lambda: LinearRegression(),
    "huber": lambda: LinearRegression("huber"),
    "quantile": lambda: LinearRegression("quantile", quantile=0.9),
    "poisson": lambda: LinearRegression("poisson"),
    "ftrl": lambda: LinearRegression(optimizer="ftrl"),
}


@pytest.mark.parametrize("key", MODELS)
def test_one_row_at_a_time_is_all_rows(key):
    X, score = stream(300)
    X = with_gaps(X)
    one, all_rows = MODELS[key](), MODELS[key]()
    y = score
    if one.kind == "classifier":
        y = np.where(score > 0.0, "yes", "no")
    elif key == "poisson":
        y = np.floor(np.exp(score))
    answers = [one.learn_one(x, label) for x, label in zip(X, y.tolist(), strict=True)]
    np.testing.assert_array_equal(answers, all_rows.score_then_learn(X, y))
    assert state_digest(one.save()) == state_digest(all_rows.save())


def test_one_row_may_be_of_any_kind():
    X, score = stream(40)
    model, other = LogisticRegression(), LogisticRegression()
    y = (score > 0.0).astype(int)
    for count, (x, label) in enumerate(zip(X, y, strict=True)):
        other.partial_fit(x[None], [label])
        row = [x, x.tolist(), x.astype(np.float32).astype(float), np.tile(x, (2, 1)).T[:, 0]]
        if count == 5:
            x.flags.writeable = False
        model.learn_one(row[count % 4] if count % 4 != 2 else x, label)
    assert state_digest(model.save()) == state_digest(other.save())
    with pytest.raises(InputError):
        model.learn_one(X[0][:3], 1)
    with pytest.raises(InputError):
        LinearRegression("poisson").partial_fit(X, np.exp(score)).learn_one(X[0].copy(), -1.0)
    assert model.learn_one(X[0], 7) in (0, 1)
    assert model.classes_.tolist() == [0, 1, 7]


def test_that_a_number_is_missing_may_say_something():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(3000, 2))
    y = generator.integers(0, 2, 3000)
    X[(y == 1) & (generator.random(3000) < 0.8), 0] = np.nan
    model = LogisticRegression()
    assert (model.score_then_learn(X, y) == y)[1000:].mean() > 0.85
    assert model.predict([[np.nan, 0.0], [0.0, 0.0]]).tolist() == [1, 0]


def test_a_late_class_changes_nothing_of_the_others():
    X, score = stream(1000)
    y = np.where(score > 0.0, "b", "a")
    for params in ({}, {"optimizer": "adagrad"}, {"optimizer": "ftrl", "l1": 0.1}):
        model = LogisticRegression(**params).fit(X, y)
        before = model.predict_proba(X)
        model.partial_fit(X[:1], ["c"], sample_weight=[1e-13])
        after = model.predict_proba(X)
        np.testing.assert_allclose(after[:, 1] / after[:, 0], before[:, 1] / before[:, 0], 1e-6)
        assert after[:, 2].max() < 0.34
        third = np.where(X[:, 3] > 9.0, "c", y)
        for _ in range(3):
            model.partial_fit(X, third)
        assert (model.predict(X) == third).mean() > 0.8


def test_softmax_learns_regions():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(6000, 2))
    y = np.argmax(X @ np.array([[2.0, -1.0, -1.0], [0.0, 1.7, -1.7]]), axis=1)
    for model in (
        LogisticRegression(),
        LogisticRegression(optimizer="adagrad"),
        LogisticRegression(optimizer="ftrl"),
        LogisticRegression(optimizer="adam"),
        LinearSVM(),
    ):
        assert (model.score_then_learn(X, y) == y)[2000:].mean() > 0.95
    rest = LogisticRegression(3, learning_rate=0.5, standardize=False, invariant=True)
    assert (rest.fit(X, y, np.full(6000, 5.0)).predict(X) == y).mean() > 0.95


# --- targets ------------------------------------------------------------------------------------


def test_predictions_do_not_move_when_the_target_does():
    X, score = stream()
    for params in ({"invariant": False}, {}, {"optimizer": "adagrad"}, {"optimizer": "ftrl"}):
        model = LinearRegression(learning_rate=1e-9, **params).fit(X, score)
        before = model.predict(X)
        model.partial_fit(X[:200], score[:200] * 10.0)
        np.testing.assert_allclose(model.predict(X), before, atol=1e-4)


@pytest.mark.parametrize("width", [2, 20, 200])
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1e6, 1.0), (-3.0, 1e9), (0.0, 1e-9)])
def test_any_scale_of_columns_and_target(width, offset, scale):
    generator = np.random.default_rng(width)
    z = generator.normal(size=(10_000, width))
    y = z @ generator.normal(size=width)
    y = offset + scale * (y / y.std() + 0.3 * generator.normal(size=len(y)))
    far = np.exp(generator.normal(size=width) * 5)
    errors = (LinearRegression().score_then_learn(z * far + 100 * far, y) - y)[5000:]
    assert 1 - np.mean(errors**2) / np.var(y[5000:]) > 0.85


@pytest.mark.parametrize("loss", ["squared", "huber", "quantile", "poisson"])
@pytest.mark.parametrize("rate", [1.0, 100.0, 1e6])
@pytest.mark.parametrize("invariant", [False, True])
def test_no_rate_is_too_high(loss, rate, invariant):
    generator = np.random.default_rng(0)
    X, y = generator.standard_cauchy((3000, 10)), np.abs(generator.standard_cauchy(3000)) * 1e3
    for standardize in (False, True):
        model = LinearRegression(
            loss, learning_rate=rate, invariant=invariant, standardize=standardize
        )
        answers = model.score_then_learn(X, y)
        assert np.isfinite(answers).all() and np.isfinite(model.coef_).all()


@pytest.mark.parametrize("loss", ["squared", "huber", "quantile", "poisson"])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam", "ftrl"])
def test_stays_finite_whatever_rows_weigh(loss, optimizer):
    """After a heavy row, light ones leave a variance of the target too small for a number."""
    weight = [1e50, 1e-300, 0.3, 1e50, 1e-300]
    for seed in (36, 145, 213):
        generator = np.random.default_rng(seed)
        X, y = generator.normal(size=(5, 3)), generator.normal(size=5)
        y = np.abs(y) if loss == "poisson" else y
        model = LinearRegression(loss, optimizer=optimizer)
        assert np.isfinite(model.score_then_learn(X, y, weight)).all()
        assert np.isfinite(model.predict(X)).all()


def test_quantiles_cover():
    X, score = stream(20_000)
    for quantile in (0.1, 0.5, 0.9):
        model = LinearRegression("quantile", quantile=quantile)
        below = (score < model.score_then_learn(X, score))[5000:].mean()
        assert below == pytest.approx(quantile, abs=0.03)


def test_counts():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(20_000, 3))
    mean = np.exp(X @ [0.5, -0.8, 0.2] + 3.0)
    model = LinearRegression("poisson")
    answers = model.score_then_learn(X, generator.poisson(mean).astype(float))[5000:]
    assert (answers > 0.0).all()
    assert np.corrcoef(answers, mean[5000:])[0, 1] > 0.97
    np.testing.assert_allclose(model.coef_, [0.5, -0.8, 0.2], atol=0.06)
    np.testing.assert_allclose(model.intercept_, [3.0], atol=0.06)
    with pytest.raises(InputError, match="from 0, not -1"):
        model.partial_fit(X[:2], [1.0, -1.0])


def test_outliers_move_huber_less():
    X, score = stream(20_000, noise=0.1)
    generator = np.random.default_rng(0)
    y = score + (generator.random(len(X)) < 0.05) * 100.0 * generator.random(len(X))
    errors = {
        loss: np.mean(np.abs(LinearRegression(loss).score_then_learn(X, y) - score)[5000:])
        for loss in ("squared", "huber", "quantile")
    }
    assert errors["huber"] < 0.7 * errors["squared"]
    assert errors["quantile"] < 0.3 * errors["squared"]


def test_a_change_is_followed_however_late_it_comes():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(400_000, 4))
    y = (X[:, 0] > 0) ^ (np.arange(400_000) >= 300_000)
    right = LogisticRegression().score_then_learn(X, y) == y
    assert right[290_000:300_000].mean() > 0.97
    assert right[310_000:].mean() > 0.95


# --- the state ----------------------------------------------------------------------------------


def test_coefficients_are_in_the_units_of_the_columns():
    X, score = stream(2000)
    params = {"clip": 1e6}
    model = LogisticRegression(**params).fit(X, score > 0.0)
    np.testing.assert_allclose(
        X @ model.coef_[0] + model.intercept_[0], model.decision_function(X), rtol=1e-6, atol=1e-6
    )
    several = LinearSVM(**params).fit(X, np.digitize(score, [-1.0, 1.0])[::-1])
    assert several.coef_.shape == (3, 4)
    np.testing.assert_allclose(
        X @ several.coef_.T + several.intercept_, several.decision_function(X), rtol=1e-6
    )
    quantity = LinearRegression(**params).fit(X, score + 50.0)
    np.testing.assert_allclose(X @ quantity.coef_ + quantity.intercept_, quantity.predict(X))


def test_coefficients_follow_the_order_of_the_classes():
    X, score = stream()
    y = np.where(score > 0.0, "no", "yes")
    one, other = LogisticRegression().fit(X, y), LogisticRegression(["yes", "no"]).fit(X, y)
    assert one.classes_.tolist() == other.classes_.tolist()
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=1e-9)


@pytest.mark.parametrize("params", SETTINGS[::2], ids=str)
def test_merged_models_answer_with_the_average(params):
    X, score = stream(900)
    y = np.where(score > 0.0, "b", "a")
    params = params | {"clip": 1e6}
    order = np.concatenate([np.flatnonzero(y[:300] == "b")[:1], np.arange(300)])
    one, other = LogisticRegression(**params), LogisticRegression(**params)
    one.fit(X[order], y[order])
    other.fit(X[300:], y[300:])
    merged = one.merge([other])
    expected = (301 * one.decision_function(X) + 600 * other.decision_function(X)) / 901
    np.testing.assert_allclose(merged.decision_function(X), expected, rtol=1e-6, atol=1e-6)
    assert merged.classes_.tolist() == ["a", "b"]
    before = state_digest(one.save())
    merged.partial_fit(X, y)
    assert state_digest(one.save()) == before
    assert merged.score(X, y) > 0.8


def test_merged_moments_are_those_of_all_rows():
    X, score = stream(900)
    X, score = with_gaps(X), score + 30.0
    parts = [LinearRegression().fit(X[a:b], score[a:b]) for a, b in ((0, 200), (200, 900))]
    merged = parts[0].merge([*parts[1:], LinearRegression()])
    whole = LinearRegression().fit(X, score)
    for name in ("mean", "inverse", "present"):
        ours, theirs = (one.save()["model"].arrays[name] for one in (merged, whole))
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    rows = X[~np.isnan(X).any(axis=1)]
    expected = (200 * parts[0].predict(rows) + 700 * parts[1].predict(rows)) / 900
    np.testing.assert_allclose(merged.predict(rows), expected, rtol=1e-6)


def test_merged_models_may_know_different_classes():
    X, score = stream(2000)
    y = np.digitize(score, [-1.0, 1.0])
    low = y < 2
    one, other = LogisticRegression().fit(X[low], y[low]), LogisticRegression().fit(X, y)
    merged = one.merge([other])
    assert merged.classes_.tolist() == [0, 1, 2]
    assert merged.score(X, y) > 0.6
    np.testing.assert_allclose(merged.predict_proba(X).sum(axis=1), 1.0, atol=1e-12)


def test_merging_what_does_not_go_together():
    X, score = stream(50)
    model = LinearRegression().fit(X, score)
    with pytest.raises(InputError, match="differs"):
        model.merge([LinearRegression().fit(X[:, :2], score)])
    with pytest.raises(InputError, match="differs"):
        model.merge([LinearRegression(optimizer="adagrad").fit(X, score)])
    one, other = (
        LinearRegression().fit(pd.DataFrame(X, columns=list(names)), score)
        for names in ("abcde"[: X.shape[1]], "abcde"[: X.shape[1]][::-1])
    )
    with pytest.raises(InputError, match="differs in parameters or columns"):
        one.merge([other])
    assert model.merge([one]).feature_names_in_.tolist() == one.feature_names_in_.tolist()


def test_a_state_of_another_table_is_refused():
    X, y, _ = sparse_stream()
    state = LogisticRegression(bits=5).fit(csr_matrix(X), y).save()
    with pytest.raises(InputError, match="broken"):
        LogisticRegression(bits=4).load(state)
    with pytest.raises(InputError, match="broken"):
        LogisticRegression(bits=5, optimizer="adagrad").load(state)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"optimizer": "adam"}, {"optimizer": "ftrl"}),
        ({"loss": "poisson"}, {"loss": "squared"}),
        ({"standardize": False}, {"standardize": True}),
    ],
)
def test_a_state_that_says_nothing_with_these_parameters_is_refused(one, other):
    X, score = stream(50)
    for mine, theirs in ((one, other), (other, one)):
        state = LinearRegression(**theirs).fit(X, np.abs(score)).save()
        with pytest.raises(InputError, match=r"broken: .*it is for"):
            LinearRegression(**mine).load(state)
        rate = LinearRegression(**theirs, learning_rate=0.05, l2=0.1).load(state)
        assert np.array_equal(rate.predict(X), LinearRegression(**theirs).load(state).predict(X))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"optimizer": "newton"}, "optimizer='newton'; it is one of sgd, adagrad, adam, ftrl"),
        ({"learning_rate": 0.0}, "learning_rate=0.0; it takes a number above 0"),
        ({"learning_rate": math.nan}, "learning_rate=nan"),
        ({"learning_rate": "fast"}, "learning_rate='fast'"),
        ({"power": 2.0}, "power=2.0; it takes a number from 0 up to 1"),
        ({"power": 0.5, "optimizer": "ftrl"}, "falls by itself"),
        ({"horizon": 0}, "horizon=0"),
        ({"l1": -1.0}, "l1=-1.0"),
        ({"l2": math.inf}, "l2=inf"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"bits": 31}, "bits=31"),
        ({"bits": 8.0}, "bits=8.0"),
        ({"invariant": True, "optimizer": "adam"}, "invariant=True goes with optimizer='sgd'"),
    ],
)
def test_wrong_parameters(params, message):
    with pytest.raises(SpecError) as error:
        LogisticRegression(**params).fit([[1.0], [2.0]], [0, 1])
    assert message in str(error.value)


def test_wrong_parameters_of_regression():
    for params in ({"loss": "absolute"}, {"loss": "huber", "delta": 0.0}):
        with pytest.raises(SpecError):
            LinearRegression(**params).fit([[1.0], [2.0]], [0.0, 1.0])
    for quantile in (0.0, 1.0):
        with pytest.raises(SpecError, match="quantile"):
            LinearRegression("quantile", quantile=quantile).fit([[1.0]], [0.0])


def test_times_are_learned():
    """Late in the day, every day."""
    hour = 3_600_000_000
    times = np.arange(0, 24 * 60) * hour + 7
    columns = Columns(times=("at",), target="late", target_kind="integer", time="at")
    y = (times // hour % 24 >= 12).astype(np.int64)
    batch = Batch(
        numbers=np.zeros((len(times), 0)),
        categories=np.zeros((len(times), 0), np.uint64),
        times=times[:, None],
        y=y,
        ids=np.arange(len(times), dtype=np.uint64),
    )
    learner = as_learner(LogisticRegression(), columns, classes=2)
    answer = learner.learn(batch, len(batch))
    assert (answer.value == y)[500:].mean() > 0.9
