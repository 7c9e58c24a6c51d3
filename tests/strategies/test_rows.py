"""The store of remembered rows against a plain list, under any sequence of operations."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.base import Batch, InputError, state_digest
from everlearn.strategies.block import BLOCK, Block, decode, encode
from everlearn.strategies.rows import Rows
from everlearn.testing.memory import MINUTE, make_rows, reload, same_rows

SMALL = 8


@pytest.fixture
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("everlearn.strategies.rows.BLOCK", SMALL)
        patch.setattr("everlearn.strategies.rows.RESIDENT", 3 * SMALL)
        yield


def numbers(rows: Rows) -> list[int]:
    return [int(i) for batch, _ in rows.batches() for i in batch.numbers[:, 0]]


OPERATION = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 30)),
    st.tuples(st.just("keep"), st.integers(1, 5)),
    st.tuples(st.just("last"), st.integers(0, 40)),
    st.tuples(st.just("expire"), st.integers(0, 120)),
    st.tuples(st.just("erase"), st.integers(1, 5)),
    st.tuples(st.just("extend"), st.integers(0, 20)),
    st.tuples(st.sampled_from(["seal", "tidy", "compact", "reload"]), st.just(0)),
)


@pytest.mark.usefixtures("small_blocks")
class TestRows:
    @settings(deadline=None, max_examples=150)
    @given(st.lists(OPERATION, max_size=14))
    def test_it_holds_what_a_list_would(self, operations: list[tuple[str, int]]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("everlearn.strategies.rows.BLOCK", SMALL)
            rows, model, fresh = Rows(), [], 0
            for name, value in operations:
                if name in ("append", "extend"):
                    batch = make_rows(fresh, fresh + value)
                    target = rows if name == "append" else Rows()
                    target.append(batch, {"twice": 2.0 * batch.numbers[:, 0]})
                    if target is not rows:
                        rows.extend(target)
                        assert not len(target)
                    model += range(fresh, fresh + value)
                    fresh += value
                else:
                    rows.seal()
                    rows, model = self.apply(name, value, rows, model)
                assert len(rows) == len(model)
            assert numbers(rows) == model
            if model:
                assert rows.column("twice").tolist() == [2.0 * i for i in model]
            rows.seal()
            self.check_gather(rows, model)

    def apply(self, name: str, value: int, rows: Rows, model: list[int]) -> tuple[Rows, list[int]]:
        if name == "keep":
            kept = np.arange(len(model)) % value != 0
            rows.keep(kept)
            return rows, [i for i, keep in zip(model, kept, strict=True) if keep]
        if name == "last":
            rows.keep_last(value)
            return rows, model[max(len(model) - value, 0) :]
        if name == "expire":
            rows.expire(value * MINUTE)
            return rows, [i for i in model if i >= value]
        if name == "erase":
            kept_rows = [i for i in model if i % 5 + 1 != value]
            assert rows.erase(keys=np.array([value], np.uint64)) == len(model) - len(kept_rows)
            return rows, kept_rows
        if name == "reload":
            meta, arrays, parts = rows.save()
            return Rows.load(meta, arrays, reload(parts)), model
        getattr(rows, name)()
        return rows, model

    def check_gather(self, rows: Rows, model: list[int]) -> None:
        if not model:
            return
        ranks = np.random.default_rng(0).integers(len(model), size=50)
        expected = [model[rank] for rank in ranks]
        assert rows.gather(ranks).numbers[:, 0].tolist() == expected
        rows.flatten()
        assert rows.gather(ranks).numbers[:, 0].tolist() == expected

    def test_few_blocks_and_few_rewrites(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("everlearn.strategies.rows.BLOCK", 4096)
            rows, written, before = Rows(), 0, set[str]()
            for step in range(3000):
                rows.append(make_rows(step, step + 1))
                rows.tidy()
                parts = rows.save()[2]
                now = {part.digest for part in parts.values()}
                written += sum(
                    len(p.arrays["ids"]) for p in parts.values() if p.digest not in before
                )
                assert len(parts) <= 12
                before = now
            assert written <= 3000 * 12

    def test_a_block_half_dead_is_written_anew(self) -> None:
        rows = Rows()
        rows.append(make_rows(0, SMALL))
        rows.keep(np.arange(SMALL) < 5)
        rows.tidy()
        assert rows.save()[0]["sizes"] == [SMALL]
        rows.keep(np.arange(5) < 4)
        rows.tidy()
        assert rows.save()[0]["sizes"] == [4]

    def test_blocks_do_not_depend_on_how_rows_are_appended(self) -> None:
        whole, pieces = Rows(), Rows()
        whole.append(make_rows(0, 100))
        for at in range(0, 100, 7):
            pieces.append(make_rows(at, min(at + 7, 100)))
            pieces.save()
        whole.seal()
        pieces.seal()
        assert state_digest(whole.save()[2]) == state_digest(pieces.save()[2])

    def test_single_rows_are_joined_on_the_way(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("everlearn.strategies.rows.BLOCK", 1000)
            rows = Rows()
            for i in range(1500):
                rows.append(make_rows(i, i + 1))
            assert numbers(rows) == list(range(1500))


def test_erased_rows_are_in_no_part() -> None:
    rows = Rows()
    rows.append(make_rows(0, 100))
    rows.seal()
    assert rows.erase(ids=np.array([13, 500], np.uint64)) == 1
    assert 13 not in np.concatenate([part.arrays["ids"] for part in rows.save()[2].values()])
    assert rows.erase(ids=np.array([13], np.uint64)) == 0


def test_a_part_holds_a_batch_unchanged() -> None:
    for texts in (False, True):
        batch = make_rows(3, 20, texts=texts)
        found, notes = decode(encode(batch, {"loss": np.arange(17.0)}))
        assert same_rows(found, batch) and notes["loss"].tolist() == list(range(17))


def test_columns_of_no_width_and_missing_columns() -> None:
    batch = Batch(
        numbers=np.empty((4, 0)),
        categories=np.empty((4, 0), np.uint64),
        times=np.empty((4, 0), np.int64),
        ids=np.arange(4, dtype=np.uint64),
    )
    assert same_rows(decode(encode(batch, {}))[0], batch)
    rows = Rows()
    rows.append(batch)
    rows.seal()
    assert rows.latest is None
    with pytest.raises(InputError, match="have no 'y'"):
        rows.column("y")


def test_a_part_does_not_keep_a_larger_array_in_memory() -> None:
    large = make_rows(0, 1000)
    part = encode(large.take(slice(5)), {})
    assert all(array.base is None for array in part.arrays.values())


def test_a_target_of_other_objects_is_refused() -> None:
    batch = make_rows(0, 2).with_y(np.array(["a", 3], dtype=object))
    with pytest.raises(InputError, match="numbers or texts, not 3"):
        Block.of(batch, {})


@pytest.mark.parametrize(
    "damage",
    [
        {"sizes": [101]},
        {"sizes": [100, 5], "spans": [None, None]},
        {"partial": [0]},
        {"spans": []},
        {"sizes": "x"},
    ],
)
def test_a_damaged_index_is_refused(damage: dict[str, object]) -> None:
    rows = Rows()
    rows.append(make_rows(0, 100))
    rows.seal()
    meta, arrays, parts = rows.save()
    with pytest.raises(InputError, match=r"damaged|index says"):
        numbers(Rows.load({**meta, **damage}, arrays, parts))


def test_a_part_of_something_else_is_refused() -> None:
    part = encode(make_rows(0, 5), {})
    part.meta["numbers"] = "many"
    with pytest.raises(InputError, match="does not hold remembered rows"):
        decode(part)


def test_a_block_is_of_65536_rows() -> None:
    rows = Rows()
    rows.append(make_rows(0, 2 * BLOCK + 1))
    rows.seal()
    assert rows.blocks == [BLOCK, BLOCK, 1]
