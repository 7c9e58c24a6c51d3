"""The conformance suite of blob stores: what everlearn relies on, for ours and for third parties'.

Subclass it in a test module, and say where the store is::

    class TestMyBlobs(BlobsSuite):
        @pytest.fixture(autouse=True)
        def place(self, tmp_path):
            self.url = f"mystore://{tmp_path}"

        def open_blobs(self):
            return MyBlobs(self.url)
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from blake3 import blake3

from everlearn.base import InputError, NotFoundError, Part, state_digest
from everlearn.storage.blobs import Blobs
from everlearn.storage.parts import PartStore


class BlobsSuite(ABC):
    """Tests that every `Blobs` must pass. Each test begins with an empty store."""

    @abstractmethod
    def open_blobs(self) -> Blobs:
        """A new handle on the store of the running test, always the same store."""

    def test_what_was_put_is_got(self) -> None:
        blobs = self.open_blobs()
        for data in (b"", b"x", bytes(range(256)) * 4096):
            digest = blobs.put(data)
            assert digest == blake3(data).hexdigest()
            assert self.open_blobs().get(digest) == data
            assert blobs.has(digest) and blobs.size(digest) == len(data)

    def test_memory_views_are_bytes(self) -> None:
        blobs = self.open_blobs()
        assert blobs.get(blobs.put(memoryview(b"0123456789")[2:5])) == b"234"

    def test_putting_twice_stores_once(self) -> None:
        blobs = self.open_blobs()
        assert blobs.put(b"same") == self.open_blobs().put(b"same")
        assert len(list(blobs.list())) == 1

    def test_a_missing_blob_is_named(self) -> None:
        blobs, digest = self.open_blobs(), "ab" * 32
        assert not blobs.has(digest) and blobs.info(digest) is None and not blobs.touch(digest)
        for read in (blobs.get, blobs.size):
            error = _error(partial(read, digest), NotFoundError)
            assert digest in str(error)

    def test_a_digest_is_never_a_path(self) -> None:
        blobs = self.open_blobs()
        for wrong in ("../../etc/passwd", "", "AB" * 32, "ab" * 31 + "/x", "ab" * 33):
            for use in (blobs.get, blobs.info, blobs.delete, blobs.touch):
                error = _error(partial(use, wrong), InputError)
                assert repr(wrong) in str(error)

    def test_a_listing_has_every_blob_once(self) -> None:
        blobs = self.open_blobs()
        before = (time.time() - 5) * 1e6
        sizes = {blobs.put(b"%d" % i * i): len(b"%d" % i * i) for i in range(1, 40)}
        found = list(self.open_blobs().list())
        assert {info.digest: info.size for info in found} == sizes and len(found) == len(sizes)
        assert all(before < info.modified < before + 60e6 for info in found)

    def test_what_was_deleted_is_gone(self) -> None:
        blobs = self.open_blobs()
        kept, digest = blobs.put(b"kept"), blobs.put(b"gone")
        blobs.delete(digest)
        blobs.delete(digest)
        assert [info.digest for info in blobs.list()] == [kept]
        assert blobs.put(b"gone") == digest and blobs.get(digest) == b"gone"

    def test_touch_finds_a_blob_and_leaves_it_young(self) -> None:
        blobs = self.open_blobs()
        digest = blobs.put(b"touched")
        assert blobs.touch(digest)
        info = blobs.info(digest)
        assert info is not None and not info.is_older_than(600) and info.size == 7

    def test_many_threads_put_the_same_and_different_blobs(self) -> None:
        blobs = self.open_blobs()
        data = [b"blob %d" % (i % 10) for i in range(80)]
        with ThreadPoolExecutor(8) as pool:
            digests = list(pool.map(blobs.put, data))
        assert [blobs.get(digest) for digest in digests] == data
        assert len(list(blobs.list())) == 10

    def test_a_state_comes_back_and_unchanged_parts_are_shared(self) -> None:
        import numpy as np

        blobs = self.open_blobs()
        first = {"a": Part({"x": np.arange(1000.0)}), "b": Part(meta={"step": 1})}
        second = {"a": first["a"], "b": Part(meta={"step": 2})}
        manifest = PartStore(blobs).save(first)
        count = len(list(blobs.list()))
        later = PartStore(self.open_blobs()).save(second, known=manifest)
        assert later["a"] == manifest["a"] and len(list(blobs.list())) == count + 1
        for state, entries in ((first, manifest), (second, later)):
            loaded = PartStore(self.open_blobs()).load(entries)
            assert state_digest(loaded) == state_digest(state)
            assert np.array_equal(loaded["a"].arrays["x"], np.arange(1000.0))


def _error(call: Callable[[], object], kind: type[Exception]) -> Exception:
    """The exception of that kind that the call raises."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{call} should have raised {kind.__name__}")
