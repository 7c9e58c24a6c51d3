"""A bisection in a process of its own, so that who asked for it can go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import IO

from everlearn.base import EverlearnError
from everlearn.jobs.bisect.bisector import Bisector, Question
from everlearn.registry.registry import Registry
from everlearn.storage.database import Database
from everlearn.storage.parts import PartStore
from everlearn.storage.stores import open_blobs

MODULE = "everlearn.jobs.bisect.beside"


class Beside:
    """A process that answers a question and ends; what it finds is in the database.

    Args:
        registry: of the workspace.
        model: its name.
        question: its rows, if any, as JSON.
    """

    def __init__(self, registry: Registry, model: str, question: Question) -> None:
        paths = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=os.environ | paths,
        )
        told = {
            "database": registry.database.url,
            "blobs": registry.parts.blobs.url,
            "model": model,
            "question": asdict(question),
        }
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as lines:
            lines.write(json.dumps(told))

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it at once; what it measured is kept."""
        self._process.kill()
        self._process.wait()


def main(lines: IO[str]) -> None:
    """Answer the question that is told; an error is kept with the bisection."""
    told = json.loads(lines.read())
    database = Database.open(told["database"], create=False)
    registry = Registry(database, PartStore(open_blobs(told["blobs"])))
    with suppress(EverlearnError):
        Bisector(registry, told["model"], Question(**told["question"]))()
    database.close()


if __name__ == "__main__":
    main(sys.stdin)
