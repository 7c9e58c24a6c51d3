"""What a job shows of itself while it runs."""

from __future__ import annotations

import io

from everlearn.cli.progress import Bar, Lines, display, metric_of
from everlearn.evaluation.metrics import Metrics
from everlearn.jobs.result import Progress


class Step(Progress):
    """A moment of a job with figures that the test gives."""

    def __init__(self, rows: int, total: int | None, phase: str, figures: dict[str, float]) -> None:
        super().__init__(1, total, Metrics("classifier"))
        self.rows, self.phase, self._figures = rows, phase, figures

    def metrics(self) -> dict[str, float]:
        return self._figures


def step(rows: int, total: int | None = 100, phase: str = "learning", **metrics: float) -> Step:
    return Step(rows, total, phase, metrics)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_say_rows_rate_metric_and_phase() -> None:
    file = io.StringIO()
    with Lines(file) as progress:
        progress(step(10, accuracy=0.75))
    assert file.getvalue() == "rows=10 total=100 rate=0 accuracy=0.7500 phase=learning\n"


def test_many_steps_in_a_moment_are_few_lines() -> None:
    file = io.StringIO()
    with Lines(file) as progress:
        for rows in range(1000):
            progress(step(rows, None))
    assert len(file.getvalue().splitlines()) < 10


def test_a_new_phase_is_shown_at_once() -> None:
    file = io.StringIO()
    with Lines(file) as progress:
        progress(step(0, phase="memory"))
        progress(step(5, phase="learning"))
        progress(step(9, phase="judging"))
    phases = [line.split("phase=")[1] for line in file.getvalue().splitlines()]
    assert phases == ["memory", "learning", "judging"]


def test_a_checkpoint_is_shown_at_once() -> None:
    file = io.StringIO()
    with Lines(file) as progress:
        for checkpoints in range(3):
            moment = step(checkpoints)
            moment.checkpoints = checkpoints
            progress(moment)
    assert len(file.getvalue().splitlines()) == 3


def test_the_first_known_metric_is_shown() -> None:
    assert metric_of(step(1, mae=2.0)) == ("mae", 2.0)
    assert metric_of(step(1, mae=2.0, accuracy=0.5)) == ("accuracy", 0.5)
    assert metric_of(step(1)) is None


def test_a_bar_on_a_terminal_and_lines_elsewhere() -> None:
    terminal = Terminal()
    with display(terminal) as progress:
        assert isinstance(progress, Bar)
        progress(step(0))
        progress(step(50, phase="judging", accuracy=0.9))
    shown = terminal.getvalue()
    assert "50 / 100 rows" in shown
    assert "accuracy 0.9000" in shown
    assert "50%" in shown
    assert isinstance(display(io.StringIO()), Lines)


def test_a_bar_without_a_total() -> None:
    terminal = Terminal()
    with Bar(terminal) as progress:
        progress(step(7, None))
    assert "7 rows" in terminal.getvalue()
