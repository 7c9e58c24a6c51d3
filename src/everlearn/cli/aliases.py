"""`promote`, `rollback` and `refuse`: which version is served."""

from __future__ import annotations

from typing import Annotated

import typer

from everlearn.base import Json
from everlearn.cli.output import AsJson, ModelName, opened, show_json


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(promote)
    app.command()(rollback)
    app.command()(refuse)


def promote(
    context: typer.Context,
    model: ModelName,
    number: Annotated[int, typer.Argument(metavar="N", help="Number of the version.")],
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "promoted by hand",
    as_json: AsJson = False,
) -> None:
    """Make a version the champion, whatever the gate said of it."""
    with opened(context) as workspace:
        moved = workspace.model(model).promote(number, reason=reason)
    _show(moved, as_json)


def rollback(
    context: typer.Context,
    model: ModelName,
    to: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of the version; the champion before by default."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go back to an earlier champion, with its memory and its position in the log.

    What was learned since is on hold: it is learned again only when that is asked for.
    """
    with opened(context) as workspace:
        moved = workspace.model(model).rollback(to=to)
    _show(moved, as_json)


def refuse(
    context: typer.Context,
    model: ModelName,
    version: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of the candidate; whichever catches up by default."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "refused by hand",
    as_json: AsJson = False,
) -> None:
    """Have a retrained candidate catch up no more with what is learned online.

    The live model goes on. The next job begins from the champion, with the same labels.
    """
    with opened(context) as workspace:
        decision = workspace.model(model).refuse(version, reason=reason)
    if as_json:
        show_json(decision)
    else:
        typer.echo(f"version {decision['evidence']['version']} is refused: {decision['reason']}")


def _show(moved: Json, as_json: bool) -> None:
    if as_json:
        show_json(moved)
    else:
        typer.echo(f"champion is now version {moved['version_to']}: {moved['reason']}")
