"""Copies of files, what is left of ended jobs, and where a workspace is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

import everlearn as el
from everlearn.base import ChangedError, ConflictError, InputError, StorageError
from everlearn.jobs import keep as module
from everlearn.workspace import places


def write(path: Path, n: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)).round(4)
    path.write_text("a,b,y\n" + "".join(f"{a},{b},{int(a > b)}\n" for a, b in x.tolist()))
    return path


def model(name: str = "m", **changes: object) -> el.Model:
    given: dict[str, object] = {
        "learner": SGDClassifier(loss="log_loss", random_state=0),
        "schema": el.Schema(target="y"),
        "strategy": el.Strategy(chunk=50),
    }
    return el.Model(name, **(given | changes))  # type: ignore[arg-type]


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[el.Workspace]:
    with el.open(tmp_path / "workspace") as opened:
        yield opened


def kept(ws: el.Workspace) -> list[str]:
    folder = Path(f"{ws.blobs.url}-kept")
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_a_kept_file_may_be_moved_away_before_it_is_learned(
    ws: el.Workspace, tmp_path: Path
) -> None:
    handle = ws.model(model())
    file = write(tmp_path / "a.csv", 200)
    job = handle.plan(str(file), keep=True)
    assert isinstance(job, int)
    moved = file.rename(tmp_path / "b.csv")
    assert ws.run(job).decision.action == "promote"
    assert handle.train(str(moved)).decision.action == "nothing"
    with moved.open("a") as more:
        more.write("1.0,0.0,1\n0.0,1.0,0\n")
    [tail] = handle.train(str(moved), keep=True).increments
    assert (tail["start"], tail["stop"]) == (200, 202)
    assert len(kept(ws)) == 2


def test_a_copy_of_a_file_that_changed_meanwhile_is_not_kept(
    ws: el.Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = ws.model(model())
    file = write(tmp_path / "a.csv", 200)
    copy: Callable[..., object] = module.shutil.copyfileobj

    def late(original: object, target: object, size: int) -> None:
        write(file, 200, seed=1)
        copy(original, target, size)

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "copyfileobj", late)
        with pytest.raises(ChangedError, match="while it was copied"):
            handle.train(str(file), keep=True)
    assert kept(ws) == [] and ws.jobs() == []
    assert handle.train(str(file), keep=True).version == 1


def test_a_full_disk_leaves_no_half_copy(
    ws: el.Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", full)
        with pytest.raises(StorageError, match="cannot be kept"):
            ws.model(model()).train(str(write(tmp_path / "a.csv", 100)), keep=True)
    assert kept(ws) == []


def test_gc_removes_what_ended_jobs_left_once_it_is_old(ws: el.Workspace, tmp_path: Path) -> None:
    handle = ws.model(model())
    job = handle.train(str(write(tmp_path / "a.csv", 100))).job
    failed = handle.plan(str(write(tmp_path / "b.csv", 100, seed=1)))
    assert isinstance(failed, int)
    ws.skip(failed)
    queued = handle.plan(str(write(tmp_path / "c.csv", 100, seed=2)))
    checkpoints = Path(f"{ws.blobs.url}-checkpoints")
    for number in (job, failed, queued):
        (checkpoints / str(number) / "1").mkdir(parents=True)
    ws.gc()
    assert len(os.listdir(checkpoints)) == 3  # somebody may retry what failed just now
    with ws.database.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET finished_at = 1 WHERE finished_at > 0")
    ws.gc()
    assert os.listdir(checkpoints) == [str(queued)]


def test_what_is_on_hold_is_told_of_the_files_that_are_asked_for(
    ws: el.Workspace, tmp_path: Path
) -> None:
    handle = ws.model(model())
    first, second = (str(write(tmp_path / f"{name}.csv", 200, ord(name))) for name in "ab")
    handle.train(first)
    handle.train(second)
    handle.rollback()
    assert handle.train(first).decision.reason.endswith("all of it was learned before")
    assert "version 2 learned it" in handle.train(second).decision.reason
    handle.train(second, again=True)
    assert handle.train(second).decision.reason.endswith("all of it was learned before")


def test_versions_of_different_columns_are_compared_without_churn(
    ws: el.Workspace, tmp_path: Path
) -> None:
    file = str(write(tmp_path / "a.csv", 200))
    ws.model(model()).train(file)
    narrow = el.Schema(target="y", ignore=("b",))
    other = ws.model(model(schema=narrow, strategy=el.Strategy(start="scratch", chunk=50)))
    other.train(file, again=True)
    found = other.diff(1, 2)
    assert found["churn"] is None
    assert "schema" in found["definition"]


def test_a_version_is_imported_under_another_name(ws: el.Workspace, tmp_path: Path) -> None:
    handle = ws.model(model())
    handle.train(str(write(tmp_path / "a.csv", 200)))
    file = handle.export(1, tmp_path / "m.zip")
    with el.open(tmp_path / "other") as other:
        other.model(model(strategy=el.Strategy(chunk=7)))
        with pytest.raises(ConflictError, match="--name"):
            other.import_version(file)
        assert other.import_version(file, name="theirs") == {"model": "theirs", "number": 1}
        other.model("theirs").promote(1)
        assert other.model("theirs").champion() == 1


def test_a_location_keeps_all_that_its_url_says() -> None:
    socket = "postgresql:///everlearn?host=%2Fvar%2Frun%2Fpostgresql&blobs=s3://b/p"
    assert places(socket) == (
        "postgresql:///everlearn?host=%2Fvar%2Frun%2Fpostgresql",
        "s3://b/p",
    )
    database, blobs = places("postgresql://u:p%40w@h/db?options=-csearch_path%3Dx&blobs=/b")
    assert database == "postgresql://u:p%40w@h/db?options=-csearch_path%3Dx"
    assert blobs == "/b"
    assert places("sqlite:////d/x.db?blobs=/d/blobs") == ("sqlite:////d/x.db", "/d/blobs")
    with pytest.raises(InputError, match="blobs"):
        places("postgresql://h/db")
    with pytest.raises(InputError, match="no URL"):
        places("://")
