"""Copies of a whole workspace, between any two databases and blob stores, and backup while in use.

Rows are read in one snapshot and written in one transaction, which is committed only after every
blob that they refer to was copied and every row was read back and compared. A copy that was
interrupted left no row, and is simply run again.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from everlearn.base import (
    ConflictError,
    InputError,
    IntegrityError,
    Json,
    NotFoundError,
    StorageError,
    canonical_json,
)
from everlearn.storage import schema
from everlearn.storage.blobs import Blobs
from everlearn.storage.database import Database
from everlearn.storage.stores import open_blobs

Progress = Callable[[int, int], None]
"""Told of the blobs copied so far, and of how many there are."""

_PAGE_ROWS = 500
_BLOBS_AT_ONCE = 4
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class CopyReport:
    """What was copied, and compared afterwards.

    Args:
        rows: table → number of rows.
        blobs: number of blobs.
        bytes: their size together.
        restarted_jobs: jobs in progress, which the copy starts again from their frozen input.
    """

    rows: dict[str, int] = field(default_factory=dict)
    blobs: int = 0
    bytes: int = 0
    restarted_jobs: int = 0

    def to_json(self) -> dict[str, Json]:
        """The same as JSON."""
        return asdict(self)


def copy_workspace(
    source: Database,
    source_blobs: Blobs,
    target: Database,
    target_blobs: Blobs,
    progress: Progress = lambda done, total: None,
) -> CopyReport:
    """Copy everything into an empty workspace, verified. The source may be in use meanwhile.

    Ids, numbers, digests and histories stay the same. Blobs that no row refers to are left behind,
    and so are checkpoints: a job in progress starts again in the copy.

    Args:
        source, source_blobs: what is copied, as it is at one moment.
        target, target_blobs: where to; the database may not hold a model.
        progress: called after each blob.

    Raises:
        ConflictError: the target holds models, or the source's versions were dropped meanwhile.
        IntegrityError: a blob of the source is damaged, or what was written reads differently.
        StorageError: one of the stores failed; the target has no row.
    """
    report = CopyReport()
    with target.write() as writing:
        target.in_commit_order(writing, "copy")
        if writing.execute(sa.select(schema.models.c.id).limit(1)).first() is not None:
            raise ConflictError(
                f"the workspace at {_shown(target)} has models; copy into a new one"
            )
        rows = _RowCopy(writing, report)
        with source.read() as reading:
            for table in schema.metadata.sorted_tables:
                rows.copy(table, reading)
        _copy_blobs(source_blobs, target_blobs, rows, report, progress)
        rows.compare()
        if target.dialect == "postgresql":
            _continue_numbers(writing)
    return report


def backup(
    source: Database,
    source_blobs: Blobs,
    folder: str | os.PathLike[str],
    *,
    database_name: str = "workspace.db",
    blobs_name: str = "blobs",
    progress: Progress = lambda done, total: None,
) -> CopyReport:
    """Copy a workspace, while it is in use, into a folder that has its name only when complete.

    Args:
        folder: must not exist yet. It becomes a workspace: a SQLite file and a blob folder.
        database_name, blobs_name: their names in it.

    Raises:
        InputError: the folder exists.
        Otherwise as `copy_workspace`; nothing is left behind.
    """
    place = Path(folder).absolute()
    if place.exists():
        raise InputError(f"{place} exists; name a folder that is not there yet")
    partial = place.with_name(f".{place.name}.{secrets.token_hex(4)}.partial")
    try:
        target = Database.open(f"sqlite:///{partial / database_name}")
        try:
            blobs = open_blobs(partial / blobs_name)
            report = copy_workspace(source, source_blobs, target, blobs, progress)
        finally:
            target.close()
        _name(partial, place)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return report


class _RowCopy:
    """Rows of all tables on their way, with what is needed to compare them afterwards."""

    def __init__(self, target: Connection, report: CopyReport) -> None:
        self.mentioned: set[str] = set()
        self.needed: dict[str, str] = {}
        self._target, self._report = target, report
        self._sums: dict[str, int] = {}

    def copy(self, table: sa.Table, source: Connection) -> None:
        total, count = 0, 0
        for page in _pages(table, source):
            rows = [self._prepared(table, row) for row in page]
            for row in rows:
                total += _row_number(table, row)
                self._note_blobs(table, row)
            self._target.execute(sa.insert(table), rows)
            count += len(rows)
        self._sums[table.name] = total
        self._report.rows[table.name] = count

    def compare(self) -> None:
        """Read every row back, inside the transaction that wrote it.

        Raises:
            IntegrityError: a table reads differently.
        """
        for table in schema.metadata.sorted_tables:
            pages = _pages(table, self._target)
            if (
                sum(_row_number(table, row) for page in pages for row in page)
                != self._sums[table.name]
            ):
                raise IntegrityError(f"table {table.name!r} reads differently than it was written")

    def _prepared(self, table: sa.Table, row: RowMapping) -> dict[str, Any]:
        values = dict(row)
        if table is schema.jobs and values["finished_at"] is None:
            self._report.restarted_jobs += 1
            values["checkpoint"] = None
        return values

    def _note_blobs(self, table: sa.Table, row: dict[str, Any]) -> None:
        for column in table.columns:
            if isinstance(column.type, sa.JSON):
                self.mentioned.update(_digests(row[column.name]))
        if table is schema.archives and row["blob"] is not None:
            self.needed[row["blob"]] = f"the archived {row['kind']} from {row['first']} on"
        if table is schema.versions and row["dropped_at"] is None:
            for column_name in ("manifest", "holdouts"):
                for name, entry in row[column_name].items():
                    self.needed[entry["blob"]] = f"part {name!r} of version {row['number']}"


def _pages(table: sa.Table, connection: Connection) -> Iterator[list[RowMapping]]:
    """All rows by primary key, page by page."""
    keys = list(table.primary_key.columns)
    query = sa.select(table).order_by(*keys).limit(_PAGE_ROWS)
    page = list(connection.execute(query).mappings())
    while page:
        yield page
        last = sa.tuple_(*(sa.literal(page[-1][key.name], key.type) for key in keys))
        page = list(connection.execute(query.where(sa.tuple_(*keys) > last)).mappings())


def _row_number(table: sa.Table, row: RowMapping | dict[str, Any]) -> int:
    """A row's digest as a number. The sum over a table does not depend on the order of the rows,
    in which databases differ."""
    values = [row[column.name] for column in table.columns]
    return int.from_bytes(sha256(canonical_json(values)).digest())


def _digests(value: Json) -> Iterator[str]:
    """Everything in a JSON value that looks like the digest of a blob."""
    if isinstance(value, str):
        if len(value) == 64 and _DIGEST.fullmatch(value):
            yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _digests(item)


def _copy_blobs(
    source: Blobs, target: Blobs, rows: _RowCopy, report: CopyReport, progress: Progress
) -> None:
    """Copy what the rows refer to; reading and writing both verify."""
    there = {info.digest for info in source.list()}
    for digest, what in rows.needed.items():
        if digest not in there:
            raise ConflictError(
                f"{what} is not in {source.url} (blob {digest}); if it was dropped just now, copy "
                f"again"
            )
    chosen = sorted(there & (rows.mentioned | rows.needed.keys()))

    def copy_one(digest: str) -> int:
        try:
            data = source.get(digest)
        except NotFoundError as error:
            raise ConflictError(f"{error}; it was collected meanwhile, copy again") from error
        target.put(data)
        return len(data)

    pool = ThreadPoolExecutor(max_workers=_BLOBS_AT_ONCE)
    try:
        for done, size in enumerate(pool.map(copy_one, chosen), start=1):
            report.blobs, report.bytes = done, report.bytes + size
            progress(done, len(chosen))
    finally:
        pool.shutdown(cancel_futures=True)


def _continue_numbers(connection: Connection) -> None:
    """Let PostgreSQL's identity columns go on after the highest number that was copied."""
    for table in schema.metadata.sorted_tables:
        key = table.autoincrement_column
        if key is None:
            continue
        sequence = sa.func.pg_get_serial_sequence(table.name, key.name)
        top = sa.select(sa.func.max(key)).scalar_subquery()
        named = sa.select(sa.func.setval(sequence, sa.func.coalesce(top, 1), top.is_not(None)))
        connection.execute(named)


def _name(partial: Path, place: Path) -> None:
    """Give the complete folder its name, durably."""
    try:
        os.rename(partial, place)
        descriptor = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(error.errno, f"{place} cannot be made: {error.strerror}") from error


def _shown(database: Database) -> str:
    return sa.make_url(database.url).render_as_string(hide_password=True)
