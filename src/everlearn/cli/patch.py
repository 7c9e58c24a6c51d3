"""`patch` and `edits`: single answers put right, and taken back."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from everlearn.base import Json
from everlearn.cli.output import (
    AsJson,
    ModelName,
    leave_if_refused,
    opened,
    plain,
    show_json,
    show_table,
    when,
)


class Way(StrEnum):
    """How answers are changed."""

    auto = "auto"
    memory = "memory"
    weights = "weights"


class Action(StrEnum):
    """What is done with edits."""

    list = "list"
    revoke = "revoke"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(patch)
    app.command()(edits)


def patch(
    context: typer.Context,
    model: ModelName,
    edits: Annotated[
        Path,
        typer.Option(
            "--edits",
            metavar="FILE.jsonl",
            help='{"features": {…}, "output": …, "reason": "…"} a line.',
        ),
    ],
    way: Annotated[
        Way,
        typer.Option(help="By exceptions, by the least change of weights, or as each edit needs."),
    ] = Way.auto,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what it would do.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put single answers of the champion right, in seconds, without learning.

    A patched version goes through the model's gate and rollout, as what a job makes does.
    """
    from everlearn.data.imports import records_in

    with opened(context) as workspace:
        repair = workspace.model(model).repair
        found = plain(repair.patch(records_in(edits), dry_run=dry_run, way=way.value))
    if as_json:
        show_json(found)
    else:
        for line in _told(found):
            typer.echo(line)
    leave_if_refused(found["decision"]["action"])


def edits(
    context: typer.Context,
    model: ModelName,
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.list,
    number: Annotated[
        int | None, typer.Argument(metavar="[N]", help="Number of the edit to revoke.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the edits of a model, or take one back: the others are solved again."""
    if (action == Action.revoke) != (number is not None):
        raise typer.BadParameter("revoke takes the number of an edit, and list takes none")
    with opened(context) as workspace:
        repair = workspace.model(model).repair
        found = plain(repair.edits() if number is None else repair.revoke_edit(number))
    if as_json:
        show_json(found)
    elif number is None:
        columns = ("edit#", "state", "wanted", "made", "expires", "author", "reason")
        show_table(columns, [_row(one) for one in found], f"{model} has no edits")
    else:
        typer.echo(_ended(found))


def _row(edit: Json) -> list[str]:
    return [
        str(edit["number"]),
        edit["state"],
        str(edit["output"]),
        when(edit["created_at"]),
        when(edit["expires_at"]),
        edit["author"] or "",
        edit["reason"],
    ]


def _told(found: Json) -> list[str]:
    """What a patch does, in lines for people."""
    report = found["report"]
    by_way = Counter(one["way"] for one in report["ways"])
    ways = {"memory": "by exceptions", "weights": "by a change of weights"}
    told = ", ".join(f"{count} {ways[way]}" for way, count in sorted(by_way.items()))
    near = f"{report['generalisation']:.1%} of rows next to them follow"
    lines = [f"{report['success']:.0%} of {len(report['edits'])} edits hold ({told}); {near}"]
    if found["already"]:
        lines.append(f"{len(found['already'])} more were answered as wanted already")
    if report["locality"] is not None:
        rows = f"{report['reference_rows']:,} other rows"
        lines.append(f"{report['locality']:.2%} of the answers for {rows} stay what they were")
    if report.get("texts"):
        lines.append(_of_texts(report["texts"]))
    for name, rate in report["negative_flips"].items():
        lines.append(f"{rate:.2%} of the {name} hold-outs turn from right to wrong")
    if report["systematic"] and report["systematic"]["found"]:
        lines.append(f"note: {report['systematic']['advice']}")
    lines += [f"note: {one}" for one in report["notes"]]
    return [*lines, f"{_ended(found)} ({report['seconds']:.2f} s)"]


def _of_texts(told: Json) -> str:
    """What becomes of other prompts."""
    if told["locality"] is None:
        return "there are no other prompts by which to see what else is written otherwise"
    rate, rank, layer = told["locality"], told["rank"], told["layer"]
    others = f"{told['prompts']:,} other prompts"
    return f"{rate:.1%} of the answers to {others} stay to the token (rank {rank} in {layer})"


def _ended(found: Json) -> str:
    decision, version = found["decision"], found["version"]
    made = "nothing was changed" if version is None else f"version {version}"
    return f"{made}: {decision['action']}: {decision['reason']}"
