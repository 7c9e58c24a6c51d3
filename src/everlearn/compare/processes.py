"""Strategies side by side, each in a process of its own, or one after the other in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import IO

from everlearn import base
from everlearn.base import EverlearnError, SpecError
from everlearn.compare.history import History
from everlearn.compare.run import Run
from everlearn.compare.worker import Task, load_run

Report = Callable[[str, int, int], None]
"""Called with a strategy's name, the events that it answered so far, and of all."""

_FIRST = ("hybrid", "batch", "online", "window")
"""What takes longest begins first, so that the processes end together."""


def run_all(history: History, task: Task, workers: int, report: Report) -> tuple[list[Run], bool]:
    """Replay a history under all plans of a task.

    Args:
        workers: processes at a time; 0 for none but this one.
        report: called as strategies proceed, by one thread at a time.

    Returns:
        The runs in the order of the plans, and whether each had a process of its own.

    Raises:
        EverlearnError: of a strategy that failed, with its name.
    """
    try:
        told = json.dumps(task.to_json())
    except SpecError:
        told = ""  # a class of a notebook: only this process has it
    if workers == 0 or not told:
        return [
            _run_here(history, task, number, report) for number in range(len(task.plans))
        ], False
    with tempfile.TemporaryDirectory(prefix="everlearn-compare-") as name:
        folder = Path(name)
        history.save(folder)
        (folder / "task.json").write_text(told)
        return _Pool(folder, task, report).run(workers), True


def _run_here(history: History, task: Task, number: int, report: Report) -> Run:
    name = task.plans[number].name
    return task.run(history, number, lambda done, total: report(name, done, total))


class _Pool:
    """Processes over one folder; all end when one fails."""

    def __init__(self, folder: Path, task: Task, report: Report) -> None:
        self.folder, self.task, self.report = folder, task, report
        self.lock = Lock()
        self.alive: list[subprocess.Popen[str]] = []
        self.failed = False

    def run(self, workers: int) -> list[Run]:
        """All runs, in the order of the plans."""
        names = [plan.name for plan in self.task.plans]
        rank = {name: place for place, name in enumerate(_FIRST)}
        order = sorted(range(len(names)), key=lambda number: rank.get(names[number], len(rank)))
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(self._watch, number) for number in order]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self._stop()
                for future in futures:
                    future.cancel()
                raise
        return [load_run(self.folder / f"run-{number}") for number in range(len(names))]

    def _watch(self, number: int) -> None:
        """Start a strategy's process, pass its progress on, and wait for its end."""
        name = self.task.plans[number].name
        with tempfile.TemporaryFile("w+") as errors:
            with self._start(number, errors) as process:
                last = self._listen(name, process)
            if process.returncode != 0 and not self.failed:
                errors.seek(0)
                self._stop()
                raise _as_error(name, last, errors.read())

    def _listen(self, name: str, process: subprocess.Popen[str]) -> dict[str, str]:
        """Pass progress on until the process ends; returns the error that it said, if any."""
        assert process.stdout is not None
        last: dict[str, str] = {}
        for line in process.stdout:
            said = json.loads(line)
            if "error" in said:
                last = said
            else:
                with self.lock:
                    self.report(name, said["done"], said["total"])
        return last

    def _start(self, number: int, errors: IO[str]) -> subprocess.Popen[str]:
        threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        paths = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        environment = os.environ | paths | dict.fromkeys(threads, "1")
        command = [sys.executable, "-m", "everlearn.compare.worker", str(self.folder), str(number)]
        with self.lock:
            if self.failed:
                raise EverlearnError("another strategy failed first")
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )
            self.alive.append(process)
            return process

    def _stop(self) -> None:
        with self.lock:
            self.failed = True
            for process in self.alive:
                if process.poll() is None:
                    process.kill()


def _as_error(name: str, said: dict[str, str], errors: str) -> EverlearnError:
    """What a strategy's process said, as the error that it was."""
    kind = getattr(base, said.get("error", ""), None)
    if isinstance(kind, type) and issubclass(kind, EverlearnError):
        return kind(f"strategy {name!r}: {said['text']}")
    tail = "\n".join(errors.strip().splitlines()[-12:])
    return EverlearnError(f"strategy {name!r} failed:\n{tail or 'its process was killed'}")
