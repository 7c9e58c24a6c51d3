"""The process of one strategy: `python -m everlearn.compare.worker FOLDER NUMBER`.

Reads the task and the compiled history from the folder, prints a line of JSON for each step of
progress, and writes what the strategy answered. Each strategy has a process of its own so that
its peak memory is its own, and so that strategies run side by side.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from everlearn.base import EverlearnError, Json
from everlearn.compare.history import History
from everlearn.compare.replay import replay
from everlearn.compare.run import Run
from everlearn.compare.strategies import OWN, Plan
from everlearn.registry.config import from_config, to_config
from everlearn.strategies.strategy import Strategy

_ARRAYS = ("value", "proba", "update_seconds", "update_moments", "transfer", "serving")
_FIGURES = ("name", "cpu_seconds", "rows_learned", "rows_read", "labels_used", "wait")


@dataclass(frozen=True, slots=True)
class Task:
    """What all processes of a comparison are told.

    Args:
        plans: what is compared.
        learner: what learns.
        classes: classes of the target that are known beforehand.
        oracle: name of the strategy whose versions are tested on all later periods, or None.
        source: text of the spec file that the learner, and the strategy of the plan of the name
            `OWN`, come from; what has no name in them is made again by its place there.
    """

    plans: tuple[Plan, ...]
    learner: Any
    classes: tuple[Any, ...]
    oracle: str | None
    source: str | None = None

    def to_json(self) -> Json:
        """Raises `SpecError` where something cannot be made again in another process."""
        plans = []
        for plan in self.plans:
            where = "strategy" if plan.name == OWN else ""
            strategy = to_config(plan.strategy, self.source, where)
            plans.append([to_config(replace(plan, strategy=Strategy())), strategy])
        return {
            "plans": plans,
            "learner": to_config(self.learner, self.source, "learner"),
            "classes": to_config(self.classes),
            "oracle": self.oracle,
            "source": self.source,
        }

    @classmethod
    def from_json(cls, value: Json) -> Task:
        source = value["source"]
        plans = [
            replace(from_config(plan), strategy=from_config(strategy, source))
            for plan, strategy in value["plans"]
        ]
        learner = from_config(value["learner"], source)
        classes = from_config(value["classes"])
        return cls(tuple(plans), learner, classes, value["oracle"], source)

    def run(self, history: History, number: int, report: Any) -> Run:
        """Replay the history under one of the plans."""
        plan = self.plans[number]
        return replay(
            history,
            plan,
            self.learner,
            classes=self.classes,
            oracle=plan.name == self.oracle,
            report=report,
        )


def main(folder: Path, number: int) -> int:
    """Run one strategy. Returns the exit status: 1 for an error that is printed as JSON."""
    task = Task.from_json(json.loads((folder / "task.json").read_text()))
    history = History.load(folder)
    lines = sys.stdout  # what learners print must not come between ours

    def tell(**said: Any) -> None:
        print(json.dumps(said), file=lines, flush=True)

    def report(done: int, total: int) -> None:
        tell(done=done, total=total)

    try:
        with redirect_stdout(sys.stderr):
            run = task.run(history, number, report)
    except EverlearnError as error:
        tell(error=type(error).__name__, text=str(error))
        return 1
    run.peak_memory_mb = peak_memory_mb()
    save_run(run, folder / f"run-{number}")
    return 0


def save_run(run: Run, folder: Path) -> None:
    """Write a run as .npy files and JSON."""
    folder.mkdir()
    for name in _ARRAYS:
        value = getattr(run, name)
        if value is not None:
            np.save(folder / f"{name}.npy", value)
    figures = {name: getattr(run, name) for name in (*_FIGURES, "peak_memory_mb")}
    (folder / "run.json").write_text(json.dumps(figures))


def load_run(folder: Path) -> Run:
    """The run that `save_run` wrote."""
    arrays = {
        name: np.load(folder / f"{name}.npy", allow_pickle=False)
        for name in _ARRAYS
        if (folder / f"{name}.npy").exists()
    }
    return Run(**json.loads((folder / "run.json").read_text()), **({"proba": None} | arrays))


def peak_memory_mb() -> float:
    """The most memory that this process ever had resident, in MiB, libraries included."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        high = next(line for line in lines if line.startswith("VmHWM:"))
        return int(high.split()[1]) / 1024
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
