"""`bisect`: which version made a model worse, and which rows of what it learned."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from everlearn.base import Json
from everlearn.cli.output import (
    AsJson,
    ModelName,
    figure,
    opened,
    plain,
    say,
    show_json,
    show_table,
)

if TYPE_CHECKING:
    from everlearn.jobs.bisect.probing import Probe, Watch

ROWS = 10
"""Rows that are shown; --json has more."""


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(bisect)


def bisect(
    context: typer.Context,
    model: ModelName,
    metric: Annotated[
        str, typer.Option(help="What got worse: log_loss, accuracy, roc_auc, mae, rmse, …")
    ],
    good: Annotated[int, typer.Option(metavar="N", help="A version that was good.")],
    bad: Annotated[int, typer.Option(metavar="N", help="A version that came from it and is bad.")],
    on: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Rows to judge on; else what the bad one held out last."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes that measure at a time.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the version that made a model worse, and in what it learned the source and the rows.

    Binary search over the versions between the two, then over the increment of the one that is
    found: its parts are folded again, alone and left out. Asked again after a kill, it goes on from
    what was measured.
    """
    with opened(context) as workspace, _progress() as report:
        repair = workspace.model(model).repair
        found = plain(
            repair.bisect(good=good, bad=bad, metric=metric, on=on, processes=jobs, progress=report)
        )
    if as_json:
        show_json(found)
        return
    _show(found)


@contextmanager
def _progress() -> Iterator[Watch]:
    """A line that changes on a terminal, plain lines elsewhere; on standard error."""
    if not sys.stderr.isatty():
        yield lambda probe: say(_line(probe))
        return
    from rich.console import Console

    with Console(stderr=True).status("bisecting") as status:
        yield lambda probe: status.update(_line(probe))


def _line(probe: Probe) -> str:
    value = "" if probe.value is None else f" value={probe.value:.4f}"
    return f"phase={probe.phase} measured={probe.measured} last={probe.name!r}{value}"


def _show(found: Json) -> None:
    typer.echo(found["decision"]["reason"])
    metric = found["metric"]
    columns = ("version#", f"{metric}#", "worse by#", "from#", "to#", "side")
    probes = [
        [str(one["version"]), figure(one["value"]), *_interval(one), one["side"] or ""]
        for one in found["probes"]
    ]
    show_table(columns, probes, "no version was judged")
    hint = found["likely"]
    if hint is not None:
        typer.echo(
            f"version {hint['version']} was judged first: before they were learned, its "
            f"{figure(hint['rows'])} rows were answered with {metric} {figure(hint['value'])}, "
            f"usual is {figure(hint['usual'])}"
        )
    if found["blame"] is not None:
        for level in found["blame"]["levels"]:
            _show_level(level)
        _show_rows(found["blame"]["rows"])
    for step in found["steps"]:
        share = f"{step['share']:.0%} of the damage"
        typer.echo(f"also between versions {step['from']} and {step['to']}: {share}")
    for note in found["notes"]:
        typer.echo(f"note: {note}")
    typer.echo(_cost(found))
    if found["next"] is not None:
        typer.echo(f"next: {found['next']} (with --dry-run it only says what it would do)")


def _cost(found: Json) -> str:
    cost = found["cost"]
    replays = ""
    if cost["replays_named"] is not None:
        replays = (
            f"{cost['replays_named']:.2f} replays of the increment until the rows were named, "
            f"{cost['replays_confirmed']:.2f} until that was confirmed, "
        )
    return (
        f"{cost['evaluations']} versions judged on {figure(found['rows'])} rows, the two named ones"
        f" among them; {replays}{cost['replays']:.2f} replays in all; {cost['seconds']:.1f} s"
    )


def _show_level(level: Json) -> None:
    out = {one["name"]: one for one in level["left_out"]}
    rows = []
    for group in sorted(level["groups"], key=_harm):
        left = out.get(group["name"])
        undone = ["", ""] if left is None else [figure(left["undone"]), f"{left['share']:.0%}"]
        rows.append([group["name"], figure(group["rows"]), *_interval(group["alone"]), *undone])
    typer.echo(f"{level['of']} by {level['by']}: each alone, and left out")
    columns = (level["by"], "rows#", "damage#", "from#", "to#", "undone#", "share#")
    show_table(columns, rows, "there is none")


def _show_rows(rows: Json) -> None:
    if not rows:
        return
    typer.echo("rows that did most damage alone")
    columns = ("source", "reviewer", "row#", "id", "key", "label", "predicted", "damage#")
    shown = [
        [
            one["source"] or "",
            one["reviewer"] or "",
            figure(one.get("position", one.get("row"))),
            one.get("prediction") or one.get("id") or "",
            one["key"] or "",
            figure(one["label"]),
            figure(one["predicted"]),
            figure(one["damage"]),
        ]
        for one in rows[:ROWS]
    ]
    show_table(columns, shown, "")


def _interval(found: Json) -> list[str]:
    worse = found.get("worse_by") or {}
    return [figure(worse.get(name)) for name in ("mean", "low", "high")]


def _harm(group: Json) -> float:
    worse = group["alone"].get("worse_by")
    return 0.0 if worse is None else -float(worse["mean"])
