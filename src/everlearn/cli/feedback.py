"""`label show`, `import-feedback` and `increment list|show`: what became of feedback."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everlearn.base import Json
from everlearn.cli.output import AsJson, figure, opened, plain, show_json, show_table, when

Model = Annotated[str | None, typer.Option(metavar="MODEL", help="Only this model.")]

label = typer.Typer(no_args_is_help=True, help="See what became of a label.")
increment = typer.Typer(no_args_is_help=True, help="See what versions were learned from.")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("import-feedback")(import_feedback)
    app.add_typer(label, name="label")
    app.add_typer(increment, name="increment")


def import_feedback(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON lines, JSON, CSV or Parquet of labels.")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Of records that name no model.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Log the labels of a file: prediction_id or external_id, value, and what else the HTTP API
    takes. Imported again, nothing is logged twice."""
    with opened(context) as workspace:
        found = workspace.import_feedback(file, model=model)
    if as_json:
        show_json(found)
        return
    typer.echo(
        f"{figure(found['logged'])} labels logged, {figure(found['waiting'])} wait for their"
        f" prediction, {figure(found['known'])} were known"
    )


@label.command("show")
def show_label(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Of the prediction: ours or the caller's; or the label's number."
        ),
    ],
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Why is my feedback not learned yet? Show the labels of a prediction, and what became of
    each."""
    with opened(context) as workspace:
        found = plain(workspace.accounts.labels(name, model))
    if as_json:
        show_json(found)
        return
    asked = found["prediction"]
    if asked:
        typer.echo(
            f"prediction {asked['id']} of {asked['model']}, {when(asked['at'])}, version"
            f" {asked['version']} ({asked['arm']}): {asked['output']['value']!r}"
        )
    rows = [
        [
            str(item["id"]),
            "" if item["value"] is None else str(item["value"]),
            item["kind"],
            item["reviewer"] or item["source"],
            when(item["at"]),
            item["state"],
            item["reason"],
        ]
        for item in found["labels"]
    ]
    columns = ("label#", "value", "kind", "from", "at", "state", "reason")
    show_table(columns, rows, "nobody has said anything of it yet")


@increment.command("list")
def list_increments(context: typer.Context, model: Model = None, as_json: AsJson = False) -> None:
    """List the increments of all versions, oldest first."""
    with opened(context) as workspace:
        found: list[Json] = plain(workspace.accounts.increments(model))
    if as_json:
        show_json(found)
        return
    counts = ("rows", "held_out", "set_aside", "duplicates")
    rows = [
        [
            *(str(item[name]) for name in ("id", "model", "version", "source")),
            *(figure(item[name]) for name in ("start", "stop", *counts)),
        ]
        for item in found
    ]
    columns = ("id#", "model", "version#", "source", "start#", "stop#", "learned#", "held out#")
    show_table((*columns, "set aside#", "duplicates#"), rows, "nothing was learned yet")


@increment.command("show")
def show_increment(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="N", help="Number of the increment.")],
    as_json: AsJson = False,
) -> None:
    """Show one increment: what became of each of its rows. --json has the ids of all."""
    with opened(context) as workspace:
        found = plain(workspace.accounts.increment(number))
    if as_json:
        show_json(found)
        return
    typer.echo(
        f"increment {found['id']} of {found['model']}, version {found['version']}:"
        f" {found['source']}, rows {figure(found['start'])} to {figure(found['stop'])}"
    )
    typer.echo(f"digest: {found['digest']}")
    for name, ids in found["ids"].items():
        some = ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")
        typer.echo(f"{name.replace('_', ' ')}: {figure(found[name])}{f' ({some})' if ids else ''}")
    for reason, count in (found["reasons"].get("set_aside") or {}).items():
        typer.echo(f"  {figure(count)}: {reason}")
