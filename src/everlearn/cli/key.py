"""`key create|list|revoke`: who may call the HTTP API."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from everlearn.cli.output import AsJson, opened, plain, say, show_json, show_table, when

key = typer.Typer(no_args_is_help=True, help="Make, list and revoke keys of the HTTP API.")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(key, name="key")


@key.command()
def create(
    context: typer.Context,
    role: Annotated[
        str, typer.Option(help="predict, feedback, review, operate, or admin (all of these).")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The only model that it is for.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The only source that its labels may come from."),
    ] = None,
    note: Annotated[str, typer.Option(help="Whose it is.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a key and print its secret, this once.

    From then on the server answers only requests that bring a key. It may listen on other
    addresses than this machine's own.
    """
    chosen: Any = role
    with opened(context, create=True) as workspace:
        made, secret = workspace.keys.create(chosen, model, note, source)
    if as_json:
        show_json(made.to_json() | {"secret": secret})
        return
    say(f"key {made.id}, role {made.role}; this is shown only now. Send it as")
    say("Authorization: Bearer SECRET")
    typer.echo(secret)


@key.command("list")
def list_keys(context: typer.Context, as_json: AsJson = False) -> None:
    """List all keys, oldest first; those that were revoked stay in the list."""
    with opened(context) as workspace:
        found = plain(workspace.keys.listed())
    if as_json:
        show_json(found)
        return
    columns = ("id#", "secret", "role", "model", "source", "note", "made", "revoked")
    rows = [
        [
            str(item["id"]),
            f"{item['hint']}…",
            item["role"],
            item["model"] or "all",
            item["source"] or "any",
            item["note"],
            when(item["created_at"]),
            when(item["revoked_at"]),
        ]
        for item in found
    ]
    show_table(columns, rows, "there are no keys: only this machine may call the API")


@key.command()
def revoke(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="ID", help="Number of the key.")],
    as_json: AsJson = False,
) -> None:
    """Make a key worthless, for good; servers notice within 5 seconds."""
    with opened(context) as workspace:
        gone = workspace.keys.revoke(number)
    if as_json:
        show_json(gone.to_json())
    else:
        typer.echo(f"key {gone.id} ({gone.hint}…, {gone.role}) is revoked")
