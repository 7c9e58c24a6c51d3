"""Opening a blob store: a folder or an object store, by its URL."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import unquote, urlsplit

from everlearn.base import InputError
from everlearn.storage.blobs import Blobs, FolderBlobs
from everlearn.storage.objects import ObjectBlobs


def open_blobs(url: str | os.PathLike[str], **storage_options: Any) -> Blobs:
    """The store at a folder, ``file://…``, or an object store's URL (``s3://bucket/prefix``).

    Args:
        url: a path, or a URL. A folder is made if it is missing; a bucket must exist.
        storage_options: settings of the object store (``endpoint``, ``region``, …); what is
            not given is taken from the environment (``AWS_ENDPOINT_URL``, …).

    Raises:
        InputError: options for a folder, or a URL of an unknown kind.
        StorageError: the folder cannot be made or written.
    """
    text = os.fspath(url)
    scheme = urlsplit(text).scheme if "://" in text else ""
    if scheme in ("", "file"):
        if storage_options:
            raise InputError(f"a folder takes no storage options, got {sorted(storage_options)}")
        return FolderBlobs(unquote(urlsplit(text).path) if scheme else text)
    return ObjectBlobs(text, **storage_options)
