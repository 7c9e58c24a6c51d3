import numpy as np
import pytest

from everlearn.base import InputError, Part, SpecError, state_digest
from everlearn.learners import HoeffdingTreeClassifier
from everlearn.learners.native.hoeffding_adaptive_tree import HoeffdingAdaptiveTreeClassifier
from everlearn.learners.native.tree.alternates import (
    NODE_BYTES,
    SIZE,
    Watch,
    drop_alternate,
)
from everlearn.learners.native.tree.nodes import (
    BLOCK,
    BLOCKS,
    CHILD,
    COLUMN,
    DEPTH,
    FREE,
    FREE_BLOCKS,
    FREE_NODES,
    MASK,
    NODES,
    begin_nodes,
    take_pair,
)


def stream(n, period=5000, seed=0):
    """Rows of 4 normal columns; every so many rows another of them tells the class."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, 4))
    which = np.arange(n) // period % 3
    told = X[np.arange(n), which] + 0.5 * X[np.arange(n), (which + 1) % 3]
    return X, (told + 0.2 * random.normal(size=n) > 0).astype(int)


def accuracy(learner, X, y):
    return (learner.score_then_learn(X, y) == y).mean()


def subtree(nodes, root):
    """Every node at or below one."""
    found, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if nodes.links[node, CHILD] > 0:
            waiting += [nodes.links[node, CHILD], nodes.links[node, CHILD] + 1]
    return found


def check(learner):
    """Every node and every block is in use once, or free once; depths are those of the tree."""
    nodes, alternates = learner._tree.nodes, learner._watch.alternates
    used = nodes.used
    own = subtree(nodes, 0)
    above = {node for node in own if alternates[node] > 0}
    assert not [node for node in range(used[NODES]) if alternates[node] > 0 and node not in above]
    assert all(nodes.links[node, CHILD] > 0 for node in above), "a leaf has an alternate"
    others = [node for root in above for node in subtree(nodes, alternates[root])]
    beside = [alternates[root] + 1 for root in above]
    free, left = [], used[FREE_NODES]
    while left > 0:
        free += [left, left + 1]
        left = nodes.links[left, CHILD]
    assert sorted(own + others + beside + free) == list(range(used[NODES]))
    assert all(nodes.links[node, DEPTH] == FREE for node in free + beside)
    for node in own + others:
        for child in subtree(nodes, node)[1:]:
            assert nodes.links[child, DEPTH] > nodes.links[node, DEPTH] >= 0
    for root in above:
        assert nodes.links[alternates[root], DEPTH] == nodes.links[root, DEPTH]
    taken = nodes.links[own + others, BLOCK]
    for node in own + others:
        if nodes.links[node, BLOCK] >= 0:
            assert nodes.links[node, CHILD] == 0
            assert nodes.owners[nodes.links[node, BLOCK]] == node
    blocks, left = [], used[FREE_BLOCKS]
    while left > 0:
        blocks.append(left - 1)
        left = -1 - nodes.owners[left - 1]
    assert sorted([*taken[taken >= 0], *blocks]) == list(range(used[BLOCKS]))
    return above


# --- what it is for ------------------------------------------------------------------------------


def test_it_follows_a_stream_that_changes():
    X, y = stream(60_000)
    fixed = HoeffdingTreeClassifier(delta=1e-3)
    learner = HoeffdingAdaptiveTreeClassifier(delta=1e-3)
    assert accuracy(learner, X, y) > accuracy(fixed, X, y) + 0.1
    assert accuracy(learner, X[:5000], y[:5000]) > 0.85
    check(learner)
    assert learner._tree.nodes.used[NODES] < fixed._tree.nodes.used[NODES]


def test_where_nothing_changes_it_is_a_hoeffding_tree():
    X, y = stream(30_000, period=30_000)
    fixed, learner = HoeffdingTreeClassifier(), HoeffdingAdaptiveTreeClassifier()
    assert abs(accuracy(fixed, X, y) - accuracy(learner, X, y)) < 0.01
    careless = HoeffdingAdaptiveTreeClassifier(drift_delta=1e-300).fit(X, y)
    assert not check(careless)
    ours, theirs = careless.save()["tree"], HoeffdingTreeClassifier().fit(X, y).save()["tree"]
    for name, array in theirs.arrays.items():
        assert np.array_equal(array, ours.arrays[name]), name


def test_an_alternate_takes_over_only_a_part():
    """Only rows of the right half change, and the left half keeps its subtree."""
    random = np.random.default_rng(0)
    X = random.uniform(-1, 1, size=(60_000, 3))
    side = np.where(np.arange(60_000) < 30_000, X[:, 2] > 0.2, X[:, 2] < -0.2)
    y = np.where(X[:, 0] < 0, X[:, 1] > 0, side).astype(int) + 2 * (X[:, 0] >= 0)
    learner = HoeffdingAdaptiveTreeClassifier(leaf="mc", drift_delta=1e-4)
    learner.partial_fit(X[:30_000], y[:30_000])
    left = X[:, 0] < -0.2
    before = learner._tree.counts[0].copy()
    learner.partial_fit(X[30_000:], y[30_000:])
    assert (learner._tree.counts[0] == before).all(), "the root was replaced"
    assert (learner.predict(X[-5000:]) == y[-5000:]).mean() > 0.9
    assert (learner.predict(X[left]) == y[left]).mean() > 0.93
    check(learner)


def test_it_is_as_good_as_rivers():
    tree = pytest.importorskip("river.tree", reason="River is what results are compared with")
    X, y = stream(9000, period=3000)
    peer = tree.HoeffdingAdaptiveTreeClassifier(delta=1e-3, seed=0)
    right = 0
    for x, label in zip((dict(enumerate(row)) for row in X.tolist()), y.tolist(), strict=True):
        right += peer.predict_one(x) == label
        peer.learn_one(x, label)
    assert accuracy(HoeffdingAdaptiveTreeClassifier(delta=1e-3), X, y) > right / len(X) - 0.005


# --- alternates ----------------------------------------------------------------------------------


def test_nodes_and_blocks_are_never_lost():
    X, y = stream(80_000, period=2500, seed=3)
    learner = HoeffdingAdaptiveTreeClassifier(
        delta=0.1, grace_period=40, tau=0.2, drift_delta=0.1, drift_window_threshold=1000
    )
    had_alternates, freed = 0, 0
    for start in range(0, len(X), 500):
        learner.partial_fit(X[start : start + 500], y[start : start + 500])
        had_alternates += bool(check(learner))
        freed += learner._tree.nodes.used[FREE_NODES] > 0
    assert had_alternates > 20
    assert freed > 20


def test_an_answer_is_a_vote_with_the_alternates():
    X, y = stream(40_000, period=4000)
    learner = HoeffdingAdaptiveTreeClassifier(delta=1e-3, drift_delta=0.05)
    for start in range(0, len(X), 100):
        learner.partial_fit(X[start : start + 100], y[start : start + 100])
        if learner._watch.alternates[0] > 0 and start % 4000 > 600:
            break
    else:
        pytest.fail("there never was an alternate of the root")
    with_alternate = learner.predict_proba(X[:200])
    learner._watch.alternates[:] = 0
    alone = learner.predict_proba(X[:200])
    assert (np.abs(with_alternate - alone) > 1e-3).any()
    np.testing.assert_allclose(with_alternate.sum(axis=1), 1.0, atol=1e-12)


def test_it_waits_until_both_have_seen_enough():
    X, y = stream(14_000, period=10_000)
    patient = HoeffdingAdaptiveTreeClassifier(delta=1e-3, drift_window_threshold=9000)
    quick = HoeffdingAdaptiveTreeClassifier(delta=1e-3)
    columns = []
    for learner in (quick, patient):
        for part in (slice(0, 10_000), slice(10_000, 14_000)):
            learner.partial_fit(X[part], y[part])
            columns.append(learner._tree.nodes.links[0, COLUMN])
    assert columns == [0, 1, 0, 0]
    assert patient._watch.alternates[0] > 0


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_bytes", [80_000, 300_000])
def test_its_memory_is_bounded_and_it_still_adapts(max_bytes):
    X, y = stream(120_000, period=20_000)
    learner = HoeffdingAdaptiveTreeClassifier(
        delta=0.05, grace_period=50, tau=0.1, max_bytes=max_bytes
    )
    right = []
    for start in range(0, len(X), 5000):
        part = slice(start, start + 5000)
        right.append(accuracy(learner, X[part], y[part]))
        check(learner)
        tree, watch = learner._tree, learner._watch
        held = [*tree.nodes, *tree[1:-1], watch.errors, watch.alternates]
        assert sum(array.nbytes for array in held) <= max_bytes + 64
    assert min(right[i] for i in range(3, len(right), 4)) > 0.85, "it no longer adapts"
    assert NODE_BYTES == 8 * (SIZE + 1)


# --- parameters and states -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {"drift_delta": 0.0},
        {"drift_delta": 1.0},
        {"switch_significance": -1},
        {"drift_window_threshold": 0},
        {"drift_window_threshold": 2.5},
        {"grace_period": 0},
        {"max_bytes": 5000},
    ],
    ids=str,
)
def test_wrong_parameters_are_named(params):
    with pytest.raises(SpecError, match=next(iter(params))):
        HoeffdingAdaptiveTreeClassifier(**params).fit(*stream(10))


def test_it_goes_on_from_any_row():
    X, y = stream(12_000, period=2000)
    whole = HoeffdingAdaptiveTreeClassifier(2, delta=1e-2, drift_delta=0.05)
    for start in range(0, 12_000, 1500):
        other = HoeffdingAdaptiveTreeClassifier(2, delta=1e-2, drift_delta=0.05)
        other.load(whole.save())
        part = slice(start, start + 1500)
        ours, theirs = (each.score_then_learn(X[part], y[part]) for each in (whole, other))
        assert np.array_equal(ours, theirs)
        assert state_digest(whole.save()) == state_digest(other.save())
    assert whole._tree.nodes.used[NODES] > 3


def test_a_state_that_does_not_fit_is_refused():
    X, y = stream(8000, period=2000)
    state = HoeffdingAdaptiveTreeClassifier(delta=1e-2).fit(X, y).save()
    errors, alternates = (state["watch"].arrays[name] for name in ("errors", "alternates"))
    for broken in (
        {"errors": errors[:, :-1], "alternates": alternates},
        {"errors": errors[:1], "alternates": alternates[:1]},
        {"errors": errors},
    ):
        with pytest.raises(InputError):
            HoeffdingAdaptiveTreeClassifier().load(state | {"watch": Part(broken)})


def test_a_class_may_appear_after_a_change():
    X, y = stream(12_000, period=3000)
    y = y + (np.arange(12_000) > 9000) * (X[:, 3] > 1) * 2
    learner = HoeffdingAdaptiveTreeClassifier(delta=1e-2)
    right = learner.score_then_learn(X, y) == y
    assert learner.classes_.tolist() == [0, 1, 2, 3]
    assert right[-1000:].mean() > 0.75
    check(learner)


def test_dropping_a_leaf_leaves_the_categories_of_the_root_alone():
    nodes = begin_nodes(6, 2)
    root = take_pair(nodes, 6)
    nodes.links[0, CHILD], nodes.links[0, MASK] = root, 0b1011
    alternate = take_pair(nodes, 6)
    nodes.links[alternate, BLOCK] = -1
    watch = Watch(np.zeros((6, SIZE)), np.array([alternate, 0, 0, 0, 0, 0]), np.zeros(2))
    drop_alternate(nodes, watch, 0)
    assert nodes.links[0, MASK] == 0b1011
    assert watch.alternates[0] == 0
    assert nodes.used[FREE_NODES] == alternate
