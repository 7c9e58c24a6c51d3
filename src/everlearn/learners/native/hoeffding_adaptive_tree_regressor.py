"""A regression tree that replaces its parts where the stream has changed."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from everlearn.base import Floats, Part, SpecError, State
from everlearn.learners.native.compile import lean_kernel
from everlearn.learners.native.hoeffding_tree_regressor import HoeffdingTreeRegressor, rule_of
from everlearn.learners.native.loading import like
from everlearn.learners.native.rows import Shape
from everlearn.learners.native.scaling import size_in, unit_of
from everlearn.learners.native.tree.alternates import (
    NODE_BYTES,
    Care,
    begin_watching,
    empty_watch,
    keep_care,
    loaded_watch,
    unpacked_watch,
)
from everlearn.learners.native.tree.fitting import answer, reach
from everlearn.learners.native.tree.loading import check_alternates
from everlearn.learners.native.tree.nodes import DEPTH, NODES, short_of_room
from everlearn.learners.native.tree.regression import RegressionRule, RegressionTree, unpacked
from everlearn.learners.native.tree.value_alternates import (
    add_answer,
    ask_alternates,
    fitted_watch,
    learn_and_watch,
    tend,
)


class HoeffdingAdaptiveTreeRegressor(HoeffdingTreeRegressor):
    """A regression tree that replaces its parts where the stream has changed.

    Every node watches with ADWIN how large the errors of its subtree are. Where they grow at a
    split, an alternate subtree begins to learn the rows that come there. When the mean errors of
    the two, since then, differ by more than chance, the better stays. Alternates have no
    alternates.

    An answer is the mean of the leaf of a row and of the leaves of alternates on its way, each by
    the inverse of the square of its own mean error. Unlike in River, rows at leaves are not
    weighted at random.

    Args:
        grace_period, delta, tau, leaf, learning_rate, decay, min_samples_split, max_depth, nominal:
            as in `HoeffdingTreeRegressor`.
        max_bytes: memory for the arrays, of which a node takes 4 kB. An eighth of the nodes is kept
            for new alternates: a tree that is as large as it may be can still be replaced.
        drift_delta: confidence of the detectors, the chance of an alarm where nothing changes;
            between 0 and 1.
        drift_window_threshold: rows that both a subtree and its alternate must have answered before
            they are compared.
        switch_significance: chance that the worse of the two is kept; between 0 and 1.

    Raises:
        SpecError: a parameter that is out of its bounds.

    Example:
        >>> X = np.random.default_rng(0).uniform(size=(8000, 3))
        >>> y = 9.0 * np.where(np.arange(8000) < 4000, X[:, 0] > 0.5, X[:, 1] < 0.4)
        >>> fixed = np.abs(HoeffdingTreeRegressor().score_then_learn(X, y) - y)
        >>> error = np.abs(HoeffdingAdaptiveTreeRegressor().score_then_learn(X, y) - y)
        >>> [round(float(fixed[i : i + 1000].mean()), 1) for i in (3000, 4000, 5000, 7000)]
        [0.0, 1.7, 1.0, 0.6]
        >>> [round(float(error[i : i + 1000].mean()), 1) for i in (3000, 4000, 5000, 7000)]
        [0.0, 0.7, 0.3, 0.1]

    Paper:
        Bifet & Gavaldà 2009, "Adaptive learning from evolving data streams", HAT-ADWIN (section 3),
        with the leaves of Ikonomovska, Gama & Džeroski 2011, "Learning model trees from evolving
        data streams".
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
        drift_delta: float = 0.002,
        drift_window_threshold: int = 300,
        switch_significance: float = 0.05,
        nominal: tuple[int, ...] = (),
    ) -> None:
        super().__init__(
            grace_period=grace_period,
            delta=delta,
            tau=tau,
            leaf=leaf,
            learning_rate=learning_rate,
            decay=decay,
            min_samples_split=min_samples_split,
            max_depth=max_depth,
            max_bytes=max_bytes,
            nominal=nominal,
        )
        self.drift_delta = drift_delta
        self.drift_window_threshold = drift_window_threshold
        self.switch_significance = switch_significance

    def _begin(self, shape: Shape, seed: int) -> None:
        rows = self.drift_window_threshold
        if not isinstance(rows, int | np.integer) or not 1 <= rows <= 10_000:
            raise SpecError(
                f"drift_window_threshold={rows!r}; it is a whole number from 1 to 10000"
            )
        for name in ("drift_delta", "switch_significance"):
            value = getattr(self, name)
            if not isinstance(value, int | float | np.number) or not 0.0 < value < 1.0:
                raise SpecError(f"{name}={value!r}; it is a number between 0 and 1")
        self._care = Care(float(self.drift_delta), float(rows), float(self.switch_significance))
        self._watch, self._sums = empty_watch(), np.zeros(2)
        super()._begin(shape, seed)
        begin_watching(self._watch, self._care, 0)

    def _rule_for(self, shape: Shape) -> RegressionRule:
        """An eighth of the nodes is for the roots of alternates."""
        rule = rule_of(self, shape, 0, self.max_bytes, NODE_BYTES)
        return rule._replace(spare_nodes=rule.max_nodes // 8)

    def _hold(self, tree: RegressionTree) -> None:
        super()._hold(tree)
        self._watch = fitted_watch(self._watch, tree)
        self._packed_watch = (*self._watch, np.array(self._care))

    def _go_on(
        self, x: Floats, z: Floats, y: Floats, weight: Floats, out: Floats, done: int
    ) -> int:
        return _learn(self._packed, self._packed_watch, self._sums, x, z, y, weight, out, done)

    def _save(self) -> dict[str, Part]:
        nodes = int(self._tree.nodes.used[NODES])
        kept = {
            "errors": self._watch.errors[:nodes].copy(),
            "alternates": self._watch.alternates[:nodes].copy(),
            "sums": self._sums.copy(),
        }
        return super()._save() | {"watch": Part(kept)}

    def _load(self, state: State) -> None:
        arrays = state["watch"].arrays
        self._watch = loaded_watch(arrays, state["tree"].arrays["links"])
        self._sums = like(self._sums, arrays["sums"], "sums")
        super()._load(state)
        check_alternates(self._tree.nodes, self._watch.alternates)
        keep_care(self._tree.nodes, self._watch, self._care)


@lean_kernel
def _learn(
    arrays: Any,
    watching: Any,
    sums: Floats,
    x: Floats,
    z: Floats,
    y: Floats,
    weight: Floats,
    out: Floats,
    done: int,
) -> int:
    """Answer and learn rows after the first that are done; returns how many are when room for
    splits runs out. A row of weight 0 is only answered."""
    tree, rule = unpacked(arrays)
    watch, care = unpacked_watch(watching)
    for i in range(done, len(x)):
        if i < len(out):
            ask_alternates(tree, rule, watch, x[i], z[i])
        leaf = reach(tree, rule, x[i], z[i])
        value = answer(tree, rule, leaf)
        if i < len(out):
            out[i, 0] = value
            if watch.answer[1] > 0.0:
                add_answer(watch, tree, leaf, value)
                out[i, 0] = watch.answer[0] / watch.answer[1]
        w = weight[i] if len(weight) else 1.0
        if w == 0.0:
            continue
        splits = 1 + 2 * tree.nodes.links[leaf, DEPTH]
        if short_of_room(tree.nodes, rule.max_nodes, rule.max_blocks, splits):
            return i
        unit = unit_of(y[i] - value, sums)
        size = size_in(y[i] - value, unit)
        learn_and_watch(tree, rule, watch, care, leaf, x[i], z[i], y[i], w, size)
        tend(tree, rule, watch, care, x[i], z[i], leaf, y[i], w, size, unit)
    return len(x)
