"""Native learners by the conventions of scikit-learn: what its users do with an estimator."""

from __future__ import annotations

import copy
import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted

from everlearn.base import Batch, InputError, SpecError, state_digest
from everlearn.learners import GaussianNB, Majority, NoChange, RunningMean
from tests.learners.natives import IN_GROUPS, TABLE, data

GENERATOR = np.random.default_rng(1)
X = GENERATOR.normal(size=(300, 3))
TWO = X[:, 0] > 0.0
THREE = np.digitize(X[:, 0], [-0.5, 0.5])
LABELS = {
    "texts": np.array(["z", "m", "a"])[THREE],
    "objects": np.array(["z", "m", "a"], object)[THREE],
    "lists of texts": ["zma"[k] for k in THREE],
    "whole numbers": THREE * 7 - 7,
    "small whole numbers": THREE.astype(np.uint8),
    "lists of whole numbers": THREE.tolist(),
    "objects that are whole numbers": THREE.astype(object),
    "fractions that are whole": THREE.astype(float),
    "booleans": TWO,
    "lists of booleans": TWO.tolist(),
    "pandas texts": pd.Series(np.array(["z", "m", "a"])[THREE]),
    "pandas categories": pd.Series(np.array(["z", "m", "a"])[THREE], dtype="category"),
    "pandas whole numbers": pd.Series(THREE, dtype="Int64"),
    "polars texts": pl.Series(np.array(["z", "m", "a"])[THREE].tolist()),
    "polars booleans": pl.Series(TWO),
}


# --- every native learner ----------------------------------------------------------------------


@pytest.fixture(params=IN_GROUPS)
def entry(request):
    return TABLE[request.param]


def rows_of(entry, rows=400, seed=0):
    X, y = data(entry, rows, seed)
    return (X,) if y is None else (X, y)


def parted(given, size):
    """Rows in chunks of a size."""
    for start in range(0, len(given[0]), size):
        yield tuple(array[start : start + size] for array in given)


def test_is_copied_without_what_it_learned(entry):
    learner = entry.make()
    given = rows_of(entry)
    expected = learner.fit(*given).predict(given[0])
    params = learner.get_params()
    for made in (clone(learner), learner.clone(), type(learner)(**learner.get_params(deep=False))):
        assert type(made) is type(learner)
        assert repr(made) == repr(learner)
        assert set(made.get_params()) == set(params)
        assert (made.fit(*given).predict(given[0]) == expected).all()


def test_a_deep_copy_goes_on_by_itself(entry):
    given = rows_of(entry)
    learner = entry.make().fit(*given)
    before = state_digest(learner.save())
    other = copy.deepcopy(learner)
    assert state_digest(other.save()) == before
    other.partial_fit(*rows_of(entry, 100, seed=1))
    assert state_digest(learner.save()) == before != state_digest(other.save())


def test_parameters_can_be_changed(entry):
    learner = entry.make()
    for name, value in learner.get_params(deep=False).items():
        assert learner.set_params(**{name: value}) is learner
    learner.fit(*rows_of(entry))
    with pytest.raises(SpecError, match=r"has no parameter 'colour': \["):
        learner.set_params(colour=1)


def test_chunks_make_no_difference_to_values(entry):
    """Classes appear in the middle of chunks."""
    given = rows_of(entry, 200)
    if entry.make().kind == "classifier":
        order = np.argsort(given[1][:60], kind="stable")
        given = tuple(np.concatenate([array[:60][order], array[60:]]) for array in given)
    for proba in (False, True) if hasattr(entry.make(), "predict_proba") else (False,):
        learners = [entry.make() for _ in range(3)]
        answers, digests = [], []
        for learner, size in zip(learners, (1, 13, 1000), strict=True):
            pieces = [learner.score_then_learn(*part, proba=proba) for part in parted(given, size)]
            if proba:
                width = len(learner.classes_)
                last = learners[0].classes_
                pieces = [
                    _columns_of(piece, given[1], size, k, last) for k, piece in enumerate(pieces)
                ]
                assert width == len(last)
            answers.append(np.concatenate(pieces))
            digests.append(state_digest(learner.save()))
        assert digests[0] == digests[1] == digests[2]
        assert np.array_equal(answers[0], answers[1])
        assert np.array_equal(answers[0], answers[2])


def _columns_of(piece, y, size, number, classes):
    """Probabilities of the classes known by then, as columns of all."""
    known = sorted(set(y[: (number + 1) * size].tolist()))
    out = np.zeros((len(piece), len(classes)))
    out[:, np.searchsorted(classes, known)] = piece
    return out


