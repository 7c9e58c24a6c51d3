"""What became of rows that were selected: how many a version learned, and how many it held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from everlearn.base import Hashes, Ints, NotFoundError, State, under
from everlearn.data.blocks import BlockReader
from everlearn.data.holdout import in_holdout
from everlearn.data.ids import SeenIds
from everlearn.data.join import LogSource
from everlearn.data.resettle import readable
from everlearn.data.resettle import recorded as refusals
from everlearn.data.slices import Slice
from everlearn.data.tables import BlobStore
from everlearn.data.withdrawn import WITHDRAWN
from everlearn.jobs.plan import Plan
from everlearn.jobs.refold import Recorded, check_readable
from everlearn.registry.registry import Registry
from everlearn.registry.versions import Increment


class Fate(NamedTuple):
    """Of the rows of one slice that were selected, how many were learned and held out. The others
    were set aside, or had been learned before."""

    learned: int
    held: int


def fates(
    registry: Registry,
    name: str,
    one: Recorded,
    rows: Sequence[Ints],
    ids: Sequence[Hashes],
) -> list[Fate]:
    """What became of the selected rows of each slice that a version learned. Where the version's
    account says that none of its rows was a duplicate, that is told by their ids; else its
    increments are read again. Rows that a version whose state was removed had learned before count
    as learned again.

    Args:
        rows: of each slice, ascending numbers of source rows; of the log, positions.
        ids: of each slice, ids of these rows.

    Raises:
        UnreadableError: a source is gone.
    """
    parts = [(part, plan) for plan in one.plans for part in plan.slices]
    told: list[Fate | None] = [
        _told(part, plan, increment, *found, registry.parts.blobs)
        for (part, plan), increment, found in zip(
            parts, one.version.increments, zip(rows, ids, strict=True), strict=True
        )
    ]
    if None not in told:
        return [fate for fate in told if fate is not None]
    return [
        Fate(*(int(np.isin(mine, where).sum()) for where in became))
        for mine, became in zip(rows, _became(registry, name, one), strict=True)
    ]


def _told(
    part: Slice, plan: Plan, increment: Increment, rows: Ints, ids: Hashes, blobs: BlobStore
) -> Fate | None:
    """What became of rows by the account alone; None where that does not tell."""
    if not len(rows):
        return Fate(0, 0)
    aside = increment.set_aside - increment.reasons.get("set_aside", {}).get(WITHDRAWN, 0)
    good = np.ones(len(rows), bool)
    if aside and part.kind == LogSource.kind:
        refused = np.array(list(refusals(part, blobs)), np.int64)
        aside, good = max(0, increment.set_aside - len(refused)), ~np.isin(rows, refused)
    if aside or increment.duplicates:
        return None
    held = int((good & in_holdout(ids, part.options.get("holdout", plan.holdout))).sum())
    return Fate(int(good.sum()) - held, held)


def _became(registry: Registry, name: str, one: Recorded) -> Iterator[tuple[Ints, Ints]]:
    """Of each slice (the rows that were learned, those that were held out)."""
    blobs, none = registry.parts.blobs, [np.zeros(0, np.int64)]
    check_readable(one.plans, blobs)
    seen = SeenIds(under("ids", _base(registry, name, one)))
    for plan in one.plans:
        learned = [list(none) for _ in plan.slices]
        held = [list(none) for _ in plan.slices]
        known = SeenIds(seen.save(), again=plan.again)
        reader = BlockReader(plan.slices, plan.columns, blobs, plan.holdout, known)
        first = [int(part.kind == LogSource.kind) for part in plan.slices]  # positions are from 1
        with readable(plan.slices[0]):
            for block in reader.blocks():
                start = block.first + first[block.part]
                learned[block.part].append(block.learn_at + start)
                held[block.part].append(block.held_at + start)
        known.settle()
        seen = known
        yield from zip(map(np.concatenate, learned), map(np.concatenate, held), strict=True)


def _base(registry: Registry, name: str, one: Recorded) -> State:
    """The state of the version that a version goes on from, if it is there."""
    base = one.plans[0].base if one.version.parent is None else one.version.parent
    if base is None:
        return {}
    try:
        return registry.state(name, registry.version(name, base))
    except NotFoundError:
        return {}
