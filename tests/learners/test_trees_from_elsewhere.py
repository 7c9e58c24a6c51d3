"""A state may come from elsewhere. Kernels check no index, so a load refuses any state of a tree, a
forest or a detector that would lead one out of its arrays, or round in circles."""

from __future__ import annotations

import numpy as np
import pytest

from everlearn import learners
from everlearn.base import InputError, Part, state_digest
from everlearn.learners.native.drift.adwin import ADWIN, LEFT, RING
from everlearn.learners.native.drift.kswin import HELD, KSWIN, OLDEST, WORDS
from everlearn.learners.native.tree.nodes import (
    BLOCK,
    CHILD,
    COLUMN,
    DEPTH,
    FREE_BLOCKS,
    FREE_NODES,
    MASK,
    MISSING,
)

PARAMS = {
    "HoeffdingTreeClassifier": {"delta": 0.1, "grace_period": 50},
    "HoeffdingTreeRegressor": {"delta": 0.1, "grace_period": 50},
    "HoeffdingAdaptiveTreeClassifier": {"delta": 0.1, "grace_period": 50, "drift_delta": 0.05},
    "HoeffdingAdaptiveTreeRegressor": {"delta": 0.1, "grace_period": 50, "drift_delta": 0.05},
    "AdaptiveRandomForestClassifier": {"n_models": 2, "seed": 1},
    "AdaptiveRandomForestRegressor": {"n_models": 2, "seed": 1},
}
ADAPTIVE = [name for name in PARAMS if "AdaptiveTree" in name]
FORESTS = [name for name in PARAMS if "Forest" in name]
REGRESSORS = [name for name in PARAMS if "Regressor" in name]


def made(name, **params):
    return getattr(learners, name)(**PARAMS[name] | {"nominal": (3,)} | params)


