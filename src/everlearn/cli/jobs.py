"""`job list|show|retry|skip`: the queue."""

from __future__ import annotations

from typing import Annotated

import typer

from everlearn.base import Json
from everlearn.cli.output import AsJson, figure, opened, plain, show_json, show_table, when

JobId = Annotated[int, typer.Argument(metavar="ID", help="Number of the job.")]

job = typer.Typer(no_args_is_help=True, help="Look at jobs, and decide about those that failed.")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(job, name="job")


@job.command("list")
def list_jobs(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Only the jobs of this model.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs, oldest first."""
    with opened(context) as workspace:
        found: list[Json] = plain(workspace.jobs(model))
    if as_json:
        show_json(found)
        return
    columns = ("id#", "model", "state", "from#", "version#", "attempts#", "made", "ended", "what")
    show_table(columns, [_row(item) for item in found], "there are no jobs")


def _row(item: Json) -> list[str]:
    told = item["error"] or (item["decision"] or {}).get("reason") or ""
    return [
        str(item["id"]),
        item["model"],
        item["state"],
        str(item["base_version"] or ""),
        str(item["version"] or ""),
        str(item["attempts"]),
        when(item["created_at"]),
        when(item["finished_at"]),
        told.strip().splitlines()[-1] if told else "",
    ]


@job.command()
def show(context: typer.Context, number: JobId, as_json: AsJson = False) -> None:
    """Show one job: its input, how far it is, and how it ended."""
    with opened(context) as workspace:
        found = plain(workspace.job(number))
    if as_json:
        show_json(found)
        return
    for name, value in found.items():
        if name.endswith("_at") or name == "lease_until":
            value = when(value)
        elif name == "decision" and value:
            value = f"{value['action']}: {value['reason']}"
        elif name == "increment":
            value = "".join(
                f"\n  {item['source']}: rows {figure(item['start'])} to {figure(item['stop'])}"
                for item in value
            )
        typer.echo(f"{name.replace('_', ' ')}: {'' if value is None else value}")


@job.command()
def retry(context: typer.Context, number: JobId, as_json: AsJson = False) -> None:
    """Queue a failed or dead job again; it goes on from its last checkpoint."""
    with opened(context) as workspace:
        workspace.retry(number)
        found = plain(workspace.job(number))
    _tell(found, as_json)


@job.command()
def skip(
    context: typer.Context,
    number: JobId,
    reason: Annotated[str, typer.Option(help="Kept with the job.")] = "skipped by hand",
    as_json: AsJson = False,
) -> None:
    """Give up a job that is not running: its increment is not learned."""
    with opened(context) as workspace:
        workspace.skip(number, reason)
        found = plain(workspace.job(number))
    _tell(found, as_json)


def _tell(found: Json, as_json: bool) -> None:
    if as_json:
        show_json(found)
    else:
        typer.echo(f"job {found['id']} is {found['state']}")
