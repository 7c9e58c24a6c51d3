"""Jobs of a Keras model, killed at a step and gone on with: a process for each, forked from this.

    python -m tests.learners.keras_killed FOLDER MODEL.py FILE.csv …

Writes out the state digests of all versions, by the crash point.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import keras

import everlearn as el
from everlearn import base
from everlearn.jobs.checkpoint import Pace
from everlearn.registry.spec import load_spec

CRASHES = (None, "checkpoint.committed:1", "learn.step:14")


def train(workspace: Path, spec: str, files: list[str], crash: str | None) -> int:
    """Train in a process of its own, which may be killed; returns how it ended."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    if crash is not None:
        name, _, count = crash.partition(":")
        base._crash_name, base._crash_left = name, int(count)
    with el.open(workspace) as ws:
        ws.runner.pace = lambda: Pace(rows=100)
        for file in files:
            ws.model(spec).train(file)
    os._exit(0)


def main() -> None:
    """Each crash in a workspace of its own."""
    folder, spec, *files = sys.argv[1:]
    load_spec(spec)
    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(1)
    found = {}
    for number, crash in enumerate(CRASHES):
        workspace = Path(folder) / str(number)
        killed = train(workspace, spec, files, crash)
        assert bool(killed) == (crash is not None), (crash, killed)
        if killed:
            assert train(workspace, spec, files, None) == 0
        with el.open(workspace) as ws:
            found[str(crash)] = [version["state_digest"] for version in ws.model("m").versions()]
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
