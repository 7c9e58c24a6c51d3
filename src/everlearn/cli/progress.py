"""Progress of a job: a bar on a terminal, plain lines elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import time
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import TaskID

    from everlearn.jobs.result import Progress

SECONDS_BETWEEN_LINES = 0.5
SECONDS_BETWEEN_FRAMES = 0.1
SHOWN_METRICS = ("accuracy", "mae", "reconstruction_error", "clusters")
"""The metric that is shown is the first of these that is known."""


class Clock:
    """When to show the next figure, and the rate: rows that an earlier run learned do not count.

    Args:
        seconds: least time between two figures of one phase.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._start: tuple[float, int] | None = None
        self._last = 0.0
        self._seen: tuple[str, int] = ("", 0)

    def is_due(self, progress: Progress) -> bool:
        """Whether time has passed, the phase is another, or a checkpoint was written."""
        now = time.monotonic()
        if self._start is None:
            self._start = (now, progress.rows)
        seen = (progress.phase, progress.checkpoints)
        if seen == self._seen and now - self._last < self._seconds:
            return False
        self._last, self._seen = now, seen
        return True

    def rate(self, rows: int) -> float:
        """Rows per second since the first question; 0 at first."""
        if self._start is None:
            return 0.0
        seconds, done = time.monotonic() - self._start[0], rows - self._start[1]
        return done / seconds if seconds > 0 and done > 0 else 0.0


def metric_of(progress: Progress) -> tuple[str, float] | None:
    """Name and value of the metric to show, if one is known already."""
    known = progress.metrics()
    for name in SHOWN_METRICS:
        if known.get(name) is not None:
            return name, known[name]
    return None


class Lines:
    """Lines ``rows=N total=M rate=R accuracy=A phase=P``: two a second, and at each checkpoint."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._clock = Clock(SECONDS_BETWEEN_LINES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._file.flush()

    def __call__(self, progress: Progress) -> None:
        if not self._clock.is_due(progress):
            return
        words = [f"rows={progress.rows}"]
        if progress.total is not None:
            words.append(f"total={progress.total}")
        words.append(f"rate={self._clock.rate(progress.rows):.0f}")
        metric = metric_of(progress)
        if metric is not None:
            words.append(f"{metric[0]}={metric[1]:.4f}")
        words.append(f"phase={progress.phase}")
        self._file.write(" ".join(words) + "\n")
        self._file.flush()


class Bar:
    """A bar with rows, rate, time left and the current metric."""

    def __init__(self, file: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Display

        self._display = Display(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metric]}"),
            console=Console(file=file),
        )
        self._task: TaskID | None = None
        self._clock = Clock(SECONDS_BETWEEN_FRAMES)

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._display.stop()

    def __call__(self, progress: Progress) -> None:
        if not self._clock.is_due(progress):
            return
        metric = metric_of(progress)
        of_total = "" if progress.total is None else f" / {progress.total:,}"
        shown: dict[str, Any] = {
            "description": progress.phase,
            "total": progress.total,
            "rows": f"{progress.rows:,}{of_total} rows",
            "rate": f"{self._clock.rate(progress.rows):,.0f} rows/s",
            "metric": "" if metric is None else f"{metric[0]} {metric[1]:.4f}",
        }
        if self._task is None:
            self._task = self._display.add_task(**shown)
        self._display.update(self._task, completed=progress.rows, **shown)


def display(file: IO[str] | None = None) -> Bar | Lines:
    """A bar if the file (standard error by default) is a terminal, else lines."""
    file = sys.stderr if file is None else file
    return Bar(file) if file.isatty() else Lines(file)
