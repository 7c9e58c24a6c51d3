"""`compare`: which retraining strategy suits this data, and what does it cost?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from everlearn.base import InputError, Model, Schema
from everlearn.compare.advice import advise, choose
from everlearn.compare.history import History
from everlearn.compare.loader import load_history
from everlearn.compare.oracle import optimal_schedule, schedule_cost
from everlearn.compare.processes import run_all
from everlearn.compare.replay import prepare
from everlearn.compare.results import Hindsight, Results
from everlearn.compare.run import Run
from everlearn.compare.scores import Scale, baselines, price, rank, score
from everlearn.compare.strategies import Plan, as_code, as_jobs, make_plans
from everlearn.compare.worker import Task
from everlearn.evaluation.class_order import cannot_help, class_order
from everlearn.registry.spec import load_spec
from everlearn.strategies.strategy import Strategy

Say = Callable[[str], None]


def compare(
    data: Any,
    schema: Schema | None = None,
    *,
    spec: str | os.PathLike[str] | Model | None = None,
    every: str | None = None,
    tick: str | None = None,
    strategies: Any = None,
    learner: Any = None,
    seed: int = 0,
    label_delay: str | None = None,
    price_cpu_hour: float | None = None,
    price_error: float | None = None,
    metric: str | None = None,
    warmup: int = 1,
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: Say | None = None,
) -> Results:
    """Replay a history in time order under every strategy, and say what each is worth.

    A strategy is scored as a composite model: at each moment by the version that would have been
    serving then. Nothing learns from a label before it was known: at t, the labels with
    label_time ≤ t of rows with time < t. The first period is warm-up and is not scored.

    Args:
        data: a path, a glob, a frame, a table: whatever a job can learn from.
        schema: target and time, and what else is known about the columns. Without a time the rows
            are taken in their order, and a label is known when the next row comes. That of the
            model of `spec` if None.
        spec: a file that defines a model, or a `Model`: its learner learns, and its strategy is
            compared too, as "own"; chunk and passes of strategies named by text are those of it.
        every: period between updates, "7d" or "5000rows"; None chooses about 50 periods.
        tick: how often a learner that learns in chunks takes in new labels online; one hour if
            not said. Learners that learn row by row take each label as soon as it is known.
        strategies: names, parts such as "EWC(100)+Reservoir(2000)", `Strategy` objects, or a
            mapping of names to these; None for the seven built-in ones.
        learner: as in `Model`; None for that of `spec`, or the default learner.
        seed: of all randomness of the built-in strategies; a `Strategy` has its own.
        label_delay: how long after its event a label is known, where the schema has no label_time.
        price_cpu_hour: of an hour of one CPU, in money.
        price_error: of one wrong class, or of one unit of absolute error. With both prices results
            are also in money, and the schedule that is best in hindsight is found.
        metric: by which strategies are ranked: log_loss (default), accuracy or brier; mae.
        warmup: periods that are not scored; more are taken if too few labels are known by then.
        out: folder for results.csv, results.json and report.html; None writes nothing.
        workers: processes at a time, of which each strategy has one of its own; None for one a
            core. 0 runs all in this process, one after the other: nothing is started, but the peak
            memory of a strategy cannot be told.
        progress: called with lines for people.

    Raises:
        InputError: data or settings that cannot be compared on.
        SpecError: a learner or a strategy that cannot learn from this data.
    """
    say = progress or (lambda line: None)
    model, source = _defined(spec)
    if model is not None:
        schema, learner = schema or model.schema, model.learner if learner is None else learner
    if schema is None or schema.target is None:
        raise InputError("name the target: Schema(target=…), or that of a spec file's model")
    plans = make_plans(strategies, seed, None if model is None else model.strategy or Strategy())
    prices = _prices(price_cpu_hour, price_error)
    history = load_history(
        data,
        schema,
        every=every,
        tick=tick,
        label_delay=label_delay,
        warmup=warmup,
        learner=learner,
    )
    say(_read(history))
    folder = None if out is None else _made(out)
    by_row = prepare(history, learner)
    task = Task(tuple(plans), learner, schema.classes, _oracle_plan(plans, prices), source)
    runs, apart = run_all(history, task, _cores() if workers is None else workers, _Lines(say))
    results = _judge(history, task, runs, metric, prices)
    _warn(results, plans, history)
    results.notes += _notes(history, plans, schema, label_delay, prices, apart)
    results.settings |= _settings(history, schema, label_delay, learner, seed, by_row)
    if folder is not None:
        _write(results, folder, say)
    return results


def _judge(
    history: History,
    task: Task,
    runs: list[Run],
    metric: str | None,
    prices: tuple[float, float] | None,
) -> Results:
    """Scores, ranks, money, the best schedule, and what to choose."""
    scale = Scale.of(history, metric, all(run.proba is not None for run in runs))
    scores = [score(run, plan, scale) for run, plan in zip(runs, task.plans, strict=True)]
    best = rank(scores, runs, scale)
    if prices is not None:
        price(scores, runs, scale, *prices)
    line = history.timeline
    for given, plan in zip(scores, task.plans, strict=True):
        strategy = as_jobs(plan, line.every)
        given.code = "" if strategy is None else as_code(strategy)
    count = int(scale.period.max()) + 1
    results = Results(
        scores=scores,
        best=best,
        choice=best,
        advice=[],
        metric=scale.metric,
        kind=history.kind,
        unit=line.unit,
        starts=line.edges[line.warmup : line.warmup + count],
        rows_in_period=np.bincount(scale.period, minlength=count),
        baselines=baselines(history),
        settings={},
        hindsight=_hindsight(history, runs, prices),
    )
    results.choice = choose(results)
    results.advice = advise(results)
    return results


def _defined(spec: str | os.PathLike[str] | Model | None) -> tuple[Model | None, str | None]:
    """A spec file's model and text; a model as it is."""
    if spec is None or isinstance(spec, Model):
        return spec, None
    return load_spec(spec)


