"""Times, figures and names as people read them."""

from __future__ import annotations

import datetime as dt
import json
import math
import time
from typing import Any

MOST = 60
"""Lines of evidence that are shown."""

TITLES = {
    "log_loss": "log loss",
    "accuracy": "accuracy",
    "brier": "Brier score",
    "mse": "squared error",
    "mae": "absolute error",
    "rmse": "root of the squared error",
    "roc_auc": "area under the ROC curve",
    "pr_auc": "area under the precision-recall curve",
    "kappa": "Cohen's kappa",
    "kappa_temporal": "temporal kappa",
    "calibration_error": "calibration error",
}


def title_of(metric: str | None) -> str:
    """The name of a metric.

    >>> title_of("log_loss"), title_of(None)
    ('log loss', 'loss')
    """
    return "loss" if metric is None else TITLES.get(metric, metric.replace("_", " "))


def trigger(name: str) -> str:
    """What a trigger is called in a drawing.

    >>> trigger("Drift(window=100, effect=0.1)"), trigger("Performance('log_loss')")
    ('drift', 'worse')
    """
    kind = name.partition("(")[0].strip()
    return {"Performance": "worse"}.get(kind, kind.lower() or "learn")


def evidence(value: Any, depth: int = 5) -> list[tuple[str, str]]:
    """What a decision was made by, as names and texts, part by part; records of a list are one
    line each.

    >>> evidence({"rows": 1200, "by": {"x": 0.25, "y": None}})
    [('rows', '1,200'), ('by · x', '0.25'), ('by · y', '–')]
    """
    if isinstance(value, dict) and depth:
        parts = ((str(name).replace("_", " "), one) for name, one in value.items())
    elif isinstance(value, list) and depth and any(isinstance(one, dict | list) for one in value):
        flat = [_record(one) for one in value[:20]]
        parts = ((str(n), one) for n, one in enumerate(flat, 1))
    else:
        return [("", _text(value))]
    return [
        (f"{name} · {inner}" if inner else name, text)
        for name, one in parts
        for inner, text in evidence(one, depth - 1)
    ][:MOST]


def _record(value: Any) -> Any:
    """A record of plain values as one text; anything else as it is."""
    plain = isinstance(value, dict) and not any(isinstance(v, dict | list) for v in value.values())
    if not plain:
        return value
    return ", ".join(f"{name.replace('_', ' ')} {_text(one)}" for name, one in value.items())


def _text(value: Any) -> str:
    if isinstance(value, bool | str):
        return str(value)[:200]
    if isinstance(value, list | dict):
        return json.dumps(value)[:200] if value else "none"
    return figure(value)


def moment(micros: int) -> str:
    """A time (UTC).

    >>> moment(1_357_000_000_000_000)
    '2013-01-01 00:26:40'
    """
    at = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=micros)
    return f"{at:%Y-%m-%d %H:%M:%S}"


def ago(micros: int, now: int | None = None) -> str:
    """How long ago it was.

    >>> ago(0, 90_000_000), ago(0, 200_000_000_000)
    ('90 s ago', '2 days ago')
    """
    seconds = ((time.time_ns() // 1000 if now is None else now) - micros) / 1e6
    return "now" if seconds < 1.0 else f"{span(seconds)} ago"


def span(seconds: float) -> str:
    """A stretch of time.

    >>> span(0.000_02), span(0.25), span(600), span(90_000)
    ('20 µs', '250 ms', '10 min', '25 h')
    """
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs" if seconds > 0.0 else "0 s"
    if seconds < 1.0:
        return f"{seconds * 1000:.3g} ms"
    for unit, size, most in ((" s", 1, 120), (" min", 60, 7200), (" h", 3600, 172_800)):
        if seconds < most:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds / 86_400:.0f} days"


def figure(value: Any) -> str:
    """A number, short.

    >>> figure(0.123456), figure(12345), figure(None), figure(float("nan"))
    ('0.1235', '12,345', '–', '–')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1e5 else f"{value}"
