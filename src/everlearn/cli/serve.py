"""`serve`: answers over HTTP."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from everlearn.cli.output import opened, say


class LogForm(StrEnum):
    """How the log is written."""

    text = "text"
    json = "json"


class LogLevel(StrEnum):
    """What is logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(serve)


def serve(
    context: typer.Context,
    specs: Annotated[
        list[str],
        typer.Argument(metavar="SPEC.py…", help="Files with model = everlearn.Model(…), or names."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    learn: Annotated[
        bool, typer.Option(help="Also ask triggers and carry out jobs in this process.")
    ] = True,
    log: Annotated[
        LogForm, typer.Option(help="What happens, as text or one JSON object a line.")
    ] = (LogForm.text),
    log_level: Annotated[LogLevel, typer.Option(help="From which level on.")] = LogLevel.warning,
    traces: Annotated[
        bool, typer.Option(help="Send OpenTelemetry traces to OTEL_EXPORTER_OTLP_ENDPOINT.")
    ] = False,
    max_body: Annotated[
        float, typer.Option(min=0.001, metavar="MiB", help="Size of one request; above it: 413.")
    ] = 16.0,
    max_bodies: Annotated[
        float,
        typer.Option(
            min=0.001, metavar="MiB", help="Of all requests that are being answered; above it: 429."
        ),
    ] = 256.0,
    max_head: Annotated[
        int, typer.Option(min=256, metavar="BYTES", help="Of a request's line and headers.")
    ] = 65_536,
    max_rows: Annotated[
        int, typer.Option(min=1, help="Predictions or labels of one request; above it: 413.")
    ] = 10_000,
    max_depth: Annotated[
        int, typer.Option(min=3, max=200, help="Nesting of its JSON; above it: 413.")
    ] = 32,
    rate: Annotated[
        float,
        typer.Option(
            min=0.001, help="Requests a second of one key, or address without keys; above it: 429."
        ),
    ] = 10_000.0,
    burst: Annotated[
        int, typer.Option(min=1, help="Requests of one key that may come at once.")
    ] = 20_000,
    patience: Annotated[
        float,
        typer.Option(
            min=0.1, metavar="SECONDS", help="That a head may take to arrive, and then a body."
        ),
    ] = 30.0,
) -> None:
    """Answer over HTTP, log the answers, take labels, and learn from them when triggers say so."""
    from everlearn.serving.app import serve as answer
    from everlearn.serving.journal import log_as
    from everlearn.serving.limits import Limits
    from everlearn.serving.origin import check_host

    mebibyte = 1 << 20
    limits = Limits(
        body=int(max_body * mebibyte),
        bodies=int(max_bodies * mebibyte),
        head=max_head,
        rows=max_rows,
        depth=max_depth,
        seconds=patience,
        rate=rate,
        burst=burst,
    )
    log_as(log.value, log_level.value)
    with opened(context, create=True) as workspace:
        check_host(host, workspace.keys)
        names = [workspace.model(spec).name for spec in specs]
        say(f"serving {', '.join(names)} at http://{host}:{port}/docs")
        app = workspace.app(names, learn=learn, limits=limits)
        if traces:
            from everlearn.serving.traces import trace

            trace(app)
        answer(app, host, port, limits)
