"""The core of the trees of classes, against a tree in plain Python and against brute force."""

import itertools
import math

import numpy as np
import pytest

from everlearn.base import InputError, state_digest
from everlearn.learners import HoeffdingTreeClassifier
from everlearn.learners.native.tree.learning import answer, learn, reach
from everlearn.learners.native.tree.leaves import (
    ADAPTIVE,
    GINI,
    INFO_GAIN,
    Rule,
    begin_tree,
    bytes_of,
    larger_tree,
    loaded_tree,
    saved_tree,
)
from everlearn.learners.native.tree.nodes import (
    BLOCK,
    BLOCKS,
    BUCKETS,
    CHILD,
    COLUMN,
    DEPTH,
    MASK,
    MISSING,
    NODES,
    begin_nodes,
    features,
    leaf_of,
    short_of_room,
    split_node,
)
from everlearn.learners.native.tree.splits import best_split

# --- a tree in plain Python ----------------------------------------------------------------------


class Leaf:
    def __init__(self, k, p, q, counts=None, depth=0):
        self.counts = counts or [0.0] * k
        self.depth, self.begun = depth, sum(self.counts)
        self.attempt = self.begun
        self.values = [[[] for _ in range(p)] for _ in range(k)]  # (value, weight)
        self.buckets = [[{} for _ in range(q)] for _ in range(k)]
        self.right_by_majority = self.right_by_bayes = 0.0


class Split:
    def __init__(self, column, test, missing, left, right):
        self.column, self.test, self.missing = column, test, missing
        self.children = [left, right]


def moments(values):
    n = sum(w for _, w in values)
    if len({v for v, _ in values}) == 1:
        return n, values[0][0], 0.0
    mean = sum(v * w for v, w in values) / n if n else 0.0
    return n, mean, sum(w * (v - mean) ** 2 for v, w in values)


def impurity(weights, gini):
    total = sum(weights)
    shares = [w / total for w in weights if w > 0]
    return 1 - sum(s * s for s in shares) if gini else -sum(s * math.log2(s) for s in shares)


