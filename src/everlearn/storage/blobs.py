"""Blobs: immutable bytes named by their BLAKE3 digest, in a folder or in an object store.

A blob has its name only once it is whole: it is written under a temporary name, made durable,
read back and compared, and then named. Whoever holds a digest therefore holds whole bytes, or gets
an `IntegrityError` that names the digest.
"""

from __future__ import annotations

import errno
import os
import secrets
import string
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from everlearn.base import InputError, IntegrityError, NotFoundError, StorageError

_HEX = frozenset(string.hexdigits.lower())
_STALE_SECONDS = 86_400
RENEW_SECONDS = 1800
"""`put` and `touch` leave every blob younger than this; a collection's grace must be longer."""
_WRITE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What a listing says of one blob.

    Args:
        digest: BLAKE3, 64 hexadecimal digits.
        size: bytes.
        modified: when it was written, or last confirmed by `touch`; microseconds since 1970 UTC.
    """

    digest: str
    size: int
    modified: int

    def is_older_than(self, seconds: float) -> bool:
        """Whether it was written, or touched, longer ago than that."""
        return self.modified < (time.time() - seconds) * 1e6


class Blobs(ABC):
    """A store of immutable bytes, addressed by digest. Safe for many threads and processes."""

    url: str
    """Where it is, in the form that `open_blobs` takes."""

    @abstractmethod
    def put(self, data: bytes | memoryview) -> str:
        """Store the bytes, durably, and return their digest. Costs no write if they are there.

        Raises:
            StorageError: full, unreachable, or what was read back differs. Nothing was named.
        """

    @abstractmethod
    def get(self, digest: str) -> bytes:
        """The bytes of that digest.

        Raises:
            NotFoundError: there is no such blob.
            IntegrityError: the stored bytes have another digest.
            StorageError: the store failed.
        """

    @abstractmethod
    def info(self, digest: str) -> BlobInfo | None:
        """Size and age of a blob, or None if there is none. Does not read its bytes."""

    @abstractmethod
    def list(self) -> Iterator[BlobInfo]:
        """All blobs, in the order of their digests within a listing's page; for collection."""

    @abstractmethod
    def delete(self, digest: str) -> None:
        """Remove a blob; no error if there is none."""

    def has(self, digest: str) -> bool:
        """Whether there is a blob of that digest."""
        return self.info(digest) is not None

    def size(self, digest: str) -> int:
        """Bytes of a blob.

        Raises:
            NotFoundError: there is no such blob.
        """
        info = self.info(digest)
        if info is None:
            raise missing(digest, self.url)
        return info.size

    def touch(self, digest: str) -> bool:
        """Renew the age of a blob that is about to be referred to again, so that a collection
        with a grace period spares it. False if there is none.
        """
        info = self.info(digest)
        if info is None:
            return False
        if info.is_older_than(RENEW_SECONDS):
            self.put(self.get(digest))
        return True


