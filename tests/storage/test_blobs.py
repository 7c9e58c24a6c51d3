"""The blob stores' conformance suite, on a folder and on S3, and what is special to each."""

import copy
import os
import time
from pathlib import Path

import pytest

from everlearn.base import InputError, IntegrityError, StorageError
from everlearn.storage.blobs import RENEW_SECONDS, Blobs
from everlearn.storage.stores import open_blobs
from everlearn.testing.blobs import BlobsSuite


class TestFolder(BlobsSuite):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "a folder"

    def open_blobs(self) -> Blobs:
        return open_blobs(self.folder)


class TestS3(BlobsSuite):
    @pytest.fixture(autouse=True)
    def place(self, s3_url: str) -> None:
        self.url = s3_url

    def open_blobs(self) -> Blobs:
        return open_blobs(self.url)


def _path(blobs: Blobs, digest: str) -> Path:
    return Path(blobs.url) / digest[:2] / digest[2:]


@pytest.fixture
def folder(tmp_path: Path) -> Blobs:
    return open_blobs(tmp_path / "blobs")


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    digest = open_blobs(tmp_path / "b c").put(b"x")
    assert open_blobs(f"file://{tmp_path}/b%20c").get(digest) == b"x"


def test_a_folder_takes_no_options(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="endpoint"):
        open_blobs(tmp_path, endpoint="http://x")


def test_an_unknown_kind_of_url_is_refused() -> None:
    with pytest.raises(InputError, match="gopher://x"):
        open_blobs("gopher://x/y")


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        open_blobs(tmp_path / "file")


@pytest.mark.parametrize("position", [0, 5, -1])
def test_a_flipped_byte_is_refused_and_named(folder: Blobs, position: int) -> None:
    digest = folder.put(b"0123456789")
    data = bytearray(b"0123456789")
    data[position] ^= 1
    _path(folder, digest).write_bytes(data)
    with pytest.raises(IntegrityError, match=digest):
        folder.get(digest)


def test_a_shortened_blob_is_refused_and_named(folder: Blobs) -> None:
    digest = folder.put(b"0123456789")
    _path(folder, digest).write_bytes(b"01234")
    with pytest.raises(IntegrityError, match=digest):
        folder.get(digest)


def test_a_damaged_blob_is_replaced_when_it_is_put_again(folder: Blobs) -> None:
    digest = folder.put(b"0123456789")
    _path(folder, digest).write_bytes(b"0123456xxx")
    assert folder.put(b"0123456789") == digest and folder.get(digest) == b"0123456789"


def test_put_and_touch_renew_the_age(folder: Blobs) -> None:
    digest = folder.put(b"old")
    for renew in (lambda: folder.put(b"old"), lambda: folder.touch(digest)):
        os.utime(_path(folder, digest), (1.0, 1.0))
        info = folder.info(digest)
        assert info is not None and info.is_older_than(RENEW_SECONDS)
        renew()
        info = folder.info(digest)
        assert info is not None and not info.is_older_than(RENEW_SECONDS)


def test_strange_files_are_no_blobs(folder: Blobs) -> None:
    digest = folder.put(b"x")
    place = _path(folder, digest).parent
    (place / "README").touch()
    (place / ("g" * 62)).touch()
    (place.parent / "notes").mkdir()
    assert [info.digest for info in folder.list()] == [digest]


def test_what_a_killed_writer_left_is_removed_after_a_day(folder: Blobs) -> None:
    temporary = Path(folder.url) / "tmp"
    (temporary / "young").touch()
    (temporary / "old").touch()
    os.utime(temporary / "old", (time.time() - 100_000,) * 2)
    open_blobs(folder.url)
    assert [path.name for path in temporary.iterdir()] == ["young"]


def test_handles_can_be_copied_for_another_process(blobs_url: str) -> None:
    blobs = open_blobs(blobs_url)
    assert copy.copy(blobs).get(blobs.put(b"x")) == b"x"


def test_s3_takes_options_instead_of_the_environment(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {
        "endpoint": os.environ["AWS_ENDPOINT_URL"],
        "access_key_id": "test",
        "secret_access_key": "test",
        "region": "us-east-1",
    }
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    blobs = open_blobs(s3_url, **options)
    assert copy.copy(blobs).get(blobs.put(b"x")) == b"x"


def test_s3_that_does_not_answer_is_a_storage_error() -> None:
    blobs = open_blobs(
        "s3://bucket/prefix",
        endpoint="http://127.0.0.1:1",
        access_key_id="test",
        secret_access_key="test",
        region="us-east-1",
        max_retries=0,
    )
    with pytest.raises(StorageError, match="s3://bucket/prefix"):
        blobs.put(b"x")


def test_s3_without_its_bucket_is_a_storage_error(s3_url: str) -> None:
    blobs = open_blobs("s3://no-such-bucket-here/prefix")
    with pytest.raises(StorageError):
        blobs.put(b"x")


def test_a_flipped_byte_in_s3_is_refused_and_named(s3_url: str) -> None:
    import obstore

    blobs = open_blobs(s3_url)
    digest = blobs.put(b"0123456789")
    store = blobs._store  # type: ignore[attr-defined]
    obstore.put(store, f"{digest[:2]}/{digest[2:]}", b"012345678x")
    with pytest.raises(IntegrityError, match=digest):
        blobs.get(digest)


def test_s3_has_more_blobs_than_one_page(s3_url: str) -> None:
    blobs = open_blobs(s3_url)
    digests = {blobs.put(b"%d" % i) for i in range(120)}
    assert {info.digest for info in blobs.list()} == digests
