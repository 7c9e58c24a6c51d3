"""`compact` and `erase`: old rows of the feedback log, and the data of one key."""

from __future__ import annotations

from typing import Annotated

import typer

from everlearn.cli.output import AsJson, figure, opened, show_json


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("compact")(compact)


def compact(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Only this model; all unless given.")
    ] = None,
    older_than: Annotated[
        str, typer.Option(metavar="30d", help="Archive what arrived longer ago than this.")
    ] = "30d",
    drop_older_than: Annotated[
        str | None,
        typer.Option(metavar="365d", help="Delete for good what is archived and older than this."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be moved, and move nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Move old predictions and labels into Parquet blobs, where the log still reads them.

    Labels that no version took stay in the database, and so does what triggers, rollouts, reviews
    and open maturity windows look at.
    """
    with opened(context) as workspace:
        found = workspace.compact(
            model, older_than=older_than, drop_older_than=drop_older_than, dry_run=dry_run
        )
    if as_json:
        show_json(found)
        return
    verb = "would be " if dry_run else ""
    for name, counts in found.items():
        text = (
            f"{name}: {figure(counts['predictions'])} predictions and {figure(counts['labels'])}"
            f" labels {verb}archived"
        )
        if drop_older_than is not None:
            text += f", {figure(counts['dropped'])} rows {verb}deleted"
        typer.echo(text)
        if counts["held"]:
            typer.echo(f"  the rest stays: {counts['held']}")
