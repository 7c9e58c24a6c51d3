"""What benchmarks/jobs.py measures: each task runs in a process of its own and prints JSON.

    python benchmarks/tasks.py NAME [ARGUMENT …]

CPU seconds are those of the whole process, all threads, counted from after the imports.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 20
NAMES = [f"x{i}" for i in range(WIDTH)]
INCREMENT = 10_000
WARM = 3
Result = dict[str, Any]


# --- made-up files -----------------------------------------------------------------------------


def write(path: str, rows: str, seed: str, group: str) -> Result:
    """Write a CSV or Parquet file of 20 normal columns "x0", … and a noisy linear class "y".

    Args:
        group: rows of a row group, or of what is written at a time.
    """
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    generator, total, size = np.random.default_rng(int(seed)), int(rows), int(group)
    weights = np.random.default_rng(0).normal(size=WIDTH)
    schema = pa.schema([(name, pa.float64()) for name in NAMES] + [("y", pa.int64())])
    is_csv = path.endswith(".csv")
    with pacsv.CSVWriter(path, schema) if is_csv else pq.ParquetWriter(path, schema) as writer:
        for start in range(0, total, size):
            x = np.round(generator.normal(size=(min(size, total - start), WIDTH)), 6)
            y = (x @ weights + generator.normal(size=len(x)) > 0).astype(np.int64)
            columns = {name: x[:, i] for i, name in enumerate(NAMES)}
            writer.write_table(pa.table(columns | {"y": y}))
    return {}


def write_new(folder: str, count: str) -> Result:
    """Write the new rows of so many incremental jobs: "new-0.parquet", …, 10,000 rows each."""
    for number in range(int(count)):
        path = Path(folder, f"new-{number}.parquet")
        if not path.exists():
            write(str(path), str(INCREMENT), str(1000 + number), str(INCREMENT))
    return {}


# --- one pass over a file ----------------------------------------------------------------------


def loop_parquet(path: str) -> Result:
    """What a user writes: batches of pyarrow, predict, then partial_fit."""
    import pyarrow.parquet as pq

    model, hits, rows = learner(), 0, 0

    def run() -> None:
        nonlocal hits, rows
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1000):
            x = np.column_stack([batch.column(name).to_numpy() for name in NAMES])
            y = batch.column("y").to_numpy()
            if rows:
                hits += int((model.predict(x) == y).sum())
            model.partial_fit(x, y, classes=[0, 1])
            rows += len(y)

    return timed(run) | {"rows": rows}


def loop_csv(path: str, form: str) -> Result:
    """What a user writes: chunks of pandas, predict, then partial_fit.

    Args:
        form: "frames" gives the estimator data frames as they are, "arrays" their arrays.
    """
    import pandas as pd

    model, hits, rows = learner(), 0, 0

    def run() -> None:
        nonlocal hits, rows
        for frame in pd.read_csv(path, chunksize=1000):
            x: Any = frame.drop(columns="y")
            y: Any = frame["y"]
            if form == "arrays":
                x, y = x.to_numpy(), y.to_numpy()
            if rows:
                hits += int((model.predict(x) == y).sum())
            model.partial_fit(x, y, classes=[0, 1])
            rows += len(y)

    return timed(run) | {"rows": rows}


def job(path: str, holdout: str) -> Result:
    """The same as a job: planned, checkpointed, judged, committed, promoted."""
    with workspace() as opened:
        counts: list[int] = []

        def run() -> None:
            handle = opened.model(definition(holdout=float(holdout)))
            handle.train(path, progress=lambda progress: counts.append(progress.checkpoints))

        found = timed(run)
        (version,) = opened.model("model").versions()
    read = sum(item["stop"] - item["start"] for item in version["increments"])
    return found | {"rows": read, "checkpoints": max(counts)}


def memory(path: str) -> Result:
    """Peak resident memory of a job, in MiB, and what the process had before it."""
    with workspace() as opened:
        before = peak_memory()
        opened.model(definition()).train(path)
    return {"peak_mib": peak_memory(), "before_mib": before}


def peak_memory() -> float:
    """MiB: VmHWM on Linux; elsewhere what getrusage says."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return float(lines["VmHWM"].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


# --- incremental jobs --------------------------------------------------------------------------


