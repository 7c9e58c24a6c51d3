"""The results as one self-contained page: what to choose and why, charts, table, method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from everlearn.base import Array, Floats
from everlearn.compare.advice import NAMES
from everlearn.compare.results import Results
from everlearn.compare.scores import Score
from everlearn.compare.table import cells, columns

COLOURS = (
    "#7f8a99", "#d1495b", "#e08e1b", "#2a9d6f", "#1f6fb4", "#7b4bb3", "#8a5a2b", "#0097a7",
    "#c2185b", "#5d6d00",
)  # fmt: skip
_BETTER_UP = ("accuracy", "roc_auc")
_PLACES = ("top right", "bottom right")


def write_report(results: Results, path: Path) -> None:
    """Write the report: one HTML file that needs no other file and no network."""
    path.write_text(report(results), encoding="utf-8")


def report(results: Results) -> str:
    """The text of the page."""
    template = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    settings = results.settings
    return template.substitute(
        title="everlearn compare",
        heading="Which retraining strategy?",
        lead=escape(
            f"{settings.get('data', 'data')}: {results.scores[0].rows:,} answers scored in "
            f"{len(results.starts)} periods; target {settings.get('target', '?')}."
        ),
        advice="".join(f"<p>{escape(sentence)}</p>" for sentence in results.advice),
        notes=_notes(results.notes),
        table=_table(results),
        legend=_legend(results),
        scatter=_html(scatter(results), first=True),
        series=_html(series(results)),
        money=_money(results),
        words=_words(results),
        transfer=_transfer(results),
        forgetting="accuracy" if results.kind == "classifier" else "mean absolute error",
        settings=_rows(settings.items(), css="plain"),
    )


# --- charts ------------------------------------------------------------------------------------


def scatter(results: Results) -> Any:
    """Cost against quality, as a plotly figure."""
    from plotly import graph_objects as go

    better_down = results.metric not in _BETTER_UP
    figure = go.Figure()
    limit = _limit(results)
    for number, (score, colour) in enumerate(_by_cost(results)):
        value = score.metrics.get(results.metric)
        if value is None:
            continue
        far = limit is not None and (value > limit if better_down else value < limit)
        told = f"{score.name}: {value:,.4f}, further down" if far else score.name
        figure.add_scatter(
            x=[max(score.cpu_seconds, 1e-3)],
            y=[limit if far else value],
            error_y=_reach(score, not far),
            mode="markers+text",
            text=[told],
            textposition="bottom right" if far else _PLACES[number % len(_PLACES)],
            marker={
                "size": 16 if score.name == results.choice else 11,
                "color": colour,
                "symbol": "triangle-down" if far else "circle",
            },
            name=score.name,
            hovertemplate=f"{escape(score.name)}: {value:,.4f}, %{{x:.2f}} s CPU<extra></extra>",
        )
    floor = _floor(results)
    if floor is not None:
        figure.add_hline(
            y=floor, line={"dash": "dot", "color": "#9aa4b1"}, annotation_text="needs no model"
        )
    figure.update_xaxes(type="log", title="CPU seconds (log scale)")
    figure.update_yaxes(
        title=NAMES[results.metric] + (" (axis turned: up is better)" if better_down else ""),
        autorange="reversed" if better_down else True,
    )
    return _styled(figure, height=440, legend=False)


def _reach(score: Score, shown: bool) -> dict[str, Any]:
    """The interval of a point, where it is known."""
    behind = score.behind
    if behind is None or not np.isfinite(behind.error) or not shown:
        return {"visible": False}
    return {"type": "data", "array": [behind.high - behind.mean], "thickness": 1.2}


def _by_cost(results: Results) -> list[tuple[Score, str]]:
    return sorted(_coloured(results), key=lambda pair: pair[0].cpu_seconds)


def _limit(results: Results) -> float | None:
    """The worst value that is drawn in its place: beyond it, one strategy would press all others
    into one line. None where there is no such strategy."""
    found = [score.metrics.get(results.metric) for score in results.ranked]
    values = [value for value in found if value is not None]
    if len(values) < 4:
        return None
    best, usual, worst = values[0], values[-2], values[-1]
    if abs(worst - best) <= 6 * abs(usual - best):
        return None
    return usual + (usual - best) * 0.5


def series(results: Results) -> Any:
    """The metrics of every period, as a plotly figure with a button for each view."""
    from plotly import graph_objects as go

    views = _views(results)
    figure = go.Figure()
    start = _moments(results)
    for number, view in enumerate(views):
        for score, colour in _coloured(results):
            figure.add_scatter(
                x=start,
                y=view.lines[score.name],
                name=score.name,
                mode="lines",
                connectgaps=True,
                visible=number == 0,
                line={"color": colour, "width": 3 if score.name == results.choice else 1.6},
                hovertemplate="%{y:.4f}",
            )
    count = len(results.scores)
    buttons = [
        {
            "label": view.label,
            "method": "update",
            "args": [
                {"visible": [place // count == number for place in range(count * len(views))]},
                {"yaxis.title.text": view.axis},
            ],
        }
        for number, view in enumerate(views)
    ]
    menu = {"type": "buttons", "direction": "right", "x": 0.0, "y": 1.14, "xanchor": "left"}
    menu["font"] = {"size": 12}
    figure.update_layout(updatemenus=[{**menu, "buttons": buttons, "showactive": True}])
    figure.update_yaxes(title=views[0].axis)
    figure.update_xaxes(title="row" if results.unit == "rows" else "")
    figure.update_layout(hovermode="x unified")
    return _styled(figure, height=480)


@dataclass(frozen=True, slots=True)
class _View:
    """What one button of the chart over time shows: strategy → (P,) values."""

    label: str
    axis: str
    lines: dict[str, Floats]


def _views(results: Results) -> list[_View]:
    """The metrics of each period, and what each strategy has gained over the worst one so far."""
    order = dict.fromkeys([results.metric, "roc_auc", "log_loss", "accuracy", "mae", "rmse"])
    nothing = np.full(len(results.starts), np.nan)
    views = []
    for metric in order:
        lines = {score.name: score.over_time.get(metric, nothing) for score in results.scores}
        if any(np.isfinite(values).any() for values in lines.values()):
            name = NAMES.get(metric, metric)
            views.append(_View(name, f"{name} of the period", lines))
    if len(results.scores) > 1 and views:
        views.insert(1, _gain(results, views[0]))
    return views


def _gain(results: Results, view: _View) -> _View:
    """The mean of the metric so far, as what it is better than `never`'s, or the worst one's."""
    sign = 1.0 if results.metric in _BETTER_UP else -1.0
    weight = np.maximum(np.cumsum(results.rows_in_period), 1)
    means = {
        name: np.cumsum(np.nan_to_num(values) * results.rows_in_period) / weight
        for name, values in view.lines.items()
    }
    floor = "never" if "never" in means else results.ranked[-1].name
    lines = {name: sign * (mean - means[floor]) for name, mean in means.items()}
    return _View(f"gain over {floor}", f"{view.label} gained over {floor}, mean so far", lines)


def bars(results: Results) -> Any:
    """How much dearer each strategy is than the cheapest, as a plotly figure."""
    from plotly import graph_objects as go

    ordered = sorted(results.scores, key=_total)
    least = _total(ordered[0])
    figure = go.Figure()
    figure.add_bar(
        x=[score.name for score in ordered],
        y=[_total(score) - least for score in ordered],
        text=[f"{_total(score):,.2f}" for score in ordered],
        textposition="outside",
        marker_color="#1f6fb4",
    )
    if results.hindsight is not None:
        figure.add_hline(
            y=results.hindsight.cost - least,
            line={"dash": "dash", "color": "#1c2430"},
        )
        figure.add_annotation(
            text=f"dashed: best schedule, in hindsight: {results.hindsight.cost:,.2f}",
            x=0.0,
            y=1.1,
            xref="paper",
            yref="paper",
            showarrow=False,
        )
    figure.update_yaxes(title=f"more than {ordered[0].name}")
    return _styled(figure, height=400, legend=False)


def _total(score: Score) -> float:
    return (score.cost or {}).get("total", 0.0)


def _coloured(results: Results) -> list[tuple[Score, str]]:
    return [(score, COLOURS[number % len(COLOURS)]) for number, score in enumerate(results.scores)]


def _moments(results: Results) -> Array:
    return results.starts.astype("datetime64[us]") if results.unit == "time" else results.starts


def _floor(results: Results) -> float | None:
    """The answer that needs no model, where it is near enough to be drawn."""
    known = results.baselines.get("majority") or results.baselines.get("mean") or {}
    floor = known.get(results.metric)
    found = [score.metrics.get(results.metric) for score in results.scores]
    values = [value for value in found if value is not None]
    if floor is None or not values:
        return None
    low, high = min(values), max(values)
    near = max(high - low, 1e-9) * 1.5
    return floor if low - near <= floor <= high + near else None


def _styled(figure: Any, height: int, legend: bool = True) -> Any:
    figure.update_layout(
        template="plotly_white",
        height=height,
        showlegend=legend,
        margin={"l": 70, "r": 30, "t": 50, "b": 50},
        legend={"orientation": "h", "y": -0.12},
        font={"family": "system-ui, sans-serif", "size": 13},
    )
    return figure


def _html(figure: Any, first: bool = False) -> str:
    """The chart; the first one on a page carries plotly's script with it."""
    text: str = figure.to_html(
        full_html=False,
        include_plotlyjs=first,
        config={"displayModeBar": False, "responsive": True},
    )
    return text