class FolderBlobs(Blobs):
    """Blobs as files ``ab/cdef…`` of a folder, made durable by fsync of file and folder.

    Args:
        folder: where they lie; made if it is missing.

    Raises:
        StorageError: the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._root = Path(folder).absolute()
        self._temporary = self._root / "tmp"
        self._durable_shards: set[str] = set()
        self.url = str(self._root)
        with _failures(f"the blob folder {self._root} cannot be used"):
            _make_folder(self._temporary)
            self._remove_stale()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url,)

    def put(self, data: bytes | memoryview) -> str:
        digest = blake3(data).hexdigest()
        path = self._path(digest)
        with _failures(f"blob {digest} could not be written to {self._root}"):
            self._make_shard(path.parent)
            if not self._is_whole(path, data):
                self._write(path, data, digest)
            _fsync_folder(path.parent)
        return digest

    def get(self, digest: str) -> bytes:
        path = self._path(digest)
        with _failures(f"blob {digest} could not be read from {self._root}"):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                raise missing(digest, self.url) from None
        verify(data, digest, str(path))
        return data

    def info(self, digest: str) -> BlobInfo | None:
        with _failures(f"blob {digest} could not be looked up in {self._root}"):
            try:
                found = self._path(digest).stat()
            except FileNotFoundError:
                return None
        return BlobInfo(digest, found.st_size, found.st_mtime_ns // 1000)

    def list(self) -> Iterator[BlobInfo]:
        with _failures(f"the blob folder {self._root} could not be listed"):
            shards = sorted(name for name in os.listdir(self._root) if _is_hex(name, 2))
            for shard in shards:
                for rest in sorted(os.listdir(self._root / shard)):
                    if _is_hex(rest, 62) and (info := self.info(shard + rest)) is not None:
                        yield info

    def delete(self, digest: str) -> None:
        with _failures(f"blob {digest} could not be removed from {self._root}"):
            self._path(digest).unlink(missing_ok=True)

    def touch(self, digest: str) -> bool:
        with _failures(f"blob {digest} could not be looked up in {self._root}"):
            try:
                os.utime(self._path(digest))
            except FileNotFoundError:
                return False
        return True

    def _path(self, digest: str) -> Path:
        check_digest(digest)
        return self._root / digest[:2] / digest[2:]

    def _make_shard(self, shard: Path) -> None:
        """Make the folder, durably, before the first blob that this process puts into it."""
        if shard.name in self._durable_shards:
            return
        with suppress(FileExistsError):
            os.mkdir(shard)
        _fsync_folder(self._root)
        self._durable_shards.add(shard.name)

    def _is_whole(self, path: Path, data: bytes | memoryview) -> bool:
        """Whether these very bytes lie there; if so, their age is renewed."""
        try:
            if path.stat().st_size != memoryview(data).nbytes or path.read_bytes() != data:
                return False
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _write(self, path: Path, data: bytes | memoryview, digest: str) -> None:
        temporary = self._temporary / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
                _verify_written(descriptor, digest)
            finally:
                os.close(descriptor)
            os.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def _remove_stale(self) -> None:
        """Remove what writers that were killed more than a day ago left behind."""
        oldest = time.time() - _STALE_SECONDS
        for entry in os.scandir(self._temporary):
            with suppress(FileNotFoundError):
                if entry.stat().st_mtime < oldest:
                    os.unlink(entry.path)


def check_digest(digest: str) -> None:
    """Raise `InputError` unless it is a BLAKE3 digest, so that no digest is ever a path."""
    if not is_digest(digest):
        raise InputError(f"a blob's digest has 64 hexadecimal digits, not {digest!r}")


def verify(data: bytes, digest: str, place: str) -> None:
    """Raise `IntegrityError`, naming digest and place, unless the bytes have that digest."""
    found = blake3(data).hexdigest()
    if found != digest:
        raise IntegrityError(
            f"blob {digest} is damaged: the {len(data)} bytes at {place} have digest {found}; "
            f"restore it from a backup"
        )


def missing(digest: str, place: str) -> NotFoundError:
    """The error for a blob that is not there."""
    return NotFoundError(f"there is no blob {digest} in {place}; it may have been collected")


def is_digest(text: str) -> bool:
    """Whether the text has the form of a blob's digest."""
    return _is_hex(text, 64)


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and _HEX.issuperset(text)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view[:_WRITE_BYTES]) :]


def _verify_written(descriptor: int, digest: str) -> None:
    """Read the file back and compare: what is named must be what was meant."""
    hasher = blake3()
    os.lseek(descriptor, 0, os.SEEK_SET)
    while piece := os.read(descriptor, _WRITE_BYTES):
        hasher.update(piece)
    if hasher.hexdigest() != digest:
        raise OSError(errno.EIO, "what was read back differs from what was written")


def _make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, each with its name made durable."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        with suppress(FileExistsError):
            os.mkdir(folder)
        _fsync_folder(folder.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Turn an operating system's error into a `StorageError` that says what failed, and why."""
    try:
        yield
    except (StorageError, NotFoundError):
        raise
    except OSError as error:
        advice = "free some space and run again" if error.errno in _FULL else "see the cause"
        raise StorageError(
            error.errno or errno.EIO, f"{what}: {error.strerror or error}; {advice}"
        ) from error


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
