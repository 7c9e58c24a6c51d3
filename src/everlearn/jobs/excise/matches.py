"""The rows that a selection asks for, in all that the versions of a model learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np

from everlearn.base import Columns, Hashes, InputError, Ints, Schema
from everlearn.data.compiler import Compiler
from everlearn.data.join import LogSource
from everlearn.data.log import FeedbackLog
from everlearn.data.policy import LabelPolicy
from everlearn.data.resettle import Resettling, UnreadableError, readable, unlearned
from everlearn.data.selection import Selection, find
from everlearn.data.slices import Slice
from everlearn.data.source import open_reader
from everlearn.data.tables import BlobStore, Scratch
from everlearn.data.withdrawals import Withdrawals
from everlearn.data.withdrawn import Numbers, without_rows
from everlearn.jobs.excise.fates import Fate, fates
from everlearn.jobs.plan import Plan
from everlearn.jobs.refold import Change, Recorded, is_imported, recorded
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
        ids: of these rows, as hold-outs and memories know them, in their order.
        fate: how many of them the version learned, and how many it held out.
    """

    version: int
    ordinal: int
    part: Slice
    columns: Columns
    rows: Ints
    ids: Hashes
    fate: Fate


@dataclass(slots=True)
class Found:
    """What was selected.

    Args:
        matches: increments that have some of the rows.
        new: positions of labels that no version has taken.
        passed_over: versions whose increments are in another workspace.
        not_read: versions that do not serve, and of which some increment can be read no more → why.
        decided: versions that learned none of the rows, but others otherwise for them: by labels
            that outvoted, joined or took back what others said.
    """

    matches: list[Match] = field(default_factory=list)
    new: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    passed_over: list[int] = field(default_factory=list)
    not_read: dict[int, str] = field(default_factory=dict)
    decided: set[int] = field(default_factory=set)

    @property
    def learned_by(self) -> set[int]:
        """The versions that learned some of the rows themselves, were judged by them, or learned
        others otherwise for them."""
        return self.decided | {one.version for one in self.matches if any(one.fate)}

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

    def __call__(
        self,
        selection: Selection,
        known: Sequence[Version],
        path: Sequence[int] = (),
        marked: Set[int] = frozenset(),
    ) -> Found:
        """The selected rows of all that any version learned, and of the log what none has yet.

        Args:
            path: the champion's lineage. What only other versions learned, and is gone, is passed
                over.
            marked: versions that learned what was withdrawn before.

        Raises:
            InputError: rows that may be meant cannot be read any more: which version learned them,
                and with which condition the others are found.
            NotFoundError: labels are asked for of predictions of a version that there is not.
        """
        selection = self._dated(selection, known)
        found = Found(passed_over=[v.number for v in known if v.increments and is_imported(v)])
        mine = [v.number for v in known if v.increments and not is_imported(v)]
        known_parts = recorded(self._registry, self._name, mine)
        parts = [
            (one.version.number, part, plan)
            for one in known_parts
            for plan in one.plans
            for part in plan.slices
        ]
        new = self._new([part for _, part, _ in parts])
        looked = [(part, plan.columns) for _, part, plan in parts]
        columns = looked[-1][1] if looked else Columns()
        selection.check(looked if new is None else [*looked, (new, columns)])
        read = self._read(selection, parts, set(path), found)
        for one in known_parts:
            try:
                found.matches += self._matches(one, read)
            except UnreadableError as error:
                if one.version.number in path:
                    raise
                found.not_read[one.version.number] = str(error)
        if new is not None:
            schema = self._schema(None)
            found.new = find(new, columns, schema, selection, self._blobs, self._log)
        self._decide(found, known_parts, set(path), marked)
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
        self,
        selection: Selection,
        parts: Sequence[tuple[int, Slice, Plan]],
        path: Set[int],
        told: Found,
    ) -> dict[str, Ints]:
        """Fingerprint of a slice → its selected rows; those of one that was learned by several
        schemas are what any of them selects."""
        found: dict[str, dict[str, Ints]] = {}
        serving = {part.fingerprint for version, part, _ in parts if version in path}
        for version, part, plan in parts:
            ways, way = found.setdefault(part.fingerprint, {}), repr(plan.columns)
            if way not in ways:
                schema = self._schema(plan.definition)
                try:
                    rows = find(part, plan.columns, schema, selection, self._blobs, self._log)
                except UnreadableError as error:
                    if part.fingerprint not in serving:
                        told.not_read[version] = str(error)
                        continue
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

    def _matches(self, one: Recorded, read: Mapping[str, Ints]) -> list[Match]:
        """The selected rows of what a version learned, increment by increment."""
        parts = [(part, plan.columns) for plan in one.plans for part in plan.slices]
        rows = [read[part.fingerprint] for part, _ in parts]
        if not any(map(len, rows)):
            return []
        ids = [
            ids_of(part, columns, mine, self._blobs)
            for (part, columns), mine in zip(parts, rows, strict=True)
        ]
        told = fates(self._registry, self._name, one, rows, ids)
        return [
            Match(one.version.number, ordinal, part, columns, rows[ordinal], ids[ordinal], fate)
            for ordinal, ((part, columns), fate) in enumerate(zip(parts, told, strict=True))
            if len(rows[ordinal])
        ]

    def _decide(
        self, found: Found, parts: Sequence[Recorded], path: Set[int], marked: Set[int]
    ) -> None:
        """Find the versions that learned other labels otherwise for those that were found; what
        came from one that did, or learned them itself, is not looked at."""
        positions = found.positions.values
        if not len(positions):
            return
        resettle = Resettling(self._log, positions, Scratch(self._blobs))
        touched = found.learned_by | marked
        for one in parts:
            number = one.version.number
            try:
                if one.version.parent in touched or number in touched:
                    touched.add(number)
                elif any(
                    resettle.differs(part, plan.columns, _policy(self._registry, self._name, plan))
                    for plan in one.plans
                    for part in plan.slices
                    if part.kind == LogSource.kind and part.stop >= positions[0]
                ):
                    touched.add(number)
                    found.decided.add(number)
            except UnreadableError as error:
                if number in path:  # folding it again says what can be done
                    found.decided.add(number)
                else:
                    found.not_read[number] = str(error)


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
        return resettle(part, plan.columns, _policy(registry, name, plan))

    return change


def _policy(registry: Registry, name: str, plan: Plan) -> LabelPolicy:
    """By which labels were settled."""
    return registry.definition(name, plan.definition).model().labels or LabelPolicy()


def ids_of(part: Slice, columns: Columns, rows: Ints, blobs: BlobStore) -> Hashes:
    """(m,) ids of rows of a slice, as hold-outs and memories know them, in the rows' order."""
    if not len(rows):
        return np.zeros(0, np.uint64)
    found, compiler = list[Hashes](), Compiler(columns)
    first = 1 if part.kind == LogSource.kind else 0  # positions count from 1
    with readable(part):
        reader = open_reader(part, columns, blobs)
        try:
            for piece in reader.pieces(None):
                start, count = piece.place.row + first, piece.table.num_rows
                here = Numbers(rows).between(start, start + count) - start
                if len(here):
                    found.append(compiler.compile(piece.table.take(here), {}).ids)
        finally:
            reader.close()
    ids: Hashes = np.concatenate(found)
    return ids
