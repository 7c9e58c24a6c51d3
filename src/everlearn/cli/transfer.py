"""`transfer`: what a version learned and what it forgot, period by period."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from everlearn.base import Json
from everlearn.cli.output import AsJson, ModelName, figure, opened, plain, show_json, show_table

SCORES = ("untrained", "before", "after", "best", "now", "forgotten")


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(transfer)


def transfer(
    context: typer.Context,
    model: ModelName,
    version: Annotated[
        int | None, typer.Option("--version", help="Number of the version; else the champion.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="log_loss or accuracy of a classifier, mse or mae of a regressor."),
    ] = None,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Also show the score of every version it came from.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a version learned and what it forgot, for each period of rows held out.

    For each period: the score of an untrained learner, of the version before that period was
    learned, of the one that learned it, the best one until this version, its own score now, and how
    much of the best was forgotten.
    """
    with opened(context) as workspace:
        found = plain(workspace.model(model).transfer(version, metric=metric))
    if as_json:
        show_json(found)
        return
    better = "higher" if found["greater_is_better"] else "lower"
    name = found["metric"]
    typer.echo(f"version {found['version']} of {model}: {name} by period, {better} is better")
    columns = ("period", "from", "to", "rows#", *(f"{name}#" for name in SCORES))
    show_table(columns, [_row(one) for one in found["periods"]], "no period has rows")
    if matrix:
        _show_matrix(found)
    for line in told(found):
        typer.echo(line)


def told(found: Json) -> list[str]:
    """The summary figures, in lines for people."""
    known = found["figures"]
    names = ("average_score", "forgetting", "backward_transfer", "forward_transfer",
             "intransigence")  # fmt: skip
    said = [f"{n.replace('_', ' ')} {figure(known[n])}" for n in names if known[n] is not None]
    lines = [f"over {known['periods']} periods: {', '.join(said)}"] if said else []
    if found["churn"]:
        changed = told_churn(found["churn"])
        lines.append(f"against version {found['base']}, {changed}")
    stability = found["stability"]
    if stability and stability["gap"] is not None:
        lines.append(
            f"stability gap {figure(stability['gap'])}: the worst of {len(stability['during'])} "
            f"looks at {stability['rows']:,} rows of older periods while it learned, against "
            f"{figure(stability['before'])} before"
        )
    return lines + [f"note: {note}" for note in found["notes"]]


def told_churn(churn: Json) -> str:
    """How many answers changed, in words."""
    if churn["mean_change"] is not None:
        return f"answers for {churn['rows']:,} rows changed by {figure(churn['mean_change'])} each"
    text = f"{churn['churn']:.1%} of the answers for {churn['rows']:,} rows changed"
    if churn["negative_flip_rate"] is not None:
        text += f"; {churn['negative_flip_rate']:.1%} were right and are wrong now"
    return text


def period_name(period: Json) -> str:
    """Which increments it holds."""
    one = period["first"] == period["last"]
    return f"{period['first']}" if one else f"{period['first']}–{period['last']}"


def _row(period: Json) -> list[str]:
    name = period_name(period)
    if not period["learned"]:
        name += " (not learned)"
    elif period["new"]:
        name += " (new)"
    scores = (figure(period[one]) for one in SCORES)
    return [name, _day(period["start"]), _day(period["stop"]), figure(period["rows"]), *scores]


def _day(moment: int | None) -> str:
    """An event time: the day, in UTC as it is kept."""
    return "" if moment is None else datetime.fromtimestamp(moment / 1e6, UTC).date().isoformat()


def _show_matrix(found: Json) -> None:
    columns = [f"{period_name(period)}#" for period in found["periods"]]
    rows = [
        [str(number), *(figure(score) for score in scores)]
        for number, scores in zip(
            found["matrix"]["versions"], found["matrix"]["scores"], strict=True
        )
    ]
    show_table(("version#", *columns), rows, "no version has scores by period")
