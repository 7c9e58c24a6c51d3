"""A regression tree that decides by the Hoeffding bound when it has seen enough to split."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from everlearn.base import Floats, Part, SpecError, State
from everlearn.learners.native.compile import lean_kernel
from everlearn.learners.native.regressor import Regressor
from everlearn.learners.native.rows import Rows, Shape
from everlearn.learners.native.scaling import begin_scales, loaded_scales, standardized
from everlearn.learners.native.tree.fitting import answer, learn, reach
from everlearn.learners.native.tree.nodes import features, short_of_room
from everlearn.learners.native.tree.regression import (
    ADAPTIVE,
    MEAN_ONLY,
    MODEL_ONLY,
    RegressionRule,
    RegressionTree,
    begin_tree,
    bytes_of,
    larger_tree,
    loaded_tree,
    packed,
    saved_tree,
    unpacked,
)

LEAVES = {"mean": MEAN_ONLY, "model": MODEL_ONLY, "adaptive": ADAPTIVE}


class HoeffdingTreeRegressor(Regressor):
    """A regression tree with linear models at its leaves that grows as rows come: a leaf is split
    as soon as the Hoeffding bound says that its best split is better than the next.

    A leaf answers the mean of its targets, or what a linear model of its numbers says, which is
    learned by gradient descent over standardised numbers. With `leaf="mean"`, a split is judged by
    how much it reduces the sum of squares of the targets. Otherwise it is the sum of squares of the
    model's errors, and a line over them on each side is compared with one line over both: along the
    column, or for a category along what the model said. So splits are made at jumps and bends, and
    do not repeat what the model can learn. The leaves of a split begin with the model and its line.

    What a leaf keeps of a column is bounded: sums between 32 places that follow its values (the
    first 32 that differ, exactly), and in 64 buckets of a category, by hash, which a split parts in
    two sets. Missing values, and buckets that a split has not seen, go to the side that was heavier
    when it was made. Times are three numbers each, their places in the day, the week and the year.

    River's tree with the same parameters judges splits by the targets whatever leaves answer, and
    standardises nothing: a StandardScaler before it does. Targets beyond ±1e100 are taken as that.

    Args:
        grace_period: weight of rows that a leaf takes between attempts to split it.
        delta: chance that a split is not the best, 0 to 1; smaller ones wait for more rows.
        tau: a Hoeffding bound below which the best split is made even if the next is as good.
        leaf: what leaves answer: "mean", "model", or "adaptive", whichever of both was nearer of
            late.
        learning_rate: of the linear models, above 0.
        decay: what is left of a squared error in "adaptive" when the next one comes, 0 to 1.
        min_samples_split: weight that each side of a split must have.
        max_depth: leaves at this depth are not split; the root is at 0. None for no bound.
        max_bytes: memory for the arrays. A part is for nodes, and when it is full the tree stops
            growing; the rest for statistics at leaves: where it is short, those leaves have them
            that have most weight times squared error.
        nominal: columns of a matrix that are categories.

    Raises:
        SpecError: a parameter that is out of its bounds.

    Example:
        >>> X = np.random.default_rng(0).uniform(size=(4000, 3))
        >>> y = np.where(X[:, 0] > 0.5, 3.0 * X[:, 1], 5.0 - X[:, 2])
        >>> learner = HoeffdingTreeRegressor()
        >>> error = np.abs(learner.score_then_learn(X, y) - y)
        >>> [round(float(error[i : i + 1000].mean()), 2) for i in (0, 1000, 2000, 3000)]
        [0.39, 0.1, 0.04, 0.03]

    Paper:
        Ikonomovska, Gama & Džeroski 2011, "Learning model trees from evolving data streams"
        (FIMT-DD, without its detection of drift); for errors of the leaf's model as what splits are
        judged by Loh 2002, "Regression trees with unbiased variable selection and interaction
        detection", section 2.
    """

    def __init__(
        self,
        *,
        grace_period: int = 200,
        delta: float = 1e-7,
        tau: float = 0.05,
        leaf: Literal["mean", "model", "adaptive"] = "adaptive",
        learning_rate: float = 0.01,
        decay: float = 0.95,
        min_samples_split: int = 5,
        max_depth: int | None = None,
        max_bytes: int = 100 * 2**20,
        nominal: tuple[int, ...] = (),
    ) -> None:
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

    def _begin(self, shape: Shape, seed: int) -> None:
        check_parameters(self)
        self._rule = self._rule_for(shape)
        self._scales = begin_scales(self._rule.numbers)
        self._hold(begin_tree(self._rule, seed))

    def _rule_for(self, shape: Shape) -> RegressionRule:
        return rule_of(self, shape, 0, self.max_bytes)

    def _hold(self, tree: RegressionTree) -> None:
        self._tree, self._packed = tree, packed(tree, self._rule)

    def _learn(self, rows: Rows, y: Floats, weight: Floats, out: Floats) -> None:
        x, done = features(rows), 0
        z = standardized(self._scales, x, weight)
        while True:
            done = self._go_on(x, z, y, weight, out, done)
            if done == len(x):
                return
            self._hold(larger_tree(self._tree, self._rule))

    def _predict(self, rows: Rows, out: Floats) -> None:
        nothing = np.zeros(len(rows))
        self._learn(rows, nothing, nothing, out)

    def _go_on(
        self, x: Floats, z: Floats, y: Floats, weight: Floats, out: Floats, done: int
    ) -> int:
        """Answer and learn rows after the first that are done; how many are when room runs out."""
        return _learn(self._packed, x, z, y, weight, out, done)

    def _save(self) -> dict[str, Part]:
        scales = Part({"scales": self._scales.copy()})
        return {"tree": Part(saved_tree(self._tree)), "scales": scales}

    def _load(self, state: State) -> None:
        self._scales = loaded_scales(self._scales, state["scales"].arrays["scales"])
        self._hold(loaded_tree(self._tree, state["tree"].arrays, self._rule))


@lean_kernel
def _learn(
    arrays: Any, x: Floats, z: Floats, y: Floats, weight: Floats, out: Floats, done: int
) -> int:
    """Answer and learn rows after the first that are done; returns how many are when room for
    another split runs out. A row of weight 0 is only answered."""
    tree, rule = unpacked(arrays)
    for i in range(done, len(x)):
        w = weight[i] if len(weight) else 1.0
        if w > 0.0 and short_of_room(tree.nodes, rule.max_nodes, rule.max_blocks):
            return i
        leaf = reach(tree, rule, x[i], z[i])
        if i < len(out):
            out[i, 0] = answer(tree, rule, leaf)
        if w > 0.0:
            learn(tree, rule, leaf, x[i], z[i], y[i], w)
    return len(x)


def rule_of(
    learner: Any, shape: Shape, max_features: int, max_bytes: int, node_bytes: int = 0
) -> RegressionRule:
    """The rule by which the trees of a learner with these parameters grow. Nodes may take a quarter
    of the memory, or their share in a tree of which all leaves collect statistics; those have the
    rest.

    Args:
        shape: of the rows.
        max_features: columns that a leaf draws when it is made; 0 for all.
        max_bytes: memory for a tree.
        node_bytes: what each node takes outside of the tree.

    Raises:
        SpecError: a tree of two leaves does not fit into it.
    """
    rule = RegressionRule(
        numbers=shape.numbers + shape.times,
        nominal=shape.categories,
        leaf=LEAVES[learner.leaf],
        max_depth=2**31 if learner.max_depth is None else int(learner.max_depth),
        max_features=max_features,
        max_nodes=0,
        max_blocks=0,
        spare_nodes=0,
        grace_period=float(learner.grace_period),
        delta=max(float(learner.delta), 1e-300),
        tau=float(learner.tau),
        min_samples_split=float(learner.min_samples_split),
        learning_rate=float(learner.learning_rate),
        decay=float(learner.decay),
    )
    of_node, of_block = bytes_of(rule)
    of_node += node_bytes
    for_nodes = int(max_bytes * max(0.25, 2 * of_node / (2 * of_node + of_block)))
    max_nodes, max_blocks = for_nodes // of_node, (max_bytes - for_nodes) // of_block
    if max_nodes < 3 or max_blocks < 2:
        raise SpecError(f"max_bytes={learner.max_bytes!r}; trees of two leaves do not fit into it")
    return rule._replace(max_nodes=max_nodes, max_blocks=max_blocks)


def check_parameters(learner: Any) -> None:
    """Raises `SpecError` for a parameter of a regression tree that is out of its bounds."""
    whole = {"grace_period": (1, 2**31), "min_samples_split": (1, 2**31), "max_bytes": (1, 2**50)}
    if learner.max_depth is not None:
        whole["max_depth"] = (0, 2**31)
    for name, (lowest, highest) in whole.items():
        value = getattr(learner, name)
        if not isinstance(value, int | np.integer) or not lowest <= value <= highest:
            raise SpecError(f"{name}={value!r}; it is a whole number from {lowest}")
    for name, most in (("delta", 1.0), ("tau", 1e9), ("learning_rate", 1e9), ("decay", 1.0)):
        value = getattr(learner, name)
        if not isinstance(value, int | float | np.number) or not 0.0 <= value <= most:
            raise SpecError(f"{name}={value!r}; it is a number from 0 to {most:g}")
    if learner.leaf not in LEAVES:
        raise SpecError(f"leaf={learner.leaf!r}; it is one of {list(LEAVES)}")
