"""The learner for someone who does not know what to choose."""

from __future__ import annotations

from typing import Any

from everlearn.base import LearnerKind, SpecError
from everlearn.learners.native.adaptive_random_forest import AdaptiveRandomForestClassifier
from everlearn.learners.native.adaptive_random_forest_regressor import (
    AdaptiveRandomForestRegressor,
)
from everlearn.learners.native.either import Either
from everlearn.learners.native.estimator import Native
from everlearn.learners.native.experts import Experts, ExpertsClassifier, ExpertsRegressor
from everlearn.learners.native.hoeffding_tree import HoeffdingTreeClassifier
from everlearn.learners.native.hoeffding_tree_regressor import HoeffdingTreeRegressor
from everlearn.learners.native.linear import LinearRegression, LogisticRegression
from everlearn.learners.native.rows import Shape

CLASSIFIERS = (
    LogisticRegression(horizon=1_000_000),
    LogisticRegression(learning_rate=0.01),
    LogisticRegression(learning_rate=0.05),
    LogisticRegression(learning_rate=0.3),
    HoeffdingTreeClassifier(),
    AdaptiveRandomForestClassifier(n_models=5, grace_period=200),
)
"""The experts on classes, beside the baselines."""

REGRESSORS = (
    LinearRegression(),
    LinearRegression(learning_rate=0.05),
    LinearRegression(learning_rate=0.3),
    HoeffdingTreeRegressor(delta=1e-3),
    AdaptiveRandomForestRegressor(n_models=5, grace_period=200),
)
"""The experts on quantities, beside the baselines."""


class Auto(Either):
    """A linear model, a tree and a forest that answer as one; whichever is best is followed.

    They are `Experts`, with a linear model that moves slowly and one that moves fast, and with the
    baselines that look at no feature: so it is hardly ever worse than the best of these alone, also
    where the best of them changes. On sparse rows there are no tree and no forest.

    Args:
        classes: how many there are, or which; None where they are not known beforehand.
        task: "classifier" or "regressor"; None for what the columns of a model, or the first
            targets, call for: texts, booleans, few whole numbers, or 0.0 and 1.0 are classes.
        nominal: columns of a matrix that are categories.
        seed: of all randomness; None for 0, or the strategy's seed inside a model.

    Raises:
        SpecError: `task` is none of these, or "regressor" where classes are said.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> X = generator.normal(size=(2000, 3))
        >>> auto = Auto()
        >>> answers = auto.score_then_learn(X, np.where(X[:, 0] > X[:, 1], "up", "down"))
        >>> auto.predict([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]).tolist()
        ['up', 'down']

    Papers:
        Those of `Experts` and of its members.
    """

    def __init__(
        self,
        classes: Any = None,
        *,
        task: LearnerKind | None = None,
        nominal: tuple[int, ...] = (),
        seed: int | None = None,
    ) -> None:
        self.classes = classes
        self.task = task
        self.nominal = nominal
        self.seed = seed

    def of_kind(self, kind: LearnerKind, frozen: bool = False) -> Native:
        """A native learner of this kind with these parameters, that has learned nothing."""
        if self.task not in (None, "classifier", "regressor"):
            raise SpecError(f"task={self.task!r}; it takes 'classifier', 'regressor' or None")
        if self.task not in (None, kind):
            raise SpecError(f"task={self.task!r} does not go with classes; leave one of them out")
        if kind == "classifier":
            plan = Experts(CLASSIFIERS, classes=self.classes, nominal=self.nominal, seed=self.seed)
            return AutoClassifier(plan, frozen)
        plan = Experts(REGRESSORS, nominal=self.nominal, seed=self.seed)
        return AutoRegressor(plan, frozen)


class AutoClassifier(ExpertsClassifier):
    """`Auto` of classes."""

    takes_sparse = True

    def _definitions(self, shape: Shape | None) -> list[Any]:
        return _fitting(super()._definitions(shape), shape)


class AutoRegressor(ExpertsRegressor):
    """`Auto` of quantities."""

    takes_sparse = True

    def _definitions(self, shape: Shape | None) -> list[Any]:
        return _fitting(super()._definitions(shape), shape)


def _fitting(definitions: list[Any], shape: Shape | None) -> list[Any]:
    """The experts that take such rows."""
    sparse = shape is not None and shape.sparse
    return [one for one in definitions if one.takes_sparse or not sparse]