class PlainTree:
    """A Hoeffding tree as its papers say it, from the rows themselves: slow and simple."""

    def __init__(self, k, p, q, grace, delta, tau, gini=False, n_splits=10):
        self.k, self.p, self.q = k, p, q
        self.grace, self.delta, self.tau = grace, delta, tau
        self.gini, self.n_splits = gini, n_splits
        self.root = Leaf(k, p, q)

    def path(self, x):
        node, holder = self.root, None
        while isinstance(node, Split):
            value = x[node.column]
            side = node.missing if math.isnan(value) else node.test(value)
            holder, node = (node, side), node.children[side]
        return node, holder

    def bayes(self, leaf, x):
        logs = [
            sum(self.density(leaf, c, j, x[j]) for j in range(self.p + self.q))
            if leaf.counts[c] > 0
            else -math.inf
            for c in range(self.k)
        ]
        best = max(logs)
        votes = [
            w * math.exp(v - best) if w else 0.0 for v, w in zip(logs, leaf.counts, strict=True)
        ]
        return [v / sum(votes) for v in votes]

    def density(self, leaf, c, j, value):
        if math.isnan(value):
            return 0.0
        if j >= self.p:
            mine = leaf.buckets[c][j - self.p]
            seen = set().union(*(leaf.buckets[d][j - self.p] for d in range(self.k)))
            return math.log((mine.get(value, 0.0) + 1) / (sum(mine.values()) + max(1, len(seen))))
        n, mean, m2 = moments(leaf.values[c][j])
        if n <= 1 or m2 <= 0:
            return 0.0 if n > 0 and value == mean else -700.0
        variance = m2 / (n - 1)
        return -((value - mean) ** 2) / (2 * variance) - 0.5 * math.log(2 * math.pi * variance)

    def predict(self, x):
        leaf, _ = self.path(x)
        total = sum(leaf.counts)
        if leaf.right_by_bayes >= leaf.right_by_majority and total:
            return self.bayes(leaf, x)
        return [w / total if total else 1 / self.k for w in leaf.counts]

    def learn(self, x, y, weight=1.0):
        leaf, holder = self.path(x)
        total = sum(leaf.counts)
        if total == 0 or leaf.counts.index(max(leaf.counts)) == y:
            leaf.right_by_majority += weight
        if total:
            votes = self.bayes(leaf, x)
            leaf.right_by_bayes += weight * (votes.index(max(votes)) == y)
        leaf.counts[y] += weight
        for j, value in enumerate(x):
            if math.isnan(value):
                continue
            if j < self.p:
                leaf.values[y][j].append((value, weight))
            else:
                mine = leaf.buckets[y][j - self.p]
                mine[value] = mine.get(value, 0.0) + weight
        total = sum(leaf.counts)
        if total - leaf.attempt >= self.grace:
            leaf.attempt = total
            self.attempt(leaf, holder, total)

    def attempt(self, leaf, holder, total):
        classes = sum(w > 0 for w in leaf.counts)
        if max(leaf.counts) > 0.99 * total:
            return
        found = [self.best(leaf, j, total - leaf.begun) for j in range(self.p + self.q)]
        merits = sorted([item[0] for item in found] + [0.0])
        span = 1.0 if self.gini else math.log2(classes)
        bound = math.sqrt(span**2 * math.log(1 / self.delta) / (2 * total))
        if merits[-1] <= 1e-10 or not (merits[-1] - merits[-2] > bound or bound < self.tau):
            return
        column = [item[0] for item in found].index(merits[-1])
        _, test, left, right = found[column]
        missing = int(sum(right) > sum(left))
        if column >= self.p:
            seen = set().union(*(leaf.buckets[c][column - self.p] for c in range(self.k)))
            inner = test

            def test(value):
                return inner(value) if value in seen else missing

        children = [Leaf(self.k, self.p, self.q, side, leaf.depth + 1) for side in (left, right)]
        split = Split(column, test, missing, *children)
        if holder is None:
            self.root = split
        else:
            holder[0].children[holder[1]] = split

    def best(self, leaf, j, weight):
        options = self.cuts(leaf, j) if j < self.p else self.divisions(leaf, j - self.p)
        best = (0.0, None, None, None)
        for test, left, right in options:
            sides = sum(left), sum(right)
            if min(sides) <= 0.01 * sum(sides):
                continue
            whole = impurity([a + b for a, b in zip(left, right, strict=True)], self.gini) * sum(
                sides
            )
            within = [
                side * impurity(s, self.gini) for side, s in zip(sides, (left, right), strict=True)
            ]
            merit = (whole - sum(within)) / weight
            if merit > best[0]:
                best = (merit, test, left, right)
        return best

    def cuts(self, leaf, j):
        values = [v for c in range(self.k) for v, _ in leaf.values[c][j]]
        if not values or min(values) == max(values):
            return
        low, high = min(values), max(values)
        for i in range(self.n_splits):
            cut = low + (high - low) / (self.n_splits + 1) * (i + 1)
            left, right = [], []
            for c in range(self.k):
                n, mean, m2 = moments(leaf.values[c][j])
                own = [v for v, _ in leaf.values[c][j]]
                if n == 0 or cut < min(own):
                    share = 0.0
                elif cut >= max(own):
                    share = 1.0
                elif n <= 1:
                    share = 0.5
                else:
                    share = 0.5 * (1 + math.erf((cut - mean) / math.sqrt(2 * m2 / (n - 1))))
                left.append(n * share)
                right.append(n - n * share)
            yield (lambda value, cut=cut: int(value > cut)), left, right

    def divisions(self, leaf, j):
        """All divisions of what was seen in two; the first keeps its side, which is the left."""
        seen = sorted(set().union(*(leaf.buckets[c][j] for c in range(self.k))))
        for size in range(1, len(seen)):
            for chosen in itertools.combinations(seen, size):
                right = [sum(leaf.buckets[c][j].get(b, 0) for b in chosen) for c in range(self.k)]
                all_of = [sum(leaf.buckets[c][j].values()) for c in range(self.k)]
                left = [a - b for a, b in zip(all_of, right, strict=True)]
                yield (lambda value, chosen=chosen: int(value in chosen)), left, right


