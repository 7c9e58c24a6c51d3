"""A forest of Hoeffding trees, each replaced when it no longer fits."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from everlearn.base import Floats, Hashes, Ints, SpecError
from everlearn.learners.native.classifier import Classifier
from everlearn.learners.native.compile import kernel, lean_kernel
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
from everlearn.learners.native.hoeffding_tree import LEAVES, SPLITS
from everlearn.learners.native.rows import Rows, Shape
from everlearn.learners.native.tree import leaves
from everlearn.learners.native.tree.learning import HEAVIEST, answer, learn, reach
from everlearn.learners.native.tree.leaves import (
    Rule,
    begin_tree,
    bytes_of,
    grown_tree,
    looked_at,
    reset_tree,
    unpacked,
)
from everlearn.learners.native.tree.nodes import NODES, features, short_of_room

RIGHT, SEEN = OWN, OWN + 1
"""Places in a member's tallies: the weight of rows that it got right, and of all, since its tree
began."""


class AdaptiveRandomForestClassifier(Forest, Classifier):
    """Hoeffding trees that differ, as each learns a row with a random weight and each leaf looks at
    random columns only; each is watched by two drift detectors.

    A row's weight in a tree is a Poisson number, times the row's own; a tree of which that is 0
    does not learn the row. Where a tree's errors, made before it learned the rows, warn of a change
    (either way), a spare tree begins to learn; where they are sure of it, that (or a new tree)
    takes its place. Trees vote with probabilities, times their accuracy since they began: (right +
    1) / (seen + number of classes), so that a new tree has the least say. A leaf whose columns give
    no split draws others, as MOA's do; River's stay as they are.

    Of Elec2's first 20,000 rows it predicts .895 (.887 with `max_features="sqrt"`), of 5,000
    flights .781 (.778): more columns a leaf cost time, and pay.

    Args:
        classes: how many there are, or which; None where they are not known beforehand.
        n_models: trees.
        max_features: how many columns a leaf looks at: a share above 0.0 and up to 1.0, a whole
            number, "sqrt" or "log2" of all columns, or None for all; rounded, at least 1.
        lambda_value: the mean weight of a row in a tree, above 0 and up to 100.
        drift_delta, warning_delta: chance of an alarm where nothing changes (`ADWIN`), above 0 and
            up to 1; smaller ones take longer to be sure.
        grace_period: weight of rows that a leaf takes between attempts to split it.
        delta: chance that a split is not the best, 0 to 1; smaller ones wait for more rows.
        tau: a Hoeffding bound below which the best split is made even if the next is as good.
        leaf: what leaves answer: "mc" the shares of classes, "nb" naive Bayes, "nba" whichever of
            both has been right more often in this leaf.
        split: what a split is to gain: "info_gain" or "gini".
        n_splits: equally spaced cuts that are tried of each number.
        max_depth: leaves at this depth are not split; the root is at 0. None for no bound.
        max_bytes: memory for the arrays of all trees, in equal shares; the spare ones have theirs.
            Where a tree's is short, it is as in `HoeffdingTreeClassifier`.
        nominal: columns of a matrix that are categories.
        n_jobs: threads, which learn a tree each; −1 is one for each processor. The result does not
            depend on it.
        seed: of the weights of rows and of the columns that leaves draw; None is 0.

    Raises:
        SpecError: a parameter that is out of its bounds.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(4000, 3))
        >>> y = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")
        >>> forest = AdaptiveRandomForestClassifier(seed=1)
        >>> right = forest.score_then_learn(X, y) == y
        >>> [int(right[i : i + 1000].sum()) for i in (0, 1000, 2000, 3000)]
        [797, 979, 988, 989]

    Paper:
        Gomes, Bifet, Read, Barddal, Enembreck, Pfharinger, Holmes & Abdessalem 2017, "Adaptive
        random forests for evolving data stream classification", algorithms 1 and 2.
    """

    trees: ClassVar[Any] = leaves

    def __init__(
        self,
        classes: Any = None,
        *,
        n_models: int = 10,
        max_features: int | float | Literal["sqrt", "log2"] | None = 0.6,
        lambda_value: float = 6.0,
        drift_delta: float = 0.001,
        warning_delta: float = 0.01,
        grace_period: int = 50,
        delta: float = 0.01,
        tau: float = 0.05,
        leaf: Literal["mc", "nb", "nba"] = "nba",
        split: Literal["info_gain", "gini"] = "info_gain",
        n_splits: int = 10,
        max_depth: int | None = None,
        max_bytes: int = 100 * 2**20,
        nominal: tuple[int, ...] = (),
        n_jobs: int = 1,
        seed: int | None = None,
    ) -> None:
        self.classes = classes
        self.n_models = n_models
        self.max_features = max_features
        self.lambda_value = lambda_value
        self.drift_delta = drift_delta
        self.warning_delta = warning_delta
        self.grace_period = grace_period
        self.delta = delta
        self.tau = tau
        self.leaf = leaf
        self.split = split
        self.n_splits = n_splits
        self.max_depth = max_depth
        self.max_bytes = max_bytes
        self.nominal = nominal
        self.n_jobs = n_jobs
        self.seed = seed

    def _begin(self, shape: Shape, seed: int) -> None:
        check_forest(self)
        self._check_trees()
        self._widths = shape.numbers + shape.times, shape.categories
        rule = self._rule_for(shape.outputs, nodes=0)
        if rule.max_nodes < 3 or rule.max_blocks < 2:
            raise SpecError(
                f"max_bytes={self.max_bytes!r}; {2 * self.n_models} trees of two leaves do not fit"
            )
        self._begin_members(rule, lambda *own: begin_tree(shape.outputs, rule, *own), seed)

    def _check_trees(self) -> None:
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
        """The rule for trees of so many classes of which one has so many nodes already: nodes may
        take a quarter of a tree's share of the memory, or what they take now; statistics at leaves
        the rest."""
        rule = Rule(
            numbers=self._widths[0],
            nominal=self._widths[1],
            leaf=LEAVES[self.leaf],
            split=SPLITS[self.split],
            n_splits=int(self.n_splits),
            max_depth=2**31 if self.max_depth is None else int(self.max_depth),
            max_features=chosen_features(self.max_features, sum(self._widths)),
            max_nodes=0,
            max_blocks=0,
            grace_period=float(self.grace_period),
            delta=max(float(self.delta), 1e-300),
            tau=float(self.tau),
        )
        of_node, of_block = bytes_of(*looked_at(rule), classes)
        of_tree = self.max_bytes // (2 * self.n_models)
        for_nodes = max(of_tree // 4, nodes * of_node)
        max_blocks = max(0, of_tree - for_nodes) // of_block
        return rule._replace(max_nodes=for_nodes // of_node, max_blocks=max_blocks)

    def _learn(self, rows: Rows, y: Ints, weight: Floats, out: Floats) -> None:
        x, classes = features(rows), self._outputs()

        def learned(member: Member, votes: Floats, done: int) -> Any:
            return _learn(
                member.arrays,
                member.spare_arrays,
                member.detectors,
                member.tallies,
                member.draws,
                self._table,
                x,
                y,
                weight,
                votes,
                done,
            )

        # One row more than is asked for: where a tree votes on those of which no vote is asked.
        out[:, :classes] = 0.0
        for votes in self._votes(len(x), (len(out) + 1, classes), learned):
            _add(votes, out)
        _normalise(out, classes)

    def _predict(self, rows: Rows, out: Floats) -> None:
        nothing = np.zeros(len(rows))
        self._learn(rows, nothing.view(np.int64), nothing, out)

    def _grow(self, outputs: int) -> None:
        trees = [tree for member in self._members for tree in (member.tree, member.spare)]
        self._rule = self._rule_for(outputs, max(int(tree.nodes.used[NODES]) for tree in trees))
        for member in self._members:
            member.tree = grown_tree(member.tree, outputs, self._rule)
            member.spare = grown_tree(member.spare, outputs, self._rule)
            self._packed(member)


@lean_kernel
def _learn(
    arrays: Any,
    spare_arrays: Any,
    detectors: Floats,
    tallies: Floats,
    draws: Hashes,
    table: Floats,
    x: Floats,
    y: Ints,
    weight: Floats,
    votes: Floats,
    done: int,
) -> tuple[int, int]:
    """One tree votes on and learns rows after the first that are done; returns how many are, and
    why no more. A row of weight 0 is only voted on. The last row of `votes` takes those votes of
    which there is no row."""
    tree, rule = unpacked(arrays)
    spare, _ = unpacked(spare_arrays)
    k = votes.shape[1]
    for i in range(done, len(x)):
        w = min(weight[i], HEAVIEST) if len(weight) else 1.0
        if w > 0.0 and short_of_room(tree.nodes, rule.max_nodes, rule.max_blocks):
            return i, MORE_ROOM
        if w > 0.0 and short_of_room(spare.nodes, rule.max_nodes, rule.max_blocks):
            return i, MORE_SPARE_ROOM
        row = min(i, len(votes) - 1)
        leaf = reach(tree, rule, x[i])
        answer(tree, rule, leaf, votes[row])
        best = 0
        accuracy = (tallies[RIGHT] + 1.0) / (tallies[SEEN] + k)
        for c in range(k):
            best = c if votes[row, c] > votes[row, best] else best
        for c in range(k):
            votes[row, c] *= accuracy
        if w == 0.0:
            continue
        wrong = 1.0 if best != y[i] else 0.0
        tallies[SEEN] += w
        tallies[RIGHT] += w * (1.0 - wrong)
        times = draw(table, draws)
        if times == 0:
            continue
        learn(tree, rule, leaf, y[i], w * times)
        if tallies[SPARE] > 0.0:
            learn(spare, rule, reach(spare, rule, x[i]), y[i], w * times)
        if adwin_update(detectors, WARNING_ROW, wrong):
            reset_tree(spare, rule)
            tallies[SPARE] = 1.0
            tallies[WARNINGS] += 1.0
        if adwin_update(detectors, DRIFT_ROW, wrong):
            adwin_forget(detectors, WARNING_ROW)
            tallies[RIGHT] = tallies[SEEN] = 0.0
            tallies[DRIFTS] += 1.0
            reset_tree(tree, rule)
            if tallies[SPARE] > 0.0:
                tallies[SPARE] = 0.0
                return i + 1, REPLACED
    return len(x), ROWS_DONE


@kernel
def _add(votes: Floats, out: Floats) -> None:
    """Add the votes of one tree."""
    for i in range(len(out)):
        for c in range(votes.shape[1]):
            out[i, c] += votes[i, c]


@kernel
def _normalise(out: Floats, classes: int) -> None:
    """Votes become probabilities."""
    for i in range(len(out)):
        total = 0.0
        for c in range(classes):
            total += out[i, c]
        for c in range(classes):
            out[i, c] /= total
