"""Boosted trees of LightGBM and XGBoost as learners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

lightgbm = pytest.importorskip("lightgbm", reason="LightGBM is needed")
xgboost = pytest.importorskip("xgboost", reason="XGBoost is needed")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import everlearn as el  # noqa: E402
from everlearn.base import (  # noqa: E402
    Batch,
    Columns,
    InputError,
    Learner,
    Part,
    SpecError,
    state_digest,
)
from everlearn.learners import LightGBM, XGBoost, as_learner, learner_kind  # noqa: E402
from everlearn.learners.boosting.learner import BoostedTrees  # noqa: E402
from everlearn.learners.boosting.lightgbm import check_tree  # noqa: E402
from everlearn.registry.config import equal_when_rebuilt  # noqa: E402
from everlearn.testing.learner import (  # noqa: E402
    COLUMNS,
    LearnerSuite,
    copied,
    make_rows,
    same_prediction,
)

BOTH = pytest.mark.parametrize("library", [LightGBM, XGBoost])
NUMBER = {LightGBM: {"objective": "huber"}, XGBoost: {"objective": "reg:squarederror"}}


class TestLightGBM(LearnerSuite):
    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        return LightGBM().make_learner(columns, classes=classes, seed=seed)


class TestLightGBMForNumbers(LearnerSuite):
    """Rows and columns are drawn, and old leaves decay."""

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        drawn = {"bagging_fraction": 0.7, "bagging_freq": 1, "feature_fraction": 0.8}
        made = LightGBM({"objective": "regression", **drawn}, at_most=25, decay=0.8)
        return made.make_learner(columns, classes=classes, seed=seed)


class TestLightGBMRefitted(LearnerSuite):
    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = LightGBM(trees=10, at_most=15, full="refit")
        return made.make_learner(columns, classes=classes, seed=seed)


class TestXGBoost(LearnerSuite):
    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        return XGBoost(classes=3).make_learner(columns, classes=classes, seed=seed)


class TestXGBoostForNumbers(LearnerSuite):
    """Rows and columns are drawn, and old leaves decay."""

    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        drawn = {"subsample": 0.7, "colsample_bytree": 0.8}
        made = XGBoost({"objective": "reg:squarederror", **drawn}, at_most=25, decay=0.8)
        return made.make_learner(columns, classes=classes, seed=seed)


class TestXGBoostRefitted(LearnerSuite):
    def learner(self, columns: Columns, classes: int = 0, seed: int = 0) -> Learner:
        made = XGBoost(trees=10, at_most=15, full="refit")
        return made.make_learner(columns, classes=classes, seed=seed)


def taught(definition: Any, rows: int = 400, classes: int = 2, chunk: int = 100) -> BoostedTrees:
    learner: BoostedTrees = definition.make_learner(COLUMNS, classes=classes)
    for batch in make_rows(0, rows, classes=classes).split(chunk):
        learner.learn(batch)
    return learner


def test_is_what_lightgbm_makes_of_an_initial_model() -> None:
    """The loop that users write, from the same start, tree by tree."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 4))
    y = (X[:, 0] * X[:, 1] + rng.normal(size=900) > 0).astype(int)
    definition = LightGBM({"lambda_l2": 0.0}, trees=7, decay=1.0)
    learned = el.learn(definition, X, y, el.Strategy(chunk=300))
    base = learned._fold.learner.base_[0]
    params = {"objective": "binary", "num_threads": 1, "verbosity": -1, "min_data_in_bin": 1}
    booster: Any = None
    for start in range(0, 900, 300):
        rows = slice(start, start + 300)
        data = lightgbm.Dataset(X[rows], y[rows], init_score=np.full(300, base), params=params)
        if booster is not None:  # `init_model` overrules `init_score`: the start is added here
            before = base + booster.predict(X[rows], raw_score=True)
            data = lightgbm.Dataset(X[rows], y[rows], init_score=before, params=params)
        grown = lightgbm.train(params, data, 7)
        booster = grown if booster is None else _joined(booster, grown)
    by_hand = base + booster.predict(X, raw_score=True)
    ours = learned.predict_proba(X)[:, 1]
    np.testing.assert_allclose(ours, 1 / (1 + np.exp(-by_hand)), rtol=0, atol=1e-12)


