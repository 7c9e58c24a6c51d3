"""`ingest`: events from a stream into the feedback log."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from everlearn.cli.output import AsJson, ModelName, figure, opened, say, show_json, show_table, when


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(ingest)


def ingest(
    context: typer.Context,
    model: ModelName,
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="kafka://HOST:PORT/TOPIC, nats://HOST:PORT/STREAM/SUBJECT or "
            "mqtt://HOST:PORT/TOPIC; ?group=NAME reads it from its start again.",
        ),
    ],
    batch: Annotated[int, typer.Option(min=1, help="Messages in one transaction.")] = 1000,
    linger: Annotated[
        float, typer.Option(min=0.001, metavar="S", help="Log a batch after S seconds anyway.")
    ] = 0.1,
    idle: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="S", help="Stop after S seconds without a message."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Show how far it was read and what was set aside.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Log predictions and labels of a stream, each once, until interrupted.

    A message is one JSON object: {"type": "prediction", "external_id": …, "features": {…},
    "output": …} or {"type": "label", "external_id": …, "value": …}. What cannot be read is set
    aside, with its reason.
    """
    from everlearn.data.streams.address import Address

    with opened(context) as workspace:
        handle = workspace.model(model)
        if show:
            found = handle.ingested(url)
            if as_json:
                show_json(found)
                return
            offsets = ", ".join(f"{part}: {figure(at)}" for part, at in found["offsets"].items())
            typer.echo(f"next offset by partition: {offsets or 'not read yet'}")
            rows = [
                (
                    str(one["partition"]),
                    figure(one["offset"]),
                    figure(one["count"]),
                    when(one["at"]),
                    one["reason"][:200],
                    one["body"][:200],
                )
                for one in found["set_aside"]
            ]
            columns = ("partition#", "offset#", "messages#", "since", "reason", "message")
            show_table(columns, rows, "nothing is set aside")
            return
        with _until_told() as stopped:
            say(f"reading {Address.of(url).name} for {model}; Ctrl-C stops")
            counts = handle.ingest(url, batch=batch, linger=linger, idle=idle, stopped=stopped)
    if as_json:
        show_json(counts)
    else:
        typer.echo(
            f"{figure(counts['predictions'])} predictions, {figure(counts['labels'])} labels, "
            f"{figure(counts['known'])} known before, {figure(counts['set_aside'])} set aside"
        )


@contextmanager
def _until_told() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set: the batch at hand is still logged."""
    told = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: told.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
