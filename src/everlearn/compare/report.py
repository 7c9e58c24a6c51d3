"""The results as one self-contained page: what to choose and why, charts, table, method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from everlearn.base import Array
from everlearn.compare.advice import NAMES
from everlearn.compare.results import Results
from everlearn.compare.scores import Score
from everlearn.compare.table import cells, columns

COLOURS = (
    "#7f8a99", "#d1495b", "#e08e1b", "#2a9d6f", "#1f6fb4", "#7b4bb3", "#8a5a2b", "#0097a7",
    "#c2185b", "#5d6d00",
)  # fmt: skip
_BETTER_UP = ("accuracy", "roc_auc")


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
        forgetting="accuracy" if results.kind == "classifier" else "mean absolute error",
        settings=_rows(settings.items(), css="plain"),
    )


# --- charts ------------------------------------------------------------------------------------


def scatter(results: Results) -> Any:
    """Cost against quality, as a plotly figure."""
    from plotly import graph_objects as go

    figure = go.Figure()
    for score, colour in _coloured(results):
        value = score.metrics.get(results.metric)
        if value is None:
            continue
        reach = 0.0 if score.behind is None else score.behind.high - score.behind.mean
        figure.add_scatter(
            x=[max(score.cpu_seconds, 1e-3)],
            y=[value],
            error_y={"type": "data", "array": [reach], "thickness": 1.2, "visible": bool(reach)},
            mode="markers+text",
            text=[score.name],
            textposition="middle right",
            marker={"size": 16 if score.name == results.choice else 11, "color": colour},
            name=score.name,
            hovertemplate="%{text}: %{y:.4f}, %{x:.2f} s CPU<extra></extra>",
        )
    floor = _floor(results)
    if floor is not None:
        figure.add_hline(
            y=floor, line={"dash": "dot", "color": "#9aa4b1"}, annotation_text="needs no model"
        )
    better_down = results.metric not in _BETTER_UP
    figure.update_xaxes(type="log", title="CPU seconds (log scale)")
    figure.update_yaxes(
        title=NAMES[results.metric] + (" (axis turned: up is better)" if better_down else ""),
        autorange="reversed" if better_down else True,
    )
    return _styled(figure, height=440, legend=False)


def series(results: Results) -> Any:
    """The metrics of every period, as a plotly figure with a button for each metric."""
    from plotly import graph_objects as go

    metrics = [name for name in _series_order(results) if name in results.scores[0].over_time]
    figure = go.Figure()
    start = _moments(results)
    for metric in metrics:
        for score, colour in _coloured(results):
            values = score.over_time.get(metric, np.full(len(start), np.nan))
            figure.add_scatter(
                x=start,
                y=values,
                name=score.name,
                mode="lines",
                connectgaps=True,
                visible=metric == metrics[0],
                line={"color": colour, "width": 3 if score.name == results.choice else 1.6},
                hovertemplate="%{y:.4f}",
            )
    count = len(results.scores)
    buttons = [
        {
            "label": NAMES.get(metric, metric),
            "method": "update",
            "args": [
                {"visible": [number // count == at for number in range(count * len(metrics))]},
                {"yaxis.title.text": NAMES.get(metric, metric)},
            ],
        }
        for at, metric in enumerate(metrics)
    ]
    if len(metrics) > 1:
        menu = {"type": "buttons", "direction": "right", "x": 0.0, "y": 1.14, "xanchor": "left"}
        figure.update_layout(updatemenus=[{**menu, "buttons": buttons, "showactive": True}])
    figure.update_yaxes(title=NAMES.get(metrics[0], metrics[0]) if metrics else "")
    figure.update_xaxes(title="row" if results.unit == "rows" else "")
    figure.update_layout(hovermode="x unified")
    return _styled(figure, height=480)


def bars(results: Results) -> Any:
    """What each strategy costs in money, as a plotly figure."""
    from plotly import graph_objects as go

    ordered = sorted(results.scores, key=lambda score: (score.cost or {}).get("total", 0.0))
    names = [score.name for score in ordered]
    figure = go.Figure()
    for part, label, colour in (("errors", "errors", "#d1495b"), ("cpu", "CPU time", "#1f6fb4")):
        values = [(score.cost or {}).get(part, 0.0) for score in ordered]
        figure.add_bar(x=names, y=values, name=label, marker_color=colour)
    if results.hindsight is not None:
        figure.add_hline(
            y=results.hindsight.cost,
            line={"dash": "dash", "color": "#1c2430"},
            annotation_text="best schedule of full retrainings, in hindsight",
        )
    figure.update_layout(barmode="stack")
    figure.update_yaxes(title="money")
    return _styled(figure, height=400)


def _coloured(results: Results) -> list[tuple[Score, str]]:
    return [
        (score, COLOURS[number % len(COLOURS)]) for number, score in enumerate(results.scores)
    ]


def _series_order(results: Results) -> list[str]:
    found = dict.fromkeys([results.metric, "roc_auc", "log_loss", "accuracy", "mae", "rmse"])
    return list(found)


def _moments(results: Results) -> Array:
    return results.starts.astype("datetime64[us]") if results.unit == "time" else results.starts


def _floor(results: Results) -> float | None:
    """The answer that needs no model, where it is near enough to be drawn."""
    known = results.baselines.get("majority") or results.baselines.get("mean") or {}
    floor = known.get(results.metric)
    values = [score.metrics.get(results.metric) for score in results.scores]
    values = [value for value in values if value is not None]
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
        font={"family": "system-ui, sans-serif", "size": 13},
    )
    return figure


def _html(figure: Any, first: bool = False) -> str:
    """The chart; the first one on a page carries plotly's script with it."""
    text: str = figure.to_html(
        full_html=False,
        include_plotlyjs=first,
        config={"displaylogo": False, "responsive": True},
    )
    return text


# --- text --------------------------------------------------------------------------------------


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<h2>What to know before you trust this</h2><div class="card notes"><ul>{items}</ul></div>'


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
        "At the prices that were given. The schedule in hindsight covers full retraining only."
        "</figcaption></figure></div>"
    )


def _words(results: Results) -> str:
    return _rows(((score.name, score.words) for score in results.scores), css="plain")


def _rows(pairs: Iterable[tuple[str, str]], css: str) -> str:
    body = "".join(f"<tr>{_cells([name, text])}</tr>" for name, text in pairs)
    return f'<table class="{css}"><tbody>{body}</tbody></table>'


def _cells(texts: Sequence[str]) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in texts)
