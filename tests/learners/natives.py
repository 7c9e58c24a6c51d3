"""The native learners that the tests of this folder go through, with what is particular to each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from everlearn import learners

TREES = {
    "adaptive_random_forest",
    "adaptive_random_forest_regressor",
    "auto",
    "half_space_trees",
    "hoeffding_adaptive_tree",
    "hoeffding_adaptive_tree_regressor",
    "hoeffding_tree",
    "hoeffding_tree_regressor",
    "regression_bins",
    "tree_core",
    "trees_at_limits",
    "trees_from_elsewhere",
}
"""Modules and files of tests that share the kernels of trees, which take longest to compile."""


def group_of(stem: str) -> str:
    """The group of a learner's module, or of a file without its "test_" (see `conftest`)."""
    return "trees" if stem in TREES else stem


@dataclass(frozen=True)
class Entry:
    """One definition.

    Args:
        name: of the class in `everlearn.learners`.
        params: of its constructor.
        suite: attributes of `PerRowSuite`.
        classes: how many a classifier is given.
        pairs: whether its rows are ids of users and items.
        merges: what `merge` makes: "rows", what learned the rows of all; "scores", whose scores are
            the average, weighted by rows ("logarithms", of its values); "windows", whose last rows
            are those of all; "" without such a method.
        checks: those of scikit-learn that it need not pass, and why.
    """

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    suite: dict[str, Any] = field(default_factory=dict)
    classes: int = 3
    pairs: bool = False
    merges: str = ""
    checks: dict[str, str] = field(default_factory=dict)

    @property
    def module(self) -> str:
        return f"everlearn.learners.{learners._HOME[self.name]}"

    @property
    def group(self) -> str:
        """Of the tests that share its kernels: they run in one process (see `conftest`)."""
        return group_of(self.module.rpartition(".")[2])

    def make(self, **params: Any) -> Any:
        return getattr(learners, self.name)(**self.params | params)


def chances(rows: int, columns: int, seed: int) -> Any:
    """(rows, columns) numbers from 0 to 1 that are the same for ever: golden files need them."""
    with np.errstate(over="ignore"):
        bits = np.arange(rows * columns, dtype=np.uint64) + np.uint64(seed << 32)
        bits = (bits + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)  # SplitMix64
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
    return (bits >> np.uint64(11)).reshape(rows, columns) / 2.0**53


def data(entry: Entry, rows: int, seed: int = 0) -> tuple[Any, Any]:
    """(rows, 4) numbers, some missing, and a target of the kind that a definition learns: texts,
    numbers, or None."""
    chance = chances(rows, 8, seed)
    X = 3.0 * (chance[:, :4] + chance[:, 1:5] - 1.0)
    X[:, 3] = np.floor(5.0 * chance[:, 3])
    told = X[:, 0] + 0.5 * (X[:, 3] > 2) + 0.4 * chance[:, 5]
    X[chance[:, 6] < 0.05, 1] = np.nan
    if entry.suite.get("positive"):
        X = np.abs(X)
    if entry.pairs:
        X = np.floor(10.0 * chance[:, :2] ** 2)
        told = np.where((X[:, 0] + X[:, 1]) % 2, 1.0, -1.0)
    if entry.suite.get("targets_from_0"):
        told = np.abs(told)
    learner = entry.make()
    if learner.kind == "classifier":
        names = ["middle", "low", "top"][: entry.classes]
        return X, np.array(names)[np.digitize(told, [0.0, 1.0][: entry.classes - 1])]
    return X, told if getattr(learner, "targeted", True) else None


LOOKS_AT_NOTHING = {"learns": False, "computes": False, "state_bytes": 1000}
POOR = {
    "check_classifiers_train": "it looks at no feature",
    "check_regressors_train": "it looks at no feature",
}


def linear(name: str, suite: Any = (), merges: str = "scores", **params: Any) -> Entry:
    suite = {"state_bytes": 10_000} | dict(suite)
    return Entry(name, {"bits": 6} | params, suite, merges=merges)


