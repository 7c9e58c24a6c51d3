"""A server in a process of its own, which may be killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2


class Server:
    """`everlearn serve` over a workspace.

    Args:
        workspace, spec: as for the command.
        crash: the crash point at which it kills itself.
        options: of the command.
    """

    def __init__(
        self, workspace: Path | str, spec: Path, crash: str = "", options: Sequence[str] = ()
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = ["--workspace", str(workspace), "serve", str(spec), "--port", str(self.port)]
        words += options
        self.process = subprocess.Popen(
            [sys.executable, "-m", "everlearn.cli", *words],
            env={**os.environ, "EVERLEARN_CRASH": crash, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30.0)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 60.0
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(f"no server: {self.process.communicate()[1]}")
            time.sleep(0.05)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.client.close()
        self.process.terminate()
        self.process.communicate(timeout=60.0)

    def answers(self) -> bool:
        """Whether it takes requests."""
        try:
            return bool(self.client.get("/healthz").status_code == 200)
        except httpx2.TransportError:
            return False

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def post(self, path: str, body: Any) -> Any:
        """The answer's JSON. Raises `httpx2.TransportError` if the server is gone."""
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()
