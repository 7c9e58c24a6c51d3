"""A job over a Keras model against a bare loop of `train_on_batch`: CPU seconds.

    .venv/bin/python benchmarks/keras_job.py [--rows N] [--rounds N] [--out DIR]

The text's example: Dense(64, relu) and Dense(1), Adam, squared error, chunks of 1,000 rows of 20
numbers. One thread, each measurement in a process of its own, rounds of all sides taking turns;
medians are compared. Each process has done the same with 2,000 rows before, so that what is
imported late is not counted. What is counted is CPU time from the first row on, with the making of
the model's graphs:

- loop: `model.train_on_batch(x, y)` over slices of float32 arrays in memory;
- dataset: the same over a `tf.data.Dataset` in batches of 1,000 (TensorFlow only);
- learner: `KerasLearner.learn` over the same slices as compiled rows, each scored before it is
  learned;
- learn: `everlearn.learn` over the arrays, which compiles, guards and measures every chunk;
- job: `train` in a workspace, over the arrays: rows are spooled, learned, checkpointed, judged, and
  a version is committed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHUNK, WIDTH, WARM_UP = 1_000, 20, 2_000
SIDES = ("loop", "dataset", "learner", "learn", "job")
SPEC = """\
import keras
import everlearn as el

def net():
    model = keras.Sequential([keras.layers.Dense(64, "relu"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model

model = el.Model(
    "bench",
    learner=el.learners.KerasLearner(
        net, encoder=el.learners.Encoder(numbers="as_is", missing="mean")
    ),
    schema=el.Schema(target="y"),
    strategy=el.Strategy(chunk=1_000),
)
"""


def measure(side: str, rows: int) -> float:
    """CPU seconds of one side, in this process, which has done it before."""
    once(side, WARM_UP)
    return once(side, rows)


def once(side: str, rows: int) -> float:
    """CPU seconds of one side, in this process."""
    import keras
    import numpy as np

    import everlearn as el
    from everlearn.base import Batch, Columns
    from everlearn.registry.spec import load_spec

    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(1)
    elif rows == WARM_UP:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(rows, WIDTH))
    y = wide @ rng.normal(size=WIDTH) + rng.normal(size=rows)
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.py"
        spec.write_text(SPEC)
        model, _ = load_spec(spec)
        if side in ("loop", "dataset"):
            net = model.learner.model()
            X, target = wide.astype(np.float32), y.astype(np.float32)
            if side == "dataset":
                import tensorflow as tf

                batches: Any = tf.data.Dataset.from_tensor_slices((X, target)).batch(CHUNK)
            else:
                cuts = range(0, rows, CHUNK)
                batches = ((X[s : s + CHUNK], target[s : s + CHUNK]) for s in cuts)
            began = time.process_time()
            for part, wanted in batches:
                net.train_on_batch(part, wanted)
            return time.process_time() - began
        if side == "learner":
            names = tuple(f"x{k}" for k in range(WIDTH))
            columns = Columns(numbers=names, target="y", target_kind="number")
            learner = model.learner.make_learner(columns)
            none = np.zeros((rows, 0))
            batch = Batch(
                numbers=wide,
                categories=none.astype(np.uint64),
                times=none.astype(np.int64),
                y=y,
                ids=np.arange(rows, dtype=np.uint64),
            )
            began = time.process_time()
            for piece in batch.split(CHUNK):
                learner.learn(piece, score=CHUNK)
            return time.process_time() - began
        if side == "learn":
            began = time.process_time()
            el.learn(model.learner, wide, y, model.strategy)
            return time.process_time() - began
        with el.open(Path(folder) / "workspace") as ws:
            began = time.process_time()
            ws.model(str(spec)).train((wide, y))
            return time.process_time() - began


def run(side: str, back_end: str, rows: int) -> float:
    """CPU seconds of one side, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", side, "--rows", str(rows)],
        env={
            **os.environ,
            "KERAS_BACKEND": back_end,
            "OMP_NUM_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1]))


def table(rows: int, rounds: int, wanted: Sequence[str]) -> str:
    """Measure, and say it in Markdown."""
    back_ends = {
        "tensorflow": SIDES,
        "torch": tuple(side for side in SIDES if side != "dataset"),
    }
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for back_end, sides in back_ends.items():
            for side in (side for side in sides if side in wanted):
                seconds = run(side, back_end, rows)
                found.setdefault((back_end, side), []).append(seconds)
                print(f"round {number + 1}: {back_end} {side} {seconds:.2f} s", file=sys.stderr)
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("keras", "tensorflow-cpu", "torch")
    )
    lines = [
        "# A Keras job against a bare loop of train_on_batch",
        "",
        f"CPU seconds, medians of {rounds} rounds (range), {rows:,} rows in chunks of {CHUNK:,};"
        f" {versions}, Python {platform.python_version()}, one thread. See benchmarks/keras_job.py"
        " for what is counted.",
        "",
        "| back end | side | CPU s | against the loop |",
        "|---|---|---|---|",
    ]
    for (back_end, side), seconds in found.items():
        base = statistics.median(found[back_end, "loop"])
        middle = statistics.median(seconds)
        spread = f"{min(seconds):.2f}–{max(seconds):.2f}"
        lines.append(f"| {back_end} | {side} | {middle:.2f} ({spread}) | {middle / base:.2f}× |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all sides, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", choices=SIDES)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.rows)))
        return
    told = table(given.rows, given.rounds, given.sides)
    print(told)
    if given.out:
        (given.out / "keras-job.md").write_text(told)


if __name__ == "__main__":
    main()
