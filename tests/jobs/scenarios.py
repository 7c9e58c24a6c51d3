"""Small models and files on which jobs are killed: each kind of start, memory, order, learner."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from sklearn.decomposition import IncrementalPCA
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier

import everlearn as el
from everlearn.learners import as_learner
from everlearn.testing.learner import COLUMNS, make_rows

ROWS = 700
"""Rows of the first file; the second has half as many."""

CHUNK = 25
CHECKPOINT_ROWS = 100


def table(rows: int, seed: int = 0, first_id: int = 0) -> pa.Table:
    """Numbers, a category with missing values, event times that are not quite in order, and ids of
    which one in fifty comes twice."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)).round(6)
    kind = rng.integers(0, 5, rows)
    late = x @ [1.0, -1.0, 0.5, 0.0] + 0.4 * kind + rng.normal(size=rows) > 0.8
    ids = np.arange(first_id, first_id + rows)
    twice = rng.random(rows) < 0.02
    twice[0] = False
    ids[twice] = ids[np.flatnonzero(twice) - 1]
    seconds = 1_600_000_000 + 3600 * np.arange(first_id, first_id + rows)
    seconds += rng.integers(0, 40_000, rows)
    names = ["a", "b", "c", None, "d"]
    return pa.table(
        {
            "id": ids,
            "at": pa.array(seconds * 1_000_000, pa.timestamp("us")),
            **{f"x{k}": x[:, k] for k in range(4)},
            "kind": pa.array([names[k] for k in kind]),
            "late": late.astype(np.int64),
        }
    )


def write(path: Path, data: pa.Table) -> Path:
    """Write a table in the format that the name says."""
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(data, path)
    else:
        pyarrow.parquet.write_table(data, path, row_group_size=128)
    return path


def write_files(folder: Path, suffix: str = ".parquet", rows: int = ROWS) -> list[str]:
    """The two files that each scenario learns, one job each."""
    folder.mkdir(parents=True, exist_ok=True)
    first = write(folder / f"first{suffix}", table(rows, seed=1))
    second = write(folder / f"second{suffix}", table(rows // 2, seed=2, first_id=rows))
    return [str(first), str(second)]


def _logistic() -> SGDClassifier:
    return SGDClassifier(loss="log_loss")


def _schema(**given: Any) -> el.Schema:
    return el.Schema(target="late", **{"time": "at", "ignore": ("id",), **given})


def _model(name: str, learner: Any, schema: el.Schema | None = None, **strategy: Any) -> el.Model:
    return el.Model(
        name,
        learner=learner,
        schema=schema or _schema(),
        strategy=el.Strategy(chunk=CHUNK, **strategy),
        holdout=0.1,
    )


def models() -> dict[str, el.Model]:
    """Name → model."""
    made = [
        _model("plain", _logistic()),
        _model("reservoir", _logistic(), memory=el.Reservoir(150)),
        _model("scratch", _logistic(), start="scratch", memory=el.Everything()),
        _model("passes", _logistic(), memory=el.Balanced(120), passes=2),
        _model("shuffle", _logistic(), order=el.Shuffle(90), passes=2),
        _model("time", _logistic(), order="time", memory=el.Window(rows=200)),
        _model("ids", None, _schema(id="id", ignore=()), memory=el.Prioritized(100)),
        _model("mlp", MLPClassifier((5,)), _schema(ignore=("id", "kind")), memory=el.Decay(300)),
        _model(
            "chain",
            el.Chain(el.Encoder(categories="onehot"), IncrementalPCA(4), _logistic()),
            _schema(id="id", ignore=()),
            order=el.Shuffle(110, seed=3),
            memory=el.Reservoir(80, ratio=0.5),
        ),
        _model(
            "tree", el.learners.HoeffdingTreeClassifier(grace_period=30), memory=el.Reservoir(70)
        ),
        _model("forest", el.learners.AdaptiveRandomForestClassifier(n_models=3), passes=2),
        _model("gate", None, memory=el.Reservoir(60)).replace(
            gate=el.NonInferior("log_loss", margin=0.5), holdout=0.2
        ),
    ]
    if find_spec("torch") is not None:
        made.append(_model("torch", _torch(), memory=el.Reservoir(90), passes=2))
    if find_spec("lightgbm") is not None:
        boosted = el.learners.LightGBM({"num_leaves": 7}, trees=2, at_most=30)
        made.append(_model("boosted", boosted, memory=el.Reservoir(90)))
    if find_spec("river") is not None:
        made.append(_model("river", _river(), memory=el.Reservoir(70)))
    return {model.name: model for model in made}


def network() -> Any:
    from torch import nn, set_num_threads

    set_num_threads(1)
    return nn.Sequential(
        nn.LazyLinear(12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(12, 2),
    )


def _torch() -> Any:
    encoder = el.learners.Encoder(categories="onehot", buckets=8)
    return el.learners.TorchLearner(network, batch=10, encoder=encoder)


def _river() -> Any:
    from river import compose, ensemble, naive_bayes

    return compose.SelectType(float) | ensemble.BaggingClassifier(naive_bayes.GaussianNB(), 2)


def load_kernels() -> None:
    """Compile the kernels of native learners, or load them from disk, and what other libraries
    import at their first step, in this process: not in each that is forked from it."""
    for model in models().values():
        learner = as_learner(model.learner, COLUMNS, classes=2)
        if getattr(learner, "per_row", False) or model.name in ("torch", "boosted"):
            learner.learn(make_rows(0, 200), score=100)
            learner.predict(make_rows(0, 10))
