"""`versions`, `history` and `diff`: what was learned, and what was served when."""

from __future__ import annotations

from typing import Annotated

import typer

from everlearn.base import Json
from everlearn.cli.output import (
    AsJson,
    ModelName,
    figure,
    opened,
    plain,
    show_json,
    show_table,
    when,
)

SHOWN_METRICS = ("accuracy", "log_loss", "roc_auc", "mae", "rmse", "r2")


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
        ", ".join(item["aliases"]),
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
    for name, value in found.items():
        _show_section(name.replace("_", " "), value)


def _show_section(name: str, value: Json) -> None:
    """One entry of a diff: a table for a list of records, lines for an object."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        typer.echo(f"{name}:")
        columns = list(dict.fromkeys(key for item in value for key in item))
        show_table(columns, [[figure(item.get(key)) for key in columns] for item in value], "")
    elif isinstance(value, dict) and value:
        typer.echo(f"{name}:")
        for key, item in value.items():
            told = " → ".join(figure(part) for part in item) if isinstance(item, list) else item
            typer.echo(f"  {key}: {told if isinstance(told, str) else figure(told)}")
    else:
        typer.echo(f"{name}: {figure(value)}")
