"""Hold-outs stay within their bounds, whatever comes, and forget nothing of what they must keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.base import Batch, InputError, Part, state_digest
from everlearn.evaluation.holdouts import (
    HoldOuts,
    batch_from_part,
    batch_to_part,
    row_cap,
    sample,
)
from tests.evaluation.rows import rows


def same(one, two):
    return batch_to_part(one).digest == batch_to_part(two).digest


def reloaded(held):
    state = held.save()
    return HoldOuts.load({name: Part(part.arrays, part.meta) for name, part in state.items()})


@pytest.mark.parametrize("text", [True, False])
def test_rows_survive_being_stored(text):
    batch = rows(50, text=text)
    again = batch_from_part(batch_to_part(batch))
    assert again.y.dtype == batch.y.dtype
    assert again.y.tolist() == batch.y.tolist()
    assert again.weight is None
    assert same(batch, again)
    unlabelled = batch_from_part(batch_to_part(batch.with_y(None)))
    assert unlabelled.y is None


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 400), min_size=1, max_size=30),
    periods=st.integers(1, 6),
    most=st.integers(1, 900),
    saves=st.sets(st.integers(0, 29)),
)
def test_bounds_and_saving(sizes, periods, most, saves):
    bounds = {"periods": periods, "rows": most, "recent_rows": 100}
    held, stored = HoldOuts(**bounds), HoldOuts(**bounds)
    for place, n in enumerate(sizes):
        batch = rows(n, seed=place, start=place * 1000)
        held.add(batch)
        for piece in batch.split(37):
            stored.add(piece)
            if place in saves:
                stored = reloaded(stored)
        held.settle()
        stored.settle()
        assert len(held.periods) <= periods
        assert len(held) <= max(most, len(held.periods))
    assert state_digest(held.save()) == state_digest(stored.save())
    kept = held.periods
    assert [p.first for p in kept[1:]] == [p.last + 1 for p in kept[:-1]]
    filled = sum(n > 0 for n in sizes)
    assert (kept[0].first, kept[-1].last) == (1, filled) if filled else not kept


def test_an_empty_increment_changes_nothing():
    held = HoldOuts()
    held.add(rows(40))
    held.settle()
    before = state_digest(held.save())
    held.add(None)
    held.add(rows(0))
    held.settle()
    assert state_digest(held.save()) == before
    assert HoldOuts.load({}).save().keys() == {"index"}


def test_old_periods_are_merged_first():
    held = HoldOuts(periods=8)
    for number in range(100):
        held.add(rows(10, seed=number, start=number * 100))
        held.settle()
    spans = [period.last - period.first + 1 for period in held.periods]
    assert sum(spans) == 100
    assert spans[-1] == 1
    assert max(spans[:4]) > 4 * max(spans[-3:])
    assert held.periods[0].start < held.periods[1].start
    assert held.periods[0].name.startswith("increments 1–")
    assert held.periods[-1].name == "increment 100"


def test_unchanged_periods_are_the_same_parts():
    held = HoldOuts()
    written = 0
    before = {}
    for number in range(200):
        held.add(rows(50, seed=number))
        held.settle()
        held = HoldOuts.load(held.save())
        state = held.save()
        old = {id(part) for part in before.values()}
        written += sum(
            len(part.arrays.get("ids", ())) for part in state.values() if id(part) not in old
        )
        before = state
    assert written < 12 * 200 * 50
    assert len(held) == 200 * 50


def test_recent_rows_reach_back_to_enough_of_them():
    held = HoldOuts(recent_rows=100)
    for number in range(5):
        held.add(rows(40, seed=number))
        held.settle()
    assert len(held.recent) == 120
    assert len(held.historical) == 80
    held.add(rows(150, seed=9))
    assert len(held.recent) == 150
    assert len(held.historical) == 200
    assert HoldOuts().recent is None
    assert HoldOuts().historical is None


def test_a_long_increment_is_sampled_uniformly():
    held = HoldOuts(rows=500)
    for number in range(40):
        held.add(rows(500, seed=number, start=number * 500))
    held.settle()
    assert len(held) == 500
    times = held.recent.time
    assert (np.diff(times) > 0).all()
    quarters = np.bincount(times * 4 // 20_000, minlength=4)
    assert quarters.min() > 80


def test_sample_does_not_depend_on_how_rows_came():
    batch = rows(1_000)
    thinned = sample(
        Batch.concat([sample(batch.take(slice(0, 700)), 200), batch.take(slice(700, 1000))]), 200
    )
    assert same(thinned, sample(batch, 200))


def test_caps():
    assert row_cap([10, 10], 100) == 100
    assert sum(min(n, row_cap([5_000, 50, 900], 1_000)) for n in [5_000, 50, 900]) <= 1_000
    assert row_cap([1, 1, 1], 2) == 1


def test_what_is_held_is_not_learned():
    held = HoldOuts()
    batch = rows(30)
    held.add(batch.take(slice(0, 10)))
    held.settle()
    held.add(batch.take(slice(10, 20)))
    assert held.overlap(batch.ids[20:]).size == 0
    assert set(held.overlap(batch.ids[5:15])) == set(batch.ids[5:15])
    assert HoldOuts().overlap(batch.ids).size == 0


def test_retracted_rows_are_removed():
    held = HoldOuts()
    batch = rows(30)
    held.add(batch.take(slice(0, 10)))
    held.settle()
    held.add(batch.take(slice(10, 20)))
    held.settle()
    held.add(batch.take(slice(20, 30)))
    untouched = held.periods[1].part
    assert held.drop(np.concatenate([batch.ids[:10], batch.ids[25:]])) == 15
    assert len(held) == 15
    assert held.periods[0].part is untouched
    assert held.overlap(batch.ids[:10]).size == 0
    assert held.drop(batch.ids) == 15
    assert len(held) == 0


def test_other_columns_need_new_hold_outs():
    held = HoldOuts()
    held.add(rows(5))
    for other in (rows(5, text=True), rows(5).with_y(None)):
        with pytest.raises(InputError, match="new hold-outs"):
            held.add(other)
    held.settle()
    with pytest.raises(InputError, match="new hold-outs"):
        held.add(rows(5, text=True))


def test_bounds_below_one():
    with pytest.raises(InputError, match="1 or more"):
        HoldOuts(rows=0)
