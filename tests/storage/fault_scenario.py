"""Stores one version after another while the disk fails, and checks each time what can be loaded.

Run in a process of its own by test_faults.py: FOLDER and MODE ("ENOSPC", "EIO" or "limit"). Prints
how many failures there were, as JSON.
"""

import ctypes
import errno
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from everlearn.base import Part, StorageError, state_digest
from everlearn.storage.database import Database
from everlearn.storage.parts import PartStore
from everlearn.storage.schema import definitions, models, versions
from everlearn.storage.stores import open_blobs

MEMORY = Part({"rows": np.arange(900.0)})


class Workspace:
    """A database and a blob store as they are after a restart."""

    def __init__(self, folder: Path) -> None:
        self.database = Database.open(f"sqlite:///{folder}/workspace.db")
        self.parts = PartStore(open_blobs(folder / "blobs"))

    def store(self, number: int) -> None:
        state = {"learner": Part({"w": np.full(300, float(number))}), "memory": MEMORY}
        manifest = self.parts.save(state)
        row = {
            "model_id": 1,
            "number": number,
            "definition_id": 1,
            "state_digest": state_digest(state),
            "manifest": manifest,
            "strategy": {},
            "holdouts": {},
            "metrics": {"filler": "x" * 3000},
            "environment": {},
            "decision": {},
            "created_at": 0,
        }
        with self.database.write() as connection:
            connection.execute(sa.insert(versions).values(row))

    def check(self, committed: int) -> int:
        """Every version loads, whole; returns the newest. One whose commit failed may be there."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(versions).order_by(versions.c.number)).all()
        newest = len(rows)
        assert [row.number for row in rows] == list(range(1, newest + 1))
        assert newest in (committed, committed + 1), (newest, committed)
        for row in rows[-3:]:
            state = self.parts.load(row.manifest)
            assert state["learner"].arrays["w"][0] == row.number
            assert state["memory"].arrays["rows"][-1] == 899.0
            assert state_digest(state) == row.state_digest
        for info in self.parts.blobs.list():
            self.parts.blobs.get(info.digest)
        return newest


def prepare(folder: Path) -> None:
    database = Workspace(folder).database
    with database.write() as connection:
        connection.execute(sa.insert(models).values(name="m", created_at=0))
        row = {"model_id": 1, "number": 1, "digest": "", "config": {}, "created_at": 0}
        connection.execute(sa.insert(definitions).values(row))
    database.close()


def attempt(folder: Path, number: int, fail: Callable[[], None], stop: Callable[[], None]) -> bool:
    """Store a version from a fresh start, with failures; True if it was stored nevertheless."""
    workspace: Workspace | None = None
    try:
        fail()
        workspace = Workspace(folder)
        workspace.store(number)
        return True
    except StorageError:
        return False
    finally:
        stop()
        if workspace is not None:
            workspace.database.close()


def fail_each_call(folder: Path, error: int, on: bool) -> int:
    """Let each call that changes a file fail in its turn, until none is left to fail."""
    shim = ctypes.CDLL(None)
    prefix, newest, n, failures = str(folder).encode(), 0, 0, 0
    while True:
        n += 1
        counted: list[int] = []
        stored = attempt(
            folder,
            newest + 1,
            lambda n=n: shim.fault_arm(prefix, ctypes.c_long(n), error, int(on)),
            lambda counted=counted: counted.append(shim.fault_disarm()),
        )
        failures += not stored
        workspace = Workspace(folder)
        newest = workspace.check(newest + stored)
        workspace.database.close()
        if counted[0] < n:
            return failures


def fail_by_size(folder: Path) -> int:
    """Let no file grow past a limit that is a little larger each time."""
    newest, failures = 0, 0
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    for size in range(1_000, 64_000, 3_000):
        stored = attempt(
            folder, newest + 1, lambda size=size: limit(size), lambda: limit(resource.RLIM_INFINITY)
        )
        failures += not stored
        workspace = Workspace(folder)
        newest = workspace.check(newest + stored)
        workspace.store(newest + 1)
        newest = workspace.check(newest + 1)
        workspace.database.close()
    return failures


if __name__ == "__main__":
    place, mode = Path(sys.argv[1]), sys.argv[2]
    prepare(place)
    if mode == "limit":
        count = fail_by_size(place)
    else:
        count = fail_each_call(place, getattr(errno, mode), on=mode == "ENOSPC")
    sys.stdout.write(json.dumps({"failures": count}))
