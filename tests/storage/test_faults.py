"""Whatever fails while something is stored, what was stored before can be loaded."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everlearn.base import NotFoundError, StorageError
from everlearn.storage import blobs as module
from everlearn.storage.stores import open_blobs

HERE = Path(__file__).parent
CHANGES = ("open", "write", "fsync", "mkdir", "rename", "read")


class Disk:
    """Stands in for `os` in blobs.py: counts its calls, and lets one of them fail."""

    def __init__(self, fail_at: int = 0, error: int = 0) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.fail_at, self.error = fail_at, error
        self._paths: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._watched(name, real) if name in CHANGES else real

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            place = self._paths.get(args[0], str(args[-1] if name == "rename" else args[0]))
            self.calls.append((name, place))
            if len(self.calls) == self.fail_at:
                raise OSError(self.error, os.strerror(self.error))
            found = real(*args, **kwargs)
            if name == "open":
                self._paths[found] = place
            return found

        return call


def _names_and_contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_any_call_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    before = open_blobs(tmp_path).put(b"stored before")
    calls = 0
    while True:
        calls += 1
        blobs = open_blobs(tmp_path)
        data = b"new %d" % calls
        disk = Disk(calls, error)
        monkeypatch.setattr(module, "os", disk)
        failed = False
        try:
            blobs.put(data)
        except StorageError as caught:
            failed = caught.errno == error and os.strerror(error) in str(caught)
            assert failed
        monkeypatch.setattr(module, "os", os)
        assert not list((tmp_path / "tmp").iterdir())
        assert blobs.get(before) == b"stored before"
        for info in blobs.list():  # nothing has a name that is not whole
            blobs.get(info.digest)
        assert blobs.get(blobs.put(data)) == data
        if not failed:
            break
    assert calls > 8


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ShortWrites(Disk):
        def write(self, descriptor: int, data: memoryview) -> int:
            return os.write(descriptor, data[:3])

    monkeypatch.setattr(module, "os", ShortWrites())
    blobs = open_blobs(tmp_path)
    assert blobs.get(blobs.put(b"0123456789")) == b"0123456789"


def test_what_reads_differently_is_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FlippedBit(Disk):
        def write(self, descriptor: int, data: memoryview) -> int:
            return os.write(descriptor, bytes(data).replace(b"5", b"4"))

    monkeypatch.setattr(module, "os", FlippedBit())
    blobs = open_blobs(tmp_path)
    with pytest.raises(StorageError, match="differs"):
        blobs.put(b"0123456789")
    assert not _names_and_contents(tmp_path)


class PowerLoss(Disk):
    """Knows what would be left if the power failed now: only what was synced."""

    def __init__(self) -> None:
        super().__init__()
        self.unsynced_files: set[str] = set()
        self.unsynced_names: set[str] = set()

    def write(self, descriptor: int, data: memoryview) -> int:
        self.unsynced_files.add(self._paths[descriptor])
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        place = self._paths[descriptor]
        os.fsync(descriptor)
        self.unsynced_files.discard(place)
        self.unsynced_names = {
            name for name in self.unsynced_names if os.path.dirname(name) != place
        }

    def mkdir(self, path: Path) -> None:
        os.mkdir(path)
        self.unsynced_names.add(str(path))

    def rename(self, old: Path, new: Path) -> None:
        assert str(old) not in self.unsynced_files, "named before its bytes were durable"
        os.rename(old, new)
        self.unsynced_names.add(str(new))


def test_a_name_is_given_to_durable_bytes_and_is_durable_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = PowerLoss()
    monkeypatch.setattr(module, "os", disk)
    blobs = open_blobs(tmp_path)
    for data in (b"a", b"b" * 100_000, b"a"):
        blobs.put(data)
        assert not disk.unsynced_files and not disk.unsynced_names
    assert len(list(blobs.list())) == 2


def test_a_name_that_another_process_gave_is_made_durable_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = open_blobs(tmp_path).put(b"from another process")
    disk = PowerLoss()
    path = tmp_path / digest[:2] / digest[2:]
    disk.unsynced_names = {str(path), str(path.parent)}
    monkeypatch.setattr(module, "os", disk)
    open_blobs(tmp_path).put(b"from another process")
    assert not disk.unsynced_names


def test_a_blob_that_vanishes_while_it_is_read_is_missing(tmp_path: Path) -> None:
    blobs = open_blobs(tmp_path)
    digest = blobs.put(b"x")
    shutil.rmtree(tmp_path / digest[:2])
    with pytest.raises(NotFoundError, match=digest):
        blobs.get(digest)
    assert open_blobs(tmp_path).put(b"x") == digest


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the layer that lets system calls fail needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("shim") / "faults.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "faults.c")]
    subprocess.run([*command, "-ldl"], check=True, capture_output=True)
    return library


def _run_scenario(folder: Path, mode: str, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, str(HERE / "fault_scenario.py"), str(folder), mode],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    failures: int = json.loads(done.stdout)["failures"]
    return failures


@pytest.mark.parametrize("mode", ["ENOSPC", "EIO"])
def test_each_system_call_of_a_version_fails_in_turn(tmp_path: Path, shim: Path, mode: str) -> None:
    assert _run_scenario(tmp_path, mode, LD_PRELOAD=str(shim)) >= 15


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    assert _run_scenario(tmp_path, "limit") >= 3
