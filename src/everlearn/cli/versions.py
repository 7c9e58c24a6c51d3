"""`versions`, `history` and `diff`: what was learned, and what was served when."""

from __future__ import annotations

from typing import Annotated

import typer

from everlearn.base import Json
from everlearn.cli.output import (
    SHOWN_METRICS,
    AsJson,
    ModelName,
    figure,
    opened,
    plain,
    show_json,
    show_table,
    when,
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(versions)
    app.command()(history)
    app.command()(diff)


def versions(context: typer.Context, model: ModelName, as_json: AsJson = False) -> None:
    """List the versions of a model, in the order of their numbers."""
    with opened(context) as workspace:
        found = plain(workspace.model(model).versions())
    if as_json:
        show_json(found)
        return
    shown = [name for name in SHOWN_METRICS if any(_metric(item, name) for item in found)]
    columns = ("number#", "parent#", "aliases", "made", "learned#", "held out#", "set aside#")
    show_table(
        (*columns, *(f"{name}#" for name in shown), "state"),
        [_version_row(item, shown) for item in found],
        f"{model} has no version yet",
    )


def _version_row(item: Json, shown: list[str]) -> list[str]:
    def total(name: str) -> str:
        return figure(sum(increment[name] for increment in item["increments"]))

    return [
        str(item["number"]),
        str(item["parent"] or ""),
        ", ".join([*item["aliases"], *(["withdrawn"] if item["withdrawn"] else [])]),
        when(item["created_at"]),
        total("rows"),
        total("held_out"),
        total("set_aside"),
        *(figure(_metric(item, name)) for name in shown),
        item["state_digest"][:12],
    ]


def _metric(item: Json, name: str) -> float | None:
    value = item["metrics"].get(name)
    return value if isinstance(value, float | int) else None


def history(
    context: typer.Context,
    model: ModelName,
    as_json: AsJson = False,
) -> None:
    """Show every move of the aliases of a model, oldest first, with its reason."""
    with opened(context) as workspace:
        found = plain(workspace.model(model).history())
    if as_json:
        show_json(found)
        return
    rows = [
        [
            when(item["at"]),
            item["name"],
            figure(item["version_from"]),
            figure(item["version_to"]),
            item["action"],
            item["reason"],
        ]
        for item in found
    ]
    show_table(
        ("at", "alias", "from#", "to#", "action", "reason"), rows, f"no alias of {model} moved yet"
    )


def diff(
    context: typer.Context,
    model: ModelName,
    a: Annotated[int, typer.Argument(metavar="A", help="Number of one version.")],
    b: Annotated[int, typer.Argument(metavar="B", help="Number of the other version.")],
    as_json: AsJson = False,
) -> None:
    """Compare two versions: metrics, answers that changed, and what was learned between."""
    with opened(context) as workspace:
        found = plain(workspace.model(model).diff(a, b))
    if as_json:
        show_json(found)
        return
    _show_metrics(found)
    for side in ("a", "b"):
        _show_learned(found, side)
    if found["churn"]:
        _show_churn(found["churn"])
    if found["same_state"]:
        typer.echo("both have the same state")
    elif found["parts"]:
        changed = (f"{name} {how}" for name, how in found["parts"].items())
        typer.echo(f"parts of the state: {', '.join(changed)}")
    if found["definition"]:
        typer.echo(f"the definition differs in {', '.join(found['definition'])}")
    for move in found["history"]:
        typer.echo(f"{when(move['at'])}: {_told_move(move)}")


def _show_metrics(found: Json) -> None:
    """The metrics that people look at: while it learned, and on its hold-out rows."""
    rows = []
    for start, words in (("", "while learning"), ("recent.candidate.", "on hold-outs")):
        for name in SHOWN_METRICS:
            values = found["metrics"].get(start + name)
            if values is not None:
                rows.append([f"{name} {words}", *(figure(value) for value in values.values())])
    a, b = (f"version {found[side]['number']}#" for side in ("a", "b"))
    show_table(("metric", a, b, "difference#"), rows, "no metrics are known")


def _show_learned(found: Json, side: str) -> None:
    number, other = found[side]["number"], found["b" if side == "a" else "a"]["number"]
    for item in found["learned"][side]:
        typer.echo(
            f"only version {number}, not {other}, learned {item['source']}: rows"
            f" {figure(item['start'])} to {figure(item['stop'])}, {figure(item['rows'])} learned"
        )


def _show_churn(churn: Json) -> None:
    known = (f"{name.replace('_', ' ')} {figure(value)}" for name, value in churn.items())
    typer.echo(f"answers on hold-out rows: {', '.join(known)}")


def _told_move(move: Json) -> str:
    places = [figure(move[name]) for name in ("version_from", "version_to")]
    return f"{move['name']} {' → '.join(places)} ({move['action']}): {move['reason']}"
