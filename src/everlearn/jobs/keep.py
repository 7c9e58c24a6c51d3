"""`--keep`: a copy of a file in the workspace, so that the original may be moved away."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from everlearn.base import ChangedError, InputError, StorageError
from everlearn.data.files import scan
from everlearn.data.slices import Slice


def keep(piece: Slice, blobs_url: str) -> Slice:
    """Copy a slice's file beside the workspace's blobs, durably, and read it there from now on.

    The copy has its name only once it was read back and found to be what was planned.

    Raises:
        InputError: the blobs are not in a folder.
        ChangedError: the file was changed since it was planned.
        StorageError: the copy cannot be written.
    """
    if not piece.location:
        return piece
    if "://" in blobs_url and not blobs_url.startswith("file://"):
        raise InputError(f"--keep copies files into a folder, and the blobs are at {blobs_url}")
    folder = Path(f"{blobs_url.removeprefix('file://')}-kept")
    target = folder / f"{piece.digest}{Path(piece.location).suffix}"
    partial = target.with_suffix(f".{secrets.token_hex(4)}.partial")
    try:
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _copy(piece, partial)
            os.replace(partial, target)
            _sync_folder(folder)
            _sync_folder(folder.parent)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        reason = error.strerror or str(error)
        raise StorageError(
            error.errno or errno.EIO, f"{piece.source!r} cannot be kept in {folder}: {reason}"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return replace(piece, location=str(target))


def _copy(piece: Slice, partial: Path) -> None:
    with open(piece.location, "rb") as original, open(partial, "wb") as copy:
        shutil.copyfileobj(original, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())
    if scan(str(partial), [piece.size]).prefixes.get(piece.size) != piece.digest:
        raise ChangedError(f"{piece.source!r} was changed while it was copied; run again")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
