"""Which items a user prefers, learned from what users chose."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from everlearn.base import Array, Floats, Hashes, Part, SpecError, State
from everlearn.learners.native.compile import lean_kernel
from everlearn.learners.native.id_table import Table, enlarged, find
from everlearn.learners.native.loading import like
from everlearn.learners.native.random import below, generator
from everlearn.learners.native.recommender import (
    BIAS,
    ITEM,
    USER,
    Recommender,
    met,
    must_wait,
    unpacked,
)
from everlearn.learners.native.regressor import Regressor
from everlearn.learners.native.rows import Rows, Shape

TRIES = 16
"""Items drawn until one is found that the user did not choose lately."""

COUNT = 0
"""The column of a user's latest items that counts all of them; the items are those after it."""


class BayesianPersonalizedRanking(Recommender, Regressor):
    """Bayesian personalised ranking, for implicit feedback: clicks, purchases, plays.

    A row says that a user chose an item (y above 0) or was shown it and did not (y of 0 or below).
    The score of an item i for a user u is b_i + q_i·p_u. A row of a chosen item moves its score
    towards being above that of another item, drawn evenly from all that were learned but for those
    that the user chose lately; a row of an item that was not chosen, towards being below that of
    an item that the user chose lately. If there is none, it is only counted as learned.

    What is predicted is the logistic function of the score, from 0 to 1: it ranks the items of a
    user, and says nothing about how often they are chosen. A row without a user moves the biases
    only. A row's weight multiplies its steps.

    Args:
        user, item: names of category columns of a model, which need not be said where there are
            only two, in this order; or which columns of X, from 0. The others are ignored. Ids in X
            are whole numbers (NaN if missing).
        n_factors: length of p_u and q_i.
        learning_rate: α of the paper.
        l2: λ, for the biases and the factors.
        sigma: standard deviation of the factors of a new user or item.
        negatives: how many other items each chosen item is compared with.
        lately: how many items a user's latest are.
        max_users, max_items: the most that are kept; beyond, a new one replaces one that did not
            come lately (see `IdTable`).
        seed: for the factors of new users and items, and for the draws.

    Raises:
        SpecError: a parameter that cannot be, or a model without two category columns.
        InputError: a target that is missing, or an id in X that is not a whole number.

    Example:
        >>> chosen = [[user, item] for user in range(20) for item in range(user % 2, 40, 2)]
        >>> X = np.random.default_rng(0).permutation(chosen * 10)
        >>> model = BayesianPersonalizedRanking().fit(X, np.ones(len(X)))
        >>> [int(item) % 2 for item in model.recommend(4, n=5)]
        [0, 0, 0, 0, 0]
        >>> model.predict([[4, 2], [4, 3]]).round().tolist()
        [1.0, 0.0]

    Rendle, Freudenthaler, Gantner & Schmidt-Thieme 2009, "BPR: Bayesian personalized ranking from
    implicit feedback", fig. 4 (LearnBPR) and section 4.3.1, with biases of the items.
    """

    def __init__(
        self,
        *,
        user: int | str = 0,
        item: int | str = 1,
        n_factors: int = 10,
        learning_rate: float = 0.05,
        l2: float = 0.01,
        sigma: float = 0.1,
        negatives: int = 3,
        lately: int = 16,
        max_users: int = 1_000_000,
        max_items: int = 100_000,
        seed: int | None = None,
    ) -> None:
        self.user = user
        self.item = item
        self.n_factors = n_factors
        self.learning_rate = learning_rate
        self.l2 = l2
        self.sigma = sigma
        self.negatives = negatives
        self.lately = lately
        self.max_users = max_users
        self.max_items = max_items
        self.seed = seed

    def _begin(self, shape: Shape, seed: int) -> None:
        super()._begin(shape, seed)
        for option in ("negatives", "lately"):
            value = getattr(self, option)
            if not isinstance(value, int) or not 1 <= value <= 2**20:
                raise SpecError(
                    f"BayesianPersonalizedRanking({option}=) is a whole number from 1, not"
                    f" {value!r}"
                )
        self._latest = np.zeros((self._users.capacity, COUNT + 1 + self.lately), np.uint64)
        self._draws = generator(seed, 1)

    def _learn(self, rows: Rows, y: Array, weight: Floats, out: Floats) -> None:
        row, stop = 0, len(rows)
        while row < stop:
            row = _learn(
                rows.categories,
                self.user,
                self.item,
                y,
                weight,
                row,
                self._tables(),
                self._latest,
                self._keys,
                self._draws,
                self.negatives,
                (float(self.learning_rate), float(self.l2), float(self.sigma)),
                out,
            )
            if row < stop:
                self._enlarge()

    def _predict(self, rows: Rows, out: Floats) -> None:
        _predict(rows.categories, self.user, self.item, self._tables(), out)

    def _enlarge(self) -> None:
        super()._enlarge()
        if len(self._latest) < self._users.capacity:
            self._latest = enlarged(self._latest, self._users.capacity)

    def _save(self) -> dict[str, Part]:
        latest = self._latest[: len(self._users)].copy()
        draws = {"latest": latest, "draws": self._draws.copy()}
        return super()._save() | {"draws": Part(draws)}

    def _load(self, state: State) -> None:
        super()._load(state)
        arrays, used = state["draws"].arrays, len(self._users)
        latest = np.zeros((used, self._latest.shape[1]), np.uint64)
        self._latest = enlarged(like(latest, arrays["latest"], "latest"), self._users.capacity)
        self._draws = like(self._draws, arrays["draws"], "draws")


