"""`predict`: what the champion, or another version, answers."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from everlearn.base import InputError
from everlearn.cli.output import ModelName, opened, plain


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(predict)


def predict(
    context: typer.Context,
    model: ModelName,
    rows: Annotated[
        str,
        typer.Argument(
            metavar="ROWS",
            help="A file of rows, one JSON object or list of them, or - for JSON lines on stdin.",
        ),
    ],
    version: Annotated[
        int | None, typer.Option(metavar="N", help="Number of the version; the champion if not.")
    ] = None,
) -> None:
    """Predict rows, and print one JSON object a row, in their order."""
    with opened(context) as workspace:
        answers = workspace.model(model).predict(_rows(rows), version=version)
        for answer in answers if isinstance(answers, list) else [answers]:
            typer.echo(json.dumps(plain(answer), ensure_ascii=False))


def _rows(text: str) -> Any:
    """What the argument names: objects where it is JSON, else the name of a file."""
    if text == "-":
        lines = enumerate(sys.stdin, 1)
        return [_object(line, f"line {n} of stdin") for n, line in lines if line.strip()]
    if text.lstrip().startswith(("{", "[")):
        return _object(text, "ROWS")
    return text


def _object(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{name} is not JSON ({error}): {text.strip()[:80]!r}") from None
