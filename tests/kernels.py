"""Compiles the kernels of native learners in several processes, before the tests.

    python -m tests.kernels [processes]

In a new clone that takes minutes, and the processes that run the tests would compile the same ones
at once: the default learner has most of them, and tests of every folder use it. It takes seconds
where they are on disk.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.learners.golden.make import answers, go_on, stored
from tests.learners.natives import TABLE, TREES


def compile_kernels(keys: list[str]) -> None:
    """Let learners answer and go on learning."""
    for key in keys:
        with tempfile.TemporaryDirectory() as folder:
            learner = stored(key, Path(folder))
        answers(TABLE[key], learner)
        go_on(TABLE[key], learner)


def tasks() -> list[list[str]]:
    """Keys of learners that share kernels; those that take longest come first."""
    classes, values, rest = [], [], {}
    for key, entry in TABLE.items():
        stem = entry.module.rpartition(".")[2]
        if stem not in TREES or stem == "half_space_trees":
            rest.setdefault(stem, []).append(key)
        elif "regressor" in stem or key.endswith("on values"):
            values.append(key)
        else:
            classes.append(key)
    return [classes, values, *rest.values()]


def main(processes: int) -> None:
    """Compile all there are."""
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=fork) as pool:
        list(pool.map(compile_kernels, tasks()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