def rows(n, seed=0, k=2, holes=0.0):
    """(n, 4) of three numbers and a nominal column of 5 values, in buckets, and their classes."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 4)) * [1.0, 10.0, 0.1, 1.0]
    x[:, 3] = random.integers(0, 5, n) * 7
    told = x[:, 0] + np.where(np.isin(x[:, 3], [7, 21]), 1.5, -1.0) + 0.05 * x[:, 1]
    told += 0.3 * random.normal(size=n)
    y = np.digitize(told, [0.0, 1.5][: k - 1])
    x[random.random(x.shape) < holes] = np.nan
    return np.ascontiguousarray(x), y.astype(np.int64)


def rule(**changes):
    params = {
        "numbers": 3,
        "nominal": 1,
        "leaf": ADAPTIVE,
        "split": INFO_GAIN,
        "n_splits": 10,
        "max_depth": 2**31,
        "max_features": 0,
        "max_nodes": 1000,
        "max_blocks": 500,
        "grace_period": 39.9,
        "delta": 0.05,
        "tau": 0.1,
    }
    return Rule(**params | changes)


def taught(tree, how, x, y, weight=None):
    """The tree, and the probabilities of each row before it was learned."""
    out = np.zeros((len(x), tree.counts.shape[1]))
    for i in range(len(x)):
        if short_of_room(tree.nodes, how.max_nodes, how.max_blocks):
            tree = larger_tree(tree, how)
        leaf = reach(tree, how, x[i])
        answer(tree, how, leaf, out[i])
        learn(tree, how, leaf, int(y[i]), 1.0 if weight is None else float(weight[i]))
    return tree, out


@pytest.mark.parametrize(
    "k, gini, holes, weighted",
    [(2, False, 0.0, False), (3, False, 0.1, False), (2, True, 0.1, True), (3, True, 0.0, True)],
)
def test_it_is_the_tree_of_the_papers(k, gini, holes, weighted):
    x, y = rows(1500, seed=k, k=k, holes=holes)
    weight = np.random.default_rng(9).choice([0.5, 1.0, 3.0], len(x)) if weighted else None
    how = rule(split=GINI if gini else INFO_GAIN)
    tree, out = taught(begin_tree(k, how, 0), how, x, y, weight)
    plain = PlainTree(k, 3, 1, 39.9, 0.05, 0.1, gini)
    expected = []
    for i in range(len(x)):
        expected.append(plain.predict(x[i]))
        plain.learn(x[i], int(y[i]), 1.0 if weight is None else weight[i])
    assert tree.nodes.used[NODES] >= 15
    assert (tree.nodes.links[: tree.nodes.used[NODES], MASK] != 0).any(), "no nominal split"
    np.testing.assert_allclose(out, expected, atol=1e-6)


# --- nodes ---------------------------------------------------------------------------------------


def test_rows_go_to_their_side():
    nodes = begin_nodes(5, 1)
    left = split_node(nodes, 0, 1, 2.5, 0, 1, 5)  # numbers: above 2.5, and missing, right
    inner = split_node(nodes, left, 0, 0.0, -(1 << 63) | 1 << 3, 0, 5)  # buckets 3 and 63 right
    assert (left, inner) == (1, 3)
    assert split_node(nodes, 2, 0, 0.0, 0, 0, 5) == 0, "beyond the bound"
    for x, leaf in [
        ((3, 2.5), 4),
        ((63, 2.5), 4),
        ((4, 2.5), 3),
        ((np.nan, 1.0), 3),
        ((3, 2.6), 2),
        ((3, np.nan), 2),
        ((3, np.inf), 2),
        ((0, -np.inf), 3),
    ]:
        assert leaf_of(nodes, np.array(x, float)) == leaf
    assert nodes.links[:5, DEPTH].tolist() == [0, 1, 1, 2, 2]


def test_categories_become_buckets():
    tree = HoeffdingTreeClassifier(nominal=(1,))
    X = np.column_stack([np.zeros(3000), np.arange(3000.0)])
    X[5, 1] = np.nan
    found = features(tree._rows(X))
    assert found.shape == (3000, 2)
    assert np.isnan(found[5, 1])
    places = np.delete(found[:, 1], 5)
    assert (places == np.floor(places)).all()
    share = np.bincount(places.astype(int), minlength=BUCKETS) / len(places)
    assert len(share) == BUCKETS
    assert share.min() > 0.5 / BUCKETS and share.max() < 1.6 / BUCKETS
    both = features(HoeffdingTreeClassifier(nominal=(0, 1))._rows(X[:, [1, 1]]))
    assert (both[:, 0] != both[:, 1]).mean() > 0.9, "a value has the same bucket in every column"


# --- splits --------------------------------------------------------------------------------------


def nominal_tree(x, y, k):
    how = rule(numbers=0, nominal=1, grace_period=1e9)
    tree, _ = taught(begin_tree(k, how, 0), how, x, y)
    return tree, how


def brute_force(x, y, k):
    """The best merit of all divisions of buckets in two."""
    seen = np.unique(x)
    counts = np.array([[np.sum((x == b) & (y == c)) for c in range(k)] for b in seen], float)
    best = 0.0
    for size in range(1, len(seen)):
        for chosen in itertools.combinations(range(len(seen)), size):
            right = counts[list(chosen)].sum(axis=0)
            left = counts.sum(axis=0) - right
            n = np.array([left.sum(), right.sum()])
            if n.min() > 0.01 * n.sum():
                within = n @ [impurity(left, False), impurity(right, False)] / n.sum()
                best = max(best, impurity(left + right, False) - within)
    return best


@pytest.mark.parametrize("seed", range(5))
def test_the_best_division_of_categories_in_two_classes_is_found(seed):
    random = np.random.default_rng(seed)
    x = random.choice([0, 1, 5, 17, 30, 31, 32, 62, 63], 400).astype(float)
    y = (random.random(400) < random.random(BUCKETS)[x.astype(int)]).astype(np.int64)
    tree, how = nominal_tree(x[:, None], y, 2)
    merit, second, slot, _, mask = best_split(tree, how, 0, 400.0)
    assert merit == pytest.approx(brute_force(x, y, 2), abs=1e-12)
    assert (second, slot) == (0.0, 0)
    right = np.array([(mask >> int(b)) & 1 for b in x])
    n = np.array([(right == side).sum() for side in (0, 1)])
    sides = [impurity(np.bincount(y[right == side], minlength=2), False) for side in (0, 1)]
    whole = impurity(np.bincount(y, minlength=2), False)
    assert merit == pytest.approx(whole - n @ sides / 400, abs=1e-12)


def test_a_division_of_categories_in_many_classes_is_nearly_the_best():
    ratios = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        x = random.integers(0, 8, 500).astype(float)
        chances = random.dirichlet(np.full(6, 0.5), BUCKETS)
        y = np.array([random.choice(6, p=chances[int(b)]) for b in x])
        tree, how = nominal_tree(x[:, None], y, 6)
        ratios.append(best_split(tree, how, 0, 500.0)[0] / brute_force(x, y, 6))
    assert max(ratios) <= 1.0 + 1e-9
    assert min(ratios) > 0.75
    assert np.mean(ratios) > 0.93


def test_a_column_counts_for_the_rows_in_which_it_is_known():
    x, y = rows(400)
    y = (x[:, 0] > 0).astype(np.int64)
    x[::2, 0] = np.nan
    how = rule(numbers=1, nominal=0, grace_period=1e9)
    some, _ = taught(begin_tree(2, how, 0), how, x[:, :1], y)
    known, _ = taught(begin_tree(2, how, 0), how, x[1::2, :1], y[1::2])
    merit = best_split(known, how, 0, 200.0)[0]
    assert merit > 0.1
    assert best_split(some, how, 0, 400.0)[0] == pytest.approx(merit / 2, abs=1e-12)


# --- columns that leaves draw --------------------------------------------------------------------


def test_a_leaf_looks_at_columns_that_it_draws():
    random = np.random.default_rng(0)
    x = random.normal(size=(6000, 9))
    x[:, 7:] = random.integers(0, 64, (6000, 2))
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int64)
    how = rule(numbers=7, nominal=2, max_features=3, tau=0.5)
    tree, _ = taught(begin_tree(2, how, 1), how, x, y)
    blocks = tree.nodes.used[BLOCKS]
    columns = tree.columns[:blocks]
    assert blocks > 60
    assert ((columns >= 0).sum(axis=1) == 3).all()
    numbers, nominal = columns[:, :3], columns[:, 3:]
    assert numbers.max() == 6 and set(nominal[nominal >= 0]) == {7, 8}
    for row in columns:
        assert len(set(row[row >= 0])) == 3
    often = np.bincount(columns[columns >= 0], minlength=9) / blocks
    assert (abs(often - 1 / 3) < 0.2).all()
    owners = tree.nodes.owners[:blocks]
    split = tree.nodes.links[: tree.nodes.used[NODES]]
    assert (split[owners, CHILD] == 0).all()
    again, _ = taught(begin_tree(2, how, 1), how, x, y)
    other, _ = taught(begin_tree(2, how, 2), how, x, y)
    assert all(np.array_equal(a, saved_tree(again)[n]) for n, a in saved_tree(tree).items())
    assert not np.array_equal(saved_tree(other)["columns"], saved_tree(tree)["columns"])


# --- room and memory -----------------------------------------------------------------------------


def test_room_does_not_show():
    x, y = rows(1500)
    how = rule()
    tree, out = taught(begin_tree(2, how, 0), how, x, y)
    roomy = begin_tree(2, how, 0)
    for _ in range(9):
        roomy = larger_tree(roomy, how)
    assert len(roomy.counts) > 2 * tree.nodes.used[NODES]
    roomy, same = taught(roomy, how, x, y)
    assert np.array_equal(out, same)
    for name, array in saved_tree(tree).items():
        assert np.array_equal(array, saved_tree(roomy)[name]), name


def test_room_is_never_more_than_the_bounds():
    x, y = rows(4000)
    how = rule(max_nodes=30, max_blocks=6)
    tree, _ = taught(begin_tree(2, how, 0), how, x, y)
    assert tree.nodes.used[NODES] == 29
    assert len(tree.counts) <= 30 and len(tree.norms) <= 6


def test_leaves_that_promise_little_give_way():
    x, y = rows(6000, seed=3)
    how = rule(max_blocks=5)
    tree, _ = taught(begin_tree(2, how, 0), how, x, y)
    used, links = tree.nodes.used, tree.nodes.links
    assert used[BLOCKS] == 5 and used[NODES] > 15
    leaves = np.flatnonzero(links[: used[NODES], CHILD] == 0)
    active = leaves[links[leaves, BLOCK] >= 0]
    assert len(active) == 5 and len(leaves) > 5
    assert sorted(tree.nodes.owners[:5]) == sorted(active)
    assert (tree.nodes.owners[links[active, BLOCK]] == active).all()
    whole, _ = taught(begin_tree(2, rule(), 0), rule(), x, y)
    assert whole.nodes.used[NODES] > used[NODES]


def test_bytes_are_what_arrays_take():
    how = rule(numbers=20, nominal=3)
    tree = begin_tree(4, how, 0)
    of_node, of_block = bytes_of(20, 3, 4)
    saved = saved_tree(tree)
    assert saved["used"].nbytes + saved["draws"].nbytes == 64
    assert sum(array.nbytes for array in saved.values()) == of_node + of_block + 64


# --- states --------------------------------------------------------------------------------------


def test_a_saved_tree_goes_on():
    x, y = rows(2000, k=3)
    how = rule()
    tree, _ = taught(begin_tree(3, how, 0), how, x[:1000], y[:1000])
    kept = saved_tree(tree)
    loaded = loaded_tree(begin_tree(3, how, 5), kept, how)
    tree, out = taught(tree, how, x[1000:], y[1000:])
    loaded, same = taught(loaded, how, x[1000:], y[1000:])
    assert np.array_equal(out, same)
    assert all(np.array_equal(a, saved_tree(loaded)[n]) for n, a in saved_tree(tree).items())
    with pytest.raises(InputError, match="moments"):
        loaded_tree(begin_tree(3, rule(numbers=20), 0), kept, rule(numbers=20))


def test_a_tree_from_outside_is_checked():
    learner = HoeffdingTreeClassifier().fit(*rows(300))
    state = learner.save()
    other = HoeffdingTreeClassifier().load(state)
    assert state_digest(other.save()) == state_digest(state)
    broken = dict(state["tree"].arrays)
    broken["counts"] = broken["counts"][:, :1]
    with pytest.raises(InputError):
        HoeffdingTreeClassifier().load(state | {"tree": type(state["tree"])(broken)})


def test_missing_values_go_to_the_heavier_side():
    x = np.r_[np.linspace(0, 1, 300), np.linspace(5, 6, 100)][:, None]
    y = (x[:, 0] > 3).astype(np.int64)
    order = np.random.default_rng(0).permutation(400)
    how = rule(numbers=1, nominal=0, grace_period=400.0)
    tree, _ = taught(begin_tree(2, how, 0), how, x[order], y[order])
    assert tree.nodes.links[0, CHILD] == 1
    assert tree.nodes.links[0, [COLUMN, MISSING]].tolist() == [0, 0]
    assert leaf_of(tree.nodes, np.array([np.nan])) == 1
    heavier, _ = taught(begin_tree(2, how, 0), how, -x[order], y[order])
    assert leaf_of(heavier.nodes, np.array([np.nan])) == 2
