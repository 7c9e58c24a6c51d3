"""Bytes that flip, and a disk that is full or fails while a job writes."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import everlearn as el
from everlearn.base import IntegrityError
from tests.jobs.checks import check_any_moment, check_ended, check_loads, summary
from tests.jobs.conftest import Uninterrupted
from tests.jobs.driver import ROOT, Driver
from tests.jobs.scenarios import ROWS, models

MODEL = "reservoir"
ROW = {"x0": 0.1, "x1": -1.0, "x2": 0.0, "x3": 0.5, "kind": "a"}
FAULTS = 6


@pytest.fixture(scope="module")
def trained(driver: Driver, files: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two versions."""
    workspace = tmp_path_factory.mktemp("trained") / "workspace"
    assert driver.run(workspace=str(workspace), model=MODEL, files=files).error is None
    return workspace


def flip(path: Path, position: float) -> None:
    """Invert one bit of a file."""
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_flipped_byte_in_any_blob_is_refused_and_named(trained: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with el.open(trained) as ws:
        old, new = ws.registry.versions(MODEL)
        shared = {entry["blob"] for entry in old.manifest.values()}
        mine = {entry["blob"] for entry in new.manifest.values()} - shared
        held = {entry["blob"] for entry in new.holdouts.values()}
        held -= {entry["blob"] for entry in old.holdouts.values()}
    assert len(mine) >= 4 and held
    for blob in sorted(mine | held):
        copy = tmp_path / blob
        shutil.copytree(trained, copy)
        flip(copy / "blobs" / blob[:2] / blob[2:], rng.random())
        with el.open(copy) as ws:
            handle = ws.model(MODEL)
            with pytest.raises(IntegrityError, match=blob):
                if blob in mine:
                    handle.predict(ROW)
                else:
                    handle.diff(1, 2)
            assert handle.predict(ROW, version=1).version == 1  # type: ignore[union-attr]
            handle.rollback()
            assert handle.predict(ROW).version == 1  # type: ignore[union-attr]
            check_loads(ws, MODEL, 1)


def test_a_job_on_a_damaged_base_is_refused_and_commits_nothing(
    trained: Path, tmp_path: Path, files: list[str]
) -> None:
    copy = tmp_path / "workspace"
    shutil.copytree(trained, copy)
    with el.open(copy) as ws:
        handle = ws.model(MODEL)
        entry = ws.registry.versions(MODEL)[1].manifest["learner/estimator"]
        flip(copy / "blobs" / entry["blob"][:2] / entry["blob"][2:], 0.9)
        with pytest.raises(IntegrityError, match=entry["blob"]):
            handle.train(files[0], again=True)
        assert len(handle.versions()) == 2
        assert ws.jobs()[-1].state == "queued"  # tried again later: the blob may be restored


@pytest.fixture(scope="module")
def failing_driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A driver whose runs can let their system calls fail."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the layer that lets system calls fail needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("shim") / "faults.so"
    source = ROOT / "tests" / "storage" / "faults.c"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    with Driver({"LD_PRELOAD": str(library)}) as running:
        yield running


@pytest.mark.parametrize("kind", ["ENOSPC", "EIO"])
def test_a_disk_that_fails_while_a_job_writes(
    kind: str,
    failing_driver: Driver,
    files: list[str],
    uninterrupted: Uninterrupted,
    tmp_path: Path,
) -> None:
    """ENOSPC goes on until the process ends; EIO happens once."""
    expected, _ = uninterrupted(MODEL)
    error, goes_on = getattr(errno, kind), kind == "ENOSPC"
    first = tmp_path / "first"
    run = {"model": MODEL, "files": files}
    assert failing_driver.run(workspace=str(first), model=MODEL, files=files[:1]).error is None
    whole = tmp_path / "whole"
    shutil.copytree(first, whole)
    calls = failing_driver.run(workspace=str(whole), **run, fault=[str(whole), 10**9, 0, False])
    assert calls.error is None and calls.faults > 100
    numbers = np.random.default_rng(error).integers(1, calls.faults, FAULTS)
    failures = 0
    for number in numbers.tolist():
        workspace = tmp_path / str(number)
        shutil.copytree(first, workspace, dirs_exist_ok=True)
        fault = [str(workspace), number, error, goes_on]
        ended = failing_driver.run(workspace=str(workspace), **run, fault=fault)
        failures += ended.error is not None
        assert ended.error is None or ended.error.startswith("StorageError"), ended.error
        assert check_any_moment(workspace, MODEL, expected) >= 1
        assert failing_driver.run(workspace=str(workspace), **run).error is None
        check_ended(workspace, MODEL, expected, [ROWS, ROWS // 2])
    assert failures >= FAULTS // 2


def test_a_checkpoint_that_is_lost_costs_time_and_nothing_else(
    driver: Driver, files: list[str], uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    run = {"workspace": str(tmp_path / "workspace"), "model": MODEL, "files": files[:1]}
    assert driver.run(**run, crash="checkpoint.committed:3").killed
    shutil.rmtree(tmp_path / "workspace" / "blobs-checkpoints")
    ended = driver.run(**run)
    assert ended.error is None
    [version] = summary(tmp_path / "workspace", MODEL)
    assert version["state_digest"] == uninterrupted(MODEL)[0][0]["state_digest"]


def test_what_a_finished_job_leaves_behind(
    driver: Driver, files: list[str], tmp_path: Path
) -> None:
    """Its checkpoints are gone, also those of attempts that were killed."""
    workspace = tmp_path / "workspace"
    run = {"workspace": str(workspace), "model": "scratch", "files": files}
    for crash in ("checkpoint.saved:2", "checkpoint.committed:3", "checkpoint.saved:6"):
        assert driver.run(**run, crash=crash).killed
    assert driver.run(**run).error is None
    checkpoints = workspace / "blobs-checkpoints"
    assert not list(checkpoints.rglob("*"))
    with el.open(workspace) as ws:
        ws.model(models()["scratch"])
        assert not ws.gc(True, grace=0.0)["dropped"]
