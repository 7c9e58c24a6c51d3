"""Streaming metrics against scikit-learn's; saving and looking in between changes nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from everlearn.base import InputError, Part, Prediction
from everlearn.evaluation.classification import CALIBRATION_BINS
from everlearn.evaluation.metrics import BLOCK, Metrics


def draw(n, k, seed=0, sharp=1.3):
    """Probabilities that are a little too sure, and classes drawn from the right ones."""
    rng = np.random.default_rng(seed)
    right = np.exp(rng.normal(size=(n, k)) * 2)
    right /= right.sum(axis=1, keepdims=True)
    y = np.minimum((right.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), k - 1)
    proba = right**sharp
    return y, proba / proba.sum(axis=1, keepdims=True)


def predicted(proba):
    return Prediction(value=proba.argmax(axis=1), proba=proba)


def add_all(metrics, y, prediction, chunk):
    for start in range(0, len(y), chunk):
        rows = slice(start, start + chunk)
        metrics.add(y[rows], prediction.take(rows))
    return metrics


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("n", [40, 30_000])
def test_classifier_agrees_with_scikit_learn(k, n):
    y, proba = draw(n, k)
    found = add_all(Metrics("classifier"), y, predicted(proba), 700).results()
    value = proba.argmax(axis=1)
    assert found["rows"] == n
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, value), abs=1e-12)
    assert found["kappa"] == pytest.approx(sk.cohen_kappa_score(y, value), abs=1e-9)
    labels = list(range(k))
    assert found["log_loss"] == pytest.approx(sk.log_loss(y, proba, labels=labels), abs=1e-9)
    exact = n * k <= 200_000 and n <= 20_000
    truth = np.eye(k)[y][:, 1:] if k == 2 else np.eye(k)[y]
    scores = proba[:, 1:] if k == 2 else proba
    areas = {
        "roc_auc": np.mean(
            [sk.roc_auc_score(t, s) for t, s in zip(truth.T, scores.T, strict=True)]
        ),
        "pr_auc": np.mean(
            [sk.average_precision_score(t, s) for t, s in zip(truth.T, scores.T, strict=True)]
        ),
    }
    for name, area in areas.items():
        bound = found[f"{name}_error"]
        assert (bound == 0.0) == exact
        assert bound < 0.005
        assert abs(found[name] - area) <= bound + 1e-9
    if k == 2:
        assert found["brier"] == pytest.approx(sk.brier_score_loss(y, proba[:, 1]), abs=1e-9)
    else:
        full = ((proba - np.eye(k)[y]) ** 2).sum(axis=1).mean()
        assert found["brier"] == pytest.approx(full, abs=1e-9)


def test_calibration_error_by_its_definition():
    y, proba = draw(5_000, 2)
    found = add_all(Metrics("classifier"), y, predicted(proba), 900).results()
    place = np.minimum((proba[:, 1] * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [
        abs(proba[place == b, 1].mean() - (y[place == b] == 1).mean()) * (place == b).mean()
        for b in range(CALIBRATION_BINS)
        if (place == b).any()
    ]
    assert found["calibration_error"] == pytest.approx(sum(gaps), abs=1e-9)
    rng = np.random.default_rng(1)
    right = rng.random(200_000)
    hits = (rng.random(200_000) < right).astype(np.int64)
    calibrated = Metrics("classifier")
    calibrated.add(hits, predicted(np.stack([1 - right, right], axis=1)))
    assert calibrated.results()["calibration_error"] < 0.005


def test_kappa_temporal_and_baselines():
    y = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    value = np.array([0, 0, 1, 1, 1, 1, 0, 0])
    found = add_all(Metrics("classifier"), y, Prediction(value=value), 3).results()
    still = 5 / 7
    assert found["baselines"]["no_change"]["accuracy"] == pytest.approx(still)
    assert found["kappa_temporal"] == pytest.approx((6 / 8 - still) / (1 - still))
    majority = found["baselines"]["majority"]
    assert majority["accuracy"] == 0.5
    assert majority["log_loss"] == pytest.approx(np.log(2))
    assert majority["brier"] == pytest.approx(0.25)


def test_without_probabilities_their_metrics_are_absent_not_nan():
    y = np.array([0, 1, 1])
    metrics = Metrics("classifier")
    metrics.add(y, Prediction(value=y))
    found = metrics.results()
    assert found["accuracy"] == 1.0
    for name in ("log_loss", "brier", "roc_auc", "pr_auc", "calibration_error"):
        assert found[name] is None
    metrics.add(y, predicted(np.full((3, 2), 0.5)))
    assert metrics.results()["log_loss"] is None


def test_nothing_is_defined_before_the_first_row():
    for kind in ("classifier", "regressor", "clusterer", "transformer"):
        found = Metrics(kind).results()
        assert found["rows"] == 0
        assert "accuracy" not in found or found["accuracy"] is None


def test_answers_that_are_not_finite_are_counted_and_nothing_is_nan():
    y, proba = draw(100, 2)
    proba[7] = np.nan
    metrics = Metrics("classifier")
    metrics.add(y, predicted(proba))
    found = metrics.results()
    assert found["nonfinite"] == 1
    assert found["log_loss"] is None
    assert found["roc_auc"] is None
    proba[8], proba[9] = [np.inf, 0.5], [-np.inf, 0.5]
    metrics.add(y, predicted(proba))
    assert metrics.results()["nonfinite"] == 4


@pytest.mark.parametrize("value", [[np.inf, 2.0], [np.inf, -np.inf], [np.nan, 0.0], [1e200, 0.0]])
def test_errors_that_are_not_finite_leave_nothing_to_report(value):
    regressor = Metrics("regressor")
    regressor.add(np.array([1.0, 2.0]), Prediction(value=np.array(value)))
    found = regressor.results()
    assert ("nonfinite" in found) == (value[0] != 1e200)
    for name in ("mae", "rmse", "r2"):
        assert found[name] is None
    assert found["baselines"]["last_value"]["mae"] == 1.0
    regressor.add(np.array([np.inf, 3.0]), Prediction(value=np.zeros(2)))
    assert np.isfinite(regressor.results()["baselines"]["mean"]["rmse"])


@pytest.mark.parametrize("rows", [500, 30_000])
@pytest.mark.parametrize("steps", [(1, 2, 3), (2, 3, 18), (2, 17)])
def test_classes_that_come_later_had_probability_zero(rows, steps):
    """Growing k gives what padding all probabilities with zeros from the start gives."""
    grown, whole = Metrics("classifier"), Metrics("classifier")
    ys, probas = [], []
    for place, k in enumerate(steps):
        y, proba = draw(rows, k, seed=place)
        grown.add(y, predicted(proba))
        ys.append(y)
        wide = np.zeros((rows, steps[-1]))
        wide[:, :k] = proba
        probas.append(wide)
    y, proba = np.concatenate(ys), np.concatenate(probas)
    whole.add(y, predicted(proba))
    found, expected = grown.results(), whole.results()
    bounds = {
        name: found.pop(name) + expected.pop(name) for name in ("roc_auc_error", "pr_auc_error")
    }
    for name, bound in (("roc_auc", bounds["roc_auc_error"]), ("pr_auc", bounds["pr_auc_error"])):
        assert found.pop(name) == pytest.approx(expected.pop(name), abs=bound + 1e-12)
    # Where the bins of one class are folded, a probability of exactly one half may change its bin.
    assert found.pop("calibration_error") == pytest.approx(
        expected.pop("calibration_error"), abs=1e-6
    )
    assert flat(found) == pytest.approx(flat(expected), abs=1e-9)


def flat(found):
    figures = {name: value for name, value in found.items() if not isinstance(value, dict)}
    for name, value in found.items():
        if isinstance(value, dict):
            figures |= {f"{name}.{inner}": x for inner, x in flat(value).items()}
    return figures


def test_class_unknown_to_the_learner_counts_as_wrong_and_is_not_ranked():
    y = np.array([0, 1, -1, 1])
    proba = np.array([[0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.6, 0.4]])
    metrics = Metrics("classifier")
    metrics.add(y, predicted(proba))
    found = metrics.results()
    assert found["accuracy"] == 0.5
    chances = [0.8, 0.7, np.finfo(float).eps, 0.4]
    assert found["log_loss"] == pytest.approx(-np.log(chances).mean())
    assert found["brier"] == pytest.approx(((1 - np.array([0.8, 0.7, 0, 0.4])) ** 2).mean())
    assert found["roc_auc"] == 1.0


def test_positive_class_decides_average_precision_only():
    for n in (3_000, 40_000):
        y, proba = draw(n, 2)
        y[: n // 2] = 1
        metrics = Metrics("classifier")
        metrics.add(y, predicted(proba))
        one, zero = metrics.results(positive=1), metrics.results(positive=0)
        assert one["roc_auc"] == pytest.approx(zero["roc_auc"], abs=1e-12)
        for found, code in ((one, 1), (zero, 0)):
            exact = sk.average_precision_score(y == code, proba[:, code])
            assert abs(found["pr_auc"] - exact) <= found["pr_auc_error"] + 1e-9


def test_more_classes_than_are_ranked():
    y, proba = draw(300, 120)
    metrics = add_all(Metrics("classifier"), y, predicted(proba), 50)
    found = metrics.results()
    assert found["roc_auc"] is None
    assert found["log_loss"] == pytest.approx(sk.log_loss(y, proba, labels=range(120)))
    other = add_all(Metrics("classifier"), *[(y % 3), predicted(draw(300, 3)[1])], 50)
    other.merge(metrics)
    assert other.results()["rows"] == 600
    assert other.results()["roc_auc"] is None


def test_regressor_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    y = rng.normal(5.0, 3.0, 12_345)
    value = y + rng.normal(0.3, 1.0, len(y))
    found = add_all(Metrics("regressor"), y, Prediction(value=value), 500).results()
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(y, value), abs=1e-9)
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(y, value), abs=1e-9)
    assert found["r2"] == pytest.approx(sk.r2_score(y, value), abs=1e-9)
    for q in (0.1, 0.5, 0.9):
        expected = sk.mean_pinball_loss(y, value, alpha=q)
        assert found["quantile_loss"][str(q)] == pytest.approx(expected, abs=1e-9)
    baselines = found["baselines"]
    assert baselines["last_value"]["mae"] == pytest.approx(np.abs(np.diff(y)).mean())
    assert baselines["last_value"]["rmse"] == pytest.approx(np.sqrt((np.diff(y) ** 2).mean()))
    assert baselines["mean"]["rmse"] == pytest.approx(y.std())
    before = np.cumsum(y)[:-1] / np.arange(1, len(y))
    assert baselines["mean"]["mae"] == pytest.approx(np.abs(y[1:] - before).mean())


def test_r2_survives_a_huge_offset():
    rng = np.random.default_rng(0)
    y = 1e9 + rng.normal(size=20_000)
    value = y + rng.normal(size=20_000) * 0.5
    found = add_all(Metrics("regressor"), y, Prediction(value=value), 333).results()
    assert found["r2"] == pytest.approx(sk.r2_score(y, value), abs=1e-6)


def test_learners_without_a_target():
    errors = Metrics("transformer")
    errors.add(None, Prediction(value=np.array([1.0, 3.0])))
    assert errors.results()["reconstruction_error"] == 2.0
    clusters = Metrics("clusterer")
    for _ in range(3):
        clusters.add(None, Prediction(value=np.array([0, 4, 4])))
    assert clusters.results()["clusters"] == 2
    for metrics in (errors, clusters):
        again = Metrics.load(metrics.save())
        again.merge(metrics)
        assert again.results()["rows"] == 2 * len(metrics)


def test_wrong_calls_say_so():
    with pytest.raises(InputError, match="'classifier', not 'oracle'"):
        Metrics("oracle")
    with pytest.raises(InputError, match="2 predictions were given with 3 targets"):
        Metrics("regressor").add(np.zeros(3), Prediction(value=np.zeros(2)))
    with pytest.raises(InputError, match="no target"):
        Metrics("regressor").add(None, Prediction(value=np.zeros(2)))
    with pytest.raises(InputError, match="regressor cannot be merged into a classifier"):
        Metrics("classifier").merge(Metrics("regressor"))


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 2 * BLOCK), min_size=1, max_size=6),
    saves=st.sets(st.integers(0, 5)),
    kind=st.sampled_from(["two", "grow", "numbers"]),
)
def test_saving_and_looking_in_between_change_no_bit(cuts, saves, kind):
    plain = Metrics("regressor" if kind == "numbers" else "classifier")
    stored = Metrics(plain.kind)
    for place, n in enumerate(cuts):
        if kind == "numbers":
            rng = np.random.default_rng(place)
            y, prediction = rng.normal(size=n), Prediction(value=rng.normal(size=n))
        else:
            y, proba = draw(n, 2 + (place if kind == "grow" else 0), seed=place)
            prediction = predicted(proba)
        plain.add(y, prediction)
        stored.add(y, prediction)
        if place in saves:
            stored.results()
            part = stored.save()
            stored = Metrics.load(Part(part.arrays, part.meta))
    assert stored.save().digest == plain.save().digest
    assert stored.results() == plain.results()


@settings(max_examples=25, deadline=None)
@given(
    left=st.integers(0, 25_000),
    right=st.integers(0, 25_000),
    k=st.tuples(st.integers(2, 4), st.integers(2, 4)),
)
def test_merging_is_like_adding(left, right, k):
    first, second = draw(left, k[0], seed=1), draw(right, k[1], seed=2)
    one, two, both = (Metrics("classifier") for _ in range(3))
    for metrics, parts in ((one, [first]), (two, [second]), (both, [first, second])):
        for y, proba in parts:
            metrics.add(y, predicted(proba))
    before = two.save().digest
    one.merge(two)
    assert two.save().digest == before
    found, expected = one.results(), both.results()
    for name in ("roc_auc", "pr_auc"):
        bound = (found.pop(f"{name}_error") or 0) + (expected.pop(f"{name}_error") or 0)
        assert found.pop(name) == pytest.approx(expected.pop(name), abs=bound + 1e-12)
    assert found.pop("calibration_error") == pytest.approx(
        expected.pop("calibration_error"), abs=1e-9
    )
    assert flat(found) == pytest.approx(flat(expected), abs=1e-9)


def test_merged_regressors_are_like_one():
    rng = np.random.default_rng(0)
    y, value = rng.normal(size=900), rng.normal(size=900)
    one, two, both = (Metrics("regressor") for _ in range(3))
    one.add(y[:400], Prediction(value=value[:400]))
    two.add(y[400:], Prediction(value=value[400:]))
    both.add(y, Prediction(value=value))
    one.merge(two)
    found, expected = one.results(), both.results()
    found["baselines"]["mean"].pop("mae")
    expected["baselines"]["mean"].pop("mae")
    assert flat(found) == pytest.approx(flat(expected), abs=1e-12)


def test_memory_is_bounded():
    metrics = Metrics("classifier")
    sizes = []
    for seed in range(12):
        y, proba = draw(10_000, 2, seed=seed)
        metrics.add(y, predicted(proba))
        sizes.append(sum(array.nbytes for array in metrics.save().arrays.values()))
    assert max(sizes[3:]) <= 2 * 2 * 2 * 7_937 * 8