class _joined:
    """The sum of boosters."""

    def __init__(self, *boosters: Any) -> None:
        self.boosters = boosters

    def predict(self, x: Any, raw_score: bool) -> Any:
        return sum(booster.predict(x, raw_score=raw_score) for booster in self.boosters)


def test_is_what_xgboost_makes_of_an_existing_model() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 4))
    y = X[:, 0] * X[:, 1] + rng.normal(size=900)
    definition = XGBoost({"objective": "reg:squarederror"}, trees=7, decay=1.0)
    learned = el.learn(definition, X, y, el.Strategy(chunk=300))
    base = float(learned._fold.learner.base_[0])
    params = {"nthread": 1, "base_score": base, "learning_rate": 0.1}
    booster = None
    for start in range(0, 900, 300):
        data = xgboost.DMatrix(X[start : start + 300], y[start : start + 300])
        booster = xgboost.train(params, data, 7, xgb_model=booster)
    assert booster is not None
    np.testing.assert_allclose(
        learned.predict(X), booster.predict(xgboost.DMatrix(X)), rtol=0, atol=1e-4
    )


@BOTH
def test_the_number_of_trees_is_bounded_and_the_newest_stay(library: Any) -> None:
    learner = taught(library(trees=10, at_most=25, decay=1.0), rows=600)
    assert learner.rounds == 25
    grown = taught(library(trees=10, at_most=600, decay=1.0), rows=600)
    assert grown.rounds == 60


@BOTH
def test_leaves_are_refitted_where_there_is_no_room_for_trees(library: Any) -> None:
    learner = taught(library(trees=10, at_most=20, full="refit"), rows=200)
    turned = make_rows(200, 1000)
    turned = turned.with_y(1 - turned.y)  # type: ignore[operator]
    before = (learner.predict(turned).value == turned.y).mean()
    for batch in turned.split(100):
        learner.learn(batch)
    assert learner.rounds == 20
    assert before < 0.3 and (learner.predict(turned).value == turned.y).mean() > 0.7


@BOTH
def test_what_was_learned_long_ago_decays(library: Any) -> None:
    """The sum of old trees is what it was times the factor, chunk after chunk."""
    definition = library(trees=5, decay=0.5)
    learner = taught(definition, rows=200)
    rows, other = make_rows(300, 340), make_rows(200, 300)
    old = learner._forest.margins(learner._library, learner._matrix.transform(rows), 1)
    blocks = len(learner._forest.blocks)
    text = learner.save()
    learner.learn(other)
    state = learner.save()
    kept = [name for name in text if name.startswith("trees/")]
    assert all(state[name].digest == text[name].digest for name in kept)
    only_old = definition.make_learner(COLUMNS, classes=2)
    only_old.load(text)
    for block in only_old._forest.blocks:
        block.weight *= 0.5
    assert blocks == len(only_old._forest.blocks)
    halved = only_old._forest.margins(learner._library, only_old._matrix.transform(rows), 1)
    np.testing.assert_allclose(halved, 0.5 * old, rtol=1e-6)
    new = learner._forest.margins(learner._library, learner._matrix.transform(rows), 1) - halved
    assert 0 < np.abs(new).max() < 3


@BOTH
def test_versions_share_the_trees_that_they_have_in_common(library: Any) -> None:
    """A version stores its own trees, and sometimes those of its block once more, but no others."""
    learner = taught(library(trees=4, at_most=400), rows=100)
    stored: dict[str, int] = {}
    for number in range(1, 60):
        learner.learn(make_rows(100 * number, 100 * number + 100))
        for name, part in learner.save().items():
            if name.startswith("trees/"):
                stored[part.digest] = part.arrays["text"].nbytes
    last = sum(
        part.arrays["text"].nbytes
        for name, part in learner.save().items()
        if name.startswith("trees/")
    )
    assert learner.rounds == 240
    assert sum(stored.values()) < 2.1 * last
    assert len([name for name in learner.save() if name.startswith("trees/")]) < 20


