"""The database's conformance suite, on both databases, and what is special to each."""

import multiprocessing
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from everlearn.base import ConflictError, InputError, NotFoundError, StorageError
from everlearn.storage import database as module
from everlearn.storage.database import Database
from everlearn.storage.schema import models
from everlearn.testing.database import DatabaseSuite, add_model


class TestSqlite(DatabaseSuite):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path}/new folder/workspace.db"


class TestPostgresql(DatabaseSuite):
    @pytest.fixture(autouse=True)
    def place(self, postgres_url: str) -> None:
        self.url = postgres_url


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/workspace.db"


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "sqlite:///:memory:", "nothing"])
def test_another_kind_of_url_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"use sqlite:///path/file.db or postgresql\+psycopg"):
        Database.open(url)


def test_a_password_is_in_no_message() -> None:
    with pytest.raises(StorageError) as caught:
        Database.open("postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value) and "127.0.0.1" in str(caught.value)


def test_without_create_a_missing_workspace_is_not_made(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="workspace"):
        Database.open(database_url, create=False)
    assert not list(tmp_path.iterdir())
    Database.open(database_url).close()
    Database.open(database_url, create=False).close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "workspace.db").write_bytes(b"not a database, but long enough to be one" * 100)
    with pytest.raises(StorageError, match="not a database"):
        Database.open(f"sqlite:///{tmp_path}/workspace.db")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/workspace.db cannot be made"):
        Database.open(f"sqlite:///{tmp_path}/file/workspace.db")


def test_sqlite_is_in_wal_mode_and_syncs_every_commit(sqlite: str) -> None:
    with closing(Database.open(sqlite)) as database:
        for transaction in (database.write, database.read):
            with transaction() as connection:
                assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
                assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_who_waits_too_long_is_told_why(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Database.open(sqlite)) as database:
        holder = sqlite3.connect(sqlite.removeprefix("sqlite:///"), isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.05)
        with pytest.raises(StorageError, match="another process has been writing"):
            add_model(database, "late")
        holder.execute("ROLLBACK")
        holder.close()
        add_model(database, "in time")


def test_readers_are_not_held_up_by_a_writer(sqlite: str) -> None:
    with closing(Database.open(sqlite)) as database, database.write() as connection:
        connection.execute(sa.insert(models).values(name="a", created_at=0))
        with database.read() as reading:
            assert reading.execute(sa.select(models)).all() == []


def test_more_threads_than_pooled_connections(sqlite: str) -> None:
    with closing(Database.open(sqlite)) as database:
        together = threading.Barrier(24)

        def read() -> None:
            with database.read():
                together.wait(30)

        threads = [threading.Thread(target=read) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads) and not together.broken


def _add_in_child(database: Database) -> None:
    add_model(database, "child")
    database.close()


def test_a_forked_child_opens_connections_of_its_own(database_url: str) -> None:
    with closing(Database.open(database_url)) as database:
        add_model(database, "parent")
        child = multiprocessing.get_context("fork").Process(target=_add_in_child, args=(database,))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        add_model(database, "parent again")
        with database.read() as connection:
            assert len(connection.execute(sa.select(models)).all()) == 3


def test_a_deadlock_is_a_conflict(postgres_url: str) -> None:
    with closing(Database.open(postgres_url)) as database:
        add_model(database, "a")
        add_model(database, "b")
        both_hold_one = threading.Barrier(2)
        outcomes = []

        def lock(first: str, second: str) -> None:
            try:
                with database.write() as connection:
                    for name in (first, second):
                        row = sa.select(models).where(models.c.name == name)
                        connection.execute(database.for_update(row)).one()
                        if name == first:
                            both_hold_one.wait(30)
                outcomes.append("committed")
            except ConflictError:
                outcomes.append("conflict")

        threads = [threading.Thread(target=lock, args=pair) for pair in ("ab", "ba")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(outcomes) == ["committed", "conflict"]


def test_a_full_disk_is_a_storage_error_and_nothing_is_lost(sqlite: str) -> None:
    with closing(Database.open(sqlite)) as database:
        add_model(database, "kept")
        with pytest.raises(StorageError, match="full"), database.write() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
            rows = [{"name": f"{i} {'x' * 500}", "created_at": 0} for i in range(1000)]
            connection.execute(sa.insert(models), rows)
        add_model(database, "after")
        with database.read() as connection:
            names = (
                connection.execute(sa.select(models.c.name).order_by(models.c.id)).scalars().all()
            )
        assert names == ["kept", "after"]


def test_a_connection_is_used_again(sqlite: str) -> None:
    with closing(Database.open(sqlite)) as database:
        raw = set()
        for _ in range(20):
            with database.write() as connection:
                raw.add(id(connection.connection.driver_connection))
        assert len(raw) == 1