def _warn(results: Results, plans: list[Plan], history: History) -> None:
    """Say of each strategy where it cannot help: in its score, and among the notes."""
    if history.codes is None:
        return
    line = history.timeline
    events = np.arange(len(history))
    period = line.period_of(events)
    counts = np.zeros((int(period.max()) + 1, len(history.classes)), np.int64)
    np.add.at(counts, (period, history.truth()), 1)
    warmed = np.vstack([counts[: line.warmup].sum(axis=0, keepdims=True), counts[line.warmup :]])
    order = class_order(warmed)
    for given, plan in zip(results.scores, plans, strict=True):
        if plan.rows == "new":
            given.cannot = cannot_help(plan.strategy, order)
    flagged = [given.name for given in results.scores if given.cannot]
    if flagged:
        results.notes.append(f"{', '.join(flagged)} alone cannot help here: {order.why}.")
    if results.choice in flagged:
        results.advice.append(
            f"But {results.choice} alone will not keep the old classes apart (see the notes): also "
            f"compare it with a memory, as {results.choice}+Reservoir(5000)."
        )


def _hindsight(
    history: History, runs: list[Run], prices: tuple[float, float] | None
) -> Hindsight | None:
    """The best schedule of full retrainings, over the errors of each version in each period."""
    run = next((run for run in runs if run.serving is not None), None)
    if run is None or prices is None or run.serving is None:
        return None
    edges = history.timeline.edges_to_learn()
    retraining = np.zeros(len(edges))
    place = np.searchsorted(edges, run.update_moments)
    retraining[place] = run.update_seconds * prices[0] / 3600.0
    serving = run.serving * prices[1]
    for version in range(1, len(edges)):  # nothing new was known: the same model as before
        if version not in place:
            serving[version, version:] = serving[version - 1, version:]
    schedule = optimal_schedule(serving, retraining)
    every = tuple(range(len(edges)))
    return Hindsight(
        cost=schedule.cost,
        retrain_at=tuple(int(edges[at]) for at in schedule.retrain_at),
        periodic_cost=schedule_cost(serving, retraining, every),
        never_cost=schedule_cost(serving, retraining, (0,)),
    )


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _prices(cpu_hour: float | None, error: float | None) -> tuple[float, float] | None:
    if cpu_hour is None and error is None:
        return None
    for name, value in (("price_cpu_hour", cpu_hour), ("price_error", error)):
        if value is None:
            raise InputError(f"{name} is missing: give both prices, price_cpu_hour and price_error")
        if not 0.0 <= value < float("inf"):
            raise InputError(f"{name}={value}: a price is a finite number, 0 or more")
    assert cpu_hour is not None and error is not None
    return cpu_hour, error


