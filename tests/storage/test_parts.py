"""Parts come back as they were, from the same bytes, and are stored once."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from everlearn.base import IntegrityError, NotFoundError, Part, state_digest
from everlearn.storage import parts as module
from everlearn.storage.blobs import Blobs
from everlearn.storage.parts import PartStore, decode_part, encode_part
from everlearn.storage.stores import open_blobs

DTYPES = st.one_of(
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(sizes=(16, 32, 64), endianness="?"),
    hnp.boolean_dtypes(),
    hnp.complex_number_dtypes(sizes=(64, 128)),
    hnp.unicode_string_dtypes(max_len=5),
    hnp.byte_string_dtypes(max_len=5),
    hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(),
)
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0)))
META = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return open_blobs(tmp_path / "blobs")


def _count(blobs: Blobs) -> int:
    return len(list(blobs.list()))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), ARRAYS, max_size=4), META)
def test_a_part_comes_back_equal(arrays: dict, meta: object) -> None:
    part = Part(arrays, meta)
    data = encode_part(part)
    found = decode_part(data)
    assert found.digest == part.digest and encode_part(found) == data
    for name, array in arrays.items():
        assert found.arrays[name].shape == array.shape
        assert found.arrays[name].dtype == array.dtype.newbyteorder("<")


def test_bytes_do_not_depend_on_layout_or_order() -> None:
    table = np.arange(12.0).reshape(3, 4)
    one = Part({"a": table, "b": table[:, 1]}, {"x": 1, "y": 2})
    other = Part(
        {"b": table[:, 1].copy(), "a": np.asfortranarray(table).astype(">f8")}, {"y": 2, "x": 1}
    )
    assert encode_part(one) == encode_part(other) and one.digest == other.digest


def test_arrays_that_were_loaded_may_not_be_written_to(blobs: Blobs) -> None:
    manifest = PartStore(blobs).save({"a": Part({"x": np.zeros(3), "t": np.array(["a"])})})
    part = PartStore(blobs).load(manifest)["a"]
    for array in part.arrays.values():
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[0]


def test_objects_are_not_stored(blobs: Blobs) -> None:
    with pytest.raises(TypeError, match="object"):
        PartStore(blobs).save({"a": Part({"x": np.array([{}], dtype=object)})})


def _with_header(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04K\x01.",
        encode_part(Part({"x": np.arange(4)}))[:-1],
        (2**62).to_bytes(8, "little") + b"{}",
        _with_header({}),
        _with_header({"__metadata__": {"json": "[]"}}),
        _with_header({"__metadata__": {"json": '{"meta": 1, "foreign": {"x": ["O", [1]]}}'}}),
        _with_header({"x": {"dtype": "F64", "shape": [9], "data_offsets": [0, 8]}}, bytes(8)),
        _with_header(
            {
                "__metadata__": {"json": '{"meta": 1, "foreign": {"x": ["|O", [1]]}}'},
                "x": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
            },
            bytes(8),
        ),
    ],
)
def test_what_is_no_part_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="part 'p'"):
        decode_part(data, "part 'p'")


def test_parts_are_read_when_they_are_used(blobs: Blobs) -> None:
    manifest = PartStore(blobs).save({"a": Part({"x": np.arange(3)}), "b": Part(meta=[1])})
    loaded = PartStore(blobs).load(manifest)
    blobs.delete(manifest["a"]["blob"])
    assert loaded["b"].meta == [1] and state_digest(loaded) == state_digest(loaded)
    with pytest.raises(NotFoundError, match=manifest["a"]["blob"]):
        _ = loaded["a"].arrays


def test_a_released_part_is_loaded_again(blobs: Blobs) -> None:
    part = Part({"x": np.arange(1000)})
    PartStore(blobs).save({"a": part})
    before = part.digest
    part.release()
    assert part._arrays is None
    assert np.array_equal(part.arrays["x"], np.arange(1000)) and part.digest == before


def test_a_flipped_byte_is_refused_and_named(blobs: Blobs) -> None:
    manifest = PartStore(blobs).save({"a": Part({"x": np.arange(10)})})
    blob = manifest["a"]["blob"]
    path = Path(blobs.url) / blob[:2] / blob[2:]
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        data = bytearray(whole)
        data[position] ^= 1 << position % 8
        path.write_bytes(data)
        with pytest.raises(IntegrityError, match=blob):
            _ = PartStore(blobs).load(manifest)["a"].arrays


def test_a_manifest_that_names_the_wrong_blob_is_refused(blobs: Blobs) -> None:
    manifest = PartStore(blobs).save({"a": Part(meta={"n": 1}), "b": Part(meta={"n": 2})})
    manifest["a"]["blob"] = manifest["b"]["blob"]
    with pytest.raises(IntegrityError, match="part 'a'"):
        _ = PartStore(blobs).load(manifest)["a"].meta


def test_equal_parts_are_stored_once(blobs: Blobs) -> None:
    store = PartStore(blobs)
    manifest = store.save({"a": Part({"x": np.arange(10)}), "b": Part({"x": np.arange(10)})})
    assert manifest["a"] == manifest["b"] and _count(blobs) == 1


def test_ten_thousand_versions_cost_one_reservoir(blobs: Blobs) -> None:
    store, reservoir = PartStore(blobs), Part({"rows": np.zeros((2000, 20))})
    state = {"memory": reservoir, "learner": Part({"w": np.zeros(3)})}
    manifest = store.save(state)
    for step in range(50):
        state = store.load(manifest) | {"learner": Part({"w": np.full(3, step)})}
        manifest = PartStore(blobs).save(state, known=manifest)
    assert sum(info.size for info in blobs.list()) < 2000 * 20 * 8 + 51 * 300


def test_a_known_part_is_neither_read_nor_written(blobs: Blobs) -> None:
    manifest = PartStore(blobs).save({"a": Part({"x": np.arange(10)})})
    blobs.delete(manifest["a"]["blob"])
    lazy = PartStore(blobs).load(manifest)
    assert PartStore(blobs).save({"renamed": lazy["a"]}, known=manifest) == {
        "renamed": manifest["a"]
    }
    assert _count(blobs) == 0


def test_a_part_that_was_collected_since_is_stored_again(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, part = PartStore(blobs), Part({"x": np.arange(10)})
    manifest = store.save({"a": part})
    blobs.delete(manifest["a"]["blob"])
    monkeypatch.setattr(module, "_CONFIRM_SECONDS", 0.0)
    assert store.save({"a": part}) == manifest
    assert np.array_equal(PartStore(blobs).load(manifest)["a"].arrays["x"], np.arange(10))


def test_what_was_stored_is_remembered_within_bounds(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 5)
    store = PartStore(blobs)
    for step in range(12):
        store.save({"a": Part(meta=step)})
    assert len(store._stored) == 5 and _count(blobs) == 12
