"""A version explained: what it was made from, what it learned and from whom, and what it answers
otherwise than the version that it is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from everlearn.base import Columns, EverlearnError, Json, NotFoundError, State, under
from everlearn.data.ids import SeenIds
from everlearn.data.join import LogSource
from everlearn.data.log import FeedbackLog
from everlearn.data.slices import Slice
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.evaluation.trial import hold_trial
from everlearn.jobs import transfer
from everlearn.jobs.explain.flipped import Flipped
from everlearn.jobs.explain.reread import Reread
from everlearn.jobs.load import load_fold
from everlearn.registry import definitions, versions
from everlearn.registry.config import from_config
from everlearn.registry.definitions import Definition
from everlearn.registry.diff import changed_settings
from everlearn.registry.marks import marked
from everlearn.registry.models import as_text, model_id
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Version
from everlearn.storage import schema

READ = 100_000
"""Rows of a version's own increments that are read again, and as many of those before."""

MADE = ("id", "state", "base_version", "attempts", "worker", "plan", "created_at", "started_at",
        "finished_at")  # fmt: skip


class Explanation:
    """One version, beside the one that it is compared with: its parent; the champion then, where
    it has none (a retraining) or was folded again without withdrawn rows.

    Args:
        registry: of the workspace.
        log: of the model.
        model, number: which version.

    Raises:
        NotFoundError: there is no such model or version.
    """

    def __init__(self, registry: Registry, log: FeedbackLog, model: str, number: int) -> None:
        self._registry, self._log, self.model = registry, log, model
        with registry.database.read() as connection:
            self.version = versions.get(connection, model, number)
            self._job = _job(connection, model, self.version.job_id)
            self._definition = definitions.definition(connection, model, self.version.definition)
            self._before = self._compared(connection)
            self._withdrawals = _withdrawals(connection, model, self.version)

    def _compared(self, connection: sa.Connection) -> Version | None:
        number = self.version.parent
        if self._job is not None and (number is None or (self._job["plan"] or {}).get("refolds")):
            number = self._job["base_version"]
        return None if number is None else versions.get(connection, self.model, number)

    # --- what the records say ---

    def record(self) -> dict[str, Json]:
        """What is known without reading rows or loading a state: when and how it was made, what of
        its definition changed, its increments, what it forgot, what of it was repaired."""
        version, before = self.version, self._before
        shown = version.to_json()
        names = ("number", "parent", "aliases", "created_at", "dropped_at", "state_digest")
        return {
            "model": self.model,
            **{name: shown[name] for name in names},
            "against": None if before is None else before.number,
            "made": self._made(),
            "definition": self._defined(),
            "increments": shown["increments"],
            "transfer": self._transfer(),
            "repair": self._repair(),
        }

    def _made(self) -> dict[str, Json]:
        """How: by a job, online, or elsewhere."""
        job = self._job
        if job is None:
            online = any(_of_log(one.slice) for one in self.version.increments)
            patch = "patch" in self.version.metrics
            by = "patch" if patch else "online" if online else "import or erasure"
            return {"by": by, "job": None}
        seconds = None
        if job["started_at"] is not None and job["finished_at"] is not None:
            seconds = (job["finished_at"] - job["started_at"]) / 1e6
        moments = ("created_at", "started_at", "finished_at")
        times = {name: None if job[name] is None else as_text(job[name]) for name in moments}
        kept = {name: job[name] for name in ("id", "base_version", "attempts", "worker")}
        return {"by": "job", "job": {**kept, **times, "seconds": seconds}}

    def _defined(self) -> dict[str, Json]:
        """The definition and the strategy, and what differs from those before."""
        changes: list[dict[str, Json]] = []
        if self._before is not None:
            with self._registry.database.read() as connection:
                old = definitions.definition(connection, self.model, self._before.definition)
            changes = changed_settings(
                _config(old, self._before), _config(self._definition, self.version)
            )
        strategy = self.version.strategy
        return {
            "number": self.version.definition,
            "before": None if self._before is None else self._before.definition,
            "changes": changes,
            "strategy": strategy,
            "said": _said(strategy, self._definition),
        }

    def _transfer(self) -> Json:
        """See `transfer.table`; None where the version was not scored by period."""
        try:
            with self._registry.database.read() as connection:
                return transfer.table(connection, self.model, self.version.number)
        except NotFoundError:
            return None

    def _repair(self) -> dict[str, Json]:
        """Which edits its patch has (None: unknown), without which withdrawn rows it was folded
        again, and which of what it learned was withdrawn since."""
        patched = any(name.startswith("patch/") for name in self.version.manifest)
        edits = (self.version.metrics.get("patch") or {}).get("edits")
        return {"patched": patched, "edits": edits, **self._withdrawals}

    # --- what has to be read and asked ---

    def measured(self) -> dict[str, Json]:
        """What is found by reading rows again and asking both versions: "learned", from whom, of
        which classes and times; "predictions", what changed in the answers for hold-out rows."""
        try:
            columns = self._columns()
        except EverlearnError as error:
            return {part: {"why_not": str(error)} for part in ("learned", "predictions")}
        own, older = (
            Reread(columns, self._share(), self._registry.parts.blobs, self._log) for _ in range(2)
        )
        own.read(_slices(self.version), READ, self._seen(columns))
        return {"learned": self._learned(own), "predictions": self._predictions(own, older)}

    def _columns(self) -> Columns:
        """The columns by which its rows were read. Raises as `Registry.state`."""
        plan = None if self._job is None else self._job["plan"]
        if self.version.dropped_at is not None and plan:
            return Columns.from_json(plan["columns"])
        state = self._registry.state(self.model, self.version)
        if "columns" not in state:
            raise NotFoundError(f"version {self.version.number} has no state of a job's making")
        return Columns.from_json(state["columns"].meta)

    def _share(self) -> float:
        """The share of rows that was held out."""
        plan = {} if self._job is None else self._job["plan"] or {}
        return float(plan.get("holdout", self._definition.config["params"].get("holdout", 0.0)))

    def _seen(self, columns: Columns) -> SeenIds | None:
        """The ids that were known before, as far as they are still there."""
        if columns.id is None:
            return None
        state: State = {}
        parent = self.version.parent
        if parent is not None:
            former = self._registry.version(self.model, parent)
            if former.dropped_at is None:
                state = self._registry.state(self.model, former)
        plan = {} if self._job is None else self._job["plan"] or {}
        return SeenIds(under("ids", state), again=bool(plan.get("again")))

    def _learned(self, own: Reread) -> dict[str, Json]:
        rows = sum(one.stop - one.start for one in self.version.increments)
        return {
            "rows": rows,
            "read": len(own),
            "missing": own.missing,
            "sources": own.by_speaker(),
            "classes": own.by_class(),
            "values": own.values(),
            "times": own.by_time(),
        }

    def _predictions(self, own: Reread, older: Reread) -> Json:
        """What changed in the answers; {"why_not"} where that cannot be told."""
        before = self._before
        if before is None:
            return {"why_not": "it is the first of its line: there is none to compare it with"}
        for one in (self.version, before):
            if one.dropped_at is not None:
                return {"why_not": f"the state of version {one.number} was removed"}
        try:
            return self._asked(before, own, older)
        except Exception as error:  # of a learner that somebody else wrote, too
            said = str(error) if isinstance(error, EverlearnError) else repr(error)
            return {"why_not": f"the versions could not be asked: {said}"}

    def _asked(self, before: Version, own: Reread, older: Reread) -> Json:
        holdouts = HoldOuts.load(self._registry.holdouts(self.model, self.version))
        if not len(holdouts):
            return {"why_not": "no rows were held out to ask both versions about"}
        new, old = (load_fold(self._registry, self.model, one) for one in (self.version, before))
        if new.columns != old.columns:
            return {"why_not": f"version {before.number} has other columns"}
        trial = hold_trial(new, old, holdouts)
        flipped = Flipped(trial, new, old, own, older, self._former(), READ)
        return {"against": before.number, **flipped.to_json()}

    def _former(self) -> Iterator[Slice]:
        """The slices that were learned before this version's own, the newest first; read from the
        database one version after the other, as they are asked for."""
        number = self.version.parent
        if number is None and self._before is not None:
            number = self._before.number
        while number is not None:
            version = self._registry.version(self.model, number)
            yield from reversed(_slices(version))
            number = version.parent


