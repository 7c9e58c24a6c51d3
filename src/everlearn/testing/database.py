"""The conformance suite of the workspace's database, run on SQLite and on PostgreSQL.

Subclass it in a test module, and say where the database is::

    class TestMyDatabase(DatabaseSuite):
        @pytest.fixture(autouse=True)
        def place(self, tmp_path):
            self.url = f"sqlite:///{tmp_path}/workspace.db"
"""

from __future__ import annotations

import copy
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import numpy as np
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from everlearn.base import Json, StorageError
from everlearn.storage.database import Database
from everlearn.storage.revisions import HEAD
from everlearn.storage.schema import alias_history, definitions, jobs, metadata, models

_PROCESS = """
import sys, sqlalchemy as sa
from everlearn.storage.database import Database
from everlearn.storage.schema import models
database = Database.open(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with database.write() as connection:
        row = connection.execute(database.for_update(sa.select(models))).one()
        changed = sa.update(models).where(models.c.id == row.id)
        connection.execute(changed.values(created_at=row.created_at + 1))
database.close()
"""


class DatabaseSuite:
    """Tests that the database of a workspace must pass. Each test begins with an empty one."""

    url: str
    """Set by the subclass before each test."""

    def test_a_commit_is_seen_and_an_exception_undoes(self) -> None:
        with _opened(self.url) as database:
            add_model(database, "kept")
            try:
                with database.write() as connection:
                    _insert_model(connection, "undone")
                    raise KeyError("stop")
            except KeyError:
                pass
            assert _names(database) == ["kept"]
        with _opened(self.url) as again:
            assert _names(again) == ["kept"]

    def test_a_reader_sees_one_snapshot_and_may_not_write(self) -> None:
        with _opened(self.url) as database:
            add_model(database, "before")
            with database.read() as connection:
                assert len(connection.execute(sa.select(models)).all()) == 1
                add_model(database, "meanwhile")
                assert len(connection.execute(sa.select(models)).all()) == 1
            assert _names(database) == ["before", "meanwhile"]
            _raises(Exception, lambda: _write_while_reading(database))
            assert _names(database) == ["before", "meanwhile"]

    def test_a_write_inside_a_write_is_refused(self) -> None:
        with _opened(self.url) as database, database.write():
            _raises(StorageError, lambda: add_model(database, "inner"))

    def test_constraints_hold(self) -> None:
        with _opened(self.url) as database:
            add_model(database, "a")
            _raises(exc.IntegrityError, lambda: add_model(database, "a"))
            orphan = sa.insert(definitions).values(
                model_id=99, number=1, digest="", config={}, created_at=0
            )
            _raises(exc.IntegrityError, lambda: _execute(database, orphan))
            assert _names(database) == ["a"]

    def test_json_comes_back_equal(self) -> None:
        value: Json = {"ä\u0000\"'": [1, 2**60, 0.1, 1e-300, None, True, "∞"], "empty": {}}
        with _opened(self.url) as database:
            assert _json_round_trip(database, value) == value
            odd = [float("inf"), float("-inf"), {"nan": float("nan")}]
            found = _json_round_trip(database, odd)
            assert found[:2] == odd[:2] and np.isnan(found[2]["nan"])
            scalars = {"i": np.int64(3), "f": np.float32(0.5), "b": np.bool_(True)}
            assert _json_round_trip(database, scalars) == {"i": 3, "f": 0.5, "b": True}

    def test_a_missing_json_value_is_null(self) -> None:
        with _opened(self.url) as database:
            add_model(database, "a")
            counts = dict.fromkeys(("attempts", "max_attempts", "not_before", "token"), 0)
            row = {"model_id": 1, "state": "queued", "plan": {}, "fingerprint": "f"}
            values = {**row, **counts, "created_at": 0, "checkpoint": None}
            _execute(database, sa.insert(jobs).values(values))
            with database.read() as connection:
                found = sa.select(jobs.c.id).where(jobs.c.checkpoint.is_(None))
                assert len(connection.execute(found).all()) == 1

    def test_readers_that_follow_positions_miss_nothing(self) -> None:
        """Two writers interleave: the second to begin commits while the first still works."""
        with _opened(self.url) as database:
            add_model(database, "a")
            follower = _Follower(database)
            slow_began, go_on = threading.Event(), threading.Event()

            def slow() -> None:
                with database.write() as connection:
                    _append(database, connection, "slow")
                    slow_began.set()
                    go_on.wait(10)

            with ThreadPoolExecutor(2) as pool:
                first = pool.submit(slow)
                slow_began.wait(10)
                second = pool.submit(_append_alone, database, "fast")
                follower.follow()
                go_on.set()
                first.result(), second.result()
            follower.follow()
            assert sorted(follower.seen) == ["fast", "slow"]

    def test_many_writers_and_a_reader_that_follows(self) -> None:
        with _opened(self.url) as database:
            add_model(database, "a")
            follower = _Follower(database)
            names = [f"{writer}.{i}" for writer in range(4) for i in range(15)]
            with ThreadPoolExecutor(4) as pool:
                writing = [pool.submit(_append_alone, database, name) for name in names]
                while not all(job.done() for job in writing):
                    follower.follow()
                for job in writing:
                    job.result()
            follower.follow()
            assert sorted(follower.seen) == sorted(names)

    def test_of_fifty_that_compare_and_set_one_wins(self) -> None:
        with _opened(self.url) as database:
            add_model(database, "a")

            def swap(i: int) -> bool:
                with database.write() as connection:
                    row = connection.execute(database.for_update(sa.select(models))).one()
                    if row.created_at != 0:
                        return False
                    connection.execute(sa.update(models).values(created_at=i + 1))
                    return True

            with ThreadPoolExecutor(16) as pool:
                assert sum(pool.map(swap, range(50))) == 1

    def test_processes_take_turns(self) -> None:
        with _opened(self.url) as database:
            add_model(database, "a")
            command = [sys.executable, "-c", _PROCESS, self.url, "40"]
            running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
            errors = [process.communicate(timeout=120)[1] for process in running]
            assert [process.returncode for process in running] == [0, 0, 0], errors
            with database.read() as connection:
                assert connection.execute(sa.select(models.c.created_at)).scalar() == 120

    def test_many_open_a_new_database_at_once(self) -> None:
        with ThreadPoolExecutor(6) as pool:
            opened = list(pool.map(lambda _: Database.open(self.url), range(6)))
        for database in opened:
            assert _names(database) == []
            database.close()

    def test_migrations_make_the_tables_that_the_code_describes(self) -> None:
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        with _opened(self.url) as database, database.read() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    def test_a_newer_workspace_is_refused_and_left_alone(self) -> None:
        with _opened(self.url) as database:
            add_model(database, "a")
            newer = sa.text("UPDATE alembic_version SET version_num = '9999'")
            _execute(database, newer)
            error = _raises(StorageError, lambda: Database.open(self.url))
            assert "9999" in str(error) and HEAD in str(error) and "upgrade" in str(error)
            assert _names(database) == ["a"]

    def test_a_handle_can_be_copied_for_another_process(self) -> None:
        with _opened(self.url) as database:
            add_model(database, "a")
            with closing(copy.copy(database)) as other:
                assert _names(other) == ["a"] and other.url == database.url


