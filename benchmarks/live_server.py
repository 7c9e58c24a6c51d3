"""Servers that are forked from a process which has imported everything, and may be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2

PRELOADED = ["benchmarks.live_preload"]


class Forked:
    """`everlearn serve` over a workspace, in a process of its own.

    Args:
        workspace: its folder.
        specs: as for the command.
        log: the file that the process writes its errors into.
        crash: the crash point at which it kills itself.
    """

    def __init__(self, workspace: Path, specs: Sequence[Path], log: Path, crash: str = "") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = ["--workspace", str(workspace), "serve", *map(str, specs), "--port", str(port)]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.log = log
        self.process = context.Process(target=_serve, args=[words, str(log), crash], daemon=True)
        self.process.start()
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0)

    def wait_until_it_answers(self, seconds: float = 60.0) -> bool:
        """Whether it takes requests; False where it was killed before. Raises `AssertionError` if
        it ended otherwise, or does not in time."""
        until = time.monotonic() + seconds
        while True:
            try:
                if self.client.get("/healthz").status_code == 200:
                    return True
            except httpx2.TransportError:
                pass
            if self.process.exitcode == -signal.SIGKILL:
                return False
            assert self.process.exitcode is None, f"it ended: {self.log.read_text()}"
            assert time.monotonic() < until, "it does not answer"
            time.sleep(0.02)

    def post(self, path: str, body: Any) -> Any:
        """The answer's JSON, asked again where it cannot serve yet (503). Raises
        `httpx2.TransportError` if the server is gone."""
        until = time.monotonic() + 60.0
        while (answer := self.client.post(path, json=body)).status_code == 503:
            assert time.monotonic() < until, answer.text
            time.sleep(0.05)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def kill(self) -> None:
        """SIGKILL, if it has not done so itself."""
        self.process.kill()
        self.process.join()

    def end(self) -> None:
        """Have it end, and wait for that."""
        self.process.terminate()
        self.process.join(30.0)
        assert self.process.exitcode in (0, -signal.SIGTERM), f"{self.process.exitcode}"
        self.client.close()


def _serve(words: list[str], log: str, crash: str) -> None:
    from everlearn import base
    from everlearn.cli import main

    name, _, count = crash.partition(":")
    base._crash_name, base._crash_left = name, int(count or 1)
    with open(log, "a") as told:
        os.dup2(told.fileno(), 1)
        os.dup2(told.fileno(), 2)
    raise SystemExit(main(words))
