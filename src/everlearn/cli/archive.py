"""`compact` and `erase`: old rows of the feedback log, and the data of one key."""

from __future__ import annotations

from typing import Annotated

import typer

from everlearn.cli.output import AsJson, ModelName, figure, opened, plain, show_json


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("compact")(compact)
    app.command("erase")(erase)


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
        typer.Option(
            metavar="365d",
            help="Delete for good what is archived, or waits for a prediction, and is older.",
        ),
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


def erase(
    context: typer.Context,
    model: ModelName,
    key: Annotated[str, typer.Option(metavar="KEY", help="Whose data is to be erased.")],
    refold: Annotated[
        bool, typer.Option(help="Fold again, without the data, what the champion learned.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Erase the data of one key, and fold again without it what the champion learned.

    Positions and ids stay, so that nothing else changes. Versions with rows of the key in their
    memory can no longer be loaded; a champion is replaced by one without them.

    A label that waits for a prediction is erased if the caller's id that it names is the key; whose
    others are nothing tells: `compact --drop-older-than` deletes those that wait so long. Copies of
    rows that a dry run of `excise`, or `bisect`, left are removed by `gc`.
    """
    with opened(context) as workspace:
        found = plain(workspace.erase(model, key, refold=refold))
    if as_json:
        show_json(found)
        return
    typer.echo(
        f"{figure(found['predictions'])} predictions and {figure(found['labels'])} labels erased"
    )
    if found["waiting"] or found["set_aside"]:
        typer.echo(
            f"  and {figure(found['waiting'])} labels that waited for a prediction,"
            f" {figure(found['set_aside'])} messages that were set aside"
        )
    if found["edits"]:
        numbers = ", ".join(map(str, found["edits"]))
        typer.echo(f"  and edit {numbers}, by which answers were put right")
    for one in found["learned_from_it"]:
        rows = figure(one["rows"])
        typer.echo(f"  version {one['version']} learned from it: {rows} rows were of the key")
    if found["version"] is not None:
        typer.echo(f"  version {found['version']} serves, whose memory is without them")
    if found["no_longer_loadable"]:
        numbers = ", ".join(map(str, found["no_longer_loadable"]))
        typer.echo(f"  no longer loadable: version {numbers}")
    again = found.get("refold")
    if again is not None and again["job"] is not None:
        versions = ", ".join(map(str, again["folded"]))
        typer.echo(f"  folded again without it: what version {versions} learned")
        typer.echo(
            f"  version {again['result']['version']}: {again['result']['decision']['reason']}"
        )
    elif found["remains"]:
        reason = "" if again is None else f"{again['reason']}; "
        typer.echo(f"  what remains: {reason}{found['remains']}")