def test_what_is_predicted_first_is_what_predict_says(entry):
    given = rows_of(entry)
    learner = entry.make().fit(*given)
    more = rows_of(entry, 50, seed=2)
    expected = [learner.predict(more[0][:1])[0]]
    first = learner.score_then_learn(*more)[0]
    assert first == expected[0]


def test_learn_one_is_partial_fit_of_one_row(entry):
    given = rows_of(entry, 60)
    one, other, third = entry.make(), entry.make(), entry.make()
    answers = [one.learn_one(*(array[i] for array in given)) for i in range(60)]
    for part in parted(given, 1):
        other.partial_fit(*part)
    assert state_digest(one.save()) == state_digest(other.save())
    assert answers == third.score_then_learn(*given).tolist()


def test_no_rows_change_nothing(entry):
    given = rows_of(entry)
    learner = entry.make().fit(*given)
    before = state_digest(learner.save())
    nothing = tuple(array[:0] for array in given)
    assert len(learner.partial_fit(*nothing).predict(nothing[0])) == 0
    assert len(learner.score_then_learn(*nothing)) == 0
    assert state_digest(learner.save()) == before
    late = entry.make().partial_fit(*nothing).partial_fit(*given)
    assert (late.predict(given[0]) == learner.predict(given[0])).all()


def test_fit_begins_anew(entry):
    given, other = rows_of(entry), rows_of(entry, 90, seed=5)
    learner = entry.make().fit(*other)
    assert (
        learner.fit(*given).predict(given[0]) == entry.make().fit(*given).predict(given[0])
    ).all()


def test_data_frames_and_lists(entry):
    given = rows_of(entry)
    expected = entry.make().fit(*given).predict(given[0])
    names = [f"x{k}" for k in range(given[0].shape[1])]
    for rows in (
        pd.DataFrame(given[0], columns=names),
        pl.DataFrame(given[0], schema=names),
        given[0].tolist(),
        np.asfortranarray(given[0]),
    ):
        found = entry.make().fit(rows, *given[1:]).predict(rows)
        assert np.array_equal(found, expected)


def test_nothing_given_is_written_to(entry):
    given = rows_of(entry)
    kept = [array.copy() for array in given]
    for array in given:
        array.flags.writeable = False
    entry.make().fit(*given).predict(given[0])
    for array, copied in zip(given, kept, strict=True):
        assert np.array_equal(array, copied, equal_nan=array.dtype.kind == "f")


WRONG = [
    (lambda X: X[0], r"X has shape \(\d,\), not \(n_samples, n_features\)"),
    (lambda X: X[:, :0], r"0 feature\(s\)|it takes ids of users"),
    (lambda X: X.astype(str), "something else than numbers|is not a whole number"),
    (lambda X: X * 1j, "Complex data not supported"),
]


@pytest.mark.parametrize(("spoil", "said"), WRONG)
def test_wrong_rows(entry, spoil, said):
    X, *y = rows_of(entry)
    learner = entry.make().fit(X, *y)
    before = state_digest(learner.save())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for use in (
            lambda: learner.predict(spoil(X)),
            lambda: learner.partial_fit(spoil(X), *y),
            lambda: entry.make().fit(spoil(X), *y),
        ):
            with pytest.raises(InputError):
                use()
    assert state_digest(learner.save()) == before


def test_wrong_targets_and_weights(entry):
    given = rows_of(entry)
    learner = entry.make().fit(*given)
    before = state_digest(learner.save())
    weights = [np.ones(399), -np.ones(400), np.full(400, np.nan), np.full(400, np.inf), ["a"] * 400]
    for weight in (*weights, np.ones((400, 1)), np.ones(400) * 1j):
        with pytest.raises(InputError, match="weight"):
            learner.partial_fit(*given, sample_weight=weight)
    if len(given) == 2:
        for y in (given[1][:-1], np.array([given[1]] * 2).T, [float("nan")] * 400, [None] * 400):
            with pytest.raises(InputError):
                learner.partial_fit(given[0], y)
        with pytest.raises(InputError, match="requires y to be passed"):
            learner.partial_fit(given[0])
    assert state_digest(learner.save()) == before


def scores_of(learner, rows):
    """Values, or scores of classes; of logarithms of probabilities only their differences count."""
    if learner.kind != "classifier":
        return learner.predict(rows)
    scores = learner.decision_function(rows)
    return scores - scores.mean(axis=1, keepdims=True) if scores.ndim == 2 else scores