def _job(connection: sa.Connection, model: str, number: int | None) -> Mapping[str, Any] | None:
    """The row of a job of the model; None where it is not kept."""
    table = schema.jobs.c
    if number is None:
        return None
    query = sa.select(*(table[name] for name in MADE)).where(
        table.id == number, table.model_id == model_id(connection, model)
    )
    row = connection.execute(query).mappings().first()
    return None if row is None else dict(row)


def _withdrawals(connection: sa.Connection, model: str, version: Version) -> dict[str, list[Json]]:
    """The withdrawals of rows "without" which a version was folded again, and those "after" it, of
    rows that it had learned."""
    table, marks = schema.withdrawals.c, marked(connection, model).get(version.number, [])
    query = sa.select(table.id, table.reason, table.author, table.rows, table.at, table.job_id)
    query = query.where(table.model_id == model_id(connection, model)).order_by(table.id)
    found: dict[str, list[Json]] = {"without": [], "after": []}
    for row in connection.execute(query).mappings():
        shown = {name: row[name] for name in ("id", "reason", "author", "rows")}
        shown["at"] = as_text(row["at"])
        if row["job_id"] is not None and row["job_id"] == version.job_id:
            found["without"].append(shown)
        if row["id"] in marks:
            found["after"].append(shown)
    return found


def _slices(version: Version) -> list[Slice]:
    """The slices of its own increments."""
    return [Slice.from_json(one.slice) for one in version.increments if one.slice]


def _of_log(part: Json) -> bool:
    return bool(part) and part.get("kind") == LogSource.kind


def _config(definition: Definition, version: Version) -> Json:
    """A definition with the strategy that the version was really learned with."""
    params = dict(definition.config["params"]) | {"strategy": version.strategy}
    return {**definition.config, "params": params}


def _said(strategy: Json, definition: Definition) -> str | None:
    """A strategy in words; None where its classes cannot be found in this process."""
    try:
        return str(from_config(strategy, definition.source).describe())
    except EverlearnError:
        return None
