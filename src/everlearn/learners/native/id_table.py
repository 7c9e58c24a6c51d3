"""Ids in a bounded number of slots, each with a row of numbers: a hash table in arrays.

Kernels read and fill it; only enlarging it is left to Python. A slot never moves, so that arrays
beside the table can be indexed by slots.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from everlearn.base import Array, Floats, Hashes, InputError, Ints, Part
from everlearn.learners.native.compile import lean_kernel
from everlearn.learners.native.loading import like
from everlearn.learners.native.random import mix

FIRST = 256
"""Slots of a new table, if its limit is not lower."""

EXACT = 2.0**53
"""Up to this, floats tell all whole numbers apart."""


class Table(NamedTuple):
    """A table as kernels see it.

    Args:
        ids: (capacity,) uint64 the id in each slot in use; never 0.
        marks: (capacity,) uint8, 1 where the id was learned since the hand last passed its slot.
        places: (2**b,) int64 slot + 1, or 0: open addressing, at most half full.
        head: (3,) int64 slots in use, where the hand is, and the most slots there may be.
        values: (capacity, width) float64 what belongs to each id.
    """

    ids: Hashes
    marks: Array
    places: Ints
    head: Ints
    values: Floats


class IdTable:
    """A table that grows by doubling up to its limit, in which ids then replace each other.

    When all slots are taken, a new id gets that of one which was not learned lately: a hand goes
    round over the slots, takes the mark off those that have one, and stops at the first that has
    none (the clock or second-chance algorithm; Corbató 1968, "A paging experiment with the Multics
    system"). An id that came once goes before ids that come again and again. Which one goes
    depends on the ids learned and on nothing else: neither on chunks nor on the capacity.

    Args:
        limit: the most slots.
        width: numbers that belong to each id.
    """

    def __init__(self, limit: int, width: int) -> None:
        capacity = min(FIRST, limit)
        self.table = Table(
            np.zeros(capacity, np.uint64),
            np.zeros(capacity, np.uint8),
            np.zeros(_places(capacity), np.int64),
            np.array([0, 0, limit], np.int64),
            np.zeros((capacity, width)),
        )

    def __len__(self) -> int:
        """Slots in use."""
        return int(self.table.head[0])

    @property
    def capacity(self) -> int:
        """Slots that there is memory for."""
        return len(self.table.ids)

    @property
    def ids(self) -> Hashes:
        """(n,) the id of each slot in use."""
        return self.table.ids[: len(self)]

    @property
    def values(self) -> Floats:
        """(n, width) what belongs to them."""
        return self.table.values[: len(self)]

    def slots(self, ids: Hashes) -> Ints:
        """(n,) the slot of each of (n,) ids, −1 for none."""
        out = np.empty(len(ids), np.int64)
        _find_all(self.table, np.array(ids, np.uint64), out)
        return out

    def enlarge(self, capacity: int = 0) -> None:
        """Make room for more ids if there is none: twice as many, or as many as are asked for."""
        old = self.table
        limit = int(old.head[2])
        if not capacity and len(self) == self.capacity:
            capacity = min(2 * self.capacity, limit)
        if capacity <= self.capacity:
            return
        self.table = Table(
            enlarged(old.ids, capacity),
            enlarged(old.marks, capacity),
            np.zeros(_places(capacity), np.int64),
            old.head,
            enlarged(old.values, capacity),
        )
        _index(self.table)

    def save(self) -> Part:
        """The ids with what belongs to them, in the order of their slots."""
        arrays = {"ids": self.ids, "marks": self.table.marks[: len(self)], "values": self.values}
        meta = {"hand": int(self.table.head[1])}
        return Part({name: array.copy() for name, array in arrays.items()}, meta)

    def load(self, part: Part) -> None:
        """Become what `save` saw, if nothing is in the table yet.

        Raises:
            InputError: there are more ids than slots, one is twice there, or the hand is at none.
        """
        ids, marks, values = (part.arrays[name] for name in ("ids", "marks", "values"))
        used, limit = len(ids), int(self.table.head[2])
        if used > limit or values.shape != (used, self.table.values.shape[1]):
            raise InputError(
                f"a table of at most {limit} ids and {self.table.values.shape[1]} numbers each is"
                f" not one of {used} and {values.shape[1:]}"
            )
        ids = like(np.zeros(used, np.uint64), ids, "ids")
        marks = like(np.zeros(used, np.uint8), marks, "marks")
        values = like(np.zeros(values.shape), values, "values")
        hand = int(part.meta["hand"])
        if len(np.unique(ids)) < used or 0 in ids or not 0 <= hand < max(used, 1):
            raise InputError(f"the hand is at {hand} of {len(np.unique(ids))} ids in {used} slots")
        while self.capacity < used:
            self.enlarge(min(2 * self.capacity, limit))
        self.table.ids[:used], self.table.marks[:used] = ids, marks
        self.table.values[:used] = values
        self.table.head[:2] = used, hand
        _index(self.table)


def enlarged(array: Array, capacity: int) -> Array:
    """The same rows, and zeros after them."""
    out = np.zeros((capacity, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out


def _places(capacity: int) -> int:
    return 1 << max(2 * capacity - 1, 1).bit_length()


@lean_kernel
def find(table: Table, id: int) -> int:
    """The slot of an id, −1 if it has none. 0 is never there."""
    mask = len(table.places) - 1
    at = _home(id, mask)
    while table.places[at] != 0 and table.ids[table.places[at] - 1] != id:
        at = (at + 1) & mask
    return int(table.places[at]) - 1


@lean_kernel
def lacks_room(table: Table) -> bool:
    """Whether the table is to be enlarged before another id enters."""
    return bool(table.head[0] == len(table.ids) and len(table.ids) < table.head[2])


@lean_kernel
def enter(table: Table, id: int) -> int:
    """Give an id that has none a slot: a free one, or another id's. Its values are left there."""
    if table.head[0] < len(table.ids):
        slot = int(table.head[0])
        table.head[0] += 1
    else:
        hand = int(table.head[1])
        while table.marks[hand] != 0:
            table.marks[hand] = 0
            hand = (hand + 1) % len(table.ids)
        slot = hand
        table.head[1] = (hand + 1) % len(table.ids)
        _leave(table, slot)
    table.ids[slot] = id
    table.marks[slot] = 0
    _place(table, slot)
    return slot


@lean_kernel
def _home(id: int, mask: int) -> int:
    """Where the search for an id begins."""
    return int(mix(id) >> np.uint64(1)) & mask


@lean_kernel
def _place(table: Table, slot: int) -> None:
    """Write a slot at the first empty place from its id's home on."""
    mask = len(table.places) - 1
    at = _home(table.ids[slot], mask)
    while table.places[at] != 0:
        at = (at + 1) & mask
    table.places[at] = slot + 1


@lean_kernel
def _leave(table: Table, slot: int) -> None:
    """Empty the place of a slot, and close the gap: what comes after it moves up where it may
    (Knuth 1998, "The Art of Computer Programming" vol. 3, section 6.4, algorithm R)."""
    mask = len(table.places) - 1
    gap = _home(table.ids[slot], mask)
    while table.places[gap] != slot + 1:
        gap = (gap + 1) & mask
    at = (gap + 1) & mask
    while table.places[at] != 0:
        home = _home(table.ids[table.places[at] - 1], mask)
        if ((at - home) & mask) >= ((at - gap) & mask):
            table.places[gap] = table.places[at]
            gap = at
        at = (at + 1) & mask
    table.places[gap] = 0


@lean_kernel
def _index(table: Table) -> None:
    """Write the places of all slots in use, where none is written."""
    for slot in range(table.head[0]):
        _place(table, slot)


@lean_kernel
def _find_all(table: Table, ids: Hashes, out: Ints) -> None:
    for i in range(len(ids)):
        out[i] = find(table, ids[i])


# --- whole numbers as ids ----------------------------------------------------------------------


def hashes_of_numbers(numbers: Array) -> Hashes:
    """Whole numbers of any type as ids that are never 0, and equal for equal numbers; NaN is 0.

    Raises:
        InputError: what is no number, or not whole, or not from −2**63 + 1 to 2**63 − 1; a float
            beyond 2**53 (2**24 of 32 bits), which may stand for another number next to it.
    """
    missing = None
    if numbers.dtype.kind == "O":
        exact = [_exact(item) for item in numbers.flat]
        missing = np.array([item is None for item in exact], bool).reshape(numbers.shape)
        whole = np.array([item or 0 for item in exact], np.int64).reshape(numbers.shape)
    elif numbers.dtype.kind == "f":
        missing = np.isnan(numbers)
        numbers = np.where(missing, 0.0, numbers)
        exact_up_to = min(EXACT, 2.0 ** (np.finfo(numbers.dtype).nmant + 1))
        odd = (numbers != np.floor(numbers)) | (np.abs(numbers) > exact_up_to)
        if odd.any():
            raise InputError(_wrong(numbers[odd][0], exact_up_to))
        whole = numbers.astype(np.int64)
    elif numbers.dtype.kind not in "biu":
        raise InputError(_wrong(numbers.flat[0] if numbers.size else numbers.dtype))
    elif numbers.dtype.kind == "u" and numbers.max(initial=0) >> 63:
        raise InputError(_wrong(numbers.max()))
    else:
        whole = np.ascontiguousarray(numbers, np.int64)
    hashes: Hashes = ((whole << 1) ^ (whole >> 63)).view(np.uint64) + np.uint64(1)
    if not hashes.all():
        raise InputError(f"ids are whole numbers above −2**63, not {whole.min()}")
    if missing is not None:
        hashes[missing] = 0
    return hashes


def _exact(item: Any) -> int | None:
    """A whole number among objects; None if it is missing."""
    if item is None or type(item).__name__ == "NAType":  # pandas.NA
        return None
    if isinstance(item, float | np.floating):
        number = float(item)
        if number != number:
            return None
        if abs(number) <= EXACT and number % 1 == 0:
            return int(number)
    elif isinstance(item, int | np.integer | np.bool_) and abs(int(item)) < 2**63:
        return int(item)
    raise InputError(_wrong(item))


def _wrong(item: Any, exact_up_to: float = EXACT) -> str:
    item = item.item() if isinstance(item, np.generic) else item
    if isinstance(item, float) and exact_up_to < abs(item) < 2.0**63:
        return (
            f"an id is {item!r}: floats beyond {exact_up_to:.0f} do not tell whole numbers apart;"
            " hand ids over as integers"
        )
    return (
        f"ids are whole numbers below 2**63, not {item!r}; texts are ids in a model only, or number"
        " them first"
    )


def numbers_of_hashes(hashes: Hashes) -> Ints:
    """The inverse of `hashes_of_numbers`, as int64."""
    twice = hashes - np.uint64(1)
    half = (twice >> np.uint64(1)).view(np.int64)
    return half ^ -(twice & np.uint64(1)).view(np.int64)