def same(found, expected, tolerance=1e-9):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-9)


def test_merged(entry):
    if not hasattr(entry.make(), "merge"):
        assert not entry.merges
        return
    parts = [rows_of(entry, rows, seed=rows) for rows in (300, 200, 100)]
    learners = [entry.make().fit(*part) for part in parts]
    kept = [state_digest(learner.save()) for learner in learners]
    one, two, three = learners
    rows = rows_of(entry, 50, seed=9)[0]
    for alone in (one.merge([]), one.merge([entry.make()]), entry.make().merge([one])):
        same(scores_of(alone, rows), scores_of(one, rows))
    merged, other = one.merge([two, three]), three.merge([one, two])
    assert repr(merged) == repr(one)
    same(scores_of(merged, rows), scores_of(other, rows))
    if entry.merges in ("scores", "logarithms"):
        whole = rows[~np.isnan(rows).any(axis=1)]
        scores = [scores_of(learner, whole) for learner in (*learners, merged)]
        if entry.merges == "logarithms":
            scores = [np.log(score) for score in scores]
        same(scores[3], 3 / 6 * scores[0] + 2 / 6 * scores[1] + 1 / 6 * scores[2], 1e-6)
    if entry.merges == "rows":
        whole = entry.make().fit(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        assert (merged.predict(rows) == whole.predict(rows)).all()
        same(scores_of(merged, rows), scores_of(whole, rows), 1e-6)
    before = state_digest(merged.save())
    merged.partial_fit(*parts[0])
    assert before != state_digest(merged.save())
    assert [state_digest(learner.save()) for learner in learners] == kept
    with pytest.raises(InputError, match="columns"):
        one.merge([entry.make().fit(parts[0][0][:, :-1], *parts[0][1:])])


def test_merged_classes_have_one_order(entry):
    if entry.make().kind != "classifier" or not hasattr(entry.make(), "merge") or entry.pairs:
        return
    X, y = data(entry, 300)
    names = sorted(set(y))
    first = entry.make().fit(X[y != names[0]], y[y != names[0]])
    second = entry.make().fit(X[y == names[0]], y[y == names[0]])
    merged = first.merge([second])
    assert merged.classes_.tolist() == names
    again = second.merge([first])
    same(scores_of(again, X), scores_of(merged, X))


def test_sparse_rows(entry):
    if not getattr(entry.make(), "takes_sparse", False):
        with pytest.raises(ValueError, match="sparse"):
            entry.make().fit(sp.csr_matrix(np.ones((4, 3))), rows_of(entry, 4)[-1])
        return
    X, *y = rows_of(entry)
    X = np.where(np.abs(np.nan_to_num(X)) < 0.7, 0.0, np.round(8.0 * np.nan_to_num(X)) / 8.0)
    rows = sp.csr_array(X)
    learners = [entry.make() for _ in range(3)]
    for learner, size in zip(learners, (1, 17, 400), strict=True):
        for start in range(0, 400, size):
            part = slice(start, start + size)
            learner.partial_fit(rows[part], *(array[part] for array in y))
    assert len({state_digest(learner.save()) for learner in learners}) == 1
    learner = learners[0]
    expected = learner.predict(rows)
    for form in (sp.csc_array(X), sp.coo_array(X), sp.csr_matrix(X), rows.astype(np.float32)):
        found = entry.make().fit(form, *y).predict(rows)
        assert np.array_equal(found, expected)
    assert np.array_equal(entry.make().load(learner.save()).predict(rows), expected)
    assert np.array_equal(
        np.concatenate([learner.predict(rows[[i]]) for i in range(400)]), expected
    )
    assert len(learner.predict(rows[:0])) == 0
    empty = sp.csr_array((3, X.shape[1]))
    assert len(set(learner.predict(empty).tolist())) == 1
    with pytest.raises(InputError, match="has learned sparse rows; these are dense"):
        learner.predict(X)
    with pytest.raises(InputError, match="has learned dense rows; these are sparse"):
        entry.make().fit(X, *y).predict(rows)


def test_its_kind_is_known(entry):
    learner = entry.make()
    assert is_classifier(learner) == (learner.kind == "classifier")
    assert is_regressor(learner) == (learner.kind == "regressor")


def test_cross_validation(entry):
    given = rows_of(entry)
    learner = entry.make()
    if learner.kind not in ("classifier", "regressor") or len(given) < 2:
        return
    assert np.isfinite(cross_val_score(learner, *given, cv=3)).all()


OTHERWISE = {
    "check_dtype_object": "what is no number is refused with an InputError, which is a ValueError",
    "check_supervised_y_2d": "a target of one column is refused, not reshaped with a warning",
    "check_sample_weight_equivalence_on_dense_data": "it shuffles rows, and their order matters",
    "check_sample_weight_equivalence_on_sparse_data": "it shuffles rows, and their order matters",
}
"""What scikit-learn's checks ask for and native learners do otherwise."""


def test_checks_of_scikit_learn(entry):
    learner = entry.make()
    usual = learner.kind in ("classifier", "regressor") and not entry.pairs
    if not usual or entry.suite.get("targets_from_0"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it inherits nothing of scikit-learn's
        results = check_estimator(
            learner,
            expected_failed_checks=OTHERWISE | entry.checks,
            on_fail=None,
            on_skip=None,
        )
    failed = {
        result["check_name"]: result["exception"]
        for result in results
        if result["status"] == "failed"
    }
    assert failed == {}
    passed = {result["check_name"] for result in results if result["status"] == "passed"}
    assert not passed & set(entry.checks), "checks that are passed after all"


# --- classes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", LABELS)
@pytest.mark.parametrize("learner", [GaussianNB(), NoChange()], ids=repr)
def test_classes_come_back_as_they_were_given(form, learner):
    y = LABELS[form]
    values = np.asarray(y).tolist()
    learner.fit(X, y)
    kind = {"small whole numbers": np.uint8}.get(form)
    assert learner.classes_.tolist() == sorted(set(values))
    assert kind or learner.classes_.dtype.kind == np.array(values).dtype.kind
    assert set(learner.predict(X).tolist()) <= set(values)
    assert type(learner.predict(X)[0].item()) is type(values[0])
    again = learner.clone().score_then_learn(X, y)
    assert set(again.tolist()) <= set(values)
    assert learner.score(X, y) == np.mean(learner.predict(X) == np.asarray(y))
    codes = GaussianNB().fit(X, np.searchsorted(sorted(set(values)), values))
    if isinstance(learner, GaussianNB):
        assert np.array_equal(codes.predict_proba(X), learner.predict_proba(X))
        assert (
            codes.classes_[codes.predict(X)]
            == np.searchsorted(learner.classes_, learner.predict(X))
        ).all()


def test_columns_of_probabilities_are_those_of_classes():
    y = np.array(["z", "m", "a"])[THREE]
    learner = GaussianNB().fit(X, y)
    assert y[0] != learner.classes_[0], "or the order of appearance is that of the classes"
    proba, scores = learner.predict_proba(X), learner.decision_function(X)
    assert (learner.classes_[proba.argmax(axis=1)] == learner.predict(X)).all()
    assert (learner.classes_[scores.argmax(axis=1)] == learner.predict(X)).all()
    np.testing.assert_allclose(np.exp(scores), proba)
    assert (learner.predict(X) == y).mean() > 0.8
    two = GaussianNB().fit(X, np.where(TWO, "a", "b"))
    second = two.decision_function(X) > 0
    assert second.shape == (300,)
    assert (two.classes_[second.astype(int)] == two.predict(X)).all()


@pytest.mark.parametrize("first", [True, False])
def test_scores_do_not_depend_on_which_class_comes_first(first):
    order = np.argsort(first != TWO, kind="stable")
    for scoring in ("roc_auc", "neg_log_loss", "average_precision", "neg_brier_score"):
        for y in (TWO, TWO.astype(int)):
            scores = cross_val_score(GaussianNB(), X[order], y[order], scoring=scoring)
            expected = cross_val_score(
                GaussianNB(classes=[False, True]), X[order], y[order], scoring=scoring
            )
            np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-9)


def test_classes_that_are_declared_exist_from_the_start():
    for learner in (
        Majority(classes=["b", "a"]),
        Majority().partial_fit(X[:0], np.array([], object), classes=["b", "a"]),
        Majority(classes=("b", "a")),
    ):
        assert learner.classes_.tolist() == ["a", "b"]
        assert (learner.predict_proba(X[:4]) == 0.5).all()
        assert set(learner.predict(X[:4])) == {"a"}
        learner.partial_fit(X[:2], ["a", "c"])
        assert learner.classes_.tolist() == ["a", "b", "c"]
    assert Majority(classes=3).classes_.tolist() == [0, 1, 2]
    assert Majority(classes=3).classes_.dtype == np.int64
    for given in (np.int64(3), np.arange(3), range(3)):
        assert Majority(classes=given).fit(X, THREE).classes_.tolist() == [0, 1, 2]
    assert Majority(classes=2).fit(X[:2], [0, 0]).predict_proba(X[:1]).tolist() == [[0.75, 0.25]]


def test_partial_fit_is_told_of_classes_at_every_call():
    learner = GaussianNB()
    for part in parted((X, np.array(["z", "m", "a"])[THREE]), 50):
        learner.partial_fit(*part, classes=["a", "m", "z"])
    assert learner.predict_proba(X).shape == (300, 3)
    one = GaussianNB().partial_fit(X[:1], ["m"], ["a", "m", "z"])
    assert one.predict_proba(X[:1]).shape == (1, 3)


def test_wrong_classes():
    for classes in (0, -2, 2.0, True, "abc", np.float64(2.0), np.array(2.0)):
        said = rf"{re.escape(f'classes={classes!r}')}; it takes a whole number from 1, or a list"
        with pytest.raises(SpecError, match=said):
            Majority(classes=classes).fit(X, THREE)
    with pytest.raises(InputError, match="listed twice"):
        Majority(classes=["a", "a"]).fit(X, THREE)
    with pytest.raises(InputError, match="the classes are texts"):
        Majority(classes=["a", "b"]).fit(X, THREE)
    with pytest.raises(InputError, match=r"Unknown label type: continuous\. 0\.5 is no class"):
        Majority().fit(X[:2], [1.0, 0.5])
    assert Majority(classes=[0.5, 1.0]).fit(X[:2], [1.0, 0.5]).classes_.tolist() == [0.5, 1.0]
    with pytest.raises(InputError, match="NaN or infinite"):
        Majority().fit(X[:2], [1.0, np.nan])
    with pytest.raises(InputError, match="is a text or a number, not None"):
        Majority().fit(X[:2], ["a", None])
    with pytest.raises(InputError, match="has no classes"):
        RunningMean().partial_fit(X[:2], [1.0, 2.0], classes=[0, 1])


def test_numbers_of_classes_change_their_type_when_others_come():
    learner = Majority().partial_fit(X[:2], [True, False])
    assert learner.classes_.dtype == np.bool_
    learner.partial_fit(X[:2], [2, 1])
    assert learner.classes_.tolist() == [0, 1, 2] and learner.classes_.dtype == np.int64


def test_before_anything_was_learned():
    for use in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(NotFittedError, match=r"Majority\(\) knows no classes: name them"):
            getattr(Majority(), use)(X)
    assert Majority().classes_.tolist() == []
    assert (RunningMean().predict(X) == 0.0).all()
    for learner in (Majority(), RunningMean(), Majority(classes=2)):
        with pytest.raises(AttributeError):
            _ = learner.n_features_in_
    check_is_fitted(GaussianNB().fit(X, TWO))
    assert GaussianNB().fit(X, TWO).n_features_in_ == 3


# --- rows --------------------------------------------------------------------------------------


def test_other_columns():
    learner = GaussianNB().fit(X, TWO)
    for use in (learner.predict, lambda X: learner.partial_fit(X, TWO)):
        with pytest.raises(InputError, match="X has 2 features, but GaussianNB is expecting 3"):
            use(X[:, :2])
    nominal = GaussianNB(nominal=(1,)).fit(X, TWO)
    with pytest.raises(InputError, match=r"\(1, 0, 1\), not \(2, 0, 1\)"):
        nominal.predict(X[:, :2])


@pytest.mark.parametrize("nominal", [2, np.int64(2), None])
def test_nominal_lists_columns(nominal):
    with pytest.raises(SpecError, match=r"it takes a list of columns .* such as nominal=\(2,\)"):
        GaussianNB(nominal=nominal).fit(X, TWO)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
@pytest.mark.parametrize("learner", [GaussianNB(), RunningMean()], ids=repr)
def test_columns_of_data_frames_keep_their_names(frame, learner):
    rows = frame({"x": X[:, 0], "y": X[:, 1]})
    learner = learner.clone().fit(rows, THREE)
    assert learner.feature_names_in_.tolist() == ["x", "y"]
    for other in (learner, learner.clone().load(learner.save()), copy.deepcopy(learner)):
        for wrong in (rows[["y", "x"]], frame({"x": X[:, 0], "z": X[:, 1]})):
            for use in (other.predict, lambda rows: learner.partial_fit(rows, THREE)):
                with pytest.raises(InputError, match=r"has learned \['x', 'y'\]"):
                    use(wrong)
        assert np.array_equal(other.predict(X[:, :2]), learner.predict(rows))
    learner.fit(rows[["y", "x"]], THREE)
    assert learner.feature_names_in_.tolist() == ["y", "x"]
    learner.fit(X[:, :2], THREE).predict(rows)
    with pytest.raises(AttributeError):
        _ = learner.feature_names_in_
    learner.fit(pd.DataFrame(X), THREE).predict(X)


def test_weights_are_repetitions():
    weight = GENERATOR.integers(0, 3, len(X))
    rows = np.repeat(np.arange(len(X)), weight)
    learner = GaussianNB().fit(X, THREE, sample_weight=weight)
    again = GaussianNB().fit(X[rows], THREE[rows])
    np.testing.assert_allclose(
        learner.predict_proba(X), again.predict_proba(X), rtol=1e-9, atol=1e-9
    )
    for form in (weight.tolist(), pd.Series(weight), weight.astype(np.float32)):
        other = GaussianNB().partial_fit(X, THREE, sample_weight=form)
        assert state_digest(other.save()) == state_digest(learner.save())
    assert learner.score(X, THREE, weight) == np.average(
        learner.predict(X) == THREE, weights=weight
    )


def test_batches():
    ids = np.arange(300, dtype=np.uint64)
    empty = {"categories": np.zeros((300, 0), np.uint64), "times": np.zeros((300, 0), np.int64)}
    batch = Batch(numbers=X, ids=ids, y=THREE.astype(float), weight=np.ones(300), **empty)
    learner = GaussianNB().partial_fit(batch)
    expected = GaussianNB().fit(X, THREE.astype(float))
    assert state_digest(learner.save()) == state_digest(expected.save())
    assert (learner.predict(batch) == expected.predict(X)).all()
    assert (GaussianNB().score_then_learn(batch) == GaussianNB().score_then_learn(X, THREE)).all()
    with pytest.raises(InputError, match="the target y is None"):
        GaussianNB().partial_fit(batch.with_y(None))


# --- the rest of scikit-learn ------------------------------------------------------------------


def test_in_a_pipeline():
    frame = pd.DataFrame(
        {"x": X[:, 0], "y": X[:, 1], "place": np.array(["p", "q"])[TWO.astype(int)]}
    )
    steps = make_pipeline(
        ColumnTransformer([("n", SimpleImputer(), ["x", "y"]), ("c", OrdinalEncoder(), ["place"])]),
        GaussianNB(nominal=(2,)),
    )
    assert steps.fit(frame, TWO).score(frame, TWO) > 0.9
    assert (steps.predict_proba(frame).argmax(axis=1) == steps.predict(frame)).all()
    assert cross_val_score(steps, frame, TWO).mean() > 0.9
    scaled = make_pipeline(StandardScaler(), GaussianNB()).fit(X, THREE)
    assert (scaled.classes_ == [0, 1, 2]).all()


def test_in_a_grid_search_and_other_estimators():
    search = GridSearchCV(GaussianNB(), {"nominal": [(), (2,)]}, scoring="roc_auc").fit(X, TWO)
    assert search.best_params_["nominal"] in ((), (2,))
    assert search.best_score_ > 0.9
    assert (search.best_estimator_.predict(X) == search.predict(X)).all()
    search = GridSearchCV(make_pipeline(GaussianNB()), {"gaussiannb__nominal": [(), (2,)]})
    assert search.fit(X, THREE).score(X, THREE) > 0.8
    rest = OneVsRestClassifier(GaussianNB()).fit(X, THREE)
    assert rest.predict_proba(X).shape == (300, 3)
    proba = cross_val_predict(GaussianNB(), X, THREE, method="predict_proba")
    assert (proba.argmax(axis=1) == THREE).mean() > 0.8


def test_in_other_processes():
    search = GridSearchCV(GaussianNB(), {"nominal": [(), (2,)]}, n_jobs=2)
    assert search.fit(X, THREE).score(X, THREE) > 0.8


def test_scores():
    learner = GaussianNB().fit(X, TWO)
    assert learner.score(X, TWO) == np.mean(learner.predict(X) == TWO)
    mean = RunningMean().fit(X, X[:, 1])
    assert mean.score(X, X[:, 1]) == pytest.approx(0.0)
    assert mean.score(X, np.ones(300)) == 0.0
