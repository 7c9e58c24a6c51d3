"""What benchmarks/online.py measures: each task runs in a process of its own and prints JSON.

    python benchmarks/online_tasks.py NAME FOLDER STREAM ROWS [OPTION …]

Our learners are measured after 1,000 rows have gone through another one of the same kind, so that
compiling kernels, or loading them from disk, is not counted. Whether a peer is missing here, the
result says: {"absent": why}.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import online_peers as peers
from prequential import result, timed
from streams import Stream, load

Result = dict[str, Any]
WARM = 1000
CHUNK = 65_536


# --- learners -----------------------------------------------------------------------------------


def logistic(stream: Stream, kind: str) -> Result:
    """Standardised online, no regularisation; plain SGD of rate 0.01, as River's, or another."""
    return _whole(lambda: _linear(kind), stream)


def tree(stream: Stream, delta: str) -> Result:
    from everlearn.learners import HoeffdingTreeClassifier

    return _whole(lambda: HoeffdingTreeClassifier(classes=2, delta=float(delta)), stream)


def forest(stream: Stream, max_features: str, *seeds: str) -> Result:
    """Ten trees of which each leaf looks at so many columns; scores are means over the seeds."""
    from everlearn.learners import AdaptiveRandomForestClassifier

    def of_seed(seed: str) -> Any:
        return AdaptiveRandomForestClassifier(
            classes=2, n_models=10, max_features=int(max_features), seed=int(seed)
        )

    X, y = stream
    of_seed(seeds[0]).score_then_learn(X[:WARM], y[:WARM])
    seconds, predicted = [], []
    for seed in seeds:
        spent, found = timed(lambda seed=seed: of_seed(seed).score_then_learn(X, y), 0.0)
        seconds += spent
        predicted.append(found)
    return result(seconds, y, *predicted)


def auto(stream: Stream) -> Result:
    """The default, nothing tuned."""
    from everlearn.learners import Auto

    return _whole(lambda: Auto(classes=2), stream) | {"singles": [repr(one) for one in _singles()]}


def single(stream: Stream, number: str) -> Result:
    """A learner alone that `Auto` weighs, or one with nothing tuned."""
    chosen = _singles()[int(number)]
    return _whole(lambda: chosen.clone().set_params(classes=2), stream) | {"name": repr(chosen)}


def _singles() -> list[Any]:
    from everlearn.learners import (
        AdaptiveRandomForestClassifier,
        HoeffdingTreeClassifier,
        LogisticRegression,
    )
    from everlearn.learners.native.auto import CLASSIFIERS

    untuned = LogisticRegression(), HoeffdingTreeClassifier(), AdaptiveRandomForestClassifier()
    return list({repr(one): one for one in (*CLASSIFIERS, *untuned)}.values())


def one(stream: Stream) -> Result:
    """Row by row from Python: `learn_one` predicts, learns, and returns what it predicted."""
    X, y = stream
    labels = y.tolist()

    def run(rows: int) -> list[Any]:
        learn_one = _linear("sgd").learn_one
        return [learn_one(row, label) for row, label in zip(X[:rows], labels, strict=False)]

    run(WARM)
    seconds, predicted = timed(lambda: run(len(y)))
    return result(seconds, y, predicted)


LINEAR: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.01},
    "adagrad": {"optimizer": "adagrad"},
    "default": {},
}


def _linear(kind: str) -> Any:
    from everlearn.learners import LogisticRegression

    return LogisticRegression(classes=2, **LINEAR[kind])


def _whole(make: Callable[[], Any], stream: Stream) -> Result:
    """All rows in one call."""
    X, y = stream
    make().score_then_learn(X[:WARM], y[:WARM])
    seconds, predicted = timed(lambda: make().score_then_learn(X, y))
    return result(seconds, y, predicted)


# --- reading ------------------------------------------------------------------------------------


def file(stream: Stream, path: str) -> Result:
    """From opening a CSV or Parquet file to the last row predicted and learned.

    The package's own reader: it digests the file, checks each row, and reads ahead in a thread.
    """
    import everlearn as el
    from everlearn.data.increment import Reader
    from everlearn.data.source import open_sources
    from everlearn.jobs.begin import resolved_columns
    from everlearn.learners import as_learner

    model = el.Model("online", learner=_linear("sgd"), schema=el.Schema(target="y"))

    def run(rows: int) -> np.ndarray:
        sources = open_sources(path)
        columns = resolved_columns(model, sources)
        learner = as_learner(model.learner, columns, classes=2)
        slices = [source.slice() for source in sources]
        predicted = []
        with Reader(slices, columns, chunk=rows) as chunks:
            for chunk in chunks:
                predicted.append(learner.learn(chunk.batch, score=len(chunk.batch)).value)
        return np.concatenate(predicted)

    run(CHUNK)
    seconds, predicted = timed(lambda: run(CHUNK))
    return result(seconds, stream[1], predicted)


def memory(stream: Stream) -> Result:
    """A plain sum over the array, compiled by numba with the flags of our kernels."""
    from numba import njit

    from everlearn.learners.native.compile import FASTMATH

    X = stream[0]

    @njit(fastmath=FASTMATH)
    def total(X: np.ndarray) -> float:
        found = 0.0
        for i in range(X.shape[0]):
            for j in range(X.shape[1]):
                found += X[i, j]
        return found

    total(X[:WARM])
    seconds, _ = timed(lambda: total(X))
    return {"rows": len(X), "rate": len(X) / statistics.median(seconds)}


# --- drift detectors ----------------------------------------------------------------------------


def detector(stream: Stream, name: str) -> Result:
    """All values in one call, with the defaults."""
    import everlearn.evaluation

    kind, values = getattr(everlearn.evaluation, name), peers.watched(stream, name)
    options = peers.DETECTOR_OPTIONS.get(name, {})
    kind(**options).update(values[:WARM])
    seconds, alarms = timed(lambda: kind(**options).update(values))
    return peers.alarmed(seconds, values, alarms.tolist())


TASKS: dict[str, Callable[..., Result]] = {
    task.__name__: task
    for task in (
        logistic,
        tree,
        forest,
        auto,
        single,
        one,
        file,
        memory,
        detector,
        peers.river_logistic,
        peers.river_tree,
        peers.river_forest,
        peers.river_detector,
        peers.sklearn_sgd,
        peers.vw,
    )
}


def main() -> None:
    name, folder, stream, rows, *options = sys.argv[1:]
    try:
        found = TASKS[name](load(stream, Path(folder), int(rows)), *options)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in peers.NAMES:
            raise
        found = {"absent": f"pip install {peers.NAMES[error.name.partition('.')[0]]}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
