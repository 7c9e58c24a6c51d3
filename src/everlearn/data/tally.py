"""The account of an increment: of every row that was read, whether it was learned or why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from everlearn.base import Hashes, Ints, Json
from everlearn.data.guards import EXAMPLES, kind_of
from everlearn.data.hashing import RowDigest
from everlearn.data.slices import Slice


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of rows `start` … `stop - 1` of a source.

    Always rows + held_out + set_aside + duplicates = stop - start.

    Args:
        source: its name.
        start, stop: the rows that were read.
        rows: learned (or given out to be learned).
        held_out: kept out of learning for the gate.
        set_aside: not fit for learning; `reasons` says why.
        duplicates: their id was seen before.
        digest: of the source's content up to the end of the slice.
        reasons: {"set_aside": {reason: count}, "examples": [{"row", "reason"}, …], "notes":
            {note: count}, "row_digest": running digest of the compiled rows 0 … stop - 1}.
    """

    source: str
    start: int
    stop: int
    rows: int
    held_out: int
    set_aside: int
    duplicates: int
    digest: str
    reasons: Json

    def to_json(self) -> Json:
        return {item.name: getattr(self, item.name) for item in fields(self)}


LEARNED, HELD, ASIDE, TWICE, DISORDER = range(5)
"""Columns of the counts. The last is a note, not a fate of rows."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The account at one moment."""

    counts: Ints
    sums: Hashes
    reasons: tuple[Mapping[str, Any], ...]

    def to_json(self) -> Json:
        """Only the slices of which something was read."""
        touched = np.flatnonzero(self.counts.any(axis=1))
        return {
            str(k): {
                "counts": self.counts[k].tolist(),
                "sums": RowDigest.text(self.sums[k]),
                "reasons": dict(self.reasons[k]),
            }
            for k in touched.tolist()
        }


_NO_REASONS: Mapping[str, Any] = {"set_aside": {}, "examples": []}


class Account:
    """Counts by slice. Used by one thread.

    Args:
        slices: of the increment.
        saved: what `Snapshot.to_json` gave, to go on from there.
    """

    def __init__(self, slices: Sequence[Slice], saved: Json = None) -> None:
        self.slices = slices
        self.counts = np.zeros((len(slices), 5), np.int64)
        starts = [RowDigest.parse(part.options.get("row_digest", "")) for part in slices]
        self.sums = np.array(starts, np.uint64).reshape(len(slices), 2)
        self._reasons: list[Mapping[str, Any]] = [_NO_REASONS] * len(slices)
        for key, item in (saved or {}).items():
            self.counts[int(key)] = item["counts"]
            self.sums[int(key)] = RowDigest.parse(item["sums"])
            self._reasons[int(key)] = item["reasons"]

    @classmethod
    def empty(cls, slices: Sequence[Slice]) -> Account:
        """An account of nothing, to be merged into another."""
        found = cls(slices)
        found.sums[:] = 0
        return found

    def merge(self, other: Account) -> None:
        """Count what another account of the same slices counted."""
        self.counts += other.counts
        self.sums += other.sums
        for part in np.flatnonzero(other.counts[:, ASIDE]).tolist():
            mine, theirs = self._reasons[part], other._reasons[part]
            counts = dict(mine["set_aside"])
            for reason, count in theirs["set_aside"].items():
                counts[reason] = counts.get(reason, 0) + count
            examples = [*mine["examples"], *theirs["examples"]][:EXAMPLES]
            self._reasons[part] = {"set_aside": counts, "examples": examples}

    def refuse(self, part: int, rows: Sequence[tuple[int, str]]) -> None:
        """Set aside rows that were counted as learned: (row, reason) each."""
        self.counts[part, LEARNED] -= len(rows)
        self.set_aside(part, rows)

    def set_aside(self, part: int, rows: Sequence[tuple[int, str]]) -> None:
        """Count rows of slice number `part` as set aside: (row, reason) each."""
        if not rows:
            return
        old = self._reasons[part]
        counts, examples = dict(old["set_aside"]), list(old["examples"])
        for reason, count in Counter(reason for _, reason in rows).items():
            kind = kind_of(reason)
            counts[kind] = counts.get(kind, 0) + count
        more = rows[: EXAMPLES - len(examples)]
        examples += [{"row": row, "reason": reason} for row, reason in more]
        self._reasons[part] = {"set_aside": counts, "examples": examples}
        self.counts[part, ASIDE] += len(rows)

    def snapshot(self) -> Snapshot:
        """The account as it is now; it does not change with later counts."""
        return Snapshot(self.counts.copy(), self.sums.copy(), tuple(self._reasons))

    def tallies(self) -> list[Tally]:
        """One tally for each slice of which something was read."""
        found = []
        for k, part in enumerate(self.slices):
            learned, held, aside, twice, disorder = self.counts[k].tolist()
            read = learned + held + aside + twice
            if not read:
                continue
            notes = {"times out of order": disorder} if disorder else {}
            extra = {"notes": notes, "row_digest": RowDigest.text(self.sums[k])}
            reasons = {**self._reasons[k], **extra}
            found.append(
                Tally(
                    source=part.source,
                    start=part.start,
                    stop=part.start + read,
                    rows=learned,
                    held_out=held,
                    set_aside=aside,
                    duplicates=twice,
                    digest=part.digest,
                    reasons=reasons,
                )
            )
        return found