def _opened(url: str) -> closing[Database]:
    return closing(Database.open(url))


@contextmanager
def temporary_schema(server: str | None = None) -> Iterator[str]:
    """The URL of a new, empty PostgreSQL schema, which is dropped afterwards.

    Args:
        server: URL of a database in which schemas may be made; the environment variable
            ``EVERLEARN_TEST_POSTGRES`` unless given, or else ``test`` on this machine.

    Raises:
        StorageError: no such server answers; a test should then be skipped with this reason.
    """
    server = server or os.environ.get("EVERLEARN_TEST_POSTGRES") or _SERVER
    name = f"everlearn_{secrets.token_hex(6)}"
    engine = sa.create_engine(server, connect_args={"connect_timeout": 3})
    try:
        with engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema(name))
    except (exc.OperationalError, ModuleNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise StorageError(f"no PostgreSQL for tests at {server}: {reason}") from error
    try:
        url = sa.make_url(server).update_query_dict({"options": f"-csearch_path={name}"})
        yield url.render_as_string(hide_password=False)
    finally:
        with engine.begin() as connection:
            connection.execute(sa.schema.DropSchema(name, cascade=True))
        engine.dispose()


_SERVER = "postgresql+psycopg://root@127.0.0.1:5432/test"


class _Follower:
    """Reads a log by position, as the readers of feedback do: only what is past the last seen."""

    def __init__(self, database: Database) -> None:
        self.database, self.position, self.seen = database, 0, list[str]()

    def follow(self) -> None:
        log = alias_history.c
        newer = sa.select(log.id, log.name).where(log.id > self.position).order_by(log.id)
        with self.database.read() as connection:
            for row in connection.execute(newer):
                self.position = row.id
                self.seen.append(row.name)


def add_model(database: Database, name: str) -> None:
    """Insert a model, in a transaction of its own."""
    with database.write() as connection:
        _insert_model(connection, name)


def _insert_model(connection: Connection, name: str) -> None:
    connection.execute(sa.insert(models).values(name=name, created_at=0))


def _write_while_reading(database: Database) -> None:
    with database.read() as connection:
        _insert_model(connection, "forbidden")


def _execute(database: Database, statement: sa.Executable) -> None:
    with database.write() as connection:
        connection.execute(statement)


def _append(database: Database, connection: Connection, name: str) -> None:
    database.in_commit_order(connection, "alias_history")
    row = {"model_id": 1, "name": name, "action": "promote", "reason": "", "at": 0}
    connection.execute(sa.insert(alias_history).values(row))


def _append_alone(database: Database, name: str) -> None:
    with database.write() as connection:
        _append(database, connection, name)


def _names(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(sa.select(models.c.name).order_by(models.c.id)).scalars())


def _json_round_trip(database: Database, value: Json) -> Json:
    with database.write() as connection:
        connection.execute(sa.delete(definitions))
        connection.execute(sa.delete(models))
        _insert_model(connection, "a")
        key = connection.execute(sa.select(models.c.id)).scalar_one()
        row = {"model_id": key, "number": 1, "digest": "", "config": value, "created_at": 0}
        connection.execute(sa.insert(definitions).values(row))
        return connection.execute(sa.select(definitions.c.config)).scalar_one()


def _raises(kind: type[BaseException], call: Callable[[], object]) -> BaseException:
    """The exception of that kind that the call raises."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"this should have raised {kind.__name__}")
