"""Ratings as the product of what users want and what items have, learned rating by rating."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from everlearn.base import Array, Floats, Hashes, Part, SpecError, State
from everlearn.learners.native.compile import lean_kernel
from everlearn.learners.native.id_table import Table, find
from everlearn.learners.native.loading import like
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

LARGEST = 1e100
"""Ratings and weights are limited to ± this."""


class MatrixFactorization(Recommender, Regressor):
    """Biased matrix factorisation by stochastic gradient descent, for ratings.

    The rating r of a user u for an item i is predicted as μ + b_u + b_i + q_i·p_u, where μ is the
    mean of all ratings. A row moves b_u, b_i, p_u and q_i one step down the squared error with an
    L2 penalty. A row without a user (or item) moves and is predicted by the other's bias only.
    A row's weight multiplies its step; no step is longer than the one that would undo the row's
    whole error, so that neither weights nor large ratings make it diverge.

    River's `reco.BiasedMF` with `optim.SGD(lr)` and penalties l2 is this with twice the learning
    rate and half the l2: its gradient is that of the error's square, not of half of it.

    Args:
        user, item: names of category columns of a model, which need not be said where there are
            only two, in this order; or which columns of X, from 0. The others are ignored. Ids in X
            are whole numbers (NaN if missing).
        n_factors: length of p_u and q_i.
        learning_rate: γ, for ratings of which most are a few units apart.
        l2: λ, for the biases and the factors.
        sigma: standard deviation of the factors of a new user or item.
        clip: smallest and largest rating; predictions are limited to them. None: they are not.
        max_users, max_items: the most that are kept; beyond, a new one replaces one that was not
            rated lately (see `IdTable`).
        seed: for the factors of new users and items.

    Raises:
        SpecError: a parameter that cannot be, or a model without two category columns.
        InputError: a rating that is missing, or an id in X that is not a whole number.

    Example:
        >>> X = np.array([[user, item] for user in range(20) for item in range(10)] * 10)
        >>> taste = np.where((X[:, 0] + X[:, 1]) % 2 == 0, 5.0, 1.0)
        >>> model = MatrixFactorization(learning_rate=0.1).fit(X, taste)
        >>> model.predict([[4, 2], [4, 3], [99, 2]]).round(1).tolist()
        [5.0, 1.0, 3.0]
        >>> model.recommend(4, n=3, exclude=[0, 2])
        array([8, 4, 6])

    Koren, Bell & Volinsky 2009, "Matrix factorization techniques for recommender systems", eq. 5
    and "Stochastic gradient descent".
    """

    def __init__(
        self,
        *,
        user: int | str = 0,
        item: int | str = 1,
        n_factors: int = 10,
        learning_rate: float = 0.05,
        l2: float = 0.02,
        sigma: float = 0.1,
        clip: tuple[float, float] | None = None,
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
        self.clip = clip
        self.max_users = max_users
        self.max_items = max_items
        self.seed = seed

    def _begin(self, shape: Shape, seed: int) -> None:
        super()._begin(shape, seed)
        self._limits = (-math.inf, math.inf) if self.clip is None else self._clipped(self.clip)
        self._mean = np.zeros(2)  # of all ratings, and what they weigh together

    def _clipped(self, clip: Any) -> tuple[float, float]:
        """The smallest and the largest rating."""
        try:
            low, high = (float(rating) for rating in clip)
        except (TypeError, ValueError):
            low = high = math.nan
        if not low < high:
            raise SpecError(
                f"MatrixFactorization(clip=) is a smallest and a largest rating, not {clip!r}"
            )
        return low, high

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
                self._mean,
                self._keys,
                (float(self.learning_rate), float(self.l2), float(self.sigma)),
                self._limits,
                out,
            )
            if row < stop:
                self._enlarge()

    def _predict(self, rows: Rows, out: Floats) -> None:
        tables, mean = self._tables(), self._mean
        _predict(rows.categories, self.user, self.item, tables, mean, self._limits, out)

    def _save(self) -> dict[str, Part]:
        return super()._save() | {"mean": Part({"mean": self._mean.copy()})}

    def _load(self, state: State) -> None:
        super()._load(state)
        self._mean = like(self._mean, state["mean"].arrays["mean"], "mean")


@lean_kernel
def _learn(
    pairs: Hashes,
    user: int,
    item: int,
    y: Floats,
    weight: Floats,
    start: int,
    tables: Any,
    mean: Floats,
    keys: Hashes,
    settings: tuple[float, float, float],
    limits: tuple[float, float],
    out: Floats,
) -> int:
    """Learn rows from `start` on; returns the row before which a table is to be enlarged."""
    users, items = unpacked(tables)
    learning_rate, l2, sigma = settings
    p, q = users.values, items.values
    for i in range(start, len(pairs)):
        u, v = find(users, pairs[i, user]), find(items, pairs[i, item])
        w = weight[i] if len(weight) else 1.0
        full = must_wait(users, u, pairs[i, user]) or must_wait(items, v, pairs[i, item])
        if full and w > 0.0:
            return i
        if i < len(out):
            out[i, 0] = _limited(_rating(users, items, u, v, mean), limits)
        if w == 0.0:
            continue
        u = met(users, u, pairs[i, user], keys, USER, sigma)
        v = met(items, v, pairs[i, item], keys, ITEM, sigma)
        w, rating = min(w, LARGEST), min(max(y[i], -LARGEST), LARGEST)
        mean[1] += w
        mean[0] += (rating - mean[0]) * (w / mean[1])
        error = rating - _rating(users, items, u, v, mean)
        step = min(w * learning_rate, 1.0 / _steepness(users, items, u, v))
        kept, moved = max(1.0 - step * l2, 0.0), step * error
        if u >= 0:
            p[u, BIAS] = kept * p[u, BIAS] + moved
        if v >= 0:
            q[v, BIAS] = kept * q[v, BIAS] + moved
        if u >= 0 and v >= 0:
            for f in range(BIAS + 1, p.shape[1]):
                before = p[u, f]
                p[u, f] = kept * before + moved * q[v, f]
                q[v, f] = kept * q[v, f] + moved * before
    return len(pairs)


@lean_kernel
def _predict(
    pairs: Hashes,
    user: int,
    item: int,
    tables: Any,
    mean: Floats,
    limits: tuple[float, float],
    out: Floats,
) -> None:
    users, items = unpacked(tables)
    for i in range(len(pairs)):
        u, v = find(users, pairs[i, user]), find(items, pairs[i, item])
        out[i, 0] = _limited(_rating(users, items, u, v, mean), limits)


@lean_kernel
def _rating(users: Table, items: Table, u: int, v: int, mean: Floats) -> float:
    """Eq. 5: mean, biases and interaction, as far as user and item are known (slots from 0)."""
    rating = mean[0]
    if u >= 0:
        rating += users.values[u, BIAS]
    if v >= 0:
        rating += items.values[v, BIAS]
    if u >= 0 and v >= 0:
        for f in range(BIAS + 1, users.values.shape[1]):
            rating += users.values[u, f] * items.values[v, f]
    return float(rating)


@lean_kernel
def _limited(rating: float, limits: tuple[float, float]) -> float:
    """Between the smallest and the largest rating."""
    return min(max(rating, limits[0]), limits[1])


@lean_kernel
def _steepness(users: Table, items: Table, u: int, v: int) -> float:
    """By how much the prediction moves for a step of 1: the squared length of its gradient."""
    total = 0.0
    if u >= 0:
        total += 1.0
    if v >= 0:
        total += 1.0
    if u >= 0 and v >= 0:
        for f in range(BIAS + 1, users.values.shape[1]):
            total += users.values[u, f] ** 2 + items.values[v, f] ** 2
    return max(total, 1.0)
