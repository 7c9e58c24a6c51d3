"""The charts of figures that pages show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from everlearn.base import Json
from everlearn.serving.console import words
from everlearn.serving.console.answers import Block, Flow
from everlearn.serving.console.charts import (
    Cell,
    Chart,
    Line,
    Mark,
    Node,
    bars,
    graph,
    heat_map,
)
from everlearn.serving.console.words import ago, figure, moment, title_of


def quality_chart(
    name: str, parts: Sequence[Block], metric: str | None, fired: Sequence[Json]
) -> Any:
    """Mean losses block by block, with the versions that began to serve, and the triggers that
    fired, each with what it decided.

    Args:
        name: of the model.
        fired: decisions of triggers that asked for a job.
    """
    if not parts:
        return ""
    lines = [
        _losses(parts, "naive", "baseline"),
        _losses(parts, "frozen", "first version"),
        *(
            _losses(parts, "candidate", f"candidate {one}", tried=one)
            for one in sorted({part.tried for part in parts if part.tried is not None})
        ),
        _losses(parts, "champion", "served"),
    ]
    ends = moment(parts[0].at), moment(parts[-1].at)
    title = f"{title_of(metric)} of labelled answers over time"
    marks = [*_began(parts), *_fired(name, parts, fired)]
    return Chart(title, lines, marks, x_ends=ends, zero=True).draw()


def _losses(parts: Sequence[Block], kind: str, name: str, tried: int | None = None) -> Line:
    """A line of mean losses; of a candidate, where it was the one on trial."""
    points = [
        (float(part.stop), getattr(part, kind) if tried in (None, part.tried) else None)
        for part in parts
    ]
    titles = []
    for part, (_, y) in zip(parts, points, strict=True):
        who = f"{name}, version {part.version}" if kind == "champion" else name
        titles.append(f"{who}: {figure(y)} · {moment(part.at)}")
    return Line(kind, points, titles)


def _began(parts: Sequence[Block]) -> list[Mark]:
    """Where other versions began to serve."""
    marks, before = [], None
    for part in parts:
        if part.version is not None and part.version != before:
            title = f"version {part.version} serves · {moment(part.at)}"
            marks.append(Mark(part.stop, f"v{part.version}", title))
            before = part.version
    return marks


def _fired(name: str, parts: Sequence[Block], fired: Sequence[Json]) -> list[Mark]:
    """Where triggers fired, within the drawing."""
    marks = []
    for one in sorted(fired, key=lambda one: int(one["at"])):
        after = next((part.stop for part in parts if part.at >= one["at"]), None)
        if after is None or one["at"] < parts[0].at:
            continue
        what = words.trigger(one["name"])
        title = f"{what} · {moment(one['at'])}: {one['reason']}"
        link = f"/console/models/{quote(name, safe='')}/jobs/{one['job_id']}"
        kind = "drift" if what == "drift" else "fired"
        marks.append(Mark(after, what, title, kind, link if one["job_id"] else ""))
    return marks


def version_chart(versions: Sequence[Json]) -> Json:
    """A metric of the versions, on rows held out where they have them, with its baseline; None
    for fewer than two."""
    metric, rows = _figures(versions)
    if len(rows) < 2:
        return None
    lines = []
    for place, kind in ((2, "naive"), (1, "champion")):
        points = [(float(row[0]), row[place]) for row in rows]
        titles = [f"version {row[0]}: {figure(row[place])}" for row in rows]
        lines.append(Line(kind, points, titles))
    ends = f"version {rows[0][0]}", f"version {rows[-1][0]}"
    chart = Chart(f"{title_of(metric)} by version", lines, x_ends=ends).draw()
    held_out = any((one["metrics"] or {}).get("recent") for one in versions)
    return {"chart": chart, "metric": title_of(metric), "held_out": held_out}


def _figures(versions: Sequence[Json]) -> tuple[str, list[tuple[int, float, float | None]]]:
    """The metric that versions have, and for each of them: number, value, baseline."""
    for metric in ("log_loss", "accuracy", "rmse", "mse", "mae"):
        rows = []
        for one in reversed(versions):
            metrics = one["metrics"] or {}
            where = (metrics.get("recent") or {}).get("candidate") or metrics
            value = where.get(metric)
            if not isinstance(value, int | float) or not math.isfinite(value):
                continue
            base = ((metrics.get("recent") or metrics).get("baselines") or {}).values()
            known = [b[metric] for b in base if isinstance(b, dict) and metric in b]
            best = max(known) if metric == "accuracy" and known else min(known, default=None)
            rows.append((one["number"], float(value), best))
        if rows:
            return metric, rows
    return "", []


def flow_chart(flow: Flow) -> Any:
    """Labels in each span."""
    long = flow.unit == "day"
    names = [moment(start)[:10] if long else moment(start)[5:16] for start in flow.starts]
    return bars(f"Labels a {flow.unit}", flow.counts, names)


def sequence_chart(
    path: Sequence[tuple[int, float, float, float]], margin: float, evidence: Json
) -> Any:
    """The confidence sequence of a stage."""
    if len(path) < 2:
        return ""
    finite = [row for row in path if math.isfinite(row[2]) and math.isfinite(row[3])]
    last = finite[-1] if finite else (0, 0.0, -2.0 * margin, 2.0 * margin)
    # the newest bounds are to be read: wider ones before them may leave the drawing
    reach = 2.5 * max(last[3] - last[1], last[1] - last[2], 1.5 * abs(margin))
    extent = min(last[1] - reach, -margin), max(last[1] + reach, 1.3 * margin)
    titles = [f"{n:,} labels: {mean:+.4f} ({low:+.4f} to {high:+.4f})"
              for n, mean, low, high in path]  # fmt: skip
    return Chart(
        "How much larger the candidate's mean loss is, with its bounds",
        [Line("candidate", [(row[0], row[1]) for row in path], titles)],
        levels=[(margin, "margin"), (0.0, "")],
        band=[(n, max(low, extent[0] - 1), min(high, extent[1] + 1)) for n, _, low, high in path],
        x_ends=(f"{path[0][0]:,} labels", f"{path[-1][0]:,} labels"),
        extent=extent,
    ).draw()


def version_graph(name: str, versions: Sequence[Json]) -> Any:
    """Versions and their parents."""
    if not versions:
        return ""
    nodes = []
    for one in reversed(versions):
        action = (one["decision"] or {}).get("action", "")
        kind = next((a for a in ("champion", "candidate") if a in one["aliases"]), None)
        kind = kind or ("refused" if action == "refuse" else "other")
        reason = (one["decision"] or {}).get("reason", "")
        title = f"version {one['number']}, {ago(one['created_at'])}: {action}: {reason}"
        link = f"/console/models/{quote(name)}/versions/{one['number']}"
        nodes.append(Node(one["number"], one["parent"], kind, title, link))
    return graph(nodes)


def transfer_map(table: Json) -> Any:
    """R: the score of each version of a lineage on each period, fuller where it is better."""
    versions, scores = table["matrix"]["versions"], table["matrix"]["scores"]
    found = sorted(value for row in scores for value in row if value is not None)
    if len(versions) < 2 or not found:
        return ""
    up, title = table["greater_is_better"], title_of(table["metric"])
    # one score far off would leave all others in one shade: what is worse than most is equally pale
    best, worst = (found[-1], found[0]) if up else (found[0], found[int(0.9 * (len(found) - 1))])
    names = [period_name(period) for period in table["periods"]]
    new = next((n for n, period in enumerate(table["periods"]) if period["new"]), None)
    cells = []
    for place, (version, row) in enumerate(zip(versions, scores, strict=True)):
        last = place + 1 == len(versions)
        made = []
        for n, value in enumerate(row):
            if value is None:
                made.append(Cell(None))
                continue
            shade = 1.0 if best == worst else (value - worst) / (best - worst)
            said = f"version {version} on increments {names[n]}: {title} {figure(value)}"
            shade = min(1.0, max(0.0, shade))
            made.append(Cell(shade, f"{value:.3g}", said, own=last and n == new))
        cells.append(made)
    rows = [f"v{version}" for version in versions]
    return heat_map(f"{title_of(table['metric'])} of versions by period", rows, names, cells)


def period_name(period: Json) -> str:
    """Which increments a period holds."""
    one = period["first"] == period["last"]
    return f"{period['first']}" if one else f"{period['first']}–{period['last']}"