@BOTH
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 30])
def test_small_chunks_are_learned(library: Any, rows: int) -> None:
    learner = library().make_learner(COLUMNS, classes=2)
    batches = list(make_rows(0, 15 * rows, missing=False).split(rows))
    before = state_digest(learner.save())
    for batch in batches:
        learner.learn(batch)
        after = state_digest(learner.save())
        assert after != before
        before = after
    answer = learner.predict(make_rows(300, 400, missing=False))
    assert np.isfinite(answer.proba).all()
    if rows >= 7:
        assert (answer.value == make_rows(300, 400, missing=False).y).mean() > 0.8


@BOTH
@pytest.mark.parametrize("classes", [2, 3])
def test_chunks_of_one_class_are_learned(library: Any, classes: int) -> None:
    """Each chunk has one class, and in the end all of them are told apart."""
    learner = library(decay=1.0).make_learner(COLUMNS, classes=classes)
    rows = make_rows(0, 900, classes=classes, missing=False)
    assert rows.y is not None
    for start in range(0, 900, 90):
        for code in range(classes):
            some = rows.take(slice(start, start + 90))
            learner.learn(some.take(some.y == code))  # type: ignore[arg-type]
    for _ in range(5):
        learner.learn(rows)
    answer = learner.predict(rows)
    assert (answer.value == rows.y).mean() > 0.9
    assert np.isfinite(answer.proba).all()


@BOTH
def test_a_class_that_comes_late_takes_no_leap(library: Any) -> None:
    learner = library().make_learner(COLUMNS, classes=1)
    rows = make_rows(0, 2000, classes=3, missing=False)
    assert rows.y is not None
    for batch in rows.take(rows.y == 0).split(200):
        learner.learn(batch)
    assert learner.grow(2) and learner.grow(3)
    learner.learn(rows.take(slice(200)))
    fresh = make_rows(3000, 3300, classes=3, missing=False)
    answer = learner.predict(fresh)
    loss = -np.log(answer.proba[np.arange(300), fresh.y]).mean()
    assert loss < 1.2, "no worse than the uniform answer"
    for batch in rows.split(200):
        learner.learn(batch)
    assert (learner.predict(fresh).value == fresh.y).mean() > 0.9


@BOTH
def test_a_state_keeps_the_trees_of_two_classes_when_more_come(library: Any) -> None:
    """One score becomes three, and what was said of the two stays as it was."""
    learner = taught(library(decay=1.0), rows=300)
    rows = make_rows(300, 400)
    before = learner.predict(rows)
    learner.grow(3)
    after = learner.predict(rows)
    assert before.proba is not None and after.proba is not None
    assert after.proba[:, 2].max() < 0.01
    odds = after.proba[:, 1] / after.proba[:, 0]
    np.testing.assert_allclose(odds, before.proba[:, 1] / before.proba[:, 0], rtol=1e-9)


@BOTH
def test_a_weight_counts_like_so_many_rows(library: Any) -> None:
    rows = make_rows(0, 300, missing=False)
    heavy = replace(rows, weight=np.where(rows.y == 1, 8.0, 1.0))
    plain, weighted = (library().make_learner(COLUMNS, classes=2) for _ in range(2))
    plain.learn(rows)
    weighted.learn(heavy)
    fresh = make_rows(300, 600, missing=False)
    assert weighted.predict(fresh).proba[:, 1].mean() > plain.predict(fresh).proba[:, 1].mean()
    with pytest.raises(InputError, match="finite number from 0"):
        plain.learn(replace(rows, weight=np.full(300, -1.0)))


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_target_that_is_not_finite_is_refused_and_nothing_is_learned(
    library: Any, value: float
) -> None:
    learner = library(NUMBER[library]).make_learner(COLUMNS)
    learner.learn(make_rows(0, 100, classes=0))
    before = state_digest(learner.save())
    rows = make_rows(100, 200, classes=0)
    y = np.array(rows.y)
    y[50] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        learner.learn(rows.with_y(y))
    assert state_digest(learner.save()) == before


