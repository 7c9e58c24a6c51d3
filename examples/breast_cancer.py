"""Batch retraining against online learning on 569 tumours, and why one of the tests flatters both.

Reproduces a text that is often read: 70 % of `load_breast_cancer` are there at first, 30 % come
later. One model is retrained on everything, the other one learns the new rows in chunks of 20 by
`partial_fit`. The text then tests both on all rows: that is the column `flattered`. Of those rows
both models have learned every one, so it measures how well they remember, not how well they
predict; the online model even learned the very rows of its last chunks a moment before.

What can be trusted is the column `honest`: each new chunk is answered by the model that serves when
it comes, and is learned only afterwards. The batch model serves unchanged until it is retrained at
the end, so it is honest at the price of its staleness. With so few rows the honest figures are
uncertain too: the interval is that of a share of 171.

    python examples/breast_cancer.py --out out
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from everlearn.base import Array, Floats
from everlearn.evaluation.intervals import mean_interval

CHUNK = 20
FILE = "retraining_strategy_comparison.csv"


def main(out: Path) -> list[dict[str, str | float]]:
    """Train both models, write the comparison, and say what it shows."""
    X, y = load_breast_cancer(return_X_y=True)
    first, new, y_first, y_new = train_test_split(X, y, test_size=0.3, random_state=42)
    scaler = StandardScaler().fit(first)  # of what is known at first, not of the future
    first, new = scaler.transform(first), scaler.transform(new)
    rows = [
        batch_retraining(first, y_first, new, y_new),
        online_learning(first, y_first, new, y_new),
    ]
    out.mkdir(parents=True, exist_ok=True)
    with (out / FILE).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(
            f"{row['strategy']:<17} flattered {row['flattered']:.4f}   honest {row['honest']:.4f} "
            f"({row['honest_low']:.4f} to {row['honest_high']:.4f})   {row['cpu_seconds']:.4f} s"
        )
    print(
        "Flattered: tested on rows that were trained on, so it measures memory. Honest: each chunk "
        "is answered before it is learned."
    )
    return rows


def batch_retraining(
    first: Floats, y_first: Array, new: Floats, y_new: Array
) -> dict[str, str | float]:
    """Serve the first model, then retrain on everything."""
    start = time.process_time()
    serving = model().fit(first, y_first)
    retrained = model().fit(np.vstack([first, new]), np.concatenate([y_first, y_new]))
    seconds = time.process_time() - start
    hits = serving.predict(new) == y_new
    return row("Batch Retraining", retrained, first, y_first, new, y_new, hits, seconds)


def online_learning(
    first: Floats, y_first: Array, new: Floats, y_new: Array
) -> dict[str, str | float]:
    """Answer each chunk of 20 with the model so far, then learn it."""
    start = time.process_time()
    serving = model()
    for place in range(0, len(first), CHUNK):
        serving.partial_fit(
            first[place : place + CHUNK], y_first[place : place + CHUNK], classes=[0, 1]
        )
    hits = []
    for place in range(0, len(new), CHUNK):
        rows, truth = new[place : place + CHUNK], y_new[place : place + CHUNK]
        hits.append(serving.predict(rows) == truth)
        serving.partial_fit(rows, truth)
    seconds = time.process_time() - start
    return row(
        "Online Learning", serving, first, y_first, new, y_new, np.concatenate(hits), seconds
    )


def row(
    name: str,
    final: SGDClassifier,
    first: Floats,
    y_first: Array,
    new: Floats,
    y_new: Array,
    hits: Array,
    seconds: float,
) -> dict[str, str | float]:
    """A row of the comparison: accuracy on rows that were learned, and on rows before they were."""
    honest = mean_interval(hits.astype(np.float64))
    flattered = final.score(np.vstack([first, new]), np.concatenate([y_first, y_new]))
    return {
        "strategy": name,
        "flattered": round(float(flattered), 6),
        "honest": round(honest.mean, 6),
        "honest_low": round(honest.low, 6),
        "honest_high": round(min(honest.high, 1.0), 6),
        "rows_answered": len(hits),
        "cpu_seconds": round(seconds, 6),
    }


def model() -> SGDClassifier:
    """The text's learner: logistic regression by stochastic gradient descent."""
    return SGDClassifier(loss="log_loss", random_state=42)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Batch retraining against online learning.")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR")
    main(parser.parse_args().out)
