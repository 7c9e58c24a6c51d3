"""`compare`: which retraining strategy suits my data, and what does it cost?"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from everlearn.base import Schema
from everlearn.cli.output import AsJson, say, show_json


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(compare)


def compare(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="The history: CSV, Parquet, Arrow IPC.")
    ],
    target: Annotated[
        str | None, typer.Option(metavar="COL", help="Column to predict; that of --spec if not.")
    ] = None,
    spec: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py",
            help="A file that defines a model: its schema and learner, and its strategy as own.",
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(metavar="COL", help="Column of event times; the order of the rows if not."),
    ] = None,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Where results.csv, results.json, report.html go.")
    ] = "comparison",
    label_time: Annotated[
        str | None,
        typer.Option(metavar="COL", help="Column of times at which labels became known."),
    ] = None,
    label_delay: Annotated[
        str | None, typer.Option(metavar="2h|1d|1s", help="Or: labels are known so much later.")
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(metavar="7d|5000rows", help="Period between retrainings; chosen if not said."),
    ] = None,
    tick: Annotated[
        str | None,
        typer.Option(metavar="1h", help="How often what learns in chunks takes labels online; 1h."),
    ] = None,
    strategies: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="Of never, batch, window, incremental, replay, online, hybrid (all by default), "
            "own with --spec; or parts, as EWC(100)+Reservoir(2000).",
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(metavar="PARTS", help="One more, as LwF or SI(0.5)+Balanced(2000)."),
    ] = None,
    learner: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|IMPORT.PATH",
            help="What learns: logistic, linear, tree, forest, auto (these together; if not said), "
            "or another name.",
        ),
    ] = None,
    identity: Annotated[
        str | None, typer.Option("--id", metavar="COL", help="Column that identifies a row.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="COL", help="Column of the entity a row belongs to.")
    ] = None,
    numeric: Annotated[
        str | None, typer.Option(metavar="COL,…", help="Columns to read as numbers.")
    ] = None,
    categorical: Annotated[
        str | None, typer.Option(metavar="COL,…", help="Columns to read as categories.")
    ] = None,
    ignore: Annotated[
        str | None, typer.Option(metavar="COL,…", help="Columns that are no features.")
    ] = None,
    price_cpu_hour: Annotated[
        float | None, typer.Option(min=0.0, metavar="PRICE", help="Of an hour of one CPU.")
    ] = None,
    price_error: Annotated[
        float | None, typer.Option(min=0.0, metavar="PRICE", help="Of one wrong answer.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Rank by log_loss, accuracy or brier; mae."),
    ] = None,
    warmup: Annotated[
        int, typer.Option(min=1, metavar="N", help="Periods to warm up, which are not scored.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, metavar="N")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes; one a core by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay history in time order under every strategy, and report quality and cost.

    Nothing learns from a label before it was known. Writes results.csv, results.json and one
    self-contained report.html, and prints the table.
    """
    from everlearn.compare.compare import compare as replay
    from everlearn.compare.named import split

    said: dict[str, Any] = {
        "target": target,
        "time": time,
        "label_time": label_time,
        "id": identity,
        "key": key,
        "numeric": _listed(numeric),
        "categorical": _listed(categorical),
        "ignore": _listed(ignore),
    }
    schema = Schema(**{name: value for name, value in said.items() if value})
    if spec is None and target is None:
        raise typer.BadParameter("say --target COL, or --spec FILE.py whose model names it")
    if spec is not None:
        from everlearn.registry.spec import load_spec

        known = load_spec(spec)[0].schema
        schema = replace(known, **{name: value for name, value in said.items() if value})
    named = [*split(strategies or ""), *(strategy or ())]
    results = replay(
        files[0] if len(files) == 1 else files,
        schema,
        spec=spec,
        every=every,
        tick=tick,
        strategies=named or None,
        learner=learner,
        seed=seed,
        label_delay=label_delay,
        price_cpu_hour=price_cpu_hour,
        price_error=price_error,
        metric=metric,
        warmup=warmup,
        out=out,
        workers=workers,
        progress=say,
    )
    if as_json:
        show_json(results)
    else:
        from everlearn.compare.table import show

        show(results)


def _listed(text: str | None) -> tuple[str, ...]:
    """The words between commas."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())