def incremental(folder: str, jobs: str, *histories: str) -> Result:
    """Jobs over 10,000 new rows, taking turns on workspaces whose histories differ in length.

    Args:
        folder: has "new-0.parquet", … with the new rows.
        jobs: how many are measured on each workspace, after three that are not.
        histories: Parquet files; each is the first job of a workspace of its own.
    """
    with tempfile.TemporaryDirectory() as root:
        opened = [open_workspace(f"{root}/{k}") for k in range(len(histories))]
        handles = [each.model(definition(gate=True)) for each in opened]
        first = [
            timed(partial(handle.train, path))
            for handle, path in zip(handles, histories, strict=True)
        ]
        costs: list[list[float]] = [[] for _ in histories]
        passed: list[int] = [0] * len(histories)
        for number in range(WARM + int(jobs)):
            for place, handle in enumerate(handles):
                path = f"{folder}/new-{number}.parquet"
                cost = timed(partial(handle.train, path))
                if number >= WARM:
                    costs[place].append(cost["cpu"])
                    passed[place] += cost["returned"].decision.action == "promote"
        held = [handle.versions()[-1]["decision"]["evidence"]["rows"] for handle in handles]
        for each in opened:
            each.close()
    return {
        "first_cpu": [item["cpu"] for item in first],
        "increment_cpu": [statistics.median(item) for item in costs],
        "quartiles": [statistics.quantiles(item, n=4) for item in costs],
        "passed": passed,
        "holdout_rows": held,
    }


def retraining(path: str) -> Result:
    """CPU seconds of a first job over a file, and of learning all of it again from scratch."""
    import everlearn as el

    with workspace() as opened:
        handle = opened.model(definition(gate=True))
        first = timed(partial(handle.train, path))
        anew = definition(gate=True).replace(strategy=el.Strategy(start="scratch"))
        handle = opened.model(anew)
        again = timed(partial(handle.train, path, again=True))
    return {"first_cpu": first["cpu"], "scratch_cpu": again["cpu"]}


def many(folder: str, jobs: str) -> Result:
    """A history of many jobs: what the first of them cost, and the last."""
    with workspace() as opened:
        handle = opened.model(definition(gate=True))
        costs = [
            timed(partial(handle.train, f"{folder}/new-{number}.parquet"))["cpu"]
            for number in range(int(jobs))
        ]
    return {"early": statistics.median(costs[40:60]), "late": statistics.median(costs[-20:])}


# --- the demo ----------------------------------------------------------------------------------


def comparison(out: str, workers: str) -> Result:
    """Wall seconds of the demo's comparison of seven strategies on a year of flights."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
    flights, model = import_module("nyc_flights").flights, import_module("flights").model

    from everlearn.compare.compare import compare

    history = Path(out, "flights.csv")
    flights().to_csv(history, index=False)
    start = time.perf_counter()
    compare(str(history), model.schema, every="7d", out=Path(out, "report"), workers=int(workers))
    return {"seconds": time.perf_counter() - start}


# --- parts of them -----------------------------------------------------------------------------


def learner() -> Any:
    from sklearn.linear_model import SGDClassifier

    return SGDClassifier(loss="log_loss", alpha=1e-3, random_state=0)


def definition(holdout: float = 0.05, gate: bool = False) -> Any:
    import everlearn as el

    return el.Model(
        "model",
        learner=learner(),
        schema=el.Schema(target="y"),
        gate=el.NonInferior("log_loss", margin=0.05) if gate else None,
        holdout=holdout,
    )


def open_workspace(folder: str) -> Any:
    import everlearn as el

    return el.open(folder)


class workspace:
    """A workspace in a folder that is removed at the end. Opening it is not measured."""

    def __enter__(self) -> Any:
        self._folder = tempfile.TemporaryDirectory()
        self._opened = open_workspace(f"{self._folder.name}/workspace")
        warm_up(self._folder.name)
        return self._opened

    def __exit__(self, *error: object) -> None:
        self._opened.close()
        self._folder.cleanup()


def warm_up(folder: str) -> None:
    """Import all that a job imports when it first needs it: learn 2,000 rows elsewhere."""
    path = f"{folder}/warm.parquet"
    write(path, "2000", "1", "2000")
    with open_workspace(f"{folder}/warm") as opened:
        opened.model(definition(gate=True)).train(path)


def timed(run: Callable[[], object]) -> Result:
    """CPU and wall seconds of one call, and what it returned."""
    cpu, wall = time.process_time(), time.perf_counter()
    returned = run()
    spent = time.process_time() - cpu
    return {"cpu": spent, "wall": time.perf_counter() - wall, "returned": returned}


TASKS: dict[str, Callable[..., Result]] = {
    task.__name__: task
    for task in (
        write,
        write_new,
        loop_parquet,
        loop_csv,
        job,
        memory,
        incremental,
        retraining,
        many,
        comparison,
    )
}

if __name__ == "__main__":
    found = TASKS[sys.argv[1]](*sys.argv[2:])
    found.pop("returned", None)
    print(json.dumps(found))
