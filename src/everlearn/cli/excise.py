"""`excise` and `withdrawals`: rows taken out of what a model learned."""

from __future__ import annotations

from typing import Annotated

import typer

from everlearn.base import Json
from everlearn.cli.output import (
    AsJson,
    ModelName,
    figure,
    leave_if_refused,
    opened,
    plain,
    show_json,
    show_table,
    when,
)
from everlearn.cli.progress import display
from everlearn.cli.transfer import told_churn


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(excise)
    app.command()(withdrawals)


def excise(
    context: typer.Context,
    model: ModelName,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Rows for which it holds: \"source = 'bot-7' and time >= '2024-03-01'\".",
        ),
    ] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE:FROM-TO", help="Rows by their numbers, both included."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Rows of one user, machine, ….")
    ] = None,
    induced_by: Annotated[
        int | None,
        typer.Option(metavar="N", help="Labels of predictions that version N answered."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Kept with the withdrawal.")] = "withdrawn by hand",
    author: Annotated[str | None, typer.Option(help="Whose decision it is.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    queue: Annotated[bool, typer.Option("--queue", help="Leave the job to a worker.")] = False,
    as_json: AsJson = False,
) -> None:
    """Withdraw rows, and fold again without them what the champion learned.

    The increments since the last version that never had the rows are learned again as their jobs
    did; the result is bit-equal to a fold that never had them, is judged once, and takes the
    champion's place. Versions that learned the rows cannot become champion again.
    """
    with opened(context) as workspace, display() as progress:
        found = plain(
            workspace.model(model).repair.excise(
                where=where,
                rows=rows,
                key=key,
                induced_by=induced_by,
                reason=reason,
                author=author,
                dry_run=dry_run,
                queue=queue,
                progress=progress,
            )
        )
    if as_json:
        show_json(found)
    else:
        for line in told(found):
            typer.echo(line)
    if found["result"]:
        leave_if_refused(found["result"]["decision"]["action"])


def told(found: Json) -> list[str]:
    """What an excision did, in lines for people."""
    waits = found["not_learned"]
    lines = [
        f"{figure(found['rows'])} rows"
        + (f", {figure(waits)} of them not learned yet" if waits else "")
        + (": would be withdrawn" if found["withdrawal"] is None else " withdrawn")
        + ("" if found["withdrawal"] is None else f" (withdrawal {found['withdrawal']})")
    ]
    for one in found["learned_from_it"]:
        beside = "" if one["serves"] else ", beside the champion"
        source = one["source"]
        held = f", held out {figure(one['held_out'])}" if one["held_out"] else ""
        lines.append(
            f"  version {one['version']} learned {figure(one['rows'])} of {source}{held}{beside}"
        )
    if found["marked"]:
        lines.append(f"  cannot become champion again: version {_numbers(found['marked'])}")
    if found["passed_over"]:
        numbers = _numbers(found["passed_over"])
        lines.append(f"  not looked at, for it was learned in another workspace: version {numbers}")
    for one in found["not_read"]:
        lines.append(f"  not looked at, and marked: version {one['version']}: {one['reason']}")
    if not found["folded"]:
        return [*lines, "nothing to fold again: the champion has learned none of them"]
    base = "nothing" if found["base"] is None else f"version {found['base']}"
    lines.append(
        f"from {base} on {figure(found['rows_folded'])} rows are folded again: what version"
        f" {_numbers(found['folded'])} learned"
    )
    result = found["result"]
    if result is None:
        job = found["job"]
        return [*lines, f"job {job} is queued"] if job is not None else lines
    if (found["diff"] or {}).get("churn"):
        lines.append(f"against the champion before: {told_churn(found['diff']['churn'])}")
    made = "" if result["version"] is None else f"version {result['version']}: "
    return [*lines, made + result["decision"]["reason"]]


def _numbers(versions: list[int]) -> str:
    return ", ".join(map(str, versions))


def withdrawals(context: typer.Context, model: ModelName, as_json: AsJson = False) -> None:
    """List what was withdrawn, oldest first."""
    with opened(context) as workspace:
        found: list[Json] = workspace.model(model).repair.withdrawals()
    if as_json:
        show_json(found)
        return
    rows = [
        [
            str(one["number"]),
            when(one["at"]),
            figure(one["rows"]),
            str(one["job_id"] or ""),
            one["author"] or "",
            _asked(one["condition"]),
            one["reason"],
        ]
        for one in found
    ]
    columns = ("number#", "at", "rows#", "job#", "author", "rows that", "reason")
    show_table(columns, rows, "nothing was withdrawn")


def _asked(condition: Json) -> str:
    """Which rows were asked for, in a line."""
    ((name, value),) = condition.items()
    if name in ("where", "erased"):
        return str(value)
    if name == "rows":
        return ", ".join(f"{source}:{first}-{last}" for source, first, last in value)
    return f"{name.replace('_', ' ')} {value}"
