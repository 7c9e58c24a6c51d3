"""Slices of sources, what was consumed of them before, and the pieces in which they are read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import pyarrow as pa

from everlearn.base import InputError, Json, canonical_json, digest_bytes


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows `start` … `stop - 1` of one source, frozen when a job is planned. JSON.

    Args:
        source: name of the source, for people: the path as it was given, or a table's name.
        kind: "csv", "parquet", "ipc" or "spool" (Arrow IPC pieces in the blob store).
        location: absolute path of the file; empty for "spool".
        start, stop: first row, and one past the last; counted from 0 at the source's first row.
        size: bytes of the source up to `stop`.
        digest: of the source's content from row 0 to `stop`.
        names: the columns of the source, in its order.
        options: what the format needs for reading it again.
    """

    source: str
    kind: str
    location: str
    start: int
    stop: int
    size: int
    digest: str
    names: tuple[str, ...]
    options: Mapping[str, Json] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @property
    def fingerprint(self) -> str:
        """SHA-256 of which rows these are: content and range, whatever the source is called."""
        same: Json = [self.kind, self.digest, self.start, self.stop]
        if "erased" in self.options:  # rows of it are there no more
            same.append(self.options["erased"])
        if "withdrawn" in self.options:
            same.append(["withdrawn", self.options["withdrawn"]["blob"]])
        return digest_bytes(canonical_json(same))

    def to_json(self) -> Json:
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        return plain | {"names": list(self.names), "options": dict(self.options)}

    @classmethod
    def from_json(cls, value: Json) -> Slice:
        return cls(**(dict(value) | {"names": tuple(value["names"])}))

    def with_options(self, **changes: Json) -> Slice:
        return replace(self, options={**self.options, **changes})


@dataclass(frozen=True, slots=True)
class Consumed:
    """What a lineage has learned of a source: its rows from 0 to `stop`, by content.

    Args:
        source, kind, location, stop, size, digest: as in the `Slice` that was learned; the
            location is the one at which it was planned, if it was copied since.
        row_digest: running digest of the compiled rows 0 … stop - 1 (see `RowDigest`), by which a
            Parquet file that was written anew and longer is recognised; empty if unknown.
    """

    source: str
    kind: str
    location: str
    stop: int
    size: int
    digest: str
    row_digest: str = ""

    @classmethod
    def of(cls, part: Slice, row_digest: str = "") -> Consumed:
        location = part.options.get("origin", part.location)
        return cls(part.source, part.kind, location, part.stop, part.size, part.digest, row_digest)

    @classmethod
    def from_increment(cls, row: Mapping[str, Any]) -> Consumed:
        """From a row of the table `increments` (its columns `slice` and `reasons`)."""
        return cls.of(Slice.from_json(row["slice"]), row["reasons"].get("row_digest", ""))


@dataclass(frozen=True, slots=True)
class Place:
    """Where reading may begin: a row, its byte offset in a CSV file, the event time before it."""

    row: int
    offset: int = 0

    def to_json(self) -> Json:
        return [self.row, self.offset]

    @classmethod
    def from_json(cls, value: Json) -> Place:
        return cls(*value)


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows of a slice as they were read.

    Args:
        place: the first row, and from where it can be read again.
        table: the rows; columns that the format lacks are not in it.
        bad: row within the piece → reason why it could not be read; its cells are null.
    """

    place: Place
    table: pa.RecordBatch
    bad: Mapping[int, str] = field(default_factory=dict)


class PieceReader(Protocol):
    """Reads one slice of one format, in pieces of bounded size."""

    def pieces(self, place: Place | None) -> Iterator[Piece]:
        """The pieces from the one that `place` begins (the slice's first without it) to the end.

        Raises:
            ChangedError: the bytes are not those that were planned.
        """
        ...

    def close(self) -> None: ...


def nearest(name: str, names: Iterable[str]) -> str:
    """A clause for an error message: which of the names that exist may have been meant."""
    known = list(names)
    lower = {item.lower(): item for item in known}
    close = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)
    close = close[:1] if close and close[0] == name.lower() else close
    if close:
        return "did you mean " + " or ".join(repr(lower[item]) for item in close) + "?"
    shown = ", ".join(repr(item) for item in known[:20]) + (", …" if len(known) > 20 else "")
    return f"there are {shown}"


def require(wanted: Sequence[str], names: Sequence[str], source: str) -> None:
    """Check that a source has the columns that are wanted.

    Raises:
        InputError: some are missing; the message names each, and the nearest that exists.
    """
    there = set(names)
    missing = [name for name in wanted if name not in there]
    if missing:
        hints = "; ".join(f"no column {name!r} ({nearest(name, names)})" for name in missing)
        raise InputError(f"{source}: {hints}")
