"""Tables of ids against dictionaries in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.base import InputError, Part
from everlearn.learners.native.id_table import (
    IdTable,
    enter,
    find,
    hashes_of_numbers,
    lacks_room,
    numbers_of_hashes,
)
from everlearn.learners.native.random import mix

FEW = st.lists(st.integers(1, 30), max_size=150)
LIMITS = st.integers(1, 20)


def colliding(count):
    """Ids whose search begins at the same place in a table of up to 256 places."""
    found = (id for id in range(1, 10**6) if (int(mix(np.uint64(id))) >> 1) % 256 == 3)
    return [next(found) for _ in range(count)]


COLLIDING = colliding(30)


def learn(table, id):
    """What a learner does with the id of a row: its slot."""
    slot = find(table.table, np.uint64(id))
    if slot >= 0:
        table.table.marks[slot] = 1
        return slot
    if lacks_room(table.table):
        table.enlarge()
    slot = enter(table.table, np.uint64(id))
    table.table.values[slot] = id
    return slot


class Clock:
    """The same in plain Python."""

    def __init__(self, limit):
        self.limit, self.ids, self.marks, self.hand = limit, [], [], 0

    def learn(self, id):
        if id in self.ids:
            self.marks[self.ids.index(id)] = True
        elif len(self.ids) < self.limit:
            self.ids.append(id)
            self.marks.append(False)
        else:
            while self.marks[self.hand]:
                self.marks[self.hand] = False
                self.hand = (self.hand + 1) % self.limit
            self.ids[self.hand] = id
            self.hand = (self.hand + 1) % self.limit
        return self.ids.index(id)


@settings(max_examples=150, deadline=None)
@given(LIMITS, FEW, st.booleans())
def test_slots_are_those_of_a_clock(limit, ids, collide):
    table, clock = IdTable(limit, 1), Clock(limit)
    for id in ids:
        id = COLLIDING[id - 1] if collide else id
        assert learn(table, id) == clock.learn(id)
        assert len(table) <= limit
    assert table.ids.tolist() == clock.ids
    assert table.values[:, 0].tolist() == clock.ids
    every = COLLIDING if collide else list(range(1, 31))
    expected = [clock.ids.index(id) if id in clock.ids else -1 for id in every]
    assert table.slots(np.array(every, np.uint64)).tolist() == expected
    assert table.slots(np.zeros(1, np.uint64)).tolist() == [-1]


@settings(max_examples=60, deadline=None)
@given(LIMITS, FEW, FEW, st.integers(0, 40))
def test_neither_saving_nor_capacity_makes_a_difference(limit, before, after, capacity):
    tables = [IdTable(limit, 1) for _ in range(2)]
    tables[1].enlarge(min(capacity, limit))
    for table in tables:
        for id in before:
            learn(table, id)
    loaded = IdTable(limit, 1)
    loaded.load(tables[0].save())
    for table in (*tables, loaded):
        for id in after:
            learn(table, id)
    assert len({table.save().digest for table in (*tables, loaded)}) == 1


def test_grows_by_doubling_up_to_the_limit():
    table = IdTable(1000, 3)
    assert table.capacity == 256
    for id in range(1, 2001):
        learn(table, id)
    assert (table.capacity, len(table)) == (1000, 1000)
    assert sorted(table.ids.tolist()) == list(range(1001, 2001))
    assert (table.values == table.ids[:, None]).all()
    assert table.slots(np.arange(1, 2001, dtype=np.uint64)).min() == -1


def test_an_id_that_comes_again_outlives_those_that_come_once():
    table = IdTable(8, 1)
    for id in range(100, 400):
        learn(table, 7)
        learn(table, id)
    assert 7 in table.ids
    assert 399 in table.ids


def test_a_saved_table_is_a_copy_and_is_checked():
    table = IdTable(4, 2)
    learn(table, 5)
    part = table.save()
    learn(table, 6)
    assert part.arrays["ids"].tolist() == [5]
    for other in (IdTable(4, 3), IdTable(0, 2)):
        with pytest.raises(InputError, match="a table of at most"):
            other.load(part)
    with pytest.raises(KeyError):
        IdTable(4, 2).load(Part({"ids": part.arrays["ids"]}))
    for name, array in part.arrays.items():
        other = part.arrays | {name: array.astype(np.float32)}
        with pytest.raises(InputError, match=f"{name} is"):
            IdTable(4, 2).load(Part(other, part.meta))


WHOLE = st.integers(-(2**63) + 1, 2**63 - 1)


@given(st.lists(WHOLE, min_size=1, max_size=20))
def test_whole_numbers_come_back(numbers):
    given_ = np.array(numbers, np.int64)
    hashes = hashes_of_numbers(given_)
    assert hashes.dtype == np.uint64 and (hashes != 0).all()
    assert numbers_of_hashes(hashes).tolist() == numbers
    assert len(set(hashes.tolist())) == len(set(numbers))


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=20))
def test_numbers_of_any_type_are_the_same_id(numbers):
    expected = hashes_of_numbers(np.array(numbers, np.int64))
    assert (hashes_of_numbers(np.array(numbers, np.float64)) == expected).all()
    small = np.array([number % 100 for number in numbers])
    for kind in (np.int8, np.uint8, np.int32, np.uint64, np.float32):
        assert (hashes_of_numbers(small.astype(kind)) == hashes_of_numbers(small)).all()


def test_what_is_missing_or_no_whole_number():
    found = hashes_of_numbers(np.array([np.nan, -0.0, 0.0, 2.0**53]))
    assert found[0] == 0
    assert found[1] == found[2] == hashes_of_numbers(np.array([False]))[0]
    assert numbers_of_hashes(found[3:]).tolist() == [2**53]
    for wrong in (0.5, np.inf, -np.inf, 2.0**63, -(2.0**63)):
        with pytest.raises(InputError, match="whole numbers"):
            hashes_of_numbers(np.array([1.0, wrong]))
    with pytest.raises(InputError, match="whole numbers"):
        hashes_of_numbers(np.array([2**63], np.uint64))
    with pytest.raises(InputError, match="whole numbers"):
        hashes_of_numbers(np.array([-(2**63)]))
    assert len(hashes_of_numbers(np.array([], np.int64))) == 0


def test_ids_among_objects_are_exact():
    """As in a column of pandas' nullable integers, or of a list with None in it."""
    items = [2**60 + 1, None, np.int64(2**60 + 2), np.nan, 3.0, True, -5, pd.NA, np.float32(7)]
    found = hashes_of_numbers(np.array([items, items], object))
    assert (found[0] == found[1]).all()
    missing = [item is None or item is pd.NA or item is np.nan for item in items]
    assert (found[0] == 0).tolist() == missing
    whole = [2**60 + 1, 2**60 + 2, 3, 1, -5, 7]
    assert numbers_of_hashes(found[0][found[0] != 0]).tolist() == whole


@pytest.mark.parametrize(
    "wrong", ["7", b"7", 0.5, math.inf, 2**63, -(2**63), 1j, np.datetime64("2024"), [1]]
)
def test_what_is_no_id(wrong):
    array = np.empty(2, object)
    array[:] = [1, wrong]
    with pytest.raises(InputError, match="ids are whole numbers"):
        hashes_of_numbers(array)
    for texts in (np.array(["1"]), np.array(["2024"], "datetime64[D]")):
        with pytest.raises(InputError, match="ids are whole numbers"):
            hashes_of_numbers(texts)


def test_floats_that_may_stand_for_several_ids_are_refused():
    """2**53 + 1 is no float: as such, two ids would be one."""
    for many in (
        np.array([2.0**53 + 2]),
        np.array([-(2.0**60)]),
        np.array([2.0**24 + 2], np.float32),
        np.array([1, 2.0**62], object),
    ):
        with pytest.raises(InputError, match="as integers"):
            hashes_of_numbers(many)
