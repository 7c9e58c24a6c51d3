"""Files by content: digests of blocks, verified reading, formats, globs in natural order."""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from blake3 import blake3

from everlearn.base import ChangedError, InputError, Json

BLOCK = 4 << 20
"""Bytes of a block: the unit in which a file is digested, verified and read."""

_DIGEST_BYTES = 16


def block_digest(data: bytes | memoryview) -> str:
    """BLAKE3 of a block, cut to 128 bits, hexadecimal."""
    return blake3(data).hexdigest(_DIGEST_BYTES)


def content_digest(blocks: Sequence[str]) -> str:
    """Digest of the bytes whose block digests these are (all but the last of full size)."""
    return blake3("".join(blocks).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over a file found: size, block digests, and digests of some prefixes."""

    size: int
    blocks: tuple[str, ...]
    prefixes: dict[int, str]
    stamp: tuple[int, ...]

    @property
    def digest(self) -> str:
        return content_digest(self.blocks)


def stamp_of(handle: int) -> tuple[int, ...]:
    """What the file system says of an open file; any write to the file changes it."""
    stat = os.fstat(handle)
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def scan(
    path: str, sizes: Iterable[int] = (), visit: Callable[[int, bytes], None] | None = None
) -> Scan:
    """Digest a file in one pass.

    Args:
        path: the file.
        sizes: byte counts whose prefixes are digested too; those beyond the end are left out.
        visit: called with (offset, bytes) of each block in order.

    Raises:
        InputError: the file cannot be read.
        ChangedError: the file was written to meanwhile.
    """
    wanted = sorted(set(sizes))
    digests: list[str] = []
    prefixes: dict[int, str] = {}
    offset = 0
    with open_file(path) as file:
        stamp, began = stamp_of(file.fileno()), time.time_ns()
        for block in _blocks(file):
            while wanted and wanted[0] <= offset + len(block):
                size = wanted.pop(0)
                head = memoryview(block)[: size - offset]
                prefixes[size] = content_digest([*digests, block_digest(head)] if head else digests)
            digests.append(block_digest(block))
            if visit is not None:
                visit(offset, block)
            offset += len(block)
        if stamp_of(file.fileno()) != stamp:
            raise ChangedError(f"{path!r} was written to while it was read; try again")
    return Scan(offset, tuple(digests), prefixes, stamp if _settled(stamp, began) else ())


def _settled(stamp: tuple[int, ...], now: int) -> bool:
    """Whether a later write is sure to change the stamp: not if the last one is too recent for
    the clock of the file system (10 ms on Linux; whole seconds where it keeps no fractions)."""
    last = max(stamp[3:])
    return now - last > (50_000_000 if last % 1_000_000_000 else 3_000_000_000)


def _blocks(file: FileIO) -> Iterator[bytes]:
    """The file's bytes in blocks, of which only the last may be shorter than BLOCK."""
    while True:
        parts, missing = [], BLOCK
        while missing and (got := file.read(missing)):
            parts.append(got)
            missing -= len(got)
        if parts:
            yield parts[0] if len(parts) == 1 else b"".join(parts)
        if missing:
            return


def open_file(path: str) -> FileIO:
    """Open for reading bytes, unbuffered.

    Raises:
        InputError: there is no such file, it is a folder, or it may not be read.
    """
    try:
        return open(path, "rb", buffering=0)
    except FileNotFoundError:
        raise InputError(f"there is no file {path!r}") from None
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error.strerror}") from error


