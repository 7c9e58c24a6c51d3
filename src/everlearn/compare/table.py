"""The results as a table on a terminal."""

from __future__ import annotations

import math
import sys
from typing import IO, Any

from everlearn.compare.advice import NAMES, figure, seconds
from everlearn.compare.results import Results
from everlearn.compare.scores import Score, wait_in_words

CLASSIFIER_COLUMNS = ("log_loss", "roc_auc", "accuracy", "kappa")
REGRESSOR_COLUMNS = ("mae", "rmse", "r2")


def show(results: Results, file: IO[str] | None = None) -> None:
    """Print the table, best first, and what to choose and why."""
    from rich.console import Console

    console = Console(file=file or sys.stdout, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table(results))
    for sentence in results.advice:
        console.print(f"• {sentence}", soft_wrap=not console.is_terminal)
    for note in results.notes:
        console.print(f"  note: {note}", style="dim", soft_wrap=not console.is_terminal)


def table(results: Results) -> Any:
    """The table alone, for rich's console."""
    from rich import box
    from rich.table import Table

    metrics = columns(results)
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("strategy")
    for name in metrics:
        made.add_column(NAMES.get(name, name), justify="right")
    made.add_column("behind the best (95 %)", justify="right")
    for name in ("CPU", "updates", "rows learned", "label waits", "forgetting", "peak memory"):
        made.add_column(name, justify="right")
    if results.scores[0].cost is not None:
        made.add_column("money", justify="right")
    for score in results.ranked:
        style = "bold" if score.name == results.choice else None
        made.add_row(*cells(score, results), style=style)
    for name, values in results.baselines.items():
        row = [name, *(_number(values.get(metric)) for metric in metrics)]
        made.add_row(*row, style="dim")
    return made


def columns(results: Results) -> tuple[str, ...]:
    """Metrics that are shown."""
    return REGRESSOR_COLUMNS if results.kind == "regressor" else CLASSIFIER_COLUMNS


def cells(score: Score, results: Results) -> list[str]:
    """A strategy's row of the table, as texts."""
    peak = score.peak_memory_mb
    row = [
        score.name,
        *(figure(score, name) for name in columns(results)),
        behind_in_words(score),
        seconds(score.cpu_seconds),
        f"{score.updates:,}",
        f"{score.rows_learned:,}",
        wait_in_words(score.label_wait, results.unit),
        "–" if score.forgetting is None else f"{score.forgetting:.4f}",
        "–" if peak is None else f"{peak:,.0f} MB",
    ]
    if score.cost is not None:
        row.append(f"{score.cost['total']:,.2f}")
    return row


def behind_in_words(score: Score) -> str:
    """ "+0.0123 ± 0.0045", or "best"."""
    if score.behind is None:
        return "best" if score.finite else "–"
    reach = score.behind.high - score.behind.mean
    if not math.isfinite(reach):
        return f"{score.behind.mean:+.4f} ± ?"
    return f"{score.behind.mean:+.4f} ± {reach:.4f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4f}"
