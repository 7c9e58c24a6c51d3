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
) -> None:
    """Answer over HTTP, log the answers, take labels, and learn from them when triggers say so."""
    from everlearn.serving.access import check_host
    from everlearn.serving.app import serve as answer
    from everlearn.serving.journal import log_as

    log_as(log.value, log_level.value)
    with opened(context, create=True) as workspace:
        check_host(host, workspace.keys)
        names = [workspace.model(spec).name for spec in specs]
        say(f"serving {', '.join(names)} at http://{host}:{port}/docs")
        app = workspace.app(names, learn=learn)
        if traces:
            from everlearn.serving.traces import trace

            trace(app)
        answer(app, host, port)
