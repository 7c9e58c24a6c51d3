"""Blobs in an object store (S3 and what speaks its protocol, GCS, Azure), through obstore.

An object appears whole or not at all, and a put that returned is durable, so that nothing is
written under a temporary name here; each upload carries a SHA-256 that the store compares.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from blake3 import blake3

from everlearn.base import InputError, MissingDependencyError, StorageError
from everlearn.storage.blobs import (
    RENEW_SECONDS,
    BlobInfo,
    Blobs,
    check_digest,
    is_digest,
    missing,
    verify,
)

_ONE_REQUEST_BYTES = 256 << 20
_MAX_RETRIES = 8


class ObjectBlobs(Blobs):
    """Blobs as objects ``ab/cdef…`` below a prefix of a bucket.

    Threads may share one; a process that was forked (not spawned) may not use its parent's.

    Args:
        url: ``s3://bucket/prefix``, or another URL that obstore knows.
        storage_options: obstore's settings of the store (``endpoint``, ``region``,
            ``access_key_id``, …), of its client (``timeout``, ``proxy_url``, …), and
            ``max_retries`` (8: half a minute of waiting in all). What is not given comes from
            the environment (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, …).

    Raises:
        InputError: a URL or an option that obstore does not know.
    """

    def __init__(self, url: str, **storage_options: Any) -> None:
        self.url = url.rstrip("/")
        self._options = dict(storage_options)
        self._store = _open_store(self.url, storage_options)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.url, self._options)

    def put(self, data: bytes | memoryview) -> str:
        import obstore

        digest = blake3(data).hexdigest()
        size = memoryview(data).nbytes
        if self._is_there(digest, data, size):
            return digest
        with _failures(f"blob {digest} could not be written to {self.url}"):
            multipart = size > _ONE_REQUEST_BYTES
            obstore.put(self._store, _key(digest), bytes(data), use_multipart=multipart)
        found = self.info(digest)
        if found is None or found.size != size:
            raise StorageError(
                f"blob {digest} of {size} bytes was put to {self.url}, which now says {found}"
            )
        return digest

    def get(self, digest: str) -> bytes:
        import obstore

        key = _key(digest)
        with _failures(f"blob {digest} could not be read from {self.url}"):
            try:
                data = bytes(obstore.get(self._store, key).bytes())
            except (FileNotFoundError, obstore.exceptions.NotFoundError):
                raise missing(digest, self.url) from None
        verify(data, digest, self.url)
        return data

    def info(self, digest: str) -> BlobInfo | None:
        import obstore

        key = _key(digest)
        with _failures(f"blob {digest} could not be looked up in {self.url}"):
            try:
                return _info(digest, obstore.head(self._store, key))
            except (FileNotFoundError, obstore.exceptions.NotFoundError):
                return None

    def list(self) -> Iterator[BlobInfo]:
        import obstore

        with _failures(f"the blobs in {self.url} could not be listed"):
            for page in obstore.list(self._store):
                for item in page:
                    shard, _, rest = item["path"].partition("/")
                    if len(shard) == 2 and is_digest(shard + rest):
                        yield _info(shard + rest, item)

    def delete(self, digest: str) -> None:
        import obstore

        key = _key(digest)
        with (
            _failures(f"blob {digest} could not be removed from {self.url}"),
            suppress(FileNotFoundError, obstore.exceptions.NotFoundError),
        ):
            obstore.delete(self._store, key)

    def _is_there(self, digest: str, data: bytes | memoryview, size: int) -> bool:
        """Whether these bytes are there, and young enough for a collection to spare them. The
        store compared them when they were put; one that is old is put again, which renews it."""
        found = self.info(digest)
        return found is not None and found.size == size and not found.is_older_than(RENEW_SECONDS)


def _open_store(url: str, options: Mapping[str, Any]) -> Any:
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise MissingDependencyError("object stores need obstore: pip install obstore") from error
    client = {name: value for name, value in options.items() if name in _CLIENT_OPTIONS}
    config: Any = {name: value for name, value in options.items() if name not in client}
    if url.startswith(("s3:", "s3a:")):
        config.setdefault("checksum_algorithm", "SHA256")
        places = (config.get("endpoint"), *(os.environ.get(name) for name in _ENDPOINTS))
        endpoint = next((place for place in places if place), "")
        if endpoint.startswith("http://"):
            client.setdefault("allow_http", True)
    try:
        typed: Any = client
        retries: Any = {"max_retries": config.pop("max_retries", _MAX_RETRIES)}
        return from_url(
            url, config=config or None, client_options=typed or None, retry_config=retries
        )
    except Exception as error:
        raise InputError(f"blob store {url!r} cannot be opened: {error}") from error


_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CLIENT_OPTIONS = frozenset(
    {
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "proxy_ca_certificate",
        "proxy_excludes",
        "proxy_url",
        "root_certificate",
        "timeout",
        "user_agent",
    }
)


def _reopen(url: str, options: dict[str, Any]) -> ObjectBlobs:
    return ObjectBlobs(url, **options)


def _key(digest: str) -> str:
    check_digest(digest)
    return f"{digest[:2]}/{digest[2:]}"


def _info(digest: str, item: Any) -> BlobInfo:
    return BlobInfo(digest, int(item["size"]), int(item["last_modified"].timestamp() * 1e6))


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Turn obstore's errors into a `StorageError` that says what failed."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError) as error:
        if isinstance(error, StorageError):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise StorageError(errno.EIO, f"{what}: {reason}") from error
