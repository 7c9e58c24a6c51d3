"""The rows that a selection asks for, in all that the versions of a model learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from everlearn.base import Columns, Hashes, InputError, Ints, Schema
from everlearn.data.compiler import Compiler
from everlearn.data.join import LogSource
from everlearn.data.log import FeedbackLog
from everlearn.data.policy import LabelPolicy
from everlearn.data.resettle import Resettling, UnreadableError, readable, unlearned
from everlearn.data.resettle import recorded as refusals
from everlearn.data.selection import Selection, find
from everlearn.data.slices import Slice
from everlearn.data.source import open_reader
from everlearn.data.tables import BlobStore
from everlearn.data.withdrawals import Withdrawals
from everlearn.data.withdrawn import Numbers, without_rows
from everlearn.jobs.plan import Plan
from everlearn.jobs.refold import Change, is_imported, recorded
from everlearn.registry import versions
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Version


@dataclass(frozen=True, slots=True)
class Match:
    """Rows of one increment of a version that were selected.

    Args:
        version, ordinal: whose increment, and the how manieth of it, from 0.
        part: its slice.
        columns: how its rows were compiled.
        rows: ascending numbers of the source's rows; of the log, positions.
        learned: how many of them were not set aside anyway.
    """

    version: int
    ordinal: int
    part: Slice
    columns: Columns
    rows: Ints
    learned: int


@dataclass(slots=True)
class Found:
    """What was selected.

    Args:
        matches: increments that have some of the rows.
        new: positions of labels that no version has taken.
        passed_over: versions whose increments are in another workspace.
    """

    matches: list[Match] = field(default_factory=list)
    new: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    passed_over: list[int] = field(default_factory=list)

    @property
    def learned_by(self) -> set[int]:
        """The versions that learned some of the rows themselves."""
        return {one.version for one in self.matches if one.learned}

    def rows_of(self, part: Slice) -> Ints:
        """Those of a slice of a file or a table: the same, whichever versions learned it."""
        name = part.fingerprint
        mine = (one.rows for one in self.matches if one.part.fingerprint == name)
        return next(mine, np.zeros(0, np.int64))

    @property
    def positions(self) -> Numbers:
        """Of the rows that are labels of the log."""
        parts = [one.rows for one in self.matches if one.part.kind == LogSource.kind]
        return Numbers.of([*parts, self.new])

    @property
    def rows(self) -> int:
        """How many they are; what several versions learned, refused ones say, counts once."""
        files: dict[str, list[Ints]] = {}
        for one in self.matches:
            if one.part.kind != LogSource.kind:
                files.setdefault(one.part.digest, []).append(one.rows)
        return len(self.positions) + sum(len(Numbers.of(parts)) for parts in files.values())


class Finder:
    """Looks for rows in the increments of a model, and in what of its log is not learned yet.

    Args:
        registry: of the workspace.
        name: of the model.
        log: its feedback log.
    """

    def __init__(self, registry: Registry, name: str, log: FeedbackLog) -> None:
        self._registry, self._name, self._log = registry, name, log
        self._blobs = registry.parts.blobs

    def __call__(self, selection: Selection, known: Sequence[Version]) -> Found:
        """The selected rows of all that any version learned, and of the log what none has yet.

        Raises:
            InputError: rows that may be meant cannot be read any more: which version learned them,
                and with which condition the others are found.
            NotFoundError: labels are asked for of predictions of a version that there is not.
        """
        selection = self._dated(selection, known)
        found = Found(passed_over=[v.number for v in known if v.increments and is_imported(v)])
        mine = [v.number for v in known if v.increments and not is_imported(v)]
        parts = [
            (one.version.number, ordinal, part, plan)
            for one in recorded(self._registry, self._name, mine)
            for ordinal, (part, plan) in enumerate(
                (part, plan) for plan in one.plans for part in plan.slices
            )
        ]
        new = self._new([part for _, _, part, _ in parts])
        looked = [(part, plan.columns) for _, _, part, plan in parts]
        columns = looked[-1][1] if looked else Columns()
        selection.check(looked if new is None else [*looked, (new, columns)])
        read = self._read(selection, [(version, part, plan) for version, _, part, plan in parts])
        for version, ordinal, part, plan in parts:
            if len(rows := read[part.fingerprint]):
                learned = self._learned(part, rows)
                found.matches.append(Match(version, ordinal, part, plan.columns, rows, learned))
        if new is not None:
            schema = self._schema(None)
            found.new = find(new, columns, schema, selection, self._blobs, self._log)
        return found

    def _dated(self, selection: Selection, known: Sequence[Version]) -> Selection:
        """A selection with the position before which no label can be meant: a version has not
        answered yet what it, or one before it, learned from."""
        if not selection.version:  # version 0 answers before there is any
            return selection
        with self._registry.database.read() as connection:
            versions.check_exists(connection, self._name, selection.version)
        parts = (
            Slice.from_json(one.slice)
            for version in known
            if version.number <= selection.version and not is_imported(version)
            for one in version.increments
        )
        taken = (part.stop for part in parts if part.kind == LogSource.kind)
        return replace(selection, after=max(taken, default=0))

    def _read(
        self, selection: Selection, parts: Sequence[tuple[int, Slice, Plan]]
    ) -> dict[str, Ints]:
        """Fingerprint of a slice → its selected rows; those of one that was learned by several
        schemas are what any of them selects."""
        found: dict[str, dict[str, Ints]] = {}
        for version, part, plan in parts:
            ways, way = found.setdefault(part.fingerprint, {}), repr(plan.columns)
            if way not in ways:
                schema = self._schema(plan.definition)
                try:
                    rows = find(part, plan.columns, schema, selection, self._blobs, self._log)
                except UnreadableError as error:
                    others = selection.others(part, self._readable_after(parts))
                    raise InputError(
                        f"whether rows that version {version} of {self._name!r} learned are meant"
                        f" cannot be told: {error}; if none of them is, ask for the others:"
                        f" {others}"
                    ) from error
                ways[way] = rows
        return {name: Numbers.of(ways.values()).values for name, ways in found.items()}

    def _readable_after(self, parts: Sequence[tuple[int, Slice, Plan]]) -> int:
        """The position after which all slices of the log can be searched and settled again."""
        first = self._log.first()
        logs = (part for _, part, _ in parts if part.kind == LogSource.kind)
        return max((part.stop for part in logs if part.start < first), default=first)

    def _new(self, parts: Sequence[Slice]) -> Slice | None:
        """The labels of the log that no version has taken."""
        taken = [part.stop for part in parts if part.kind == LogSource.kind]
        return unlearned(self._log, max(taken, default=0))

    def _schema(self, definition: int | None) -> Schema:
        return self._registry.definition(self._name, definition).model().schema

    def _learned(self, part: Slice, rows: Ints) -> int:
        """How many rows of a slice were not set aside when it was planned."""
        if part.kind != LogSource.kind:
            return len(rows)
        return len(rows) - len(refusals(part, self._blobs).keys() & set(rows.tolist()))


def without(registry: Registry, name: str, log: FeedbackLog, found: Found) -> Change:
    """What gives slices without the rows that were found, or withdrawn before."""
    blobs = registry.parts.blobs
    withdrawals = Withdrawals(registry.database, log.model, blobs)
    resettle = Resettling(log, found.positions.values, blobs)

    def change(part: Slice, plan: Plan) -> Slice:
        if part.kind != LogSource.kind:
            with readable(part):
                left = without_rows(part, found.rows_of(part), blobs)
                return withdrawals.applied(left, plan.columns)
        policy = registry.definition(name, plan.definition).model().labels
        return resettle(part, plan.columns, policy or LabelPolicy())

    return change


def ids_of(match: Match, blobs: BlobStore) -> Hashes:
    """(m,) ids of the rows of a match, as hold-outs and memories know them, in the rows' order."""
    found, compiler = [np.zeros(0, np.uint64)], Compiler(match.columns)
    first = 1 if match.part.kind == LogSource.kind else 0  # positions count from 1
    reader = open_reader(match.part, match.columns, blobs)
    try:
        for piece in reader.pieces(None):
            start, rows = piece.place.row + first, piece.table.num_rows
            here = Numbers(match.rows).between(start, start + rows) - start
            if len(here):
                compiled = compiler.compile(piece.table.take(here), {})
                found.append(compiled.ids)
    finally:
        reader.close()
    ids: Hashes = np.concatenate(found)
    return ids
