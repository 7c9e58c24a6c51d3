"""Excision: rows of the log are withdrawn, and what versions learned is folded again without them.

The champion's recorded increments are folded again from the last version that never had the rows:
triggers, gates and cuts are not decided anew, each increment is learned by the plan of its job.
Only the version in which that ends is judged; if it is refused, the champion stays, marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import numpy as np

from everlearn.base import Hashes, InputError, Ints, Json, crash_point
from everlearn.data.join import LOG, LogSource
from everlearn.data.log import FeedbackLog
from everlearn.data.selection import Selection
from everlearn.data.slices import Slice
from everlearn.data.withdrawals import Withdrawals, WithdrawnRows, amend, store
from everlearn.data.withdrawn import Numbers
from everlearn.jobs.excise import held
from everlearn.jobs.excise.matches import Finder, Found, Match, without
from everlearn.jobs.plan import Plan
from everlearn.jobs.queue import Queue
from everlearn.jobs.refold import plan_refold
from everlearn.jobs.standing import ChangedMeanwhileError, Standing, standing_of
from everlearn.registry import audit, versions
from everlearn.registry.marks import marked
from everlearn.registry.models import as_text, model_id, plain
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Version
from everlearn.storage.parts import Manifest

NO_IDS: Hashes = np.zeros(0, np.uint64)

Ids = Mapping[str, Hashes]
"""Fingerprint of a slice → ids of its rows that were found."""

TRIES = 5
"""Times that an excision is prepared again because the model was changed meanwhile."""


class Excising:
    """Takes rows out of what a model learned.

    Args:
        registry, queue: of the workspace.
        name: of the model.
        log: its feedback log.
    """

    def __init__(self, registry: Registry, queue: Queue, name: str, log: FeedbackLog) -> None:
        self._registry, self._queue, self._name, self._log = registry, queue, name, log
        self._database, self._blobs = registry.database, registry.parts.blobs
        self._withdrawals = Withdrawals(self._database, log.model, self._blobs)

    def __call__(
        self,
        selection: Selection,
        *,
        reason: str = "withdrawn by hand",
        author: str | None = None,
        dry_run: bool = False,
    ) -> Json:
        """Withdraw rows, and queue the job that folds without them what the champion learned.

        Args:
            reason, author: kept with the withdrawal, for people.
            dry_run: only say what would be done.

        Returns:
            JSON: how many "rows" there are, "not_learned" yet; what "learned_from_it", increment by
            increment, with the "rows" that it learned and those that it "held_out"; the versions
            that are "marked", for they or their ancestors did, or learned other labels otherwise
            for these (that had outvoted them, or taken them back), or came since from one that was
            marked before; those that were "passed_over", for they were imported; those that do not
            serve and were "not_read", with the reason, for what they learned is gone: they are
            marked too, for nothing says that they did not; from which "base" which versions are
            "folded" again, and how many "rows_folded" that are; numbers of the "withdrawal" and of
            the "job" (None where there is nothing to fold).

        Raises:
            InputError: no row is selected, or what learned them cannot be folded again: saying
                which increment, why, and from where it could be.
            ConflictError: a job or a rollout has not ended, or others went on changing the model;
                nothing was withdrawn.
        """
        for left in reversed(range(TRIES)):
            try:
                return self._attempt(selection, reason, author, dry_run)
            except ChangedMeanwhileError:
                if not left:
                    raise
        raise AssertionError

    def _attempt(
        self, selection: Selection, reason: str, author: str | None, dry_run: bool
    ) -> Json:
        with self._database.read() as connection:
            standing = standing_of(connection, self._name, "excise")
            known = versions.list_versions(connection, self._name)
            before = marked(connection, self._name).keys()
        champion = standing[0]
        path = [] if champion is None else self._registry.lineage(self._name, champion)
        found = Finder(self._registry, self._name, self._log)(selection, known, path, before)
        if not found.rows:
            raise InputError(
                f"{self._name!r} has learned, and is to learn, no such row: {selection}"
            )
        learned_by = found.learned_by | found.not_read.keys()
        ids = {one.part.fingerprint: one.ids for one in found.matches}
        report: Json = {
            "model": self._name,
            "selection": selection.to_json(),
            "rows": found.rows,
            "not_learned": len(found.new),
            "learned_from_it": [
                {
                    "version": one.version,
                    "increment": one.ordinal,
                    "source": one.part.source,
                    "rows": one.fate.learned,
                    "held_out": one.fate.held,
                    "serves": one.version in path,
                }
                for one in found.matches
                if any(one.fate)
            ],
            "marked": sorted(_descended(known, learned_by) | _descended(known, before) - before),
            "passed_over": found.passed_over,
            "not_read": [
                {"version": number, "reason": why} for number, why in found.not_read.items()
            ],
        }
        plan = self._plan(found, path, ids, before)
        if plan is None and not self._is_new(self._places(found, ids)):
            raise InputError(
                f"the {found.rows:,} rows were withdrawn before ({selection}), and the champion"
                " has learned none of them: `everlearn withdrawals` lists what was"
            )
        report |= {
            "base": None if plan is None else plan.base,
            "folded": [] if plan is None else [n for n in path if n > (plan.base or 0)],
            "rows_folded": 0 if plan is None else plan.rows,
        }
        if dry_run:
            return report | {"withdrawal": None, "job": None}
        places = self._places(found, ids)
        crash_point("excise.prepared")
        return self._commit(standing, report, plan, places, reason, author)

    # --- what has the rows ---

    def _places(self, found: Found, ids: Ids) -> list[WithdrawnRows]:
        """Which rows are withdrawn, one for each content of a source; their numbers are stored."""
        made: dict[str, WithdrawnRows] = {}
        for one in found.matches:
            if one.part.kind != LogSource.kind:
                digest = self._row_digest(one)
                made[one.part.fingerprint] = WithdrawnRows.of(
                    one.part, one.rows, self._blobs, digest, ids[one.part.fingerprint]
                )
        if len(found.positions):
            every = self._log.first(), self._log.head()
            part = Slice(LOG, LogSource.kind, "", *every, 0, "", ())
            parts = [one.part for one in found.matches if one.part.kind == LogSource.kind]
            made[LogSource.kind] = WithdrawnRows.of(
                part,
                found.positions.values,
                self._blobs,
                ids=np.concatenate([NO_IDS, *(ids[one.fingerprint] for one in parts)]),
            )
        return list(made.values())

    def _row_digest(self, match: Match) -> str:
        """The running digest of a slice's rows, by which longer content is recognised."""
        increment = self._registry.version(self._name, match.version).increments[match.ordinal]
        return str(increment.reasons.get("row_digest", ""))

    def _is_new(self, found: Sequence[WithdrawnRows]) -> bool:
        """Whether any of the rows was not withdrawn before."""
        places: dict[str, list[Ints]] = {}
        for one in self._withdrawals.all():
            for place in one.places:
                rows = Numbers.load(self._blobs.get(place.blob)).values
                places.setdefault(place.digest, []).append(rows)
        for place in found:
            gone = Numbers.of(places.get(place.digest, [])).values
            if not np.isin(Numbers.load(self._blobs.get(place.blob)).values, gone).all():
                return True
        return False

    # --- what is folded again ---

    def _plan(self, found: Found, path: Sequence[int], ids: Ids, before: Set[int]) -> Plan | None:
        """What the champion learned from the first of the rows on, without them, and without those
        that were withdrawn before; None where it learned none of them. Raises as `plan_refold`."""
        touched = found.learned_by | before
        change = without(self._registry, self._name, self._log, found)
        plan = plan_refold(self._registry, self._name, path, touched, change)
        return None if plan is None else replace(plan, holdouts=self._holdouts(path[-1], ids))

    def _holdouts(self, champion: int, ids: Ids) -> Manifest:
        """What the champion is judged on, without the rows, and those withdrawn before."""
        version = self._registry.version(self._name, champion)
        with self._database.read() as connection:
            before = held.withdrawn_since(connection, self._name, champion, self._withdrawals)
        gone = np.concatenate([before, *ids.values()])
        return held.without(self._registry.parts, version.holdouts, gone)

    # --- the transaction ---

    def _commit(
        self,
        standing: Standing,
        report: Json,
        plan: Plan | None,
        places: Sequence[WithdrawnRows],
        reason: str,
        author: str | None,
    ) -> Json:
        """Store the withdrawal, and queue the job."""
        with self._database.write() as connection:
            key = model_id(connection, self._name, lock=True)
            if standing_of(connection, self._name, "excise") != standing:
                raise ChangedMeanwhileError(f"{self._name!r} was changed meanwhile; excise again")
            number = store(
                connection,
                key,
                report["selection"],
                reason,
                places,
                rows=report["rows"],
                author=author,
            )
            job = None
            if plan is not None:
                job = self._queue.add(
                    connection, key, plan.to_json(), plan.fingerprint, standing[0]
                )
            report = report | {"withdrawal": number, "job": job}
            amend(connection, number, report=plain(report), job_id=job)
            told = {name: report[name] for name in ("withdrawal", "rows", "marked", "job")}
            audit.note(connection, "excise", self._name, {**told, "reason": reason})
            crash_point("excise.committing")
        crash_point("excise.committed")
        return report


def withdrawals_of(registry: Registry, log: FeedbackLog) -> list[Json]:
    """What was withdrawn of a model, oldest first, as JSON."""
    found = Withdrawals(registry.database, log.model, registry.parts.blobs).all()
    return [plain(one.to_json()) | {"at": as_text(one.at)} for one in found]


def _descended(known: Sequence[Version], learned_by: Set[int]) -> set[int]:
    """The versions in whose lineage some version is."""
    found = set[int]()
    for version in known:  # a parent has a smaller number
        if version.number in learned_by or version.parent in found:
            found.add(version.number)
    return found
