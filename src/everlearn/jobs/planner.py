"""Freezes the input of jobs and queues them: what is new, and what it is learned into."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from everlearn.base import Columns, ConflictError, Decision, Model, Part, SpecError
from everlearn.data.slices import Consumed, Slice
from everlearn.data.source import Source, open_sources
from everlearn.data.withdrawals import Withdrawals
from everlearn.evaluation.gates import NonInferior
from everlearn.jobs import catchup
from everlearn.jobs.begin import classes_beforehand, resolved_columns
from everlearn.jobs.excise import held
from everlearn.jobs.keep import keep
from everlearn.jobs.ledger import Ledger
from everlearn.jobs.online import online_of
from everlearn.jobs.plan import Plan, Request
from everlearn.jobs.queue import OPEN, Queue
from everlearn.jobs.spans import span
from everlearn.jobs.widen import grown, widened
from everlearn.learners.adapt import learner_kind
from everlearn.registry import aliases, bundle, definitions, lineage, versions
from everlearn.registry.definitions import Definition
from everlearn.registry.models import model_id
from everlearn.registry.versions import Version
from everlearn.storage import schema
from everlearn.storage.database import Database
from everlearn.storage.parts import Manifest, PartStore
from everlearn.strategies.strategy import Pretrained, Strategy

Then = Callable[[sa.Connection, int], None]


class Planner:
    """Freezes the input of jobs and queues them.

    Args:
        parts: where the states of versions are, and what tables are spooled to.
    """

    def __init__(self, database: Database, parts: PartStore, queue: Queue) -> None:
        self._database, self._parts, self._queue = database, parts, queue
        self._ledger = Ledger()

    def consumed(self, name: str) -> list[Consumed]:
        """What all versions of a model learned, the refused ones too. Raises `NotFoundError`."""
        with self._database.read() as connection:
            return [item for _, item in self._ledger.read(connection, name)]

    def taken(self, name: str, version: int) -> int:
        """The position of the last label of the log that a version is not to learn online. See
        `catchup.taken`."""
        with self._database.read() as connection:
            return catchup.taken(connection, self._ledger, name, version)

    def open(self, request: Request) -> list[Source]:
        """Open what a request names. Raises `InputError`, as `open_sources`."""
        return open_sources(request.data, blobs=self._parts.blobs, name=request.source)

    def plan(
        self,
        name: str,
        definition: int,
        request: Request,
        sources: Sequence[Source] | None = None,
        then: Then = lambda connection, job: None,
    ) -> int | Decision:
        """Queue a job for what is new.

        Args:
            sources: what `open` gave, where planning is tried again.
            then: done in the transaction that queues the job, with the job's number.

        Returns:
            The job's number, or the decision "nothing" with the reason why there is none.

        Raises:
            InputError: the data cannot be read or lacks a column.
            ChangedError: a file was changed since it was learned.
            ConflictError: a job of the model has not ended, from whose result this one has to
                start; or the model was changed meanwhile. Plan again when that is over.
        """
        with span("plan", model=name) as told:
            sources = self.open(request) if sources is None else sources
            found = self._plan(name, definition, request, sources, then)
            if isinstance(found, int):
                told(job=found)
            else:
                told(action=found.action, reason=found.reason)
            return found

    def _plan(
        self,
        name: str,
        definition: int,
        request: Request,
        sources: Sequence[Source],
        then: Then,
    ) -> int | Decision:
        with self._database.read() as connection:
            standing = _standing(connection, name)
            made = definitions.definition(connection, name, definition)
            base, former = _champion(connection, name, made)
            learned = self._ledger.read(connection, name)
            model, apart = made.model(), set[int]()
            key = model_id(connection, name)
            withdrawn = Withdrawals(self._database, key, self._parts.blobs)
            if base is not None and online_of(model) is not None:
                apart = catchup.apart(connection, name, base.number)
        strategy = _strategy(model, request.chunk)
        given = self._given(strategy)
        columns = self._columns(model, made, base, former, sources, given)
        _check_gate(model, columns)
        known = catchup.counted(learned, apart)
        slices = [source.slice(known, columns, request.again) for source in sources]
        new = [withdrawn.applied(piece, columns) for piece in slices if piece is not None]
        new = [piece for piece in new if piece.rows]
        if not request.again:
            new = _distinct(new)
        if not new:
            return _nothing(sources, learned, self._path(name, base))
        if request.keep:
            new = [keep(piece, self._parts.blobs.url) for piece in new]
        plan = Plan(
            definition=definition,
            base=base.number if base else None,
            base_digest=base.state_digest if base else "",
            strategy=strategy,
            columns=columns,
            classes=()
            if base is not None and strategy.start == "champion"
            else classes_beforehand(model, columns, new, self._parts.blobs),
            slices=tuple(new),
            holdout=model.holdout,
            given=given,
            holdouts=self._holdouts(name, columns, apart),
            again=request.again,
        )
        return self._add(name, plan, request.again, standing, then)

    def _given(self, strategy: Strategy) -> Manifest | None:
        """Store the state of a `Pretrained` start, so that the file is not needed any more."""
        if isinstance(strategy.start, Pretrained):
            return self._parts.save(bundle.read_state(strategy.start.path))
        if strategy.start not in ("champion", "scratch"):
            raise SpecError(
                "a job starts from 'champion', 'scratch' or Pretrained(file of `everlearn export`);"
                " a state in memory is for everlearn.learn"
            )
        return None

    def _columns(
        self,
        model: Model,
        made: Definition,
        base: Version | None,
        former: Definition | None,
        sources: Sequence[Source],
        given: Manifest | None,
    ) -> Columns:
        """The columns that the lineage pinned, and, where a strategy begins from scratch, those
        that came since; resolved from the data for a first version, and where the schema was
        changed since.

        Raises:
            SpecError: the definition does not go with the champion's, and does not begin anew.
        """
        if given is not None:
            return Columns.from_json(self._parts.load(given)["columns"].meta)
        if base is not None and former is not None:
            definitions.check_change(former, made)
            if "schema" not in definitions.changes(former, made):
                known = Columns.from_json(self._parts.load(base.manifest)["columns"].meta)
                scratch = _strategy(model, None).start == "scratch"
                return grown(known, model.schema, sources) if scratch else known
        return resolved_columns(model, sources)

    def _holdouts(self, name: str, columns: Columns, without: Set[int]) -> Manifest:
        """The hold-out rows of the newest version, without some, if it has these columns or the
        first of them. Of two jobs, the one that was planned later has those of both: a job that is
        retried late makes a newer version with older rows."""
        table, earlier = schema.versions.c, schema.versions.alias("earlier").c
        with self._database.read() as connection:
            key = model_id(connection, name)
            retried = sa.exists().where(
                earlier.model_id == key,
                earlier.number < table.number,
                earlier.job_id > table.job_id,
            )
            query = sa.select(table.number, table.manifest, table.holdouts).where(
                table.model_id == key,
                table.dropped_at.is_(None),
                table.number.not_in(without),
                ~retried,
            )
            newest = connection.execute(query.order_by(table.number.desc()).limit(1)).first()
            if newest is None:
                return {}
            withdrawals = Withdrawals(self._database, key, self._parts.blobs)
            gone = held.withdrawn_since(connection, name, newest.number, withdrawals)
        kept = held.without(self._parts, newest.holdouts, gone)
        if newest.manifest["columns"]["digest"] == Part(meta=columns.to_json()).digest:
            return kept
        rows = widened(self._parts.load({"columns": newest.manifest["columns"], **kept}), columns)
        rows.pop("columns", None)
        return self._parts.save(rows)

    def _path(self, name: str, base: Version | None) -> set[int]:
        """The numbers of the champion's ancestors and its own."""
        if base is None:
            return set()
        with self._database.read() as connection:
            return set(lineage.lineage(connection, name, base.number))

    def _add(
        self, name: str, plan: Plan, again: bool, standing: tuple[Any, ...], then: Then
    ) -> int | Decision:
        """Queue the plan, unless the same fold was refused before, or what it was made from does
        not stand any more."""
        with self._database.write() as connection:
            key = model_id(connection, name, lock=True)
            if _standing(connection, name) != standing:
                raise ConflictError(f"{name!r} was changed while a job was planned; plan it again")
            refused = None if again else _refused(connection, key, plan.fingerprint)
            if refused is not None:
                return Decision(
                    "nothing",
                    "the same rows were folded into the same version before, and version "
                    f"{refused} was refused; change the strategy, or learn them with --again",
                )
            job = self._queue.add(connection, key, plan.to_json(), plan.fingerprint, plan.base)
            then(connection, job)
            return job