@pytest.mark.parametrize("objective", ["poisson", "gamma", "tweedie", "l1", "quantile"])
def test_objectives_of_numbers(objective: str) -> None:
    learner = LightGBM({"objective": objective}).make_learner(COLUMNS)
    rows = make_rows(0, 600, classes=0)
    assert rows.y is not None
    rows = rows.with_y(rows.y + 1.0)
    for batch in rows.split(100):
        learner.learn(batch)
    value = learner.predict(rows).value
    assert np.corrcoef(value, rows.y)[0, 1] > 0.9  # type: ignore[arg-type]
    if objective == "poisson":
        before = state_digest(learner.save())
        with pytest.raises(InputError, match="LightGBM cannot learn 600 rows"):
            learner.learn(rows.with_y(-rows.y))  # type: ignore[operator]
        assert state_digest(learner.save()) == before


@pytest.mark.parametrize("objective", ["count:poisson", "reg:gamma", "reg:absoluteerror"])
def test_objectives_of_numbers_of_xgboost(objective: str) -> None:
    learner = XGBoost({"objective": objective}).make_learner(COLUMNS)
    rows = make_rows(0, 600, classes=0)
    assert rows.y is not None
    rows = rows.with_y(rows.y + 1.0)
    for batch in rows.split(100):
        learner.learn(batch)
    assert np.corrcoef(learner.predict(rows).value, rows.y)[0, 1] > 0.9  # type: ignore[arg-type]


@BOTH
def test_huge_and_infinite_numbers_are_the_largest(library: Any) -> None:
    learner = library().make_learner(COLUMNS, classes=2)
    rows = make_rows(0, 200)
    numbers = np.array(rows.numbers)
    numbers[::7, 0], numbers[::11, 1], numbers[::13, 2] = np.inf, -np.inf, 1e200
    learner.learn(replace(rows, numbers=numbers))
    assert np.isfinite(learner.predict(replace(rows, numbers=numbers)).proba).all()


@BOTH
def test_a_class_that_never_came_has_trees_that_can_be_loaded(library: Any) -> None:
    """LightGBM writes them as one leaf with empty lines."""
    first = library(trees=2).make_learner(COLUMNS, classes=3, seed=1)
    first.learn(make_rows(0, 100))
    second = library(trees=2).make_learner(COLUMNS, classes=3, seed=1)
    second.load(copied(first.save()))
    rows = make_rows(100, 200, classes=3)
    assert same_prediction(first.learn(rows, score=100), second.learn(rows, score=100))
    assert state_digest(first.save()) == state_digest(second.save())


@pytest.mark.parametrize(
    ("library", "old", "new"),
    [
        (LightGBM, b"left_child=", b"left_child=1_"),
        (LightGBM, b"right_child=", b"right_child=10e-"),
        (LightGBM, b"split_feature=", b"split_feature=9"),
        (XGBoost, b'"parents":[', b'"parents":[-'),
        (XGBoost, b'"parents":[2147483647,0', b'"parents":[2147483647,2147483647'),
        (XGBoost, b'"num_deleted":"', b'"num_deleted":"9'),
        (XGBoost, b'"split_type":[', b'"split_type":[7'),
    ],
)
def test_trees_that_lead_nowhere_are_refused(library: Any, old: bytes, new: bytes) -> None:
    """The libraries would follow them, and end the process."""
    state = copied(taught(library(), rows=300).save())
    name = next(name for name in state if name.startswith("trees/"))
    text = state[name].arrays["text"].tobytes()
    assert old in text
    bad = Part({"text": np.frombuffer(text.replace(old, new, 1), np.uint8)})
    with pytest.raises(InputError):
        library().make_learner(COLUMNS, classes=2).load(state | {name: bad})


