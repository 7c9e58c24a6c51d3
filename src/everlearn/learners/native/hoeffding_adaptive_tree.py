"""A Hoeffding tree that replaces its parts where the stream has changed."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from everlearn.base import Floats, Ints, Part, SpecError, State
from everlearn.learners.native.compile import lean_kernel
from everlearn.learners.native.hoeffding_tree import HoeffdingTreeClassifier
from everlearn.learners.native.rows import Shape
from everlearn.learners.native.tree.alternates import (
    NODE_BYTES,
    Care,
    add_vote,
    ask_alternates,
    begin_watching,
    empty_watch,
    fitted_watch,
    keep_care,
    largest,
    learn_and_watch,
    loaded_watch,
    reach_and_answer,
    tend,
    unpacked_watch,
)
from everlearn.learners.native.tree.leaves import Rule, Tree, unpacked
from everlearn.learners.native.tree.loading import check_alternates
from everlearn.learners.native.tree.nodes import DEPTH, NODES, short_of_room


class HoeffdingAdaptiveTreeClassifier(HoeffdingTreeClassifier):
    """A Hoeffding tree that replaces its parts where the stream has changed.

    Every node watches with ADWIN how often its subtree is wrong. Where that grows at a split, an
    alternate subtree begins to learn the rows that come there. When the error rates of the two,
    since then, differ by more than chance, the better stays. Alternates have no alternates.

    An answer is the vote of the leaf of a row and of the leaves of alternates on its way, each by
    the inverse of the square of its own error rate, as in MOA. Unlike in MOA and River, rows at
    leaves are not weighted at random.

    Args:
        classes, grace_period, delta, tau, leaf, split, n_splits, max_depth, nominal, seed: as in
            `HoeffdingTreeClassifier`.
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
        >>> y = np.where(np.arange(8000) < 4000, X[:, 0] > 0.5, X[:, 0] < 0.4)
        >>> fixed = HoeffdingTreeClassifier().score_then_learn(X, y) == y
        >>> learner = HoeffdingAdaptiveTreeClassifier()
        >>> right = learner.score_then_learn(X, y) == y
        >>> [int(fixed[i : i + 1000].sum()) for i in (3000, 4000, 5000, 7000)]
        [999, 114, 118, 859]
        >>> [int(right[i : i + 1000].sum()) for i in (3000, 4000, 5000, 7000)]
        [999, 936, 998, 997]

    Paper:
        Bifet & Gavaldà 2009, "Adaptive learning from evolving data streams", HAT-ADWIN (section 3).
    """

    def __init__(
        self,
        classes: Any = None,
        *,
        grace_period: int = 200,
        delta: float = 1e-7,
        tau: float = 0.05,
        leaf: Literal["mc", "nb", "nba"] = "nba",
        split: Literal["info_gain", "gini"] = "info_gain",
        n_splits: int = 10,
        max_depth: int | None = None,
        max_bytes: int = 100 * 2**20,
        drift_delta: float = 0.002,
        drift_window_threshold: int = 300,
        switch_significance: float = 0.05,
        nominal: tuple[int, ...] = (),
        seed: int | None = None,
    ) -> None:
        super().__init__(
            classes,
            grace_period=grace_period,
            delta=delta,
            tau=tau,
            leaf=leaf,
            split=split,
            n_splits=n_splits,
            max_depth=max_depth,
            max_bytes=max_bytes,
            nominal=nominal,
            seed=seed,
        )
        self.drift_delta = drift_delta
        self.drift_window_threshold = drift_window_threshold
        self.switch_significance = switch_significance

    def _check_parameters(self) -> None:
        super()._check_parameters()
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

    def _bytes_of(self, classes: int) -> tuple[int, int]:
        of_node, of_block = super()._bytes_of(classes)
        return of_node + NODE_BYTES, of_block

    def _begin(self, shape: Shape, seed: int) -> None:
        self._watch = empty_watch()
        super()._begin(shape, seed)
        begin_watching(self._watch, self._care, 0)

    def _rule_for(self, classes: int, nodes: int) -> Rule:
        """An eighth of the nodes is for the roots of alternates."""
        rule = super()._rule_for(classes, nodes)
        return rule._replace(spare_nodes=rule.max_nodes // 8)

    def _hold(self, tree: Tree) -> None:
        super()._hold(tree)
        self._watch = fitted_watch(self._watch, tree)
        self._packed_watch = (*self._watch, np.array(self._care))

    def _go_on(self, x: Floats, y: Ints, weight: Floats, out: Floats, done: int) -> int:
        return _learn(self._packed, self._packed_watch, x, y, weight, out, done)

    def _save(self) -> dict[str, Part]:
        nodes = int(self._tree.nodes.used[NODES])
        errors, alternates, _ = self._watch
        kept = {"errors": errors[:nodes].copy(), "alternates": alternates[:nodes].copy()}
        return super()._save() | {"watch": Part(kept)}

    def _load(self, state: State) -> None:
        self._watch = loaded_watch(state["watch"].arrays, state["tree"].arrays["links"])
        super()._load(state)
        check_alternates(self._tree.nodes, self._watch.alternates)
        keep_care(self._tree.nodes, self._watch, self._care)


@lean_kernel
def _learn(
    arrays: Any, watching: Any, x: Floats, y: Ints, weight: Floats, out: Floats, done: int
) -> int:
    """Answer and learn rows after the first that are done; returns how many are when room for
    splits runs out. A row of weight 0 is only answered."""
    tree, rule = unpacked(arrays)
    watch, care = unpacked_watch(watching)
    k = len(watch.answer)
    for i in range(done, len(x)):
        if i < len(out):
            ask_alternates(tree, rule, watch, x[i], out[i])
        leaf = reach_and_answer(tree, rule, watch, x[i], 0)
        if i < len(out):
            add_vote(watch, leaf, out[i])
            total = out[i, :k].sum()
            for c in range(k):
                out[i, c] /= total
        w = weight[i] if len(weight) else 1.0
        if w == 0.0:
            continue
        splits = 1 + 2 * tree.nodes.links[leaf, DEPTH]
        if short_of_room(tree.nodes, rule.max_nodes, rule.max_blocks, splits):
            return i
        wrong = 1.0 if largest(watch.answer) != y[i] else 0.0
        learn_and_watch(tree, rule, watch, care, leaf, y[i], w, wrong)
        tend(tree, rule, watch, care, x[i], leaf, y[i], w, wrong)
    return len(x)
