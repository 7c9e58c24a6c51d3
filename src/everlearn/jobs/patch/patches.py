"""Patching the champion: checked, solved, judged, and let through as what a job makes, in seconds.

A patched version has the parts of the version that it is for, which are stored once, and those of
its patch. It has no increments of its own. Edits are always solved together, for the champion
without its patch; so taking one back is solving the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import sqlalchemy as sa

from everlearn.base import (
    Batch,
    ConflictError,
    Decision,
    InputError,
    Json,
    NotFoundError,
    Part,
    crash_point,
    prefixed,
    state_digest,
)
from everlearn.evaluation.gates import try_candidate
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.jobs.bisect.measuring import recorded_digest
from everlearn.jobs.learn import Fold
from everlearn.jobs.load import load_fold
from everlearn.jobs.online import online_of
from everlearn.jobs.patch.following import check_settled
from everlearn.jobs.patch.report import BUDGET, flips, gated, measured, most_flips, too_far
from everlearn.jobs.patch.solving import Leave, reference_rows, remembered, solve
from everlearn.jobs.patch.wanted import Wanted, contradictions, wanted_of
from everlearn.registry import aliases, edits, versions
from everlearn.registry.audit import note
from everlearn.registry.models import model_id, plain
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Version
from everlearn.strategies.patch import Edit, Patch, Way, edits_in

BeginRollout = Callable[[sa.Connection, str, int, int, str], int | None]


@dataclass(frozen=True, slots=True)
class PatchResult:
    """What became of a patch.

    Args:
        version: that it made; None of a dry run, and where there was nothing to do.
        decision: "promote", "try" (a rollout), "refuse", "hold", "nothing", or what it would have
            been of a dry run: "pass" or "refuse".
        edits: numbers of those that were added; none of a dry run.
        already: places, from 0, of edits that are answered as wanted without a patch.
        report: what it does; see `report.measured`.
        patch: that was solved; not in JSON.
    """

    version: int | None
    decision: Decision
    edits: list[int] = field(default_factory=list)
    already: list[int] = field(default_factory=list)
    report: dict[str, Json] = field(default_factory=dict)
    patch: Patch | None = None

    def to_json(self) -> Json:
        shown = {name: getattr(self, name) for name in self.__slots__ if name != "patch"}
        return plain(shown | {"decision": self.decision.to_json()})


@dataclass(slots=True)
class _Base:
    """The champion, and what is under its patch.

    Args:
        model: its name.
        version: the champion.
        fold: as it answers.
        state: its parts.
        holdouts: its rows kept out of learning.
        reference: rows whose answers should stay, or None.
        number: of the version that a patch is for: of those with the champion's learner the first.
    """

    model: str
    version: Version
    fold: Fold
    state: dict[str, Part]
    holdouts: HoldOuts
    reference: Batch | None
    number: int


@dataclass(frozen=True, slots=True)
class _Made:
    """A patch that was solved and judged.

    Args:
        patch: None without edits.
        report: what it does.
        decision: "pass" or "refuse".
    """

    patch: Patch | None
    report: dict[str, Json]
    decision: Decision


class Patches:
    """Patches of the models of a workspace.

    Args:
        registry: of the workspace.
        rollout: begins one, as for `Runner`.
    """

    def __init__(self, registry: Registry, rollout: BeginRollout | None = None) -> None:
        self._registry, self._rollout = registry, rollout
        self._database = registry.database

    def __call__(
        self,
        model: str,
        asked: Sequence[Edit],
        *,
        way: Way = "auto",
        dry_run: bool = False,
        expected: int | None = None,
    ) -> PatchResult:
        """Put answers of the champion right.

        Args:
            asked: edits without numbers.
            way: of these edits, see `everlearn.strategies.patch.Way`; others keep theirs.
            dry_run: only say what it would do; nothing is written.
            expected: the champion that was looked at before, if it was.

        Raises:
            InputError: no edit, edits that contradict each other or one that stands, an input
                outside of the schema, an answer that the model cannot give, or all edits are
                answered as wanted already. Nothing was written.
            NotFoundError: there is no champion.
            ConflictError: the champion was moved meanwhile, or is not the expected one.
            UnsolvableError: way="weights", and no change of weights does it.
        """
        began = time.perf_counter()
        if not asked:
            raise InputError("there is no edit; give at least one input with the answer wanted")
        edits.check_lasting(asked, self._database.clock())
        base = self._load(model)
        if expected not in (None, base.version.number):
            raise ConflictError(
                f"version {base.version.number} is champion of {model!r} by now, not version"
                f" {expected}: look again at what would change"
            )
        standing, expired = self._carried(model, base)
        wanted = wanted_of(base.fold, [replace(edit, way=way) for edit in asked])
        contradictions(wanted, wanted_of(base.fold, standing) if standing else None)
        new, already, made = self._needed(base, standing, wanted, dry_run)
        report = made.report | {"seconds": time.perf_counter() - began}
        if dry_run:
            return PatchResult(None, made.decision, [], already, report, made.patch)
        said, added = f"{len(new)} edit{'s' * (len(new) > 1)}", [edit.number for edit in new]
        ends = {edits.EXPIRED: [edit.number for edit in expired]}
        number, decision = self._commit(base, made, said, report, ends, new)
        return PatchResult(number, decision, added, already, report, made.patch)

    def revoke(self, model: str, numbers: Sequence[int], why: str = edits.REVOKED) -> PatchResult:
        """Take edits back: the others are solved again, and what comes of that is champion at once,
        without a gate, as after a rollback. Without any edit left, answers are those of the version
        that was patched, to the bit.

        Raises:
            InputError: there is no such edit.
            ConflictError: the champion was moved meanwhile.
        """
        began = time.perf_counter()
        base = self._load(model)
        known = () if base.fold.patch is None else base.fold.patch.edits
        if not {edit.number for edit in known} & set(numbers):
            with self._database.write() as connection:
                ended = edits.end(connection, model, numbers, why, self._database.clock())
                note(connection, "end edits", model, {"edits": ended, "why": why})
            reason = f"the champion, version {base.version.number}, has none of these edits"
            return PatchResult(None, Decision("nothing", reason))
        standing, expired = self._carried(model, base)
        standing = [edit for edit in standing if edit.number not in numbers]
        made = self._solved(base, standing, [])
        if too_far(made.report):
            made = self._tried(base, standing, "memory", "never")
        said = f"edits {why}: {', '.join(map(str, sorted(numbers)))}"
        passed = replace(made, decision=Decision("pass", said, made.decision.evidence))
        report = made.report | {"seconds": time.perf_counter() - began}
        ends = {edits.EXPIRED: [edit.number for edit in expired], why: list(numbers)}
        number, decision = self._commit(base, passed, said, report, ends, at_once=True)
        return PatchResult(number, decision, [], [], report)

    def expire(self, model: str) -> PatchResult | None:
        """End the edits whose time has come; None if there are none. A server asks twice a second,
        and a handle where the champion has such an edit."""
        with self._database.read() as connection:
            due = edits.due(connection, model, self._database.clock())
            champion = aliases.current(connection, model) if due else None
        if champion is None:
            return None
        standing = self._standing(model, champion) if any(due.values()) else {}
        ending = [number for number, ended in due.items() if not ended or number in standing]
        return self.revoke(model, ending, edits.EXPIRED) if ending else None

    def listed(self, model: str) -> list[Json]:
        """All edits of a model as JSON, with their "state": "standing" where the champion has it,
        with its "way", else why it ended, or "waiting" (of a candidate, or of a version that was
        rolled back)."""
        with self._database.read() as connection:
            known = edits.listed(connection, model)
            champion = aliases.current(connection, model)
        ways = {} if champion is None else self._standing(model, champion)
        found: list[Json] = []
        for one in known:
            way = ways.get(one.edit.number)
            state = one.ended_why or "waiting" if way is None else "standing"
            found.append(one.to_json() | {"state": state, "way": way})
        return found

    # --- inside ---

    def _standing(self, model: str, number: int) -> dict[int, Way]:
        """Number of each edit that a version has → its way; nothing else of the version is read."""
        version = self._registry.version(model, number)
        part = self._registry.state(model, version).get("patch/edits")
        return {} if part is None else {edit.number: edit.way for edit in edits_in(part)}

    def _load(self, model: str) -> _Base:
        """The champion, and the rows by which a patch of it is judged."""
        version = self._registry.version(model)
        fold = load_fold(self._registry, model, version)
        state = self._registry.state(model, version)
        holdouts = HoldOuts.load(self._registry.holdouts(model, version))
        reference = reference_rows(fold, holdouts, remembered(state))
        number = version.number
        if fold.patch is not None and fold.patch.base is not None:
            with suppress(NotFoundError):  # it is not here, where this one was imported
                first = self._registry.version(model, fold.patch.base)
                if recorded_digest(first) == recorded_digest(version):  # else it learned online
                    number = first.number
        return _Base(model, version, fold, state, holdouts, reference, number)

    def _carried(self, model: str, base: _Base) -> tuple[list[Edit], list[Edit]]:
        """(edits of the champion that are carried on, those that expired)."""
        known = () if base.fold.patch is None else base.fold.patch.edits
        with self._database.read() as connection:
            return edits.carried(connection, model, known, self._database.clock())

    def _solved(self, base: _Base, standing: Sequence[Edit], new: Sequence[Edit]) -> _Made:
        """The champion with these edits, judged; by exceptions only, where a change of weights that
        was not asked for does not pass, and where the learner moves on under it, label by label."""
        every = [*standing, *new]
        online = online_of(self._registry.definition(base.model).model())
        asked = any(edit.way == "weights" for edit in new)  # else its learner may have none by now
        leave: Leave = "asked" if asked else "possible"
        made = self._tried(base, every, "memory" if online else "auto", leave)
        free = not online and any(edit.way == "auto" for edit in every)
        if free and made.patch is not None and made.patch.weights is not None:
            bound = most_flips(made.decision.evidence)
            if made.decision.action != "pass" or bound > BUDGET:
                least = f"up to {bound:.1%} of answers may turn wrong by a change of weights"
                made = self._tried(base, every, "memory", leave)
                made.report["notes"] = [*made.report.get("notes", []), f"exceptions: {least}"]
        return made

    def _needed(
        self, base: _Base, standing: Sequence[Edit], wanted: Wanted, dry_run: bool
    ) -> tuple[list[Edit], list[int], _Made]:
        """(the edits that are needed, places of those that are right without, the champion with
        them). One that is right, and that the patch of the others would undo, is needed too."""
        right = wanted.held(base.fold)
        if right.all():
            raise InputError(
                f"all {len(right)} edits are answered as wanted already by version"
                f" {base.version.number}; there is nothing to patch"
            )
        with self._database.read() as connection:
            first = 0 if dry_run else edits.next_number(connection, base.model)
        while True:
            new = edits.numbered(wanted.take(~right).edits, first)
            made = self._solved(base, standing, new)
            still = right & wanted.held(replace(base.fold, patch=made.patch))
            if (still == right).all():
                return new, [place for place, known in enumerate(right) if known], made
            right = still

    def _tried(self, base: _Base, every: Sequence[Edit], way: Way, weights: Leave) -> _Made:
        """The champion with these edits, judged; way and weights as for `solve`."""
        patch: Patch | None = None
        fold = replace(base.fold, patch=None)
        report: dict[str, Json] = {"edits": [], "base": base.number}
        if every:
            wanted = wanted_of(fold, every)
            patch, notes = solve(fold, wanted, base.reference, way, base.number, weights=weights)
            assert patch is not None
            report = measured(fold, patch, base.fold.predict, wanted, base.reference, base.holdouts)
            report["notes"] = notes
        gate = self._registry.definition(base.model).section("gate")
        decision = try_candidate(replace(fold, patch=patch), base.fold, base.holdouts, gate)
        report["negative_flips"] = {name: r for name, (_, r) in flips(decision.evidence).items()}
        return _Made(patch, report, gated(decision, report))

    def _commit(
        self,
        base: _Base,
        made: _Made,
        said: str,
        report: dict[str, Json],
        ends: Mapping[str, Sequence[int]],
        add: Sequence[Edit] = (),
        *,
        at_once: bool = False,
    ) -> tuple[int, Decision]:
        """Make the version: its blobs first, then its row, its edits and the alias that it gets, in
        one transaction."""
        state = {name: part for name, part in base.state.items() if not name.startswith("patch/")}
        if made.patch is not None:
            state |= prefixed("patch", made.patch.save())
        manifest = self._registry.parts.save(state, known=base.version.manifest)
        crash_point("patch.saved")
        model, decision, version = base.model, made.decision, base.version
        evidence, names = decision.evidence, ("recent", "historical")
        figures = {name: evidence[name] for name in names if name in evidence}
        with self._database.write() as connection:
            model_id(connection, model, lock=True)
            check_settled(connection, model)
            self._check_unmoved(connection, base, add)
            at = self._database.clock()
            edits.add(connection, model, add, at)
            for why, numbers in ends.items():
                edits.end(connection, model, numbers, why, at)
            number = versions.add(
                connection,
                model,
                parent=base.number,
                definition=version.definition,
                strategy=version.strategy,
                state_digest=state_digest(state),
                manifest=manifest,
                holdouts=version.holdouts,
                metrics=figures | {"patch": report},
                decision=decision,
            )
            decision = self._let_through(connection, base, number, decision, said, at_once)
            detail = {"version": number, "edits": [edit.number for edit in add]}
            detail |= {"ended": dict(ends), "action": decision.action}
            note(connection, "patch", model, detail)
        return number, decision

    def _check_unmoved(self, connection: sa.Connection, base: _Base, add: Sequence[Edit]) -> None:
        """Raises `ConflictError` if what was solved is not what it would be now."""
        champion = aliases.current(connection, base.model)
        if champion != base.version.number:
            raise ConflictError(
                f"the champion of {base.model!r} was moved from version {base.version.number} to"
                f" {champion} meanwhile; look at it, and patch again"
            )
        if add and edits.next_number(connection, base.model) != add[0].number:
            raise ConflictError(f"{base.model!r} was patched at the same time; patch again")

    def _let_through(
        self,
        connection: sa.Connection,
        base: _Base,
        number: int,
        decision: Decision,
        said: str,
        at_once: bool,
    ) -> Decision:
        """Move the alias that the decision asks for."""
        champion, evidence = base.version.number, decision.evidence
        move = partial(aliases.move, connection, base.model, to=number)
        action, reason = "refuse", decision.reason
        if decision.action == "pass":
            reason = f"{said} (a patch of version {base.number})"
            trial = None
            try:
                if self._rollout is not None and not at_once:
                    trial = self._rollout(connection, base.model, number, champion, reason)
            except ConflictError as conflict:
                action, reason = "hold", f"solved, but not promoted: {conflict}"
            else:
                if trial is not None:
                    told = dict(evidence) | {"rollout": trial}
                    return Decision("try", f"rollout {trial}: {reason}", told)
                move(alias=aliases.CHAMPION, expected=champion, reason=reason)
                return Decision("promote", reason, evidence)
        stands = aliases.current(connection, base.model, aliases.CANDIDATE)
        move(alias=aliases.CANDIDATE, expected=stands, action=action, reason=reason)
        return Decision(action, reason, evidence)
