"""Boosted trees that are continued, refitted, decayed or grown anew, against River and our own
learners, on the electricity data in the order in which it came.

    python benchmarks/boosting.py [--data FOLDER] [--out FILE]
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import lightgbm
import numpy as np
import xgboost
from river import forest, linear_model, preprocessing, tree
from streams import FOLDER, elec2

import everlearn as el
from everlearn.base import Batch, Columns
from everlearn.jobs.learn import Fold

CHUNK = 1000
PARAMS = {"objective": "binary", "num_threads": 1, "verbosity": -1, "lambda_l2": 1.0}
NOTE = """Rows are learned in chunks of {chunk:,} in the order in which they came, each chunk
predicted before it is learned; the first one is not scored. River's estimators, and our own, learn
row by row and predict each row just before it, so that they know the labels of the rows before it
in its chunk, which trees that are grown by the chunk do not. "CPU" is predicting and learning,
encoding included, in seconds of one thread; compare within this table only."""


def chunks(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Consecutive chunks."""
    for start in range(0, len(x), CHUNK):
        yield x[start : start + CHUNK], y[start : start + CHUNK]


def folded(learner: Any, memory: Any = None) -> Callable[..., np.ndarray]:
    """What everlearn does with a learner: the fold of a job."""

    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        names = tuple(f"x{place}" for place in range(x.shape[1]))
        columns = Columns(numbers=names, target="y", target_kind="integer")
        strategy = el.Strategy(memory=memory, chunk=CHUNK)
        fold = Fold.new(learner, columns, strategy, classes=(0.0, 1.0))
        told, seen = [], 0
        for rows, labels in chunks(x, y):
            n = len(rows)
            batch = Batch(
                numbers=rows,
                categories=np.zeros((n, 0), np.uint64),
                times=np.zeros((n, 0), np.int64),
                y=labels.astype(np.float64),
                ids=np.arange(seen, seen + n).astype(np.uint64),
            )
            prediction = fold.step(batch).prediction
            assert prediction is not None and prediction.proba is not None
            told.append(prediction.proba[:, 1])
            fold.settle()
            seen += n
        return np.concatenate(told)

    return run


