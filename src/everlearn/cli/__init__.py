"""The command line: commands and how their results are shown; no logic of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

OK, ERROR, USAGE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: fine (also: nothing new), an error, a wrong call, a refused candidate, Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: without the program's name; those of the process by default.
    """
    from everlearn.base import EverlearnError

    try:
        _command()(args=None if arguments is None else list(arguments), prog_name="everlearn")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else OK if end.code is None else ERROR
    except EverlearnError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return ERROR
    return OK


@cache
def _command() -> Any:
    """All commands in one: making it takes longer than many of them do."""
    from typer.main import get_command

    from everlearn.cli.app import app

    return get_command(app)