# --- text --------------------------------------------------------------------------------------


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        f'<h2>What to know before you trust this</h2><div class="card notes"><ul>{items}</ul></div>'
    )


def _table(results: Results) -> str:
    names = [NAMES.get(name, name) for name in columns(results)]
    heads = ["strategy", *names, "behind the best", "CPU", "updates", "rows learned"]
    heads += ["label waits", "forgetting", "peak memory"]
    heads += ["money"] if results.scores[0].cost is not None else []
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = ""
    for score in results.ranked:
        css = ' class="chosen"' if score.name == results.choice else ""
        body += f"<tr{css}>{_cells(cells(score, results))}</tr>"
    for name, values in results.baselines.items():
        shown = [values.get(metric) for metric in columns(results)]
        row = [name, *("–" if value is None else f"{value:.4f}" for value in shown)]
        row += [""] * (len(heads) - len(row))
        body += f'<tr class="floor">{_cells(row)}</tr>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _legend(results: Results) -> str:
    floors = " and ".join(results.baselines)
    return escape(
        f"Best {NAMES[results.metric]} first; the advised strategy is marked. {floors} need no "
        "model: what is not better than they are is worth nothing."
    )


def _money(results: Results) -> str:
    if results.scores[0].cost is None:
        return ""
    return (
        '<h2>In money</h2><div class="card"><figure>' + _html(bars(results)) + "<figcaption>"
        "What each strategy costs at the prices that were given; the sum stands above the bar. The "
        "schedule in hindsight covers full retraining only."
        "</figcaption></figure></div>"
    )


