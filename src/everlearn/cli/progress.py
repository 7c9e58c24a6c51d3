"""Progress of a job: a bar on a terminal, plain lines elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import TaskID

    from everlearn.jobs.run import Progress

SECONDS_BETWEEN_LINES = 0.5
SHOWN_METRICS = ("accuracy", "mae", "inertia", "reconstruction_error")
"""The metric that is shown is the first of these that is known."""


class Rate:
    """Rows per second of this run: rows that an earlier run learned do not count."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None

    def __call__(self, rows: int) -> float:
        """Rows per second since the first call; 0 at first."""
        now = time.monotonic()
        if self._start is None:
            self._start = (now, rows)
        seconds, done = now - self._start[0], rows - self._start[1]
        return done / seconds if seconds > 0 else 0.0


def metric_of(progress: Progress) -> tuple[str, float] | None:
    """Name and value of the metric to show, if one is known already."""
    for name in SHOWN_METRICS:
        value = progress.metrics.get(name)
        if value is not None:
            return name, value
    return None


class Lines:
    """Lines ``rows=N total=M rate=R accuracy=A phase=P``, two a second at most."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._rate = Rate()
        self._last = -SECONDS_BETWEEN_LINES
        self._phase = ""
        self._rows = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._file.flush()

    def __call__(self, progress: Progress) -> None:
        rate = self._rate(progress.rows)
        now = time.monotonic()
        changed = progress.phase != self._phase
        if not changed and now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last, self._phase = now, progress.phase
        words = [f"rows={progress.rows}"]
        if progress.total is not None:
            words.append(f"total={progress.total}")
        words.append(f"rate={rate:.0f}")
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
        self._rate = Rate()

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._display.stop()

    def __call__(self, progress: Progress) -> None:
        metric = metric_of(progress)
        of_total = "" if progress.total is None else f" / {progress.total:,}"
        shown: dict[str, Any] = {
            "description": progress.phase,
            "total": progress.total,
            "rows": f"{progress.rows:,}{of_total} rows",
            "rate": f"{self._rate(progress.rows):,.0f} rows/s",
            "metric": "" if metric is None else f"{metric[0]} {metric[1]:.4f}",
        }
        if self._task is None:
            self._task = self._display.add_task(**shown)
        self._display.update(self._task, completed=progress.rows, **shown)


def display(file: IO[str] | None = None) -> Bar | Lines:
    """A bar if the file (standard error by default) is a terminal, else lines."""
    file = sys.stderr if file is None else file
    return Bar(file) if file.isatty() else Lines(file)