@BOTH
@pytest.mark.parametrize(
    ("arrays", "meta", "block"),
    [
        ({"base": np.full(1, np.nan)}, {}, {}),
        ({"base": np.zeros((1, 1))}, {}, {}),
        ({}, {"seed": -3}, {}),
        ({}, {}, {"weight": 0.0}),
        ({}, {}, {"skip": -1}),
        ({}, {}, {"skip": 99}),
    ],
)
def test_a_state_whose_figures_cannot_be_is_refused(
    library: Any, arrays: Any, meta: Any, block: Any
) -> None:
    state = copied(taught(library(), rows=100).save())
    known = state["known"]
    told = {**known.meta, **meta, "blocks": [one | block for one in known.meta["blocks"]]}
    with pytest.raises(InputError):
        library().make_learner(COLUMNS, classes=2).load(
            {**state, "known": Part({**known.arrays, **arrays}, told)}
        )


@pytest.mark.parametrize(("leaves", "sets"), [(0, 0), (-1, 0), (1, -1)])
def test_a_tree_without_leaves_is_refused(leaves: int, sets: int) -> None:
    text = f"num_leaves={leaves}\nnum_cat={sets}\nleaf_value=\nis_linear=0\nshrinkage=1\n"
    with pytest.raises(InputError, match=f"{leaves} leaves and {sets} sets"):
        check_tree(text.encode(), 3)