def rows(n=4000):
    """Rows of three numbers and a category; what tells the target changes in the middle."""
    random = np.random.default_rng(0)
    X = random.normal(size=(n, 4))
    X[:, 3] = random.integers(0, 9, n)
    told = np.where(np.arange(n) < n // 2, X[:, 0], -X[:, 1]) + (X[:, 3] > 4)
    return X, (told > 0.5).astype(int)


@pytest.fixture(scope="module")
def states():
    X, y = rows()
    return {name: made(name).fit(X, y).save() for name in PARAMS}


def changed(state, part, name, change):
    """The state with one array changed in place, or by what the change returns."""
    arrays = {key: array.copy() for key, array in state[part].arrays.items()}
    other = change(arrays[name])
    arrays[name] = arrays[name] if other is None else other
    return {**state, part: Part(arrays, state[part].meta)}


def setting(*at, value):
    def change(array):
        array[at] = value

    return change


def tree_of(name):
    return "tree 0" if name in FORESTS else "tree"


BROKEN_NODES = {
    "a child beyond the nodes": ("links", setting(0, CHILD, value=10**9)),
    "a child before them": ("links", setting(0, CHILD, value=-5)),
    "a child that is the second of a pair": ("links", setting(0, CHILD, value=2)),
    "a child of itself": ("links", setting(1, CHILD, value=1)),
    "a free node that is none": ("used", setting(FREE_NODES, value=10**9)),
    "a free node in use": ("used", setting(FREE_NODES, value=1)),
    "a column that there is not": ("links", setting(0, COLUMN, value=4)),
    "a column before the first": ("links", setting(0, COLUMN, value=-1)),
    "a third side": ("links", setting(0, MISSING, value=2)),
    "a root below itself": ("links", setting(0, DEPTH, value=1)),
    "a leaf that is free": ("links", setting(-1, DEPTH, value=-7)),
    "a split with a block": ("links", setting(0, BLOCK, value=0)),
    "a free block that is none": ("used", setting(FREE_BLOCKS, value=10**6)),
    "a free block in use": ("used", setting(FREE_BLOCKS, value=1)),
    "another owner": ("owners", setting(0, value=0)),
    "an owner that is no node": ("owners", setting(0, value=10**9)),
    "a free block that is the next of itself": ("owners", setting(0, value=-2)),
    "a block that looks at no column": ("columns", setting(0, 0, value=77)),
    "numbers where categories are": ("columns", setting(0, -1, value=0)),
    "fewer links than nodes": ("links", lambda links: links[:-2]),
    "fewer blocks than owners": ("tallies", lambda tallies: tallies[:-1]),
    "a generator of nothing": ("draws", lambda draws: draws[:0]),
    "no counts of what is in use": ("used", lambda used: used[:2]),
    "links of another type": ("links", lambda links: links.astype(np.float64)),
}


@pytest.mark.parametrize("what", BROKEN_NODES)
@pytest.mark.parametrize("name", PARAMS)
def test_a_tree_that_leads_astray_is_refused(states, name, what):
    state = changed(states[name], tree_of(name), *BROKEN_NODES[what])
    with pytest.raises(InputError, match="broken"):
        made(name).load(state)


@pytest.mark.parametrize("name", PARAMS)
def test_numbers_that_are_split_by_categories_are_refused(states, name):
    def change(links):
        split = links[:, CHILD] * (links[:, DEPTH] >= 0) * (links[:, COLUMN] < 3)
        links[np.argmax(split), MASK] = 5

    with pytest.raises(InputError, match="categories"):
        made(name).load(changed(states[name], tree_of(name), "links", change))


@pytest.mark.parametrize("name", REGRESSORS)
def test_more_edges_than_there_is_room_for_are_refused(states, name):
    for part, change in (
        ("sizes", setting(0, 0, value=33)),
        ("sizes", setting(0, 0, value=-1)),
        ("sizes", setting(0, 0, value=0)),
    ):
        with pytest.raises(InputError, match="sizes"):
            made(name).load(changed(states[name], tree_of(name), part, change))


@pytest.mark.parametrize("name", ADAPTIVE)
def test_alternates_that_lead_astray_are_refused(states, name):
    for alternate in (10**9, -1, 1, 2):
        with pytest.raises(InputError, match="broken"):
            made(name).load(
                changed(states[name], "watch", "alternates", setting(0, value=alternate))
            )


@pytest.mark.parametrize("name", [*ADAPTIVE, *FORESTS])
def test_detectors_keep_the_parameters_of_who_loads_them(states, name):
    """Their rings among them, by which a kernel finds its way."""
    part, array = ("member 0", "detectors") if name in FORESTS else ("watch", "errors")
    strange = changed(states[name], part, array, setting(0, RING, value=1e9))
    learner = made(name).load(strange)
    assert state_digest(learner.save()) == state_digest(states[name])


@pytest.mark.parametrize("name", FORESTS)
def test_members_of_another_type_are_refused(states, name):
    for array in ("draws", "detectors", "tallies"):
        strange = changed(states[name], "member 1", array, lambda given: given.astype(np.int32))
        with pytest.raises(InputError, match=array):
            made(name).load(strange)


@pytest.mark.parametrize("name", FORESTS)
def test_a_forest_keeps_the_memory_of_who_loads_it(states, name):
    more = Part(meta={"max_nodes": 10**12, "max_blocks": 10**12})
    learner = made(name).load({**states[name], "forest": more})
    assert state_digest(learner.save()) == state_digest(states[name])
    small = made(name, max_bytes=2_000_000)
    small.load(states[name])
    assert small._rule == made(name, max_bytes=2_000_000).fit(*rows(100))._rule


def test_a_window_of_another_weight_than_its_rows_is_refused():
    """Half-space trees have room for as many parts as can hold a tenth of the weight."""
    forest = learners.HalfSpaceTrees(n_trees=2, window=50)
    state = forest.partial_fit(rows(120)[0]).save()
    for name in ("reference", "latest"):
        with pytest.raises(InputError, match="window"):
            learners.HalfSpaceTrees(n_trees=2, window=50).load(
                changed(state, name, "filled", setting(1, value=1e-3))
            )


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("order", setting(3, value=10**9)),
        ("order", setting(3, value=4)),
        ("places", setting(HELD, value=10**6)),
        ("places", setting(HELD, value=-1)),
        ("places", setting(OLDEST, value=100)),
        ("places", setting(OLDEST, value=-1)),
        ("twister", setting(slice(WORDS), value=0)),
    ],
)
def test_a_window_that_leads_astray_is_refused(name, change):
    detector = KSWIN()
    detector.update(np.random.default_rng(0).normal(size=250))
    state = changed({"kswin": detector.save()}, "kswin", name, change)
    with pytest.raises(InputError, match="broken"):
        KSWIN().load(state["kswin"])


def test_a_check_that_is_overdue_is_refused():
    detector = ADWIN()
    detector.update(np.arange(40.0))
    for left in (0.0, -1.0, np.nan):
        state = changed({"adwin": detector.save()}, "adwin", "state", setting(0, LEFT, value=left))
        with pytest.raises(InputError, match="overdue"):
            ADWIN().load(state["adwin"])
