"""Small histories for the tests of this folder."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from everlearn.base import Batch, Columns, Ints
from everlearn.compare.history import History, values_of
from everlearn.compare.periods import choose_probes
from everlearn.compare.timeline import Span, make_timeline

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 1_700_006_400_000_000  # a midnight, UTC


def drifting(rows: int = 2_000, seed: int = 0, days: float = 40.0) -> dict[str, np.ndarray]:
    """Events over some weeks whose rule turns round half-way; labels are known 1 to 30 h later."""
    rng = np.random.default_rng(seed)
    time = START + np.sort(rng.integers(0, int(days * DAY), rows))
    x = rng.normal(size=(rows, 2))
    sign = np.where(np.arange(rows) < rows // 2, 1.0, -1.0)
    y = (sign * x[:, 0] + 0.3 * rng.normal(size=rows) > 0).astype(np.float64)
    delay = rng.integers(HOUR, 30 * HOUR, rows)
    shop = rng.choice(["north", "south", "east"], rows)
    return {"time": time, "known": time + delay, "x": x, "y": y, "shop": shop}


def write_csv(path: Path, data: dict[str, np.ndarray], target: str = "late") -> Path:
    """The events as a CSV file with the columns when, known, a, b, shop and the target."""
    stamp = [np.datetime64(int(t), "us").astype(str) for t in data["time"]]
    known = [np.datetime64(int(t), "us").astype(str) for t in data["known"]]
    y = data["y"]
    whole = y.dtype != object and bool((y == np.floor(y)).all())
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["when", "known", "a", "b", "shop", target])
        for i in range(len(stamp)):
            a, b = data["x"][i].tolist()
            writer.writerow(
                [stamp[i], known[i], a, b, data["shop"][i], int(y[i]) if whole else y[i]]
            )
    return path


def history(
    data: dict[str, np.ndarray],
    *,
    every: str = "4d",
    tick: str = "6h",
    probes: bool = True,
    known: Ints | None = None,
) -> History:
    """The events as a compiled history."""
    rows = len(data["y"])
    label_time = data["known"] if known is None else known
    batch = Batch(
        numbers=data["x"],
        categories=np.zeros((rows, 0), np.uint64),
        times=np.zeros((rows, 0), np.int64),
        y=data["y"],
        ids=np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15),
        time=data["time"],
        label_time=label_time,
    )
    spans = {"rows": rows, "every": Span.parse(every), "tick": Span.parse(tick)}
    line = make_timeline(data["time"], label_time, **spans)
    kept_out = choose_probes(line, batch.ids) if probes else np.empty(0, np.int64)
    line = make_timeline(data["time"], label_time, **spans, probes=kept_out)
    classes = tuple(sorted(set(data["y"].tolist())))
    batch = batch.take(line.arrival)
    assert batch.y is not None
    codes = np.searchsorted(np.array(classes), batch.y).astype(np.int64)
    columns = Columns(
        numbers=("a", "b"), target="late", target_kind="integer", time="when", label_time="known"
    )
    return History(
        batch=batch.with_y(values_of(codes, classes)),
        codes=codes,
        classes=classes,
        columns=columns,
        timeline=line,
        probes=kept_out,
        read_seconds=1e-6,
        kind="classifier",
        sources=("events",),
    )
