"""CapyMOA over a stream, run by the Python that has it; benchmarks/online.py calls this.

    PYTHON benchmarks/online_capymoa.py tree FOLDER STREAM ROWS DELTA
    PYTHON benchmarks/online_capymoa.py forest FOLDER STREAM ROWS MAX_FEATURES SEED …

Prints JSON. PYTHON is that of an environment made like this (Java 17 or later is needed too):

    python3 -m venv capymoa
    capymoa/bin/pip install torch==2.13.0 capymoa==0.15.1

The first pass, with a virtual machine that has compiled nothing yet, is what counts; how fast a
second one is, `warm_rate` tells. Rows are in Java's memory before the clock starts, and learned in
Java's own loop (`prequential_evaluation`), which times itself.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from prequential import result
from streams import Stream, load

Result = dict[str, Any]


def tree(stream: Stream, delta: str) -> Result:
    from capymoa.classifier import HoeffdingTree

    return _evaluated(stream, [lambda schema: HoeffdingTree(schema, confidence=float(delta))])


def forest(stream: Stream, max_features: str, *seeds: str) -> Result:
    """Ten trees of which each leaf looks at so many columns; scores are means over the seeds."""
    from capymoa.classifier import AdaptiveRandomForestClassifier

    def of_seed(seed: str) -> Callable[[Any], Any]:
        return lambda schema: AdaptiveRandomForestClassifier(
            schema, random_seed=int(seed), ensemble_size=10, max_features=int(max_features)
        )

    return _evaluated(stream, [of_seed(seed) for seed in seeds])


def _evaluated(stream: Stream, makers: list[Callable[[Any], Any]]) -> Result:
    from capymoa.evaluation import prequential_evaluation

    source = _in_memory(stream)
    schema = source.get_schema()
    seconds, predicted = [], []
    for make in [*makers, makers[0]]:
        found = prequential_evaluation(source, make(schema), store_predictions=True)
        seconds.append(float(found.wallclock()))
        predicted.append(np.array(found.predictions()).astype(np.int64))
    scored = result(seconds[:1], stream[1], *predicted[: len(makers)])
    warm = len(stream[1]) / seconds[-1]
    return scored | {"warm_rate": warm, "version": version("capymoa")}


def _in_memory(stream: Stream) -> Any:
    """A stream of CapyMOA whose rows Java holds."""
    from capymoa.stream import ARFFStream
    from com.yahoo.labs.samoa.instances import Instances
    from moa.streams import CachedInstancesStream

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stream.arff")
        _write_arff(path, stream)
        source: Any = ARFFStream(str(path))
        rows = Instances(source.moa_stream.getHeader())
        while source.moa_stream.hasMoreInstances():
            rows.add(source.moa_stream.nextInstance().getData())
    source.moa_stream = CachedInstancesStream(rows)
    return source


def _write_arff(path: Path, stream: Stream) -> None:
    X, y = stream
    with path.open("w") as file:
        file.write("@relation stream\n")
        file.writelines(f"@attribute x{j} numeric\n" for j in range(X.shape[1]))
        file.write("@attribute y {0,1}\n@data\n")
        for row, label in zip(X.tolist(), y.tolist(), strict=True):
            file.write(",".join(map(repr, row)) + f",{label}\n")


if __name__ == "__main__":
    name, folder, stream, rows, *options = sys.argv[1:]
    task: Callable[..., Result] = {"tree": tree, "forest": forest}[name]
    print(json.dumps(task(load(stream, Path(folder), int(rows)), *options)))
