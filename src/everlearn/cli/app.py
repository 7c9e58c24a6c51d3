"""The program `everlearn`: its global options, and the commands in the order of a first day."""

from __future__ import annotations

from typing import Annotated

import typer

from everlearn import __version__
from everlearn.cli import (
    aliases,
    archive,
    bisect,
    compare,
    excise,
    feedback,
    ingest,
    jobs,
    key,
    patch,
    predict,
    serve,
    show,
    train,
    transfer,
    upkeep,
    versions,
)
from everlearn.cli.output import Settings

app = typer.Typer(
    name="everlearn",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"everlearn {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    workspace: Annotated[
        str,
        typer.Option(
            "--workspace",
            "-w",
            metavar="DIR|URL",
            envvar="EVERLEARN_WORKSPACE",
            help="The folder of the workspace, or the URL of its database.",
        ),
    ] = ".everlearn",
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Models that keep learning: chunk by chunk, exactly once, with versions you can roll back.

    Exit codes: 0 fine (also when there is nothing new), 1 an error, 2 a wrong call, 3 the gate
    refused the candidate, 130 interrupted.
    """
    context.obj = Settings(workspace)


compare.add_to(app)
train.add_to(app)
predict.add_to(app)
serve.add_to(app)
ingest.add_to(app)
feedback.add_to(app)
key.add_to(app)
versions.add_to(app)
show.add_to(app)
transfer.add_to(app)
aliases.add_to(app)
patch.add_to(app)
bisect.add_to(app)
excise.add_to(app)
jobs.add_to(app)
upkeep.add_to(app)
archive.add_to(app)
