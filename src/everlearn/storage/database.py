"""The database of a workspace: SQLite in WAL mode, or PostgreSQL, behind two context managers.

Writing transactions are serialized on SQLite (BEGIN IMMEDIATE, with patience instead of errors);
on PostgreSQL they run side by side, and what must not be changed meanwhile is locked with
`Database.for_update`, what must be seen in the order of commits with `Database.in_commit_order`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from everlearn.base import (
    ConflictError,
    InputError,
    Json,
    MissingDependencyError,
    NotFoundError,
    StorageError,
)
from everlearn.storage.positions import hold

Dialect = Literal["sqlite", "postgresql"]
Clock = Callable[[], int]

_PATIENCE_SECONDS = 120.0
_LEFT_TO_PARENT: list[Engine] = []

SelectT = TypeVar("SelectT", bound="sa.Select[Any]")


class Database:
    """Tables of a workspace. Safe for many threads and processes; survives fork; can be pickled.

    Make one with `Database.open`.

    Attributes:
        clock: what time it is for what happens in the workspace, microseconds since 1970 UTC; a
            copy in another process has the machine's.
    """

    def __init__(self, url: URL, clock: Clock | None = None) -> None:
        self._url = url
        self.clock = clock or _now
        self._lock = threading.Lock()
        self._writing = threading.local()
        self._connect()

    @classmethod
    def open(cls, url: str, *, create: bool = True, clock: Clock | None = None) -> Database:
        """Open a workspace's database, made and brought up to date first. Many processes may.

        Args:
            url: ``sqlite:///path`` or ``postgresql+psycopg://user@host:port/database``
                (``?options=-csearch_path%3Dname`` chooses a schema of it).
            create: make the tables if there are none.
            clock: see `Database`; the machine's unless given.

        Raises:
            NotFoundError: there is none, and `create` is false.
            InputError: a URL of another kind.
            StorageError: unreachable, damaged, or made by a newer release.
        """
        database = cls(_parse(url), clock)
        try:
            database._prepare(create)
        except BaseException:
            database.close()
            raise
        return database

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._url,)

    @property
    def url(self) -> str:
        """Where it is, in the form that `open` takes (with its password, if it has one)."""
        return self._url.render_as_string(hide_password=False)

    @property
    def dialect(self) -> Dialect:
        """Which of the two databases it is."""
        return "sqlite" if self._url.get_backend_name() == "sqlite" else "postgresql"

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection in a writing transaction: committed at the end, undone by an exception.

        On SQLite there is one writer at a time; others wait their turn, two minutes at most. On
        PostgreSQL each statement sees what was committed before it (READ COMMITTED).

        Raises:
            StorageError: full, unreachable, or `write` inside `write`; nothing was changed.
            ConflictError: PostgreSQL ended a deadlock by undoing this transaction; run it again.
        """
        if getattr(self._writing, "active", False):
            raise StorageError("write() inside write() would wait for itself; pass the connection")
        self._writing.active = True
        try:
            with self._transaction(writing=True) as connection:
                yield connection
        finally:
            self._writing.active = False

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one snapshot, and may not write. Keep it short: while it is
        open, SQLite cannot shorten its log; read in pages, and learn between them.

        Raises:
            StorageError: unreachable or damaged.
        """
        with self._transaction(writing=False) as connection:
            yield connection

    def for_update(self, select: SelectT) -> SelectT:
        """The same query, locking the rows it finds until the transaction ends. On SQLite, where
        a writer is alone, nothing needs to be added."""
        return select if self.dialect == "sqlite" else select.with_for_update()

    def in_commit_order(self, connection: Connection, log: str) -> None:
        """Hold the lock of a log until this transaction ends, so that the numbers it assigns from
        here on become visible in their order: who follows positions then misses nothing.

        Args:
            connection: of `write`.
            log: any name, the same for all writers of the same log.
        """
        hold(connection, log)

    def close(self) -> None:
        """Close the connections that are not in use."""
        if self._pid == os.getpid():
            self._writer.dispose()
            self._reader.dispose()

    def _connect(self) -> None:
        self._pid = os.getpid()
        if self.dialect == "sqlite":
            self._writer = _sqlite_engine(self._url, writing=True)
            self._reader = _sqlite_engine(self._url, writing=False)
        else:
            self._writer = sa.create_engine(
                self._url, max_overflow=-1, pool_pre_ping=True, **_JSON_CODEC
            )
            self._reader = self._writer.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )

    def _leave_connections_to_parent(self) -> None:
        """After a fork: connections may not be shared, nor closed, by the child."""
        with self._lock:
            if self._pid != os.getpid():
                _LEFT_TO_PARENT.extend((self._writer, self._reader))
                self._connect()

    @contextmanager
    def _transaction(self, writing: bool) -> Iterator[Connection]:
        if self._pid != os.getpid():
            self._leave_connections_to_parent()
        engine = self._writer if writing else self._reader
        with _failures(self._url), engine.connect() as connection:
            transaction = connection.begin()
            try:
                if self.dialect == "sqlite":
                    _begin_sqlite(connection, writing)
                yield connection
                transaction.commit()
            except BaseException as error:
                with suppress(exc.DBAPIError):
                    transaction.rollback()
                if isinstance(error, exc.OperationalError):
                    connection.invalidate()
                raise

    def _prepare(self, create: bool) -> None:
        from everlearn.storage.revisions import upgrade

        if self.dialect == "sqlite":
            _make_file(Path(self._url.database or ""), create)
            with _failures(self._url), self._writer.connect() as connection:
                _patiently(lambda: _use_wal(connection))
        upgrade(self, create)


def _now() -> int:
    return time.time_ns() // 1000


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise InputError(f"{url!r} is no database URL; {_FORMS}") from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        if importlib.util.find_spec("psycopg") is None:
            raise MissingDependencyError(
                "PostgreSQL needs psycopg: pip install everlearn[postgres]"
            )
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise InputError(f"{parsed.render_as_string()!r} cannot be a workspace; {_FORMS}")
    return parsed.set(database=os.path.abspath(parsed.database))


_FORMS = "use sqlite:///path/file.db or postgresql+psycopg://user@host:port/database"


# --- SQLite ------------------------------------------------------------------------------------


def _sqlite_engine(url: URL, writing: bool) -> Engine:
    """An engine whose connections leave BEGIN to us, and fsync at every commit."""
    engine = sa.create_engine(
        url,
        connect_args={"isolation_level": None, "timeout": _PATIENCE_SECONDS},
        pool_size=8,
        max_overflow=-1,
        **_JSON_CODEC,
    )
    only = ("busy_timeout=3",) if writing else ("query_only=ON",)

    def prepare(connection: Any, _record: object) -> None:
        for pragma in ("synchronous=FULL", "foreign_keys=ON", *only):
            connection.execute(f"PRAGMA {pragma}")

    event.listen(engine, "connect", prepare)
    return engine


def _begin_sqlite(connection: Connection, writing: bool) -> None:
    raw = connection.connection.driver_connection
    assert raw is not None
    if writing:
        _patiently(lambda: raw.execute("BEGIN IMMEDIATE"))
    else:
        raw.execute("BEGIN")
        raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()  # takes the snapshot


def _patiently(attempt: Callable[[], object]) -> None:
    """Try until no other process is in the way.

    SQLite's own waiting polls ever more rarely, so that newcomers overtake who waits longest;
    this polls every few milliseconds, however long it takes.

    Raises:
        StorageError: somebody else has been writing for two minutes without an end.
    """
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            attempt()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _SQLITE_IN_USE:
                raise
            if time.monotonic() > give_up:
                raise StorageError(
                    f"another process has been writing to the database for more than "
                    f"{_PATIENCE_SECONDS:.0f} s; end it, then run again"
                ) from error
            time.sleep(random.uniform(0.0005, 0.003))


_SQLITE_IN_USE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def _use_wal(connection: Connection) -> None:
    raw = connection.connection.driver_connection
    assert raw is not None
    (mode,) = raw.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise StorageError(f"SQLite keeps journal mode {mode!r} here; WAL needs a local disk")


def _make_file(path: Path, create: bool) -> None:
    """Make folder and file, durably, so that a commit in it is not lost with its folder."""
    if path.exists():
        return
    if not create:
        raise NotFoundError(f"there is no workspace at {path}; create one by opening it to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        for folder in (path.parent, path.parent.parent):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise StorageError(error.errno, f"{path} cannot be made: {error.strerror}") from error


# --- errors ------------------------------------------------------------------------------------


@contextmanager
def _failures(url: URL) -> Iterator[None]:
    """Turn a failure of the database (not a wrong statement) into an error of ours."""
    try:
        yield
    except (exc.IntegrityError, exc.DataError, exc.ProgrammingError):
        raise
    except exc.DBAPIError as error:
        raise _failure(url, error.orig or error) from error
    except sqlite3.Error as error:
        raise _failure(url, error) from error


def _failure(url: URL, cause: BaseException) -> StorageError | ConflictError:
    reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    if getattr(cause, "sqlstate", None) in _PG_CONFLICTS:
        return ConflictError(f"the transaction was undone ({reason}); run it again")
    return StorageError(f"the database {url.render_as_string()} failed: {reason}")


_PG_CONFLICTS = ("40001", "40P01")  # serialization failure, deadlock


# --- JSON columns ------------------------------------------------------------------------------


def _to_text(value: Json) -> str:
    """JSON text that both databases take. A float that JSON lacks is written as
    ``{"$float": "nan"}``, and read back as that float; numpy's scalars become plain ones."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain_scalar)
    except ValueError:
        return json.dumps(_without_nan(value), allow_nan=False, default=_plain_scalar)


def _from_text(text: str | bytes) -> Json:
    marked = ('"$float"' if isinstance(text, str) else b'"$float"') in text  # type: ignore[operator]
    return json.loads(text, object_hook=_with_nan if marked else None)


def _plain_scalar(value: object) -> Json:
    if isinstance(value, np.generic):
        item = value.item()
        return _without_nan(item) if isinstance(item, float) else item
    raise TypeError(f"{value!r} of type {type(value).__name__} is not JSON")


def _without_nan(value: Json) -> Json:
    if isinstance(value, float) and not np.isfinite(value):
        return {"$float": repr(float(value))}
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def _with_nan(value: dict[str, Json]) -> Json:
    return float(value["$float"]) if value.keys() == {"$float"} else value


_JSON_CODEC: dict[str, Any] = {"json_serializer": _to_text, "json_deserializer": _from_text}