def continued_by_hand(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The loop that users write: all trees stay, as many rounds a chunk as everlearn's."""
    told, booster = [], None
    for rows, labels in chunks(x, y):
        told.append(np.full(len(rows), 0.5) if booster is None else booster.predict(rows))
        data = lightgbm.Dataset(rows, labels)
        booster = lightgbm.train(PARAMS, data, 5, init_model=booster)
    return np.concatenate(told)


def continued_xgboost_by_hand(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The same with XGBoost."""
    told, booster = [], None
    params = {"objective": "binary:logistic", "nthread": 1, "learning_rate": 0.1}
    for rows, labels in chunks(x, y):
        data = xgboost.DMatrix(rows, labels, nthread=1)
        told.append(np.full(len(rows), 0.5) if booster is None else booster.predict(data))
        booster = xgboost.train(params, data, 5, xgb_model=booster)
    return np.concatenate(told)


def retrained(most: int | None) -> Callable[..., np.ndarray]:
    """A hundred trees anew after every chunk, on the last `most` rows or on all."""

    def run(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        told, booster, stop = [], None, 0
        for rows, _ in chunks(x, y):
            told.append(np.full(len(rows), 0.5) if booster is None else booster.predict(rows))
            stop += len(rows)
            start = 0 if most is None else max(0, stop - most)
            data = lightgbm.Dataset(x[start:stop], y[start:stop])
            booster = lightgbm.train(PARAMS, data, 100)
        return np.concatenate(told)

    return run


def sides() -> dict[str, Callable[..., np.ndarray]]:
    """Name → predictions of all rows."""
    LightGBM, XGBoost = el.learners.LightGBM, el.learners.XGBoost
    plain = {"decay": 1.0, "at_most": 10_000}
    return {
        "lightgbm.train(init_model=), by hand": continued_by_hand,
        "LightGBM, continued without decay or bound": folded(LightGBM(**plain)),
        "LightGBM, as it is": folded(LightGBM()),
        "LightGBM, decay=.8": folded(LightGBM(decay=0.8)),
        "LightGBM, full='refit' at 50": folded(LightGBM(at_most=50, full="refit")),
        "LightGBM, Reservoir(20_000)": folded(LightGBM(), el.Reservoir(20_000)),
        "xgboost.train(xgb_model=), by hand": continued_xgboost_by_hand,
        "XGBoost, continued without decay or bound": folded(XGBoost(**plain)),
        "XGBoost, as it is": folded(XGBoost()),
        "XGBoost, full='refit' at 50": folded(XGBoost(at_most=50, full="refit")),
        "LightGBM, retrained on all, by hand": retrained(None),
        "LightGBM, retrained on the last 5,000, by hand": retrained(5_000),
        "River, scaler and logistic regression": folded(
            preprocessing.StandardScaler() | linear_model.LogisticRegression()
        ),
        "River, Hoeffding tree": folded(tree.HoeffdingTreeClassifier()),
        "River, adaptive forest of 3": folded(forest.ARFClassifier(n_models=3)),
        "everlearn, logistic regression": folded(el.learners.LogisticRegression()),
        "everlearn, Hoeffding tree": folded(el.learners.HoeffdingTreeClassifier()),
        "everlearn, adaptive forest of 3": folded(
            el.learners.AdaptiveRandomForestClassifier(n_models=3)
        ),
    }


def measured(run: Callable[..., np.ndarray], x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Log loss and accuracy after the first chunk, and the CPU seconds of one run."""
    begin = time.process_time()
    proba = run(x, y)
    seconds = time.process_time() - begin
    proba, y = proba[CHUNK:], y[CHUNK:]
    right = np.clip(np.where(y == 1, proba, 1 - proba), 1e-15, 1.0)
    return {
        "loss": float(-np.log(right).mean()),
        "accuracy": float(((proba > 0.5) == y).mean()),
        "seconds": seconds,
    }


def seconds(run: Callable[..., np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    """CPU seconds of one run."""
    return measured(run, x, y)["seconds"]


def river_loop(estimator: Any, x: np.ndarray, y: np.ndarray) -> float:
    """CPU seconds of River's own loop over dicts, which are made in it."""
    names = [f"x{place}" for place in range(x.shape[1])]
    made = estimator.clone()
    begin = time.process_time()
    for row, label in zip(x.tolist(), y.tolist(), strict=True):
        features = dict(zip(names, row, strict=True))
        made.predict_proba_one(features)
        made.learn_one(features, label)
    return time.process_time() - begin


def ratios(x: np.ndarray, y: np.ndarray, rounds: int) -> dict[str, float]:
    """CPU of everlearn's fold against the bare loop of the same trees or rows: the medians of
    runs that take turns."""
    pairs: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {}
    plain = {"decay": 1.0, "at_most": 10_000}
    for name, learner, loop in (
        ("lightgbm.train(init_model=)", el.learners.LightGBM(**plain), continued_by_hand),
        ("xgboost.train(xgb_model=)", el.learners.XGBoost(**plain), continued_xgboost_by_hand),
    ):
        pairs[name] = (partial(seconds, folded(learner), x, y), partial(seconds, loop, x, y))
    few = slice(10_000)
    for name, made in (
        (
            "River's loop, logistic",
            preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        ),
        ("River's loop, Hoeffding tree", tree.HoeffdingTreeClassifier()),
    ):
        pairs[name] = (
            partial(seconds, folded(made), x[few], y[few]),
            partial(river_loop, made, x[few], y[few]),
        )
    return {
        name: float(np.median([ours() / theirs() for _ in range(rounds)]))
        for name, (ours, theirs) in pairs.items()
    }


def report(found: dict[str, dict[str, float]], cost: dict[str, float], rows: int) -> str:
    """Both tables as Markdown."""
    lines = [
        "# Boosted trees and River on the electricity data",
        NOTE.format(chunk=CHUNK),
        "| | log loss | accuracy | CPU s |\n|---|---|---|---|",
    ]
    for name, told in found.items():
        figures = f"{told['loss']:.3f} | {told['accuracy']:.3f} | {told['seconds']:.2f}"
        lines[-1] += f"\n| {name} | {figures} |"
    lines += [
        "CPU of everlearn's fold against a bare loop that predicts too, medians of runs in turn:",
        "| against | ratio |\n|---|---|",
    ]
    for name, ratio in cost.items():
        lines[-1] += f"\n| {name} | {ratio:.2f} |"
    versions = f"lightgbm {lightgbm.__version__}, xgboost {xgboost.__version__}"
    lines.append(
        f"- {rows:,} rows; {versions}; Python {platform.python_version()}; one thread\n"
        f"- load average at the end: {os.getloadavg()[0]:.1f}"
    )
    lines.append("Written by `benchmarks/boosting.py`.")
    return "\n\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help=f"folder of electricity.csv; or {FOLDER}")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/boosting.md")
    parser.add_argument("--rows", type=int, help="of the first so many rows")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    x, y = (array[: arguments.rows] for array in elec2(arguments.data))
    runs = sides()
    for run in runs.values():  # what is imported or compiled late is not counted
        run(x[: 2 * CHUNK], y[: 2 * CHUNK])
    found = {}
    for name, run in runs.items():
        found[name] = measured(run, x, y)
        print(f"{name}: {found[name]}", flush=True)
    text = report(found, ratios(x, y, arguments.rounds), len(x))
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
