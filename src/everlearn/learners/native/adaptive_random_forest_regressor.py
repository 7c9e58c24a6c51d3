"""A forest of regression trees, each replaced when it no longer fits."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np

from everlearn.base import Floats, Hashes, Part, SpecError, State
from everlearn.learners.native.compile import lean_kernel
from everlearn.learners.native.drift.adwin import adwin_forget, adwin_update
from everlearn.learners.native.forest import (
    DRIFT_ROW,
    DRIFTS,
    MORE_ROOM,
    MORE_SPARE_ROOM,
    OWN,
    REPLACED,
    ROWS_DONE,
    SPARE,
    WARNING_ROW,
    WARNINGS,
    Forest,
    Member,
    check_forest,
    chosen_features,
    draw,
)
from everlearn.learners.native.hoeffding_tree_regressor import check_parameters, rule_of
from everlearn.learners.native.regressor import Regressor
from everlearn.learners.native.rows import Rows, Shape
from everlearn.learners.native.scaling import (
    begin_scales,
    loaded_scales,
    size_in,
    standardized,
    unit_of,
)
from everlearn.learners.native.tree import regression
from everlearn.learners.native.tree.fitting import answer, learn, reach
from everlearn.learners.native.tree.nodes import features, short_of_room
from everlearn.learners.native.tree.regression import N, begin_tree, reset_tree, unpacked


class AdaptiveRandomForestRegressor(Forest, Regressor):
    """Regression trees that differ, as each learns a row with a random weight and each leaf looks
    at random columns only; each is watched by two drift detectors.

    A row's weight in a tree is a Poisson number, times the row's own; a tree of which that is 0
    does not learn the row. Where the size of a tree's errors warns of a change, a spare tree begins
    to learn; where it is sure of it, that (or a new tree) takes its place. The answer is the median
    of what trees say, or their mean. Numbers are standardised once for all trees.

    Args:
        n_models: trees.
        max_features: how many columns a leaf looks at: a share above 0.0 and up to 1.0, a whole
            number, "sqrt" or "log2" of all columns, or None for all; rounded, at least 1.
        aggregation: "median" or "mean".
        lambda_value: the mean weight of a row in a tree, above 0 and up to 100.
        drift_delta, warning_delta: chance of an alarm where nothing changes (`ADWIN`), above 0 and
            up to 1; smaller ones take longer to be sure.
        grace_period, delta, tau, leaf, learning_rate, decay, min_samples_split, max_depth: of the
            trees, as for `HoeffdingTreeRegressor`.
        max_bytes: memory for all trees, spare ones among them; leaves that promise least stop to
            collect statistics when there is no more.
        nominal: columns that are categories.
        n_jobs: threads, which learn a tree each; −1 is one for each processor. The result does not
            depend on it.
        seed: of the weights and of the columns that leaves draw; None is 0.

    Raises:
        SpecError: a parameter out of its range, when learning begins.

    Example:
        >>> random = np.random.default_rng(0)
        >>> X = random.normal(size=(3000, 3))
        >>> y = X[:, 0] * X[:, 1]
        >>> forest = AdaptiveRandomForestRegressor(seed=1)
        >>> float(np.abs(forest.score_then_learn(X, y) - y)[2000:].mean()) < 0.4
        True

    Paper:
        Gomes, Barddal, Ferreira & Bifet 2018, "Adaptive random forests for data stream regression",
        section 3.
    """

    trees: ClassVar[Any] = regression

    def __init__(
        self,
        *,
        n_models: int = 10,
        max_features: int | float | Literal["sqrt", "log2"] | None = 0.6,
        aggregation: Literal["median", "mean"] = "median",
        lambda_value: float = 6.0,
        drift_delta: float = 0.001,
        warning_delta: float = 0.01,
        grace_period: int = 50,
        delta: float = 0.01,
        tau: float = 0.05,
        leaf: Literal["mean", "model", "adaptive"] = "adaptive",
        learning_rate: float = 0.01,
        decay: float = 0.95,
        min_samples_split: int = 5,
        max_depth: int | None = None,
        max_bytes: int = 100 * 2**20,
        nominal: tuple[int, ...] = (),
        n_jobs: int = 1,
        seed: int | None = None,
    ) -> None:
        self.n_models = n_models
        self.max_features = max_features
        self.aggregation = aggregation
        self.lambda_value = lambda_value
        self.drift_delta = drift_delta
        self.warning_delta = warning_delta
        self.grace_period = grace_period
        self.delta = delta
        self.tau = tau
        self.leaf = leaf
        self.learning_rate = learning_rate
        self.decay = decay
        self.min_samples_split = min_samples_split
        self.max_depth = max_depth
        self.max_bytes = max_bytes
        self.nominal = nominal
        self.n_jobs = n_jobs
        self.seed = seed

    def _begin(self, shape: Shape, seed: int) -> None:
        check_forest(self)
        check_parameters(self)
        if self.aggregation not in ("median", "mean"):
            raise SpecError(f"aggregation={self.aggregation!r}; it is 'median' or 'mean'")
        columns = shape.numbers + shape.times + shape.categories
        of_tree = self.max_bytes // (2 * self.n_models)
        rule = rule_of(self, shape, chosen_features(self.max_features, columns), of_tree)
        self._scales = begin_scales(rule.numbers)
        self._begin_members(rule, lambda *own: begin_tree(rule, *own), seed)

    def _learn(self, rows: Rows, y: Floats, weight: Floats, out: Floats) -> None:
        x = features(rows)
        z = standardized(self._scales, x, weight)

        def learned(member: Member, votes: Floats, done: int) -> Any:
            return _learn(
                member.arrays,
                member.spare_arrays,
                member.detectors,
                member.tallies,
                member.draws,
                self._table,
                x,
                z,
                y,
                weight,
                votes,
                done,
            )

        votes = np.array(list(self._votes(len(x), (len(out), 1), learned)))
        _gather(votes, self.aggregation == "median", np.zeros(len(votes)), out)

    def _predict(self, rows: Rows, out: Floats) -> None:
        nothing = np.zeros(len(rows))
        self._learn(rows, nothing, nothing, out)

    def _save(self) -> dict[str, Part]:
        return super()._save() | {"scales": Part({"scales": self._scales.copy()})}

    def _load(self, state: State) -> None:
        self._scales = loaded_scales(self._scales, state["scales"].arrays["scales"])
        super()._load(state)


@lean_kernel
def _learn(
    arrays: Any,
    spare_arrays: Any,
    detectors: Floats,
    tallies: Floats,
    draws: Hashes,
    table: Floats,
    x: Floats,
    z: Floats,
    y: Floats,
    weight: Floats,
    votes: Floats,
    done: int,
) -> tuple[int, int]:
    """One tree answers and learns rows after the first that are done; returns how many are, and why
    no more. A row of weight 0 is only answered. A tree that has learned nothing says NaN."""
    tree, rule = unpacked(arrays)
    spare, _ = unpacked(spare_arrays)
    for i in range(done, len(x)):
        w = weight[i] if len(weight) else 1.0
        if w > 0.0 and short_of_room(tree.nodes, rule.max_nodes, rule.max_blocks):
            return i, MORE_ROOM
        if w > 0.0 and short_of_room(spare.nodes, rule.max_nodes, rule.max_blocks):
            return i, MORE_SPARE_ROOM
        leaf = reach(tree, rule, x[i], z[i])
        value = answer(tree, rule, leaf) if tree.values[leaf, N] > 0.0 else math.nan
        if i < len(votes):
            votes[i, 0] = value
        times = draw(table, draws) if w > 0.0 else 0
        if times == 0:
            continue
        learn(tree, rule, leaf, x[i], z[i], y[i], w * times)
        if tallies[SPARE] > 0.0:
            learn(spare, rule, reach(spare, rule, x[i], z[i]), x[i], z[i], y[i], w * times)
        if value != value:
            continue
        size = size_in(y[i] - value, unit_of(y[i] - value, tallies[OWN:]))
        if adwin_update(detectors, WARNING_ROW, size):
            reset_tree(spare, rule)
            tallies[SPARE] = 1.0
            tallies[WARNINGS] += 1.0
        if adwin_update(detectors, DRIFT_ROW, size):
            adwin_forget(detectors, WARNING_ROW)
            tallies[OWN] = tallies[OWN + 1] = 0.0
            tallies[DRIFTS] += 1.0
            reset_tree(tree, rule)
            if tallies[SPARE] > 0.0:
                tallies[SPARE] = 0.0
                return i + 1, REPLACED
    return len(x), ROWS_DONE


@lean_kernel
def _gather(votes: Floats, median: bool, row: Floats, out: Floats) -> None:
    """Put the median, or the mean, of (trees, n, 1) votes into (n, 1) out; NaN are left out."""
    for i in range(len(out)):
        n, total = 0, 0.0
        for number in range(len(votes)):
            value = votes[number, i, 0]
            if value != value:
                continue
            total += value
            at = n
            while at > 0 and row[at - 1] > value:
                row[at] = row[at - 1]
                at -= 1
            row[at] = value
            n += 1
        if n == 0:
            out[i, 0] = 0.0
        elif median:
            out[i, 0] = 0.5 * (row[(n - 1) // 2] + row[n // 2])
        else:
            out[i, 0] = total / n
