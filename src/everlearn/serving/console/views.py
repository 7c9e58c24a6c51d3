"""What each page shows: figures of the workspace, made ready for its template."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from everlearn.base import Json, NotFoundError
from everlearn.evaluation.outcomes import ZERO_ONE
from everlearn.evaluation.sequences import Moments
from everlearn.jobs import transfer
from everlearn.jobs.update import Updates
from everlearn.registry.registry import Registry
from everlearn.rollout import store
from everlearn.rollout.explain import Explanations
from everlearn.rollout.judge import QUESTIONS, Arm, Seen, judge
from everlearn.rollout.rollouts import Rollouts, stage_of, with_traffic
from everlearn.rollout.store import Rollout
from everlearn.serving.console import queries
from everlearn.serving.console.answers import Answers, blocks, sequence
from everlearn.serving.console.drawings import (
    flow_chart,
    period_name,
    quality_chart,
    sequence_chart,
    transfer_map,
    version_chart,
    version_graph,
)
from everlearn.serving.console.explained import explained
from everlearn.serving.console.frozen import Frozen
from everlearn.serving.console.paging import page_of
from everlearn.serving.console.words import title_of

GRAPH = 40
"""Versions in a graph."""

SOME = 8
"""Rows of a list on the page of a model."""

MARKS = 4
"""Triggers that fired, of those in the chart of quality, whose evidence is shown below it."""

LISTS: dict[str, tuple[Callable[..., list[Json]], str]] = {
    "versions": (queries.versions, "number"),
    "jobs": (queries.jobs, "id"),
    "triggers": (queries.triggers, "id"),
    "rollouts": (queries.rollouts, "id"),
    "moves": (queries.moves, "id"),
    "quarantine": (queries.quarantine, "at"),
    "set-aside": (queries.set_aside, "id"),
}
"""Name of a list → what reads it, and what its rows are ordered by."""


@dataclass
class Source:
    """Where the figures come from.

    Args:
        registry, updates, rollouts, explanations: of the workspace.
        names: of the models that the server answers for.
        served: name of a model → the version that this server answers with.
    """

    registry: Registry
    updates: Updates
    rollouts: Rollouts
    explanations: Explanations
    names: Sequence[str]
    served: Callable[[str], int]
    answers: dict[str, Answers] = field(default_factory=dict)

    def answers_of(self, name: str) -> Answers:
        """What is known of the model's labelled answers."""
        if name not in self.answers:
            log, frozen = self.updates.log(name), Frozen(self.registry, name)
            self.answers.setdefault(name, Answers(self.registry.database, log, frozen))
        return self.answers[name]

    def check(self, name: str) -> None:
        """Raise `NotFoundError` if this server does not answer for the model of this name."""
        if name not in self.names:
            raise NotFoundError(f"there is no model {name!r} here")


def overview(source: Source, only: str | None) -> Json:
    """All models; or one, for who may see only that."""
    names = [name for name in source.names if only in (None, name)]
    with source.registry.database.read() as connection:
        models = queries.overview(connection, names)
    for one in models:
        one["serving"] = source.served(one["name"])
    return {"models": models}


