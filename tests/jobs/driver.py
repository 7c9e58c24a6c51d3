"""A process that has imported everything and forks one child for each run, which may be killed.

The parent keeps no thread and no connection, so that forking it is sound. It is spoken to in lines
of JSON: a request starts a child and is answered with its process id; a second one waits for it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parent.parent.parent


class Ended:
    """How a run ended.

    Attributes:
        killed: by SIGKILL.
        results: one for each file, as `JobResult.to_json`; of an error, those before it.
        error: class and message, or None.
        seconds: it took, without the fork.
        calls: of functions that its main thread made while it worked, if they were counted.
        faults: system calls that could have failed, if any was made to.
    """

    def __init__(self, status: int, told: dict[str, Any]) -> None:
        self.killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        self.results: list[dict[str, Any]] = told.get("results", [])
        self.error: str | None = told.get("error")
        self.seconds: float = told.get("seconds", 0.0)
        self.calls: int = told.get("calls", 0)
        self.faults: int = told.get("faults", 0)


class Driver:
    """Starts runs in processes of their own.

    A run opens a workspace and trains a model on files, one job each (or does another `task`).
    """

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.jobs.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                **(environment or {}),
            },
        )

    def start(self, **run: Any) -> int:
        """Start a run (see `work`); returns its process id."""
        return int(self._ask(run)["pid"])

    def wait(self, pid: int, kill_after: float | None = None) -> Ended:
        """Wait for a run to end; kill it if it is not done after so many seconds."""
        told = self._ask({"wait": pid, "kill_after": kill_after})
        return Ended(told["status"], told["told"])

    def run(self, kill_after: float | None = None, **run: Any) -> Ended:
        """Start a run and wait for it."""
        return self.wait(self.start(**run), kill_after)

    @staticmethod
    def wait_until_stopped(pid: int) -> None:
        """Wait until a run was stopped by SIGSTOP."""
        give_up = time.monotonic() + 30
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < give_up, "the run was not stopped"
            time.sleep(0.01)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class CallCounter:
    """Counts calls of functions, of Python and of C, and kills the process at one of them."""

    def __init__(self, kill_at: int | None) -> None:
        self.calls, self._kill_at = 0, kill_at

    def __call__(self, frame: object, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self.calls += 1
            if self.calls == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


class Stop:
    """Stands in for `crash_point`: stops the process at one passage, and sleeps at each step."""

    def __init__(self, at: str, seconds_a_step: float) -> None:
        self._name, _, count = at.partition(":")
        self._left, self._seconds = int(count or 1), seconds_a_step

    def __call__(self, name: str) -> None:
        if name == "learn.step":
            time.sleep(self._seconds)
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGSTOP)


def _at_crash_points(do: Stop) -> None:
    from everlearn.jobs import checkpoint, learn, run, runner

    for module in (checkpoint, learn, run, runner):
        module.crash_point = do  # type: ignore[attr-defined]


def work(
    told: dict[str, Any],
    *,
    workspace: str,
    model: str = "plain",
    files: list[str],
    crash: str | None = None,
    stop_at: str | None = None,
    seconds_a_step: float = 0.0,
    kill_at_call: int | None = None,
    count_calls: bool = False,
    checkpoint_rows: int | None = None,
    lease_seconds: float = 30.0,
    task: str = "train",
    fault: list[Any] | None = None,
    **options: Any,
) -> None:
    """What a child does.

    Args:
        told: receives "results", "seconds" and "calls".
        model: name of a scenario.
        files: trained on one after the other, each a job; a list in it is one job of many files.
        crash: name[:count] of the crash point to die at.
        stop_at: name[:count] of the crash point to stop at (SIGSTOP), once.
        seconds_a_step: to sleep after each chunk.
        kill_at_call: number of the function call to die at.
        checkpoint_rows: rows between two checkpoints.
        task: "train", "plan" (only queue), or "worker" (carry out what is queued).
        fault: (folder, number of the call that fails, error number, whether later ones do too).
        options: of `ModelHandle.train`.
    """
    import everlearn as el
    from everlearn import base
    from everlearn.jobs.checkpoint import Pace
    from tests.jobs.scenarios import CHECKPOINT_ROWS, models

    if crash:
        name, _, count = crash.partition(":")
        base._crash_name, base._crash_left = name, int(count or 1)
    began = time.perf_counter()
    if stop_at or seconds_a_step:
        _at_crash_points(Stop(stop_at or "", seconds_a_step))
    counter = CallCounter(kill_at_call)
    if kill_at_call or count_calls:
        sys.setprofile(counter)
    if fault:
        _arm(*fault)
    try:
        with el.open(workspace) as ws:
            ws.queue.lease_seconds = lease_seconds
            ws.runner.pace = lambda: Pace(rows=checkpoint_rows or CHECKPOINT_ROWS)
            if task == "worker":
                ws.work(once=True, report=lambda *said: _report(told, *said))
                return
            handle = ws.model(models()[model])
            for file in files:
                if task == "plan":
                    planned = handle.plan(file, **options)
                    told["results"].append(planned if isinstance(planned, int) else None)
                else:
                    told["results"].append(handle.train(file, **options).to_json())
    finally:
        sys.setprofile(None)
        if fault:
            told["faults"] = _disarm()
        told["seconds"], told["calls"] = time.perf_counter() - began, counter.calls


def _report(told: dict[str, Any], job: Any, result: Any, error: str | None) -> None:
    told["results"].append(
        {"job": job.id, "error": error, "result": None if result is None else result.to_json()}
    )


def _arm(folder: str, number: int, error: int, on: bool) -> None:
    import ctypes

    ctypes.CDLL(None).fault_arm(folder.encode(), ctypes.c_long(number), error, int(on))


def _disarm() -> int:
    import ctypes

    return int(ctypes.CDLL(None).fault_disarm())


def _child(request: dict[str, Any], out: int) -> None:
    """Run, write down what is told, and end without any cleaning up of the parent's things."""
    told: dict[str, Any] = {"results": []}
    try:
        work(told, **request)
    except BaseException as error:
        told["error"] = f"{type(error).__name__}: {error}"
        told["trace"] = traceback.format_exc()
    with os.fdopen(out, "w") as file:
        json.dump(told, file, default=str)
    os._exit(0)


def _start(request: dict[str, Any], running: dict[int, int]) -> int:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _child(request, write)
    os.close(write)
    running[pid] = read
    return pid


def _wait(pid: int, kill_after: float | None, out: int) -> dict[str, Any]:
    timer = None
    if kill_after is not None:
        timer = threading.Timer(kill_after, os.kill, (pid, signal.SIGKILL))
        timer.start()
    with os.fdopen(out) as file:
        text = file.read()
    if timer is not None:
        timer.cancel()
        timer.join()
    _, status = os.waitpid(pid, 0)
    return {"status": status, "told": json.loads(text) if text else {}}


def main() -> None:
    """Answer requests until there are no more."""
    import pyarrow.parquet

    import everlearn as el
    import everlearn.jobs.direct
    import everlearn.workspace
    from tests.jobs import scenarios

    pyarrow.set_cpu_count(1)
    _ = [getattr(el, name) for name in el.__all__]
    scenarios.load_kernels()
    running: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            pid = request["wait"]
            answer = _wait(pid, request["kill_after"], running.pop(pid))
        else:
            answer = {"pid": _start(request, running)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
