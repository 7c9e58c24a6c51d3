"""Drift detectors: River's alarms to the position, in any portions, whatever comes in."""

import math
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from everlearn.base import InputError, SpecError
from everlearn.evaluation import ADWIN, DDM, HDDM_A, HDDM_W, KSWIN, PageHinkley
from everlearn.learners.native.drift.adwin import (
    adwin_begin,
    adwin_mean,
    adwin_size,
    adwin_update,
    adwin_variance,
    adwin_width,
)

ALL = (ADWIN, DDM, HDDM_A, HDDM_W, KSWIN, PageHinkley)


def errors():
    """Streams of 0 and 1."""
    random = np.random.default_rng(3)
    n = 12_000
    return {
        "stationary": random.random(n) < 0.3,
        "rare": random.random(n) < 0.01,
        "abrupt": random.random(n) < np.repeat([0.2, 0.5, 0.3], n // 3),
        "gradual": random.random(n) < np.linspace(0.1, 0.6, n),
        "restless": random.random(n) < np.repeat(random.random(20), n // 20),
        "never": np.zeros(500),
        "always": np.ones(500),
    }


def numbers():
    """Streams of other numbers."""
    random = np.random.default_rng(4)
    n = 12_000
    return {
        "normal": random.normal(size=n),
        "abrupt": random.normal(np.repeat(np.arange(10) % 3, n // 10)),
        "far": 1e6 + random.normal(np.repeat(np.arange(10) % 3, n // 10)),
        "gradual": random.normal(np.linspace(0, 5, n)),
        "heavy": random.standard_cauchy(n),
        "whole": random.integers(0, 4, n),
        "constant": np.full(500, 0.1),
    }


def river_detector(name, **parameters):
    drift = pytest.importorskip("river.drift", reason="River is the oracle")
    found = getattr(drift, name, None) or getattr(import_module("river.drift.binary"), name)
    return found(**parameters)


def river_positions(detector, values):
    """Where it raised alarms, and warnings."""
    alarms, warnings = [], []
    for place, value in enumerate(np.asarray(values, float).tolist()):
        detector.update(value)
        if detector.drift_detected:
            alarms.append(place)
        if getattr(detector, "warning_detected", False):
            warnings.append(place)
    return alarms, warnings


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"delta": 0.3, "clock": 1},
        {"delta": 0.05, "clock": 7, "max_buckets": 3, "min_window_length": 2, "grace_period": 30},
        {"delta": 0.1, "clock": 10, "max_buckets": 8},
    ],
)
def test_adwin_is_rivers(parameters):
    total = 0
    for name, values in {**errors(), **{f"n {k}": v for k, v in numbers().items()}}.items():
        theirs = river_detector("ADWIN", **parameters)
        alarms, _ = river_positions(theirs, values)
        ours = ADWIN(**parameters)
        assert ours.update(values).tolist() == alarms, name
        assert ours.width == theirs.width, name
        assert math.isclose(ours.mean, theirs.estimation, rel_tol=1e-9, abs_tol=1e-9), name
        total += len(alarms)
    assert total > 20


def test_adwin_keeps_rivers_window_at_each_alarm():
    values = np.random.default_rng(7).normal(np.repeat(np.arange(10) % 3, 1000))
    states = np.zeros((3, adwin_size()))
    adwin_begin(states, 1, 0.002)
    theirs = river_detector("ADWIN")
    alarms = 0
    for value in values.tolist():
        theirs.update(value)
        assert adwin_update(states, 1, value) == theirs.drift_detected
        if theirs.drift_detected:
            alarms += 1
            assert adwin_width(states, 1) == theirs.width
            assert math.isclose(adwin_mean(states, 1), theirs.estimation, rel_tol=1e-9)
            variance = theirs.variance / theirs.width
            assert math.isclose(adwin_variance(states, 1), variance, rel_tol=1e-6)
    assert alarms >= 9
    assert not states[[0, 2]].any()


@pytest.mark.parametrize(
    ("ours", "theirs", "parameters"),
    [
        (PageHinkley, "PageHinkley", {}),
        (PageHinkley, "PageHinkley", {"mode": "up", "threshold": 20.0, "delta": 0.01}),
        (PageHinkley, "PageHinkley", {"mode": "down", "min_instances": 100, "alpha": 0.99}),
        (DDM, "DDM", {}),
        (DDM, "DDM", {"warm_start": 100, "warning_threshold": 1.5, "drift_threshold": 2.5}),
        (HDDM_A, "HDDMA", {}),
        (HDDM_A, "HDDMA", {"drift_confidence": 0.01, "two_sided_test": True}),
        (HDDM_W, "HDDMW", {}),
        (HDDM_W, "HDDMW", {"lambda_val": 0.2, "two_sided_test": True}),
    ],
)
def test_alarms_and_warnings_are_rivers(ours, theirs, parameters):
    streams = errors() if ours is not PageHinkley else {**errors(), **numbers()}
    total = 0
    for name, values in streams.items():
        alarms, warnings = river_positions(river_detector(theirs, **parameters), values)
        renamed = {key.replace("lambda_val", "lambda_value"): parameters[key] for key in parameters}
        detector = ours(**renamed)
        assert detector.update(values).tolist() == alarms, name
        if ours is not PageHinkley:
            assert detector.warnings.tolist() == warnings, name
        total += len(alarms)
    assert total > 3


@pytest.mark.parametrize(
    "parameters",
    [
        {"seed": 1},
        {"seed": 7, "alpha": 0.0001, "window_size": 350, "stat_size": 20},  # draws from a set
        {"seed": 7, "alpha": 0.01, "window_size": 60, "stat_size": 5},
        {"seed": 2, "alpha": 0.01, "window_size": 120, "stat_size": 60},
    ],
)
def test_kswin_is_rivers(parameters):
    random = np.random.default_rng(5)
    streams = [
        random.normal(np.repeat([0, 1, 0], 300)),
        random.integers(0, 4, 600) + np.repeat([0, 1], 300),
        np.zeros(400),
    ]
    total = 0
    for values in streams:
        alarms, _ = river_positions(river_detector("KSWIN", **parameters), values)
        assert KSWIN(**parameters).update(values).tolist() == alarms
        total += len(alarms)
    assert total > 0


def test_a_level_too_many_leaves_the_window():
    """A row with few levels forgets its oldest values; the rest is as in a long row."""
    values = np.random.default_rng(8).normal(size=3000)
    states = np.zeros((1, adwin_size(levels=4)))
    adwin_begin(states, 0, 0.002)
    for place, value in enumerate(values):
        adwin_update(states, 0, value)
        if place % 32 == 31 and place > 200:
            width = int(adwin_width(states, 0))
            assert 4 * 8 <= width <= 5 * 15
            window = values[place + 1 - width : place + 1]
            assert math.isclose(adwin_mean(states, 0), window.mean(), abs_tol=1e-9)
            assert math.isclose(adwin_variance(states, 0), window.var(), rel_tol=1e-9)


def noisy():
    """Three changes, with NaN between, and what is no number of this world."""
    random = np.random.default_rng(9)
    values = random.random(4000) * np.repeat([0.2, 1.0, 0.3, 0.9], 1000)
    values[random.random(4000) < 0.1] = np.nan
    values[[700, 1500]] = np.inf, -np.inf
    return values


@pytest.mark.parametrize("kind", ALL)
def test_portions_make_no_difference(kind):
    values = noisy()
    whole, single, resumed = kind(), kind(), kind()
    alarms = whole.update(values).tolist()
    one_by_one = []
    for place, value in enumerate(values):
        found = single.update(value)
        assert found.tolist() == ([0] if len(found) else [])
        assert not len(found) or single.drift_detected
        one_by_one += (found + place).tolist()
    first = resumed.update(values[:1234]).tolist()
    again = kind()
    again.load(resumed.save())
    rest = (again.update(values[1234:]) + 1234).tolist()
    assert alarms == one_by_one == first + rest
    assert alarms
    for other in (single, again):
        for name, array in whole.save().arrays.items():
            np.testing.assert_array_equal(array, other.save().arrays[name])


@pytest.mark.parametrize("kind", ALL)
def test_nan_is_no_value(kind):
    values = noisy()
    alarms = kind().update(values)
    kept = np.flatnonzero(~np.isnan(values))
    assert alarms.tolist() == kept[kind().update(values[kept])].tolist()


@pytest.mark.parametrize("kind", ALL)
def test_nothing_makes_a_state_infinite(kind):
    values = np.array([np.inf, -np.inf, np.nan, 1e300, -1e300, 1e-300, 0.0] * 100)
    detector = kind()
    detector.update(values)
    detector.update([])
    if kind is not HDDM_W:  # its cut points begin at infinity
        finite = detector.save().arrays.values()
        assert all(np.isfinite(array).all() or kind in (DDM, PageHinkley) for array in finite)
    assert detector.drift_detected in (True, False)


@pytest.mark.parametrize("kind", ALL)
def test_what_does_not_fit_is_refused(kind):
    detector = kind()
    with pytest.raises(InputError, match="shape"):
        detector.update(np.zeros((2, 2)))
    with pytest.raises(InputError, match="not numbers"):
        detector.update(["a"])
    other = ADWIN() if kind is not ADWIN else DDM()
    with pytest.raises(InputError, match="state is of"):
        detector.load(other.save())


def test_states_of_another_size_are_refused():
    with pytest.raises(InputError, match="broken: array 'window'"):
        KSWIN().load(KSWIN(window_size=200).save())


def test_a_state_keeps_the_parameters_of_who_loads_it():
    values = np.random.default_rng(1).normal(np.repeat([0.0, 0.25], 1000))
    strict, loose = ADWIN(delta=1e-9), ADWIN(delta=0.1)
    strict.update(values[:1000])
    loose.load(strict.save())
    assert len(loose.update(values[1000:])) > len(strict.update(values[1000:])) == 0


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (ADWIN, {"delta": 0}),
        (ADWIN, {"clock": 0}),
        (ADWIN, {"max_buckets": 1}),
        (ADWIN, {"grace_period": -1}),
        (PageHinkley, {"threshold": 0}),
        (PageHinkley, {"mode": "sideways"}),
        (PageHinkley, {"alpha": 1.5}),
        (DDM, {"drift_threshold": -1}),
        (HDDM_A, {"drift_confidence": 1}),
        (HDDM_W, {"lambda_value": 0}),
        (KSWIN, {"alpha": 2}),
        (KSWIN, {"window_size": 50}),
    ],
)
def test_wrong_parameters_are_named(kind, parameters):
    with pytest.raises(SpecError, match=next(iter(parameters))):
        kind(**parameters)


def test_evaluation_is_imported_without_compiler():
    code = "import sys, everlearn.evaluation; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
