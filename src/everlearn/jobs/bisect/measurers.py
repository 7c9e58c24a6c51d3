"""Measuring in several processes, each told in lines of JSON what to do; or in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import redirect_stdout
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, Any, Self

from everlearn import base
from everlearn.base import EverlearnError, Json
from everlearn.jobs.bisect.measuring import Bench
from everlearn.registry.registry import Registry
from everlearn.storage.database import Database
from everlearn.storage.parts import Manifest, PartStore
from everlearn.storage.stores import open_blobs

MODULE = "everlearn.jobs.bisect.measurers"

PATIENCE = 5.0
"""Seconds up to which tasks are carried out in this process: to start others takes as long."""


class Measurers:
    """Processes that measure; what they find does not depend on how many they are.

    Args:
        registry, model, metric, rows: as for `Bench`.
        processes: at a time; with 1 all is measured in this one.
    """

    def __init__(
        self, registry: Registry, model: str, metric: str, rows: Manifest, processes: int
    ) -> None:
        self.bench = Bench(registry, model, metric, rows)
        self.processes = processes
        self._seconds: dict[str, float] = {}  # kind of task → the least that one took
        self._told = {
            "database": registry.database.url,
            "blobs": registry.parts.blobs.url,
            "model": model,
            "metric": metric,
            "rows": rows,
        }
        self._free: SimpleQueue[_Process] = SimpleQueue()
        self._all: list[_Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._all:
            process.close()

    def run(self, tasks: Sequence[Json], done: Callable[[dict[str, Json]], None]) -> None:
        """Carry out tasks in any order.

        Args:
            done: told what was measured, as soon as it was; by this thread.

        Raises:
            EverlearnError: of the first that failed; the others are not waited for.
        """
        left = list(tasks)
        while left and (self.processes == 1 or len(left) == 1 or self._is_short(left)):
            task, began = left.pop(0), time.perf_counter()
            found, kind = self.bench.measure(task), str(task["do"])
            took = time.perf_counter() - began
            self._seconds[kind] = min(took, self._seconds.get(kind, took))
            done(found)
        if left:
            self._beside(left, done)

    def _is_short(self, tasks: Sequence[Json]) -> bool:
        """Whether tasks, all of one kind, take no longer here than is waited; of a kind that was
        never carried out, one has to be."""
        return self._seconds.get(str(tasks[0]["do"]), 0.0) * len(tasks) < PATIENCE

    def _beside(self, tasks: Sequence[Json], done: Callable[[dict[str, Json]], None]) -> None:
        """Carry out tasks in other processes."""
        while len(self._all) < min(self.processes, len(tasks)):
            self._all.append(_Process(self._told))
            self._free.put(self._all[-1])
        with ThreadPoolExecutor(len(self._all)) as threads:
            futures = [threads.submit(self._ask, task) for task in tasks]
            try:
                for future in as_completed(futures):
                    done(future.result())
            except BaseException:
                for future in futures:
                    future.cancel()
                for process in self._all:
                    process.kill()
                raise

    def _ask(self, task: Json) -> dict[str, Json]:
        process = self._free.get()
        try:
            return process.ask(task)
        finally:
            self._free.put(process)


class _Process:
    """One process, which ends when it is told nothing more."""

    def __init__(self, told: Json) -> None:
        self._folder = TemporaryDirectory(prefix="everlearn-measuring-")
        self._errors = Path(self._folder.name) / "errors"
        paths = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | paths,
            )
        self._tell(told)

    def ask(self, task: Json) -> dict[str, Json]:
        """What it measured. Raises what it raised."""
        self._tell(task)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            tail = "\n".join(self._errors.read_text().strip().splitlines()[-12:])
            raise EverlearnError(f"measuring failed:\n{tail or 'its process was killed'}")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            kind = getattr(base, said["error"], EverlearnError)
            raise kind(said["text"])
        found: dict[str, Json] = said["measured"]
        return found

    def _tell(self, said: Json) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(said) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended; reading its answer says why

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def close(self) -> None:
        """Let it end, and wait for that."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()


def main(lines: IO[str], out: IO[str]) -> None:
    """Measure what each line says, as the first says for whom, until there are no more."""
    told = json.loads(lines.readline())
    database = Database.open(told["database"], create=False)
    registry = Registry(database, PartStore(open_blobs(told["blobs"])))
    bench = Bench(registry, told["model"], told["metric"], told["rows"])
    for line in lines:
        said: dict[str, Json]
        try:
            with redirect_stdout(sys.stderr):
                said = {"measured": bench.measure(json.loads(line))}
        except EverlearnError as error:
            said = {"error": type(error).__name__, "text": str(error)}
        print(json.dumps(said), file=out, flush=True)
    database.close()


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)
