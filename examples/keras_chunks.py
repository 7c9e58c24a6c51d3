"""A Keras model that learns a year of flights in chunks of 1,000 rows: hours in the air.

    python examples/keras_chunks.py

This file is the definition, too: `everlearn versions hours-in-the-air`, and so on. The first half
of the year is learned by one job and the second by another, both from a `tf.data.Dataset`; the
version that serves is written to a `.keras` file, with its optimizer.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

import everlearn as el

FEATURES = ("distance", "month", "hour", "dest", "carrier")
HELD_OUT = 5_000


def net() -> keras.Model:
    """The model: what it is to begin with, and how it learns."""
    layers = [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(1)]
    made = keras.Sequential(layers)
    made.compile(optimizer="adam", loss="mse")
    return made


model = el.Model(
    "hours-in-the-air",
    learner=el.learners.KerasLearner(
        net, encoder=el.learners.Encoder(categories="onehot", buckets=128)
    ),
    schema=el.Schema(target="hours"),
    strategy=el.Strategy(chunk=1_000, memory=el.Reservoir(20_000)),
)


def dataset(frame: pd.DataFrame) -> tf.data.Dataset:
    """Rows as a dataset in batches of 1,000."""
    columns = {name: frame[name].to_numpy() for name in (*FEATURES, "hours")}
    return tf.data.Dataset.from_tensor_slices(columns).batch(1_000)


def main() -> None:
    """Learn, look, learn again, and export."""
    sys.path.insert(0, str(Path(__file__).parent))
    from nyc_flights import flights

    frame = flights(also=["air_time", "month", "hour"])
    frame["hours"] = frame["air_time"] / 60.0
    first, second = frame[frame["month"] <= 6], frame[frame["month"] > 6]
    second, last = second.iloc[:-HELD_OUT], second.iloc[-HELD_OUT:]
    rows = last[list(FEATURES)].to_dict("records")
    truth = last["hours"].to_numpy()
    print(f"always the mean: {60 * np.std(truth):.1f} minutes off")
    with tempfile.TemporaryDirectory() as folder, el.open(Path(folder) / "workspace") as ws:
        air = ws.model(__file__)
        for part in (first, second):
            job = air.train(dataset(part))
            found = np.array([answer.value for answer in air.predict(rows)])
            error = 60 * np.sqrt(np.mean((found - truth) ** 2))
            print(f"version {job.version}, {len(part):,} flights: {error:.1f} minutes off")
        learner = air.load().learner
        learner.save_file(Path(folder) / "air.keras")
        again = keras.saving.load_model(Path(folder) / "air.keras")
        print(f"air.keras: {again.count_params():,} weights, {again.optimizer.__class__.__name__}")


if __name__ == "__main__":
    main()
