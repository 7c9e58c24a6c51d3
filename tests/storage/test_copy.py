"""A workspace is copied whole, between any two kinds of stores, or not at all."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from everlearn.base import ConflictError, InputError, IntegrityError, Part, state_digest
from everlearn.storage.blobs import Blobs
from everlearn.storage.copy import backup, copy_workspace
from everlearn.storage.database import Database
from everlearn.storage.parts import PartStore
from everlearn.storage.schema import (
    alias_history,
    aliases,
    definitions,
    increments,
    jobs,
    metadata,
    models,
    versions,
)
from everlearn.storage.stores import open_blobs

JOB = {
    "model_id": 1,
    "fingerprint": "f",
    "attempts": 1,
    "max_attempts": 3,
    "not_before": 0,
    "token": 4,
    "created_at": 0,
}


def _state(number: int) -> dict[str, Part]:
    weights = Part({"w": np.full(5, number / 3)}, {"step": number})
    return {"learner": weights, "memory": Part({"rows": np.arange(700.0)})}


def _add_version(connection: sa.Connection, blobs: Blobs, number: int, spool: str) -> None:
    state = _state(number)
    version = {
        "model_id": 1,
        "number": number,
        "definition_id": 1,
        "state_digest": state_digest(state),
        "manifest": PartStore(blobs).save(state),
        "holdouts": PartStore(blobs).save({"period/0": Part({"y": np.arange(number)})}),
        "metrics": {"accuracy": 0.1 + 0.2, "log_loss": float("nan")},
        "created_at": 2**60 + number,
    }
    empty: dict[str, object] = {"strategy": {}, "environment": {}, "decision": {}}
    key = connection.execute(sa.insert(versions).values(version | empty)).inserted_primary_key
    assert key is not None
    counts = dict.fromkeys(("start", "stop", "rows", "held_out", "set_aside", "duplicates"), 7)
    text = {"source": "Ünï.csv", "digest": "d", "slice": {"pieces": [spool]}, "reasons": {}}
    row = {"version_id": key[0], "ordinal": 0}
    connection.execute(sa.insert(increments).values(row | counts | text))
    moved = {"model_id": 1, "name": "champion", "version_to": number, "action": "promote"}
    connection.execute(sa.insert(alias_history).values(moved | {"reason": "", "at": number}))


def _fill(database: Database, blobs: Blobs, count: int = 3) -> None:
    """A workspace with a model, versions, a job in progress, and a blob that nothing needs."""
    blobs.put(b"nothing refers to this")
    spool = blobs.put(b"rows of an iterable")
    with database.write() as connection:
        connection.execute(sa.insert(models).values(name="m", created_at=1))
        definition = {"model_id": 1, "number": 1, "digest": "d", "config": {"a": [1.5]}}
        connection.execute(sa.insert(definitions).values(definition | {"created_at": 1}))
        for number in range(1, count + 1):
            _add_version(connection, blobs, number, spool)
        for name in ("zeta", "Alpha", "champion", "éa"):
            alias = {"model_id": 1, "name": name, "version": count, "revision": 9}
            connection.execute(sa.insert(aliases).values(alias))
        checkpoint = {"passing": {"a": {"blob": "ab" * 32}}}
        done = {**JOB, "state": "done", "plan": {"rows": 1}, "finished_at": 5}
        connection.execute(sa.insert(jobs).values(done))
        running = {**JOB, "state": "running", "plan": {"spool": spool}, "checkpoint": checkpoint}
        connection.execute(sa.insert(jobs).values(running))


def _rows(database: Database) -> dict[str, list]:
    with database.read() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(sa.select(table)).all()))
            for table in metadata.sorted_tables
            if table is not jobs
        }


def _check_states(database: Database, blobs: Blobs, count: int = 3) -> None:
    with database.read() as connection:
        rows = connection.execute(sa.select(versions).order_by(versions.c.number)).all()
    assert len(rows) == count
    for row in rows:
        loaded = PartStore(blobs).load(row.manifest)
        assert state_digest(loaded) == row.state_digest
        for name, part in _state(row.number).items():
            for key, array in part.arrays.items():
                assert np.array_equal(loaded[name].arrays[key], array)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[tuple[Database, Blobs]]:
    with closing(Database.open(f"sqlite:///{tmp_path}/source.db")) as database:
        blobs = open_blobs(tmp_path / "source-blobs")
        _fill(database, blobs)
        yield database, blobs


@pytest.fixture
def target(tmp_path: Path) -> Iterator[tuple[Database, Blobs]]:
    with closing(Database.open(f"sqlite:///{tmp_path}/target.db")) as database:
        yield database, open_blobs(tmp_path / "target-blobs")


def test_sqlite_and_folder_to_postgresql_and_s3_and_back(
    source: tuple[Database, Blobs],
    target: tuple[Database, Blobs],
    postgres_url: str,
    s3_url: str,
) -> None:
    told: list[tuple[int, int]] = []
    with closing(Database.open(postgres_url)) as middle:
        bucket = open_blobs(s3_url)
        report = copy_workspace(*source, middle, bucket, lambda *now: told.append(now))
        assert _rows(middle) == _rows(source[0])
        _check_states(middle, bucket)
        assert report.rows["versions"] == 3 and report.rows["aliases"] == 4
        # 3 learners, 1 memory, 3 hold-outs, 1 spooled piece; not what nothing refers to
        assert report.blobs == len(list(bucket.list())) == 8
        assert told == [(done, 8) for done in range(1, 9)]
        assert report.bytes == sum(info.size for info in bucket.list())
        with middle.write() as connection:  # numbers go on after those that were copied
            added = connection.execute(sa.insert(models).values(name="next", created_at=0))
            assert added.inserted_primary_key == (2,)
            moved = {"model_id": 1, "name": "a", "action": "x", "reason": "", "at": 0}
            added = connection.execute(sa.insert(alias_history).values(moved))
            assert added.inserted_primary_key == (4,)
        copy_workspace(middle, bucket, *target)
        assert _rows(middle) == _rows(target[0])
    _check_states(*target)


def test_a_job_in_progress_starts_again(
    source: tuple[Database, Blobs], target: tuple[Database, Blobs]
) -> None:
    report = copy_workspace(*source, *target)
    assert report.restarted_jobs == 1 and report.to_json()["restarted_jobs"] == 1
    with target[0].read() as connection:
        found = connection.execute(sa.select(jobs).order_by(jobs.c.id)).all()
    assert [row.checkpoint for row in found] == [None, None]
    assert [row.state for row in found] == ["done", "running"]
    assert target[1].has(found[1].plan["spool"])


def test_a_workspace_with_models_is_not_overwritten(source: tuple[Database, Blobs]) -> None:
    before = _rows(source[0])
    with pytest.raises(ConflictError, match="copy into a new one"):
        copy_workspace(*source, *source)
    assert _rows(source[0]) == before


def test_an_empty_workspace_is_copied(target: tuple[Database, Blobs], database_url: str) -> None:
    with closing(Database.open(database_url)) as source:
        report = copy_workspace(source, open_blobs(f"{target[1].url}-none"), *target)
    assert report.blobs == 0 and set(report.rows.values()) == {0}


def test_more_rows_than_a_page(target: tuple[Database, Blobs], database_url: str) -> None:
    blobs = open_blobs(f"{target[1].url}-source")
    with closing(Database.open(database_url)) as source:
        rows = [{"name": f"{i} é{'Zz'[i % 2]}", "created_at": i} for i in range(1234)]
        with source.write() as connection:
            connection.execute(sa.insert(models), rows)
        assert copy_workspace(source, blobs, *target).rows["models"] == 1234
        assert _rows(source) == _rows(target[0])


def _damage(blobs: Blobs, digest: str) -> None:
    path = Path(blobs.url) / digest[:2] / digest[2:]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _blob_of_version(database: Database, number: int) -> str:
    with database.read() as connection:
        query = sa.select(versions.c.manifest).where(versions.c.number == number)
        blob: str = connection.execute(query).scalar_one()["learner"]["blob"]
    return blob


def test_a_damaged_blob_stops_the_copy_and_leaves_no_row(
    source: tuple[Database, Blobs], target: tuple[Database, Blobs], tmp_path: Path
) -> None:
    digest = _blob_of_version(source[0], 2)
    _damage(source[1], digest)
    with pytest.raises(IntegrityError, match=digest):
        copy_workspace(*source, *target)
    assert not any(_rows(target[0]).values())
    with pytest.raises(IntegrityError, match=digest):
        backup(*source, tmp_path / "backup")
    assert not [path for path in tmp_path.iterdir() if "backup" in path.name]


def test_a_missing_blob_stops_the_copy_unless_its_version_was_dropped(
    source: tuple[Database, Blobs], target: tuple[Database, Blobs]
) -> None:
    digest = _blob_of_version(source[0], 2)
    source[1].delete(digest)
    with pytest.raises(ConflictError, match=f"version 2.*{digest}"):
        copy_workspace(*source, *target)
    with source[0].write() as connection:
        dropped = sa.update(versions).where(versions.c.number == 2).values(dropped_at=1)
        connection.execute(dropped)
    copy_workspace(*source, *target)
    assert _rows(source[0]) == _rows(target[0])


def test_a_copy_that_was_interrupted_is_run_again(
    source: tuple[Database, Blobs], target: tuple[Database, Blobs]
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_workspace(*source, *target, stop)
    assert not any(_rows(target[0]).values())
    copy_workspace(*source, *target)
    _check_states(*target)


def test_backup_is_a_workspace_of_its_own(source: tuple[Database, Blobs], tmp_path: Path) -> None:
    place = tmp_path / "backups" / "monday"
    place.parent.mkdir()
    backup(*source, place)
    assert sorted(path.name for path in place.iterdir()) == ["blobs", "workspace.db"]
    assert [path.name for path in place.parent.iterdir()] == ["monday"]
    with closing(Database.open(f"sqlite:///{place}/workspace.db", create=False)) as database:
        assert _rows(database) == _rows(source[0])
        _check_states(database, open_blobs(place / "blobs"))
    with pytest.raises(InputError, match="monday"):
        backup(*source, place)


def test_backup_while_in_use_is_one_moment(database_url: str, tmp_path: Path) -> None:
    blobs = open_blobs(tmp_path / "busy-blobs")
    with closing(Database.open(database_url)) as database:
        _fill(database, blobs, count=2)
        stop = threading.Event()

        def keep_writing() -> None:
            number = 3
            while not stop.is_set() and number < 200:
                with database.write() as connection:
                    _add_version(connection, blobs, number, "ef" * 32)
                    moved = sa.update(aliases).values(version=number, revision=number)
                    connection.execute(moved)
                number += 1

        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            reports = [backup(database, blobs, tmp_path / f"backup-{i}") for i in range(3)]
        finally:
            stop.set()
            writer.join()
    for i, report in enumerate(reports):
        count = report.rows["versions"]
        assert report.rows["increments"] == report.rows["alias_history"] == count
        place = tmp_path / f"backup-{i}"
        with closing(Database.open(f"sqlite:///{place}/workspace.db")) as copied:
            _check_states(copied, open_blobs(place / "blobs"), count)
            with copied.read() as connection:
                assert set(connection.execute(sa.select(aliases.c.version)).scalars()) == {count}
