"""What learners of users and items share: who is who in a row, tables of both, rankings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from everlearn.base import Array, Batch, Columns, Floats, Hashes, InputError, Part, SpecError, State
from everlearn.learners.native.compile import inlined, lean_kernel
from everlearn.learners.native.estimator import Native
from everlearn.learners.native.id_table import (
    IdTable,
    Table,
    enter,
    hashes_of_numbers,
    lacks_room,
    numbers_of_hashes,
)
from everlearn.learners.native.random import generator, mix, normal
from everlearn.learners.native.rows import Rows, Shape

BIAS = 0
"""The column of a table's values that is the bias; the factors are those after it."""

USER, ITEM, OWN = 0, 1, 2
"""Places in the keys, which are: by what factors of users, and of items, are drawn; and (4,) the
generator of one new user or item, made for it alone."""


class Recommender(Native):
    """A learner of pairs, a user and an item, each with a bias and factors.

    In a model both are category columns; in an array they are columns of whole numbers, the ids.
    Users and items that are new begin with a bias of 0 and factors that depend on the seed and on
    their id, not on when they come. Those that were never learned are predicted without factors.
    """

    user: Any  # names in a definition, places in what learns
    item: Any
    n_factors: int
    sigma: float
    max_users: int
    max_items: int

    def for_columns(self, columns: Columns) -> Self:
        """One with the places, among a model's categories, of the columns that are named.

        Raises:
            SpecError: there is no such category; or there are more than two, and none is named.
        """
        known, places = columns.categories, dict[str, int]()
        for option, usual in (("user", 0), ("item", 1)):
            place, name = getattr(self, option), f"{type(self).__name__}({option}=)"
            if isinstance(place, str):
                if place not in known:
                    raise SpecError(
                        f"{name} is {place!r}, and the categories are {list(known)}; ids are"
                        f" categories by Schema(categorical=({place!r}, …))"
                    )
                places[option] = known.index(place)
            elif place == usual and len(known) > 2:
                raise SpecError(f"{name} is to name one of the categories {list(known)}")
        if not places:
            return self
        return self.clone().set_params(**places)

    def recommend(
        self, user: Any, n: int = 10, exclude: Iterable[Any] = (), *, hashed: bool = False
    ) -> Array:
        """The items with the highest scores for a user, out of all that were learned.

        Args:
            user: an id. One that is unknown gets what is best by the biases.
            n: how many items.
            exclude: ids of items that are left out (those the user has).
            hashed: whether ids are given and returned as in `Batch.categories`, as uint64 hashes;
                so they are in a model, where ids are texts.

        Returns:
            (m,) ids, m ≤ n, the best first; of equal ones the one that was learned earlier.

        Raises:
            InputError: an id that is no whole number, or a number of items below 0.
        """
        if not isinstance(n, int | np.integer) or n < 0:
            raise InputError(f"n is how many items, a whole number from 0, not {n!r}")
        without = _as_hashes(list(exclude), hashed)
        _as_hashes([user], hashed)  # checked
        if self._shape is None:
            return _given_back(np.zeros(0, np.uint64), hashed)
        ids, scores = self._items.ids, self._scores(user, hashed)
        left = np.ones(len(ids), bool)
        gone = self._items.slots(without)
        left[gone[gone >= 0]] = False
        slots = np.flatnonzero(left)
        best = slots[np.argsort(-scores[slots], kind="stable")[:n]]
        return _given_back(ids[best], hashed)

    def rank(self, user: Any, items: Iterable[Any], *, hashed: bool = False) -> Array:
        """The same items, those with the highest scores for a user first.

        Args:
            user, hashed: as for `recommend`.
            items: ids; those that were never learned have a score of 0.

        Raises:
            InputError: an id that is no whole number.
        """
        wanted = _as_hashes(list(items), hashed)
        _as_hashes([user], hashed)  # checked
        scores = np.zeros(len(wanted))
        if self._shape is not None:
            slots = self._items.slots(wanted)
            scores[slots >= 0] = self._scores(user, hashed)[slots[slots >= 0]]
        return _given_back(wanted[np.argsort(-scores, kind="stable")], hashed)

    # --- inside --------------------------------------------------------------------------------

    def _scores(self, user: Any, hashed: bool) -> Floats:
        """What the items in slots 0, 1, … are worth to a user, but for what is equal for all."""
        values = self._items.values
        slot = self._users.slots(_as_hashes([user], hashed))[0]
        if slot < 0:
            return values[:, BIAS].copy()
        own = self._users.values[slot, BIAS + 1 :]
        scores: Floats = values[:, BIAS] + values[:, BIAS + 1 :] @ own
        return scores

    def _rows(self, X: Any) -> Rows:
        if isinstance(X, Batch):
            return super()._rows(X)
        if hasattr(X, "tocsr"):
            raise InputError(f"{type(self).__name__} takes no sparse matrix")
        chosen = self._places()
        matrix: Array = np.asarray(X)
        if matrix.dtype.kind == "c":
            raise InputError("X holds something else than numbers: Complex data not supported")
        if matrix.ndim != 2 or matrix.shape[1] <= max(chosen):
            raise InputError(
                f"X has shape {matrix.shape}; it takes ids of users in column {self.user} and of"
                f" items in column {self.item}"
            )
        pairs = np.zeros((len(matrix), max(chosen) + 1), np.uint64)
        pairs[:, chosen] = hashes_of_numbers(matrix[:, chosen])
        nothing, none = np.empty((len(matrix), 0)), np.empty(0, np.int64)
        rows = Rows(nothing, nothing, pairs, none, none, np.empty(0))
        self._check(rows)
        return rows

    def _begin(self, shape: Shape, seed: int) -> None:
        name, places = type(self).__name__, self._places()
        if shape.categories <= max(places):
            raise SpecError(
                f"{name} needs users and items in category columns {tuple(places)}, and there are"
                f" {shape.categories}; name them in Schema(categorical=(…))"
            )
        for option in ("n_factors", "max_users", "max_items"):
            value = getattr(self, option)
            if not isinstance(value, int) or not 1 <= value <= 2**31:
                raise SpecError(f"{name}({option}=) is a whole number from 1, not {value!r}")
        for option in ("sigma", "learning_rate", "l2"):
            value = getattr(self, option)
            if not isinstance(value, int | float | np.number) or not 0.0 <= value < float("inf"):
                raise SpecError(f"{name}({option}=) is a number from 0, not {value!r}")
        self._users = IdTable(self.max_users, BIAS + 1 + self.n_factors)
        self._items = IdTable(self.max_items, BIAS + 1 + self.n_factors)
        self._keys = np.zeros(OWN + 4, np.uint64)
        self._keys[:OWN] = generator(seed, 0)[:OWN]

    def _places(self) -> list[int]:
        """The columns of users and of items."""
        places = [self.user, self.item]
        whole = all(isinstance(place, int | np.integer) and place >= 0 for place in places)
        if not whole or self.user == self.item:
            raise SpecError(
                f"{type(self).__name__}(user=, item=) are two columns from 0, not {tuple(places)};"
                " in a model, they can be names"
            )
        return places

    def _save(self) -> dict[str, Part]:
        return {"users": self._users.save(), "items": self._items.save()}

    def _load(self, state: State) -> None:
        self._users.load(state["users"])
        self._items.load(state["items"])

    def _enlarge(self) -> None:
        """Make room in the tables that have none."""
        self._users.enlarge()
        self._items.enlarge()

    def _tables(self) -> tuple[Array, ...]:
        """Both tables as a plain tuple, which is handed over faster; `unpacked` is the inverse."""
        return (*self._users.table, *self._items.table)


