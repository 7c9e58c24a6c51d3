"""Erasure of one key's data from all that a model keeps; and what learned from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from everlearn.base import (
    Columns,
    ConflictError,
    Decision,
    Erasable,
    Hashes,
    Json,
    Memory,
    NotFoundError,
    crash_point,
    state_digest,
    under,
)
from everlearn.data.erasure import Pieces, erase, find
from everlearn.data.hashing import hash_texts
from everlearn.data.log import FeedbackLog
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.jobs.checkpoint import Checkpoints
from everlearn.jobs.learn import Fold
from everlearn.jobs.mentions import Mentions
from everlearn.jobs.online import online_of
from everlearn.jobs.patch.erased import EditsOfKey, edits_of_key, erase_edits
from everlearn.jobs.patch.solving import repatched
from everlearn.jobs.queue import ENDED, Queue
from everlearn.jobs.standing import ChangedMeanwhileError, standing_of
from everlearn.registry import aliases, audit, lineage, versions
from everlearn.registry.config import from_config
from everlearn.registry.models import model_id, plain
from everlearn.registry.registry import Registry
from everlearn.registry.retention import reachable
from everlearn.registry.versions import Version
from everlearn.storage import schema
from everlearn.storage.parts import Manifest
from everlearn.strategies.personal import ADAPTERS, has_adapter
from everlearn.strategies.sampled import holds_rows, is_of_rows, without_rows

TRIES = 5
"""Times that an erasure is begun again because the model was changed meanwhile."""

REASON = "the data of one key was erased"

REMAINS = (
    "the parameters of these versions were learned from the erased rows too: a version that is"
    ' learned from scratch (Strategy(start="scratch")) has nothing of them'
)


@dataclass(slots=True)
class _Slices:
    """Slices that had rows of the key, and what is in their place.

    Args:
        increments, plans: row of the table → the JSON that takes the place of its own.
        learned: (version, increment, rows of the key).
        ids: (m,) of the rows.
        gone: blobs of hold-outs that are not needed any more.
    """

    increments: dict[int, Json] = field(default_factory=dict)
    plans: dict[int, Json] = field(default_factory=dict)
    learned: list[tuple[int, int, int]] = field(default_factory=list)
    ids: Hashes = field(default_factory=lambda: np.zeros(0, np.uint64))
    gone: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Made:
    """A version as the champion is, without what was erased."""

    base: Version
    digest: str
    manifest: Manifest
    holdouts: Manifest
    patch: Json


class Erasing:
    """Erases the data of keys.

    Args:
        registry, queue: of the workspace.
    """

    def __init__(self, registry: Registry, queue: Queue) -> None:
        self._queue = queue
        self._registry, self._parts = registry, registry.parts
        self._database, self._blobs = registry.database, registry.parts.blobs

    def __call__(self, name: str, key: str, log: FeedbackLog) -> Json:
        """Erase the data of one key of a model. Erased once more, nothing is left to be done; what
        was killed before the files were removed is finished then.

        Features, answers, the key, and values of labels go from the database, from the archive and
        from spooled slices; rows in memory and among the hold-outs go with the versions that have
        them: these stay in the lineage, but can no longer be loaded. In place of a champion that
        has some, a version without them is made and promoted; edits of the key are dropped, and the
        others solved again. Rows that `DarkReplay` and `AGEM` hold have no ids: of a version that
        learned from the key, all of these go. So does what was said of it (`Mentions`).

        Args:
            log: of the model.

        Returns:
            JSON: a digest of the key, the counts of what was erased, the numbers of its "edits",
            the versions that learned from it, increment by increment, and what remains.

        Raises:
            NotFoundError: there is no such model.
            ConflictError: a job or a rollout has not ended, or others went on changing the model;
                nothing was erased.
        """
        self._finish(name)
        for left in reversed(range(TRIES)):
            try:
                report = self._attempt(name, key, log)
                self._finish(name)
                return report
            except ChangedMeanwhileError:
                if not left:
                    raise
        raise AssertionError

    def _attempt(self, name: str, key: str, log: FeedbackLog) -> Json:
        with self._database.read() as connection:
            standing = standing_of(connection, name, "erase")
            found = find(log, connection, key, self._blobs)
            champion = standing[0]
            known = versions.list_versions(connection, name)
            path = set() if champion is None else set(lineage.lineage(connection, name, champion))
            edits = edits_of_key(connection, log, name, known, self._parts, found, key)
        pieces = Pieces(self._blobs, found, key)
        slices = self._slices(name, known, pieces)
        keys = hash_texts(pa.array([key], pa.string()))
        holding = self._holding(known, slices, keys) | edits.holding
        online = online_of(self._registry.definition(name).model()) is not None
        made = None
        if champion in holding or (online and champion is not None and found.ids):
            made = self._without(name, champion, slices.ids, keys, edits)
        crash_point("erase.prepared")
        report: Json = {
            "model": name,
            "digest": sha256(key.encode()).hexdigest(),
            "predictions": len(found.ids),
            "labels": found.labels,
            "waiting": len(found.waiting),
            "set_aside": len(found.aside),
            "archived_files": len(found.files),
            "edits": sorted(edits.numbers),
            "slices": len(slices.increments),
            "learned_from_it": [
                {"version": version, "increment": number, "rows": rows, "serves": version in path}
                for version, number, rows in slices.learned
            ],
            "no_longer_loadable": sorted(holding),
            "remains": REMAINS if slices.learned else "",
        }
        gone = {segment.blob for segment, _ in found.files} | pieces.replaced | slices.gone
        held = [version for version in known if version.number in holding]
        rows = [part for v in held for part in (_rows(v.manifest), v.holdouts)]
        gone |= edits.blobs | {entry["blob"] for part in rows for entry in part.values()}
        named = found.ids or found.waiting or found.aside or edits.numbers
        touched = bool(named or gone or slices.increments or slices.plans)
        told = Mentions(log.model, name, key, found, slices.ids, edits, self._blobs)
        with self._database.write() as connection:
            model_id(connection, name, lock=True)
            if standing_of(connection, name, "erase") != standing:
                raise ChangedMeanwhileError(f"{name!r} was changed meanwhile; erase again")
            try:
                erase(log, connection, key, found)
            except ConflictError as error:
                raise ChangedMeanwhileError(str(error)) from error
            erase_edits(connection, name, edits, self._database.clock())
            gone |= told.erase(connection, touched=touched)
            report["version"] = self._commit(connection, name, slices, holding, made)
            left = {"unremoved": sorted(blob for blob in gone if blob is not None)}
            self._note(connection, name, report, left if touched else {})
            crash_point("erase.committing")
        crash_point("erase.committed")
        return report

    # --- what has rows of the key ---

    def _slices(self, name: str, known: list[Version], pieces: Pieces) -> _Slices:
        """The slices of all increments and jobs, without the rows of the key."""
        made, ids = _Slices(), [np.zeros(0, np.uint64)]
        learned, owner = schema.increments.c, schema.versions.c
        of_model = schema.models.c.name == name
        with self._database.read() as connection:
            key = connection.execute(sa.select(schema.models.c.id).where(of_model)).scalar_one()
            parts = connection.execute(
                sa.select(learned.id, learned.slice, owner.number)
                .join(schema.versions, owner.id == learned.version_id)
                .where(owner.model_id == key)
                .order_by(learned.id)
            ).all()
            table = schema.jobs.c
            query = sa.select(table.id, table.plan).where(table.model_id == key)
            plans = connection.execute(query).all()
        planned: dict[int | None, Columns] = {
            row.id: Columns.from_json(row.plan["columns"]) for row in plans if "columns" in row.plan
        }
        columns: dict[int | None, Columns | None] = {}
        for version in known:  # one that learned online has those of its parent
            found = self._columns(version, planned)
            columns[version.number] = found or columns.get(version.parent)
        for part in parts:
            new, count, here = pieces.without(part.slice, columns[part.number])
            if count:
                made.increments[part.id] = new
                made.learned.append((part.number, part.id, count))
                ids.append(here)
        for row in plans:
            plan, here = _plan_without(row.plan, pieces)
            if len(here):
                made.plans[row.id] = plan
                ids.append(here)
        made.ids = np.unique(np.concatenate(ids))
        for row in plans:
            held = row.plan.get("holdouts") or {}
            kept = HoldOuts.load(self._parts.load(held))
            if kept.drop(made.ids):
                plan = made.plans.get(row.id, row.plan)
                made.plans[row.id] = {**plan, "holdouts": self._parts.save(kept.save())}
                made.gone |= {entry["blob"] for entry in held.values()}
        return made

    def _columns(self, version: Version, planned: Mapping[int | None, Columns]) -> Columns | None:
        """How the rows of a version were compiled, by the plan of its job or by its state; None if
        there is neither."""
        if version.job_id in planned:
            return planned[version.job_id]
        try:
            return Columns.from_json(self._parts.load(version.manifest)["columns"].meta)
        except NotFoundError:
            return None

    def _holding(self, known: list[Version], slices: _Slices, keys: Hashes) -> set[int]:
        """The versions with rows of the key in memory or among their hold-outs, and those that may
        have some in a sample."""
        told: dict[tuple[Any, ...], bool] = {}
        found, learned = set[int](), {number for number, _, _ in slices.learned}
        for version in known:
            if version.parent in learned:
                learned.add(version.number)
            if version.dropped_at is not None:
                continue
            knows = version.number in learned
            parts = (*_rows(version.manifest).values(), *version.holdouts.values())
            name = (knows, *sorted(entry["digest"] for entry in parts))
            if name not in told:
                told[name] = self._has(version, slices.ids, keys, knows)
            if told[name]:
                found.add(version.number)
        return found

    def _has(self, version: Version, ids: Hashes, keys: Hashes, knows: bool) -> bool:
        saved = self._parts.load(_rows(version.manifest))
        if (knows and holds_rows(saved)) or has_adapter(saved, keys):
            return True
        if saved := under("memory", saved):
            kind: Memory = from_config(saved["definition"].meta)
            for rows in kind.open(under("held", saved)).rows():
                of_key = rows.key is not None and np.isin(rows.key, keys).any()
                if of_key or np.isin(rows.ids, ids).any():
                    return True
        return HoldOuts.load(self._parts.load(version.holdouts)).drop(ids) > 0

    def _without(
        self, name: str, number: int, ids: Hashes, keys: Hashes, edits: EditsOfKey
    ) -> _Made:
        """The champion's state without the rows, and without the edits."""
        base = self._registry.version(name, number)
        made = self._registry.definition(name, base.definition)
        strategy = from_config(base.strategy, made.source)
        state = without_rows(self._registry.state(name, base))
        fold = Fold.load(state, made.section("learner"), strategy)
        parts: tuple[object, ...] = (fold.memory, fold.learner)
        for part in parts:
            if isinstance(part, Erasable):
                part.erase(ids, keys)
        holdouts = HoldOuts.load(self._registry.holdouts(name, base))
        holdouts.drop(ids)
        told: Json = {"without": edits.numbers, "online": online_of(made.model()) is not None}
        fold.patch, patched = repatched(self._database, name, fold, state, holdouts, **told)
        digest = state_digest(state := fold.save())
        manifest = self._parts.save(state, known=base.manifest)
        held = self._parts.save(holdouts.save(), known=base.holdouts)
        return _Made(base, digest, manifest, held, patched)

    # --- the transaction ---

    def _commit(
        self,
        connection: Connection,
        name: str,
        slices: _Slices,
        holding: set[int],
        made: _Made | None,
    ) -> int | None:
        """Point at what was made; the number of the new champion, if there is one."""
        key = model_id(connection, name)
        for number, part in slices.increments.items():
            change = sa.update(schema.increments).where(schema.increments.c.id == number)
            connection.execute(change.values(slice=part))
        for number, plan in slices.plans.items():
            change = sa.update(schema.jobs).where(schema.jobs.c.id == number)
            connection.execute(change.values(plan=plan))
        new = None
        if made is not None:
            new = versions.add(
                connection,
                name,
                parent=made.base.number,
                definition=made.base.definition,
                strategy=made.base.strategy,
                state_digest=made.digest,
                manifest=made.manifest,
                holdouts=made.holdouts,
                metrics=made.base.metrics | ({} if made.patch is None else {"patch": made.patch}),
                decision=Decision("pass", REASON),
            )
            stands = made.base.number
            aliases.move(connection, name, aliases.CHAMPION, new, expected=stands, reason=REASON)
        for alias, number in aliases.all_aliases(connection, name).items():
            if number in holding:
                aliases.remove(connection, name, alias, expected=number, reason=REASON)
        table = schema.versions.c
        dropped = sa.update(schema.versions).where(
            table.model_id == key, table.number.in_(sorted(holding)), table.dropped_at.is_(None)
        )
        connection.execute(dropped.values(dropped_at=self._database.clock()))
        return new

    def _note(self, connection: Connection, name: str, report: Json, left: Json) -> None:
        """Keep the report, and an entry of the audit log; neither has the key in the clear.

        Args:
            left: what `_finish` has to do; nothing where nothing was erased.
        """
        key = model_id(connection, name)
        moment = self._database.clock()
        row = {"digest": report["digest"], "report": plain(report | left), "at": moment}
        connection.execute(sa.insert(schema.erasures).values(model_id=key, **row))
        detail = {"digest": report["digest"], "predictions": report["predictions"]}
        audit.note(connection, "erase", name, detail)
        if left:  # jobs that are retried begin anew: what they kept on their way is removed
            ended = schema.jobs.c.finished_at.is_not(None)
            change = sa.update(schema.jobs).where(schema.jobs.c.model_id == key, ended)
            connection.execute(change.values(checkpoint=None))

    def _finish(self, name: str) -> None:
        """Remove, at once, the files that erasures left, also those that were killed before they
        could: blobs that nothing refers to any more, and what ended jobs kept on their way."""
        table = schema.erasures
        with self._database.read() as connection:
            key = model_id(connection, name)
            rows = connection.execute(sa.select(table).where(table.c.model_id == key)).all()
            rows = [row for row in rows if "unremoved" in row.report]
            kept = reachable(connection) if rows else set()
        for row in rows:
            report = dict(row.report)
            for job in self._queue.jobs(name, ENDED):
                Checkpoints(self._parts, job).remove()
            for blob in set(report.pop("unremoved")) - kept:
                self._blobs.delete(blob)
            with self._database.write() as connection:
                change = sa.update(table).where(table.c.id == row.id)
                connection.execute(change.values(report=report))


def _plan_without(plan: Json, pieces: Pieces) -> tuple[Json, Hashes]:
    """A job's plan, its earlier increments included, without the rows; (m,) their ids."""
    columns = Columns.from_json(plan["columns"]) if "columns" in plan else None
    parted = [pieces.without(part, columns) for part in plan.get("slices", ())]
    earlier = [_plan_without(one, pieces) for one in plan.get("earlier", ())]
    ids = [here for _, _, here in parted] + [here for _, here in earlier]
    made = {**plan, "slices": [part for part, _, _ in parted]}
    if earlier:
        made["earlier"] = [one for one, _ in earlier]
    return made, np.unique(np.concatenate([np.zeros(0, np.uint64), *ids]))


def _rows(manifest: Mapping[str, Any]) -> Manifest:
    """What has rows: the memory and samples; and whose adapters there are."""
    own = {k: v for k, v in manifest.items() if is_of_rows(k) or k == ADAPTERS}
    return own | {k: v for k, v in manifest.items() if k.startswith("memory/")}
