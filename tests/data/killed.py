"""Functions that are killed on their way: each in a process of its own, forked from one that has
imported what they need, since the import takes longer than the function."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DRIVER = """
import json, os, sys
import everlearn.base as base
{code}
for line in sys.stdin:
    (crash, count), arguments = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        base._crash_name, base._crash_left = crash, count
        work(*arguments)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextmanager
def killer(code: str) -> Iterator[Callable[..., int]]:
    """Runs a function that is killed at crash points.

    Args:
        code: imports what is needed, and defines the function `work`.

    Returns:
        (crash point, the number of the passage, *arguments as JSON) → exit code: -9 where it was
        killed.
    """
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER.format(code=code)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdin is not None and driver.stdout is not None
        told, said = driver.stdin, driver.stdout

        def run(crash: str, count: int, *arguments: Any) -> int:
            told.write(json.dumps([[crash, count], arguments]) + "\n")
            told.flush()
            return int(said.readline())

        try:
            yield run
        finally:
            driver.kill()
