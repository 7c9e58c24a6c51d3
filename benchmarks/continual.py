"""Continual learning on MNIST: what is left of old tasks, beside what was published.

    python -m benchmarks.continual --seeds 5      # every method of every setting
    python -m benchmarks.continual --cost         # processor time beside a loop written by hand
    python -m benchmarks.continual --table        # write the tables of what was run

Runs are added to results/continual.json as they end; what is there is not run again. Several may
run beside each other, with `--only` for each.

There are three settings, each of a paper with published code: "hsu" (Split-MNIST in which the
class, the domain or the task comes in increments; several passes), "gdumb" (the same by class,
learned from a memory alone) and "mammoth" (each row is seen once: Split-MNIST by class, and twenty
permutations or rotations). What is trained in each is said in `continual_methods`, what differs
from the papers above the tables.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.continual_methods import Method, gdumb, hsu, learner, mammoth_domain, mammoth_split
from benchmarks.continual_report import write_tables
from benchmarks.continual_tasks import Task, batch_of, permuted, rotated, split
from everlearn.jobs.learn import Fold
from everlearn.jobs.relive import learn_memory

RESULTS = Path(__file__).parent / "results" / "continual.json"
TASKS = 20


def settings() -> Iterator[tuple[str, str, list[Method]]]:
    """(setting, scenario, methods) of every table."""
    for scenario in ("class", "domain", "task"):
        yield "hsu", scenario, hsu(scenario)
    yield "gdumb", "class", gdumb()
    yield "mammoth", "class", mammoth_split()
    for scenario in ("permuted", "rotated"):
        yield "mammoth", scenario, mammoth_domain(scenario)


def tasks_of(scenario: str, seed: int) -> list[Task]:
    """The tasks of a scenario, in their order."""
    if scenario == "permuted":
        return permuted(TASKS, seed)
    return rotated(TASKS, seed) if scenario == "rotated" else split(scenario)


def run(setting: str, scenario: str, method: Method, seed: int) -> dict[str, Any]:
    """Learn task by task, as jobs do, and judge the last version by all tasks.

    Returns:
        accuracy: per cent over tasks; after: of each task when it was learned; seconds of the
        processor.
    """
    strategy, made = method.strategy, learner(setting, scenario, method)
    scenario = "class" if method.masked else scenario
    generator = np.random.default_rng(seed)
    fold: Fold | None = None
    former: Any = None
    after: list[float] = []
    every = tasks_of(scenario, seed)
    todo = _joined(every) if method.joint else every
    began = time.process_time()
    for task in todo:
        if fold is None or strategy.start == "scratch":
            classes = tuple(float(c) for c in range(made.room))
            seeded = _seeded(strategy, seed)
            fold = Fold.new(made, task.columns(), seeded, classes=classes, remembered=former)
            fold.replays = strategy.start == "champion"
        for number in range(strategy.passes if fold.replays else 1):
            order = generator.permutation(len(task.x))
            for chunk in task.chunks(strategy.chunk, order):
                fold.step(chunk, again=number > 0, test=False)
        fold.settle()
        if strategy.start == "scratch" and task is todo[-1]:  # earlier samples are not gone on from
            learn_memory(fold, _seeded(strategy, seed), lambda rows: None)
        former = fold.save()
        after.append(accuracy(fold, task))
    assert fold is not None
    seconds = time.process_time() - began
    final = [accuracy(fold, task) for task in every]
    told = [accuracy(fold, task, said=True) for task in every if task.among is not None]
    return {
        "accuracy": 100 * float(np.mean(told if method.masked else final)),
        "told": 100 * float(np.mean(told)) if told else None,
        "after": [round(100 * value, 2) for value in after],
        "seconds": seconds,
    }


def _seeded(strategy: Any, seed: int) -> Any:
    from dataclasses import replace

    return replace(strategy, seed=seed)


def _joined(every: list[Task]) -> list[Task]:
    columns = [np.concatenate([getattr(t, name) for t in every]) for name in ("x", "y")]
    return [Task(*columns, every[0].x_test, every[0].y_test)]


def accuracy(fold: Fold, task: Task, said: bool = False) -> float:
    """The share of a task's test rows that is answered right.

    Args:
        said: the classes of the task are told: only between them is chosen.
    """
    right = 0
    for start in range(0, len(task.x_test), 2000):
        x, y = (part[start : start + 2000] for part in (task.x_test, task.y_test))
        prediction = fold.predict(batch_of(x, y))
        if said and task.among is not None and prediction.proba is not None:
            chosen = np.array(task.among)[prediction.proba[:, task.among].argmax(axis=1)]
        else:
            chosen = fold.decode(prediction.value)
        right += int((chosen == y).sum())
    return right / len(task.x_test)


def record(*place: str, value: Any) -> Any:
    """Write a value at a place of the results; others that run beside this one wait for it.

    Returns:
        All results so far.
    """
    with RESULTS.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        found = inner = json.loads(file.read() or "{}")
        for name in place[:-1]:
            inner = inner.setdefault(name, {})
        inner[place[-1]] = value
        file.truncate(0)
        file.write(json.dumps(found, indent=1) + "\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--only", default="", help="settings, scenarios or methods that hold this")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # Adam's moments of pixels that are always black
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}}
    for seed in range(given.seeds):
        for setting, scenario, methods in settings():
            for method in methods:
                key = f"{setting} / {scenario} / {method.name}"
                if given.only not in key or str(seed) in found["runs"].get(key, {}):
                    continue
                result = run(setting, scenario, method, seed)
                if not math.isfinite(result["accuracy"]):
                    raise SystemExit(f"{key}, seed {seed}: {result}")
                print(f"{key}, seed {seed}: {result['accuracy']:.2f} ({result['seconds']:.0f} s)")
                found = record("runs", key, str(seed), value=result)
    if given.cost:
        from benchmarks.continual_cost import measure

        found = record("cost", value=measure())
    if given.table or given.cost:
        write_tables(found, list(settings()), RESULTS.with_suffix(".md"))


if __name__ == "__main__":
    main()
