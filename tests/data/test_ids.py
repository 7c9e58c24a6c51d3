"""The index of seen ids, hold-outs, and reading ahead."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.data import ids as ids_module
from everlearn.data.ahead import ReadAhead
from everlearn.data.holdout import in_holdout
from everlearn.data.ids import IdSet, SeenIds


@settings(deadline=None, max_examples=40)
@given(
    values=st.lists(st.integers(1, 400), unique=True, max_size=200),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=8),
)
def test_a_set_of_ids_is_a_set_and_does_not_depend_on_how_it_was_filled(values, cuts):
    old, ids_module._RUN = ids_module._RUN, 4
    try:
        whole, pieces = IdSet(), IdSet()
        ids = np.array(values, np.uint64)
        whole.add(ids)
        start = 0
        while start < len(ids):
            step = cuts[start % len(cuts)]
            pieces.add(ids[start : start + step])
            pieces = IdSet.load(pieces.save())
            start += step
        asked = np.arange(401, dtype=np.uint64)
        for found in (whole, pieces, whole.copy()):
            assert found.contains(asked).tolist() == np.isin(asked, ids).tolist()
            assert len(found) == len(ids) and found.all().tolist() == sorted(values)
        one, two = ({k: p.digest for k, p in found.save().items()} for found in (whole, pieces))
        assert one == two
        assert len(one) <= 2 + len(ids) // 64 + 5
    finally:
        ids_module._RUN = old


def test_full_runs_are_shared_between_versions():
    found = IdSet()
    found.add(np.arange(1, 3 * 65_536, dtype=np.uint64))
    before = found.save()
    found.add(np.arange(10**6, 10**6 + 5, dtype=np.uint64))
    after = found.save()
    assert [name for name in before if before[name] is after.get(name)] == ["0"]


def test_ids_of_the_increment_are_kept_apart_until_it_is_over():
    seen = SeenIds()
    one = np.array([5, 3, 5, 9], np.uint64)
    assert seen.duplicates(one).tolist() == [False, False, True, False]
    seen.add(np.array([5, 3, 9], np.uint64))
    again = SeenIds(seen.save())
    assert again.duplicates(one).all()
    again.restart()
    assert not again.duplicates(one[:2]).any()
    seen.settle()
    settled = SeenIds(seen.save())
    settled.restart()
    assert settled.duplicates(one).all() and len(settled) == 3


@given(share=st.floats(0.01, 0.99))
def test_about_the_share_of_rows_is_held_out(share):
    ids = np.arange(1, 20_001, dtype=np.uint64)
    held = in_holdout(ids, share)
    assert abs(held.mean() - share) < 5 * np.sqrt(share * (1 - share) / len(ids))
    assert (in_holdout(ids[::-1], share)[::-1] == held).all()
    assert not in_holdout(ids, 0.0).any()
    assert not (in_holdout(ids, share / 2) & ~held).any()


def test_reading_ahead_is_bounded():
    given_out = []

    def items():
        for k in range(100):
            given_out.append(k)
            yield k

    ahead = ReadAhead(items(), depth=2)
    assert next(ahead) == 0
    for _ in range(50):
        threading.Event().wait(0.002)
    assert len(given_out) <= 4
    assert list(ahead) == list(range(1, 100))
    ahead.close()


@pytest.mark.parametrize("threaded", [True, False])
def test_closing_closes_the_generator(threaded):
    closed = []

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    ahead = ReadAhead(items(), threaded=threaded)
    next(ahead)
    ahead.close()
    assert closed == [True] and list(ahead) == []


def test_what_is_raised_ahead_comes_after_the_items_before_it():
    def items():
        yield 1
        raise KeyError("here")

    ahead = ReadAhead(items())
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="here"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)