@BOTH
def test_a_state_of_something_else_is_refused_with_what_differs(library: Any) -> None:
    state = copied(taught(library(), rows=100).save())
    other = XGBoost if library is LightGBM else LightGBM
    with pytest.raises(InputError, match=r"of the library '\w+', not '\w+'"):
        other().make_learner(COLUMNS, classes=2).load(state)
    with pytest.raises(InputError, match=r"of the objective 'classes', not '(huber|reg:sq)"):
        library(NUMBER[library]).make_learner(COLUMNS).load(state)
    narrow = replace(COLUMNS, numbers=("length",))
    with pytest.raises(InputError, match=r"with \[3, 1, 1\] numbers.*, not \[1, 1, 1\]"):
        library().make_learner(narrow, classes=2).load(state)
    broken = next(name for name in state if name.startswith("trees/"))
    for wrong in (b"nothing", b"#tree\nnum_leaves=x\n" * 10, b"{}\n" * 10):
        bad = state | {broken: Part({"text": np.frombuffer(wrong, np.uint8)})}
        with pytest.raises(InputError):
            library().make_learner(COLUMNS, classes=2).load(bad)
    with pytest.raises(InputError):
        del state[broken]
        library().make_learner(COLUMNS, classes=2).load(state)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LightGBM({"n_estimators": 5}), "say trees="),
        (lambda: LightGBM({"boosting": "dart"}), "plain ones"),
        (lambda: LightGBM({"objective": "lambdarank"}), "'lambdarank' cannot be continued"),
        (lambda: LightGBM({"objective": abs}), "the objective is a name"),
        (lambda: LightGBM({"random_state": 3}), "the strategy has the seed"),
        (lambda: XGBoost({"booster": "gblinear"}), "plain ones"),
        (lambda: XGBoost({"base_score": 0.1}), "the first chunk"),
        (lambda: XGBoost({"objective": "rank:ndcg"}), "cannot be continued"),
        (lambda: XGBoost(trees=0), "whole number from 1"),
        (lambda: XGBoost(trees=50, at_most=10), "more than at_most"),
        (lambda: LightGBM(full="stop"), "'drop' or 'refit'"),  # type: ignore[arg-type]
        (lambda: LightGBM(decay=0.0), "above 0"),
        (lambda: LightGBM(keep=1.0), "below 1"),
        (lambda: LightGBM(full="refit", decay=0.5), "choose one"),
        (lambda: LightGBM({"path_smooth": 1.0}, full="refit"), "path_smooth"),
    ],
)
def test_arguments_that_cannot_be_are_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make()


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        (LightGBM({"num_leaves": -3}), "num_leaves"),
        (XGBoost({"max_depht": 3}), "max_depht"),
        (XGBoost({"learning_rate": -1}), "learning_rate|eta"),
    ],
)
def test_parameters_that_the_library_refuses_are_refused_beforehand(
    definition: Any, said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        definition.make_learner(COLUMNS, classes=2)


@pytest.mark.parametrize(
    ("estimator", "kind"),
    [
        (lightgbm.LGBMClassifier(num_leaves=7), "classifier"),
        (lightgbm.LGBMRegressor(n_estimators=30, random_state=1), "regressor"),
        (xgboost.XGBClassifier(max_depth=3), "classifier"),
        (xgboost.XGBRegressor(n_estimators=30, n_jobs=1), "regressor"),
    ],
)
def test_estimators_of_the_libraries_stand_in_a_model_as_they_are(
    estimator: Any, kind: str
) -> None:
    columns = replace(COLUMNS, target_kind="integer")
    assert learner_kind(estimator, columns, classes=2) == kind
    learner: Any = as_learner(estimator, columns, classes=2)
    assert learner.definition.at_most == (estimator.n_estimators or 100)
    rows = make_rows(0, 300, classes=2 if kind == "classifier" else 0)
    for batch in rows.split(100):
        learner.learn(batch)
    assert np.corrcoef(learner.predict(rows).value, rows.y)[0, 1] > 0.8  # type: ignore[arg-type]
    equal_when_rebuilt(el.Model("m", learner=estimator))


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (lightgbm.LGBMRanker(), "cannot be continued"),
        (lightgbm.LGBMClassifier(class_weight="balanced"), "give rows a weight"),
        (xgboost.XGBRFClassifier(), "cannot be continued"),
        (xgboost.XGBClassifier(early_stopping_rounds=3), "a gate judges"),
        (xgboost.XGBClassifier(missing=-999.0), "a missing value is NaN"),
    ],
)
def test_estimators_that_cannot_be_continued_are_refused(estimator: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        as_learner(estimator, COLUMNS, classes=2)


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    at=st.integers(0, 5),
    trees=st.integers(1, 40),
    at_most=st.integers(40, 70),
    decay=st.sampled_from([1.0, 0.9, 0.5]),
    library=st.sampled_from([LightGBM, XGBoost]),
    classes=st.integers(2, 4),
)
def test_saved_anywhere_it_goes_on_bit_equal(
    sizes: list[int], at: int, trees: int, at_most: int, decay: float, library: Any, classes: int
) -> None:
    definition = library({"max_depth": 3}, trees=trees, at_most=at_most, decay=decay)
    first = definition.make_learner(COLUMNS, classes=min(classes, 2), seed=3)
    second = definition.make_learner(COLUMNS)
    start, changed = 0, False
    for number, size in enumerate(sizes):
        if number == at:
            second.load(copied(first.save()))
            changed = True
        rows = make_rows(start, start + size, classes=classes)
        start += size
        answers = []
        for learner in (first, second) if changed else (first,):
            learner.grow(classes)
            answers.append(learner.learn(rows, score=size))
        assert same_prediction(answers[0], answers[-1])
    if changed:
        assert state_digest(first.save()) == state_digest(second.save())


def test_rows_of_a_chunk_are_learned_whatever_their_order_of_categories() -> None:
    """Codes follow what was learned first; more than there are codes are as if missing."""
    learner = LightGBM(categories=2).make_learner(COLUMNS, classes=2)
    learner.learn(make_rows(0, 200))
    assert len(learner.save()["codes"].arrays["values.0"]) == 2
    rows = make_rows(200, 300)
    unknown = replace(rows, categories=np.full((100, 1), 10**18, np.uint64))
    missing = replace(rows, categories=np.zeros((100, 1), np.uint64))
    assert same_prediction(learner.predict(unknown), learner.predict(missing))


def test_no_column_is_refused() -> None:
    with pytest.raises(SpecError, match="no feature column"):
        LightGBM().make_learner(Columns(target="y"), classes=2)


def test_batches_are_not_changed() -> None:
    rows = make_rows(0, 100)
    kept = Batch.concat([rows, rows])
    LightGBM().make_learner(COLUMNS, classes=2).learn(rows, score=100)
    assert np.array_equal(kept.numbers[:100], rows.numbers, equal_nan=True)