def _champion(
    connection: sa.Connection, name: str, made: Definition
) -> tuple[Version | None, Definition | None]:
    """The champion and the definition that it was learned with."""
    number = aliases.current(connection, name)
    if number is None:
        return None, None
    base = versions.get(connection, name, number, increments=False)
    if base.definition == made.number:
        return base, made
    return base, definitions.definition(connection, name, base.definition)


def _standing(connection: sa.Connection, name: str) -> tuple[Any, ...]:
    """What a plan is made from: (champion, highest version, newest withdrawal).

    Raises:
        ConflictError: a job has not ended, or a candidate has yet to catch up, and will change it.
    """
    key, jobs, table = model_id(connection, name), schema.jobs.c, schema.versions.c
    query = sa.select(sa.func.min(jobs.id)).where(jobs.model_id == key, jobs.state.in_(OPEN))
    number = connection.execute(query).scalar()
    if number is not None:
        raise ConflictError(
            f"job {number} of {name!r} has not ended, and what it learns is what the next one "
            "starts from: let `everlearn worker` carry it out first, or give it up with "
            f"`everlearn job skip {number}`"
        )
    behind = catchup.behind(connection, name)
    if behind is not None:
        raise ConflictError(
            f"version {behind} of {name!r} is catching up with what was learned online meanwhile; "
            "a server does that: let it, or refuse it (`everlearn refuse`)"
        )
    highest = connection.execute(sa.select(sa.func.max(table.number)).where(table.model_id == key))
    gone = schema.withdrawals.c
    newest = connection.execute(sa.select(sa.func.max(gone.id)).where(gone.model_id == key))
    return aliases.current(connection, name), highest.scalar(), newest.scalar()


