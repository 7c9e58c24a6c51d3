"""Bayesian personalised ranking against its algorithm in plain Python, and against popularity."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import everlearn as el
from everlearn.base import InputError, SpecError, state_digest
from everlearn.learners import BayesianPersonalizedRanking, MatrixFactorization
from everlearn.learners.native.bayesian_personalized_ranking import TRIES
from everlearn.learners.native.random import below, generator

USERS, ITEMS = 600, 400


def choices(rows, seed=0):
    """(rows, 2) users, of whom more and more appear, and the best to them of ten items that they
    were shown; (rows,) another of the ten."""
    random = np.random.default_rng(seed)
    time = np.arange(rows) / rows
    popular = random.normal(size=ITEMS)
    tastes, traits = random.normal(size=(USERS, 4)), random.normal(size=(ITEMS, 4))
    user = (random.random(rows) * (0.3 + 0.7 * time) * USERS).astype(int)
    shown = (random.random((rows, 10)) * (0.4 + 0.6 * time)[:, None] * ITEMS).astype(int)
    worth = popular[shown] + (tastes[user][:, None] * traits[shown]).sum(axis=2)
    worth += random.gumbel(size=shown.shape)
    order = worth.argsort(axis=1)
    rows = np.arange(rows)
    return np.column_stack([user, shown[rows, order[:, -1]]]), shown[rows, order[:, 4]]


def area(score, chosen, other):
    """The share of pairs (a chosen item, another of its user) that are in the right order."""
    ahead = score(chosen) - score(np.column_stack([chosen[:, 0], other]))
    return np.mean((ahead > 0) + 0.5 * (ahead == 0))


def begun(model, X):
    """Slots and values of users and items in the order of the rows, before anything is moved."""
    params = model.get_params() | {"learning_rate": 0.0}
    frozen = BayesianPersonalizedRanking(**params).fit(X, np.ones(len(X)))
    return [
        dict(zip((table.ids >> np.uint64(1)).tolist(), table.values.copy(), strict=True))
        for table in (frozen._users, frozen._items)
    ]


class Plain:
    """LearnBPR in dictionaries, for users whose choices are all among their latest."""

    def __init__(self, model, X):
        self.model, self.first = model, begun(model, X)
        self.users, self.items, self.latest = {}, {}, {}
        self.draws = generator(model.seed, 1)

    def score(self, user, item):
        if item not in self.items:
            return 0.0
        found = self.items[item][0]
        if user in self.users:
            found += self.users[user][1:] @ self.items[item][1:]
        return found

    def learn(self, user, item, y, weight):
        if item is None:
            return
        self.items.setdefault(item, self.first[1][item].copy())
        known = list(self.items)
        if y > 0:
            if user is not None:
                self.users.setdefault(user, self.first[0][user].copy())
                latest = self.latest.setdefault(user, [])
                if item not in latest:
                    latest.append(item)
            for _ in range(self.model.negatives):
                for _ in range(TRIES):
                    other = known[below(self.draws, len(known))]
                    if other != item and other not in self.latest.get(user, []):
                        self.prefer(user, item, other, weight)
                        break
        elif user in self.users:
            latest = self.latest[user]
            for _ in range(min(TRIES, len(latest))):
                other = latest[below(self.draws, len(latest))]
                if other != item:
                    self.prefer(user, other, item, weight)
                    break

    def prefer(self, user, better, worse, weight):
        i, j = self.items[better], self.items[worse]
        p = self.users.get(user, np.zeros(len(i)))
        ahead = self.score(user, better) - self.score(user, worse)
        apart = i[1:] - j[1:] if user in self.users else 0.0 * i[1:]
        steepness = 2.0 + 2.0 * p[1:] @ p[1:] + apart @ apart
        step = min(weight * self.model.learning_rate, 4.0 / steepness)
        pull, l2, before = 1.0 / (1.0 + math.exp(ahead)), self.model.l2, p[1:].copy()
        i[0] += step * (pull - l2 * i[0])
        j[0] += step * (-pull - l2 * j[0])
        if user in self.users:
            p[1:] += step * (pull * apart - l2 * before)
            i[1:] += step * (pull * before - l2 * i[1:])
            j[1:] += step * (-pull * before - l2 * j[1:])


@pytest.mark.parametrize("learning_rate", [0.1, 2.0])
def test_is_the_algorithm_in_plain_python(learning_rate):
    random = np.random.default_rng(2)
    X = (random.random((1200, 2)) ** 2 * [30, 25]).astype(np.float64).round()
    y = random.choice([1.0, 1.0, 3.0, 0.0, -1.0], 1200)
    weight = random.choice([0.0, 0.5, 1.0, 3.0], 1200)
    model = BayesianPersonalizedRanking(
        n_factors=3, learning_rate=learning_rate, l2=0.05, negatives=2, lately=1200, seed=5
    )
    given = np.where(random.random(X.shape) < 0.05, np.nan, X)
    found = model.score_then_learn(given, y, weight)
    plain, expected = Plain(model, X), []
    for row, feedback, w in zip(given.tolist(), y.tolist(), weight.tolist(), strict=True):
        pair = [None if math.isnan(id) else int(id) for id in row]
        expected.append(1.0 / (1.0 + math.exp(-plain.score(*pair))))
        if w:
            plain.learn(*pair, feedback, w)
    expected[: int(np.flatnonzero(weight)[0]) + 1] = [0.0] * (int(np.flatnonzero(weight)[0]) + 1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert np.ptp(expected[600:]) > 0.5


def test_ranks_better_than_popularity_and_chance():
    chosen, other = choices(60_000)
    learned, asked, instead = chosen[:50_000], chosen[50_000:], other[50_000:]
    model = BayesianPersonalizedRanking(seed=1).fit(learned, np.ones(len(learned)))
    popular = np.bincount(learned[:, 1], minlength=ITEMS)
    by_popularity = area(lambda pairs: popular[pairs[:, 1]], asked, instead)
    assert 0.6 < by_popularity < 0.75
    assert area(model.predict, asked, instead) > by_popularity + 0.05
    untaught = BayesianPersonalizedRanking(learning_rate=0.0).fit(learned, np.ones(len(learned)))
    assert abs(area(untaught.predict, asked, instead) - 0.5) < 0.02


def test_learns_from_what_was_shown_and_not_chosen():
    """Half of the items are shown again and again to users who never choose them."""
    random = np.random.default_rng(0)
    rows = 4000
    item = random.integers(0, 40, rows)
    X, y = np.column_stack([random.integers(0, 30, rows), item]), (item < 20).astype(float)
    model = BayesianPersonalizedRanking().fit(X, y)
    for user in (1, 2, 99):
        assert set(model.recommend(user, n=20).tolist()) == set(range(20))
    items = np.column_stack([np.full(40, 3), np.arange(40)])
    assert model.predict(items[:20]).min() > model.predict(items[20:]).max() + 0.2


def test_without_a_choice_an_item_that_was_shown_is_only_known():
    model = BayesianPersonalizedRanking().fit([[1, 2]], [1.0])
    before = [table.save().arrays["values"] for table in (model._users, model._items)]
    draws = model._draws.copy()
    model.partial_fit([[7, 3]], [0.0])
    assert len(model._users) == 1
    assert model._items.ids.tolist() == [2 * 2 + 1, 2 * 3 + 1]
    assert (model._users.values == before[0]).all()
    assert (model._items.values[:1] == before[1]).all()
    assert (model._draws == draws).all()


def test_a_row_without_a_user_teaches_popularity():
    random = np.random.default_rng(0)
    X = np.column_stack([np.full(20_000, np.nan), random.random(20_000) ** 3 * 10 // 1])
    model = BayesianPersonalizedRanking(learning_rate=0.01).fit(X, np.ones(20_000))
    assert len(model._users) == 0
    assert model.recommend(5, n=4).tolist() == [0, 1, 2, 3]
    digest = state_digest({"users": model._users.save(), "items": model._items.save()})
    model.partial_fit([[3.0, np.nan]] * 5, np.ones(5))
    assert digest == state_digest({"users": model._users.save(), "items": model._items.save()})


def test_what_was_chosen_lately_is_not_drawn():
    """With one item left to be drawn, only that falls behind."""
    rows = [[0, item] for item in range(6)] * 100
    model = BayesianPersonalizedRanking(sigma=0.0, lately=8)
    model.partial_fit([[1, 9]], [0.0])
    model.partial_fit(rows, np.ones(len(rows)))
    scores = model._scores(0, hashed=False)
    slot = model._items.slots(np.array([2 * 9 + 1], np.uint64))[0]
    assert scores[slot] < -1.0
    others = np.delete(scores, slot)
    assert others.min() > 0.0


def test_only_so_many_of_the_latest_are_kept():
    model = BayesianPersonalizedRanking(lately=3, learning_rate=0.0)
    model.fit([[0, item] for item in (1, 2, 3, 3, 2, 4, 5, 5)], np.ones(8))
    assert sorted(((model._latest[0, 1:] - np.uint64(1)) // np.uint64(2)).tolist()) == [3, 4, 5]


def test_tables_keep_their_bounds_in_any_chunks():
    X = choices(3000)[0]
    y = np.where(np.arange(3000) % 3 == 0, 0.0, 1.0)
    settings = {"max_users": 290, "max_items": 40, "lately": 4, "seed": 3}
    digests, answers = set(), []
    for size in (1, 19, 3000):
        model = BayesianPersonalizedRanking(**settings)
        parts = [
            model.score_then_learn(X[start : start + size], y[start : start + size])
            for start in range(0, len(y), size)
        ]
        answers.append(np.concatenate(parts))
        digests.add(state_digest(model.save()))
        assert (len(model._users), len(model._items)) == (290, 40)
        assert model._latest.shape == (290, 5)
    assert len(digests) == 1
    assert (answers[0] == answers[1]).all() and (answers[0] == answers[2]).all()


def test_a_user_whose_slot_was_taken_begins_anew():
    model = BayesianPersonalizedRanking(max_users=1, sigma=0.0).fit([[0, 1], [0, 2]], [1.0, 1.0])
    model.partial_fit([[5, 3]], [1.0])
    assert model._users.ids.tolist() == [11]
    assert model._latest[0, 0] == 1


def test_goes_on_from_a_state():
    X = choices(3000)[0]
    settings = {"max_users": 100, "max_items": 90, "seed": 4}
    whole = BayesianPersonalizedRanking(**settings)
    state = whole.partial_fit(X[:2000], np.ones(2000)).save()
    expected = whole.score_then_learn(X[2000:], np.ones(1000))
    other = BayesianPersonalizedRanking(**settings).load(state)
    assert (other.score_then_learn(X[2000:], np.ones(1000)) == expected).all()
    assert state_digest(other.save()) == state_digest(whole.save())
    for wrong in ({"lately": 3}, {"max_items": 10}, {"n_factors": 2}):
        with pytest.raises(InputError, match=r"broken|not one of"):
            BayesianPersonalizedRanking(**settings | wrong).load(state)
    with pytest.raises(InputError, match="is of BayesianPersonalizedRanking"):
        MatrixFactorization().load(state)


def test_weights_of_any_size_leave_it_finite():
    random = np.random.default_rng(0)
    X = random.integers(0, 6, (3000, 2))
    weight = random.choice([1e-300, 1.0, 1e10, 1e300], 3000)
    model = BayesianPersonalizedRanking(sigma=1.0)
    found = model.score_then_learn(X, random.choice([0.0, 1.0], 3000), weight)
    assert ((found >= 0) & (found <= 1)).all()
    assert np.isfinite(model._users.values).all() and np.isfinite(model._items.values).all()
    assert abs(model._items.values).max() < 100.0


@pytest.mark.parametrize("wrong", [{"negatives": 0}, {"lately": 0}, {"lately": 2.5}, {"sigma": -1}])
def test_wrong_parameters(wrong):
    with pytest.raises(SpecError, match=f"{next(iter(wrong))}="):
        BayesianPersonalizedRanking(**wrong).fit([[1, 2]], [1.0])


def test_in_a_workspace(tmp_path):
    chosen, other = choices(3000)
    both = np.concatenate([chosen, np.column_stack([chosen[:, 0], other])])
    rows = pd.DataFrame(both, columns=["user", "item"]).assign(clicked=[1] * 3000 + [0] * 3000)
    rows.sample(frac=1.0, random_state=0).to_csv(tmp_path / "clicks.csv", index=False)
    schema = el.Schema(categorical=("user", "item"), target="clicked")
    with el.open(tmp_path / "workspace") as workspace:
        made = el.Model("clicks", learner=BayesianPersonalizedRanking(), schema=schema)
        model = workspace.model(made)
        assert model.train(tmp_path / "clicks.csv").decision.action == "promote"
        answers = model.predict([{"user": 1, "item": item} for item in range(5)])
        assert all(0 < answer.value < 1 for answer in answers)
