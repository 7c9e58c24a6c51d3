"""River, scikit-learn and Vowpal Wabbit over a stream, each as its documentation says.

A peer takes the stream in the form that is fastest for it, made before the clock starts: dicts for
River, arrays for scikit-learn, a text or cache file for Vowpal Wabbit.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from prequential import result, timed
from streams import Stream

Result = dict[str, Any]
CHUNK = 1000

NAMES = {"river": "river", "sklearn": "scikit-learn", "vowpalwabbit": "vowpalwabbit"}
"""Module → what to install."""

DETECTOR_OPTIONS = {"KSWIN": {"seed": 1}}
"""What is not left at its default: the seed, which both sides use for the same draws."""


# --- River --------------------------------------------------------------------------------------


def river_logistic(stream: Stream) -> Result:
    """Standardised online, plain SGD of rate 0.01, no regularisation: River's defaults."""
    from river.linear_model import LogisticRegression
    from river.optim import SGD
    from river.preprocessing import StandardScaler

    return _river(lambda: StandardScaler() | LogisticRegression(SGD(0.01)), stream)


def river_tree(stream: Stream, delta: str) -> Result:
    from river.tree import HoeffdingTreeClassifier

    return _river(lambda: HoeffdingTreeClassifier(delta=float(delta)), stream)


def river_forest(stream: Stream, max_features: str, seed: str) -> Result:
    """Ten trees of which each leaf looks at so many columns."""
    from river.forest import ARFClassifier

    return _river(lambda: ARFClassifier(10, int(max_features), seed=int(seed)), stream)


def river_detector(stream: Stream, name: str) -> Result:
    """One value after the other, which is how River takes them, with the defaults."""
    from river import drift

    named = name.replace("_", "")
    kind: Callable[..., Any] = getattr(drift, named, None) or getattr(drift.binary, named)
    options = DETECTOR_OPTIONS.get(name, {})
    values = watched(stream, name).tolist()

    def run() -> list[int]:
        found, alarms = kind(**options), []
        for place, value in enumerate(values):
            found.update(value)
            if found.drift_detected:
                alarms.append(place)
        return alarms

    seconds, alarms = timed(run)
    return alarmed(seconds, values, alarms)


def watched(stream: Stream, name: str) -> np.ndarray:
    """Errors for detectors that take nothing else, losses for the others."""
    return stream[1].astype(np.float64) if name.startswith(("DDM", "HDDM")) else stream[0]


def alarmed(seconds: list[float], values: Any, alarms: list[int]) -> Result:
    """What a detector says: values a second of its middle pass, and the places of its alarms."""
    middle = statistics.median(seconds)
    return {"rows": len(values), "rate": len(values) / middle, "alarms": alarms}


def _river(make: Callable[[], Any], stream: Stream) -> Result:
    X, y = stream
    names = [f"x{j}" for j in range(X.shape[1])]
    rows = [dict(zip(names, row, strict=True)) for row in X.tolist()]
    labels = y.tolist()

    def run() -> list[Any]:
        model, predicted = make(), []
        for row, label in zip(rows, labels, strict=True):
            predicted.append(model.predict_one(row))
            model.learn_one(row, label)
        return predicted

    seconds, predicted = timed(run)
    return result(seconds, y, [int(code or 0) for code in predicted])


# --- scikit-learn -------------------------------------------------------------------------------


def sklearn_sgd(stream: Stream) -> Result:
    """Each chunk is predicted with the model and the scaler as they stood before it."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.preprocessing import StandardScaler

    X, y = stream
    classes = np.array([0, 1])

    def run() -> np.ndarray:
        scaler = StandardScaler()
        model = SGDClassifier(
            loss="log_loss", alpha=0.0, learning_rate="constant", eta0=0.01, shuffle=False
        )
        predicted = np.zeros(len(y), np.int64)
        for start in range(0, len(y), CHUNK):
            rows, labels = X[start : start + CHUNK], y[start : start + CHUNK]
            if start:
                predicted[start : start + CHUNK] = model.predict(scaler.transform(rows))
            scaled = scaler.partial_fit(rows).transform(rows)
            model.partial_fit(scaled, labels, classes)
        return predicted

    seconds, predicted = timed(run)
    return result(seconds, y, predicted)


# --- Vowpal Wabbit ------------------------------------------------------------------------------


def vw(stream: Stream, path: str, form: str) -> Result:
    """Logistic loss and its other defaults: adaptive, normalised, invariant updates.

    Its own driver reads in a second thread. What it predicts is written by another pass, once.

    Args:
        path: of the rows as text.
        form: what is read: "text", or the "cache" that the other pass wrote.
    """
    from vowpalwabbit import Workspace

    said, cache = (Path(path).with_suffix(suffix) for suffix in (".said", ".cache"))
    learner = f"--loss_function logistic --quiet -d {path}"
    if not said.exists():
        Workspace(f"{learner} --cache_file {cache} -k --binary -p {said}").finish()
    command = f"{learner} --cache_file {cache}" if form == "cache" else learner
    seconds, _ = timed(lambda: Workspace(command).finish())
    return result(seconds, stream[1], (np.loadtxt(said) > 0).astype(np.int64))


def write_vw(path: Path, stream: Stream) -> None:
    """Write the rows as Vowpal Wabbit's text, columns named by their numbers."""
    with path.open("w") as file:
        for row, label in zip(stream[0].tolist(), stream[1].tolist(), strict=True):
            cells = "".join([f" {name}:{value!r}" for name, value in enumerate(row)])
            file.write(f"{2 * label - 1} |{cells}\n")
