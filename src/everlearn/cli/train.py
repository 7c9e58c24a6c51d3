"""`train` and `worker`: what learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from everlearn.base import Decision, Json
from everlearn.cli import ERROR, INTERRUPTED
from everlearn.cli.output import (
    SHOWN_METRICS,
    AsJson,
    figure,
    leave_if_refused,
    opened,
    plain,
    say,
    show_json,
)
from everlearn.cli.progress import display
from everlearn.cli.transfer import told_churn

if TYPE_CHECKING:
    from everlearn.jobs.queue import Job
    from everlearn.jobs.result import JobResult


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(train)
    app.command()(worker)


def train(
    context: typer.Context,
    spec: Annotated[
        str, typer.Argument(metavar="SPEC.py", help="A file with model = everlearn.Model(…).")
    ],
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES…", help="CSV, Parquet or Arrow IPC files, or globs of them."),
    ],
    chunk: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Rows learned at a time.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Learn files again that were learned before.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Copy the files into the workspace.")
    ] = False,
    queue: Annotated[
        bool, typer.Option("--queue", help="Only queue the job, for a worker to carry out.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Learn what is new in files, judge the candidate, and promote it if it passes.

    Run again after a kill, it goes on from its last checkpoint. Files that were learned before
    are nothing new; of a file that grew, only the tail is learned.
    """
    with opened(context, create=True) as workspace:
        model = workspace.model(spec)
        if queue:
            _show_queued(model.plan(files, chunk=chunk, again=again, keep=keep), as_json)
            return
        try:
            with display() as progress:
                result = model.train(files, chunk=chunk, again=again, keep=keep, progress=progress)
        except KeyboardInterrupt:
            say("interrupted; run the same command again to go on from the last checkpoint")
            raise typer.Exit(INTERRUPTED) from None
    if as_json:
        show_json(result)
    else:
        for line in _told(result):
            typer.echo(line)
    leave_if_refused(result.decision.action)
    if result.decision.action not in ("promote", "nothing"):  # another process gave the job up
        raise typer.Exit(ERROR)


def _show_queued(planned: int | Decision, as_json: bool) -> None:
    nothing = isinstance(planned, Decision)
    if as_json:
        show_json({"job": None if nothing else planned, "decision": planned if nothing else None})
    else:
        typer.echo(planned.reason if isinstance(planned, Decision) else f"job {planned} is queued")


def _told(result: JobResult) -> list[str]:
    """What a job did, in lines for people."""
    lines: list[str] = []
    if result.resumed_from:
        lines.append(f"went on from a checkpoint, {result.resumed_from:,} rows in")
    for item in result.increments:
        lines.append(_told_increment(plain(item)))
    known = [name for name in SHOWN_METRICS if result.metrics.get(name) is not None]
    if known:
        told = ", ".join(f"{name} {figure(result.metrics[name])}" for name in known)
        lines.append(f"before learning each chunk: {told}")
    lines += _told_transfer(result.metrics.get("transfer"))
    if result.version is not None:
        lines.append(f"version {result.version}: {result.decision.reason}")
    else:
        lines.append(result.decision.reason)
    return lines


def _told_transfer(record: Json) -> list[str]:
    """What was forgotten of older periods, and how many answers changed."""
    if not record:
        return []
    lines = []
    if record["churn"]:
        metric = record["metrics"][0]
        lost = record["figures"][metric]["forgetting"]
        said = [] if lost is None else [f"forgetting of older periods {figure(lost)} of {metric}"]
        lines.append(f"on hold-outs: {'; '.join([*said, told_churn(record['churn'])])}")
    return lines + [f"note: {note}" for note in record["notes"]]


def _told_increment(item: Json) -> str:
    kept = f"{item['source']}: rows {item['start']:,} to {item['stop']:,}, {item['rows']:,} learned"
    for name, words in (
        ("held_out", "held out"),
        ("set_aside", "set aside"),
        ("duplicates", "duplicates"),
    ):
        if item.get(name):
            kept += f", {item[name]:,} {words}"
    for reason, count in (item.get("reasons") or {}).get("set_aside", {}).items():
        kept += f"\n  set aside: {count:,} × {reason}"
    return kept


def worker(
    context: typer.Context,
    once: Annotated[
        bool, typer.Option("--once", help="End when no job is due, rather than wait for more.")
    ] = False,
    traces: Annotated[
        bool, typer.Option(help="Send OpenTelemetry traces to OTEL_EXPORTER_OTLP_ENDPOINT.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run queued jobs, and those that dead workers left, until interrupted."""
    if traces:
        from everlearn.serving.traces import trace_jobs

        trace_jobs()

    def report(job: Job, result: JobResult | None, error: str | None) -> None:
        if as_json:
            show_json({"job": job.id, "model": job.model, "result": result, "error": error})
        elif result is None:
            say(f"job {job.id} ({job.model}): {error}")
        else:
            typer.echo(f"job {job.id} ({job.model}): {result.decision.reason}")

    with opened(context, create=True) as workspace:
        try:
            attempts = workspace.work(once=once, report=report)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
    say(f"{attempts} attempts")
