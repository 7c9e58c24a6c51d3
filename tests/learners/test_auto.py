"""The learner for someone who does not know what to choose."""

import subprocess
import sys

import numpy as np
import pytest

from everlearn.base import Columns, InputError, Part, SpecError
from everlearn.learners import Auto, as_learner, learner_kind
from everlearn.learners.native.auto import CLASSIFIERS, REGRESSORS
from everlearn.learners.native.baselines import LastValue, Majority, NoChange, RunningMean
from everlearn.learners.native.members import own_seed
from everlearn.testing.learner import COLUMNS


def normal(rows, columns=4, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def linear(rows):
    X = normal(rows)
    return X, X @ [1.0, -2.0, 0.5, 0.0]


def crossed(rows):
    X = normal(rows)
    return X, np.where(X[:, 0] * X[:, 1] > 0, 1.0, -1.0) * (1.0 + np.abs(X[:, 2]))


def turning(rows):
    X, score = linear(rows)
    return X, np.where(np.arange(rows) < rows // 2, score, -score)


def lasting(rows):
    stays = np.cumsum(np.random.default_rng(1).random(rows) < 0.1)
    return normal(rows), np.random.default_rng(2).normal(size=rows)[stays]


def nothing(rows):
    return normal(rows), np.random.default_rng(3).normal(size=rows) - 0.8


STREAMS = [linear, crossed, turning, lasting, nothing]


def seeded(experts, *simple):
    """Copies of the experts, and the seeds with which `Auto` makes them."""
    for number, one in enumerate((*experts, *simple)):
        takes = "seed" in one.get_params()
        yield one.clone(), {"seed": own_seed(0, number)} if takes else {}


@pytest.mark.parametrize("stream", STREAMS)
def test_as_good_as_the_best_of_its_experts_on_classes(stream):
    X, score = stream(12_000)
    y = (score > 0).astype(int)
    late = slice(2_000, None)
    alone = {}
    for one, seed in seeded(CLASSIFIERS, Majority(), NoChange()):
        made = one.set_params(classes=2, **seed)
        alone[repr(one)] = (made.score_then_learn(X, y) == y)[late].mean()
    found = (Auto(classes=2).score_then_learn(X, y) == y)[late].mean()
    assert found > max(alone.values()) - 0.005, alone


@pytest.mark.parametrize("stream", STREAMS)
def test_as_good_as_the_best_of_its_experts_on_quantities(stream):
    X, y = stream(12_000)
    late = slice(2_000, None)
    alone = {}
    for one, seed in seeded(REGRESSORS, RunningMean(), LastValue()):
        made = one.set_params(**seed)
        alone[repr(one)] = np.mean((made.score_then_learn(X, y) - y)[late] ** 2)
    found = np.mean((Auto().score_then_learn(X, y) - y)[late] ** 2)
    assert found < min(alone.values()) * 1.2 + 1e-5 * np.var(y), alone


def test_the_target_decides():
    X, y = linear(500)
    assert Auto().partial_fit(X, y).kind == "regressor"
    assert Auto().partial_fit(X, y > 0).kind == "classifier"
    assert Auto().partial_fit(X, np.where(y > 0, "up", "down")).classes_.tolist() == ["down", "up"]
    assert Auto(task="regressor").partial_fit(X, (y > 0).astype(int)).kind == "regressor"
    assert Auto(task="classifier").partial_fit(X, y.round()).kind == "classifier"
    assert Auto(classes=3).kind == "classifier"
    with pytest.raises(SpecError, match="task"):
        Auto(task="clusterer").partial_fit(X, y)
    with pytest.raises(SpecError, match="task='regressor' does not go with classes"):
        Auto(classes=3, task="regressor").partial_fit(X, y)
    with pytest.raises(SpecError, match="task='regressor' does not go with classes"):
        Auto(task="regressor").partial_fit(X, y, classes=[0, 1])


def test_no_row_decides_nothing():
    X, y = linear(100)
    auto = Auto()
    for nothing in (
        lambda: auto.partial_fit(X[:0], y[:0]),
        lambda: auto.score_then_learn(X[:0], y[:0]),
        lambda: auto.partial_fit(X, y, sample_weight=np.zeros(100)),
    ):
        nothing()
        assert auto.kind is None
    for wrong in ([0.0, np.nan], [0.0, 1.0, 1.0]):
        with pytest.raises(InputError):
            auto.partial_fit(X[:2], wrong)
        assert auto.kind is None
    assert auto.partial_fit(X, y).kind == "regressor"
    assert auto.partial_fit(X[:0], y[:0]).kind == "regressor"
    assert Auto().partial_fit(X[:0], y[:0], classes=[0, 1]).kind == "classifier"


def test_numbers_among_objects_decide_as_numbers():
    """As in a column of pandas' nullable numbers."""
    X, y = linear(100)
    assert Auto().partial_fit(X, y.astype(object)).kind == "regressor"
    assert Auto().partial_fit(X, np.arange(100).astype(object)).kind == "regressor"
    assert Auto().partial_fit(X, (y > 0).astype(object)).kind == "classifier"


def test_a_state_that_is_none_is_refused():
    with pytest.raises(InputError, match="the state is of None, not Auto"):
        Auto().load({"native": Part(meta=[1])})


def test_the_columns_of_a_model_decide():
    kinds = {"integer": "classifier", "text": "classifier", "number": "regressor"}
    for kind, expected in kinds.items():
        columns = Columns(numbers=("x",), target="y", target_kind=kind)
        for definition in (None, Auto(), "auto"):
            learner = as_learner(definition, columns)
            assert learner.kind == learner_kind(definition, columns) == expected
            assert learner.per_row
            assert type(learner.estimator).__name__.startswith("Auto")
    assert as_learner(None, columns, classes=2).kind == "classifier"


def test_on_sparse_rows_there_are_only_experts_that_take_them():
    sparse = pytest.importorskip("scipy.sparse")
    X, score = linear(2_000)
    rows = sparse.csr_matrix(np.where(np.abs(X) > 0.5, X, 0.0))
    y = (score > 0).astype(int)
    auto = Auto().partial_fit(rows[:1500], y[:1500])
    assert (auto.predict(rows[1500:]) == y[1500:]).mean() > 0.8
    assert not any("Tree" in name or "Forest" in name for name in auto.weights_)
    assert any("Logistic" in name for name in auto.weights_)


def test_weights_tell_who_is_followed():
    X, score = linear(3_000)
    auto = Auto(classes=2).partial_fit(X, (score > 0).astype(int))
    assert sum(auto.weights_.values()) == pytest.approx(1.0)
    linear_weight = sum(weight for name, weight in auto.weights_.items() if "Logistic" in name)
    assert linear_weight > 0.9


def test_what_compiles_is_imported_only_when_it_is_used():
    code = (
        "import sys, everlearn, everlearn.learners as l, everlearn.cli.app;"
        "l.Encoder(); l.as_learner;"
        "sys.exit(any(name.startswith(('numba', 'sklearn')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_columns_of_every_kind():
    learner = as_learner(Auto(), COLUMNS, classes=2)
    assert learner.kind == "classifier"
