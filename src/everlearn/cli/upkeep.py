"""`export`, `import`, `copy`, `backup` and `gc`: moving and keeping what is stored."""

from __future__ import annotations

from typing import Annotated

import typer

from everlearn.base import Json
from everlearn.cli.output import AsJson, ModelName, figure, opened, plain, show_json


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("export")(export)
    app.command("import")(import_version)
    app.command("copy")(copy)
    app.command("backup")(backup)
    app.command("gc")(collect)


def export(
    context: typer.Context,
    model: ModelName,
    number: Annotated[int, typer.Argument(metavar="N", help="Number of the version.")],
    path: Annotated[str, typer.Argument(metavar="FILE", help="The file to write.")],
    as_json: AsJson = False,
) -> None:
    """Write one version, whole, into one file."""
    with opened(context) as workspace:
        workspace.model(model).export(number, path)
    if as_json:
        show_json({"model": model, "number": number, "file": path})
    else:
        typer.echo(f"version {number} of {model} is in {path}")


def import_version(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="FILE", help="A file that `export` wrote.")],
    name: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Add it to the model of this name.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Accept a definition that runs code of its own.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add a version that was exported, after verifying it. It is not promoted."""
    with opened(context, create=True) as workspace:
        found = plain(workspace.import_version(path, name=name, trust=trust))
    if as_json:
        show_json(found)
    else:
        typer.echo(f"{path} is now version {found['number']} of {found['model']}")


def copy(
    context: typer.Context,
    database: Annotated[
        str, typer.Argument(metavar="DATABASE", help="sqlite:///FILE or postgresql+psycopg://…")
    ],
    blobs: Annotated[str, typer.Argument(metavar="BLOBS", help="A folder or s3://bucket/prefix.")],
    as_json: AsJson = False,
) -> None:
    """Copy the whole workspace to another database and blob store, verified."""
    with opened(context) as workspace:
        found = plain(workspace.copy(database, blobs))
    _show(found, f"copied to {database} and {blobs}", as_json)


def backup(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
    as_json: AsJson = False,
) -> None:
    """Copy the workspace into a folder while it is in use; the copy is a workspace of its own."""
    with opened(context) as workspace:
        found = plain(workspace.backup(path))
    _show(found, f"everlearn --workspace {path} is the workspace as it was now", as_json)


def collect(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")
    ] = False,
    keep_last: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Drop the states of all but the newest N versions…"),
    ] = None,
    champion_days: Annotated[
        float, typer.Option(min=0.0, metavar="D", help="…that were not champion in D days.")
    ] = 30.0,
    grace: Annotated[
        float, typer.Option(min=0.0, metavar="S", help="Keep blobs younger than S seconds.")
    ] = 86_400.0,
    as_json: AsJson = False,
) -> None:
    """Remove what no version and no job needs.

    All versions are kept, unless --keep-last drops the states of old ones; what an alias points
    at, and what a job starts from, is never dropped.
    """
    with opened(context) as workspace:
        retention = None
        if keep_last is not None:
            from everlearn.registry.retention import Retention

            retention = Retention(last=keep_last, champion_days=champion_days)
        found = plain(workspace.gc(dry_run, retention=retention, grace=grace))
    _show(found, "would be removed" if dry_run else "removed", as_json)


def _show(found: Json, done: str, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    typer.echo(done)
    for name, value in found.items():
        if name == "dropped":
            value = ", ".join(f"{model} {numbers}" for model, numbers in value.items() if numbers)
        elif isinstance(value, dict):
            value = sum(value.values())
        if not isinstance(value, list) and value != "":
            typer.echo(f"  {name.replace('_', ' ')}: {figure(value)}")
