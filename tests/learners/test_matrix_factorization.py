"""Matrix factorisation against its equations in plain Python, and against River."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import everlearn as el
from everlearn.base import InputError, SpecError, state_digest
from everlearn.learners import BayesianPersonalizedRanking, MatrixFactorization
from everlearn.learners.native.random import generator, mix, normal


def ratings(rows, seed=0, users=400, items=200):
    """(rows, 2) ids, of which more and more appear, and ratings from 1 to 5."""
    random = np.random.default_rng(seed)
    time = np.arange(rows) / rows
    user = (random.random(rows) ** 1.5 * (0.2 + 0.8 * time) * users).astype(int)
    item = (random.random(rows) ** 2 * (0.3 + 0.7 * time) * items).astype(int)
    biases = random.normal(0.0, 0.4, users)[user] + random.normal(0.0, 0.5, items)[item]
    tastes = random.normal(0.0, 0.6, (users, 4))[user] * random.normal(0.0, 0.6, (items, 4))[item]
    y = 3.5 + biases + tastes.sum(axis=1) + random.normal(0.0, 0.4, rows)
    return np.column_stack([user, item]), np.clip(np.round(y), 1, 5)


def rmse(found, y):
    return math.sqrt(np.mean((found - y) ** 2))


class Plain:
    """Koren, Bell & Volinsky in dictionaries."""

    def __init__(self, n_factors, learning_rate, l2, sigma, seed):
        self.k, self.rate, self.l2, self.sigma = n_factors, learning_rate, l2, sigma
        self.keys = [int(key) for key in generator(seed, 0)[:2]]
        self.mean = self.weight = 0.0
        self.biases, self.factors = ({}, {}), ({}, {})

    def begin(self, side, id):
        if id is None or id in self.biases[side]:
            return
        code = (id << 1) + 1
        start = int(mix(np.uint64(code ^ self.keys[side])))
        words = [int(mix(np.uint64((start + index + 1) % 2**64))) for index in range(4)]
        own = np.array(words, np.uint64)
        self.biases[side][id] = 0.0
        self.factors[side][id] = np.array([self.sigma * normal(own) for _ in range(self.k)])

    def predict(self, user, item):
        found = self.mean + self.biases[0].get(user, 0.0) + self.biases[1].get(item, 0.0)
        if user in self.factors[0] and item in self.factors[1]:
            found += float(self.factors[0][user] @ self.factors[1][item])
        return found

    def learn(self, user, item, y, weight):
        for side, id in enumerate((user, item)):
            self.begin(side, id)
        self.weight += weight
        self.mean += (y - self.mean) * weight / self.weight
        error = y - self.predict(user, item)
        p, q = self.factors[0].get(user), self.factors[1].get(item)
        steepness = (p is not None) + (q is not None)
        if p is not None and q is not None:
            steepness += p @ p + q @ q
        step = min(weight * self.rate, 1.0 / max(steepness, 1.0))
        for side, id in enumerate((user, item)):
            if id is not None:
                bias = self.biases[side][id]
                self.biases[side][id] += step * (error - self.l2 * bias)
        if p is not None and q is not None:
            self.factors[0][user] = p + step * (error * q - self.l2 * p)
            self.factors[1][item] = q + step * (error * p - self.l2 * q)


@pytest.mark.parametrize("learning_rate", [0.05, 0.4])
def test_is_the_algorithm_in_plain_python(learning_rate):
    X, y = ratings(1500)
    random = np.random.default_rng(1)
    X = np.where(random.random(X.shape) < 0.05, np.nan, X)
    weight = random.choice([0.0, 0.5, 1.0, 3.0], len(y))
    model = MatrixFactorization(n_factors=4, learning_rate=learning_rate, l2=0.1, seed=3)
    found = model.score_then_learn(X, y, weight)
    plain, expected = Plain(4, learning_rate, 0.1, 0.1, 3), []
    for row, rating, w in zip(X.tolist(), y.tolist(), weight.tolist(), strict=True):
        pair = [None if math.isnan(id) else int(id) for id in row]
        expected.append(plain.predict(*pair))
        if w:
            plain.learn(*pair, rating, w)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_is_as_good_as_river():
    reco = pytest.importorskip("river.reco", reason="the peer is not installed")
    from river import optim

    X, y = ratings(100_000, users=3000, items=1500)
    found = MatrixFactorization(learning_rate=0.02, l2=0.02, seed=1).score_then_learn(X, y)
    peer = reco.BiasedMF(
        n_factors=10,
        bias_optimizer=optim.SGD(0.01),
        latent_optimizer=optim.SGD(0.01),
        l2_bias=0.04,
        l2_latent=0.04,
        latent_initializer=optim.initializers.Normal(sigma=0.1, seed=1),
    )
    theirs = np.empty(len(y))
    for k, ((user, item), rating) in enumerate(zip(X.tolist(), y.tolist(), strict=True)):
        theirs[k] = peer.predict_one(user, item)
        peer.learn_one(user, item, rating)
    assert abs(rmse(found, y) / rmse(theirs, y) - 1.0) < 0.005
    ours = MatrixFactorization(seed=1).score_then_learn(X, y)
    assert rmse(ours, y) < rmse(found, y) < 0.9 * y.std()


def test_factors_make_it_better_than_biases():
    X, y = ratings(60_000)
    errors = [
        rmse(MatrixFactorization(sigma=sigma).score_then_learn(X, y)[30_000:], y[30_000:])
        for sigma in (0.1, 0.0)
    ]
    assert errors[0] < 0.95 * errors[1]


def test_factors_do_not_depend_on_the_order_of_appearance():
    X = ratings(300)[0]
    grid = np.array([[user, item] for user in range(20) for item in range(10)])
    frozen = {"learning_rate": 0.0, "sigma": 1.0}
    one = MatrixFactorization(**frozen, seed=1).fit(X, np.ones(300))
    other = MatrixFactorization(**frozen, seed=1).fit(X[::-1], np.ones(300))
    assert (one.predict(grid) == other.predict(grid)).all()
    third = MatrixFactorization(**frozen, seed=2).fit(X, np.ones(300))
    assert (one.predict(grid) != third.predict(grid)).any()
    values = one.predict(grid) - 1.0
    assert 1.0 < values.std() < 10.0  # of a product of ten pairs: √10
    same = np.array([[id, id] for id in range(5)])
    assert abs(one.predict(same) - 1.0).max() < 8.0, "a user has not the factors of its item"


def test_who_is_unknown_is_predicted_by_biases():
    X, y = ratings(3000)
    model = MatrixFactorization().fit(X, y)
    user, item = model._users.table, model._items.table
    mean = model._mean[0]
    new, nan = 10**15, np.nan
    of_user = mean + user.values[model._users.slots(np.array([3 * 2 + 1], np.uint64))[0], 0]
    of_item = mean + item.values[model._items.slots(np.array([5 * 2 + 1], np.uint64))[0], 0]
    found = model.predict([[3, new], [3, nan], [new, 5], [nan, 5], [new, new], [nan, nan]])
    expected = [of_user, of_user, of_item, of_item, mean, mean]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_missing_user_teaches_the_item_only():
    X, y = ratings(1000)
    model = MatrixFactorization().fit(X, y)
    users = model._users.save().digest
    before = model._items.values.copy()
    slot = model._items.slots(np.array([2 * 5 + 1], np.uint64))[0]
    model.partial_fit([[np.nan, 5.0]], [5.0])
    assert model._users.save().digest == users
    changed = (model._items.values != before).nonzero()
    assert [part.tolist() for part in changed] == [[slot], [0]]


def test_tables_keep_their_bounds_in_any_chunks():
    X, y = ratings(4000, users=900, items=700)
    digests, answers = set(), []
    for size in (1, 17, 4000):
        model = MatrixFactorization(max_users=300, max_items=50)
        parts = [
            model.score_then_learn(X[start : start + size], y[start : start + size])
            for start in range(0, len(y), size)
        ]
        answers.append(np.concatenate(parts))
        digests.add(state_digest(model.save()))
        assert (len(model._users), len(model._items)) == (300, 50)
    assert len(digests) == 1
    assert (answers[0] == answers[1]).all() and (answers[0] == answers[2]).all()
    free = MatrixFactorization().score_then_learn(X, y)
    assert (free != answers[0]).any()


def test_goes_on_from_a_state_in_which_a_table_is_full():
    X, y = ratings(3000, users=900, items=700)
    settings = {"max_users": 100, "max_items": 90, "seed": 4}
    whole = MatrixFactorization(**settings)
    first = whole.partial_fit(X[:2000], y[:2000]).save()
    expected = whole.score_then_learn(X[2000:], y[2000:])
    other = MatrixFactorization(**settings).load(first)
    assert (other.score_then_learn(X[2000:], y[2000:]) == expected).all()
    assert state_digest(other.save()) == state_digest(whole.save())
    with pytest.raises(InputError, match="broken"):
        MatrixFactorization(max_users=99).load(first)


def test_predictions_are_limited_to_the_ratings_there_are():
    X, y = ratings(5000)
    free = MatrixFactorization(learning_rate=0.3).fit(X, y)
    model = MatrixFactorization(learning_rate=0.3, clip=(1, 5)).fit(X, y)
    assert (model.predict(X) == np.clip(free.predict(X), 1, 5)).all()
    assert (free.predict(X) > 5).any()


def test_a_weight_multiplies_the_step():
    X, y = ratings(500)
    models = [MatrixFactorization().fit(X, y) for _ in range(2)]
    models[1].learning_rate = 2.5 * models[0].learning_rate
    mean = models[0]._mean.copy()
    models[0].partial_fit(X[:1], [9.0], sample_weight=[2.5])
    models[1]._mean[:] = models[0]._mean
    models[1]._mean[1] = 1e300  # so heavy that the next row does not move it
    models[1].partial_fit(X[:1], [9.0])
    assert mean[1] == 500.0 and models[0]._mean[1] == 502.5
    np.testing.assert_allclose(models[0]._users.values, models[1]._users.values, rtol=1e-12)


def test_no_step_overshoots():
    """An error never changes its sign by much, whatever the weights and the ratings."""
    model = MatrixFactorization(sigma=1.0)
    random = np.random.default_rng(0)
    for scale in (1e-300, 1.0, 1e6, 1e150, 1e300):
        for _ in range(200):
            pair = random.integers(0, 4, (1, 2))
            model.partial_fit(pair, random.normal(size=1) * scale, sample_weight=[1e300])
            assert np.isfinite(model.predict(pair)).all()
            assert np.isfinite(model._users.values).all()


# --- rankings ----------------------------------------------------------------------------------


def test_recommends_what_it_predicts_highest():
    X, y = ratings(20_000)
    model = MatrixFactorization().fit(X, y)
    items = np.unique(X[:, 1])
    scores = model.predict(np.column_stack([np.full(len(items), 7), items]))
    expected = items[np.argsort(-scores)]
    assert model.recommend(7).tolist() == expected[:10].tolist()
    seen = expected[[0, 2, 5]].tolist()
    left = [item for item in expected.tolist() if item not in seen]
    assert model.recommend(7, n=20, exclude=[*seen, 10**9]).tolist() == left[:20]
    assert len(model.recommend(7, n=10**6)) == len(items)
    assert model.rank(7, expected[::-3]).tolist() == [
        item for item in expected.tolist() if item in set(expected[::-3].tolist())
    ]
    unknown = model.recommend(10**9, n=3)
    assert unknown.tolist() == model.recommend(10**12, n=3).tolist()
    biases = model._items.values[:, 0]
    assert biases[np.argsort(-biases)[0]] == biases.max()
    assert model.recommend(np.nan, n=1).tolist() == unknown[:1].tolist()


def test_rankings_of_one_that_has_learned_nothing():
    model = MatrixFactorization()
    assert model.recommend(1).tolist() == []
    assert model.rank(1, [5, 3]).tolist() == [5, 3]
    assert model.rank(1, []).tolist() == []


def test_large_ids_are_told_apart():
    far = 2**62
    X = np.array([[user, item] for user in (far, far + 1) for item in (-far, -far - 1)] * 50)
    y = np.where((X[:, 0] == far) == (X[:, 1] == -far), 5.0, 1.0)
    model = MatrixFactorization(learning_rate=0.2).fit(X, y)
    assert model.recommend(far).tolist() == [-far, -far - 1]
    assert model.recommend(far + 1).tolist() == [-far - 1, -far]
    np.testing.assert_allclose(model.predict(X[:4]), y[:4], atol=0.2)


def test_ids_are_whole_numbers():
    X, y = ratings(100)
    model = MatrixFactorization().fit(X, y)
    before = state_digest(model.save())
    for wrong in ([[0.5, 1.0]], [[np.inf, 1.0]], [[1e30, 1.0]]):
        with pytest.raises(InputError, match="whole numbers"):
            model.partial_fit(wrong, [1.0])
    with pytest.raises(InputError, match="ids of users in column 0"):
        model.predict([[1]])
    with pytest.raises(InputError, match="NaN"):
        model.partial_fit([[1, 2]], [np.nan])
    assert state_digest(model.save()) == before
    same = MatrixFactorization().fit(X.astype(np.float64), y)
    assert (same.predict(X.astype(np.int32)) == model.predict(X)).all()


def test_large_ids_among_missing_ones_are_told_apart():
    far = 2**60
    users = pd.array([far + 1, far + 2, None] * 50, dtype="Int64")
    X = pd.DataFrame({"user": users, "item": [1] * 150})
    model = MatrixFactorization(learning_rate=0.2).fit(X, [5.0, 1.0, 3.0] * 50)
    found = model.predict([[far + 1, 1], [far + 2, 1], [None, 1]])
    np.testing.assert_allclose(found, [5.0, 1.0, 3.0], atol=0.3)
    with pytest.raises(InputError, match="as integers"):  # what numpy makes of such a frame
        model.predict(X.astype({"user": "float64"}))


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda model: model.recommend("7"), "an id is a whole number, not '7'"),
        (lambda model: model.recommend(0.5), "ids are whole numbers"),
        (lambda model: model.recommend(2**70), "ids are whole numbers"),
        (lambda model: model.recommend([1, 2]), "an id is a whole number"),
        (lambda model: model.recommend(1, exclude=["7"]), "an id is a whole number"),
        (lambda model: model.recommend("7", hashed=True), "the text's hash"),
        (lambda model: model.recommend(-1, hashed=True), "hashes of 64 bits"),
        (lambda model: model.recommend(1, n=-1), "n is how many items"),
        (lambda model: model.recommend(1, n=2.5), "n is how many items"),
        (lambda model: model.rank(1, ["7"]), "an id is a whole number"),
        (lambda model: model.rank("7", [1]), "an id is a whole number"),
        (lambda model: model.predict([["u", "i"]]), "texts are ids in a model only"),
    ],
)
def test_wrong_questions(ask, said):
    for model in (MatrixFactorization(), MatrixFactorization().fit(*ratings(100))):
        with pytest.raises(InputError, match=said):
            ask(model)


def test_columns_can_be_chosen_and_others_are_ignored():
    X, y = ratings(1000)
    wide = np.column_stack([np.full(1000, 0.5), X[:, 1], np.full(1000, np.nan), X[:, 0]])
    model = MatrixFactorization(user=3, item=1).fit(wide, y)
    assert (model.predict(wide) == MatrixFactorization().fit(X, y).predict(X)).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_factors": 0},
        {"learning_rate": -1.0},
        {"l2": math.nan},
        {"sigma": math.inf},
        {"max_users": 0},
        {"max_items": 2.5},
        {"user": 1},
        {"item": -1},
        {"user": "user", "item": "item"},
        {"user": None},
        {"learning_rate": "fast"},
        {"clip": (5, 1)},
        {"clip": 5},
        {"clip": (None, 5)},
    ],
)
def test_wrong_parameters(wrong):
    with pytest.raises(SpecError, match=f"{next(iter(wrong))}="):
        MatrixFactorization(**wrong).fit([[1, 2, 3]], [1.0])


# --- in a model --------------------------------------------------------------------------------


SCHEMA = el.Schema(categorical=("user", "item"), target="rating")


def frame(X, y):
    users = [f"user {user}" for user in X[:, 0]]
    return pd.DataFrame({"user": users, "item": X[:, 1], "rating": y.astype(int)})


def test_in_a_workspace(tmp_path):
    rows = frame(*ratings(6000))
    rows[:4000].to_csv(tmp_path / "one.csv", index=False)
    rows[4000:].to_csv(tmp_path / "two.csv", index=False)
    gate = el.NonInferior("mae", margin=0.05)
    learner = MatrixFactorization(clip=(1, 5))
    with el.open(tmp_path / "workspace") as workspace:
        model = workspace.model(el.Model("films", learner=learner, schema=SCHEMA, gate=gate))
        for name in ("one.csv", "two.csv"):
            assert model.train(tmp_path / name).decision.action == "promote"
        answers = model.predict(
            [{"user": "user 1", "item": 3}, {"user": "nobody", "item": 3}, {"item": None}]
        )
        values = [answer.value for answer in answers]
        assert len(set(values)) == 3 and all(1 <= value <= 5 for value in values)


def test_rankings_of_hashes():
    """In a model ids are texts, of which the learner sees hashes."""
    X, y = ratings(4000)
    learned = el.learn(el.Model("films", learner=MatrixFactorization(), schema=SCHEMA), frame(X, y))
    assert learned.metrics["mae"] < learned.metrics["baselines"]["mean"]["mae"]
    estimator = learned._fold.learner.estimator
    items = np.unique(X[:, 1])
    grid = np.column_stack([np.full(len(items), 7), items])
    hashes = learned._compiled(frame(grid, np.zeros(len(grid)))).categories
    names = dict(zip(hashes[:, 1].tolist(), items.tolist(), strict=True))
    user = hashes[0, 0]
    found = estimator.recommend(user, n=5, hashed=True)
    scores = learned.predict(frame(grid, np.zeros(len(grid))).drop(columns="rating"))
    best = grid[np.argsort(-scores)[:5], 1]
    assert [names[int(hash)] for hash in found] == best.tolist()
    assert estimator.rank(user, found[::-1], hashed=True).tolist() == found.tolist()


@pytest.mark.parametrize("kind", [MatrixFactorization, BayesianPersonalizedRanking])
def test_users_and_items_are_found_by_name(kind):
    """Wherever their columns are, and whatever else is a category."""
    rows = frame(*ratings(2000))
    rows.insert(0, "device", np.where(np.arange(2000) % 3, "phone", "desk"))
    rows = rows[["device", "item", "user", "rating"]]
    schema = el.Schema(categorical=("device", "user", "item"), target="rating")
    learned = el.learn(el.Model("m", learner=kind(user="user", item="item"), schema=schema), rows)
    narrow = rows[["user", "item", "rating"]]
    alone = el.learn(el.Model("m", learner=kind(), schema=SCHEMA), narrow)
    assert (learned.predict(rows) == alone.predict(narrow)).all()
    placed = el.learn(el.Model("m", learner=kind(user=2, item="item"), schema=schema), rows)
    assert (learned.predict(rows) == placed.predict(rows)).all()
    for wrong, said in (
        ({}, r"\(user=\) is to name one of the categories \['device', 'item', 'user'\]"),
        ({"user": "user"}, r"\(item=\) is to name one of the categories"),
        ({"user": "who", "item": "item"}, r"\(user=\) is 'who', and the categories are \['device"),
        ({"user": "item", "item": "item"}, r"are two columns"),
    ):
        with pytest.raises(SpecError, match=said):
            el.learn(el.Model("m", learner=kind(**wrong), schema=schema), rows)


def test_names_of_users_and_items_are_kept_with_a_model(tmp_path):
    rows = frame(*ratings(2000)).assign(device="phone")[["device", "user", "item", "rating"]]
    learner = MatrixFactorization(user="user", item="item")
    schema = el.Schema(categorical=("device", "user", "item"), target="rating")
    with el.open(tmp_path) as workspace:
        model = workspace.model(el.Model("films", learner=learner, schema=schema))
        assert model.train(rows[:1500]).version == 1
    with el.open(tmp_path) as workspace:
        model = workspace.model("films")
        answer = model.predict({"user": "user 1", "item": 3})
        assert model.predict({"device": "x", "user": "user 1", "item": 3}).value == answer.value
        assert model.train(rows[1500:]).increments[0]["rows"] > 0


def test_a_model_needs_two_categories():
    numbers = pd.DataFrame({"user": [1, 2], "item": [3, 4], "rating": [1, 2]})
    model = el.Model("films", learner=MatrixFactorization(), schema=el.Schema(target="rating"))
    with pytest.raises(SpecError, match=r"Schema\(categorical="):
        el.learn(model, numbers)