def model(source: Source, name: str) -> Json:
    """One model: what serves and why, quality, feedback, and the newest of each list."""
    source.check(name)
    answers = source.answers_of(name)
    rows = answers.read()
    with source.registry.database.read() as connection:
        shown: dict[str, Any] = {
            "move": queries.last_move(connection, name),
            "versions": queries.versions(connection, name, limit=GRAPH),
            "jobs": queries.jobs(connection, name, limit=SOME),
            "triggers": queries.triggers(connection, name, limit=SOME),
            "rollouts": queries.rollouts(connection, name, limit=4),
            "moves": queries.moves(connection, name, limit=SOME),
            "quarantine": queries.quarantine(connection, name, limit=SOME),
            "set_aside": queries.set_aside(connection, name, limit=SOME),
            "aside_count": queries.aside_count(connection, name),
            "review": queries.reviewing(connection, name),
            "repair": queries.repairs(connection, name),
        }
    running = source.rollouts.running(name)
    parts, flow = blocks(rows), answers.flow(time.time_ns() // 1000)
    with source.registry.database.read() as connection:
        fired = queries.fired(connection, name, parts[0].at) if parts else []
    champion = None if shown["move"] is None else shown["move"]["version_to"]
    return shown | {
        "model": name,
        "transfer": transferred(source, name, champion),
        "serving": source.served(name),
        "labels": source.updates.log(name).head(),
        "unlearned": source.updates.unlearned(name),
        "metric": title_of(answers.metric),
        "answers": len(rows),
        "recent": parts[-1] if parts else None,
        "quality": quality_chart(name, parts, answers.metric, fired),
        "fired": fired[:MARKS],
        "frozen": answers.frozen.number if any(p.frozen is not None for p in parts) else None,
        "by_version": version_chart(shown["versions"]),
        "flow": flow,
        "flow_chart": flow_chart(flow) if flow else "",
        "graph": version_graph(name, shown["versions"]),
        "graphed": len(shown["versions"]),
        "versions": shown["versions"][:SOME],
        "trial": None if running is None else trial(source, name, running),
    }


def listed(source: Source, name: str, what: str, before: int) -> Json:
    """One page of a list."""
    source.check(name)
    read, key = LISTS[what]
    with source.registry.database.read() as connection:
        rows = read(connection, name, before, queries.PAGE + 1)
    shown: dict[str, Json] = {"model": name, "what": what}
    shown |= page_of(rows, key, first=before >= queries.MOST)
    if what == "versions":
        rows = shown["rows"]
        shown |= {"graph": version_graph(name, rows), "by_version": version_chart(rows)}
    return shown


def job(source: Source, name: str, number: int) -> Json:
    """One job: what it was to learn, who asked for it, and what came of it."""
    source.check(name)
    with source.registry.database.read() as connection:
        found = queries.job(connection, name, number)
        if found is None:
            raise NotFoundError(f"model {name!r} has no job {number}")
    plan = found.pop("plan") or {}
    slices = [
        {key: one.get(key) for key in ("source", "kind", "start", "stop", "rows")}
        for one in plan.get("slices", ())[: queries.PAGE]
    ]
    more = len(plan.get("slices", ())) - len(slices)
    return {"model": name, "job": found, "slices": slices, "more": more, "plan": plan}


def version(source: Source, name: str, number: int) -> Json:
    """One version."""
    source.check(name)
    with source.registry.database.read() as connection:
        found = queries.versions(connection, name, number + 1, 1)
        if not found or found[0]["number"] != number:
            raise NotFoundError(f"model {name!r} has no version {number}")
    explanation = source.explanations.explain(name, number, source.updates.log(name))
    metrics = found[0]["metrics"] or {}
    recent = metrics.get("recent") or {}
    figures = {
        "Learned": metrics,
        "Held out": recent.get("candidate") or {},
        "Held out, champion": recent.get("champion") or {},
    }
    names = [key for key, value in metrics.items() if isinstance(value, int | float)]
    return {
        "model": name,
        "version": found[0],
        "it": explained(explanation),
        "transfer": transferred(source, name, number),
        "columns": [key for key, values in figures.items() if values],
        "figures": [
            (title_of(key), [values.get(key) for values in figures.values() if values])
            for key in names
        ],
    }


def transferred(source: Source, name: str, number: int | None) -> Json:
    """What a version learned and what it forgot; None where it was not scored by period."""
    if not number:
        return None
    try:
        with source.registry.database.read() as connection:
            table = transfer.table(connection, name, number)
    except NotFoundError:
        return None
    for period in table["periods"]:
        period["name"] = period_name(period)
    learned = [period for period in table["periods"] if period["forgotten"] is not None]
    worst = max(learned, key=lambda period: float(period["forgotten"]), default=None)
    return table | {
        "title": title_of(table["metric"]),
        "chart": transfer_map(table),
        "worst": worst if worst and worst["forgotten"] > 0 else None,
    }


def rollout(source: Source, name: str, number: int) -> Json:
    """One rollout."""
    source.check(name)
    with source.registry.database.read() as connection:
        found = store.get(connection, name, number)
    return {"model": name, "trial": trial(source, name, found)}


def trial(source: Source, name: str, found: Rollout) -> Json:
    """A rollout in its present stage, or in its last one: what was seen, and what it means."""
    plan, stage = stage_of(found)
    alpha = (1.0 - plan.bounds.level) / (QUESTIONS * len(plan.stages))
    with source.registry.database.read() as connection:
        counted = store.traffic(connection, found.id, found.stage)
        keys = store.keys(connection, found.id, found.stage)
        decisions = store.decisions(connection, found.id)
    seen = with_traffic(_seen(found.seen), counted, keys, stage)
    metric = found.seen.get("metric")
    now = judge(plan, seen, metric == ZERO_ONE)
    evidence = now.evidence
    part = source.answers_of(name).since(found.since, found.ended_at)
    path = sequence(part, alpha, metric == ZERO_ONE)
    if len(path) < 2:
        said = [one["evidence"] for one in decisions if one["stage"] == found.stage]
        path = _said([*said, evidence])
    return {
        "rollout": found,
        "plan": type(plan).__name__,
        "share": stage.share,
        "stages": [one.share for one in plan.stages],
        "bounds": plan.bounds,
        "metric": title_of(metric),
        "now": now,
        "arms": [("candidate", found.candidate, seen.candidate),
                 ("champion", found.champion, seen.champion)],
        "apart": seen.apart,
        "low": evidence["low"],
        "high": evidence["high"],
        "loss_apart": evidence["loss_apart"],
        "labels": evidence["labels"],
        "chart": sequence_chart(path, plan.bounds.margin, evidence),
        "decisions": decisions[::-1],
    }  # fmt: skip


def _said(evidence: Sequence[Json]) -> list[tuple[int, float, float, float]]:
    """The confidence sequence, where decisions were kept."""
    found = {}
    for one in evidence:
        if one.get("labels"):
            low = -math.inf if one["low"] is None else one["low"]
            high = math.inf if one["high"] is None else one["high"]
            found[one["labels"]] = (one["labels"], one["loss_apart"], low, high)
    return [found[labels] for labels in sorted(found)]


def _seen(kept: Json) -> Seen:
    """What a rollout has kept of its stage's labels."""
    found = {
        name: Moments(**{key: kept.get(name, {}).get(key, 0) for key in asdict(Moments())})
        for name in ("candidate", "champion", "apart", "differs")
    }
    return Seen(
        Arm(loss=found["candidate"]),
        Arm(loss=found["champion"]),
        apart=found["apart"],
        differs=found["differs"],
    )
