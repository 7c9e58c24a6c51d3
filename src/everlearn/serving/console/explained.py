"""What the page of a version shows of its explanation."""

from __future__ import annotations

from typing import Any

from everlearn.base import Json
from everlearn.serving.console.charts import bars, facing_bars
from everlearn.serving.console.drawings import period_name
from everlearn.serving.console.words import figure

CLASSES = 12
"""Classes up to which the share of each is shown, source by source."""

FEATURES = 12
"""Columns of a row that flipped that are shown at once."""


def explained(found: Json) -> Json:
    """An explanation, made ready for its template.

    Args:
        found: see `Explanations.explain`.
    """
    return {
        "created_at": found["created_at"],
        "made": found["made"],
        "against": found["against"],
        "definition": found["definition"],
        "repair": found["repair"],
        "increments": found["increments"],
        "learned": _learned(found["learned"]),
        "changed": _changed(found["predictions"]),
        "admission": found["admission"],
    }


def _learned(learned: Json) -> Json:
    if "why_not" in learned:
        return learned
    times = learned["times"]
    chart: Any = ""
    if len(times) > 1:
        names = [f"{one['start'][:16]} to {one['stop'][:16]}".replace("T", " ") for one in times]
        counts = [one["learned"] for one in times]
        ends = times[0]["start"][:10], times[-1]["stop"][:10]
        chart = bars("Rows learned by event time", counts, [ends[0], *names[1:]], ends[1])
    classes = [one["value"] for one in learned["classes"]]
    many = learned["classes"] if len(classes) > CLASSES else []
    classes = [] if many else classes
    sources = [one | {"shares": _shares(one, classes)} for one in learned["sources"]]
    reviewed = any(one["reviewer"] for one in sources)
    shown = {"chart": chart, "classes": classes, "many": many}
    return learned | shown | {"sources": sources, "reviewed": reviewed}


def _shares(source: Json, classes: list[Json]) -> list[str]:
    """The share of each class among the rows of a source that were learned."""
    of = {one["value"]: one["rows"] for one in source["classes"]}
    return [f"{of.get(value, 0) / (source['learned'] or 1):.0%}" for value in classes]


def _changed(changed: Json) -> Json:
    if "why_not" in changed:
        return changed
    names = [period_name(one) for one in changed["periods"]]
    words = ("wrong before, right now", "right before, wrong now")
    if changed["tolerance"] is not None:
        words = ("better", "worse")
    up, down = ([one[kind] for one in changed["periods"]] for kind in ("won", "lost"))
    chart = ""
    if len(names) > 1 and changed["lost"] + changed["won"]:
        chart = facing_bars("Answers that flipped by period", names, up, down, words)
    return changed | {
        "chart": chart,
        "words": dict(zip(("won", "lost"), words, strict=True)),
        "samples": [_sample(one) for one in changed["samples"]],
    }


def _sample(one: Json) -> Json:
    """A row that flipped: its answers and its features as texts."""
    features = [(name, _text(value)) for name, value in one["features"].items()]
    shown: dict[str, Json] = {name: _text(one[name]) for name in ("truth", "before", "after")}
    shown |= {"features": features[:FEATURES], "more": max(0, len(features) - FEATURES)}
    return one | shown


def _text(value: Json) -> str:
    return figure(value) if isinstance(value, float) or value is None else str(value)