def _transfer(results: Results) -> str:
    """What each strategy kept of past periods, as a section of its own; empty where none was
    tested on them."""
    known = results.transfer_figures()
    found = {name: known[name] for name in (s.name for s in results.ranked) if name in known}
    if not any(value is not None for figures in found.values() for value in figures.values()):
        return ""
    heads = ["strategy", *(name.replace("_", " ") for name in next(iter(found.values())))]
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = ""
    for name, figures in found.items():
        css = ' class="chosen"' if name == results.choice else ""
        shown = ["–" if value is None else f"{value:.4f}" for value in figures.values()]
        body += f"<tr{css}>{_cells([name, *shown])}</tr>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    score = "accuracy" if results.kind == "classifier" else "minus the mean absolute error"
    return (
        f'<h2>What was kept of past periods</h2>\n<div class="card">{table}<p>By {score} on rows '
        "that nothing learned from, in groups of periods: the mean over all groups at the end; how "
        "much that of earlier groups has changed since each was over; how much it fell from its "
        "best; and how much each group's, when it was over, stays behind that of batch, which "
        "trains on everything (only where batch was compared).</p></div>"
    )


def _words(results: Results) -> str:
    told = ((score.name, f"{score.words}. {score.cannot}".rstrip(". ")) for score in results.scores)
    return _rows(told, css="plain")


def _rows(pairs: Iterable[tuple[str, str]], css: str) -> str:
    body = "".join(f"<tr>{_cells([name, text])}</tr>" for name, text in pairs)
    return f'<table class="{css}"><tbody>{body}</tbody></table>'


def _cells(texts: Sequence[str]) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in texts)
