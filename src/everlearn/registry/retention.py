"""Retention: which versions keep their state, and the collection of blobs that nothing refers to.

Dropping a version removes nothing by itself: it marks the version, and its blobs are removed by the
next collection unless another version, a job or an increment refers to them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from everlearn.base import InputError, Json, SpecError
from everlearn.registry import aliases
from everlearn.registry.models import model_id, now
from everlearn.registry.versions import check_exists
from everlearn.storage import schema
from everlearn.storage.blobs import BlobInfo, Blobs
from everlearn.storage.database import Database

DAY = 86_400.0
LEAST_GRACE = 600.0
"""Seconds; longer than a `PartStore` takes a blob for given that it stored before."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Retention:
    """Which versions keep their state. Those that an alias points at, and those that a job in
    progress starts from, always do.

    Args:
        last: the newest versions, this many.
        champion_days: every version that was champion within this many days.

    Raises:
        SpecError: a negative number.
    """

    last: int = 20
    champion_days: float = 30.0

    def __post_init__(self) -> None:
        if self.last < 0 or not self.champion_days >= 0:
            raise SpecError(f"a retention keeps 0 or more versions and days, not {self!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What a collection removed, or with a dry run would remove.

    Args:
        removed: digests of the blobs.
        bytes: their size.
        kept: number of blobs that something refers to.
        young: number of blobs that nothing refers to, but that are younger than the grace period.
        dry_run: whether nothing was removed.
    """

    removed: tuple[str, ...]
    bytes: int
    kept: int
    young: int
    dry_run: bool

    def to_json(self) -> dict[str, Json]:
        """What `everlearn gc --json` prints."""
        return {
            "removed": len(self.removed),
            "bytes": self.bytes,
            "kept": self.kept,
            "young": self.young,
            "dry_run": self.dry_run,
            "digests": list(self.removed),
        }


def protected(connection: sa.Connection, model: str) -> dict[int, str]:
    """Versions whose state may not be dropped → why."""
    reasons = {
        number: f"it is {name}" for name, number in aliases.all_aliases(connection, model).items()
    }
    jobs = schema.jobs.c
    query = sa.select(jobs.id, jobs.base_version, jobs.version).where(
        jobs.model_id == model_id(connection, model), jobs.finished_at.is_(None)
    )
    for row in connection.execute(query):
        for number in (row.base_version, row.version):
            if number is not None:
                reasons.setdefault(number, f"job {row.id}, which is not finished, needs it")
    return reasons


def expired(
    connection: sa.Connection, model: str, policy: Retention, *, at: int | None = None
) -> list[int]:
    """Versions with a state that the policy does not keep, in the order of their numbers.

    Args:
        at: the moment to judge by, microseconds; now unless given.
    """
    moment = now() if at is None else at
    table = schema.versions.c
    query = sa.select(table.number, table.dropped_at).where(
        table.model_id == model_id(connection, model)
    )
    rows = connection.execute(query.order_by(table.number)).all()
    keep = {row.number for row in rows[len(rows) - min(policy.last, len(rows)) :]}
    keep |= set(protected(connection, model))
    since = moment - int(policy.champion_days * DAY * 1e6)
    keep |= champions_since(connection, model, since)
    return [row.number for row in rows if row.dropped_at is None and row.number not in keep]


def champions_since(connection: sa.Connection, model: str, since: int) -> set[int]:
    """All versions that were champion at some moment since then (microseconds)."""
    found = {aliases.at(connection, model, since)}
    for move in aliases.history(connection, model, aliases.CHAMPION):
        if move.at >= since:
            found |= {move.version_from, move.version_to}
    return {number for number in found if number is not None}


def drop(connection: sa.Connection, model: str, number: int) -> None:
    """Mark a version's state as removed. Its record stays; it can no longer be loaded.

    Raises:
        InputError: an alias points at it, or a job that is not finished needs it.
        NotFoundError: there is no such version, or it was dropped before.
    """
    key = model_id(connection, model, lock=True)
    check_exists(connection, model, number, whole=True)
    reason = protected(connection, model).get(number)
    if reason is not None:
        raise InputError(f"the state of version {number} of {model!r} cannot be removed: {reason}")
    table = schema.versions
    connection.execute(
        table.update()
        .where(table.c.model_id == key, table.c.number == number)
        .values(dropped_at=now())
    )


def retain(
    connection: sa.Connection, model: str, policy: Retention, *, dry_run: bool = False
) -> list[int]:
    """Drop every version that the policy does not keep; returns their numbers."""
    model_id(connection, model, lock=True)
    numbers = expired(connection, model, policy)
    if not dry_run:
        for number in numbers:
            drop(connection, model, number)
    return numbers


def collect(
    database: Database,
    blobs: Blobs,
    *,
    grace: float = DAY,
    dry_run: bool = False,
    exclusive: bool = False,
    also_keep: Iterable[str] = (),
    as_if_dropped: Mapping[str, Sequence[int]] | None = None,
) -> Collection:
    """Remove the blobs that no version, hold-out, job, increment or withdrawal refers to.

    Safe while others write: a blob is written, or its age renewed, before a row refers to it, and
    what is younger than the grace period stays.

    Args:
        grace: seconds; longer than it takes from writing a blob to committing a row that refers
            to it. Less than 10 minutes only with `exclusive`.
        dry_run: only say what would be removed.
        exclusive: nobody else uses the workspace, and this process opens it anew afterwards.
        also_keep: digests that are referred to from elsewhere.
        as_if_dropped: model → versions to regard as dropped; for a dry run of `retain`.

    Raises:
        InputError: the grace period is too short; nothing was removed.
        StorageError: the database or the blob store failed.
    """
    if not grace >= (0 if exclusive or dry_run else LEAST_GRACE):
        raise InputError(
            f"a grace period of {grace!r} seconds could remove what others are just writing;"
            f" give {LEAST_GRACE:.0f} or more, or exclusive=True if nobody else uses the workspace"
        )
    oldest = now() - int(grace * 1e6)
    listed = list(
        blobs.list()
    )  # before the rows are read: what is written from now on is not in it
    with database.read() as connection:
        kept = reachable(connection, as_if_dropped if dry_run else None) | set(also_keep)
    loose = [info for info in listed if info.digest not in kept]
    old = [info for info in loose if info.modified <= oldest]
    removed = old if dry_run else [info for info in old if _remove(blobs, info, oldest)]
    return Collection(
        removed=tuple(info.digest for info in removed),
        bytes=sum(info.size for info in removed),
        kept=len(listed) - len(loose),
        young=len(loose) - len(removed),
        dry_run=dry_run,
    )


def _remove(blobs: Blobs, info: BlobInfo, oldest: int) -> bool:
    """Remove a blob, unless somebody renewed its age meanwhile, to refer to it again."""
    again = blobs.info(info.digest)
    if again is None or again.modified > oldest:
        return False
    blobs.delete(info.digest)
    return True


def reachable(
    connection: sa.Connection, as_if_dropped: Mapping[str, Sequence[int]] | None = None
) -> set[str]:
    """Digests of all blobs that some row refers to. Errs on the side of keeping: everything in the
    JSON of those rows that looks like a digest counts."""
    versions, jobs, increments = schema.versions.c, schema.jobs.c, schema.increments.c
    whole = sa.select(versions.manifest, versions.holdouts).where(versions.dropped_at.is_(None))
    for model, numbers in (as_if_dropped or {}).items():
        key = model_id(connection, model)
        whole = whole.where(sa.or_(versions.model_id != key, versions.number.not_in(numbers)))
    found: set[str] = set()
    others = (jobs.plan, jobs.checkpoint), (increments.slice,), (schema.withdrawals.c.places,)
    for query in (whole, *(sa.select(*columns) for columns in others)):
        for row in connection.execute(query):
            for value in row:
                _add_digests(value, found)
    archived = sa.select(schema.archives.c.blob).where(schema.archives.c.blob.is_not(None))
    return found.union(connection.execute(archived).scalars())


def _add_digests(value: Json, found: set[str]) -> None:
    if isinstance(value, str):
        if len(value) == 64 and _DIGEST.fullmatch(value):
            found.add(value)
    elif isinstance(value, dict):
        for item in value.values():
            _add_digests(item, found)
    elif isinstance(value, list):
        for item in value:
            _add_digests(item, found)