def _strategy(model: Model, chunk: int | None) -> Strategy:
    strategy: Strategy = model.strategy if model.strategy is not None else Strategy()
    if not isinstance(strategy, Strategy):
        raise SpecError(f"Model(strategy=) is an everlearn.Strategy, not {strategy!r}")
    return strategy if chunk is None else replace(strategy, chunk=chunk)


def _check_gate(model: Model, columns: Columns) -> None:
    """Refuse a gate that could only refuse, before the job rather than after it.

    Raises:
        SpecError: it is no gate, or has no metric for this kind of learner.
    """
    if model.gate is not None and not hasattr(model.gate, "decide"):
        raise SpecError(
            f"Model(gate=) is a gate such as NonInferior('log_loss'), not {model.gate!r}"
        )
    if isinstance(model.gate, NonInferior):
        classes = len(model.schema.classes)
        model.gate.check(learner_kind(model.learner, columns, classes=classes))


def _refused(connection: sa.Connection, key: int, fingerprint: str) -> int | None:
    """The version in which a job of this fingerprint ended, if it was refused."""
    table = schema.jobs.c
    query = sa.select(table.version, table.decision).where(
        table.model_id == key, table.fingerprint == fingerprint, table.state == "done"
    )
    for row in connection.execute(query):
        if row.decision["action"] == "refuse":
            return int(row.version)
    return None


def _distinct(slices: Sequence[Slice]) -> list[Slice]:
    """The slices without those whose content an earlier one has: a copy of a file is that file."""
    found: dict[tuple[str, int], Slice] = {}
    for piece in slices:
        found.setdefault((piece.digest, piece.start), piece)
    return list(found.values())


def _nothing(
    sources: Sequence[Source], learned: Sequence[tuple[int, Consumed]], path: set[int]
) -> Decision:
    """Nothing is new; what of it only versions beside the champion's path learned is on hold."""
    called = {source.name for source in sources}
    mine = [item for item in learned if item[1].source in called] or learned
    known = {one.digest for number, one in mine if number in path}
    held = [number for number, one in mine if number not in path and one.digest not in known]
    names = ", ".join(source.name for source in sources[:3]) + (", …" if len(sources) > 3 else "")
    if not held:
        return Decision("nothing", f"nothing new in {names}: all of it was learned before")
    numbers = ", ".join(str(number) for number in sorted(set(held)))
    return Decision(
        "nothing",
        f"nothing new in {names}; what the champion has not learned of it is on hold, because "
        f"version {numbers} learned it and was refused or rolled back; --again learns it",
    )
