"""Recorded increments, as they were folded and can be folded once more.

A version is its parent's state and what it learned since; both are recorded, and so is how: the
plan of its job, with the definition of that day. Folded again, the same increments end in the same
state, digest by digest; with rows of them withdrawn, in the state that never met these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import sqlalchemy as sa

from everlearn.base import Columns, InputError, Json, State
from everlearn.data.join import LogSource
from everlearn.data.resettle import readable
from everlearn.data.resettle import recorded as refusals
from everlearn.data.slices import Slice
from everlearn.data.source import open_reader
from everlearn.data.tables import BlobStore
from everlearn.data.withdrawn import withdrawn_rows
from everlearn.evaluation.holdouts import HoldOuts
from everlearn.jobs.begin import classes_beforehand
from everlearn.jobs.folding import AfterChunk, Folding
from everlearn.jobs.learn import Fold
from everlearn.jobs.plan import Plan
from everlearn.registry import definitions, lineage, versions
from everlearn.registry.config import from_config
from everlearn.registry.models import model_id
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Version
from everlearn.storage import schema

Change = Callable[[Slice, Plan], Slice]
"""A slice as it is to be learned instead, by the plan that learned it."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one version folded into its parent's state.

    Args:
        version: its record.
        plans: of its increments, in their order; none where it learned nothing (data of a key was
            erased from its parent, or answers of its parent were patched).
    """

    version: Version
    plans: tuple[Plan, ...]


def recorded(registry: Registry, name: str, path: Sequence[int]) -> list[Recorded]:
    """What versions of a lineage folded, each into the state of the one before.

    Args:
        path: numbers of versions, each the parent of the next.

    Raises:
        NotFoundError: there is no such version.
        InputError: one was not learned in this workspace, so that nothing says how; or it was
            learned online in a way that depends on more than its rows.
    """
    with registry.database.read() as connection:
        return [_recorded(registry, connection, name, number) for number in path]


def _recorded(registry: Registry, connection: sa.Connection, name: str, number: int) -> Recorded:
    version = versions.get(connection, name, number)
    if not version.increments:
        return Recorded(version, ())
    slices = [Slice.from_json(one.slice) for one in version.increments]
    if version.job_id is None:
        return Recorded(version, _online(registry, connection, name, version, slices))
    table = schema.jobs.c
    query = sa.select(table.plan).where(
        table.model_id == model_id(connection, name), table.id == version.job_id
    )

    def source(number: int) -> str | None:
        return definitions.definition(connection, name, number).source

    plan = Plan.from_json(connection.execute(query).scalar_one(), source)
    plans = []
    for stage in plan.stages:  # increments are as they are now, where data was erased since
        mine, slices = slices[: len(stage.slices)], slices[len(stage.slices) :]
        plans.append(replace(stage, slices=tuple(mine), earlier=(), refolds=False))
    return Recorded(version, tuple(plans))


def _online(
    registry: Registry,
    connection: sa.Connection,
    name: str,
    version: Version,
    slices: Sequence[Slice],
) -> tuple[Plan, ...]:
    """The plan of a version that was cut from a model that learns online."""
    if is_imported(version):
        raise InputError(
            f"version {version.number} of {name!r} was learned in another workspace: its increments"
            " cannot be folded again here, nor can what came before it"
        )
    made = definitions.definition(connection, name, version.definition)
    strategy = from_config(version.strategy, made.source)
    if strategy.memory is not None and any(piece.options.get("corrects") for piece in slices):
        raise InputError(
            f"version {version.number} of {name!r} was learned online with a memory, and labels of"
            " it correct earlier ones: it cannot be folded again row by row; fold from a later"
            " version, or retrain from scratch"
        )
    columns = Columns.from_json(_columns(registry, connection, name, version))
    return (
        Plan(
            definition=version.definition,
            base=version.parent,
            base_digest="",
            strategy=strategy,
            columns=columns,
            classes=(),
            slices=tuple(slices),
            holdout=0.0,
            online=True,
        ),
    )


def is_imported(version: Version) -> bool:
    """Whether a version was learned in another workspace."""
    return version.job_id is None and version.parent is None


def _columns(registry: Registry, connection: sa.Connection, name: str, version: Version) -> Json:
    """The columns of a version, or of the nearest of its lineage that has its state still."""
    for number in reversed(lineage.lineage(connection, name, version.number)):
        found = versions.get(connection, name, number, increments=False)
        if found.dropped_at is None:
            return registry.parts.load(found.manifest)["columns"].meta
    raise InputError(
        f"nothing says what the columns of version {version.number} of {name!r} were: the states"
        " of all versions that it came from were removed"
    )


def changed(registry: Registry, name: str, plans: Sequence[Plan], change: Change) -> list[Plan]:
    """The plans for slices that are changed.

    Where classes had to be known beforehand, they are those of the rows that are left.
    """
    made = []
    for plan in plans:
        slices = tuple(change(piece, plan) for piece in plan.slices)
        if slices != plan.slices:
            classes = plan.classes
            if classes:
                model = registry.definition(name, plan.definition).model()
                classes = classes_beforehand(model, plan.columns, slices, registry.parts.blobs)
            plan = replace(plan, slices=slices, classes=classes)
        made.append(plan)
    return made


def plan_refold(
    registry: Registry, name: str, path: Sequence[int], touched: Set[int], change: Change
) -> Plan | None:
    """What versions learned, from the first that is touched on, as one job: it starts from the last
    version before them, and ends in a version of its own.

    Args:
        path: a lineage, from its beginning.
        touched: versions of which increments are changed, or others.
        change: of their slices.

    Returns:
        The plan, without hold-outs; None where no version of the path is touched.

    Raises:
        InputError: an increment cannot be folded again: which, why, and from where the others can
            be; or nothing is left.
    """
    if not touched & set(path):
        return None
    first = path.index(min(touched & set(path)))
    base = _newest_whole(registry, name, path[:first])
    after = path if base is None else path[path.index(base.number) + 1 :]
    parts = recorded(registry, name, after)
    plans, gone = list[Plan](), dict[int, InputError]()
    for one in parts:
        try:
            made = changed(registry, name, one.plans, change)
            check_readable(made, registry.parts.blobs)
            plans += made
        except InputError as error:
            gone[one.version.number] = error
    if gone:
        raise InputError(_not_again(name, parts, gone, path[first])) from next(iter(gone.values()))
    left = [plan for plan in plans if _does_anything(plan, registry.parts.blobs)]
    if base is None and not any(_has_rows(plan, registry.parts.blobs) for plan in left):
        raise InputError(
            f"nothing that {name!r} learned is left without these rows, and there is no version"
            " before them to go back to: train it on other rows with Strategy(start='scratch'), or"
            " take out fewer"
        )
    *earlier, last = left or plans[-1:]  # with no row, an increment is the identity
    return replace(
        last,
        base=None if base is None else base.number,
        base_digest="" if base is None else base.state_digest,
        earlier=tuple(earlier),
        refolds=True,
    )


def _newest_whole(registry: Registry, name: str, numbers: Sequence[int]) -> Version | None:
    """The newest of some versions whose state is there; None for a fold from nothing."""
    for number in reversed(numbers):
        version = registry.version(name, number)
        if version.dropped_at is None:
            return version
    return None


def _does_anything(plan: Plan, blobs: BlobStore) -> bool:
    """Whether there is anything to learn by a plan, or to take out of what is remembered: a label
    that is taken back is no row."""
    return any(part.options.get("corrects") for part in plan.slices) or _has_rows(plan, blobs)


def _has_rows(plan: Plan, blobs: BlobStore) -> bool:
    """Whether there is anything to learn by a plan."""
    for part in plan.slices:
        gone = len(withdrawn_rows(part, blobs))
        if part.kind == LogSource.kind:
            gone = len(refusals(part, blobs))
        if part.rows > gone:
            return True
    return False


def _not_again(
    name: str, parts: Sequence[Recorded], gone: Mapping[int, InputError], first: int
) -> str:
    """Which increments cannot be folded again, why, and from where the others can be.

    Args:
        parts: what was to be folded.
        gone: version → why its increments cannot be.
        first: the first version that has rows to be taken out.
    """
    number, why = next(iter(gone.items()))
    told = [f"what version {number} of {name!r} learned cannot be folded again: {why}"]
    if more := sorted(gone.keys() - {number}):
        told.append(f"the same holds for version {', '.join(map(str, more))}")
    states = [one.version for one in parts]
    dropped = [one.number for one in states if one.number < first and one.dropped_at is not None]
    if dropped:
        told.append(
            "it cannot begin later, for the retention policy removed the state of version"
            f" {', '.join(map(str, dropped))}"
        )
    whole = [one.number for one in states if one.number >= max(gone) and one.dropped_at is None]
    if whole and whole[0] < states[-1].number:
        told.append(
            f"only what was learned after version {whole[0]} can: take out rows that none up to it"
            " learned, or retrain with Strategy(start='scratch')"
        )
    else:
        told.append("nothing can that came after it: retrain with Strategy(start='scratch')")
    return "; ".join(told)


def check_readable(plans: Sequence[Plan], blobs: BlobStore) -> None:
    """Raises `UnreadableError` where a source of increments is gone."""
    for plan in plans:
        for part in plan.slices if _does_anything(plan, blobs) else ():
            with readable(part):
                open_reader(part, plan.columns, blobs).close()


def refold(
    registry: Registry,
    name: str,
    base: State,
    plans: Sequence[Plan],
    after_chunk: AfterChunk = lambda folded: None,
) -> Fold:
    """Fold recorded increments into a state, as their jobs did. Nothing is stored.

    Args:
        base: the state that the first of them starts from; empty for none.
        plans: of the increments, at least one.

    Raises:
        ChangedError, InputError: a source is not what was learned, or cannot be read any more.
    """
    fold, state = None, base
    for plan in plans:
        learner = registry.definition(name, plan.definition).section("learner")
        folding = Folding(registry.parts, plan, learner, state, HoldOuts(), looks=False)
        folding.learn(after_chunk)
        fold, state = folding.fold, folding.fold.save()
    assert fold is not None, "no increment"
    return fold