@lean_kernel
def _learn(
    pairs: Hashes,
    user: int,
    item: int,
    y: Floats,
    weight: Floats,
    start: int,
    tables: Any,
    latest: Hashes,
    keys: Hashes,
    draws: Hashes,
    negatives: int,
    settings: tuple[float, float, float],
    out: Floats,
) -> int:
    """Learn rows from `start` on; returns the row before which a table is to be enlarged."""
    users, items = unpacked(tables)
    learning_rate, l2, sigma = settings
    for i in range(start, len(pairs)):
        u, v = find(users, pairs[i, user]), find(items, pairs[i, item])
        w = weight[i] if len(weight) else 1.0
        chosen, learned = y[i] > 0.0, w > 0.0 and pairs[i, item] != 0
        full = must_wait(items, v, pairs[i, item]) or (
            chosen and must_wait(users, u, pairs[i, user])
        )
        if full and learned:
            return i
        if i < len(out):
            out[i, 0] = _logistic(_score(users, items, u, v))
        if not learned:
            continue
        v = met(items, v, pairs[i, item], keys, ITEM, sigma)
        if chosen:
            is_new = u < 0
            u = met(users, u, pairs[i, user], keys, USER, sigma)
            if u >= 0:
                _remember(latest, u, pairs[i, item], is_new)
            for _ in range(negatives):
                other = _not_chosen(items, latest, u, v, draws)
                _prefer(users, items, u, v, other, w * learning_rate, l2)
        elif u >= 0:
            users.marks[u] = 1
            other = _chosen(items, latest, u, v, draws)
            _prefer(users, items, u, other, v, w * learning_rate, l2)
    return len(pairs)


@lean_kernel
def _predict(pairs: Hashes, user: int, item: int, tables: Any, out: Floats) -> None:
    users, items = unpacked(tables)
    for i in range(len(pairs)):
        u, v = find(users, pairs[i, user]), find(items, pairs[i, item])
        out[i, 0] = _logistic(_score(users, items, u, v))


@lean_kernel
def _prefer(users: Table, items: Table, u: int, v: int, other: int, rate: float, l2: float) -> None:
    """One step towards `v` before `other` in the ranking of a user, all by their slots. Without a
    user (−1) by the biases only; without one of the items, none."""
    if v < 0 or other < 0:
        return
    p, q = users.values, items.values
    ahead, steepness = q[v, BIAS] - q[other, BIAS], 2.0
    if u >= 0:
        for f in range(BIAS + 1, q.shape[1]):
            apart = q[v, f] - q[other, f]
            ahead += p[u, f] * apart
            steepness += 2.0 * p[u, f] ** 2 + apart**2
    step = min(rate, 4.0 / steepness)
    kept, moved = max(1.0 - step * l2, 0.0), step * _logistic(-ahead)
    q[v, BIAS] = kept * q[v, BIAS] + moved
    q[other, BIAS] = kept * q[other, BIAS] - moved
    if u >= 0:
        for f in range(BIAS + 1, q.shape[1]):
            before, apart = p[u, f], q[v, f] - q[other, f]
            p[u, f] = kept * before + moved * apart
            q[v, f] = kept * q[v, f] + moved * before
            q[other, f] = kept * q[other, f] - moved * before


@lean_kernel
def _score(users: Table, items: Table, u: int, v: int) -> float:
    """What an item is worth to a user, as far as both are known (slots from 0)."""
    if v < 0:
        return 0.0
    score = items.values[v, BIAS]
    if u >= 0:
        for f in range(BIAS + 1, users.values.shape[1]):
            score += users.values[u, f] * items.values[v, f]
    return float(score)


@lean_kernel
def _logistic(score: float) -> float:
    return 1.0 / (1.0 + math.exp(-score))


@lean_kernel
def _remember(latest: Hashes, u: int, id: int, is_new: bool) -> None:
    """Put an item among a user's latest, in the place of the oldest, if it is not there."""
    if is_new:
        latest[u, COUNT] = 0
    if not _is_latest(latest, u, id):
        count, most = int(latest[u, COUNT]), latest.shape[1] - 1
        latest[u, COUNT + 1 + count % most] = id
        latest[u, COUNT] = count + 1


@lean_kernel
def _is_latest(latest: Hashes, u: int, id: int) -> bool:
    found = False
    for place in range(_kept(latest, u)):
        found |= latest[u, COUNT + 1 + place] == id
    return found


@lean_kernel
def _kept(latest: Hashes, u: int) -> int:
    """How many of a user's latest items there are."""
    return int(min(int(latest[u, COUNT]), latest.shape[1] - 1))


@lean_kernel
def _not_chosen(items: Table, latest: Hashes, u: int, v: int, draws: Hashes) -> int:
    """Draw an item that is not `v` nor among the user's latest; −1 if there seems to be none."""
    for _ in range(TRIES):
        slot = below(draws, int(items.head[0]))
        if slot != v and (u < 0 or not _is_latest(latest, u, items.ids[slot])):
            return int(slot)
    return -1


@lean_kernel
def _chosen(items: Table, latest: Hashes, u: int, v: int, draws: Hashes) -> int:
    """Draw one of the user's latest items that is not `v`; −1 if there seems to be none."""
    for _ in range(min(TRIES, _kept(latest, u))):
        slot = find(items, latest[u, COUNT + 1 + below(draws, _kept(latest, u))])
        if slot >= 0 and slot != v:
            return int(slot)
    return -1