class VerifiedFile:
    """A file opened for reading whose blocks are compared with their planned digests.

    Args:
        path: the file.
        size: its planned size; it may have grown since.
        blocks: digests of its blocks up to `size`, from block number `first` on.
        stamp: what the file system said of the file when it was digested. As long as it says the
            same, the bytes are the same and are not digested again.
        first: number of the first block that will be read.

    Raises:
        ChangedError: the file is gone or shorter than planned.
    """

    def __init__(
        self, path: str, size: int, blocks: Sequence[str], stamp: Sequence[int] = (), first: int = 0
    ) -> None:
        self.path, self.size = path, size
        self._blocks, self._first = blocks, first
        self._stamp = tuple(stamp)
        self._checked: set[int] = set()
        self._kept: tuple[int, bytes] = (-1, b"")  # the block that was read last
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by close)
        except OSError as error:
            message = f"{path!r} was there when the job was planned: {error.strerror}"
            raise ChangedError(message) from error
        self._opened = stamp_of(self._file.fileno())
        if self._opened[2] < size:
            self.close()
            raise ChangedError(
                f"{path!r} had {size} bytes when the job was planned, now {self._opened[2]}"
            )

    @property
    def unchanged(self) -> bool:
        """Whether the file system says that nobody wrote to the file since it was digested."""
        return stamp_of(self._file.fileno()) == self._stamp

    def verify(self, start: int, stop: int) -> None:
        """Check the blocks that hold bytes `start` … `stop - 1`, each at most once.

        Raises:
            ChangedError: one has another digest than when the job was planned.
        """
        if self.unchanged:
            return
        for number in range(start // BLOCK, -(-min(stop, self.size) // BLOCK)):
            if number not in self._checked:
                self._read_block(number)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes `start` … `stop - 1`, verified; fewer at the end of the planned size."""
        stop = max(min(stop, self.size), start)
        if self.unchanged:
            data = self._pread(start, stop)
            if self.unchanged:
                return data
        parts = []
        for number in range(start // BLOCK, -(-stop // BLOCK)):
            begin = number * BLOCK
            parts.append(self._read_block(number)[max(start - begin, 0) : stop - begin])
        return b"".join(parts)

    def still(self) -> None:
        """Check, after reading by other means, that nobody wrote to the file since it was opened.

        Raises:
            ChangedError: somebody did.
        """
        if stamp_of(self._file.fileno()) != self._opened:
            raise ChangedError(f"{self.path!r} was written to while it was read; plan a new job")

    def _pread(self, start: int, stop: int) -> bytes:
        parts = []
        while start < stop and (got := os.pread(self._file.fileno(), stop - start, start)):
            parts.append(got)
            start += len(got)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_block(self, number: int) -> bytes:
        if self._kept[0] == number:
            return self._kept[1]
        begin = number * BLOCK
        data = self._pread(begin, min(begin + BLOCK, self.size))
        if block_digest(data) != self._blocks[number - self._first]:
            raise ChangedError(
                f"{self.path!r} was changed since the job was planned "
                f"(bytes {begin} to {begin + len(data)}); plan a new job"
            )
        self._checked.add(number)
        self._kept = (number, data)
        return data

    def close(self) -> None:
        self._file.close()


# --- which files, of which format --------------------------------------------------------------

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "ipc",
    ".feather": "ipc",
    ".ipc": "ipc",
}


def natural(text: str) -> list[tuple[int, int | str]]:
    """Sort key by which "part10" comes after "part9"."""
    return [
        (0, int(item)) if item.isdecimal() else (1, item)
        for item in re.split(r"(\d+)", text)
        if item
    ]


def expand(path: str | os.PathLike[str]) -> list[str]:
    """The files that a path or a glob means, in natural order.

    Raises:
        InputError: none, or a folder.
    """
    text = os.fspath(path)
    if os.path.isdir(text):
        raise InputError(f"{text!r} is a folder; name the files in it, such as {text}/*.csv")
    if os.path.exists(text):
        return [text]
    if glob.has_magic(text):
        found = [item for item in glob.glob(text, recursive=True) if os.path.isfile(item)]
        if found:
            return sorted(found, key=natural)
        raise InputError(f"no file matches {text!r}")
    raise InputError(f"there is no file {text!r}")


def format_of(path: str) -> str:
    """ "csv", "parquet" or "ipc", by the first bytes and by the name.

    Raises:
        InputError: the file is empty, compressed, or of no format that is known.
    """
    with open_file(path) as file:
        head: bytes = file.read(8)
    if not head:
        raise InputError(f"{path!r} is empty")
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1"):
        return "ipc"
    suffix = Path(path).suffix.lower()
    kind = _SUFFIXES.get(suffix)
    if kind in ("parquet", "ipc"):
        raise InputError(f"{path!r} does not begin like a file of the format {suffix!r}")
    if head.startswith((b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ")):
        raise InputError(f"{path!r} is compressed; decompress it first")
    if kind is None and b"\x00" in head:
        raise InputError(f"{path!r} is neither CSV nor Parquet nor Arrow IPC")
    return "csv"


def file_options(location: str, found: Scan, offset: int = 0) -> dict[str, Json]:
    """What `VerifiedFile` needs to read from byte `offset` on, and "origin": where the file was
    when it was planned, by which it is recognised. Kept in a slice's options."""
    first = offset // BLOCK
    return {
        "origin": location,
        "blocks": list(found.blocks[first:]),
        "stamp": list(found.stamp),
        "first": first,
    }