def _oracle_plan(plans: list[Plan], prices: tuple[float, float] | None) -> str | None:
    if prices is None:
        return None
    return next((p.name for p in plans if p.when == "period" and p.rows == "all"), None)


class _Lines:
    """Progress as lines: each strategy at most every two seconds, and at its end."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.last: dict[str, float] = {}

    def __call__(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self.last.get(name, now - 9.0) < 2.0:
            return
        self.last[name] = now
        share = "done" if done >= total else f"{done / total:.0%}"
        self.say(f"{name}: {share}, {done:,} of {total:,} answers")


def _read(history: History) -> str:
    line = history.timeline
    columns = history.columns
    kinds = (columns.numbers, columns.categories, columns.times, columns.texts)
    return (
        f"{len(history):,} rows of {sum(map(len, kinds))} features, "
        f"{len(line.edges) - 1} periods of {line.every}, "
        f"{line.warmup} of them to warm up"
    )


def _notes(
    history: History,
    plans: list[Plan],
    schema: Schema,
    label_delay: str | None,
    prices: tuple[float, float] | None,
    apart: bool,
) -> list[str]:
    notes = list(history.notes)
    if schema.label_time is None and label_delay is None:
        notes.append(
            "Neither a label time nor a label delay was given, so each label counts as known right "
            "after its event. If labels take longer, these figures are too good, for online most: "
            "say --label-time COLUMN or --label-delay 2h."
        )
    if prices is not None and _oracle_plan(plans, prices) is None:
        notes.append("The best schedule in hindsight needs the strategy batch, which is left out.")
    if not apart:
        notes.append(
            "The strategies ran one after the other in one process, so peak memory is not known."
        )
    return notes


def _settings(
    history: History,
    schema: Schema,
    label_delay: str | None,
    learner: Any,
    seed: int,
    by_row: bool,
) -> dict[str, str]:
    line = history.timeline
    if schema.label_time is not None:
        known = f"column {schema.label_time}"
    else:
        known = f"{label_delay} after the event" if label_delay else "right after the event"
    return {
        "data": ", ".join(Path(source).name for source in history.sources),
        "rows": f"{len(history):,}",
        "target": str(schema.target),
        "event time": schema.time or "the order of the rows",
        "labels known": known,
        "period": f"{line.every} ({len(line.edges) - 1} periods, warm-up {line.warmup})",
        "online learning takes": "every label as soon as it is known"
        if by_row
        else f"the new labels every {line.tick} (its learner learns in chunks)",
        "learner": "auto" if learner is None else str(learner),
        "numbers": ", ".join(history.columns.numbers) or "–",
        "categories": ", ".join(history.columns.categories) or "–",
        "times": ", ".join(history.columns.times) or "–",
        "rows that nothing learns from (for forgetting)": f"{len(history.probes):,}",
        "seed": str(seed),
    }


def _made(out: str | os.PathLike[str]) -> Path:
    """The folder for results, made before anything is replayed."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write results to {str(out)!r}: {error.strerror}") from error
    return folder


def _write(results: Results, folder: Path, say: Say) -> None:
    from everlearn.compare.report import write_report

    results.write_csv(folder / "results.csv")
    results.write_json(folder / "results.json")
    write_report(results, folder / "report.html")
    say(f"report: {folder / 'report.html'}")