@inlined
def unpacked(tables: Any) -> tuple[Table, Table]:
    """Users and items, out of a plain tuple of their arrays."""
    return Table(*tables[:5]), Table(*tables[5:10])


@lean_kernel
def must_wait(table: Table, slot: int, id: int) -> bool:
    """Whether an id, which is in this slot (or in none, −1), is to enter a table without room."""
    return bool(slot < 0 and id != 0 and lacks_room(table))


@lean_kernel
def met(table: Table, slot: int, id: int, keys: Hashes, whose: int, sigma: float) -> int:
    """The slot of an id that is learned, which is one of its own if it is new; −1 if missing.

    Args:
        slot: where it is now; −1 for none.
        whose: `USER` or `ITEM`.
    """
    if id == 0:
        return -1
    if slot < 0:
        return _join(table, id, keys, whose, sigma)
    table.marks[slot] = 1
    return slot


@lean_kernel
def _join(table: Table, id: int, keys: Hashes, whose: int, sigma: float) -> int:
    """Give a new id a slot, a bias of 0 and factors from a generator that is the id's own."""
    slot = enter(table, id)
    own = keys[OWN:]
    for index in range(4):
        own[index] = mix(mix(id ^ keys[whose]) + np.uint64(index + 1))  # type: ignore[arg-type]
    table.values[slot, BIAS] = 0.0
    for factor in range(BIAS + 1, table.values.shape[1]):
        table.values[slot, factor] = sigma * normal(own)
    return slot


def _as_hashes(ids: list[Any], hashed: bool) -> Hashes:
    """(n,) what ids are to the tables."""
    if not ids:
        return np.zeros(0, np.uint64)
    wrong = next((item for item in ids if isinstance(item, str | bytes) or np.ndim(item)), None)
    if wrong is not None:
        raise InputError(f"an id is a whole number, not {wrong!r}; in a model, the text's hash")
    if not hashed:
        return hashes_of_numbers(np.array(ids))
    try:
        return np.array(ids, np.uint64)
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(f"ids are hashes of 64 bits, as in Batch.categories: {error}") from error


def _given_back(hashes: Hashes, hashed: bool) -> Array:
    return hashes if hashed else numbers_of_hashes(hashes)
