"""Trees that decide by the Hoeffding bound when they have seen enough to split."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from everlearn.base import Floats, Ints, Part, SpecError, State
from everlearn.learners.native.classifier import Classifier
from everlearn.learners.native.compile import lean_kernel
from everlearn.learners.native.rows import Rows, Shape
from everlearn.learners.native.tree.learning import answer, learn, reach
from everlearn.learners.native.tree.leaves import (
    ADAPTIVE,
    BAYES,
    GINI,
    INFO_GAIN,
    MAJORITY,
    Rule,
    Tree,
    begin_tree,
    bytes_of,
    grown_tree,
    larger_tree,
    loaded_tree,
    packed,
    saved_tree,
    unpacked,
)
from everlearn.learners.native.tree.nodes import NODES, features, short_of_room

LEAVES = {"mc": MAJORITY, "nb": BAYES, "nba": ADAPTIVE}
SPLITS = {"info_gain": INFO_GAIN, "gini": GINI}


class HoeffdingTreeClassifier(Classifier):
    """A decision tree that grows as rows come: a leaf is split as soon as the Hoeffding bound says
    that its best split is better than the next, so that the tree is nearly the one that all rows
    of an endless stream would give.

    A leaf keeps a normal distribution of each number in each class, and the weight of each class
    in 64 buckets of each category, by hash. A category is split in two sets of buckets. Missing
    values, and buckets that a split has not seen, go to the side that was heavier when it was made.
    A column's merit counts for the share of rows in which it is known. Times are three numbers
    each, their places in the day, the week and the year.

    River's tree with the same parameters makes the same splits of numbers. It has no merit for
    not splitting, splits categories in as many branches as they have values, and at leaves takes a
    class without variance in a column to be as likely as one of density 1; here, as in MOA, it is
    unlikely unless the value is the one it has had.

    Args:
        classes: how many there are, or which; None where they are not known beforehand.
        grace_period: weight of rows that a leaf takes between attempts to split it.
        delta: chance that a split is not the best, 0 to 1; smaller ones wait for more rows.
        tau: a Hoeffding bound below which the best split is made even if the next is as good.
        leaf: what leaves answer: "mc" the shares of classes, "nb" naive Bayes, "nba" whichever of
            both has been right more often in this leaf.
        split: what a split is to gain: "info_gain" or "gini".
        n_splits: equally spaced cuts that are tried of each number.
        max_depth: leaves at this depth are not split; the root is at 0. None for no bound.
        max_bytes: memory for the arrays. A quarter is for nodes, and when it is full the tree stops
            growing; the rest for statistics at leaves: where it is short, those leaves have them
            that have most rows outside their majority class. A class that comes late makes nodes
            larger: those that there are may then take more than this.
        nominal: columns of a matrix that are categories.
        seed: has no effect; there is no chance in it.

    Raises:
        SpecError: a parameter that is out of its bounds.

    Example:
        >>> X = np.random.default_rng(0).uniform(size=(2000, 3))
        >>> y = np.where((X[:, 0] > 0.5) != (X[:, 1] > 0.3), "odd", "even")
        >>> learner = HoeffdingTreeClassifier(delta=1e-3)
        >>> right = learner.score_then_learn(X, y) == y
        >>> [int(right[i : i + 500].sum()) for i in (0, 500, 1000, 1500)]
        [414, 469, 479, 488]

    Paper:
        Domingos & Hulten 2000, "Mining high-speed data streams"; for the leaves Holmes, Kirkby &
        Pfahringer 2005, "Stress-testing Hoeffding trees", and for numbers Pfahringer, Holmes &
        Kirkby 2008, "Handling numeric attributes in Hoeffding trees", section 2.4.
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
        nominal: tuple[int, ...] = (),
        seed: int | None = None,
    ) -> None:
        self.classes = classes
        self.grace_period = grace_period
        self.delta = delta
        self.tau = tau
        self.leaf = leaf
        self.split = split
        self.n_splits = n_splits
        self.max_depth = max_depth
        self.max_bytes = max_bytes
        self.nominal = nominal
        self.seed = seed

    def _begin(self, shape: Shape, seed: int) -> None:
        self._check_parameters()
        self._widths = shape.numbers + shape.times, shape.categories
        self._rule = self._rule_for(shape.outputs, nodes=0)
        if self._rule.max_nodes < 3 or self._rule.max_blocks < 2:
            raise SpecError(
                f"max_bytes={self.max_bytes!r}; a tree of two leaves does not fit into it"
            )
        self._hold(begin_tree(shape.outputs, self._rule, seed))

    def _check_parameters(self) -> None:
        bounds = {"grace_period": (1, 2**31), "n_splits": (1, 1000), "max_bytes": (1, 2**50)}
        if self.max_depth is not None:
            bounds["max_depth"] = (0, 2**31)
        for name, (lowest, highest) in bounds.items():
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or not lowest <= value <= highest:
                raise SpecError(f"{name}={value!r}; it is a whole number from {lowest}")
        for name in ("delta", "tau"):
            value = getattr(self, name)
            if not isinstance(value, int | float | np.number) or not 0.0 <= value <= 1.0:
                raise SpecError(f"{name}={value!r}; it is a number from 0 to 1")
        for name, known in (("leaf", LEAVES), ("split", SPLITS)):
            if getattr(self, name) not in known:
                raise SpecError(f"{name}={getattr(self, name)!r}; it is one of {list(known)}")

    def _rule_for(self, classes: int, nodes: int) -> Rule:
        """The rule for a tree of so many classes that has so many nodes already. They may take a
        quarter of the memory, or their share in a tree of which all leaves collect statistics, or
        what they take now; the statistics have the rest."""
        of_node, of_block = self._bytes_of(classes)
        share = max(0.25, 2 * of_node / (2 * of_node + of_block))
        for_nodes = max(int(self.max_bytes * share), nodes * of_node)
        return Rule(
            numbers=self._widths[0],
            nominal=self._widths[1],
            leaf=LEAVES[self.leaf],
            split=SPLITS[self.split],
            n_splits=self.n_splits,
            max_depth=2**31 if self.max_depth is None else self.max_depth,
            max_features=0,
            max_nodes=for_nodes // of_node,
            max_blocks=max(0, self.max_bytes - for_nodes) // of_block,
            grace_period=self.grace_period,
            delta=max(self.delta, 1e-300),
            tau=self.tau,
        )

    def _bytes_of(self, classes: int) -> tuple[int, int]:
        """Bytes of a node, and of a leaf's statistics."""
        return bytes_of(*self._widths, classes)

    def _hold(self, tree: Tree) -> None:
        self._tree, self._packed = tree, packed(tree, self._rule)

    def _learn(self, rows: Rows, y: Ints, weight: Floats, out: Floats) -> None:
        x, done = features(rows), 0
        while True:
            done = self._go_on(x, y, weight, out, done)
            if done == len(x):
                return
            self._hold(larger_tree(self._tree, self._rule))

    def _predict(self, rows: Rows, out: Floats) -> None:
        nothing = np.zeros(len(rows))
        self._go_on(features(rows), nothing.view(np.int64), nothing, out, 0)

    def _go_on(self, x: Floats, y: Ints, weight: Floats, out: Floats, done: int) -> int:
        """Answer and learn rows after the first that are done; how many are when room runs out."""
        return _learn(self._packed, x, y, weight, out, done)

    def _grow(self, outputs: int) -> None:
        self._rule = self._rule_for(outputs, int(self._tree.nodes.used[NODES]))
        self._hold(grown_tree(self._tree, outputs, self._rule))

    def _save(self) -> dict[str, Part]:
        return {"tree": Part(saved_tree(self._tree))}

    def _load(self, state: State) -> None:
        tree = loaded_tree(self._tree, state["tree"].arrays, self._rule)
        self._rule = self._rule_for(tree.counts.shape[1], int(tree.nodes.used[NODES]))
        self._hold(tree)


@lean_kernel
def _learn(arrays: Any, x: Floats, y: Ints, weight: Floats, out: Floats, done: int) -> int:
    """Answer and learn rows after the first that are done; returns how many are when room for
    another split runs out. A row of weight 0 is only answered."""
    tree, rule = unpacked(arrays)
    for i in range(done, len(x)):
        w = weight[i] if len(weight) else 1.0
        if w > 0.0 and short_of_room(tree.nodes, rule.max_nodes, rule.max_blocks):
            return i
        leaf = reach(tree, rule, x[i])
        if i < len(out):
            answer(tree, rule, leaf, out[i])
        if w > 0.0:
            learn(tree, rule, leaf, y[i], w)
    return len(x)
