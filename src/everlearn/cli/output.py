"""What every command shares: the workspace it works on, and how results are shown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everlearn.base import Json
from everlearn.cli import REFUSED

if TYPE_CHECKING:
    from everlearn.workspace import Workspace

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.")]

SHOWN_METRICS = ("accuracy", "log_loss", "roc_auc", "mae", "rmse", "r2", "reconstruction_error")
"""Metrics that are shown to people, those of them that are known; --json has all."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options.

    Args:
        workspace: folder of the workspace, or URL of its database.
    """

    workspace: str


@contextmanager
def opened(context: typer.Context, *, create: bool = False) -> Iterator[Workspace]:
    """The workspace that the global option names, closed afterwards.

    Args:
        create: make it if it is not there; else a missing one is an error.
    """
    from everlearn.registry.audit import acting, local
    from everlearn.workspace import open as open_workspace

    settings: Settings = context.obj
    with (
        open_workspace(settings.workspace, create=create) as workspace,
        acting(local("command line")),
    ):
        yield workspace


def plain(value: Any) -> Json:
    """Anything that the workspace answers, as JSON: records by their fields, NaN as null."""
    if hasattr(value, "to_json"):
        return plain(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def show_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """Print rows of texts under their column names, or `empty` if there are none.

    A column whose name ends in ``#`` is aligned to the right (and loses the sign).
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        right = name.endswith("#")
        table.add_column(name.rstrip("#"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    if not table.row_count:
        typer.echo(empty)
        return
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no width: do not fold what a script reads
    console.print(table)


def leave_if_refused(action: str) -> None:
    """End the command with `REFUSED` where what it made is not let through."""
    if action in ("refuse", "hold"):
        raise typer.Exit(REFUSED)


def say(text: str) -> None:
    """Print one line on standard error, where what is not the result goes."""
    typer.echo(text, err=True)


def when(moment: int | str | None) -> str:
    """A moment (microseconds since 1970, or ISO text) in local time, to the second."""
    if moment is None:
        return ""
    if isinstance(moment, str):
        time = datetime.fromisoformat(moment)
    else:
        time = datetime.fromtimestamp(moment / 1e6, UTC)
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def figure(value: Any) -> str:
    """A number for people: four digits after the point, thousands separated, "–" for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.4f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