TABLE = {
    "majority": Entry("Majority", suite=LOOKS_AT_NOTHING | {"weights_repeat": True}, checks=POOR),
    "no change": Entry("NoChange", suite=LOOKS_AT_NOTHING, checks=POOR),
    "running mean": Entry(
        "RunningMean", suite=LOOKS_AT_NOTHING | {"weights_repeat": True}, checks=POOR
    ),
    "last value": Entry("LastValue", suite=LOOKS_AT_NOTHING, checks=POOR),
    "gaussian naive bayes": Entry("GaussianNB", suite={"weights_repeat": True}, merges="rows"),
    "bernoulli naive bayes": Entry(
        "BernoulliNB",
        suite={"weights_repeat": True},
        merges="rows",
        checks={"check_classifiers_train": "it looks at the signs of numbers only"},
    ),
    "multinomial naive bayes": Entry(
        "MultinomialNB",
        {"bits": 12},
        {"weights_repeat": True, "positive": True},
        merges="rows",
        checks={
            "check_classifiers_train": "its data are no counts",
            "check_decision_proba_consistency": "its data are negative",
        },
    ),
    "logistic": linear("LogisticRegression"),
    "logistic, sgd": linear("LogisticRegression", learning_rate=0.05, l1=1e-3, l2=1e-3),
    "logistic, adagrad": linear("LogisticRegression", optimizer="adagrad", l1=1e-3),
    "logistic, adam": linear("LogisticRegression", optimizer="adam", l2=1e-3),
    "logistic, ftrl": linear("LogisticRegression", optimizer="ftrl", l1=0.1, l2=0.1),
    "logistic, as it is": linear(
        "LogisticRegression", {"learns": False}, standardize=False, invariant=True
    ),
    "svm": linear("LinearSVM"),
    "linear": linear("LinearRegression"),
    "huber": linear("LinearRegression", loss="huber"),
    "quantile": linear("LinearRegression", loss="quantile", optimizer="adagrad"),
    "poisson": linear("LinearRegression", {"targets_from_0": True}, "logarithms", loss="poisson"),
    "passive-aggressive": linear("PassiveAggressiveClassifier"),
    "passive-aggressive on values": linear("PassiveAggressiveRegressor"),
    "hoeffding tree": Entry(
        "HoeffdingTreeClassifier",
        {"grace_period": 30, "delta": 1e-3, "max_bytes": 60_000},
        {"state_bytes": 60_000, "growth": 1.2},
    ),
    "hoeffding adaptive tree": Entry(
        "HoeffdingAdaptiveTreeClassifier",
        {"grace_period": 30, "delta": 1e-3, "max_bytes": 200_000},
        {"state_bytes": 200_000, "growth": 1.2},
    ),
    "hoeffding adaptive tree regressor": Entry(
        "HoeffdingAdaptiveTreeRegressor",
        {"grace_period": 30, "delta": 1e-3, "max_bytes": 300_000},
        {"state_bytes": 300_000, "growth": 1.2},
    ),
    "hoeffding tree regressor": Entry(
        "HoeffdingTreeRegressor",
        {"grace_period": 30, "delta": 1e-3, "max_bytes": 200_000},
        {"state_bytes": 200_000, "growth": 1.2},
    ),
    "adaptive random forest regressor": Entry(
        "AdaptiveRandomForestRegressor",
        {"n_models": 3, "max_bytes": 1_200_000},
        {"state_bytes": 1_200_000, "growth": 1.5},
    ),
    "adaptive random forest": Entry(
        "AdaptiveRandomForestClassifier",
        {"n_models": 3, "max_bytes": 600_000},
        {"state_bytes": 600_000, "growth": 1.5},
    ),
    "adaptive random forest in threads": Entry(
        "AdaptiveRandomForestClassifier",
        {"n_models": 3, "max_bytes": 600_000, "n_jobs": 2},
        {"state_bytes": 600_000, "growth": 1.5},
    ),
    "auto": Entry("Auto", {"task": "classifier"}, {"state_bytes": 20_000_000, "growth": 2.0}),
    "auto on values": Entry(
        "Auto", {"task": "regressor"}, {"state_bytes": 20_000_000, "growth": 2.0}
    ),
    "matrix factorization": Entry(
        "MatrixFactorization",
        {"max_users": 300, "max_items": 300},
        {"state_bytes": 70_000, "computes": False},
        pairs=True,
    ),
    "bayesian personalized ranking": Entry(
        "BayesianPersonalizedRanking",
        {"max_users": 300, "max_items": 300, "lately": 4},
        {"state_bytes": 90_000, "learns": False, "computes": False},
        pairs=True,
    ),
    "half-space trees": Entry(
        "HalfSpaceTrees",
        {"n_trees": 5, "window": 50},
        {"weights_repeat": True, "state_bytes": 10_000},
        merges="windows",
    ),
    "experts": Entry("Experts", {"learners": [learners.GaussianNB(), learners.Majority()]}),
    "experts on values": Entry(
        "Experts",
        {"learners": [learners.RunningMean()]},
        LOOKS_AT_NOTHING | {"state_bytes": 3000},
        checks=POOR,
    ),
}

TABLE = {key: entry for key, entry in TABLE.items() if entry.name in learners.__all__}


IN_GROUPS = [
    pytest.param(key, marks=pytest.mark.xdist_group(entry.group)) for key, entry in TABLE.items()
]
"""The keys of the table, for `parametrize` and `fixture(params=…)`."""
